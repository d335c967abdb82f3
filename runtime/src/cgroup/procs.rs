//! Which processes are in a cgroup, and waiting for them to be gone.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::file;
use super::group::{At, Cgroup};
use crate::error::{Error, ErrorKind, Result};

/// Pidfds held at once; a fork bomb must not exhaust our descriptors.
const BATCH: usize = 128;

impl Cgroup {
    /// The ids of the processes in the cgroup, sorted, each once; with `all`
    /// also those in child cgroups. Processes that our pid namespace does not
    /// show are left out.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone.
    pub fn pids(&self, all: bool) -> Result<Vec<i32>> {
        let at = self.lead()?;
        pids_at(at, all).map_err(|errno| at.error("listing", "cgroup.procs", errno))
    }

    /// As [`Self::pids`] over all hierarchies: a process may have left one.
    pub(super) fn pids_everywhere(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for member in &self.members {
            let at = At { root: self.hierarchies.root(member.index), path: &member.path };
            match pids_at(at, true) {
                Ok(more) => pids.extend(more),
                Err(errno) if at.gone(errno) => {}
                Err(errno) => return Err(at.error("listing", "cgroup.procs", errno)),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }
}

fn pids_at(at: At<'_>, all: bool) -> nix::Result<Vec<i32>> {
    let mut pids = Vec::new();
    if all {
        let leaf = file::open_dir_list(at.root, at.path)?;
        visit(leaf, &mut |dir| append_procs(dir, "cgroup.procs", &mut pids), &mut |_, _| Ok(()))?;
    } else {
        append_procs(at.root, &at.file("cgroup.procs"), &mut pids)?;
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn append_procs(dir: BorrowedFd<'_>, path: &str, pids: &mut Vec<i32>) -> nix::Result<()> {
    let text = match file::read(dir, path) {
        // A threaded v2 cgroup: its processes are listed where its domain is.
        Err(Errno::EOPNOTSUPP) => return Ok(()),
        other => other?,
    };
    // 0 stands for a process of a pid namespace that we cannot see into.
    pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 0));
    Ok(())
}

/// Walks the tree under `leaf`, holding one descriptor whatever its depth:
/// `enter` sees every directory, parents first; `leave` every child with its
/// parent, children first. Directories that vanish meanwhile are skipped.
pub(super) fn visit(
    leaf: OwnedFd,
    enter: &mut dyn FnMut(BorrowedFd<'_>) -> nix::Result<()>,
    leave: &mut dyn FnMut(BorrowedFd<'_>, &CStr) -> nix::Result<()>,
) -> nix::Result<()> {
    enter(leaf.as_fd())?;
    let mut here = leaf;
    let mut pending = vec![file::subdirs(here.as_fd())?];
    loop {
        let Some(names) = pending.last_mut() else { return Ok(()) };
        if let Some(name) = names.last() {
            let entered = file::open_dir_list(here.as_fd(), name.as_c_str()).and_then(|child| {
                enter(child.as_fd())?;
                let below = file::subdirs(child.as_fd())?;
                Ok((child, below))
            });
            match entered {
                Ok((child, below)) => {
                    here = child;
                    pending.push(below);
                }
                Err(Errno::ENOENT | Errno::ENODEV) => {
                    names.pop();
                }
                Err(errno) => return Err(errno),
            }
            continue;
        }
        pending.pop();
        let Some(above) = pending.last_mut() else { return Ok(()) };
        // Safe in cgroupfs: a cgroup never moves to another parent.
        here = file::open_dir_list(here.as_fd(), c"..")?;
        if let Some(name) = above.pop() {
            leave(here.as_fd(), &name)?;
        }
    }
}

/// Sends `signal` to each of `pids` that is still in the cgroup, by pidfd.
/// Returns pidfds of some of them, to wait on.
pub(super) fn signal(group: &Cgroup, pids: &[i32], signal: Signal) -> Result<Vec<OwnedFd>> {
    let mut held = Vec::new();
    for batch in pids.chunks(BATCH) {
        let mut opened = open_all(batch)?;
        // A pid read before its pidfd was opened may belong to somebody else
        // by now; one that is listed after that is the process we hold.
        let members = group.pids_everywhere()?;
        opened.retain(|(pid, _)| members.binary_search(pid).is_ok());
        for (pid, fd) in &opened {
            match pidfd_send_signal(fd, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(errno) => {
                    return Err(Error::sys(format!("signalling process {pid}"), errno));
                }
            }
        }
        held = opened.into_iter().map(|(_, fd)| fd).collect();
    }
    Ok(held)
}

/// Pidfds of as many of `pids` as may be held at once, to wait on.
pub(super) fn watch(pids: &[i32]) -> Result<Vec<OwnedFd>> {
    let some = &pids[..pids.len().min(BATCH)];
    Ok(open_all(some)?.into_iter().map(|(_, fd)| fd).collect())
}

fn open_all(pids: &[i32]) -> Result<Vec<(i32, OwnedFd)>> {
    let mut opened = Vec::with_capacity(pids.len());
    for &pid in pids {
        match Pid::from_raw(pid).map(|p| pidfd_open(p, PidfdFlags::empty())) {
            Some(Ok(fd)) => opened.push((pid, fd)),
            Some(Err(rustix::io::Errno::SRCH)) | None => {}
            Some(Err(errno)) => {
                return Err(Error::sys(format!("opening a pidfd of process {pid}"), errno));
            }
        }
    }
    Ok(opened)
}

/// Waits until every pidfd reports its process's end; false at the deadline.
pub(super) fn wait_dead(mut pidfds: Vec<OwnedFd>, deadline: Instant) -> Result<bool> {
    while !pidfds.is_empty() {
        let mut polled: Vec<_> = pidfds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        if !poll_until(&mut polled, deadline)? {
            return Ok(false);
        }
        let dead: Vec<bool> = polled.iter().map(|p| !p.revents().is_empty()).collect();
        let mut dead = dead.into_iter();
        pidfds.retain(|_| !dead.next().unwrap_or(false));
    }
    Ok(true)
}

/// `poll` until the deadline; false when it passed. `EINTR` is not an event.
pub(super) fn poll_until(fds: &mut [PollFd<'_>], deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        match poll(fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::sys("poll", errno)),
        }
    }
}

/// Lets time pass where the kernel offers no event: 1, 2, 4 … 64 ms, never
/// beyond the deadline. False once the deadline has passed.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn pause(&mut self, deadline: Instant) -> bool {
        let now = Instant::now();
        if now >= deadline {
            return false;
        }
        let step = Duration::from_millis(1 << self.0.min(6));
        self.0 += 1;
        std::thread::sleep(step.min(deadline - now));
        true
    }
}

/// The error of a wait that ran out of time.
pub(super) fn timed_out(group: &Cgroup, doing: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("cgroup {}: {doing}", group.path()))
}
