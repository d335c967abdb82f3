//! Each handler, and each thing that can happen to its hook, at the daemon's two doors. All
//! containers of a door run and stop side by side.
//!
//! Seen red with 1 MiB kept of what a hook prints (exec-floods).
//!
//! What cannot happen is left out: a tcpSocket hook never succeeds and never waits, a sleep fails
//! only by its container's end, and it can be no longer than the grace period.

use crate::cri::Sandbox;
use crate::servers::{Manner, Server};
use crate::support::{MORTAL, POLITE, RUDE, Record, Subject, exec, told};
use rootfs_tests::containerd::CRI_NAMESPACE;
use rootfs_tests::cri::Cri;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host};
use std::fs;

/// Shortest possible, less the rounding of two times.
const SECOND: u64 = 990;
const TWO_SECONDS: u64 = 1_990;

/// What the test does once the hook is due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    None,
    /// The container is paused before it is asked to stop.
    PausedBefore,
    /// It is paused while its hook runs.
    PausedMeanwhile,
    /// Its first process ends by itself while its hook runs.
    Ends,
}

/// How the hook has to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Succeeds,
    /// With a message that has this in it.
    Fails(&'static str),
    /// It does not: its time is over, and the signal is sent.
    Overdue,
    /// Its container's end ends it.
    Cut,
}

/// One container.
struct Cell {
    name: &'static str,
    /// `PORT` in it becomes the container's own.
    hook: String,
    /// In the container's network, on `PORT`.
    server: Option<Manner>,
    grace: u64,
    blow: Blow,
    end: End,
}

const fn cell(name: &'static str, hook: String, grace: u64, blow: Blow, end: End) -> Cell {
    Cell { name, hook, server: None, grace, blow, end }
}

fn cells() -> Vec<Cell> {
    let http = || r#"{"httpGet":{"path":"/bye","port":PORT}}"#.to_owned();
    let https = || r#"{"httpGet":{"path":"/bye","port":PORT,"scheme":"HTTPS"}}"#.to_owned();
    let sleep = |seconds: u64| format!(r#"{{"sleep":{{"seconds":{seconds}}}}}"#);
    let tcp = || r#"{"tcpSocket":{"port":80}}"#.to_owned();
    let hangs = || exec("echo hook >>/out/log; exec sleep 1000");
    let good = |name, hook| cell(name, hook, 30, Blow::None, End::Succeeds);
    let bad = |name, hook, why| cell(name, hook, 30, Blow::None, End::Fails(why));
    let at = |manner, cell: Cell| Cell { server: Some(manner), ..cell };
    let (before, meanwhile) = (Blow::PausedBefore, Blow::PausedMeanwhile);
    vec![
        good("exec-good", exec("echo hook >>/out/log")),
        bad("exec-bad", exec("echo hook >>/out/log; exit 3"), "exited with 3"),
        // More than a pipe holds: it is read, and most of it dropped.
        bad("exec-floods", exec("yes | head -c 1000000; exit 4"), "exited with 4"),
        cell("exec-hangs", hangs(), 1, Blow::None, End::Overdue),
        cell("exec-cut", hangs(), 30, Blow::Ends, End::Cut),
        cell("exec-paused", hangs(), 3, before, End::Fails("paused")),
        cell("exec-stopped", hangs(), 3, meanwhile, End::Overdue),
        at(Manner::Answers, good("http-good", http())),
        bad("http-bad", http(), "connect: connection refused"),
        at(Manner::Silent, cell("http-hangs", http(), 1, Blow::None, End::Overdue)),
        at(Manner::Silent, cell("http-cut", http(), 30, Blow::Ends, End::Cut)),
        at(Manner::Answers, cell("http-paused", http(), 3, before, End::Succeeds)),
        at(Manner::AnswersOverTls, good("https-good", https())),
        at(Manner::OnlyPlain, good("https-plain", https())),
        at(Manner::Garbage, bad("https-garbage", https(), "https://")),
        at(Manner::Garbage, bad("http-garbage", http(), "malformed HTTP")),
        at(Manner::EndlessHeaders, bad("http-headers", http(), "response headers exceeded")),
        at(Manner::EndlessBody, good("http-body", http())),
        at(Manner::Circles, bad("http-circles", http(), "stopped after 10 redirects")),
        good("sleep-good", sleep(1)),
        cell("sleep-cut", sleep(30), 30, Blow::Ends, End::Cut),
        cell("sleep-paused", sleep(1), 3, before, End::Succeeds),
        bad("tcp-bad", tcp(), "Cannot run handler: invalid handler: "),
        cell("tcp-paused", tcp(), 3, before, End::Fails("invalid handler")),
    ]
}

impl Cell {
    fn script(&self) -> &'static str {
        match self.blow {
            Blow::None => POLITE,
            Blow::Ends => MORTAL,
            // A pause that comes too late is none.
            Blow::PausedBefore | Blow::PausedMeanwhile => RUDE,
        }
    }

    fn code(&self) -> i32 {
        match self.blow {
            Blow::None => 5,
            Blow::Ends => 7,
            Blow::PausedBefore | Blow::PausedMeanwhile => 137,
        }
    }

    fn check(&self, record: &Record, log: &[String]) -> Result<()> {
        let names = record.names();
        let has = |name: &str| names.iter().any(|it| it == name);
        let started = has("hookStarted:preStop");
        ensure!(started && has("exited"), "no hook or no end");
        match self.end {
            End::Succeeds => ensure!(has("hookSucceeded:preStop"), "the hook did not succeed"),
            End::Fails(why) => {
                let message = record.message("hookFailed")?;
                ensure!(message.contains(why), "{why:?} is not in {message:?}");
            }
            End::Overdue => {
                let waited = record.between("hookStarted:preStop", "signalled")?;
                ensure!(waited >= self.grace * 1000 - 10, "the hook had {waited} ms");
            }
            End::Cut => {
                // Of two ends at the same time either may be seen first.
                ensure!(!has("hookSucceeded:preStop"), "it was not cut");
                let took = record.between("stopping", "exited")?;
                ensure!(took < 25_000, "{took} ms, as if the grace period had been waited for");
            }
        }
        if self.name == "exec-floods" {
            let length = record.message("hookFailed")?.len();
            ensure!((4_096..16_384).contains(&length), "a message of {length} bytes");
        }
        if self.name == "https-plain" {
            ensure!(has("httpFallback:preStop"), "nothing was told of the fallback");
        }
        if self.name.starts_with("sleep") && self.end == End::Succeeds {
            let slept = record.between("hookStarted:preStop", "hookSucceeded:preStop")?;
            ensure!(slept >= SECOND, "slept {slept} ms");
        }
        match self.blow {
            Blow::None => {
                ensure!(!has("killed"), "it was killed");
                ensure_eq!(log.last().map(String::as_str), Some("term"), "last word");
            }
            Blow::Ends => ensure!(!has("killed"), "it was killed"),
            Blow::PausedBefore | Blow::PausedMeanwhile => {
                ensure!(has("graceExpired"), "nothing was told of the grace period's end");
                let left = record.between("signalled", "killed")?;
                ensure!(left >= TWO_SECONDS, "{left} ms from the signal to the end");
            }
        }
        Ok(())
    }
}

