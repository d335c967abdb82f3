//! Namespaces: a process is born in each kind.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use super::{Area, State};
use crate::channel::Channel;
use crate::process::{Process, children};
use crate::{Engine, Error, Result, sys};

/// Kinds, their flags, and whether every pod has one.
const KINDS: [(&str, i32, bool); 7] = [
    ("mount", libc::CLONE_NEWNS, true),
    ("pid", libc::CLONE_NEWPID, true),
    ("network", libc::CLONE_NEWNET, true),
    ("ipc", libc::CLONE_NEWIPC, true),
    ("uts", libc::CLONE_NEWUTS, true),
    ("cgroup", libc::CLONE_NEWCGROUP, false),
    ("user", libc::CLONE_NEWUSER, false),
];

pub(super) fn look(engine: &Engine, area: &mut Area<'_>) {
    for (name, flag, needed) in KINDS {
        // The bits of clone flags are positive.
        let made = born(engine, u64::from(flag.unsigned_abs()), None);
        match made {
            Ok(()) => area.is(name, "for containers that ask for it"),
            Err(error) if needed => area.add(name, State::Missing, error.to_string()),
            Err(error) => area.add(name, State::Lacking, error.to_string()),
        }
    }
    area.offers(
        "time",
        Path::new("/proc/self/ns/time").exists(),
        "for containers that ask for it",
        "containers that ask for it are refused",
    );
    match engine.prepare() {
        Ok(()) => area.is(
            "empty mount namespace",
            "pods begin with it: starts take the same time however many mounts there are",
        ),
        Err(error) => area.add(
            "empty mount namespace",
            State::Fallback,
            format!("starts take longer the more mounts the host has: {error}"),
        ),
    }
}

/// Has a process born with these flags of clone3(2), and ends it.
pub(super) fn born(engine: &Engine, flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<()> {
    let image = engine.image()?;
    let (channel, theirs) = Channel::pair()?;
    let number = CString::new(theirs.as_raw_fd().to_string()).unwrap_or_default();
    let arguments = [c"boathook-init", number.as_c_str()];
    let mut children = children();
    let (pid, pidfd) = sys::spawn(image, theirs.as_fd(), arguments, flags, cgroup)
        .map_err(|errno| Error::sys("clone3", errno))?;
    children.add(pid);
    drop(children);
    // It waits for a plan that never comes, and ends with this record of it.
    drop(Process::new(pid, pidfd, channel, String::new()));
    Ok(())
}
