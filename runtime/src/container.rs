//! A container that exists: one more process in it, signals, freezing, limits,
//! figures, the end.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxResources, Process as ProcessSpec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::{Cgroup, OomWatch, Stats};
use crate::engine::{Shared, modules_for};
use crate::exec::{Launch, Launched, Stdio, launch};
use crate::plan::Plan;
use crate::process::{Process, send_signal};
use crate::state::{self, State, start_time};
use crate::{Error, ErrorKind, Result};

/// A container, made by this process or found by its record.
#[derive(Debug)]
pub struct Container {
    shared: Arc<Shared>,
    id: String,
    pid: i32,
    bundle: PathBuf,
    namespaces: u32,
    private_pid: bool,
    cgroup: Cgroup,
    pidfd: Option<OwnedFd>,
}

impl Container {
    pub(crate) fn new(
        shared: Arc<Shared>,
        state: &State,
        cgroup: Cgroup,
        pidfd: Option<OwnedFd>,
    ) -> Self {
        Self {
            shared,
            id: state.id.clone(),
            pid: state.pid,
            bundle: state.bundle.clone(),
            namespaces: state.boathook.namespaces,
            private_pid: state.boathook.private_pid,
            cgroup,
            pidfd,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Pid of its first process, also after that ended.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its bundle.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Whether the end of its first process is the end of all of them, because
    /// it is pid 1 of a namespace of their own.
    pub fn has_private_pidns(&self) -> bool {
        self.private_pid
    }

    /// Makes one more process in the container, which waits for
    /// [`Process::start`]. Returns the master of its terminal as well.
    ///
    /// # Errors
    /// `WrongState` when the container has ended; else as for a create.
    pub fn exec(
        &self,
        spec: &ProcessSpec,
        stdio: Stdio,
        deadline: Duration,
    ) -> Result<(Process, Option<OwnedFd>)> {
        let until = Instant::now() + deadline;
        let Some(pidfd) = &self.pidfd else { return Err(self.stopped()) };
        let layout = self.shared.hierarchies()?.layout();
        let plan = Plan::exec(spec, self.namespaces, layout, modules_for(Some(spec)))?;
        let launched = launch(&Launch {
            plan: &plan,
            cgroup: &self.cgroup,
            stdio,
            container: Some(pidfd.as_fd()),
            image: self.shared.image()?.as_fd(),
            until,
        });
        match launched {
            Ok(Launched { process, console }) => Ok((process, console)),
            // A failure is explained best by the end of the container, if it ended meanwhile.
            Err(_) if self.ended() => Err(self.stopped()),
            Err(error) => Err(error),
        }
    }

    fn ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return true };
        crate::process::poll_readable(pidfd.as_fd(), Duration::ZERO)
    }

    fn stopped(&self) -> Error {
        let text = format!("container {:?} is not running", self.id);
        Error::new(ErrorKind::WrongState, text)
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        match &self.pidfd {
            Some(pidfd) => send_signal(pidfd.as_fd(), signal),
            None => Err(Error::new(ErrorKind::NotFound, "process already finished")),
        }
    }

    /// Sends a signal to every process of the container.
    ///
    /// # Errors
    /// `NotFound` when its cgroup is gone.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        self.cgroup.signal_all(signal)
    }

    /// Kills every process of the container and waits for their end.
    ///
    /// # Errors
    /// `Timeout` when some are left.
    pub fn kill_all(&self, limit: Duration) -> Result<()> {
        self.cgroup.kill_all(Instant::now() + limit)
    }

    /// The pids of its processes.
    ///
    /// # Errors
    /// `NotFound` when its cgroup is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.cgroup.pids(true)
    }

    /// Freezes it.
    ///
    /// # Errors
    /// `Timeout` when it could not be frozen; it runs then.
    pub fn pause(&self, limit: Duration) -> Result<()> {
        self.cgroup.freeze(Instant::now() + limit)
    }

    /// Thaws it.
    ///
    /// # Errors
    /// When its cgroup is gone.
    pub fn resume(&self) -> Result<()> {
        self.cgroup.thaw()
    }

    /// Changes its limits.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported` naming the field.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        self.cgroup.update(resources)
    }

    /// What it has used.
    ///
    /// # Errors
    /// `NotFound` when its cgroup is gone.
    pub fn stats(&self) -> Result<Stats> {
        self.cgroup.stats()
    }

    /// A watch on its running out of memory.
    ///
    /// # Errors
    /// `Unsupported` without a memory controller.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        self.cgroup.oom_watch()
    }

    /// Ends what is left of it and removes its cgroup and its record. May be
    /// repeated: what is gone is fine.
    ///
    /// # Errors
    /// `Timeout` when a process did not go; the record stays then.
    pub fn delete(&self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        // The usual case: everybody is gone, and an rmdir proves it.
        if self.cgroup.delete(Instant::now()).is_err() {
            self.cgroup.kill_all(until)?;
            self.cgroup.delete(until)?;
        }
        state::remove(self.shared.root(), &self.id)
    }
}

/// pidfd of a process, if it is the one that started at `started`: a reused
/// pid is somebody else. The check comes after the open, so that it is about
/// the process that the descriptor holds.
pub(crate) fn pidfd_of(pid: i32, started: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    (start_time(pid).ok()? == started).then_some(pidfd)
}
