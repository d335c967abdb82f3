//! A container that exists, looked at from the host.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use boathook_runtime::{Container, Created, Process, Result, Stdio, spec};
use rootfs_tests::wait::{self, Deadline};
use serde_json::{Value, json};

use super::LIMIT;
use super::case::Outcome;
use super::streams::Streams;

/// A created container. Dropped, it is killed and deleted, so that a failed test leaves nothing.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) container: Container,
    pub(crate) process: Process,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) streams: Option<Streams>,
    spec: Value,
    deleted: bool,
}

impl Live {
    pub(crate) fn new(created: Created, spec: Value) -> Self {
        let Created { container, process, console } = created;
        Self { container, process, console, streams: None, spec, deleted: false }
    }

    /// Starts the first process.
    #[track_caller]
    pub(crate) fn start(&self) {
        self.process.start(LIMIT).unwrap_or_else(|error| panic!("start: {error}"));
    }

    /// Exit code of the first process, once it has ended.
    pub(crate) fn wait(&self) -> u32 {
        wait_for(&self.process)
    }

    /// Waits for the end of the first process and of its output, and deletes the container.
    pub(crate) fn finish(mut self) -> Outcome {
        let streams = self.streams.take().expect("pipes");
        let (out, err) = streams.finish();
        let code = self.wait();
        self.delete();
        Outcome { code, out, err }
    }

    /// Kills whatever runs and deletes the container.
    #[track_caller]
    pub(crate) fn delete(mut self) {
        self.deleted = true;
        self.container.delete(LIMIT).unwrap_or_else(|error| panic!("delete: {error}"));
        self.wait();
    }

    /// The first process's standard output, one line.
    pub(crate) fn line(&mut self) -> String {
        self.streams.as_mut().expect("pipes").line()
    }

    /// A file of `/proc/PID` of the first process.
    pub(crate) fn proc(&self, file: &str) -> String {
        proc_file(self.process.pid(), file)
    }

    /// A path inside the container, as the host reaches it.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.process.pid()))
    }

    /// The process of the config, to be changed and given to [`Live::exec_json`].
    pub(crate) fn process_spec(&self, args: &[&str]) -> Value {
        let mut spec = self.spec.clone();
        spec["args"] = json!(args);
        spec
    }

    /// Makes one more process, with pipes.
    pub(crate) fn exec_json(&self, process: &Value) -> Result<(Process, Streams)> {
        let (stdio, streams) = Streams::pipes();
        let (process, _) = self.exec_with(process, stdio)?;
        Ok((process, streams))
    }

    /// Makes one more process with these streams.
    pub(crate) fn exec_with(
        &self,
        process: &Value,
        stdio: Stdio,
    ) -> Result<(Process, Option<OwnedFd>)> {
        let process = spec::process_from_json(process.to_string().as_bytes())?;
        self.container.exec(&process, stdio, LIMIT)
    }

    /// Runs a process of this spec to its end.
    pub(crate) fn run_json(&self, process: &Value) -> Outcome {
        let (process, streams) =
            self.exec_json(process).unwrap_or_else(|error| panic!("exec: {error}"));
        process.start(LIMIT).unwrap_or_else(|error| panic!("start of an exec: {error}"));
        let (out, err) = streams.finish();
        Outcome { code: wait_for(&process), out, err }
    }

    /// Runs one more process to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        self.run_json(&self.process_spec(args))
    }

    /// Runs a shell script in the container; it must succeed.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        self.run(&["/bin/sh", "-c", script]).text().to_owned()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.deleted {
            return;
        }
        let gone = self.container.delete(LIMIT);
        assert!(gone.is_ok() || std::thread::panicking(), "delete: {gone:?}");
    }
}

/// Exit code of a process, once it has ended.
pub(crate) fn wait_for(process: &Process) -> u32 {
    wait::readable(process.pidfd(), "the end of a process", Deadline::after(LIMIT)).unwrap();
    process.reap().expect("a child of this process").expect("an exit status").code
}

/// A file of `/proc/PID`.
pub(crate) fn proc_file(pid: i32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The value of a line of `/proc/PID/status`.
pub(crate) fn status(pid: i32, name: &str) -> String {
    let text = proc_file(pid, "status");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().replace('\t', " ")
}

/// What a link of `/proc/PID` points to.
pub(crate) fn proc_link(pid: i32, link: &str) -> String {
    let path = format!("/proc/{pid}/{link}");
    let target = fs::read_link(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    target.display().to_string()
}
