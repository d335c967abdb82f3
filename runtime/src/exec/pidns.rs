//! Being born in another pid namespace.

use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, setns};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::{Error, Result};

/// Runs `work` with children of this thread going to the pid namespace of
/// `namespace` (a namespace file, or the pidfd of a process in it).
///
/// A pid namespace takes effect at birth only. Entering it for one clone and
/// leaving it again spares init a second fork, and the process stays a child of
/// this one. It concerns only the calling thread (pid_namespaces(7)).
pub(super) fn within<T>(namespace: Option<BorrowedFd<'_>>, work: impl FnOnce() -> T) -> Result<T> {
    let Some(namespace) = namespace else { return Ok(work()) };
    let home = pidfd_open(getpid(), PidfdFlags::empty())
        .map_err(|e| Error::sys("pidfd_open of this process", e))?;
    setns(namespace, CloneFlags::CLONE_NEWPID)
        .map_err(|e| Error::sys("setns(pid namespace)", e))?;
    let result = work();
    if setns(&home, CloneFlags::CLONE_NEWPID).is_err() {
        // Later children would be born in a container: there is no safe way on.
        std::process::abort();
    }
    Ok(result)
}
