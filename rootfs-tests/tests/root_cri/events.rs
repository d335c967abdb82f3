//! What the daemon tells of pods: events and stats.

use crate::pod::Pod;
use rootfs_tests::cri::{ContainerConfig, ContainerEventType};
use rootfs_tests::error::{Error, Result};
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, Deadline, PATIENCE};
use rootfs_tests::{ensure, ensure_eq};
use std::time::Duration;

/// The kubelet's source of container states since it can do without asking for them.
pub(crate) fn container_events(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let events = pod.cri.events()?;
    // Nothing says that the subscription stands but its first event.
    let mut attempt = 0;
    wait::until("a first event", PATIENCE, || {
        attempt += 1;
        let name = format!("probe-{attempt}");
        let probe =
            pod.cri.create(&pod.id, &ContainerConfig::simple(&name, &["true"]), &pod.config)?;
        let event = events.next(Duration::from_millis(500))?;
        pod.cri.remove(&probe)?;
        Ok(event)
    })?;
    let one = pod.run(&ContainerConfig::simple("one", &["sh", "-c", "exit 3"]))?;
    pod.exited(&one)?;
    pod.cri.remove(&one)?;
    let mut seen = Vec::new();
    let deadline = Deadline::after(PATIENCE);
    while seen.last() != Some(&ContainerEventType::Deleted) {
        let Some(event) = events.next(deadline.left())? else {
            return Err(deadline.missed("the container's deletion", &format!("{seen:?}")));
        };
        if event.container_id != one {
            continue;
        }
        let kind = event.container_event_type;
        let kind = ContainerEventType::try_from(kind)
            .map_err(|_| Error::check(format!("event of kind {kind}")))?;
        if kind == ContainerEventType::Stopped {
            let status = event.containers_statuses.iter().find(|status| status.id == one);
            ensure_eq!(status.map(|status| status.exit_code), Some(3), "exit code in the event");
        }
        let about = event.pod_sandbox_status.map(|status| status.id);
        ensure!(about.is_none_or(|id| id == pod.id), "{kind:?} of another pod");
        seen.push(kind);
    }
    let expected = [
        ContainerEventType::Created,
        ContainerEventType::Started,
        ContainerEventType::Stopped,
        ContainerEventType::Deleted,
    ];
    ensure_eq!(seen, expected, "events of the container");
    drop(events);
    pod.end()
}

/// containerd has this call since 1.7; a kubelet that relies on it must be told.
pub(crate) fn no_container_events(scene: &mut Scene<'_>) -> Result<()> {
    let refused = scene.cri()?.events()?.next(PATIENCE).err();
    ensure_eq!(refused.as_ref().and_then(Error::code), Some("Unimplemented"), "{refused:?}");
    Ok(())
}

pub(crate) fn pod_stats(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let script = "seq 1 50000 >/dev/null; echo done; sleep 1000";
    let one = pod.run(&ContainerConfig::simple("one", &["sh", "-c", script]))?;
    pod.logged("one", "done")?;
    let stats = pod.cri.pod_stats(&pod.id)?;
    let linux = stats.linux.unwrap_or_default();
    let cpu = linux.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).unwrap_or_default().value;
    ensure!(cpu > 1_000_000, "{cpu} ns of CPU time after counting to 50000");
    let memory = linux.memory.unwrap_or_default().working_set_bytes.unwrap_or_default().value;
    ensure!(memory > 4096, "{memory} bytes of working set");
    // The daemons differ in whom they count besides the pod's own process.
    let processes = linux.process.unwrap_or_default().process_count.unwrap_or_default().value;
    ensure!((1..10).contains(&processes), "{processes} processes in the pod");
    let link = linux.network.unwrap_or_default().default_interface.unwrap_or_default();
    ensure_eq!(link.name, "eth0", "the pod's network link");
    let ids: Vec<String> = linux
        .containers
        .into_iter()
        .filter_map(|it| it.attributes.map(|attributes| attributes.id))
        .collect();
    ensure_eq!(ids, [one], "containers in the pod's stats");
    let all = pod.cri.list_pod_stats()?;
    let ids: Vec<String> = all.into_iter().filter_map(|it| it.attributes.map(|it| it.id)).collect();
    ensure_eq!(ids, std::slice::from_ref(&pod.id), "pods with stats");
    pod.end()
}
