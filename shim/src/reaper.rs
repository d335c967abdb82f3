//! Exits: one task for each process, asleep until its pidfd is readable. The
//! task of a container's init also listens for memory running out, because
//! that must be told before the exit it leads to.

use std::os::fd::AsFd;
use std::sync::Arc;

use boathook_runtime::Process;
use boathook_runtime::cgroup::{OomEvent, OomWatch};
use tokio::io::Interest;

use crate::driver::Inbox;
use crate::failure::{Failure, Result};
use crate::table::{ContainerNo, Exit, Input, ProcessNo};
use crate::watch::{Watched, ready, watch};

/// What is said about a process whose status cannot be had.
const UNKNOWN: u32 = 255;

/// Reports the exit of `process` to the inbox, once. To be called inside the
/// runtime.
///
/// # Errors
/// The kernel's refusal to watch the pidfd.
pub(crate) fn report_exit(
    process: Arc<Process>,
    no: ProcessNo,
    inbox: Inbox,
    mut oom: Option<Oom>,
) -> Result<()> {
    let pidfd = process.pidfd().try_clone_to_owned();
    let pidfd = pidfd.map_err(|e| Failure::sys("duplicate a pidfd", e))?;
    let pidfd = watch(pidfd, Interest::READABLE)?;
    tokio::spawn(async move {
        let exit = loop {
            tokio::select! {
                () = ready(&pidfd, Interest::READABLE) => {}
                () = next(&mut oom, &inbox) => continue,
            }
            match process.reap() {
                Ok(Some(status)) => break Exit { status: status.code, at: Some(status.at) },
                Ok(None) => {}
                Err(error) => {
                    crate::warning!("exit status of {}: {error}", process.pid());
                    break Exit { status: UNKNOWN, at: Some(std::time::SystemTime::now()) };
                }
            }
        };
        // An orphan may have become visible behind this process.
        boathook_runtime::process::reap_orphans();
        if let Some(oom) = &mut oom {
            oom.report(&inbox);
        }
        inbox.input(Input::Exited(no, exit));
    });
    Ok(())
}

/// A container's memory, watched.
#[derive(Debug)]
pub(crate) struct Oom {
    container: ContainerNo,
    events: OomWatch,
    readiness: Watched,
}

impl Oom {
    /// Watches the memory of `container`.
    ///
    /// # Errors
    /// There is no memory controller, or the kernel refuses.
    pub(crate) fn new(container: ContainerNo, live: &boathook_runtime::Container) -> Result<Self> {
        let events = live.oom_watch()?;
        let fd = events.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|e| Failure::sys("duplicate a descriptor", e))?;
        Ok(Self { container, events, readiness: watch(fd, Interest::READABLE)? })
    }

    /// Tells what has happened since the last time; false when nothing more
    /// can happen.
    fn report(&mut self, inbox: &Inbox) -> bool {
        match self.events.read() {
            Ok(OomEvent::Oom(_)) => inbox.input(Input::OutOfMemory(self.container)),
            Ok(OomEvent::Nothing) => {}
            Ok(OomEvent::Gone) => return false,
            Err(error) => {
                crate::warning!("memory events: {error}");
                return false;
            }
        }
        true
    }
}

/// Waits for the next memory event and tells of it.
async fn next(oom: &mut Option<Oom>, inbox: &Inbox) {
    let Some(watched) = oom else { return std::future::pending().await };
    ready(&watched.readiness, Interest::READABLE).await;
    if !watched.report(inbox) {
        *oom = None;
    }
}
