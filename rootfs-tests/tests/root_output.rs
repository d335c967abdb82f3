//! Where a process's output goes: log URIs, loggers that fail, readers that come and go, and
//! children that outlive their parent.

use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::memory::Usage;
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host, suite};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

suite!(
    file_of_a_container_and_its_exec,
    program_of_a_container,
    program_of_an_exec,
    program_that_does_not_start,
    program_that_ends_at_once,
    unknown_scheme,
    background_child_of_an_exec,
    flood_and_readers_that_leave,
    out_of_memory,
);

const SCRIPT: &str = "echo to the log; echo and errors >&2";

/// Runs a command in a container and sends its output to this URI.
fn exec(scene: &Scene<'_>, id: &str, uri: &str, script: &str) -> Result<()> {
    let args = ["task", "exec", "--log-uri", uri, "--exec-id", "logged", id, "sh", "-c", script];
    scene.ctr.ok(&args).map(drop)
}

fn lines(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).during(|| format!("read {}", file.display()))?;
    // Two streams have no order.
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    Ok(lines)
}

/// The directory of the file is made, and what is in the file stays.
fn file_of_a_container_and_its_exec(scene: &mut Scene<'_>) -> Result<()> {
    let dir = scene.daemon.dir().join(&scene.id);
    let file = dir.join("new/log file");
    let uri = format!("file://{}/new/log%20file", dir.display());
    let id = scene.id.clone();
    let script = format!("{SCRIPT}; sleep 1000");
    scene.start(&["--log-uri", &uri], &id, &["sh", "-c", &script])?;
    wait::until("the container's two lines", PATIENCE, || {
        Ok((lines(&file).unwrap_or_default().len() == 2).then_some(()))
    })?;
    exec(scene, &id, &uri, SCRIPT)?;
    scene.remove(&id)?;
    let found = lines(&file)?;
    let expected = ["and errors", "and errors", "to the log", "to the log"];
    // The stock shim loses what an exec that was over at once had said on one of the streams: one
    // line of the four, and no other change.
    let one_short = found == expected[1..] || found == expected[..3];
    let stock = scene.runtime == Runtime::Runc && one_short;
    ensure!(stock || found == expected, "lines of {}: {found:?}", file.display());
    Ok(())
}

/// A logging program in a directory of its own, and what it leaves there.
struct Logger {
    dir: PathBuf,
}

impl Logger {
    /// What `work` does comes first; the directory is `$2`.
    fn new(scene: &Scene<'_>, work: &str) -> Result<Self> {
        let dir = scene.daemon.dir().join(format!("{}-logger", scene.id));
        fs::create_dir_all(&dir).during(|| "make the logger's directory")?;
        let file = dir.join("log");
        fs::write(&file, format!("#!/bin/sh\ncd \"$2\"\n{work}\n")).during(|| "write a logger")?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&file, mode).during(|| "make the logger executable")?;
        Ok(Self { dir })
    }

    /// Keeps both streams. It minds no SIGTERM, which the stock shim sends before the end of the
    /// output has been read.
    fn keeping(scene: &Scene<'_>) -> Result<Self> {
        let work = "trap '' TERM\n/usr/bin/env > env\necho \"$@\" > args\nexec 5>&-\n\
                    cat <&3 > out &\ncat <&4 > err\nwait\necho end > ended";
        Self::new(scene, work)
    }

    fn uri(&self) -> String {
        format!("binary://{0}/log?dir={0}", self.dir.display())
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }

    /// After the end of the process whose id is `id`: all has arrived, and the logger is gone.
    fn check(&self, scene: &Scene<'_>, id: &str) -> Result<()> {
        ensure_eq!(self.said("ended"), "end\n", "what the logger said at its end");
        ensure_eq!(self.said("out").len(), 100_000, "bytes of standard output");
        ensure_eq!(self.said("err"), "errors\n", "standard error");
        ensure_eq!(self.said("args"), format!("dir {}\n", self.dir.display()), "arguments");
        let (env, namespace) = (self.said("env"), scene.ctr.namespace());
        let variables = [format!("CONTAINER_ID={id}"), format!("CONTAINER_NAMESPACE={namespace}")];
        for variable in variables {
            ensure!(env.lines().any(|line| line == variable), "no {variable} in:\n{env}");
        }
        // Only what a shell sets by itself may be there besides.
        ensure!(
            !env.contains("TTRPC") && !env.contains("PATH="),
            "the daemon's environment:\n{env}"
        );
        Ok(())
    }
}

