//! The shim, the daemon or both are killed at each point of a container's life: afterwards nothing
//! is left that should not be, and the same id is created again.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rootfs_tests::bundle;
use rootfs_tests::census::Census;
use rootfs_tests::command::Stream;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host, image};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::gate::{Gate, STAGES, no_hook_left};
use crate::stage::Played;

pub(crate) const PLAYED: &[Played] = &[
    ("shim_killed_at_each_step", shim_killed_at_each_step, &[Runtime::Boathook]),
    ("daemon_killed_at_each_step", daemon_killed_at_each_step, &[Runtime::Boathook]),
    ("both_killed_at_each_step", both_killed_at_each_step, &[Runtime::Boathook]),
    ("killed_under_an_exec", killed_under_an_exec, &[Runtime::Boathook]),
];

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Shim,
    Daemon,
    Both,
}

impl Victim {
    pub(crate) fn kill(self, scene: &mut Scene<'_>) -> Result<()> {
        self.kill_and(scene, |shims| {
            if self == Self::Daemon {
                return Ok(());
            }
            ensure!(!shims.is_empty(), "no shim to kill");
            for shim in shims {
                host::signal(*shim, Signal::KILL)?;
                wait::gone(*shim, PATIENCE)?;
            }
            Ok(())
        })
    }

    /// Kills the daemon where it is meant, has `meanwhile` deal with the shims, and starts the
    /// daemon again.
    pub(crate) fn kill_and(
        self,
        scene: &mut Scene<'_>,
        meanwhile: impl FnOnce(&[u32]) -> Result<()>,
    ) -> Result<()> {
        let shims = scene.daemon.shims();
        // The daemon first: it must not clean up before it is gone.
        if self != Self::Shim {
            scene.daemon.kill()?;
        }
        meanwhile(&shims)?;
        if self != Self::Shim {
            scene.daemon.up()?;
        }
        Ok(())
    }
}

fn shim_killed_at_each_step(scene: &mut Scene<'_>) -> Result<()> {
    at_each_step(scene, Victim::Shim)
}

fn daemon_killed_at_each_step(scene: &mut Scene<'_>) -> Result<()> {
    at_each_step(scene, Victim::Daemon)
}

fn both_killed_at_each_step(scene: &mut Scene<'_>) -> Result<()> {
    at_each_step(scene, Victim::Both)
}

fn at_each_step(scene: &mut Scene<'_>, victim: Victim) -> Result<()> {
    let config = Config::new(scene)?;
    for stage in STAGES {
        let told = |error: Error| Error::check(format!("{victim:?} killed in {stage}: {error}"));
        at_step(scene, &config, stage, victim).map_err(told)?;
    }
    Ok(())
}

fn at_step(
    scene: &mut Scene<'_>,
    config: &Config,
    stage: &'static str,
    victim: Victim,
) -> Result<()> {
    let id = format!("{}-{}", scene.id, stage.to_lowercase());
    let _ = fs::remove_dir_all(config.rootfs.join("gate"));
    let mut spec = config.spec(scene, &id);
    let gate = Gate::new(stage, &config.rootfs, &mut spec)?;
    config.save(&spec)?;
    let before = Census::with(&[scene.daemon.state()])?;
    let mut client = run(scene, config, &id)?;
    if stage == "poststop" {
        ensure_eq!(client.end()?, 0, "the start");
        scene.ctr.ok(&["task", "kill", "--signal", "SIGKILL", &id])?;
        scene.stopped(&id)?;
        let mut command = scene.ctr.std_command();
        command.args(["task", "delete", &id]);
        client = quietly(command)?;
    }
    gate.reached()?;
    victim.kill(scene)?;
    if victim != Victim::Daemon && stage != "startContainer" {
        no_hook_left()?;
    }
    // Whoever is still there, or runs it once more, goes on.
    gate.open()?;
    client.end()?;
    if victim == Victim::Daemon && stage.starts_with("create") {
        // The restarted daemon either ends what is half made or, as 1.6 does, waits for it; while
        // it is made there is no task that could be deleted.
        wait::until("the end of the create", PATIENCE, || {
            let over = scene.status(&id)? == "CREATED" || scene.daemon.shims().is_empty();
            Ok(over.then_some(()))
        })?;
    }
    forget(scene, &id)?;
    before.assert_same()?;
    config.save(&config.spec(scene, &id))?;
    ensure_eq!(run(scene, config, &id)?.end()?, 0, "the same id once more");
    scene.remove(&id)?;
    before.assert_same()
}

