//! Programs of the host that work for a container for a while, such as the
//! one that asks a container's web server something. They are children of this
//! process and no processes of a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::process::{children, poll_readable};
use crate::{Error, Result};

/// How long one that got SIGKILL may take to go.
const DROP_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// A running helper. Dropping it ends it.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Helper {
    /// Starts `command`.
    ///
    /// # Errors
    /// The program cannot be executed.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        // Listed before it can end, so that the reaper of orphans leaves it to us.
        let mut listed = children();
        let mut child = command.spawn().map_err(|e| Error::sys("start a helper", e))?;
        let number = i32::try_from(child.id()).unwrap_or(0);
        let pidfd = Pid::from_raw(number).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match pidfd {
            Some(Ok(pidfd)) => {
                listed.add(number);
                Ok(Self { child, pidfd, reaped: false })
            }
            other => {
                let _ = child.kill();
                let _ = child.wait();
                let errno = other.and_then(std::result::Result::err);
                Err(Error::sys("pidfd_open", errno.unwrap_or(rustix::io::Errno::SRCH)))
            }
        }
    }

    /// Its standard input, where the command made a pipe of it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, where the command made a pipe of it.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its exit code, once it has ended; never blocks. None as well when a
    /// signal ended it.
    ///
    /// # Errors
    /// The kernel does not know it as a child of this process.
    pub fn reap(&mut self) -> Result<Option<i32>> {
        let mut listed = children();
        let status = self.child.try_wait().map_err(|e| Error::sys("wait for a helper", e))?;
        let Some(status) = status else { return Ok(None) };
        self.reaped = true;
        listed.remove(i32::try_from(self.child.id()).unwrap_or(0));
        Ok(status.code())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        let _ = self.child.kill();
        poll_readable(self.pidfd.as_fd(), DROP_LIMIT);
        let _ = self.reap();
    }
}
