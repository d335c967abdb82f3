//! Exits: one task for each process, asleep until its pidfd is readable.

use std::sync::Arc;

use boathook_runtime::Process;
use tokio::io::Interest;

use crate::driver::Inbox;
use crate::failure::{Failure, Result};
use crate::table::{Exit, Input, ProcessNo};
use crate::watch::{ready, watch};

/// What is said about a process whose status cannot be had.
const UNKNOWN: u32 = 255;

/// Reports the exit of `process` to the inbox, once. To be called inside the
/// runtime.
///
/// # Errors
/// The kernel's refusal to watch the pidfd.
pub fn report_exit(process: Arc<Process>, no: ProcessNo, inbox: Inbox) -> Result<()> {
    let pidfd = process.pidfd().try_clone_to_owned();
    let pidfd = pidfd.map_err(|e| Failure::sys("duplicate a pidfd", e))?;
    let pidfd = watch(pidfd, Interest::READABLE)?;
    tokio::spawn(async move {
        let exit = loop {
            ready(&pidfd, Interest::READABLE).await;
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
        inbox.input(Input::Exited(no, exit));
    });
    Ok(())
}
