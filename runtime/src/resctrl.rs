//! `linux.intelRdt`: cache and memory bandwidth by the resctrl file system
//! (Documentation/filesystems/resctrl.rst of the kernel).
//!
//! ```text
//! <mount>/schemata, tasks            the default class, closID "/"
//! <mount>/<closID>/schemata, tasks   a class of service
//!                  mon_groups/<id>/  what one container of the class uses
//! ```
//! A class that is there is joined and stays; one that was made for a
//! container goes with it.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind as Io, Write};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

const FIELD: &str = "linux.intelRdt";
/// Directories and files of the file system itself.
const RESERVED: [&str; 9] =
    ["info", "mon_data", "mon_groups", "schemata", "tasks", "cpus", "cpus_list", "mode", "size"];

/// What a config asks for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResctrlPlan {
    /// `None` is the default class.
    class: Option<String>,
    /// Whether it must be there: nothing says how to make it.
    existing: bool,
    /// Lines for `schemata`, in order.
    schemata: Vec<String>,
    /// The name of a monitoring group, if one is wanted.
    monitor: Option<String>,
}

impl ResctrlPlan {
    /// Checks the field of container `id`, after which a class is named that
    /// has no name in the config.
    ///
    /// # Errors
    /// `InvalidInput` for names that are no directory names, for schemata that
    /// are no lines, and for a monitoring without anything to monitor.
    pub(crate) fn new(rdt: &LinuxIntelRdt, id: &str) -> Result<Self> {
        let mut schemata = Vec::new();
        let cache = rdt.l3_cache_schema().iter().map(|line| ("l3CacheSchema", line));
        let bandwidth = rdt.mem_bw_schema().iter().map(|line| ("memBwSchema", line));
        let whole = rdt.schemata().iter().flatten().map(|line| ("schemata", line));
        for (name, line) in cache.chain(bandwidth).chain(whole) {
            if line.is_empty() || line.contains(['\n', '\0']) {
                return Err(Error::field(
                    format!("{FIELD}.{name}"),
                    format!("{line:?} is no line"),
                ));
            }
            schemata.push(line.clone());
        }
        #[allow(deprecated, reason = "older configs ask for monitoring by these two")]
        let older = rdt.enable_cmt().unwrap_or(false) || rdt.enable_mbm().unwrap_or(false);
        let monitored = older || rdt.enable_monitoring().unwrap_or(false);
        let class = match rdt.clos_id().as_deref().filter(|name| !name.is_empty()) {
            Some("/") => None,
            Some(name) => Some(checked(name)?.to_owned()),
            None if schemata.is_empty() => None,
            None => Some(id.to_owned()),
        };
        let existing = schemata.is_empty();
        Ok(Self { class, existing, schemata, monitor: monitored.then(|| id.to_owned()) })
    }
}

impl fmt::Display for ResctrlPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "resctrl class {}", self.class.as_deref().unwrap_or("/"))?;
        for line in &self.schemata {
            write!(f, ", {line}")?;
        }
        match &self.monitor {
            Some(name) => write!(f, ", monitored as {name}"),
            None => Ok(()),
        }
    }
}

fn checked(name: &str) -> Result<&str> {
    let bad = |c: char| c == '/' || c.is_control();
    if matches!(name, "." | "..") || name.contains(bad) || RESERVED.contains(&name) {
        return Err(Error::field(
            format!("{FIELD}.closID"),
            format!("{name:?} is no name of a class"),
        ));
    }
    Ok(name)
}

/// The groups of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// The class's directory.
    class: PathBuf,
    /// The monitoring group's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<PathBuf>,
    /// What was made for the container, to be removed with it.
    #[serde(default)]
    made: Vec<PathBuf>,
}

/// Where the file system is mounted.
///
/// # Errors
/// `Unsupported` when it is not.
pub(crate) fn mount_point() -> Result<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|e| Error::sys(format!("{FIELD}: read mountinfo"), e))?;
    let point = table.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        file_system.starts_with("resctrl ").then(|| mount.split(' ').nth(4))?
    });
    point.map(PathBuf::from).ok_or_else(|| {
        let text = format!("{FIELD}: the resctrl file system is not mounted on this host");
        Error::new(ErrorKind::Unsupported, text)
    })
}

impl Groups {
    /// Makes what is missing below `root` and writes the schemata.
    ///
    /// # Errors
    /// `InvalidInput` for a class that has to exist and does not, and for
    /// schemata that the kernel refuses. Nothing is left then.
    pub(crate) fn make(plan: &ResctrlPlan, root: &Path) -> Result<Self> {
        let class = plan.class.as_ref().map_or_else(|| root.to_owned(), |name| root.join(name));
        let mut groups = Self { class, monitor: None, made: Vec::new() };
        let result = groups.prepare(plan);
        if result.is_err() {
            groups.remove();
        }
        result.map(|()| groups)
    }

    fn prepare(&mut self, plan: &ResctrlPlan) -> Result<()> {
        let class = self.class.clone();
        if plan.existing {
            if !class.is_dir() {
                let problem = format!("{} does not exist, and no schema is given", class.display());
                return Err(Error::field(format!("{FIELD}.closID"), problem));
            }
        } else {
            self.make_dir(&class)?;
            let lines: String = plan.schemata.iter().map(|line| format!("{line}\n")).collect();
            write(&class.join("schemata"), &lines)?;
        }
        if let Some(name) = &plan.monitor {
            let group = class.join("mon_groups").join(name);
            self.make_dir(&group)?;
            self.monitor = Some(group);
        }
        Ok(())
    }

