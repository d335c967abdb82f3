//! postStart hooks of each kind, and each thing that can happen to them, at the daemon's two doors.
//! Their servers are there before the containers are: these join a network that exists. Seen red with a
//! cgroup that is not thawed after SIGKILL (the paused ones).
//!
//! What cannot happen is left out: a container is paused when it runs, and a tcpSocket hook has failed
//! by then.

use crate::cri::Sandbox;
use crate::servers::{Manner, Server};
use crate::support::{MORTAL, POLITE, RUDE, Subject, exec, record, told};
use rootfs_tests::containerd::CRI_NAMESPACE;
use rootfs_tests::cri::Cri;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::memory::Usage;
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host};
use std::fs;

/// How the hook has to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Succeeds,
    /// With a message that has this in it.
    Fails(&'static str),
    /// Not before its container is stopped, which does not wait for it.
    Hangs,
    /// Its container ends by itself meanwhile.
    Cut,
}

/// One container.
struct Cell {
    name: &'static str,
    /// `PORT` in it becomes the container's own.
    hook: String,
    server: Option<Manner>,
    pause: Pause,
    end: End,
}

/// What is done to the container while its hook runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    Never,
    /// It stays paused to its end, which only SIGKILL brings.
    ToTheEnd,
    /// The hook may end meanwhile and cannot; the container goes on.
    ForAWhile,
}

fn cells() -> Vec<Cell> {
    let cell =
        |name, hook: String, end| Cell { name, hook, server: None, pause: Pause::Never, end };
    let http = |name, manner, end| {
        let hook = r#"{"httpGet":{"path":"/hello","port":PORT}}"#.to_owned();
        Cell { server: manner, ..cell(name, hook, end) }
    };
    let hangs = || exec("echo hook >>/out/log; exec sleep 1000");
    let waits = || exec("echo hook >>/out/log; until test -e /out/go; do sleep 0.05; done");
    let sleep = |seconds: u64| format!(r#"{{"sleep":{{"seconds":{seconds}}}}}"#);
    let paused = |cell: Cell| Cell { pause: Pause::ToTheEnd, ..cell };
    let (late, late_garbage) = (Some(Manner::LateAnswer), Some(Manner::LateGarbage));
    vec![
        cell("exec-good", exec("echo hook >>/out/log"), End::Succeeds),
        cell("exec-bad", exec("exit 3"), End::Fails("exited with 3")),
        cell("exec-hangs", hangs(), End::Hangs),
        cell("exec-cut", hangs(), End::Cut),
        // The hook is in the container, and stands still with it.
        paused(cell("exec-stopped", hangs(), End::Hangs)),
        Cell { pause: Pause::ForAWhile, ..cell("exec-resumed", waits(), End::Succeeds) },
        http("http-good", Some(Manner::Answers), End::Succeeds),
        http("http-bad", None, End::Fails("connection refused")),
        http("http-garbage", Some(Manner::Garbage), End::Fails("malformed HTTP")),
        http("http-hangs", Some(Manner::Silent), End::Hangs),
        http("http-cut", Some(Manner::Silent), End::Cut),
        // The request is not made by the container, and is answered all the same.
        paused(http("http-stopped", Some(Manner::Silent), End::Hangs)),
        paused(http("http-paused", late, End::Succeeds)),
        paused(http("http-paused-bad", late_garbage, End::Fails("malformed HTTP"))),
        paused(cell("sleep-paused", sleep(1), End::Succeeds)),
        cell("sleep-good", sleep(1), End::Succeeds),
        cell("sleep-hangs", sleep(30), End::Hangs),
        cell("sleep-cut", sleep(30), End::Cut),
        cell("tcp-bad", r#"{"tcpSocket":{"port":80}}"#.to_owned(), End::Fails("invalid handler")),
    ]
}

impl Cell {
    fn script(&self) -> &'static str {
        match (self.end, self.pause) {
            (End::Cut, _) => MORTAL,
            // Left paused, it has nothing to say.
            (_, Pause::ToTheEnd) => RUDE,
            _ => POLITE,
        }
    }

    /// What follows its start, up to the exit with this code.
    fn then(&self, code: i32) -> &'static [&'static str] {
        match self.end {
            End::Succeeds if code == 137 => {
                &["hookSucceeded:postStart", "stopping", "signalled", "graceExpired", "killed"]
            }
            End::Succeeds => &["hookSucceeded:postStart", "stopping", "signalled"],
            End::Fails(_) if code == 137 => {
                &["hookFailed:postStart", "stopping", "signalled", "graceExpired", "killed"]
            }
            End::Fails(_) => &["hookFailed:postStart", "stopping", "signalled"],
            End::Hangs if code == 137 => &["stopping", "signalled", "graceExpired", "killed"],
            End::Hangs => &["stopping", "signalled"],
            End::Cut => &[],
        }
    }

    /// A failed hook may stop a program that cannot take a signal yet, and one that is paused
    /// never does.
    fn grace(&self) -> u64 {
        let short = matches!(self.end, End::Fails(_)) || self.pause == Pause::ToTheEnd;
        if short { 2 } else { 30 }
    }

    fn codes(&self) -> &'static [i32] {
        match (self.end, self.pause) {
            (End::Cut, _) => &[7],
            (_, Pause::ToTheEnd) => &[137],
            (End::Fails(_), _) => &[5, 137],
            (End::Succeeds | End::Hangs, _) => &[5],
        }
    }
}

