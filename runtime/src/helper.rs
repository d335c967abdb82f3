//! Programs of the host that work for a container for a while, such as the
//! one that asks a container's web server something, or one that takes its
//! output. They are children of this process and no processes of a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::process::{children, poll_readable, send_signal};
use crate::{Error, Result};

/// How long one that got SIGKILL may take to go.
const DROP_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// A running helper. Dropping it ends it.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    pidfd: OwnedFd,
    /// Or left to itself: nothing is to be done about it in the end.
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
        Ok(self.status()?.and_then(|status| status.code()))
    }

    /// Waits for its end, at most `limit`; its exit code, or 128 + the number
    /// of the signal that ended it. None when it has not ended.
    ///
    /// # Errors
    /// As [`reap`](Self::reap).
    pub fn wait(&mut self, limit: Duration) -> Result<Option<i32>> {
        poll_readable(self.pidfd(), limit);
        let code = |status: ExitStatus| status.code().or(status.signal().map(|s| 128 + s));
        Ok(self.status()?.and_then(code))
    }

    fn status(&mut self) -> Result<Option<ExitStatus>> {
        let mut listed = children();
        let status = self.child.try_wait().map_err(|e| Error::sys("wait for a helper", e))?;
        if status.is_some() {
            self.reaped = true;
            listed.remove(i32::try_from(self.child.id()).unwrap_or(0));
        }
        Ok(status)
    }

    /// Whether it has begun to end. Between the closing of its descriptors and
    /// the moment at which the pidfd tells of the end there is a gap; this is
    /// true in it.
    pub fn ending(&self) -> bool {
        /// `PF_EXITING` of the kernel's `include/linux/sched.h`, set before anything is closed.
        const EXITING: u64 = 4;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        // The name in brackets may hold anything; state is field 3, flags are
        // field 9 (proc_pid_stat(5)).
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let flags = fields.get(6).and_then(|flags| flags.parse::<u64>().ok());
        flags.is_none_or(|flags| flags & EXITING != 0)
    }

    /// Sends a signal; numbers are the kernel's.
    ///
    /// # Errors
    /// `NotFound` when it has ended, `InvalidInput` for a number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        send_signal(self.pidfd(), signal)
    }

    /// Leaves it to itself: it goes on when this process ends.
    pub fn let_go(mut self) {
        self.reaped = true;
        children().remove(i32::try_from(self.child.id()).unwrap_or(0));
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Stdio;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str, output: Stdio) -> Helper {
        Helper::spawn(Command::new("/bin/sh").args(["-c", script]).stdout(output)).unwrap()
    }

    #[test]
    fn the_end_is_seen_as_soon_as_a_descriptor_closes() {
        let closed = |mut helper: Helper| {
            helper.take_stdout().unwrap().read_to_end(&mut Vec::new()).unwrap();
            helper
        };
        for _ in 0..50 {
            let mut helper = closed(shell("exit 3", Stdio::piped()));
            assert!(helper.ending(), "the pipe was closed by the end of the process");
            assert_eq!(helper.wait(SOON).unwrap(), Some(3));
        }
        let helper = closed(shell("exec >&-; exec sleep 1000", Stdio::piped()));
        assert!(!helper.ending(), "the pipe was closed by a process that goes on");
    }

    #[test]
    fn a_signal_is_a_code_too() {
        let mut helper = shell("exec sleep 1000", Stdio::null());
        assert_eq!(helper.wait(Duration::ZERO).unwrap(), None);
        helper.signal(15).unwrap();
        assert_eq!(helper.wait(SOON).unwrap(), Some(128 + 15));
    }

    #[test]
    fn a_dropped_helper_is_gone_and_one_let_go_is_not() {
        let one = shell("exec sleep 1000", Stdio::null());
        let pidfd = one.pidfd().try_clone_to_owned().unwrap();
        drop(one);
        assert!(poll_readable(pidfd.as_fd(), Duration::ZERO), "it outlives its owner");
        let mut command = Command::new("/bin/sh");
        let mut two =
            Helper::spawn(command.args(["-c", "read line"]).stdin(Stdio::piped())).unwrap();
        let (stdin, pidfd) = (two.take_stdin(), two.pidfd().try_clone_to_owned().unwrap());
        two.let_go();
        assert!(!poll_readable(pidfd.as_fd(), Duration::ZERO), "it was ended");
        drop(stdin);
        assert!(poll_readable(pidfd.as_fd(), SOON));
    }
}