/// A cell whose container runs.
struct Running {
    cell: Cell,
    subject: Subject,
    /// The container's id.
    id: String,
    server: Option<Server>,
}

impl Running {
    fn new(scene: &Scene<'_>, cell: Cell, subject: Subject, id: String, port: u16) -> Result<Self> {
        subject.logged("ready")?;
        let pid = scene.pid(&id)?;
        // With a server, the request is what the container's end waits for.
        let asked = (cell.blow == Blow::Ends).then(|| subject.out.join("go"));
        let server =
            cell.server.map(|manner| Server::start(pid, port, manner, asked)).transpose()?;
        Ok(Self { cell, subject, id, server })
    }

    /// What is to happen while the hook runs.
    fn strike(&self, scene: &Scene<'_>) -> Result<()> {
        if self.cell.blow == Blow::PausedMeanwhile {
            self.subject.logged("hook")?;
            let paused = scene.ctr.output(&["task", "pause", &self.id])?;
            // On a slow machine its time may be over already.
            let over = || Ok::<_, Error>(scene.status(&self.id)? != "RUNNING");
            ensure!(paused.code == 0 || over()?, "{}", paused.complaint());
        }
        if self.cell.blow == Blow::Ends && self.server.is_none() {
            if self.cell.name.starts_with("exec") {
                self.subject.logged("hook")?;
            }
            wait::until("the hook's start", PATIENCE, || {
                let names = told(scene.ctr.namespace(), &self.id)?.names();
                Ok(names.contains(&"hookStarted:preStop".to_owned()).then_some(()))
            })?;
            fs::write(self.subject.out.join("go"), "").during(|| "end a container")?;
        }
        Ok(())
    }

