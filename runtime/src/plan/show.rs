//! A plan for people and for programs.

use std::fmt::{self, Write as _};

use boathook_init::Step;
use boathook_init::wire::Value;
use serde_json::{Map, json};

use super::{HostFd, MappedBy, Plan};
use crate::cgroup::{Base, CgroupPlan};

impl Plan {
    /// The plan as JSON: `clone`, `cgroup`, `descriptors`, `steps`.
    pub fn to_json(&self) -> serde_json::Value {
        let steps: Vec<_> = self.program.steps().map(|step| step_json(&step)).collect();
        let fds: Vec<_> = self.fds.iter().map(describe).collect();
        json!({
            "clone": clone_names(self.clone_flags),
            "cgroup": self.cgroup.as_ref().map(cgroup_lines),
            "resctrl": self.resctrl.as_ref().map(ToString::to_string),
            "oomScoreAdj": self.oom_score_adj,
            "descriptors": fds,
            "steps": steps,
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cgroup) = &self.cgroup {
            writeln!(f, "cgroup")?;
            for line in cgroup_lines(cgroup) {
                writeln!(f, "  {line}")?;
            }
        }
        if let Some(resctrl) = &self.resctrl {
            writeln!(f, "{resctrl}")?;
        }
        if let Some(score) = self.oom_score_adj {
            writeln!(f, "oom_score_adj {score}")?;
        }
        match clone_names(self.clone_flags).join(" ") {
            names if names.is_empty() => writeln!(f, "clone")?,
            names => writeln!(f, "clone with new {names}")?,
        }
        writeln!(f, "descriptors of the host")?;
        for (index, fd) in self.fds.iter().enumerate() {
            writeln!(f, "  #{index} {}", describe(fd))?;
        }
        writeln!(f, "steps in the container")?;
        for (index, step) in self.program.steps().enumerate() {
            writeln!(f, "  {index:3} {}", step_text(&step, self.fds.len())?)?;
        }
        Ok(())
    }
}

/// The directory and what is written into its files, in order.
fn cgroup_lines(plan: &CgroupPlan) -> Vec<String> {
    let location = plan.location();
    let place = match location.base {
        Base::MountRoot => format!("/{}", location.path),
        Base::Own => format!("{} below the engine's own cgroup", location.path),
    };
    let writes = plan.writes().iter().map(|write| format!("{} = {}", write.file, write.value));
    let mut lines: Vec<_> = std::iter::once(place).chain(writes).collect();
    if let Some(uid) = plan.owner() {
        lines.push(format!("owner {uid}"));
    }
    if let Some(program) = plan.device_program() {
        let rules = plan.device_rules();
        lines.push(format!(
            "device program, {} instructions, for {} rules",
            program.len(),
            rules.len()
        ));
        lines.extend(rules.iter().map(|rule| format!("  {rule}")));
    }
    lines
}

fn clone_names(flags: u64) -> Vec<&'static str> {
    let names = [
        (libc::CLONE_NEWNS, "mount"),
        (libc::CLONE_NEWPID, "pid"),
        (libc::CLONE_NEWNET, "network"),
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWUTS, "uts"),
    ];
    names.iter().filter(|(bit, _)| flags & *bit as u64 != 0).map(|(_, name)| *name).collect()
}

fn describe(fd: &HostFd) -> String {
    match fd {
        HostFd::CgroupTasks(index) => format!("tasks file of the cgroup, hierarchy {index}"),
        HostFd::Namespace { path, .. } => format!("namespace {}", path.display()),
        HostFd::NoMounts => "mount namespace without mounts".to_owned(),
        HostFd::Container => "the container's first process".to_owned(),
        HostFd::Root(path) => format!("root file system {}", path.display()),
        HostFd::Bind { source, recursive, idmap, .. } => {
            let what = if *recursive { "tree" } else { "mount" };
            let mapped = if idmap.is_some() { ", its ids mapped" } else { "" };
            format!("{what} at {}{mapped}", source.display())
        }
        HostFd::UserNamespace(ids) => match &ids.by {
            MappedBy::Mappings(_) => format!("user namespace with the mappings of {}", ids.field),
            MappedBy::Namespace(path) => format!("user namespace {}", path.display()),
        },
        HostFd::Device { source, major, minor, .. } => {
            format!("device node {} ({major}:{minor})", source.display())
        }
        HostFd::CgroupTree(index) => format!("directory of the cgroup, hierarchy {index}"),
        HostFd::NullDevice => "null device".to_owned(),
        HostFd::Stdio(n) => ["standard input", "standard output", "standard error"]
            .get(*n)
            .map_or_else(|| format!("stream {n}"), |name| (*name).to_owned()),
    }
}

fn step_json(step: &Step<'_>) -> serde_json::Value {
    let mut fields = Map::new();
    fields.insert("step".to_owned(), json!(step.name()));
    step.fields(&mut |name, value| {
        fields.insert(name.to_owned(), value_json(value));
    });
    serde_json::Value::Object(fields)
}

fn value_json(value: Value<'_>) -> serde_json::Value {
    match value {
        Value::Number(number) => json!(number),
        Value::Text(text) => json!(text.to_string_lossy()),
        Value::Texts(list) => list.iter().map(|t| json!(t.to_string_lossy())).collect(),
        Value::Numbers(ids) => (0..ids.len()).filter_map(|i| ids.at(i)).map(|n| json!(n)).collect(),
        Value::Bytes(bytes) => json!({ "bytes": bytes.len() }),
        Value::Slot(slot) if slot.is_made() => json!({ "made": slot.index(0) }),
        Value::Slot(slot) => json!({ "sent": slot.index(0) }),
    }
}

fn step_text(step: &Step<'_>, sent: usize) -> Result<String, fmt::Error> {
    let mut text = step.name().to_owned();
    let mut result = Ok(());
    step.fields(&mut |name, value| {
        let written = match value {
            Value::Number(number) if number > 9 => write!(text, " {name}={number:#x}"),
            Value::Number(number) => write!(text, " {name}={number}"),
            Value::Text(string) => write!(text, " {name}={string:?}"),
            Value::Texts(list) => write!(text, " {name}={list:?}"),
            Value::Numbers(ids) => {
                let all: Vec<_> = (0..ids.len()).filter_map(|i| ids.at(i)).collect();
                write!(text, " {name}={all:?}")
            }
            Value::Bytes(bytes) => write!(text, " {name}=({} bytes)", bytes.len()),
            Value::Slot(slot) => write!(text, " {name}=#{}", slot.index(sent)),
        };
        if result.is_ok() {
            result = written;
        }
    });
    result.map(|()| text)
}
