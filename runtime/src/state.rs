//! `state.json`: the record of a container that outlives the process that
//! made it.
//!
//! ```text
//! <root>/                0700, made when needed
//!   <id>/                0700; making it claims the id
//!     state.json         replaced by rename, so that readers see all or nothing
//!     seccomp.bpf        the filter of its processes, if they have one
//! ```
//! The root is on a tmpfs (/run): a reboot ends containers and records alike,
//! and nothing is fsynced.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io::{ErrorKind as Io, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroup::CgroupRecord;
use crate::hooks::Later;
use crate::plan::check_id;
use crate::resctrl::Groups;
use crate::seccomp::{self, Filter, Listener};
use crate::{Error, ErrorKind, Result};

const FILE: &str = "state.json";
const NEW_FILE: &str = "state.json.new";
const FILTER: &str = "seccomp.bpf";

/// The record. The first fields are those of the OCI state document
/// (runtime.md, "State"); `boathook` holds what only we need.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Pid of its first process in the host's namespace.
    pub pid: i32,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Annotations of the config.
    #[serde(default)]
    pub annotations: HashMap<String, String>,
    /// What the engine needs to find the container again.
    pub boathook: Private,
}

/// The engine's own part of the record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Private {
    /// Start time of the first process in clock ticks since boot: a reused pid
    /// has another one.
    pub start_time: u64,
    /// `CLONE_NEW*` of the namespaces that are not the host's.
    pub namespaces: u32,
    /// Whether the first process's end ends all others.
    pub private_pid: bool,
    /// Whether it has a session keyring of its own, which later processes join.
    #[serde(default)]
    pub keyring: bool,
    /// The cgroup.
    pub cgroup: CgroupRecord,
    /// Its resctrl groups; `None` without `linux.intelRdt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Groups>,
    /// How the filter in `seccomp.bpf` is loaded; `None` without a filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<SeccompRecord>,
    /// Hooks that are still to come.
    #[serde(default)]
    pub hooks: Later,
}

/// What is recorded of a filter besides its program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeccompRecord {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Who gets the listening descriptors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
}

/// A claimed state directory; dropped without [`StateDir::keep`] it is removed.
#[derive(Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
    path: PathBuf,
    keep: bool,
}

impl StateDir {
    /// Claims `id`.
    ///
    /// # Errors
    /// `AlreadyExists` when it is taken.
    pub(crate) fn claim(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        // Another container's end may remove an empty root between the two steps.
        for _ in 0..16 {
            dirs().recursive(true).create(root).map_err(|e| failed("create", root, e))?;
            match dirs().create(&path) {
                Ok(()) => return Ok(Self { root: root.to_owned(), path, keep: false }),
                Err(e) if e.kind() == Io::NotFound => {}
                Err(e) if e.kind() == Io::AlreadyExists => {
                    let text = format!("container {id:?} already exists");
                    return Err(Error::new(ErrorKind::AlreadyExists, text));
                }
                Err(e) => return Err(failed("create", &path, e)),
            }
        }
        Err(Error::new(
            ErrorKind::Internal,
            format!("create {}: it keeps vanishing", path.display()),
        ))
    }

    /// Writes the record.
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        let json = serde_json::to_vec(state)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("encode state.json: {e}")))?;
        let new = self.path.join(NEW_FILE);
        fs::write(&new, json).map_err(|e| failed("write", &new, e))?;
        fs::rename(&new, self.path.join(FILE)).map_err(|e| failed("rename", &new, e))
    }

    /// Keeps the filter for later processes, and returns what goes into the record.
    pub(crate) fn save_filter(&self, filter: &Filter) -> Result<SeccompRecord> {
        let path = self.path.join(FILTER);
        fs::write(&path, filter.bytes()).map_err(|e| failed("write", &path, e))?;
        Ok(SeccompRecord { flags: filter.flags, listener: filter.listener.clone() })
    }

    /// The container lives: its directory stays.
    pub(crate) fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if !self.keep {
            let _ = remove_dir(&self.root, &self.path);
        }
    }
}

/// Reads the record of `id`.
///
/// # Errors
/// `NotFound` when there is none.
pub(crate) fn load(root: &Path, id: &str) -> Result<State> {
    check_id(id)?;
    let path = root.join(id).join(FILE);
    let json = fs::read(&path).map_err(|e| match e.kind() {
        Io::NotFound => Error::new(ErrorKind::NotFound, format!("container {id:?} does not exist")),
        _ => failed("read", &path, e),
    })?;
    serde_json::from_slice(&json)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("{}: {e}", path.display())))
}