    fn check(self, scene: &Scene<'_>, code: i32) -> Result<()> {
        let wrong = |error: Error| Error::check(format!("{}: {error}", self.cell.name));
        let record = told(scene.ctr.namespace(), &self.id).map_err(wrong)?;
        let with_record = |error: Error| {
            Error::check(format!("{}: {error}; {:#}", self.cell.name, record.0["history"]))
        };
        ensure_eq!(code, self.cell.code(), "exit code of {}; {:#}", self.cell.name, record.0);
        self.cell.check(&record, &self.subject.lines("log")).map_err(with_record)?;
        let Some(server) = self.server else { return Ok(()) };
        let requests = server.end().map_err(with_record)?;
        if self.cell.name != "https-garbage" {
            let last = requests.last().map(String::as_str).unwrap_or_default();
            let expected = ["GET /bye HTTP/1.1", "GET /round HTTP/1.1"];
            ensure!(expected.contains(&last), "{}: asked for {last:?}", self.cell.name);
        }
        Ok(())
    }
}

/// Pauses, asks for the stop of all at once, strikes, and returns when all have been asked.
fn stop_all(
    scene: &Scene<'_>,
    all: &[Running],
    stop: impl Fn(&Running) -> Result<()> + Sync,
) -> Result<()> {
    for it in all.iter().filter(|it| it.cell.blow == Blow::PausedBefore) {
        scene.ctr.ok(&["task", "pause", &it.id])?;
    }
    std::thread::scope(|scope| {
        let stops: Vec<_> = all.iter().map(|it| scope.spawn(|| stop(it))).collect();
        let struck = all.iter().try_for_each(|it| it.strike(scene));
        let joined = stops.into_iter().try_for_each(|stop| {
            stop.join().unwrap_or_else(|_| Err(Error::check("a thread panicked".to_owned())))
        });
        struck.and(joined)
    })
}

fn end_of_all(
    scene: &Scene<'_>,
    all: Vec<Running>,
    code: impl Fn(&Running) -> Result<i32>,
) -> Result<()> {
    for it in all {
        let code = code(&it)?;
        it.check(scene, code)?;
    }
    host::none_left("helpers of http hooks", |line| line.contains("http-hook"))
}

/// `ctr run` and `ctr task kill`. Each container has a network of its own.
pub(crate) fn matrix_of_ctr(scene: &mut Scene<'_>) -> Result<()> {
    const PORT: u16 = 8080;
    let group = format!("io.containerd.runc.v2.group={}", scene.id);
    let mut all = Vec::new();
    for cell in cells() {
        let subject = Subject::new(scene, &format!("{}-{}", scene.id, cell.name))?;
        let hook = cell.hook.replace("PORT", &PORT.to_string());
        let stop = format!(r#"{{"gracePeriodSeconds":{}}}"#, cell.grace);
        let annotations = [("pre-stop", hook.as_str()), ("stop", stop.as_str())];
        subject.start(scene, &annotations, &["--annotation", &group], cell.script())?;
        let id = subject.id.clone();
        all.push(Running::new(scene, cell, subject, id, PORT)?);
    }
    stop_all(scene, &all, |it| it.subject.kill(scene, "SIGTERM"))?;
    end_of_all(scene, all, |it| scene.delete(&it.id))
}

/// One pod, its containers stopped as the kubelet does. They share the pod's network and address.
pub(crate) fn matrix_of_cri(scene: &mut Scene<'_>) -> Result<()> {
    scene.ctr = scene.daemon.ctr(CRI_NAMESPACE);
    let pod = Sandbox::start(scene, &scene.id, &[])?;
    let mut all = Vec::new();
    for (port, cell) in (8000..).zip(cells()) {
        let key = |what: &str| format!("{what}.boathook.dev/{}", cell.name);
        let (pre_stop, stop) = (key("pre-stop"), key("stop"));
        let hook = cell.hook.replace("PORT", &port.to_string());
        let grace = format!(r#"{{"gracePeriodSeconds":{}}}"#, cell.grace);
        let annotations = [(pre_stop.as_str(), hook.as_str()), (&stop, &grace)];
        let (id, subject) = pod.run(scene, (cell.name, BUSYBOX), &annotations, cell.script())?;
        all.push(Running::new(scene, cell, subject, id, port)?);
    }
    // Ours ends them, not the daemon's own SIGKILL.
    let socket = scene.daemon.socket();
    stop_all(scene, &all, |it| Cri::connect(&socket)?.stop(&it.id, 60))?;
    end_of_all(scene, all, |it| pod.cri.container_status(&it.id).map(|status| status.exit_code))?;
    pod.end()
}