/// `ctr run` in the background, which returns when the container runs.
fn run(scene: &Scene<'_>, config: &Config, id: &str) -> Result<Stream> {
    let mut command = scene.ctr.std_command();
    command.args(["run", "-d", "--null-io", "--runtime", scene.runtime.ctr()]);
    command.arg("--config").arg(&config.file).arg(id);
    quietly(command)
}

/// What a client says whose daemon or shim is killed is not for the reader of the tests.
pub(crate) fn quietly(mut command: Command) -> Result<Stream> {
    command.stderr(Stdio::null());
    Stream::start(command)
}

/// Takes the container away, in whatever state it is; what the daemon still has to do about its
/// crash may come first.
pub(crate) fn forget(scene: &Scene<'_>, id: &str) -> Result<()> {
    let mut said = String::new();
    wait::until(&format!("the end of container {id}"), PATIENCE, || {
        let task = scene.ctr.output(&["task", "delete", "--force", id])?;
        let container = scene.ctr.output(&["container", "delete", id])?;
        said = format!("{}; {}", task.complaint(), container.complaint());
        let left = scene.ctr.ok(&["container", "ls", "-q"])?.text();
        Ok((!left.lines().any(|it| it == id)).then_some(()))
    })
    .map_err(|error| Error::check(format!("{error}: {said}")))
}

/// A spec with a root of its own, for `ctr run --config`, which is how hooks get in.
struct Config {
    file: PathBuf,
    rootfs: PathBuf,
}

impl Config {
    fn new(scene: &Scene<'_>) -> Result<Self> {
        let dir = scene.daemon.dir().join(&scene.id);
        let rootfs = dir.join("rootfs");
        fs::create_dir_all(&rootfs).during(|| "make a root directory")?;
        image::unpack(&scene.daemon.packages().busybox(), &rootfs)?;
        Ok(Self { file: dir.join("config.json"), rootfs })
    }

    fn spec(&self, scene: &Scene<'_>, id: &str) -> Value {
        let mut spec = bundle::spec(id, &["sleep", "1000"]);
        spec["root"]["path"] = json!(self.rootfs);
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", scene.daemon.name()));
        spec
    }

    fn save(&self, spec: &Value) -> Result<()> {
        fs::write(&self.file, spec.to_string()).during(|| "write a config")
    }
}

/// A container with an exec in it. Over the daemon's end both live on; the shim's takes both.
fn killed_under_an_exec(scene: &mut Scene<'_>) -> Result<()> {
    for victim in [Victim::Daemon, Victim::Shim, Victim::Both] {
        let told = |error: Error| Error::check(format!("{victim:?} killed: {error}"));
        under_an_exec(scene, victim).map_err(told)?;
    }
    Ok(())
}

fn under_an_exec(scene: &mut Scene<'_>, victim: Victim) -> Result<()> {
    let id = scene.id.clone();
    let before = Census::with(&[scene.daemon.state()])?;
    scene.start(&["--null-io"], &id, &["sleep", "1000"])?;
    let init = scene.pid(&id)?;
    let fifos = scene.daemon.dir().join("exec-fifos").display().to_string();
    let exec = ["task", "exec", "-d", "--fifo-dir", &fifos, "--exec-id", "ex", &id, "sleep", "500"];
    scene.ctr.ok(&exec)?;
    let pids = scene.ctr.ok(&["task", "ps", &id])?.text();
    let pids = pids.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
    let execs: Vec<u32> = pids.filter(|pid| *pid != init).collect();
    ensure_eq!(execs.len(), 1, "processes beside the first");
    victim.kill(scene)?;
    if victim == Victim::Daemon {
        ensure_eq!(scene.status(&id)?, "RUNNING", "status after the daemon's restart");
        for (pid, line) in execs.iter().map(|pid| (*pid, "sleep 500")).chain([(init, "sleep 1000")])
        {
            ensure_eq!(host::command_line(pid), line, "a process after the daemon's restart");
        }
        let exec = ["task", "exec", "--exec-id", "two", &id];
        let said = scene.ctr.hear(&exec, &["echo", "still here"])?;
        ensure_eq!(said.text(), "still here", "an exec after the daemon's restart");
    } else {
        for pid in execs.iter().chain([&init]) {
            wait::gone(*pid, PATIENCE)?;
        }
    }
    forget(scene, &id)?;
    before.assert_same()?;
    ensure_eq!(scene.run(&[], &["echo", "again"])?, "again", "the same id once more");
    Ok(())
}