    fn make_dir(&mut self, path: &Path) -> Result<()> {
        match fs::create_dir(path) {
            Ok(()) => self.made.push(path.to_owned()),
            Err(e) if e.kind() == Io::AlreadyExists => {}
            // No class of service or monitoring id is left.
            Err(e) => return Err(Error::sys(format!("{FIELD}: make {}", path.display()), e)),
        }
        Ok(())
    }

    /// Puts a process into the groups; what it starts later follows.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn join(&self, pid: i32) -> Result<()> {
        let directories = [Some(&self.class), self.monitor.as_ref()];
        directories
            .into_iter()
            .flatten()
            .try_for_each(|directory| write(&directory.join("tasks"), &pid.to_string()))
    }

    /// Removes what was made. Processes that are still in a group fall back to
    /// the one above.
    pub(crate) fn remove(&self) {
        for directory in self.made.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| {
        let wrong = matches!(e.kind(), Io::InvalidInput);
        let error = Error::sys(format!("{FIELD}: write {text:?} to {}", path.display()), e);
        if wrong { error.with_kind(ErrorKind::InvalidInput) } else { error }
    })
}

/// Groups that are removed unless they are kept.
#[derive(Debug)]
pub(crate) struct GroupsUndo(Option<Groups>);

impl GroupsUndo {
    pub(crate) fn new(groups: Option<Groups>) -> Self {
        Self(groups)
    }

    pub(crate) fn get(&self) -> Option<&Groups> {
        self.0.as_ref()
    }

    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for GroupsUndo {
    fn drop(&mut self) {
        if let Some(groups) = &self.0 {
            groups.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<ResctrlPlan> {
        ResctrlPlan::new(&serde_json::from_str(json).unwrap(), "c1")
    }

    /// A directory that looks like the file system, with the class `gold`.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for group in ["", "gold", "gold/mon_groups/c1"] {
            let group = dir.path().join(group);
            fs::create_dir_all(group.join("mon_groups")).unwrap();
            for file in ["schemata", "tasks"] {
                fs::write(group.join(file), "").unwrap();
            }
        }
        dir
    }

    fn text(dir: &tempfile::TempDir, file: &str) -> String {
        fs::read_to_string(dir.path().join(file)).unwrap()
    }

    #[test]
    fn a_class_that_exists_is_joined_and_stays() {
        let dir = tree();
        let plan = plan(
            r#"{"closID":"gold","memBwSchema":"MB:0=50","l3CacheSchema":"L3:0=ff",
                "schemata":["L2:0=f","MB:1=10"],"enableMonitoring":true}"#,
        );
        let groups = Groups::make(&plan.unwrap(), dir.path()).unwrap();
        assert_eq!(text(&dir, "gold/schemata"), "L3:0=ff\nMB:0=50\nL2:0=f\nMB:1=10\n");
        groups.join(17).unwrap();
        assert_eq!(text(&dir, "gold/tasks"), "17");
        assert_eq!(text(&dir, "gold/mon_groups/c1/tasks"), "17");
        assert_eq!(text(&dir, "tasks"), "");
        groups.remove();
        assert!(dir.path().join("gold/mon_groups/c1").exists());
    }

    #[test]
    fn the_default_class_is_the_mount_itself() {
        for json in [r#"{"closID":"/"}"#, "{}"] {
            let dir = tree();
            let groups = Groups::make(&plan(json).unwrap(), dir.path()).unwrap();
            groups.join(17).unwrap();
            assert_eq!((text(&dir, "tasks"), text(&dir, "schemata")), ("17".into(), String::new()));
        }
    }

    /// A plain directory gets no `schemata` by itself, so making a class fails
    /// behind the mkdir: red if that leaves the directory.
    #[test]
    fn a_class_that_could_not_be_made_is_gone() {
        let dir = tree();
        let plan = plan(r#"{"schemata":["MB:0=50"]}"#).unwrap();
        assert_eq!(plan.class.as_deref(), Some("c1"));
        let error = Groups::make(&plan, dir.path()).unwrap_err();
        assert!(error.to_string().contains("/c1/schemata"), "{error}");
        assert!(!dir.path().join("c1").exists());
    }

    #[test]
    fn a_class_without_schemata_has_to_exist() {
        let dir = tree();
        let error = Groups::make(&plan(r#"{"closID":"none"}"#).unwrap(), dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("linux.intelRdt.closID: "), "{error}");
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn names_and_lines_are_checked() {
        for name in ["..", ".", "a/b", "info", "mon_groups", "a\\nb"] {
            let error = plan(&format!(r#"{{"closID":"{name}"}}"#)).unwrap_err();
            assert!(error.to_string().starts_with("linux.intelRdt.closID: "), "{error}");
        }
        for (field, json) in [
            ("l3CacheSchema", r#"{"l3CacheSchema":"L3:0=f\nMB:0=1"}"#),
            ("memBwSchema", r#"{"memBwSchema":""}"#),
            ("schemata", r#"{"schemata":["MB:0=1","x\ny"]}"#),
        ] {
            let error = plan(json).unwrap_err();
            assert!(error.to_string().starts_with(&format!("linux.intelRdt.{field}: ")), "{error}");
        }
    }
}