/// A cell whose container runs.
struct Running {
    cell: Cell,
    subject: Subject,
    id: String,
    server: Option<Server>,
}

impl Running {
    fn names(&self, scene: &Scene<'_>) -> Result<Vec<String>> {
        Ok(told(scene.ctr.namespace(), &self.id)?.names())
    }

    fn happened(&self, scene: &Scene<'_>, what: &str) -> Result<()> {
        wait::until(&format!("{what} of {}", self.cell.name), PATIENCE, || {
            Ok(self.names(scene)?.iter().any(|name| name == what).then_some(()))
        })
    }

    /// Does what the hook's end waits for, and asks for the container's where nothing else ends it.
    fn strike(&self, scene: &Scene<'_>, stop: impl Fn(&Self) -> Result<()>) -> Result<()> {
        if !matches!(self.cell.end, End::Fails(_)) || self.cell.pause != Pause::Never {
            self.subject.logged("ready")?;
        }
        self.pause(scene)?;
        match self.cell.end {
            End::Fails(_) => Ok(()),
            End::Succeeds => {
                self.happened(scene, "hookSucceeded:postStart")?;
                stop(self)
            }
            End::Hangs if self.cell.pause != Pause::Never => stop(self),
            End::Hangs => {
                self.happened(scene, "hookStarted:postStart")?;
                ensure_eq!(scene.status(&self.id)?, "RUNNING", "while the hook hangs");
                stop(self)
            }
            End::Cut => {
                self.happened(scene, "hookStarted:postStart")?;
                fs::write(self.subject.out.join("go"), "").during(|| "end a container")
            }
        }
    }

    fn pause(&self, scene: &Scene<'_>) -> Result<()> {
        if self.cell.pause == Pause::Never {
            return Ok(());
        }
        self.happened(scene, "hookStarted:postStart")?;
        if self.cell.name.starts_with("exec") {
            self.subject.logged("hook")?;
        }
        if self.server.is_some() {
            let asked = self.subject.out.join("asked");
            wait::until("a request", PATIENCE, || Ok(asked.exists().then_some(())))?;
        }
        scene.ctr.ok(&["task", "pause", &self.id])?;
        ensure_eq!(scene.status(&self.id)?, "PAUSED", "{} after a pause", self.cell.name);
        fs::write(self.subject.out.join("go"), "").during(|| "let a hook end")?;
        if self.cell.pause == Pause::ForAWhile {
            ensure!(
                !self.names(scene)?.contains(&"hookSucceeded:postStart".to_owned()),
                "too soon"
            );
            scene.ctr.ok(&["task", "resume", &self.id])?;
        }
        Ok(())
    }

    fn check(self, scene: &Scene<'_>, code: i32) -> Result<()> {
        let record = told(scene.ctr.namespace(), &self.id)?;
        let wrong = |error: Error| {
            let history = &record.0["history"];
            Error::check(format!("{}: {error}; {history:#}", self.cell.name))
        };
        let mut names = record.names();
        names.truncate(names.iter().position(|name| name == "exited").unwrap_or_default());
        if matches!(self.cell.end, End::Hangs | End::Cut) {
            // What its container's end has cut may be told of before that, or after.
            names.retain(|name| name != "hookFailed:postStart");
        }
        if self.cell.end == End::Cut {
            // So may the stop that follows, of a container that has ended.
            names.retain(|name| name != "stopping" && name != "signalled");
        }
        let expected = [&["started", "hookStarted:postStart"], self.cell.then(code)].concat();
        ensure_eq!(names, expected, "{}: the record", self.cell.name);
        ensure!(self.cell.codes().contains(&code), "{}: exit code {code}", self.cell.name);
        if let End::Fails(why) = self.cell.end {
            let message = record.message("hookFailed").map_err(wrong)?;
            ensure!(message.contains(why), "{why:?} is not in {message:?}");
        }
        if self.cell.name == "sleep-good" {
            let slept = record.between("hookStarted:postStart", "hookSucceeded:postStart")?;
            ensure!(slept >= 990, "slept {slept} ms");
        }
        let Some(server) = self.server else { return Ok(()) };
        ensure_eq!(server.end()?, ["GET /hello HTTP/1.1"], "requests of {}", self.cell.name);
        Ok(())
    }
}

