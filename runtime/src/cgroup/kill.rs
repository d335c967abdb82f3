//! Ending every process of a cgroup, whatever it does meanwhile: forks, is
//! frozen, sits in a child cgroup.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::process::Signal;

use super::group::Cgroup;
use super::procs::{self, Backoff, timed_out};
use crate::error::{ErrorKind, Result};

/// How long one round may try to freeze before it signals regardless.
const FREEZE_ROUND: Duration = Duration::from_millis(200);

impl Cgroup {
    /// Sends `signal` once to every process in the cgroup and its children.
    /// Frozen processes get it when they are thawed.
    ///
    /// # Errors
    /// `InvalidInput` for a number that is no signal; `NotFound` when the
    /// cgroup is gone.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let Some(signal) = Signal::from_named_raw(signal) else {
            return Err(crate::error::Error::field("signal", format!("{signal} is no signal")));
        };
        let pids = self.pids(true)?;
        procs::signal(self, &pids, signal).map(drop)
    }

    /// Kills every process in the cgroup and its children and returns when
    /// none is left. Frozen groups are thawed, forking ones stopped first.
    ///
    /// # Errors
    /// `Timeout` when processes are left at the deadline. A cgroup that is gone
    /// has no processes: `Ok`.
    pub fn kill_all(&self, deadline: Instant) -> Result<()> {
        if self.kill_at_once()? {
            // SIGKILL reaches a process stopped by the v1 freezer only when it is thawed.
            tolerate_absence(self.thaw())?;
            if self.wait_unpopulated(deadline)? && self.pids_everywhere()?.is_empty() {
                return Ok(());
            }
        }
        self.kill_in_rounds(deadline)
    }

    /// v2's `cgroup.kill` (5.14), which no fork escapes. False without it.
    fn kill_at_once(&self) -> Result<bool> {
        let Some(at) = self.v2() else { return Ok(false) };
        match at.write("cgroup.kill", "1") {
            Ok(()) => Ok(true),
            // Older kernel, gone, or threaded.
            Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => Ok(false),
            Err(errno) => Err(at.error("writing", "cgroup.kill", errno)),
        }
    }

    /// Freeze, list, signal, thaw, wait for the deaths; until nobody is left.
    fn kill_in_rounds(&self, deadline: Instant) -> Result<()> {
        let mut backoff = Backoff::default();
        loop {
            let mut pids = self.pids_everywhere()?;
            if pids.is_empty() {
                return Ok(());
            }
            // A group that forks faster than we signal is caught only while it
            // stands still. Whoever does not freeze is signalled all the same.
            let still = deadline.min(Instant::now() + FREEZE_ROUND);
            if self.freeze(still).is_ok() {
                pids = self.pids_everywhere()?;
            }
            let result = procs::signal(self, &pids, Signal::KILL);
            tolerate_absence(self.thaw())?;
            let waited = procs::wait_dead(result?, deadline)?;
            if !waited || Instant::now() >= deadline {
                let left = self.pids_everywhere()?;
                if left.is_empty() {
                    return Ok(());
                }
                let text =
                    format!("{} processes outlived SIGKILL, such as {}", left.len(), left[0]);
                return Err(timed_out(self, &text));
            }
            // Processes that no pidfd could be had of (dying already) leave no event.
            let left = self.pids_everywhere()?;
            if left == pids {
                backoff.pause(deadline);
            }
        }
    }
}

fn tolerate_absence(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => {
            Ok(())
        }
        other => other,
    }
}
