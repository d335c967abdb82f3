//! What only v2 needs: controllers switched on along the path and the device
//! program, between mkdir and the limits; the owner of what the container may
//! write to, after them.

use nix::errno::Errno;

use std::os::fd::BorrowedFd;

use super::controller::{Controller, Controllers};
use super::devices::{self, Loaded};
use super::file;
use super::group::{At, Cgroup};
use super::layout::Mode;
use super::plan::CgroupPlan;
use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, Uid, chownat};

/// Switches on what the leaf shall have and attaches the device program.
pub(super) fn prepare(group: &Cgroup, plan: &CgroupPlan) -> Result<()> {
    let layout = group.hierarchies.layout();
    let Some(member) = group.members.iter().find(|m| Some(m.index) == layout.v2_index()) else {
        return Ok(());
    };
    let at = At { root: group.hierarchies.root(member.index), path: &member.path };
    if !member.made_leaf() {
        become_leaf(at)?;
    }
    match layout.mode {
        // All of them, for the sake of statistics.
        Mode::V2 => enable(at, group.hierarchies.mount(member.index).controllers, true)?,
        Mode::V1 | Mode::Hybrid => {
            let needed = plan.writes().iter().map(|w| w.controller);
            enable(at, needed.filter(|c| layout.on_v2(*c)).collect(), false)?;
        }
    }
    let program = plan.device_program().map(Loaded::new).transpose()?;
    devices::install(at, program.as_ref(), member.made_leaf())
}

/// What the owner of a cgroup may be given (cgroups(7), "Cgroups v2 delegation"), one name a
/// line; since Linux 4.15.
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
/// The list of kernels without that file.
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Hands the directory, and the files in it that the kernel names, to the user of the plan
/// (config-linux.md, "Cgroup ownership"). The limits stay root's.
pub(super) fn hand_over(group: &Cgroup, plan: &CgroupPlan) -> Result<()> {
    let (Some(uid), Some(at)) = (plan.owner(), group.v2()) else { return Ok(()) };
    let names = std::fs::read_to_string(DELEGATE);
    let names = names.as_deref().unwrap_or(DELEGATED);
    let owner = Some(Uid::from_raw(uid));
    let directory = std::iter::once(at.path.to_owned());
    for path in directory.chain(names.lines().map(|name| at.file(name))) {
        match chownat(at.root, &path, owner, None, AtFlags::SYMLINK_NOFOLLOW) {
            // memory.oom.group, for one, is there with its controller only.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => {
                return Err(Error::sys(format!("giving cgroup file {path} to user {uid}"), errno));
            }
        }
    }
    Ok(())
}

/// A cgroup that hands controllers on cannot have processes of its own; one
/// that was left behind may still do so.
fn become_leaf(at: At<'_>) -> Result<()> {
    let name = "cgroup.subtree_control";
    let failed = |errno| at.error("writing", name, errno).with_kind(ErrorKind::WrongState);
    let enabled = at.read(name).map_err(|errno| at.error("reading", name, errno))?;
    if enabled.trim_end().is_empty() {
        return Ok(());
    }
    let off: Vec<_> =
        enabled.split_whitespace().map(|controller| format!("-{controller}")).collect();
    at.write(name, &off.join(" ")).map_err(failed)
}

/// Makes the controllers in `wanted` available in the leaf, from the top
/// downwards; the hierarchy's root is left alone unless `from_root`. The
/// leaf's own list tells at once whether the parents pass them on already.
fn enable(at: At<'_>, wanted: Controllers, from_root: bool) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let name = "cgroup.controllers";
    let have = at.read(name).map_err(|errno| at.error("reading", name, errno))?;
    let have = Controllers::parse_v2(&have);
    let missing: Vec<_> = wanted.iter().filter(|c| !have.contains(*c)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let root = from_root.then_some("");
    let parents = at.path.match_indices('/').map(|(end, _)| &at.path[..end]);
    root.into_iter().chain(parents).try_for_each(|parent| switch_on(at.root, parent, &missing))
}

/// Has one cgroup hand on those of `wanted` that it has, all in one write.
///
/// One that has processes of its own is passed over. It would take the controllers that can be
/// divided among threads, and by that make every cgroup below it one that takes no process
/// (Documentation/admin-guide/cgroup-v2.rst, "Threads"). A limit that needs a controller which is
/// not handed on says so by the name of its field.
fn switch_on(root: BorrowedFd<'_>, parent: &str, wanted: &[Controller]) -> Result<()> {
    let at = At { root, path: parent };
    let name = |file: &str| if parent.is_empty() { file.to_owned() } else { at.file(file) };
    let file = name("cgroup.controllers");
    let have = file::read(root, &file).map_err(|e| Error::sys(format!("reading {file}"), e))?;
    let have = Controllers::parse_v2(&have);
    let wanted: Vec<_> = wanted
        .iter()
        .filter(|controller| have.contains(**controller))
        .map(|controller| format!("+{}", controller.v2_name()))
        .collect();
    // The true root, which may have processes and hand on controllers, has no type.
    let inner = file::exists(root, &name("cgroup.type")).unwrap_or(true);
    let occupied = || file::read(root, &name("cgroup.procs")).map_or(true, |pids| !pids.is_empty());
    if wanted.is_empty() || inner && occupied() {
        return Ok(());
    }
    let (file, value) = (name("cgroup.subtree_control"), wanted.join(" "));
    match file::write(root, &file, &value) {
        // ENOENT: taken away meanwhile; EBUSY: a process came; EOPNOTSUPP: it is threaded.
        Ok(()) | Err(Errno::ENOENT | Errno::EBUSY | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(Error::sys(format!("writing {value} to {file}"), errno)),
    }
}
