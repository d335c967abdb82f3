//! System calls.

use std::os::fd::AsFd;

use boathook_fs::probe::Kernel;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, waitid};

use super::Area;
use crate::{Engine, sys};

pub(super) fn look(engine: &Engine, area: &mut Area<'_>) {
    if let Ok(release) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        area.is("release", release.trim_end());
    }
    area.needs(
        "clone3 of a sealed program",
        super::namespaces::born(engine, 0, None),
        "every process begins as one",
    );
    pidfds(area);
    let kernel = Kernel::host();
    let openat2 = if kernel.openat2() { Ok(()) } else { Err("openat2 is refused (Linux 5.6)") };
    area.needs("openat2", openat2, "opens every path in a container");
    area.prefers(
        "new mount API",
        kernel.mount_api(),
        "fsopen, open_tree, move_mount: mounts are made by descriptor",
        "mount(2) on descriptors",
    );
    area.prefers(
        "mount_setattr",
        kernel.mount_setattr(),
        "flags of mounts, and of whole trees",
        "flags by remounting; those of whole trees (rro and its like) are refused",
    );
}

fn pidfds(area: &mut Area<'_>) {
    let own = pidfd_open(getpid(), PidfdFlags::empty());
    let own = own.map_err(|e| format!("pidfd_open: {e}"));
    let Some(own) = area.needs("pidfd_open", own, "waits and signals without races") else {
        return;
    };
    // Nobody is one's own child: a kernel that knows the question says so.
    let wait = waitid(WaitId::PidFd(own.as_fd()), WaitIdOptions::EXITED);
    let wait = match wait {
        Err(Errno::CHILD) => Ok(()),
        Err(errno) => Err(format!("waitid by pidfd: {errno}")),
        Ok(_) => Err("waitid by pidfd: an impossible answer".to_owned()),
    };
    area.needs("waitid by pidfd", wait, "reaps without races");
    let signal = sys::pidfd_send_signal(own.as_fd(), 0);
    area.needs("pidfd_send_signal", signal, "signals without races");
    let joined = sys::setns_own(own.as_fd());
    area.needs("setns by pidfd", joined, "an exec enters all namespaces at once");
}
