//! A mount namespace with nothing of the host in it, which containers begin with.
//!
//! A process that is cloned into a new mount namespace gets a copy of every mount of the host,
//! and gives all of them up when it changes its root: some microseconds for each, for every
//! container. One that joins a namespace with a single mount first, and makes its own there,
//! copies that one. Init needs no more: whatever it mounts of the host comes as a descriptor.
//!
//! The namespace is made by a process that ends at once, and lives by its descriptor.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use boathook_init::report::kind;
use caps::{CapSet, Capability};
use rustix::fs::MemfdFlags;

use crate::channel::{Channel, Message};
use crate::exec::cause;
use crate::plan::Program;
use crate::process::{Process, children};
use crate::report::step_failure;
use crate::{Error, ErrorKind, Result, image, sys};

/// How long it may take; a host with a hundred thousand mounts needs a second.
const LIMIT: Duration = Duration::from_secs(10);

/// Makes the namespace. `image` is the sealed init program.
///
/// # Errors
/// `Unsupported` where containers could not begin with it: see [`suits`]. Otherwise what the
/// kernel refused; it refuses where the host's own root is the one that it booted with.
pub(crate) fn namespace(image: BorrowedFd<'_>) -> Result<OwnedFd> {
    suits()?;
    let program = Program::bare();
    let (channel, theirs) = Channel::pair()?;
    let plan = image::sealed("boathook-plan", &program.image(0), MemfdFlags::NOEXEC_SEAL)?;
    channel.send_plan(plan.as_fd(), &[], program.made())?;
    let number = CString::new(theirs.as_raw_fd().to_string()).unwrap_or_default();
    let arguments = [c"boathook-init", number.as_c_str()];
    let mut children = children();
    let (pid, pidfd) = sys::spawn(image, theirs.as_fd(), arguments, libc::CLONE_NEWNS as u64, None)
        .map_err(|errno| Error::sys("clone into a new mount namespace", errno))?;
    children.add(pid);
    drop(children);
    drop(theirs);
    // It waits for a start that never comes, and ends with this record of it.
    let holder = Process::new(pid, pidfd, channel, String::new());
    match holder.receive(Instant::now() + LIMIT)? {
        Message::Report(report, _) if report.kind == kind::READY => {}
        Message::Report(report, _) => {
            return Err(step_failure(&program, &report).context("a mount namespace to begin with"));
        }
        Message::Closed => {
            let text = "the process that makes a mount namespace ended early";
            return Err(Error::new(ErrorKind::Internal, text));
        }
    }
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))
        .map_err(|e| cause(&holder, &program, Error::sys("open a new mount namespace", e)))?;
    Ok(namespace.into())
}

/// Two things that a clone does not need and this does. Joining takes CAP_SYS_CHROOT besides
/// CAP_SYS_ADMIN (setns(2)). And outside of the first user namespace proc and sysfs are only
/// mounted by somebody who can see them already, which here nobody can (mount_namespaces(7)).
fn suits() -> Result<()> {
    for capability in [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_CHROOT] {
        let has = caps::has_cap(None, CapSet::Effective, capability);
        if !has.map_err(|e| Error::new(ErrorKind::Internal, format!("capget: {e}")))? {
            let text = format!("to join a mount namespace takes {capability}");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
    }
    let map = std::fs::read_to_string("/proc/self/uid_map")
        .map_err(|e| Error::sys("read /proc/self/uid_map", e))?;
    match is_everybody(&map) {
        true => Ok(()),
        false => {
            let text = "the engine is in a user namespace";
            Err(Error::new(ErrorKind::Unsupported, text))
        }
    }
}

/// Whether a map is that of the first user namespace: all ids there are, as they are.
fn is_everybody(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_user_namespace_has_everybody() {
        assert!(is_everybody("         0          0 4294967295\n"));
        for other in ["0 100000 65536\n", "0 0 4294967294\n", "0 0 1\n1 1 4294967294\n", ""] {
            assert!(!is_everybody(other), "{other:?}");
        }
    }
}