fn play(
    scene: &Scene<'_>,
    all: Vec<Running>,
    stop: impl Fn(&Running) -> Result<()> + Sync,
    code: impl Fn(&Running) -> Result<i32>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let strikes: Vec<_> =
            all.iter().map(|it| scope.spawn(|| it.strike(scene, &stop))).collect();
        strikes.into_iter().try_for_each(|strike| {
            strike.join().unwrap_or_else(|_| Err(Error::check("a thread panicked".to_owned())))
        })
    })?;
    for it in all {
        let code = code(&it)?;
        it.check(scene, code)?;
    }
    host::none_left("helpers of http hooks", |line| line.contains("http-hook"))
}

/// `ctr run`, all in the network of one more container.
pub(crate) fn post_starts_of_ctr(scene: &mut Scene<'_>) -> Result<()> {
    let holder = format!("{}-holder", scene.id);
    scene.start(&["--null-io"], &holder, &["sleep", "1000000"])?;
    let holding = scene.pid(&holder)?;
    let network = format!("network:/proc/{holding}/ns/net");
    let group = format!("io.containerd.runc.v2.group={}", scene.id);
    let more = ["--with-ns", &network, "--annotation", &group];
    let mut all = Vec::new();
    for (port, cell) in (9000..).zip(cells()) {
        let subject = Subject::new(scene, &format!("{}-{}", scene.id, cell.name))?;
        let asked = Some(subject.out.join("asked"));
        let server = cell.server.map(|manner| Server::start(holding, port, manner, asked));
        let hook = cell.hook.replace("PORT", &port.to_string());
        let stop = format!(r#"{{"gracePeriodSeconds":{}}}"#, cell.grace());
        let annotations = [("post-start", hook.as_str()), ("stop", stop.as_str())];
        subject.start(scene, &annotations, &more, cell.script())?;
        let id = subject.id.clone();
        all.push(Running { cell, subject, id, server: server.transpose()? });
    }
    let stop = |it: &Running| it.subject.kill(scene, "SIGTERM");
    play(scene, all, stop, |it| scene.delete(&it.id))?;
    scene.remove(&holder)
}

/// The containers of one pod.
pub(crate) fn post_starts_of_cri(scene: &mut Scene<'_>) -> Result<()> {
    scene.ctr = scene.daemon.ctr(CRI_NAMESPACE);
    let pod = Sandbox::start(scene, &scene.id, &[])?;
    let holding = scene.pid(&pod.id)?;
    let mut all = Vec::new();
    for (port, cell) in (9000..).zip(cells()) {
        let hook = cell.hook.replace("PORT", &port.to_string());
        let (id, subject) = run(scene, &pod, &cell, &hook, &[])?;
        let asked = Some(subject.out.join("asked"));
        let server = cell.server.map(|manner| Server::start(holding, port, manner, asked));
        let server = server.transpose()?;
        pod.cri.start(&id)?;
        all.push(Running { cell, subject, id, server });
    }
    let code = |it: &Running| {
        wait::until(&format!("the end of {}", it.cell.name), PATIENCE, || {
            let status = pod.cri.container_status(&it.id)?;
            Ok((status.finished_at > 0).then_some(status.exit_code))
        })
    };
    let socket = scene.daemon.socket();
    play(scene, all, |it| Cri::connect(&socket)?.stop(&it.id, 60), code)?;
    pod.end()
}

/// Makes the container of a cell.
fn run(
    scene: &Scene<'_>,
    pod: &Sandbox,
    cell: &Cell,
    hook: &str,
    more: &[(&str, &str)],
) -> Result<(String, Subject)> {
    let key = |what: &str| format!("{what}.boathook.dev/{}", cell.name);
    let (post_start, stop, order) = (key("post-start"), key("stop"), key("post-start-order"));
    let grace = format!(r#"{{"gracePeriodSeconds":{}}}"#, cell.grace());
    let mut annotations = vec![(post_start.as_str(), hook), (&stop, &grace)];
    annotations.extend(more.iter().map(|(_, value)| (order.as_str(), *value)));
    pod.create(scene, (cell.name, BUSYBOX), &annotations, cell.script())
}

/// With `before-entrypoint` a hook's success is what the program waits for, and its failure is
/// that of the start: the program never runs.
pub(crate) fn post_starts_before_the_entrypoint(scene: &mut Scene<'_>) -> Result<()> {
    scene.ctr = scene.daemon.ctr(CRI_NAMESPACE);
    let pod = Sandbox::start(scene, &scene.id, &[])?;
    let holding = scene.pid(&pod.id)?;
    for (port, cell) in (9000..).zip(cells()) {
        // Before the program runs there is nothing to end or to pause.
        if cell.end == End::Cut || cell.pause != Pause::Never {
            continue;
        }
        let server = cell.server.map(|manner| Server::start(holding, port, manner, None));
        let server = server.transpose()?;
        let hook = cell.hook.replace("PORT", &port.to_string());
        let (id, subject) = run(scene, &pod, &cell, &hook, &[("order", "before-entrypoint")])?;
        let started = match cell.end {
            // SIGKILL ends even a start that waits.
            End::Hangs => killed_meanwhile(scene, &id),
            _ => pod.cri.start(&id),
        };
        match (cell.end, started) {
            (End::Succeeds, started) => {
                started?;
                subject.logged("ready")?;
                let names = record(CRI_NAMESPACE, &id)?.names();
                let expected = ["hookStarted:postStart", "hookSucceeded:postStart", "started"];
                ensure_eq!(names, expected, "the record of {}", cell.name);
                pod.cri.stop(&id, 60)?;
            }
            (End::Fails(why), Err(error)) => {
                let told = error.to_string();
                let all = told.contains("PostStart hook failed") && told.contains(why);
                ensure!(all, "{}: told {told}", cell.name);
            }
            (End::Hangs, Err(_)) => {}
            (_, Ok(())) => return Err(Error::check(format!("{} was started", cell.name))),
            (End::Cut, _) => {}
        }
        if cell.end != End::Succeeds {
            let log = subject.lines("log");
            ensure!(!log.contains(&"ready".to_owned()), "{}: the program ran", cell.name);
        }
        if let Some(server) = server {
            ensure_eq!(server.end()?, ["GET /hello HTTP/1.1"], "requests of {}", cell.name);
        }
    }
    host::none_left("helpers of http hooks", |line| line.contains("http-hook"))?;
    pod.end()
}

/// Starts a container whose hook hangs, and kills it; how the start ended.
fn killed_meanwhile(scene: &Scene<'_>, id: &str) -> Result<()> {
    let socket = scene.daemon.socket();
    std::thread::scope(|scope| {
        let start = scope.spawn(|| Cri::connect(&socket)?.start(id));
        wait::until("the hook's start", PATIENCE, || {
            let names = record(CRI_NAMESPACE, id).map(|record| record.names());
            let begun = names.is_ok_and(|names| names.contains(&"hookStarted:postStart".into()));
            Ok(begun.then_some(()))
        })?;
        scene.ctr.ok(&["task", "kill", "--signal", "SIGKILL", id])?;
        start.join().unwrap_or(Ok(()))
    })
}

/// What a hook and the question for a stop signal need is given back: the shim is as small as one of
/// a container without either, and has one thread again.
pub(crate) fn shim_stays_small(scene: &mut Scene<'_>) -> Result<()> {
    let (plain, hooked) = (format!("{}-plain", scene.id), format!("{}-hooked", scene.id));
    scene.start(&["--null-io"], &plain, &["sleep", "1000000"])?;
    let holding = scene.pid(&plain)?;
    let server = Server::start(holding, 9000, Manner::Answers, None)?;
    let network = format!("network:/proc/{holding}/ns/net");
    let subject = Subject::new(scene, &hooked)?;
    let hook = r#"{"httpGet":{"port":9000}}"#;
    subject.start(scene, &[("post-start", hook)], &["--with-ns", &network], POLITE)?;
    wait::until("the hook's end", PATIENCE, || {
        let names = subject.record(scene)?.names();
        Ok(names.contains(&"hookSucceeded:postStart".to_owned()).then_some(()))
    })?;
    server.end()?;
    let usage = |id: &str| {
        let shims = host::processes(|line| line.contains("-shim-boathook") && line.contains(id));
        ensure_eq!(shims.len(), 1, "shims of {id}");
        wait::until("a shim at rest", PATIENCE, || {
            let usage = Usage::of(shims[0])?;
            Ok((usage.threads == 1).then_some(usage))
        })
    };
    let (usual, after) = (usage(&plain)?, usage(&hooked)?);
    let more = after.private_dirty_kib.saturating_sub(usual.private_dirty_kib);
    ensure!(more <= 128, "{more} KiB more of its own: {after:?}, where {usual:?} is usual");
    scene.remove(&hooked)?;
    scene.remove(&plain)
}