const TALK: &str = "echo errors >&2; seq 1 100000 | head -c 100000";

fn program_of_a_container(scene: &mut Scene<'_>) -> Result<()> {
    let logger = Logger::keeping(scene)?;
    let uri = logger.uri();
    scene.ctr.ok(&scene.run_args(&["--rm", "--log-uri", &uri], &scene.id, &["sh", "-c", TALK]))?;
    logger.check(scene, &scene.id)
}

/// It is told the exec's id, not the container's.
fn program_of_an_exec(scene: &mut Scene<'_>) -> Result<()> {
    let logger = Logger::keeping(scene)?;
    let id = scene.id.clone();
    scene.start(&[], &id, &["sleep", "1000"])?;
    exec(scene, &id, &logger.uri(), TALK)?;
    logger.check(scene, "logged")?;
    scene.remove(&id)
}

/// Runs a container with this log URI, wants it refused, and returns the message.
fn refused(scene: &Scene<'_>, uri: &str) -> Result<String> {
    let args = scene.run_args(&["--rm", "--log-uri", uri], &scene.id, &["sh", "-c", SCRIPT]);
    let output = scene.ctr.output(&args)?;
    ensure!(output.code != 0, "a container with its output to {uri} ran");
    let left = scene.ctr.ok(&["container", "ls", "-q"])?.text();
    ensure!(!left.lines().any(|id| id == scene.id), "the refused container is still known");
    Ok(output.complaint())
}

fn program_that_does_not_start(scene: &mut Scene<'_>) -> Result<()> {
    let told = refused(scene, "binary:///no/such/logger")?;
    let named = told.contains("/no/such/logger");
    ensure!(named && told.to_lowercase().contains("no such file"), "told: {told}");
    Ok(())
}

/// The stock shim takes the end of such a program for its readiness.
fn program_that_ends_at_once(scene: &mut Scene<'_>) -> Result<()> {
    let logger = Logger::new(scene, "exit 3")?;
    if scene.runtime == Runtime::Runc {
        let uri = logger.uri();
        let args = scene.run_args(&["--rm", "--log-uri", &uri], &scene.id, &["true"]);
        return scene.ctr.output(&args).map(drop);
    }
    let told = refused(scene, &logger.uri())?;
    ensure!(told.contains("ended with code 3 before it was ready"), "told: {told}");
    Ok(())
}

fn unknown_scheme(scene: &mut Scene<'_>) -> Result<()> {
    let told = refused(scene, "nonsense:///dev/null")?;
    ensure!(told.contains("nonsense"), "told: {told}");
    Ok(())
}

/// The child keeps the exec's streams open; the exec is over all the same, with all it said.
fn background_child_of_an_exec(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&[], &id, &["sleep", "1000"])?;
    let script = "sleep 999 & echo said";
    let args = ["task", "exec", "--exec-id", "parent", &id];
    let said = scene.ctr.hear(&args, &["sh", "-c", script])?;
    ensure_eq!((said.text().as_str(), said.code), ("said", 0), "output of the exec");
    let sleepers = host::processes(|line| line == "sleep 999");
    ensure_eq!(sleepers.len(), 1, "children that live on");
    scene.remove(&id)
}

/// Readers of an endless output that come, read a little and leave: what the shim holds does not
/// grow with them (CVE-2022-31030 let an endless output grow in memory). Seen red with 64 bytes kept
/// of each piece that is copied.
fn flood_and_readers_that_leave(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&[], &id, &["sleep", "1000"])?;
    let fifos = scene.daemon.dir().join(format!("{id}-fifos"));
    let dir = fifos.display().to_string();
    let flood = ["task", "exec", "-d", "--fifo-dir", &dir, "--exec-id", "flood", &id, "yes"];
    scene.ctr.ok(&flood)?;
    let (input, output) = (fifo(&fifos, "stdin")?, fifo(&fifos, "stdout")?);
    let shim = shim_of(&id)?;
    attach(&input, &output, 200)?;
    let before = held(shim)?;
    attach(&input, &output, 10_000)?;
    wait::until("as few descriptors and as little memory as before", PATIENCE, || {
        let after = held(shim)?;
        // Go's heap has a life of its own.
        let memory = scene.runtime == Runtime::Runc || after.1 <= before.1 + 128;
        // A shim may come to keep one for its next container; who leaves one behind leaves thousands.
        Ok((after.0 <= before.0 + 8 && memory).then_some(()))
    })
    .map_err(|error| Error::check(format!("{error}; before {before:?}, now {:?}", held(shim))))?;
    // One that stays to the end, for which a Delete would wait.
    let reader = open(&output, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .during(|| format!("open {}", output.display()))?;
    scene.ctr.ok(&["task", "kill", "--exec-id", "flood", "--signal", "SIGKILL", &id])?;
    while taken(&reader, &mut vec![0; 64 << 10])? > 0 {}
    wait::until("the end of the flood", PATIENCE, || {
        let deleted = scene.ctr.output(&["task", "delete", "--exec-id", "flood", &id])?;
        Ok((deleted.code == 137).then_some(()))
    })?;
    scene.remove(&id)
}

