//! Standard streams: what the caller named on one side, pipes or a terminal
//! of the container on the other, and the copying between them.
//!
//! ```text
//! stdin fifo ──► pipe ──► process ──► pipe ──► stdout fifo, file or program
//!     ▲ held                                        ▲ held
//! ```
//! The container never gets the fifo itself: when the daemon goes away, its
//! readers go with it, and the workload would get SIGPIPE. So the shim holds
//! the other side of each fifo too. A writer is held on stdin until CloseIO,
//! because the end of one client is not the end of input.
//!
//! After the process has ended its output is copied until everything it wrote
//! is through: until end of file, or, once the process is to be forgotten,
//! until its pipe is empty. A child in the background that keeps the pipe open
//! can hold neither up; [`DRAIN_LIMIT`] bounds what a slow reader can.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Gid, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::failure::{Failure, Result};
use crate::table::Stdio;

mod copy;
mod endpoint;
mod logger;
#[cfg(test)]
mod tests;
mod uri;

use copy::{Destination, Source};
use endpoint::{Input, Output};
use logger::{Limits, Running, Started};
use uri::Target;

/// How long output may take to get through after its process has ended.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How far the life of a process has got, for those who copy its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    /// It has ended: copy to the end of file, for a limited time.
    Ended,
    /// It is to be forgotten: copy what is there.
    Forgotten,
}

/// The process whose streams are opened.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// Its id: an exec's own, else the container's.
    pub id: &'a str,
    /// containerd's namespace.
    pub namespace: &'a str,
    /// User and group that own its pipes, as numbers of the host.
    pub owner: (u32, u32),
}

/// The container's side of the pipes; none stands for /dev/null.
#[derive(Debug, Default)]
pub struct ContainerEnds {
    /// Read end.
    pub stdin: Option<OwnedFd>,
    /// Write end.
    pub stdout: Option<OwnedFd>,
    /// Write end.
    pub stderr: Option<OwnedFd>,
}

/// Opened streams, before there is a process.
#[derive(Debug)]
pub struct Prepared {
    input: Option<Input>,
    outputs: Vec<(Source, Destination)>,
    to_process: Option<Destination>,
    program: Option<Running>,
}

/// Opens what `stdio` names and makes the pipes. Blocks for as long as a
/// logging program takes to get ready.
///
/// # Errors
/// A path that is not there or of a kind that cannot be used, unknown schemes,
/// a logging program that does not get ready; the text names stream and value.
pub fn pipes(stdio: &Stdio, whose: Whose<'_>) -> Result<(ContainerEnds, Prepared)> {
    pipes_within(stdio, whose, Limits::USUAL)
}

fn pipes_within(
    stdio: &Stdio,
    whose: Whose<'_>,
    limits: Limits,
) -> Result<(ContainerEnds, Prepared)> {
    let mut ends = ContainerEnds::default();
    let input = input(stdio)?;
    let Outputs { stdout, stderr, program } = Outputs::open(stdio, whose, limits)?;
    let mut prepared = Prepared { input: None, outputs: Vec::new(), to_process: None, program };
    let pipe =
        |name: &str| pipe(whose.owner).map_err(|e| Failure::sys(format!("pipe for {name}"), e));
    if let Some(input) = input {
        let (theirs, ours) = pipe("stdin")?;
        nonblocking(&ours)?;
        ends.stdin = Some(theirs);
        prepared.input = Some(input);
        prepared.to_process = Some(Destination::Pipe(ours));
    }
    for (name, output, end) in
        [("stdout", stdout, &mut ends.stdout), ("stderr", stderr, &mut ends.stderr)]
    {
        let Some(output) = output else { continue };
        let (ours, theirs) = pipe(name)?;
        nonblocking(&ours)?;
        *end = Some(theirs);
        prepared.outputs.push((Source::Pipe(ours), output.into()));
    }
    Ok((ends, prepared))
}

fn input(stdio: &Stdio) -> Result<Option<Input>> {
    endpoint::input(&stdio.stdin, &uri::parse("stdin", &stdio.stdin)?)
}

/// Where the output of a process goes.
struct Outputs {
    stdout: Option<Output>,
    stderr: Option<Output>,
    program: Option<Running>,
}

impl Outputs {
    /// A program takes both streams, so they must not say different things
    /// where one of them names a program. A terminal has only one.
    fn open(stdio: &Stdio, whose: Whose<'_>, limits: Limits) -> Result<Self> {
        let stdout = uri::parse("stdout", &stdio.stdout)?;
        let stderr = match stdio.terminal {
            true => Target::Nothing,
            false => uri::parse("stderr", &stdio.stderr)?,
        };
        match (&stdout, &stderr) {
            (Target::Logger(logger), other) if *other == Target::Nothing || *other == stdout => {
                let started = logger::start(logger, whose, limits);
                let Started { program, stdout, stderr } =
                    started.map_err(|e| e.context(format!("stdout: {:?}", stdio.stdout)))?;
                let stderr = (!stdio.terminal).then_some(Output::Logger(stderr));
                Ok(Self { stdout: Some(Output::Logger(stdout)), stderr, program: Some(program) })
            }
            (Target::Logger(_), _) | (_, Target::Logger(_)) => Err(Failure::invalid(format!(
                "stderr: {:?}: stdout is {:?}, and a logging program takes both",
                stdio.stderr, stdio.stdout
            ))),
            _ => Ok(Self {
                stdout: output("stdout", &stdout)?,
                stderr: output("stderr", &stderr)?,
                program: None,
            }),
        }
    }
}

