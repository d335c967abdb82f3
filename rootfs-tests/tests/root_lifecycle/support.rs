//! Containers with annotations, and what is known of them.

use rootfs_tests::command::{Run, Stream};
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::workspace;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A first process that says it is ready, and on SIGTERM says so and ends with code 5.
pub(crate) const POLITE: &str = "trap 'echo term >>/out/log; exit 5' TERM; echo ready >>/out/log; while :; do sleep 1000 & wait; done";
/// One that says it got SIGTERM and does not end.
pub(crate) const RUDE: &str =
    "trap 'echo term >>/out/log' TERM; echo ready >>/out/log; while :; do sleep 1000 & wait; done";
/// One that ends by itself when it is told to, by a file `go`.
pub(crate) const MORTAL: &str =
    "echo ready >>/out/log; until test -e /out/go; do sleep 0.05; done; exit 7";

/// The handler of an exec hook that runs this script.
pub(crate) fn exec(script: &str) -> String {
    serde_json::json!({ "exec": { "command": ["sh", "-c", script] } }).to_string()
}

/// A container and the directory that it sees as `/out`.
pub(crate) struct Subject {
    pub(crate) id: String,
    pub(crate) out: PathBuf,
}

impl Subject {
    /// Makes the directory for a container `id`.
    pub(crate) fn new(scene: &Scene<'_>, id: &str) -> Result<Self> {
        let out = scene.daemon.dir().join("out").join(id);
        fs::create_dir_all(&out).during(|| format!("mkdir {}", out.display()))?;
        Ok(Self { id: id.to_owned(), out })
    }

    /// Starts the container in the background; annotations are without `.boathook.dev/self`.
    pub(crate) fn start(
        &self,
        scene: &Scene<'_>,
        annotations: &[(&str, &str)],
        more: &[&str],
        script: &str,
    ) -> Result<()> {
        let options = self.options(annotations, more);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        scene.start(&options, &self.id, &["sh", "-c", script])
    }

    pub(crate) fn options(&self, annotations: &[(&str, &str)], more: &[&str]) -> Vec<String> {
        let mount = format!("type=bind,src={},dst=/out,options=rbind:rw", self.out.display());
        let mut options = vec!["--null-io".to_owned(), "--mount".into(), mount];
        for (what, value) in annotations {
            let key = if what.contains('/') {
                (*what).to_owned()
            } else {
                format!("{what}.boathook.dev/self")
            };
            options.extend(["--annotation".to_owned(), format!("{key}={value}")]);
        }
        options.extend(more.iter().map(|word| (*word).to_owned()));
        options
    }

    /// The lines of a file in `/out`.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.out.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until `/out/log` has this line.
    pub(crate) fn logged(&self, line: &str) -> Result<()> {
        wait::until(&format!("{line:?} of {}", self.id), PATIENCE, || {
            Ok(self.lines("log").iter().any(|it| it == line).then_some(()))
        })
    }

    pub(crate) fn kill(&self, scene: &Scene<'_>, signal: &str) -> Result<()> {
        scene.ctr.ok(&["task", "kill", "--signal", signal, &self.id]).map(drop)
    }

    /// The record that the shim keeps.
    pub(crate) fn record(&self, scene: &Scene<'_>) -> Result<Record> {
        record(scene.ctr.namespace(), &self.id)
    }

    /// Waits for the container's end; returns the record and the exit code.
    pub(crate) fn end(&self, scene: &Scene<'_>) -> Result<(Record, i32)> {
        scene.stopped(&self.id)?;
        let record = self.record(scene)?;
        Ok((record, scene.delete(&self.id)?))
    }
}

/// A lifecycle record.
#[derive(Debug)]
pub(crate) struct Record(pub(crate) Value);

/// Reads the record of a container in one of containerd's namespaces.
pub(crate) fn record(namespace: &str, id: &str) -> Result<Record> {
    let path = format!("/run/boathook/{namespace}/{id}/lifecycle.json");
    let text = fs::read_to_string(&path).during(|| format!("read {path}"))?;
    let json = serde_json::from_str(&text);
    json.map(Record).map_err(|error| Error::check(format!("{path}: {error}")))
}

/// The record of a container that runs or is gone, as people read it.
pub(crate) fn told(namespace: &str, id: &str) -> Result<Record> {
    let args = ["lifecycle", "--json", "-n", namespace, id];
    let json = Run::new(workspace::cli()?).args(args).ok()?.text();
    let value = serde_json::from_str(&json);
    value.map(Record).map_err(|error| Error::check(format!("{error}: {json}")))
}

impl Record {
    fn entries(&self) -> &[Value] {
        self.0["history"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// What happened, in order: `what`, or `what:hook`.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |entry: &Value| {
            let what = entry["what"].as_str().unwrap_or_default();
            match entry["hook"].as_str() {
                Some(hook) => format!("{what}:{hook}"),
                None => what.to_owned(),
            }
        };
        self.entries().iter().map(name).collect()
    }

    /// Milliseconds between two things.
    pub(crate) fn between(&self, first: &str, second: &str) -> Result<u64> {
        let names = self.names();
        let at = |wanted: &str| {
            let place = names.iter().position(|name| name == wanted);
            let at = place.and_then(|at| self.entries()[at]["at"].as_u64());
            at.ok_or_else(|| Error::check(format!("no {wanted} in {names:?}")))
        };
        Ok(at(second)?.saturating_sub(at(first)?))
    }

    /// The message of the first thing of this kind.
    pub(crate) fn message(&self, what: &str) -> Result<String> {
        let found = self.entries().iter().find(|entry| entry["what"] == what);
        let message = found.and_then(|entry| entry["message"].as_str()).map(str::to_owned);
        message.ok_or_else(|| Error::check(format!("no message of {what} in {:?}", self.names())))
    }
}

/// A subscription to the daemon's events that stands.
pub(crate) fn events(scene: &Scene<'_>) -> Result<Stream> {
    let mut command = scene.ctr.std_command();
    command.arg("events");
    let mut events = Stream::start(command)?;
    // Nothing says that the subscription stands but its first event.
    wait::until("a first event", PATIENCE, || {
        scene.ctr.ok(&["namespace", "label", scene.ctr.namespace(), "events=wanted"])?;
        Ok(events.line(Duration::from_millis(200)))
    })?;
    Ok(events)
}

/// The topics of lines of `ctr events` that are about this container and ours or exits.
pub(crate) fn topics(lines: &[String], id: &str) -> Vec<String> {
    let ours = |word: &&str| word.starts_with("/hooks/") || *word == "/tasks/exit";
    let own = lines.iter().filter(|line| line.contains(id));
    own.filter_map(|line| line.split_whitespace().find(ours)).map(str::to_owned).collect()
}
