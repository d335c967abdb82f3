//! The daemon or the shim is killed while a stop is under way.

use crate::cri::Pod;
use crate::support::{RUDE, Subject, events, exec, told, topics};
use rootfs_tests::containerd::CRI_NAMESPACE;
use rootfs_tests::cri::Cri;
use rootfs_tests::error::Result;
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host};
use rustix::process::Signal;

/// The container ends on time without the daemon; what happened is told when it is back, in order.
pub(crate) fn daemon_killed_during_a_stop(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let hook = exec("echo hook >>/out/log; until test -e /out/go; do sleep 0.05; done");
    let stop = ("stop", r#"{"gracePeriodSeconds":6}"#);
    subject.start(scene, &[("pre-stop", &hook), stop], &[], RUDE)?;
    subject.logged("ready")?;
    let pid = scene.pid(&subject.id)?;
    subject.kill(scene, "SIGTERM")?;
    subject.logged("hook")?;
    scene.daemon.kill()?;
    std::fs::write(subject.out.join("go"), "")
        .map_err(|source| rootfs_tests::Error::Io { what: "let the hook go".into(), source })?;
    subject.logged("term")?;
    wait::gone(pid, PATIENCE)?;
    let before = wait::until("the exit in the record", PATIENCE, || {
        let record = subject.record(scene)?;
        Ok(record.names().contains(&"exited".to_owned()).then_some(record))
    })?;
    let killed = before.between("stopping", "killed")?;
    ensure!((5_990..25_000).contains(&killed), "{killed} ms to the kill, with no daemon");
    scene.daemon.up()?;
    let mut stream = events(scene)?;
    let (record, code) = subject.end(scene)?;
    ensure_eq!(code, 137, "exit code, after the daemon came back");
    ensure_eq!(record.names(), before.names(), "nothing happened since");
    let id = subject.id.clone();
    // The shim's last event: the daemon's own may overtake those that had to wait for it.
    let deleted = |line: &str| line.contains(" /tasks/delete ") && line.contains(&id);
    let lines = stream.until("the task's deletion", deleted)?;
    // The subscription may have come after the first of them.
    let found = topics(&lines, &subject.id);
    let all = [
        "/hooks/succeeded",
        "/hooks/signalled",
        "/hooks/grace-expired",
        "/hooks/killed",
        "/tasks/exit",
    ];
    ensure!(
        all.ends_with(&found.iter().map(String::as_str).collect::<Vec<_>>()),
        "events {found:?}"
    );
    Ok(())
}

/// Then nothing of the container survives, and the interrupted hook runs once more before.
pub(crate) fn shim_killed_in_a_hook(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let hook = exec("echo hook >>/out/log; exec sleep 4321");
    subject.start(scene, &[("pre-stop", &hook)], &[], RUDE)?;
    subject.logged("ready")?;
    let pid = scene.pid(&subject.id)?;
    subject.kill(scene, "SIGTERM")?;
    subject.logged("hook")?;
    let mut stream = events(scene)?;
    kill_shim(&subject.id)?;
    wait::gone(pid, PATIENCE)?;
    host::none_left("processes of the hook", |line| line.contains("sleep 4321"))?;
    ensure_eq!(subject.lines("log"), ["ready", "hook", "hook"], "the hook was delivered again");
    let id = subject.id.clone();
    let lines =
        stream.until("the exit", |line| line.contains("/tasks/exit") && line.contains(&id))?;
    let found = topics(&lines, &id);
    let last = ["/hooks/started", "/hooks/killed", "/tasks/exit"];
    ensure!(found.ends_with(&last.map(str::to_owned)), "events {found:?}");
    check_lost(scene.ctr.namespace(), &id)?;
    scene.stopped(&subject.id).or_else(|error| {
        // The daemon may have forgotten the task by itself.
        if scene.status(&subject.id)?.is_empty() { Ok(()) } else { Err(error) }
    })?;
    let _ = scene.ctr.output(&["task", "delete", "--force", &subject.id]);
    scene.ctr.ok(&["container", "delete", &subject.id]).map(drop)
}

/// The same in a pod, where the kubelet's own stop waits meanwhile.
pub(crate) fn shim_killed_in_a_pods_hook(scene: &mut Scene<'_>) -> Result<()> {
    scene.ctr = scene.daemon.ctr(CRI_NAMESPACE);
    let hook = exec("echo hook >>/out/log; exec sleep 4322");
    let annotations = [("pre-stop.boathook.dev/web", hook.as_str())];
    let pod = Pod::start(scene, &scene.id, &annotations, &[], RUDE)?;
    pod.subject.logged("ready")?;
    let pid = scene.pid(&pod.container)?;
    let socket = scene.daemon.socket();
    std::thread::scope(|scope| {
        // What the daemon answers when the shim goes is its affair, and that it answers.
        let stop = scope.spawn(|| Cri::connect(&socket).map(|cri| cri.stop(&pod.container, 60)));
        let killed = pod.subject.logged("hook").and_then(|()| kill_shim(&pod.id));
        let gone = killed.and_then(|()| wait::gone(pid, PATIENCE));
        let _ = stop.join();
        gone
    })?;
    host::none_left("processes of the hook", |line| line.contains("sleep 4322"))?;
    ensure_eq!(pod.subject.lines("log"), ["ready", "hook", "hook"], "the hook was delivered again");
    check_lost(CRI_NAMESPACE, &pod.container)?;
    pod.end()
}

fn kill_shim(group: &str) -> Result<()> {
    let shims =
        host::processes(|line| line.contains("containerd-shim-boathook") && line.contains(group));
    ensure_eq!(shims.len(), 1, "shims of {group}");
    host::signal(shims[0], Signal::KILL)
}

/// What is written down of a container whose shim was lost in its preStop hook.
fn check_lost(namespace: &str, id: &str) -> Result<()> {
    let names = told(namespace, id)?.names();
    let expected =
        ["started", "stopping", "hookStarted:preStop", "hookStarted:preStop", "killed", "exited"];
    ensure_eq!(names, expected, "the record");
    Ok(())
}
