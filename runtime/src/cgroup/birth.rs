//! A further process of a container, where its v2 cgroup refuses to have it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::file;
use super::group::{At, Cgroup};
use crate::error::{Error, ErrorKind, Result};

impl Cgroup {
    /// Whether a clone into the cgroup failed because the cgroup holds no
    /// processes itself any more: the container's init (systemd, mostly) moved
    /// into a cgroup below it and handed the controllers on, or made it part
    /// of a threaded subtree.
    pub fn refuses_processes(errno: Errno) -> bool {
        matches!(errno, Errno::EBUSY | Errno::EOPNOTSUPP)
    }

    /// The v2 cgroup in which the process behind `first`, a pidfd, is at this
    /// moment: where a further process may be born when this cgroup
    /// [refuses](Self::refuses_processes) it. What a record says is of no use
    /// then: the container moves its processes as it likes.
    ///
    /// # Errors
    /// `NotFound` when that process has ended, `Unsupported` on a v1 host,
    /// `WrongState` when it is somewhere we cannot see.
    pub fn birthplace(&self, first: BorrowedFd<'_>) -> Result<OwnedFd> {
        let Some(index) = self.hierarchies.layout().v2_index() else {
            return Err(Error::new(ErrorKind::Unsupported, "this host has no cgroup v2"));
        };
        let pid = pid_of(first)?;
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"));
        // Alive after the file was read: then it is about this process.
        if ended(first)? {
            return Err(Error::new(ErrorKind::NotFound, "the container's first process has ended"));
        }
        let membership =
            membership.map_err(|e| Error::sys(format!("reading /proc/{pid}/cgroup"), e))?;
        let path = self.hierarchies.path_of_member(index, &membership)?;
        let root = self.hierarchies.root(index);
        // The mount's root has no name of its own.
        let name = if path.is_empty() { "." } else { &path };
        file::open_dir_path(root, name)
            .map_err(|errno| Error::sys(format!("opening cgroup /{path} of process {pid}"), errno))
    }

    /// The error of a clone that failed: of the cgroup, where it is the cause.
    ///
    /// A full cgroup (v2 counts a process at its birth) is `Exhausted` and
    /// names `linux.resources.pids.limit`; one that is gone is `NotFound`; one
    /// that cannot have processes is `WrongState`.
    pub fn birth_error(&self, errno: Errno) -> Error {
        let error = Error::sys("clone container init", errno);
        let Some(at) = self.v2() else { return error };
        match errno {
            Errno::EAGAIN => match fullest(at) {
                Some(text) => {
                    let text = format!(
                        "linux.resources.pids.limit: {text}, so that no process can be born into it"
                    );
                    Error::sys(text, errno)
                }
                None => error,
            },
            // v2 accounts for a process's kernel memory from its birth on.
            Errno::ENOMEM => match at.read("memory.max").as_deref().map(str::trim_end) {
                Ok(limit) if limit != "max" => {
                    let text = format!(
                        "linux.resources.memory.limit: no process can be born under a memory limit \
                         of {limit} bytes"
                    );
                    Error::sys(text, errno)
                }
                _ => error,
            },
            Errno::ENODEV | Errno::ENOENT if !at.exists() => {
                let text = format!("cgroup /{} is gone", at.path);
                Error::sys(text, errno).with_kind(ErrorKind::NotFound)
            }
            _ if Self::refuses_processes(errno) => {
                let text = match at.read("cgroup.type").as_deref().map(str::trim_end) {
                    Ok(kind @ ("domain invalid" | "threaded")) => format!(
                        "cgroup /{} takes no process, because it is within a tree of threads \
                         (cgroup.type is {kind:?}): a container needs a parent without threaded \
                         children",
                        at.path
                    ),
                    _ => {
                        format!("cgroup /{} has child cgroups and takes no process itself", at.path)
                    }
                };
                Error::sys(text, errno).with_kind(ErrorKind::WrongState)
            }
            _ => error,
        }
    }
}

/// The first full cgroup from the leaf upwards.
fn fullest(at: At<'_>) -> Option<String> {
    let parents = at.path.match_indices('/').rev().map(|(length, _)| &at.path[..length]);
    std::iter::once(at.path).chain(parents).find_map(|path| {
        let here = At { root: at.root, path };
        full(path, &here.read("pids.current").ok()?, &here.read("pids.max").ok()?)
    })
}

fn full(path: &str, current: &str, max: &str) -> Option<String> {
    let (current, max): (u64, u64) =
        (current.trim_end().parse().ok()?, max.trim_end().parse().ok()?);
    (current >= max).then(|| format!("cgroup /{path} has {current} of {max} tasks"))
}

/// The pid of a live process behind a pidfd (`Pid:` of its fdinfo, Linux 5.2).
fn pid_of(pidfd: BorrowedFd<'_>) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = fs::read_to_string(&path).map_err(|e| Error::sys(format!("reading {path}"), e))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    match pid {
        Some(pid) if pid > 0 => Ok(pid),
        _ => Err(Error::new(ErrorKind::NotFound, "the container's first process has ended")),
    }
}

fn ended(pidfd: BorrowedFd<'_>) -> Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).map(|n| n > 0).map_err(|errno| Error::sys("poll", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_cgroup_is_told_from_one_with_room() {
        assert_eq!(full("a", "7\n", "7\n").unwrap(), "cgroup /a has 7 of 7 tasks");
        assert!(full("a", "9\n", "7\n").is_some());
        assert_eq!(full("a", "6\n", "7\n"), None);
        assert_eq!(full("a", "7\n", "max\n"), None);
    }
}
