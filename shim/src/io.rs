//! Standard streams: what the caller named on one side, pipes or a terminal
//! of the container on the other, and the copying between them.
//!
//! ```text
//! stdin fifo ──► pipe ──► process ──► pipe ──► stdout fifo or file
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

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Gid, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::failure::{Failure, Result};
use crate::table::Stdio;

mod copy;
mod endpoint;
#[cfg(test)]
mod tests;

use copy::{Destination, Source};
use endpoint::{Input, Output};

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
}

/// Opens what `stdio` names and makes the pipes, owned by `owner` on the host.
///
/// # Errors
/// A path that is not there or of a kind that cannot be used, and schemes
/// that are not supported; the text names stream and value.
pub fn pipes(stdio: &Stdio, owner: (u32, u32)) -> Result<(ContainerEnds, Prepared)> {
    let mut ends = ContainerEnds::default();
    let mut prepared = Prepared { input: None, outputs: Vec::new(), to_process: None };
    if let Some(input) = endpoint::input(&stdio.stdin)? {
        let (theirs, ours) = pipe(owner).map_err(|e| Failure::sys("pipe for stdin", e))?;
        nonblocking(&ours)?;
        ends.stdin = Some(theirs);
        prepared.input = Some(input);
        prepared.to_process = Some(Destination::Pipe(ours));
    }
    for (name, value, end) in
        [("stdout", &stdio.stdout, &mut ends.stdout), ("stderr", &stdio.stderr, &mut ends.stderr)]
    {
        let Some(output) = endpoint::output(name, value)? else { continue };
        let (ours, theirs) =
            pipe(owner).map_err(|e| Failure::sys(format!("pipe for {name}"), e))?;
        nonblocking(&ours)?;
        *end = Some(theirs);
        prepared.outputs.push((Source::Pipe(ours), output.into()));
    }
    Ok((ends, prepared))
}

/// Opens what `stdio` names for a process with a terminal.
///
/// # Errors
/// As [`pipes`].
pub fn terminal(stdio: &Stdio) -> Result<PreparedTerminal> {
    let input = endpoint::input(&stdio.stdin)?;
    let output = endpoint::output("stdout", &stdio.stdout)?;
    Ok(PreparedTerminal { input, output })
}

/// Opened streams of a process with a terminal, before there is one.
#[derive(Debug)]
pub struct PreparedTerminal {
    input: Option<Input>,
    output: Option<Output>,
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
        let mut streams = Streams {
            phase: Arc::new(phase),
            stdin_held: None,
            input: None,
            outputs: Vec::with_capacity(self.outputs.len()),
        };
        if let (Some(input), Some(to_process)) = (self.input, self.to_process) {
            streams.stdin_held = Some(input.held);
            let copy = copy::input(input.fifo, to_process)?;
            streams.input = Some(tokio::spawn(copy));
        }
        for (source, destination) in self.outputs {
            let copy = copy::output(source, destination, streams.phase.subscribe())?;
            streams.outputs.push(tokio::spawn(copy));
        }
        Ok(streams)
    }
}

/// The streams of a process while they are being copied.
#[derive(Debug)]
pub struct Streams {
    /// Each task that copies output keeps a receiver; the last one to end
    /// closes the channel.
    phase: Arc<watch::Sender<Phase>>,
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

    /// A future that ends when what the process wrote has been handed on.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        self.phase.send_if_modified(|phase| advance(phase, Phase::Forgotten));
        let phase = Arc::clone(&self.phase);
        async move {
            let _ = tokio::time::timeout(DRAIN_LIMIT, phase.closed()).await;
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
