//! The daemon or the shim is killed while a stop is under way.

use crate::cri::Pod;
use crate::stuck::Tar;
use crate::support::{RUDE, Record, Subject, events, exec, told, topics};
use rootfs_tests::command::Stream;
use rootfs_tests::containerd::CRI_NAMESPACE;
use rootfs_tests::cri::Cri;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host};
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A container that was at some moment of its stop when the daemon was killed.
struct Caught {
    subject: Subject,
    pid: u32,
    /// The last thing that happened before.
    moment: &'static str,
    /// What the shim has to tell of since then.
    untold: &'static [&'static str],
    /// Milliseconds from the begin of the stop to the kill, at least.
    grace: u64,
}

/// Each container ends on time without the daemon; what happened is told when it is back, in order,
/// from the first to the last. Seen red with newer events put before older ones, and with one dropped
/// for each attempt that fails.
pub(crate) fn daemon_killed_during_stops(scene: &mut Scene<'_>) -> Result<()> {
    let mut tar = Tar::mount(scene.daemon.dir().join("out").join(format!("{}-tar", scene.id)))?;
    let all = catch(scene, &tar)?;
    scene.daemon.kill()?;
    fs::write(all[1].subject.out.join("go"), "").during(|| "let the hook go")?;
    tar.let_go()?;
    let mut before = Vec::new();
    for it in &all {
        wait::gone(it.pid, PATIENCE)?;
        before.push(wait::until("the exit in the record", PATIENCE, || {
            let record = it.subject.record(scene)?;
            Ok(record.names().contains(&"exited".to_owned()).then_some(record))
        })?);
    }
    let apart = EventsApart::before_start(scene)?;
    scene.daemon.up()?;
    let mut stream = events(scene)?;
    apart.join()?;
    told_afterwards(scene, &all, &before, &mut stream)?;
    drop(stream);
    apart.undo(scene)
}

/// After the daemon's return: codes and events are there.
fn told_afterwards(
    scene: &Scene<'_>,
    all: &[Caught],
    before: &[Record],
    stream: &mut Stream,
) -> Result<()> {
    for (it, before) in all.iter().zip(before) {
        let killed = before.between("stopping", "killed")?;
        let late = it.grace + 20_000;
        ensure!((it.grace - 10..late).contains(&killed), "{}: killed after {killed} ms", it.moment);
        let (record, code) = it.subject.end(scene)?;
        ensure_eq!(code, 137, "{}: exit code, after the daemon came back", it.moment);
        ensure_eq!(record.names(), before.names(), "{}: nothing happened since", it.moment);
    }
    // The shim's last event: the daemon's own may overtake those that had to wait for it.
    let deleted =
        |line: &str, it: &Caught| line.contains(" /tasks/delete ") && line.contains(&it.subject.id);
    let mut left: Vec<&Caught> = all.iter().collect();
    let lines = stream.until("the tasks' deletion", |line| {
        left.retain(|it| !deleted(line, it));
        left.is_empty()
    })?;
    for it in all {
        let found = topics(&lines, &it.subject.id);
        ensure_eq!(found, it.untold, "{}: events of {}", it.moment, lines.join("\n"));
    }
    Ok(())
}

/// The daemon's socket for events, where shims do not look for it: what they have to tell waits
/// until somebody listens.
struct EventsApart {
    config: PathBuf,
    text: String,
    socket: PathBuf,
    apart: PathBuf,
}

impl EventsApart {
    fn before_start(scene: &Scene<'_>) -> Result<Self> {
        let config = scene.daemon.dir().join("containerd.toml");
        let text = fs::read_to_string(&config).during(|| "read containerd.toml")?;
        let [socket, apart] =
            ["c.sock.ttrpc", "c.sock.apart"].map(|name| scene.daemon.dir().join(name));
        let changed = text.replace("c.sock.ttrpc", "c.sock.apart");
        ensure!(changed != text, "no c.sock.ttrpc in containerd.toml");
        fs::write(&config, changed).during(|| "write containerd.toml")?;
        // That of the daemon that was killed.
        fs::remove_file(&socket).during(|| "remove a socket")?;
        Ok(Self { config, text, socket, apart })
    }

    /// Now they find it.
    fn join(&self) -> Result<()> {
        fs::hard_link(&self.apart, &self.socket).during(|| "link a socket")
    }