/// Open descriptors, and KiB of memory that only this process has.
fn held(pid: u32) -> Result<(usize, u64)> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).during(|| "list the shim's descriptors")?;
    Ok((fds.count(), Usage::of(pid)?.private_dirty_kib))
}

/// `ctr` puts the streams of a detached exec into a directory with a random name.
fn fifo(dir: &Path, stream: &str) -> Result<PathBuf> {
    let inner = fs::read_dir(dir).during(|| format!("list {}", dir.display()))?.flatten().next();
    let inner = inner.map(|entry| entry.path()).unwrap_or_default();
    let entries = fs::read_dir(&inner).during(|| format!("list {}", inner.display()))?;
    let found = entries.flatten().map(|entry| entry.path()).find(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|it| it.ends_with(stream))
    });
    found.ok_or_else(|| Error::check(format!("no {stream} in {}", inner.display())))
}

fn shim_of(id: &str) -> Result<u32> {
    let named = format!("-id {id} ");
    let shims = host::processes(|line| {
        line.contains("containerd-shim-") && format!("{line} ").contains(&named)
    });
    match shims[..] {
        [shim] => Ok(shim),
        _ => Err(Error::check(format!("shims of {id}: {shims:?}"))),
    }
}

/// Opens both ends as clients do, takes some of the output, gives some input, and leaves.
fn attach(input: &Path, output: &Path, times: usize) -> Result<()> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut buffer = vec![0; 64 << 10];
    for turn in 0..times {
        let reader = open(output, OFlags::RDONLY | flags, Mode::empty())
            .during(|| format!("open {}", output.display()))?;
        let writer = match open(input, OFlags::WRONLY | flags, Mode::empty()) {
            Ok(writer) => Some(writer),
            // `ctr` may have told the shim of the end of input before it left.
            Err(Errno::NXIO) => None,
            Err(errno) => return Err(errno).during(|| format!("open {}", input.display())),
        };
        if turn % 2 == 0 {
            ensure!(taken(&reader, &mut buffer)? > 0, "the flood has ended");
        } else {
            // What there is, which may be nothing.
            let _ = rustix::io::read(&reader, &mut buffer);
        }
        // The input may be full.
        let _ = writer.map(|writer| rustix::io::write(&writer, b"unread\n"));
    }
    Ok(())
}

/// Waits for bytes, or the end, and takes what there is.
fn taken(reader: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
    let limit = Timespec::try_from(PATIENCE).map_err(|e| Error::check(e.to_string()))?;
    let mut some = [PollFd::new(reader, PollFlags::IN)];
    poll(&mut some, Some(&limit)).during(|| "wait for some of the flood")?;
    rustix::io::read(reader, buffer).during(|| "read some of the flood")
}

/// The event comes before the exit that it explains. The stock shim sends the two independently.
fn out_of_memory(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    let mut events = scene.events()?;
    let limit = (16 << 20).to_string();
    scene.start(&["--memory-limit", &limit], &id, &["tail", "/dev/zero"])?;
    let ours = |line: &str, topic: &str| line.contains(topic) && line.contains(&id);
    let lines = events.until("the container's exit", |line| ours(line, "/tasks/exit"))?;
    let all = lines.join("\n");
    let told = lines.iter().any(|line| ours(line, "/tasks/oom"));
    ensure!(told || scene.runtime == Runtime::Runc, "no word of it:\n{all}");
    ensure!(lines.last().is_some_and(|line| line.contains("137")), "status of the exit:\n{all}");
    ensure_eq!(scene.delete(&id)?, 137, "exit code");
    Ok(())
}