/// The filter of the container `id`. That it cannot be read is an error: a
/// process must not run without the filter that it was to have.
pub(crate) fn load_filter(root: &Path, id: &str, record: &SeccompRecord) -> Result<Filter> {
    check_id(id)?;
    let path = root.join(id).join(FILTER);
    let bytes = fs::read(&path).map_err(|e| failed("read", &path, e))?;
    let program = seccomp::program(&bytes).ok_or_else(|| {
        let text = format!("{}: {} bytes are no filter", path.display(), bytes.len());
        Error::new(ErrorKind::Internal, text)
    })?;
    let SeccompRecord { flags, listener } = record.clone();
    Ok(Filter { program, flags, listener, unknown: Vec::new() })
}

/// Removes what is recorded of `id`; nothing there is fine.
pub(crate) fn remove(root: &Path, id: &str) -> Result<()> {
    check_id(id)?;
    remove_dir(root, &root.join(id))
}

fn remove_dir(root: &Path, path: &Path) -> Result<()> {
    for name in [FILE, NEW_FILE, FILTER] {
        match fs::remove_file(path.join(name)) {
            Err(e) if e.kind() != Io::NotFound => return Err(failed("remove", path, e)),
            _ => {}
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() != Io::NotFound => return Err(failed("remove", path, e)),
        _ => {}
    }
    // The root goes with its last container; full is the usual case.
    let _ = fs::remove_dir(root);
    Ok(())
}

fn dirs() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    Error::sys(format!("{doing} {}", path.display()), error)
}

/// Field 22 of `/proc/PID/stat`: when the process started, in clock ticks.
///
/// # Errors
/// `NotFound` when there is no such process.
pub(crate) fn start_time(pid: i32) -> Result<u64> {
    // One read: procfs makes the whole line for it, and no line is longer.
    let mut buffer = [0; 1024];
    let length = fs::File::open(format!("/proc/{pid}/stat"))
        .and_then(|mut file| file.read(&mut buffer))
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => {
                Error::new(ErrorKind::NotFound, format!("process {pid} does not exist"))
            }
            _ => Error::sys(format!("read /proc/{pid}/stat"), error),
        })?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    parse_start_time(&text)
        .ok_or_else(|| Error::new(ErrorKind::Internal, format!("/proc/{pid}/stat: {text:?}")))
}

/// The name in parentheses may hold anything, so fields count from its end.
fn parse_start_time(stat: &str) -> Option<u64> {
    let rest = &stat[stat.rfind(')')? + 1..];
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_start_time(stat), Some(4711));
        assert!(start_time(std::process::id() as i32).unwrap() > 0);
        assert_eq!(start_time(-1).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn an_id_is_claimed_once_and_free_again_after() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("made/when/needed");
        let first = StateDir::claim(&root, "c1").unwrap();
        assert_eq!(StateDir::claim(&root, "c1").unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop(first);
        assert!(!root.exists(), "the last container takes the root with it");
        StateDir::claim(&root, "c1").unwrap().keep();
        assert!(root.join("c1").exists());
        remove(&root, "c1").unwrap();
        remove(&root, "c1").unwrap();
    }

    #[test]
    fn a_filter_is_read_back_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::claim(root.path(), "c1").unwrap();
        let spec = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#).unwrap();
        let filter = seccomp::compile(&spec).unwrap();
        let record = dir.save_filter(&filter).unwrap();
        assert_eq!(load_filter(root.path(), "c1", &record).unwrap(), filter);
        let file = root.path().join("c1").join(FILTER);
        for damage in [&filter.bytes()[1..], &[]] {
            fs::write(&file, damage).unwrap();
            assert!(load_filter(root.path(), "c1", &record).is_err());
        }
        drop(dir);
        assert!(!file.exists());
        assert!(load_filter(root.path(), "c1", &record).is_err());
    }

    #[test]
    fn hostile_ids_are_refused_before_they_are_paths() {
        let root = tempfile::tempdir().unwrap();
        for id in ["", "..", ".", "a/b", "../x", "a\0b", "ä"] {
            let error = StateDir::claim(root.path(), id).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{id:?}");
        }
    }
}
