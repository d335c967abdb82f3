//! Waiting with a deadline, for things that announce themselves and for things that do not.

use crate::error::{Context, Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long anything ordinary may take on a slow and busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A moment after which waiting is pointless.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    within: Duration,
}

impl Deadline {
    /// `within` from now.
    #[must_use]
    pub fn after(within: Duration) -> Self {
        Self { end: Instant::now() + within, within }
    }

    /// What is left; zero when it is over.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether it is over.
    #[must_use]
    pub fn over(&self) -> bool {
        self.left().is_zero()
    }

    /// The error for what did not happen; `detail` tells what was there instead.
    #[must_use]
    pub fn missed(&self, what: &str, detail: &str) -> Error {
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        Error::Deadline { what: what.to_owned(), within: self.within, detail }
    }
}

/// Asks `probe` again and again until it has an answer.
///
/// For what the kernel or a daemon changes without telling anyone, such as the end of a network
/// namespace. The pause between two questions grows from 1 ms to 50 ms.
///
/// # Errors
/// The probe's own error, or [`Error::Deadline`] with `what`.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Deadline::after(within);
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = probe()? {
            return Ok(answer);
        }
        if deadline.over() {
            return Err(deadline.missed(what, ""));
        }
        std::thread::sleep(pause.min(deadline.left()));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Waits until the descriptor has something to read, or its peer is gone.
///
/// # Errors
/// [`Error::Deadline`] with `what`.
pub fn readable(fd: impl AsFd, what: &str, deadline: Deadline) -> Result<()> {
    loop {
        let left = deadline.left();
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(deadline.missed(what, "")),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).during(|| format!("poll for {what}")),
        }
    }
}

/// A handle on a process that reports its end.
///
/// # Errors
/// There is no such process.
pub fn process(pid: u32) -> Result<OwnedFd> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = raw.ok_or_else(|| Error::check(format!("{pid} is not a process id")))?;
    pidfd_open(pid, PidfdFlags::empty()).during(|| format!("pidfd_open({pid:?})"))
}

/// Waits until the process behind `pid` has ended; one that is gone already counts.
///
/// # Errors
/// [`Error::Deadline`].
pub fn gone(pid: u32, within: Duration) -> Result<()> {
    let Ok(fd) = process(pid) else { return Ok(()) };
    readable(&fd, &format!("the end of process {pid}"), Deadline::after(within))
}
