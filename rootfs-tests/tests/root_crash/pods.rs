//! Pods whose shim or daemon goes: what the kubelet and other clients are told.

use std::fs;
use std::path::PathBuf;

use rootfs_tests::command::Stream;
use rootfs_tests::containerd::{BOATHOOK, Daemon};
use rootfs_tests::cri::{ContainerConfig, ContainerState, Cri, PodSandboxConfig, PodSandboxState};
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host};
use rustix::process::Signal;

use crate::stage::Played;

pub(crate) const PLAYED: &[Played] = &[
    ("output_while_the_daemon_is_away", output_while_the_daemon_is_away, &Runtime::ALL),
    // With the stock shim of 2.1 the containers run on and nobody is told (containerd 10727).
    ("a_pod_whose_shim_is_killed", a_pod_whose_shim_is_killed, &[Runtime::Boathook]),
    ("a_group_whose_shim_is_killed", a_group_whose_shim_is_killed, &[Runtime::Boathook]),
    ("an_upgrade_under_a_pod", an_upgrade_under_a_pod, &[Runtime::Boathook]),
];

const SLEEP: [&str; 2] = ["sleep", "1000"];

struct Pod {
    cri: Cri,
    id: String,
    config: PodSandboxConfig,
    logs: PathBuf,
}

impl Pod {
    fn start(scene: &Scene<'_>) -> Result<Self> {
        let cri = scene.cri()?;
        let logs = scene.daemon.dir().join("pods").join(&scene.id);
        fs::create_dir_all(&logs).during(|| "make the pod's log directory")?;
        let parent = format!("/{}", scene.daemon.name());
        let config = PodSandboxConfig::simple(&scene.id, &parent, &logs);
        let id = cri.run_pod(&config, scene.runtime.handler())?;
        Ok(Self { cri, id, config, logs })
    }

    fn run(&self, name: &str, command: &[&str]) -> Result<String> {
        self.cri.run(&self.id, &ContainerConfig::simple(name, command), &self.config)
    }

    fn pid(&self, container: &str) -> Result<u32> {
        let info = self.cri.container_info(container)?;
        let json: serde_json::Value = serde_json::from_str(&info)
            .map_err(|error| Error::check(format!("info of {container}: {error}")))?;
        let pid = json.pointer("/pid").and_then(serde_json::Value::as_u64);
        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
        pid.ok_or_else(|| Error::check(format!("no pid: {info}")))
    }

    /// The exit code of a container, once it has ended.
    fn exited(&self, container: &str) -> Result<i32> {
        wait::until("the container's end", PATIENCE, || {
            let status = self.cri.container_status(container)?;
            let exited = status.state == i32::from(ContainerState::Exited);
            Ok(exited.then_some(status.exit_code))
        })
    }

    fn end(self) -> Result<()> {
        self.cri.stop_pod(&self.id)?;
        self.cri.remove_pod(&self.id)
    }
}

/// The shim of this pod: the only one of the daemon.
fn only_shim(daemon: &Daemon) -> Result<u32> {
    let shims = daemon.shims();
    match shims.as_slice() {
        [shim] => Ok(*shim),
        _ => Err(Error::check(format!("not one shim but {shims:?}"))),
    }
}

/// Four times as much as a pipe holds. Red if the container gets SIGPIPE, or a byte is lost. It ends
/// when all has come: containerd 1.6 drops the rest of a container that ends while it starts.
fn output_while_the_daemon_is_away(scene: &mut Scene<'_>) -> Result<()> {
    let mut pod = Pod::start(scene)?;
    let until = |file: &str| format!("until test -e {file}; do sleep 0.01; done");
    let script = format!("{}; seq 1 50000; {}; exit 3", until("/go"), until("/end"));
    let container = pod.run("speaks", &["sh", "-c", &script])?;
    let pid = pod.pid(&container)?;
    let tell = |file: &str| {
        fs::write(format!("/proc/{pid}/root{file}"), "").during(|| "tell the container to go on")
    };
    scene.daemon.kill()?;
    tell("/go")?;
    blocked_on_a_pipe(pid)?;
    scene.daemon.up()?;
    pod.cri = scene.cri()?;
    let log = pod.logs.join("speaks.log");
    let read = || fs::read_to_string(&log).during(|| format!("read {}", log.display()));
    wait::until("the whole output", PATIENCE, || {
        Ok((read()?.lines().count() >= 50_000).then_some(()))
    })?;
    let text = read()?;
    let wrong = text.lines().zip(1..).find(|(line, number)| {
        line.rsplit(' ').next().and_then(|it| it.parse::<u32>().ok()) != Some(*number)
    });
    ensure_eq!(wrong, None, "the first line that is not the next number");
    tell("/end")?;
    ensure_eq!(pod.exited(&container)?, 3, "exit code");
    pod.end()
}

/// Waits until a process, or a child of it, cannot write any more.
fn blocked_on_a_pipe(pid: u32) -> Result<()> {
    let children = format!("/proc/{pid}/task/{pid}/children");
    wait::until("a full pipe", PATIENCE, || {
        let text = fs::read_to_string(&children).unwrap_or_default();
        let all = text.split_whitespace().filter_map(|it| it.parse().ok()).chain([pid]);
        let blocked = all.into_iter().any(|pid: u32| {
            let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
            // write(2) to standard output that does not return.
            call.starts_with("1 0x1 ")
        });
        Ok(blocked.then_some(()))
    })
}

