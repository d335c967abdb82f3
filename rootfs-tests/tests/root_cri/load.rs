//! Many at once and many after another, and nothing left of any.

use crate::pod::{Pod, SLEEP};
use rootfs_tests::command::Stream;
use rootfs_tests::containerd::CRI_NAMESPACE;
use rootfs_tests::cri::{ContainerConfig, ContainerMetadata, ExecSyncResponse};
use rootfs_tests::error::{Error, Result};
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How often the shim under test does something; the stock shim, an order of magnitude slower,
/// does it often enough to prove the scenario right.
fn times(scene: &Scene<'_>, ours: usize) -> usize {
    match scene.runtime {
        Runtime::Boathook => ours,
        Runtime::Runc => ours / 10,
    }
}

/// As the kubelet does after a restart of the node.
pub(crate) fn twenty_pods_at_once(scene: &mut Scene<'_>) -> Result<()> {
    const PODS: usize = 20;
    let scene = &*scene;
    let one = |number: usize| -> Result<(Pod, String)> {
        let pod = Pod::named(scene, &format!("{}-{number}", scene.id), |_| {})?;
        let script = format!("echo pod-{number}; sleep 1000");
        let container = pod.run(&ContainerConfig::simple("one", &["sh", "-c", &script]))?;
        Ok((pod, container))
    };
    let pods: Vec<(Pod, String)> = at_once((0..PODS).collect(), one)?;
    let mut addresses = BTreeSet::new();
    for (number, (pod, container)) in pods.iter().enumerate() {
        pod.logged("one", &format!("pod-{number}"))?;
        let expected = format!("host-{}-{number}", scene.id);
        ensure_eq!(pod.exec(container, "hostname")?, expected, "host name of pod {number}");
        let status = pod.cri.pod_status(&pod.id)?.status.unwrap_or_default();
        addresses.insert(status.network.unwrap_or_default().ip);
    }
    ensure_eq!(addresses.len(), PODS, "different addresses {addresses:?}");
    at_once(pods, |(pod, _)| pod.end()).map(drop)
}

/// Does the same to all of these, each in a thread of its own.
fn at_once<A: Send, B: Send>(all: Vec<A>, work: impl Fn(A) -> Result<B> + Sync) -> Result<Vec<B>> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = all.into_iter().map(|it| scope.spawn(move || work(it))).collect();
        let ended = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::check("a thread has panicked")))
        });
        ended.collect()
    })
}

/// What leaks a little leaks visibly after three hundred; the shim stays the same all the while.
pub(crate) fn rounds(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let shim = pod.shim(scene)?;
    // What is made once is made by the first.
    round(&pod, 0)?;
    let before = Pod::descriptors(scene, shim)?;
    for number in 1..=times(scene, 300) {
        let told = |error: Error| Error::check(format!("round {number}: {error}"));
        round(&pod, u32::try_from(number).unwrap_or(0)).map_err(told)?;
    }
    // The stock shim on a busy machine keeps descriptors of rounds that are over.
    if scene.runtime == Runtime::Boathook {
        Pod::same_descriptors(shim, &before)?;
    }
    pod.end()
}

fn round(pod: &Pod, attempt: u32) -> Result<()> {
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "app".into(), attempt }),
        ..ContainerConfig::simple("app", &SLEEP)
    };
    let container = pod.run(&config)?;
    let said = pod.exec(&container, &format!("echo {attempt}"))?;
    ensure_eq!(said, attempt.to_string(), "output of the exec");
    pod.cri.stop(&container, 0)?;
    ensure_eq!(pod.cri.container_status(&container)?.exit_code, 137, "exit code");
    pod.cri.remove(&container)
}

/// Execs by the hundred, from sixteen clients, and one of them ends the container. Each of them
/// has an answer, those before the end the right one, and none exits after its container.
pub(crate) fn execs_until_the_end(scene: &mut Scene<'_>) -> Result<()> {
    const CLIENTS: usize = 16;
    let total = times(scene, 1000);
    let last = total * 7 / 10;
    let pod = Pod::start(scene)?;
    let shim = pod.shim(scene)?;
    round(&pod, 0)?;
    let before = Pod::descriptors(scene, shim)?;
    let script = "until test -e /go; do sleep 0.01; done; exit 5";
    let one = pod.run(&ContainerConfig::simple("one", &["sh", "-c", script]))?;
    let mut events = exits(scene)?;

    let next = AtomicUsize::new(0);
    let ending = AtomicBool::new(false);
    at_once((0..CLIENTS).collect(), |_| {
        let cri = scene.cri()?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                return Ok(());
            }
            ending.fetch_or(number == last, Ordering::SeqCst);
            let end = if number == last { "touch /go; " } else { "" };
            let script = format!("{end}echo exec-{number}");
            let answer = cri.exec(&one, &["sh", "-c", &script], 60);
            // Whatever is answered after that may have met the end.
            check(number, answer, !ending.load(Ordering::SeqCst))?;
        }
    })?;
    pod.exited(&one)?;
    ensure_eq!(pod.cri.container_status(&one)?.exit_code, 5, "exit code of the container");
    pod.cri.remove(&one)?;
    let refused = pod.cri.exec(&one, &["true"], 5).err();
    ensure_eq!(refused.as_ref().and_then(Error::code), Some("NotFound"), "exec after the removal");
    // The shim's own events may still be on their way when the daemon tells of the removal.
    let deleted = |line: &str| line.contains(" /tasks/delete ") && line.contains(&one);
    let lines = events.until("the task's deletion", deleted)?;
    if scene.runtime == Runtime::Boathook {
        // The stock shim keeps pipes of execs that met the end, and lets exits come late.
        last_exit_is_the_containers(&lines, &one)?;
        Pod::same_descriptors(shim, &before)?;
    }
    pod.end()
}

/// What an exec may answer: its output, or that it or its container has ended; only the former
/// when the container was certainly there.
fn check(number: usize, answer: Result<ExecSyncResponse>, there: bool) -> Result<()> {
    match answer {
        Ok(said) if said.exit_code == 0 => {
            let (found, wanted) =
                (String::from_utf8_lossy(&said.stdout), format!("exec-{number}\n"));
            ensure_eq!(found, wanted, "output of exec {number}");
        }
        Ok(said) => ensure!(
            !there && said.exit_code == 137,
            "exec {number} ended with {}: {}",
            said.exit_code,
            String::from_utf8_lossy(&said.stderr)
        ),
        Err(error) => {
            let late = error.code() == Some("DeadlineExceeded");
            ensure!(!there && !late, "exec {number}: {error}");
        }
    }
    Ok(())
}

/// The daemon's events, once the subscription stands.
fn exits(scene: &Scene<'_>) -> Result<Stream> {
    let ctr = scene.daemon.ctr(CRI_NAMESPACE);
    let mut command = ctr.std_command();
    command.arg("events");
    let mut events = Stream::start(command)?;
    wait::until("a first event", PATIENCE, || {
        ctr.ok(&["namespace", "label", CRI_NAMESPACE, "events=wanted"])?;
        Ok(events.line(Duration::from_millis(200)))
    })?;
    Ok(events)
}

fn last_exit_is_the_containers(lines: &[String], container: &str) -> Result<()> {
    let exits: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains(" /tasks/exit ") && line.contains(container))
        .collect();
    let own = format!("\"id\":\"{container}\"");
    let at = exits.iter().position(|line| line.contains(&own));
    ensure_eq!(at, Some(exits.len().saturating_sub(1)), "place of its exit among {}", exits.len());
    Ok(())
}
