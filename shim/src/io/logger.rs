//! A program that takes a process's output (containerd's `binary://`).
//!
//! ```text
//! process ──► pipe ──► copy ──► pipe ──► 3 stdout ┐
//!                  └─► copy ──► pipe ──► 4 stderr ├ program
//!                      Create ◄── pipe ◄─ 5 ready ┘
//! ```
//! The process does not write to the program directly: a program that dies or
//! closes a stream costs the output from there on, never the process.
//!
//! When the output is over the program sees the end of its input and is left
//! alone to finish with what it has read. One that does not end by itself gets
//! SIGTERM, and in the end SIGKILL, but not before somebody deletes the process.

use std::convert::Infallible;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use boathook_runtime::helper::Helper;
use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::uri::Logger;
use super::{Phase, Whose};
use crate::failure::{ErrorKind, Failure, Result};
use crate::watch::{Watched, ready, watch};

const SIGTERM: i32 = 15;

/// How long a program may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// To say that it is ready.
    pub(super) ready: Duration,
    /// To end after the end of its input, before it is asked to.
    pub(super) end: Duration,
    /// To end when it was asked to; containerd's value.
    pub(super) term: Duration,
}

impl Limits {
    pub(super) const USUAL: Self = Self {
        ready: Duration::from_secs(30),
        end: Duration::from_secs(10),
        term: Duration::from_secs(12),
    };

    /// What a stubborn program may take after the end of its input.
    pub(super) fn after_input(self) -> Duration {
        self.end + self.term
    }
}

/// A program that has said that it is ready; killed when dropped.
#[derive(Debug)]
pub(super) struct Running {
    helper: Helper,
    /// For the log.
    name: String,
    pub(super) limits: Limits,
}