/// CRI of containerd 1.6 takes the end of a shim's connection for an exit with an unknown code
/// before it learns of the true one.
fn was_killed(code: i32) -> Result<()> {
    ensure!([137, 255].contains(&code), "exit code {code} of a container whose shim was killed");
    Ok(())
}

fn a_pod_whose_shim_is_killed(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let containers = [pod.run("one", &SLEEP)?, pod.run("two", &SLEEP)?];
    let mut pids = Vec::new();
    for container in &containers {
        pids.push(pod.pid(container)?);
    }
    host::signal(only_shim(scene.daemon)?, Signal::KILL)?;
    for container in &containers {
        was_killed(pod.exited(container)?)?;
    }
    for pid in pids {
        wait::gone(pid, PATIENCE)?;
    }
    wait::until("the pod's end", PATIENCE, || {
        let status = pod.cri.pod_status(&pod.id)?.status.unwrap_or_default();
        Ok((status.state == i32::from(PodSandboxState::NotReady)).then_some(()))
    })?;
    pod.end()
}

fn a_group_whose_shim_is_killed(scene: &mut Scene<'_>) -> Result<()> {
    let ids = ["one", "two"].map(|name| format!("{}-{name}", scene.id));
    let group = format!("io.containerd.runc.v2.group={}", scene.id);
    let mut command = scene.ctr.std_command();
    command.arg("events");
    let mut events = Stream::start(command)?;
    wait::until("a first event", PATIENCE, || {
        scene.ctr.ok(&["namespace", "label", scene.ctr.namespace(), "events=wanted"])?;
        Ok(events.line(std::time::Duration::from_millis(200)))
    })?;
    let mut pids = Vec::new();
    for id in &ids {
        scene.start(&["--null-io", "--annotation", &group], id, &SLEEP)?;
        pids.push(scene.pid(id)?);
    }
    host::signal(only_shim(scene.daemon)?, Signal::KILL)?;
    for pid in pids {
        wait::gone(pid, PATIENCE)?;
    }
    let mut missing = ids.to_vec();
    while !missing.is_empty() {
        let lines = events.until("the exits", |line| line.contains("/tasks/exit"))?;
        let line = lines.last().cloned().unwrap_or_default();
        ensure!(line.contains("137"), "status of an exit: {line}");
        let known = missing.len();
        missing.retain(|id| !line.contains(&format!("\"{id}\"")));
        ensure!(missing.len() < known, "an exit that was told before: {line}");
    }
    for id in &ids {
        gone(scene, id)?;
        scene.ctr.ok(&["container", "delete", id])?;
    }
    Ok(())
}

/// Waits until the daemon knows no task of this name.
fn gone(scene: &Scene<'_>, id: &str) -> Result<()> {
    wait::until(&format!("the end of task {id}"), PATIENCE, || {
        Ok(scene.status(id)?.is_empty().then_some(()))
    })
}

/// The binary on disk is replaced while a pod runs: its server is the old one, and `start` and
/// `delete` for its containers are the new one. Red if they do not understand each other, or the
/// new one starts a second server.
fn an_upgrade_under_a_pod(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let first = pod.run("first", &SLEEP)?;
    let server = only_shim(scene.daemon)?;
    let swapped = Swapped::new(scene.daemon)?;
    let second = pod.run("second", &SLEEP)?;
    ensure_eq!(only_shim(scene.daemon)?, server, "the server of the second container");
    let said = pod.cri.exec(&second, &["echo", "hello"], 20)?;
    ensure_eq!(said.stdout, b"hello\n", "an exec in it");
    for (container, name) in [(&first, "first"), (&second, "second")] {
        pod.cri.stop(container, 0)?;
        ensure_eq!(pod.exited(container)?, 137, "exit code of {name}");
        pod.cri.remove(container)?;
    }
    // And what the old one leaves when it dies, the new one takes away.
    let third = pod.run("third", &SLEEP)?;
    let pid = pod.pid(&third)?;
    host::signal(server, Signal::KILL)?;
    was_killed(pod.exited(&third)?)?;
    wait::gone(pid, PATIENCE)?;
    pod.end()?;
    let after = scene.run(&[], &["echo", "new"])?;
    ensure_eq!(after, "new", "a container of the new binary");
    swapped.back()
}

/// Another file, with another content, in the place of the shim's binary.
struct Swapped {
    place: PathBuf,
    old: PathBuf,
}

impl Swapped {
    fn new(daemon: &Daemon) -> Result<Self> {
        let place = daemon.dir().join("bin/containerd-shim-boathook-v2");
        let old = fs::read_link(&place).during(|| format!("read the link of {BOATHOOK}"))?;
        let new = daemon.dir().join("bin/new");
        fs::copy(&old, &new).during(|| "copy the shim")?;
        let mut file = fs::File::options().append(true).open(&new).during(|| "open the copy")?;
        // Behind what the loader reads.
        std::io::Write::write_all(&mut file, b"another build").during(|| "change the copy")?;
        drop(file);
        fs::rename(&new, &place).during(|| "replace the shim")?;
        Ok(Self { place, old })
    }

    fn back(&self) -> Result<()> {
        fs::remove_file(&self.place).during(|| "remove the copy")?;
        std::os::unix::fs::symlink(&self.old, &self.place).during(|| "link the shim")
    }
}
