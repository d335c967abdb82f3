//! Learning that a cgroup ran out of memory, as an event on a descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::controller::Controller;
use super::file;
use super::group::{At, Cgroup};
use super::v1;
use crate::error::{Error, Result};

/// Tells when a cgroup ran out of memory. Its descriptor becomes readable
/// (`POLLIN`) then, and also when the cgroup is removed; [`read`](Self::read)
/// tells which. Register it before the first task is in the cgroup.
#[derive(Debug)]
pub struct OomWatch {
    /// v1: an eventfd. v2: an inotify descriptor on `memory.events` and on the directory above.
    event: OwnedFd,
    source: Source,
}

#[derive(Debug)]
enum Source {
    V1 { control: OwnedFd },
    V2 { events: OwnedFd, last: u64 },
}

/// What woke a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// Nothing new.
    Nothing,
    /// So many times since the last read the group ran out of memory (v1) or a
    /// process was killed for it (v2).
    Oom(u64),
    /// The cgroup is gone; drop the watch.
    Gone,
}

impl Cgroup {
    /// Watches for the group running out of memory.
    ///
    /// # Errors
    /// `Unsupported` without a memory controller, `NotFound` when the cgroup is gone.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        match self.member(Controller::Memory) {
            Some(at) if self.hierarchies.layout().on_v2(Controller::Memory) => watch_v2(at),
            Some(at) => watch_v1(at),
            None => Err(v1::no_hierarchy(Controller::Memory, "watching for OOM")),
        }
    }
}

/// Documentation/admin-guide/cgroup-v1/memory.rst, section 10: the pair of
/// descriptors is written to `cgroup.event_control`.
fn watch_v1(at: At<'_>) -> Result<OomWatch> {
    let name = "memory.oom_control";
    let control = at.open_read(name).map_err(|errno| at.error("opening", name, errno))?;
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| Error::sys("eventfd", errno))?;
    let name = "cgroup.event_control";
    at.write(name, &format!("{} {}", event.as_raw_fd(), control.as_raw_fd()))
        .map_err(|errno| at.error("writing", name, errno))?;
    Ok(OomWatch { event, source: Source::V1 { control } })
}

/// The kernel raises a modify event on `memory.events` whenever it changes.
fn watch_v2(at: At<'_>) -> Result<OomWatch> {
    let name = "memory.events";
    let events = at.open_read(name).map_err(|errno| match errno {
        Errno::ENOENT if at.exists() => v1::no_hierarchy(Controller::Memory, "watching for OOM"),
        _ => at.error("opening", name, errno),
    })?;
    let event = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .map_err(|errno| Error::sys("inotify_init1", errno))?;
    // By descriptor: the file watched is the one opened above.
    let path = format!("/proc/self/fd/{}", events.as_raw_fd());
    inotify::add_watch(&event, path, inotify::WatchFlags::MODIFY)
        .map_err(|errno| Error::sys("watching memory.events", errno))?;
    // Nothing happens to the file when its directory goes, but to the directory above.
    let above = at.path.rsplit_once('/').map_or(".", |(above, _)| above);
    let parent = file::open_dir_path(at.root, above)
        .map_err(|errno| at.error("opening the parent", name, errno))?;
    let path = format!("/proc/self/fd/{}", parent.as_raw_fd());
    inotify::add_watch(&event, path, inotify::WatchFlags::DELETE | inotify::WatchFlags::ONLYDIR)
        .map_err(|errno| Error::sys("watching the parent of a cgroup", errno))?;
    let last = oom_kills(events.as_fd()).map_err(|errno| at.error("reading", name, errno))?;
    Ok(OomWatch { event, source: Source::V2 { events, last } })
}

fn oom_kills(events: BorrowedFd<'_>) -> nix::Result<u64> {
    let text = file::reread(events)?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(line.and_then(|value| value.parse().ok()).unwrap_or(0))
}

impl OomWatch {
    /// What happened since the last call; never blocks.
    ///
    /// # Errors
    /// `Internal` when the kernel refuses to say.
    pub fn read(&mut self) -> Result<OomEvent> {
        let count =
            drain(self.event.as_fd()).map_err(|errno| Error::sys("reading OOM events", errno))?;
        match &mut self.source {
            // The kernel signals the eventfd once more when the group goes.
            Source::V1 { control } => match file::reread(control.as_fd()) {
                Ok(_) if count == 0 => Ok(OomEvent::Nothing),
                Ok(_) => Ok(OomEvent::Oom(count)),
                Err(Errno::ENODEV) => Ok(OomEvent::Gone),
                Err(errno) => Err(Error::sys("reading memory.oom_control", errno)),
            },
            Source::V2 { events, last } => match oom_kills(events.as_fd()) {
                Ok(now) if now > *last => {
                    let new = now - *last;
                    *last = now;
                    Ok(OomEvent::Oom(new))
                }
                Ok(_) => Ok(OomEvent::Nothing),
                Err(Errno::ENODEV) => Ok(OomEvent::Gone),
                Err(errno) => Err(Error::sys("reading memory.events", errno)),
            },
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Empties the descriptor; on an eventfd the sum of what was signalled.
fn drain(event: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut buffer = [0; 4096];
    let mut sum = 0;
    loop {
        match nix::unistd::read(event, &mut buffer) {
            Ok(8) => {
                let mut word = [0; 8];
                word.copy_from_slice(&buffer[..8]);
                sum += u64::from_ne_bytes(word);
            }
            Ok(0) | Err(Errno::EAGAIN) => return Ok(sum),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
