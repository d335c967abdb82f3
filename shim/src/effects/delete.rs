//! Delete: cgroup, state, mounts; the output on its way out meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use boathook_fs::rootfs::unmount_rootfs;
use tokio::task::spawn_blocking;

use super::{Delivery, Effects, Live};
use crate::bundle::Record;
use crate::failure::{self, ErrorKind, Failure};
use crate::table::ContainerNo;

/// How long the engine may take.
const DELETE_LIMIT: Duration = Duration::from_secs(10);

impl Effects {
    /// Every step may be repeated, so a Delete that failed half-way is simply
    /// asked for again.
    pub(super) fn delete(&mut self, no: ContainerNo) {
        let inbox = self.inbox.clone();
        let own = |p: &&super::LiveProcess| p.container == Some(no);
        let streams = self.processes.values().filter(own).filter_map(|p| p.streams.as_ref());
        let drains: Vec<_> = streams.map(|s| tokio::spawn(s.drained())).collect();
        let live = self.live(no);
        let record = self.records.get(&no).cloned();
        let lifecycle = self.close_life(no);
        tokio::spawn(async move {
            let removed =
                spawn_blocking(move || live.and_then(|live| remove(&live, record, lifecycle)));
            for drain in drains {
                // A drain ends by itself within its limit.
                let _ = drain.await;
            }
            let removed = removed
                .await
                .unwrap_or_else(|e| Err(Failure::new(ErrorKind::Internal, format!("delete: {e}"))));
            inbox.deliver(Delivery::Deleted(no, removed));
        });
    }
}

fn remove(
    live: &Arc<Live>,
    record: Option<Record>,
    lifecycle: Option<PathBuf>,
) -> failure::Result<()> {
    if let Some(dir) = lifecycle
        && let Err(failure) = super::hooks::retire_record(&dir)
    {
        crate::warning!("record of {}: {failure}", live.container.id());
    }
    live.container.delete(DELETE_LIMIT)?;
    unmount_rootfs(&live.bundle.join("rootfs"))?;
    if let Some(mut record) = record {
        record.clean = true;
        // Without the mark the `delete` command looks for itself.
        if let Err(failure) = record.write(&live.bundle) {
            crate::warning!("record of {}: {failure}", live.container.id());
        }
    }
    Ok(())
}
