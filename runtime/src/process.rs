//! Processes of containers: started by this process, known by pidfd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

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

/// The children that the engine knows of. [`reap_orphans`] leaves them alone, so
/// that an exit status is never lost to the wrong waiter. The lock is held across
/// the clone: there is no moment at which a child exists and is not listed.
static CHILDREN: Mutex<Children> =
    Mutex::new(Children { pids: Vec::new(), forming: 0, passed_over: false });

/// What the engine knows of its children.
#[derive(Debug)]
pub(crate) struct Children {
    /// Started and not reaped.
    pids: Vec<i32>,
    /// How many more there may be whose pids are not told yet.
    forming: usize,
    /// Whether orphans were not looked for because of those.
    passed_over: bool,
}

impl Children {
    pub(crate) fn add(&mut self, pid: i32) {
        self.pids.push(pid);
    }

    pub(crate) fn remove(&mut self, pid: i32) {
        self.pids.retain(|listed| *listed != pid);
    }
}

pub(crate) fn children() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it exists a child may be born that is not listed yet, because another
/// child makes it ([`Process::succeed`]): no child is taken for an orphan.
#[derive(Debug)]
pub(crate) struct Forming(());

impl Forming {
    pub(crate) fn begin() -> Self {
        children().forming += 1;
        Self(())
    }
}

impl Drop for Forming {
    fn drop(&mut self) {
        let mut children = children();
        children.forming -= 1;
        let due = children.forming == 0 && std::mem::take(&mut children.passed_over);
        drop(children);
        if due {
            reap_orphans();
        }
    }
}

/// Reaps processes that were reparented to this one (a subreaper) and that the
/// engine did not start. Call it on SIGCHLD and after every exit of a
/// container's process: an unreaped one of those hides orphans behind it.
pub fn reap_orphans() {
    let mut children = children();
    if children.forming > 0 {
        children.passed_over = true;
        return;
    }
    while let Ok(Some(ended)) = sys::wait(Whose::Any, true) {
        if children.pids.contains(&ended.pid) || sys::wait(Whose::Pid(ended.pid), false).is_err() {
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

    /// Why it ended before its start, if it could say so.
    pub(crate) fn last_words(&self) -> Option<Error> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.as_ref().and_then(|channel| channel.last_words(&self.program))
    }

    /// The next message of init, before the start.
    pub(crate) fn receive(&self, until: Instant) -> Result<Message> {
        match &*self.channel.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(channel) => channel.receive(Some(self.pidfd.as_fd()), until),
            None => Ok(Message::Closed),
        }
    }

    /// Goes on as the process `pid`, which this one made as its sibling. Returns
    /// this one, which is ended when it is dropped.
    ///
    /// The number came by a connection that others may have got hold of once the
    /// sibling existed, so it is believed only of a child that nobody knows yet.
    pub(crate) fn succeed(&mut self, pid: u32) -> Result<Self> {
        let mut children = children();
        let wrong = || Error::new(ErrorKind::Internal, format!("{pid} is not a new child"));
        let pid = i32::try_from(pid).ok().filter(|pid| !children.pids.contains(pid));
        let known = pid.and_then(Pid::from_raw).ok_or_else(wrong)?;
        // Unreaped, so the number is nobody else's until the descriptor holds it.
        sys::wait(Whose::Pid(known.as_raw_pid()), true).map_err(|_| wrong())?;
        let pidfd = pidfd_open(known, PidfdFlags::empty())
            .map_err(|e| Error::sys(format!("pidfd_open({known})"), e))?;
        let pid = known.as_raw_pid();
        children.add(pid);
        let first =
            (std::mem::replace(&mut self.pid, pid), std::mem::replace(&mut self.pidfd, pidfd));
        Ok(Self {
            pid: first.0,
            pidfd: first.1,
            channel: Mutex::new(None),
            program: String::new(),
            exit: OnceLock::new(),
            agent: None,
        })
    }

    /// Ends and reaps a process that has nothing left to do. It is killed or on
    /// its way out, so that the wait is a short one.
    pub(crate) fn dismiss(self) {
        let _ = self.signal(libc::SIGKILL);
        let _ = sys::wait_until_ended(self.pidfd.as_fd());
        let _ = self.reap();
    }

    /// Ends this process, which has a session of its own by the time that it
    /// makes a sibling, and the sibling, whose pid is not known.
    ///
    /// Both are gone when this returns. The number of the group cannot be
    /// somebody else's, because this process is not reaped before.
    pub(crate) fn end_group(&self) {
        if self.exit.get().is_some() {
            return;
        }
        let _ = self.signal(libc::SIGKILL);
        let _ = sys::wait_until_ended(self.pidfd.as_fd());
        let group = nix::unistd::Pid::from_raw(self.pid);
        let alone = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).is_err();
        let _ = self.reap();
        // Killed, so that the wait is a short one.
        while !alone && matches!(sys::wait_group(self.pid), Ok(Some(_))) {}
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
        children.remove(self.pid);
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
        // One that waits for the engine ends by this, should the signal not get through.
        self.channel.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // Not reaped now it would stay for good, and hide orphans: a wait that fails is tried again.
        let until = Instant::now() + DROP_LIMIT;
        let left = || until.saturating_duration_since(Instant::now());
        while wait_readable(self.pidfd.as_fd(), left()).is_err() && !left().is_zero() {}
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
    Ok(wait_first(&[fd], limit)?.is_some())
}

/// Waits until one of `fds` is readable, at most `limit`; the position of the
/// first that is.
///
/// # Errors
/// As [`wait_readable`].
pub(crate) fn wait_first(fds: &[BorrowedFd<'_>], limit: Duration) -> Result<Option<usize>> {
    let until = Instant::now() + limit;
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        match poll(&mut polled, left.as_ref()) {
            // A signal, such as SIGCHLD for another container, is not an answer
            // (poll(2) is never restarted).
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(polled.iter().position(|it| !it.revents().is_empty())),
            Err(e) => return Err(Error::sys("poll", e)),
        }
    }
}

/// As [`wait_readable`], for either of two.
///
/// # Errors
/// As there.
pub(crate) fn wait_either(
    one: BorrowedFd<'_>,
    other: BorrowedFd<'_>,
    limit: Duration,
) -> Result<bool> {
    Ok(wait_first(&[one, other], limit)?.is_some())
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
