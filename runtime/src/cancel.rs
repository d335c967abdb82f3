//! Ending a create from outside, at whatever point it is.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::process::{Process, send_signal};
use crate::{Error, Result};

/// Given to a create, ends it early: its init is killed, now or as soon as
/// there is one, and the create fails and undoes itself. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Mutex<Target>>);

#[derive(Debug, Default)]
struct Target {
    cancelled: bool,
    init: Option<OwnedFd>,
}

impl Cancel {
    /// Ends the create. Without effect on one that has succeeded already.
    pub fn cancel(&self) {
        let mut target = self.lock();
        target.cancelled = true;
        target.kill();
    }

    /// Whether somebody has asked for the end.
    pub fn cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// From now on `process` is what goes.
    pub(crate) fn watch(&self, process: &Process) -> Result<()> {
        let pidfd = process.pidfd().try_clone_to_owned();
        let pidfd = pidfd.map_err(|e| Error::sys("duplicate a pidfd", e))?;
        let mut target = self.lock();
        target.init = Some(pidfd);
        if target.cancelled {
            target.kill();
        }
        Ok(())
    }

    /// The create is over: what it made is no longer this one's to end.
    pub(crate) fn release(&self) {
        self.lock().init = None;
    }

    fn lock(&self) -> MutexGuard<'_, Target> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    fn kill(&self) {
        if let Some(pidfd) = &self.init {
            // Gone already is as good.
            let _ = send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }
}