/// A started program and the write ends of its two inputs, non-blocking.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) program: Running,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Runs a program and waits until it is ready. Blocks, at most for the limit.
///
/// # Errors
/// It cannot be executed, ends at once, or does not get ready in time; it is
/// gone then.
pub(super) fn start(logger: &Logger, whose: Whose<'_>, limits: Limits) -> Result<Started> {
    let path = logger.path.display();
    let name = format!("logging program {path}");
    let pipe = |what: &str| {
        let made = pipe_with(PipeFlags::CLOEXEC);
        made.map_err(|e| Failure::sys(format!("pipe for {what} of {name}"), e))
    };
    let (stdout_read, stdout) = pipe("stdout")?;
    let (stderr_read, stderr) = pipe("stderr")?;
    let (ready_read, ready_write) = pipe("readiness")?;
    for end in [&stdout, &stderr] {
        super::nonblocking(end)?;
    }
    let mut command = Command::new(&logger.path);
    command
        .args(&logger.args)
        .env_clear()
        .env("CONTAINER_ID", whose.id)
        .env("CONTAINER_NAMESPACE", whose.namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let fds = (3..).zip([stdout_read, stderr_read, ready_write]);
    let fds = fds.map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
    command
        .fd_mappings(fds.collect())
        .map_err(|e| Failure::new(ErrorKind::Internal, format!("{name}: {e}")))?;
    executable(&logger.path).map_err(|e| Failure::invalid(format!("{name}: {e}")))?;
    let helper = Helper::spawn(&mut command).map_err(|e| Failure::from(e).context(&name))?;
    // With it go our copies of what the program has got now.
    drop(command);
    let mut program = Running { helper, name, limits };
    program.await_ready(ready_read, logger.must_report)?;
    Ok(Started { program, stdout, stderr })
}

/// What execve(2) would say about a file that cannot be one of these: the
/// request is at fault then, not the machine.
fn executable(path: &Path) -> std::io::Result<()> {
    rustix::fs::access(path, Access::EXEC_OK)?;
    match path.metadata()?.is_file() {
        true => Ok(()),
        false => Err(Errno::ACCESS.into()),
    }
}

impl Running {
    fn await_ready(&mut self, ready: OwnedFd, must_report: bool) -> Result<()> {
        let until = Instant::now() + self.limits.ready;
        if !readable(&ready, until) {
            let text = format!("{} is not ready after {:?}", self.name, self.limits.ready);
            return Err(Failure::new(ErrorKind::Timeout, text));
        }
        let read = std::fs::File::from(ready).read(&mut [0]);
        match read.map_err(|e| Failure::sys(format!("readiness of {}", self.name), e))? {
            1 => Ok(()),
            // The pipe was closed: by a program that is ready, or by one that
            // is ending.
            _ if self.helper.ending() => Err(self.ended_early(until)),
            _ if must_report => {
                let text = format!("{} closed descriptor 5 without a word", self.name);
                Err(Failure::new(ErrorKind::Internal, text))
            }
            _ => Ok(()),
        }
    }

    fn ended_early(&mut self, until: Instant) -> Failure {
        let ended = self.helper.wait(until.saturating_duration_since(Instant::now()));
        let how = match ended {
            Ok(Some(code)) => format!("with code {code}"),
            Ok(None) | Err(_) => "in an unknown way".to_owned(),
        };
        let text = format!("{} ended {how} before it was ready", self.name);
        Failure::new(ErrorKind::Internal, text)
    }

    /// Has the runtime watch the program, so that it can be followed to its end.
    ///
    /// # Errors
    /// The kernel's refusal to watch one more descriptor.
    pub(super) fn attended(self, phase: watch::Receiver<Phase>) -> Result<Attended> {
        let pidfd = self.helper.pidfd().try_clone_to_owned();
        let pidfd = pidfd.map_err(|e| Failure::sys("duplicate a pidfd", e))?;
        let pidfd = watch(pidfd, Interest::READABLE)?;
        Ok(Attended { program: Some(self), pidfd, phase })
    }
}

/// A program that is followed to its end.
pub(super) struct Attended {
    program: Option<Running>,
    pidfd: Watched,
    phase: watch::Receiver<Phase>,
}

impl Attended {
    /// Ends when the program has ended, and asks for that when its time has
    /// come: `fed` closes at the end of its input.
    pub(super) async fn follow(mut self, mut fed: mpsc::Receiver<Infallible>) {
        let Some(Running { limits, .. }) = self.program else { return };
        let mut phase = self.phase.clone();
        let over = async {
            // Fails when the streams are gone, which is the end too.
            let _ = phase.wait_for(|phase| *phase == Phase::Forgotten).await;
            let _ = fed.recv().await;
        };
        tokio::select! {
            () = ready(&self.pidfd, Interest::READABLE) => return self.ended(),
            () = over => {}
        }
        for (limit, next) in [(limits.end, Some(SIGTERM)), (limits.term, None)] {
            if timeout(limit, ready(&self.pidfd, Interest::READABLE)).await.is_ok() {
                return self.ended();
            }
            if let (Some(program), Some(signal)) = (&self.program, next) {
                let _ = program.helper.signal(signal);
            }
        }
        if let Some(program) = self.program.take() {
            crate::warning!("{} did not end on SIGTERM and is killed", program.name);
            // Dropping it kills it, and waits until it is gone.
            let _ = spawn_blocking(move || drop(program)).await;
        }
    }

    fn ended(&mut self) {
        let Some(mut program) = self.program.take() else { return };
        let code = program.helper.wait(Duration::ZERO).ok().flatten();
        let running = *self.phase.borrow() == Phase::Running;
        if running || code != Some(0) {
            let lost = if running { "; output is lost from here on" } else { "" };
            let code = code.map_or("unknown".to_owned(), |code| code.to_string());
            crate::warning!("{} ended with code {code}{lost}", program.name);
        }
    }
}

impl Drop for Attended {
    /// The server ends. Where it leaves a process running, the program goes on
    /// with it: the end of its input is all it has to be told.
    fn drop(&mut self) {
        if let Some(program) = self.program.take()
            && *self.phase.borrow() != Phase::Forgotten
        {
            program.helper.let_go();
        }
    }
}

/// Waits until `fd` is readable; false when the time is up.
fn readable(fd: &OwnedFd, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&fd.as_fd(), PollFlags::IN)], left.as_ref()) {
            // A signal, such as SIGCHLD for a container, is not an answer.
            Err(Errno::INTR) => {}
            polled => return matches!(polled, Ok(1)),
        }
    }
}
