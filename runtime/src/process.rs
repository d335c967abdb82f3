//! Processes of containers: started by this process, known by pidfd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::channel::{Channel, Message};
use crate::seccomp::agent::Agent;
use crate::sys::{self, Whose};
use crate::{Error, ErrorKind, Result};

/// How long a process that got SIGKILL may take to go.
const DROP_LIMIT: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code 0–255, or 128 + signal number.
    pub code: u32,
    /// When it was reaped.
    pub at: SystemTime,
}

/// The pids that the engine started and has not reaped. [`reap_orphans`] leaves
/// them alone, so that an exit status is never lost to the wrong waiter. The
/// lock is held across the clone: there is no moment at which a child exists
/// and is not listed.
static CHILDREN: Mutex<Vec<i32>> = Mutex::new(Vec::new());

pub(crate) fn children() -> MutexGuard<'static, Vec<i32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps processes that were reparented to this one (a subreaper) and that the
/// engine did not start. Call it on SIGCHLD and after every exit of a
/// container's process: an unreaped one of those hides orphans behind it.
pub fn reap_orphans() {
    let children = children();
    while let Ok(Some(ended)) = sys::wait(Whose::Any, true) {
        if children.contains(&ended.pid) || sys::wait(Whose::Pid(ended.pid), false).is_err() {
            return;
        }
    }
}

/// A process of a container that this process started.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    channel: Mutex<Option<Channel>>,
    /// `argv[0]`, for the message when it cannot be executed.
    program: String,
    exit: OnceLock<ExitStatus>,
    /// Who decides about its system calls, if somebody does.
    agent: Option<Box<Agent>>,
}

impl Process {
    pub(crate) fn new(pid: i32, pidfd: OwnedFd, channel: Channel, program: String) -> Self {
        Self {
            pid,
            pidfd,
            channel: Mutex::new(Some(channel)),
            program,
            exit: OnceLock::new(),
            agent: None,
        }
    }

    /// Has the listener of its filter sent to `agent` at its start.
    pub(crate) fn set_agent(&mut self, agent: Agent) {
        self.agent = Some(Box::new(agent));
    }

    /// The pid in this process's own pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable when the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Lets the waiting process execute its program and returns when it has.
    ///
    /// A process that was killed before it came so far counts as started: its
    /// exit tells the rest.
    ///
    /// # Errors
    /// `WrongState` when it was started before or has ended; otherwise why the
    /// program could not be executed.
    pub fn start(&self, deadline: Duration) -> Result<()> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(channel) = channel else {
            return Err(Error::new(ErrorKind::WrongState, "process is already started"));
        };
        if self.ended() {
            return Err(channel.last_words(&self.program).unwrap_or_else(|| {
                let text = "cannot start a container that has stopped";
                Error::new(ErrorKind::WrongState, text)
            }));
        }
        channel.release_and_confirm(&self.program, self.agent.as_deref(), deadline)
    }

    /// The next message of init, before the start.
    pub(crate) fn receive(&self, until: Instant) -> Result<Message> {
        match &*self.channel.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(channel) => channel.receive(until),
            None => Ok(Message::Closed),
        }
    }

    /// Lets a holding init do its next step.
    pub(crate) fn go_on(&self) -> Result<()> {
        match &*self.channel.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(channel) => channel.send_byte(),
            None => Ok(()),
        }
    }

    /// Whether the process has ended, reaped or not.
    pub fn ended(&self) -> bool {
        self.exit.get().is_some() || poll_readable(self.pidfd.as_fd(), Duration::ZERO)
    }

    /// The exit status, once the process has ended; never blocks. May be
    /// called again and then answers the same.
    ///
    /// # Errors
    /// When the kernel does not know the process as a child of this one.
    pub fn reap(&self) -> Result<Option<ExitStatus>> {
        let mut children = children();
        // Two callers may come here at once; the second finds what the first found.
        if let Some(status) = self.exit.get() {
            return Ok(Some(*status));
        }
        let ended = sys::wait(Whose::PidFd(self.pidfd.as_fd()), false)
            .map_err(|e| Error::sys(format!("waitid(pidfd of {})", self.pid), e))?;
        let Some(ended) = ended else { return Ok(None) };
        children.retain(|pid| *pid != self.pid);
        let exit = ExitStatus { code: ended.code, at: SystemTime::now() };
        Ok(Some(*self.exit.get_or_init(|| exit)))
    }

    /// Sends a signal; numbers are the kernel's.
    ///
    /// # Errors
    /// `NotFound` when the process has ended, `InvalidInput` for a number that
    /// is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        send_signal(self.pidfd.as_fd(), signal)
    }
}

impl Drop for Process {
    /// A process that nobody waits for any more is ended and reaped, so that
    /// every error path between clone and hand-over leaves nothing behind.
    fn drop(&mut self) {
        if self.exit.get().is_some() {
            return;
        }
        let _ = self.signal(libc::SIGKILL);
        poll_readable(self.pidfd.as_fd(), DROP_LIMIT);
        let _ = self.reap();
    }
}

/// Waits until `fd` is readable, at most `limit`; tells whether it is. Cannot
/// tell a failed wait from one that was too short: for those who try again, or
/// go on in either case.
pub(crate) fn poll_readable(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    wait_readable(fd, limit).unwrap_or(false)
}

/// Waits until `fd` is readable, at most `limit`; tells whether it is.
///
/// # Errors
/// When the kernel has no memory for the wait (poll(2)).
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, limit: Duration) -> Result<bool> {
    let until = Instant::now() + limit;
    loop {
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        match poll(&mut fds, left.as_ref()) {
            // A signal, such as SIGCHLD for another container, is not an answer
            // (poll(2) is never restarted).
            Err(rustix::io::Errno::INTR) => {}
            polled => return polled.map(|n| n == 1).map_err(|e| Error::sys("poll", e)),
        }
    }
}

/// pidfd_send_signal(2) with the errors that callers act on.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    if !(1..=64).contains(&signal) {
        return Err(Error::field("signal", format!("{signal} is not a signal")));
    }
    sys::pidfd_send_signal(pidfd, signal).map_err(|error| match error {
        Errno::ESRCH => Error::new(ErrorKind::NotFound, "process already finished"),
        other => Error::sys(format!("pidfd_send_signal({signal})"), other),
    })
}
