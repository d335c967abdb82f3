//! What only v1 needs between mkdir and the limits.

use nix::errno::Errno;

use super::controller::Controller;
use super::file;
use super::group::{At, Cgroup};
use super::limits::Write;
use crate::error::{Error, Result};

/// Gives the new cpuset directories CPUs and memory nodes: a v1 cpuset starts
/// with none, and no task can enter it then. What the config sets itself is
/// left to it in the leaf.
pub(super) fn prepare(group: &Cgroup, writes: &[Write]) -> Result<()> {
    real_time(group, writes);
    cpus(group, writes)
}

/// Real-time CPU time is handed down. A parent that was made on the way has
/// none, so it gets what the leaf will ask for; that it cannot be had is told
/// by the write to the leaf.
fn real_time(group: &Cgroup, writes: &[Write]) {
    let wanted = writes.iter().filter(|write| write.file.starts_with("cpu.rt_"));
    let Some(index) = group.hierarchies.layout().index_of(Controller::Cpu) else { return };
    let Some(member) = group.members.iter().find(|m| m.index == index) else { return };
    let root = group.hierarchies.root(index);
    for write in wanted {
        let lengths = member.made.iter().filter(|length| **length < member.path.len());
        for path in lengths.filter_map(|length| member.path.get(..*length)) {
            let _ = At { root, path }.write(&write.file, &write.value);
        }
    }
}

/// CPUs and memory nodes.
fn cpus(group: &Cgroup, writes: &[Write]) -> Result<()> {
    let layout = group.hierarchies.layout();
    let index = layout.index_of(Controller::Cpuset).filter(|_| !layout.on_v2(Controller::Cpuset));
    let Some(index) = index else { return Ok(()) };
    let Some(member) = group.members.iter().find(|m| m.index == index) else { return Ok(()) };
    let root = group.hierarchies.root(index);
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let from_config =
            writes.iter().any(|w| w.controller == Controller::Cpuset && w.file == name);
        // The config's own value goes into the leaf later, but only a parent
        // that has CPUs can hold it.
        let (path, fresh) = match (from_config, member.path.rsplit_once('/')) {
            (false, _) => (member.path.as_str(), member.made_leaf()),
            (true, Some((parent, _))) => (parent, false),
            (true, None) => continue,
        };
        let at = At { root, path };
        inherit(at, name, fresh).map_err(|errno| at.error("copying the parent's", name, errno))?;
    }
    Ok(())
}

/// Copies `name` from the nearest ancestor that has a value, downwards.
/// `fresh`: the directory is new, so that it need not be read.
fn inherit(at: At<'_>, name: &str, fresh: bool) -> nix::Result<()> {
    if !fresh && !is_blank(&at.read(name)?) {
        return Ok(());
    }
    // (path, value) of the ancestor that has one; the root always does.
    let mut empty = vec![at.path];
    let value = loop {
        let below = empty.last().copied().unwrap_or_default();
        let (parent, file) = match below.rsplit_once('/') {
            Some((parent, _)) => (parent, format!("{parent}/{name}")),
            None => ("", name.to_owned()),
        };
        let value = file::read(at.root, &file)?;
        if !is_blank(&value) {
            break value;
        }
        if parent.is_empty() {
            return Err(Errno::ENOSPC);
        }
        empty.push(parent);
    };
    for path in empty.into_iter().rev() {
        At { root: at.root, path }.write(name, value.trim_end())?;
    }
    Ok(())
}

fn is_blank(value: &str) -> bool {
    value.trim_end().is_empty()
}

/// The error for a v1 facility whose hierarchy is not mounted.
pub(super) fn no_hierarchy(controller: Controller, purpose: &str) -> Error {
    Error::new(
        crate::error::ErrorKind::Unsupported,
        format!("{purpose} needs the {controller} controller, which this host does not have"),
    )
}
