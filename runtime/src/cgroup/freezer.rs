//! Stopping and resuming all processes of a cgroup at once.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags};

use super::controller::Controller;
use super::group::{At, Cgroup};
use super::layout::Mode;
use super::procs::{Backoff, poll_until, timed_out};
use super::{file, v1};
use crate::error::{Error, Result};

/// After so many fruitless tries a v1 cgroup is thawed for a moment: a task
/// stuck half-way can block the others from freezing.
const UNSTICK_EVERY: u32 = 8;

/// Whether a cgroup's processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrozenState {
    /// They run.
    Thawed,
    /// Asked to stop, and not all have.
    Freezing,
    /// None runs.
    Frozen,
}

/// Which freezer a cgroup has.
enum Freezer<'a> {
    V1(At<'a>),
    V2(At<'a>),
}

impl Cgroup {
    /// Stops every process of the cgroup and of its children; returns when all
    /// have stopped.
    ///
    /// # Errors
    /// `Timeout` at the deadline: the cgroup is thawed again then. `NotFound`
    /// when it is gone, `Unsupported` without a freezer.
    pub fn freeze(&self, deadline: Instant) -> Result<()> {
        let result = match self.freezer()? {
            Freezer::V1(at) => self.freeze_v1(at, deadline),
            Freezer::V2(at) => self.freeze_v2(at, deadline),
        };
        if result.is_err() {
            // The first error counts; a half-frozen container would be worse.
            let _ = self.thaw();
        }
        result
    }

    /// Lets the processes run again. Harmless when they do.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone, `Unsupported` without a freezer.
    pub fn thaw(&self) -> Result<()> {
        let (at, name, value) = match self.freezer()? {
            Freezer::V1(at) => (at, "freezer.state", "THAWED"),
            Freezer::V2(at) => (at, "cgroup.freeze", "0"),
        };
        at.write(name, value).map_err(|errno| at.error("writing", name, errno))
    }

    /// Whether the processes run.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone, `Unsupported` without a freezer.
    pub fn frozen_state(&self) -> Result<FrozenState> {
        match self.freezer()? {
            Freezer::V1(at) => v1_state(at),
            Freezer::V2(at) => {
                let read = |name| at.read(name).map_err(|errno| at.error("reading", name, errno));
                Ok(if frozen_event(&read("cgroup.events")?) {
                    FrozenState::Frozen
                } else if read("cgroup.freeze")?.trim_end() == "1" {
                    FrozenState::Freezing
                } else {
                    FrozenState::Thawed
                })
            }
        }
    }

    fn freezer(&self) -> Result<Freezer<'_>> {
        let v1 = match self.mode() {
            Mode::V2 => None,
            Mode::V1 | Mode::Hybrid => self.member(Controller::Freezer),
        };
        match (v1, self.v2()) {
            (Some(at), _) => Ok(Freezer::V1(at)),
            (None, Some(at)) => Ok(Freezer::V2(at)),
            (None, None) => Err(v1::no_hierarchy(Controller::Freezer, "freezing")),
        }
    }

    fn freeze_v1(&self, at: At<'_>, deadline: Instant) -> Result<()> {
        let set = |value| {
            at.write("freezer.state", value)
                .map_err(|errno| at.error("writing", "freezer.state", errno))
        };
        let mut backoff = Backoff::default();
        let mut tries = 0;
        loop {
            // Written every time: a task that was forked or that woke up in
            // between is caught by the next write.
            set("FROZEN")?;
            if v1_state(at)? == FrozenState::Frozen {
                return Ok(());
            }
            tries += 1;
            if tries % UNSTICK_EVERY == 0 {
                set("THAWED")?;
            }
            if !backoff.pause(deadline) {
                return Err(timed_out(self, "processes did not freeze in time"));
            }
        }
    }

    fn freeze_v2(&self, at: At<'_>, deadline: Instant) -> Result<()> {
        let events = at
            .open_read("cgroup.events")
            .map_err(|errno| at.error("opening", "cgroup.events", errno))?;
        at.write("cgroup.freeze", "1").map_err(|e| at.error("writing", "cgroup.freeze", e))?;
        let done = wait_event(&events, frozen_event, deadline)
            .map_err(|failure| failure.describe(at, "cgroup.events"))?;
        if done { Ok(()) } else { Err(timed_out(self, "processes did not freeze in time")) }
    }
}

fn v1_state(at: At<'_>) -> Result<FrozenState> {
    let name = "freezer.state";
    let text = at.read(name).map_err(|errno| at.error("reading", name, errno))?;
    match text.trim_end() {
        "THAWED" => Ok(FrozenState::Thawed),
        "FREEZING" => Ok(FrozenState::Freezing),
        "FROZEN" => Ok(FrozenState::Frozen),
        _ => Err(at.error("parsing", name, Errno::EINVAL)),
    }
}

fn frozen_event(events: &str) -> bool {
    events.lines().any(|line| line == "frozen 1")
}

/// Whether `cgroup.events` says that no process is left.
pub(super) fn empty_event(events: &str) -> bool {
    events.lines().any(|line| line == "populated 0")
}

/// Why waiting for an event failed.
pub(super) enum WaitError {
    Read(Errno),
    Poll(Error),
}

impl WaitError {
    pub(super) fn describe(self, at: At<'_>, name: &str) -> Error {
        match self {
            Self::Read(errno) => at.error("reading", name, errno),
            Self::Poll(error) => error,
        }
    }
}

/// Waits until the text of a `cgroup.events` file satisfies `done`; false at
/// the deadline. The kernel wakes pollers of the file when a line changes.
pub(super) fn wait_event(
    events: &std::os::fd::OwnedFd,
    done: fn(&str) -> bool,
    deadline: Instant,
) -> std::result::Result<bool, WaitError> {
    loop {
        let text = file::reread(events.as_fd()).map_err(WaitError::Read)?;
        if done(&text) {
            return Ok(true);
        }
        let mut fds = [PollFd::new(events, PollFlags::PRI)];
        if !poll_until(&mut fds, deadline).map_err(WaitError::Poll)? {
            return Ok(false);
        }
    }
}