    /// The daemon as it was.
    fn undo(self, scene: &mut Scene<'_>) -> Result<()> {
        scene.daemon.stop()?;
        for path in [&self.socket, &self.apart] {
            let _ = fs::remove_file(path);
        }
        fs::write(&self.config, &self.text).during(|| "write containerd.toml")?;
        scene.daemon.up()
    }
}

/// Four containers, each at another moment of its stop when this returns.
fn catch(scene: &Scene<'_>, tar: &Tar) -> Result<[Caught; 4]> {
    let hook = exec("echo hook >>/out/log; until test -e /out/go; do sleep 0.05; done");
    let mount = format!("type=bind,src={},dst=/tar,options=rbind:rw", tar.path().display());
    let stuck = "echo ready >>/out/log; : </tar/nothing";
    let start = |moment: &'static str, grace: u64, pre_stop: Option<&str>, script: &str| {
        let id = format!("{}-{}", scene.id, moment.replace(':', "-"));
        let subject = Subject::new(scene, &id)?;
        let stop = format!(r#"{{"gracePeriodSeconds":{grace}}}"#);
        let mut annotations = vec![("stop", stop.as_str())];
        annotations.extend(pre_stop.map(|hook| ("pre-stop", hook)));
        subject.start(scene, &annotations, &["--mount", &mount], script)?;
        subject.logged("ready")?;
        let pid = scene.pid(&subject.id)?;
        // However short, the program has two seconds.
        let grace = grace.max(2) * 1000;
        Ok::<_, Error>(Caught { subject, pid, moment, untold: &[], grace })
    };
    let over = &["/hooks/grace-expired", "/hooks/killed", "/tasks/exit"];
    let in_hook = &[
        "/hooks/succeeded",
        "/hooks/signalled",
        "/hooks/grace-expired",
        "/hooks/killed",
        "/tasks/exit",
    ];
    let all = [
        Caught { untold: &["/tasks/exit"], ..start("killed", 0, None, stuck)? },
        Caught { untold: in_hook, ..start("hookStarted:preStop", 5, Some(&hook), RUDE)? },
        Caught { untold: over, ..start("signalled", 5, None, RUDE)? },
        Caught { untold: over, ..start("late", 3, None, RUDE)? },
    ];
    tar.stuck(PATIENCE)?;
    let names = |it: &Caught| Ok::<_, Error>(it.subject.record(scene)?.names());
    all[0].subject.kill(scene, "SIGTERM")?;
    wait::until("SIGKILL", PATIENCE, || {
        Ok((names(&all[0])?.last().is_some_and(|last| last == "killed")).then_some(()))
    })?;
    // The one that is waited for comes first, so that the others are in the middle then.
    all[1..].iter().rev().try_for_each(|it| it.subject.kill(scene, "SIGTERM"))?;
    all[1].subject.logged("hook")?;
    all[2..].iter().try_for_each(|it| it.subject.logged("term"))?;
    // The last moment before the kill.
    wait::until("the end of a grace period", PATIENCE, || {
        let record = all[3].subject.record(scene)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let soon = now + Duration::from_millis(400);
        let until = record.0["until"].as_u64().map_or(Duration::ZERO, Duration::from_millis);
        Ok((until <= soon).then_some(()))
    })?;
    for it in &all[..3] {
        let names = names(it)?;
        ensure_eq!(names.last().map(String::as_str), Some(it.moment), "the last of {names:?}");
    }
    Ok(all)
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
    forget(scene, &subject.id)
}

/// Removes a container whose shim was killed.
pub(crate) fn forget(scene: &Scene<'_>, id: &str) -> Result<()> {
    // The daemon may have forgotten the task by itself.
    wait::until(&format!("the end of {id}"), PATIENCE, || {
        Ok(["", "STOPPED"].contains(&scene.status(id)?.as_str()).then_some(()))
    })?;
    let _ = scene.ctr.output(&["task", "delete", "--force", id]);
    scene.ctr.ok(&["container", "delete", id]).map(drop)
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
        let killed = pod.subject.logged("hook").and_then(|()| kill_shim(&pod.sandbox.id));
        let gone = killed.and_then(|()| wait::gone(pid, PATIENCE));
        let _ = stop.join();
        gone
    })?;
    host::none_left("processes of the hook", |line| line.contains("sleep 4322"))?;
    ensure_eq!(pod.subject.lines("log"), ["ready", "hook", "hook"], "the hook was delivered again");
    check_lost(CRI_NAMESPACE, &pod.container)?;
    pod.end()
}

pub(crate) fn kill_shim(group: &str) -> Result<()> {
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