fn output(name: &str, target: &Target) -> Result<Option<Output>> {
    match target {
        Target::Nothing | Target::Logger(_) => Ok(None),
        Target::Path(path) => endpoint::output(name, path).map(Some),
        Target::File(path) => {
            endpoint::make(name, path)?;
            endpoint::output(name, path).map(Some)
        }
    }
}

/// Opens what `stdio` names for a process with a terminal.
///
/// # Errors
/// As [`pipes`].
pub fn terminal(stdio: &Stdio, whose: Whose<'_>) -> Result<PreparedTerminal> {
    let input = input(stdio)?;
    let Outputs { stdout, program, .. } = Outputs::open(stdio, whose, Limits::USUAL)?;
    Ok(PreparedTerminal { input, output: stdout, program })
}

/// Opened streams of a process with a terminal, before there is one.
#[derive(Debug)]
pub struct PreparedTerminal {
    input: Option<Input>,
    output: Option<Output>,
    program: Option<Running>,
}

impl PreparedTerminal {
    /// Adds the terminal's master side.
    ///
    /// # Errors
    /// The kernel's refusal to duplicate it.
    pub fn with(self, master: OwnedFd) -> Result<Prepared> {
        nonblocking(&master)?;
        let writer = master.try_clone().map_err(|e| Failure::sys("dup of the terminal", e))?;
        // Without a reader the terminal still has to be emptied, or the
        // process would block on it.
        let output = self.output.map_or(Destination::Nothing, Destination::from);
        Ok(Prepared {
            input: self.input,
            outputs: vec![(Source::Terminal(master), output)],
            to_process: Some(Destination::Terminal(writer)),
            program: self.program,
        })
    }
}

impl Prepared {
    /// Begins to copy. To be called inside the runtime.
    ///
    /// # Errors
    /// The kernel's refusal to watch one of the descriptors.
    pub fn connect(self) -> Result<Streams> {
        let (phase, _) = watch::channel(Phase::Running);
        let program = self.program.map(|p| (p.limits, p.attended(phase.subscribe())));
        let after_output = program.as_ref().map_or(Duration::ZERO, |(l, _)| l.after_input());
        let mut streams = Streams {
            phase: Arc::new(phase),
            limit: DRAIN_LIMIT + after_output,
            stdin_held: None,
            input: None,
            outputs: Vec::with_capacity(self.outputs.len()),
        };
        if let (Some(input), Some(to_process)) = (self.input, self.to_process) {
            streams.stdin_held = Some(input.held);
            let copy = copy::input(input.fifo, to_process)?;
            streams.input = Some(tokio::spawn(copy));
        }
        // Closes with the last copy, when all descriptors of the copies are closed.
        let (feeding, fed) = mpsc::channel::<Infallible>(1);
        for (source, destination) in self.outputs {
            let copy = copy::output(source, destination, streams.phase.subscribe())?;
            let feeding = feeding.clone();
            streams.outputs.push(tokio::spawn(async move {
                copy.await;
                drop(feeding);
            }));
        }
        if let Some((_, attended)) = program {
            tokio::spawn(attended?.follow(fed));
        }
        Ok(streams)
    }
}

/// The streams of a process while they are being copied.
#[derive(Debug)]
pub struct Streams {
    /// Each task that copies output keeps a receiver, and so does the one that
    /// follows a program; the last one to end closes the channel.
    phase: Arc<watch::Sender<Phase>>,
    /// What draining may take.
    limit: Duration,
    stdin_held: Option<OwnedFd>,
    input: Option<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
}

impl Streams {
    /// No more input: the writer held on the fifo goes away, and the process
    /// sees the end when it has read what was written.
    pub fn close_stdin(&mut self) {
        self.stdin_held = None;
    }

    /// The process has ended: input stops, output gets [`DRAIN_LIMIT`].
    pub fn process_ended(&mut self) {
        self.stdin_held = None;
        if let Some(input) = self.input.take() {
            input.abort();
        }
        self.phase.send_if_modified(|phase| advance(phase, Phase::Ended));
    }

    /// A future that ends when what the process wrote has been handed on, and
    /// a program that took it has ended.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        self.phase.send_if_modified(|phase| advance(phase, Phase::Forgotten));
        let (phase, limit) = (Arc::clone(&self.phase), self.limit);
        async move {
            let _ = tokio::time::timeout(limit, phase.closed()).await;
        }
    }
}

fn advance(phase: &mut Phase, to: Phase) -> bool {
    let forward = *phase < to;
    *phase = to.max(*phase);
    forward
}

impl Drop for Streams {
    fn drop(&mut self) {
        for task in self.input.iter().chain(&self.outputs) {
            task.abort();
        }
    }
}

/// A pipe as (read end, write end), both owned by `owner`.
fn pipe((uid, gid): (u32, u32)) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    if (uid, gid) != (0, 0) {
        // Both ends share one inode.
        rustix::fs::fchown(&read, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok((read, write))
}

fn nonblocking(fd: &OwnedFd) -> Result<()> {
    rustix::fs::fcntl_getfl(fd)
        .and_then(|flags| rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK))
        .map_err(|e| Failure::sys("set O_NONBLOCK", e))
}
