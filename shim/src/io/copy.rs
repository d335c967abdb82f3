//! Copying from one descriptor to another, without a buffer where the kernel
//! can do it (splice between pipes), and without one that stays resident where
//! it cannot.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::endpoint::Output;
use super::{DRAIN_LIMIT, Phase};
use crate::failure::Result;
use crate::watch::{Watched, is_ready, ready, watch};

/// One splice moves at most what a pipe holds by default.
const SPLICE_MAX: usize = 64 * 1024;
/// Stack buffer of a copy that has to pass through here. A terminal hands out
/// less than a page at a time anyway.
const CHUNK: usize = 8 * 1024;

/// Where bytes come from; non-blocking.
#[derive(Debug)]
pub(super) enum Source {
    Pipe(OwnedFd),
    Terminal(OwnedFd),
}

/// Where bytes go.
#[derive(Debug)]
pub(super) enum Destination {
    /// A pipe or fifo; non-blocking.
    Pipe(OwnedFd),
    /// A terminal's master side; non-blocking.
    Terminal(OwnedFd),
    /// A file, written at once.
    File(OwnedFd),
    /// Nobody wants it.
    Nothing,
}

impl From<Output> for Destination {
    fn from(output: Output) -> Self {
        match output {
            Output::Fifo(fd) => Self::Pipe(fd),
            Output::File(fd) => Self::File(fd),
        }
    }
}

/// What one attempt to move bytes met.
enum Step {
    Moved,
    SourceEmpty,
    DestinationFull,
    /// End of file, or nobody can take the bytes any more.
    Over,
}

/// Copies output until it ends; see [`super`] for when that is.
pub(super) fn output(
    source: Source,
    destination: Destination,
    mut phase: watch::Receiver<Phase>,
) -> Result<impl Future<Output = ()> + Send + 'static> {
    let late = Late::of(&destination, phase.clone());
    let mut copy = Copy::new(source, destination)?;
    let copying = async move {
        let mut limit = None;
        loop {
            let now = *phase.borrow_and_update();
            if now != Phase::Running && limit.is_none() {
                limit = Some(Instant::now() + DRAIN_LIMIT);
            }
            let ready = match copy.step() {
                Step::Moved => {
                    tokio::task::coop::consume_budget().await;
                    continue;
                }
                Step::SourceEmpty if now == Phase::Forgotten => return,
                Step::SourceEmpty => Wanted::Source,
                Step::DestinationFull => Wanted::Destination,
                Step::Over => return,
            };
            tokio::select! {
                () = copy.ready(ready) => {}
                // Fails when the streams are dropped, and this task with them.
                changed = phase.changed() => if changed.is_err() { return },
                () = at(limit) => return,
            }
        }
    };
    Ok(async move {
        copying.await;
        if let Some(late) = late {
            late.wait().await;
        }
    })
}

/// How long after its start a stream that is over waits for its first reader.
const READER_LIMIT: Duration = Duration::from_secs(2);

/// A fifo that must not be closed before its client has opened it: a process
/// may be over so soon that the client's open comes later, and an open for
/// reading waits for a writer for ever. Our own end counts as a reader, so
/// this is a second one that does not.
struct Late {
    writer: OwnedFd,
    until: Instant,
    phase: watch::Receiver<Phase>,
}

impl Late {
    fn of(destination: &Destination, phase: watch::Receiver<Phase>) -> Option<Self> {
        let Destination::Pipe(fifo) = destination else { return None };
        let again = format!("/proc/self/fd/{}", fifo.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let writer = rustix::fs::open(again, flags, Mode::empty()).ok()?;
        Some(Self { writer, until: Instant::now() + READER_LIMIT, phase })
    }

    /// The kernel has no event for "somebody opened a fifo", so it is asked
    /// for at growing intervals, and only by streams that ended at once.
    async fn wait(self) {
        let mut pause = Duration::from_millis(1);
        while self.nobody_reads()
            && Instant::now() < self.until
            && *self.phase.borrow() != Phase::Forgotten
        {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(32));
        }
    }

    fn nobody_reads(&self) -> bool {
        let mut fds = [PollFd::new(&self.writer, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents().contains(PollFlags::ERR)
    }
}

/// Copies input until the fifo ends or the process stops reading.
pub(super) fn input(
    fifo: OwnedFd,
    destination: Destination,
) -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut copy = Copy::new(Source::Pipe(fifo), destination)?;
    Ok(async move {
        loop {
            match copy.step() {
                Step::Moved => tokio::task::coop::consume_budget().await,
                Step::SourceEmpty => copy.ready(Wanted::Source).await,
                Step::DestinationFull => copy.ready(Wanted::Destination).await,
                Step::Over => return,
            }
        }
    })
}

async fn at(limit: Option<Instant>) {
    match limit {
        Some(limit) => sleep_until(limit).await,
        None => std::future::pending().await,
    }
}

#[derive(Clone, Copy)]
enum Wanted {
    Source,
    Destination,
}

/// A source, a destination, and what was read from the one and has not gone
/// to the other yet.
struct Copy {
    source: Watched,
    destination: Sink,
    spliced: bool,
    pending: Vec<u8>,
}

enum Sink {
    Watched(Watched),
    File(OwnedFd),
    Nothing,
}

impl Copy {
    fn new(source: Source, destination: Destination) -> Result<Self> {
        let pipes = matches!((&source, &destination), (Source::Pipe(_), Destination::Pipe(_)));
        let (Source::Pipe(source) | Source::Terminal(source)) = source;
        let destination = match destination {
            Destination::Pipe(fd) | Destination::Terminal(fd) => {
                Sink::Watched(watch(fd, Interest::WRITABLE)?)
            }
            Destination::File(fd) => Sink::File(fd),
            Destination::Nothing => Sink::Nothing,
        };
        let source = watch(source, Interest::READABLE)?;
        Ok(Self { source, destination, spliced: pipes, pending: Vec::new() })
    }

    fn step(&mut self) -> Step {
        match (&self.destination, self.spliced) {
            (Sink::Watched(to), true) => splice_step(self.source.get_ref(), to.get_ref()),
            _ => self.copy_step(),
        }
    }

    /// One read and one write through a buffer on the stack.
    fn copy_step(&mut self) -> Step {
        if self.pending.is_empty() {
            let mut buffer = [0; CHUNK];
            match rustix::io::read(self.source.get_ref(), &mut buffer) {
                Ok(0) => return Step::Over,
                Ok(n) => {
                    let left = self.write(&buffer[..n]);
                    return left.map_or(Step::Over, |left| self.keep(&buffer[n - left..n]));
                }
                Err(Errno::AGAIN) => return Step::SourceEmpty,
                Err(Errno::INTR) => return Step::Moved,
                // EIO: the last process has closed the terminal (pty(7)).
                Err(_) => return Step::Over,
            }
        }
        let pending = std::mem::take(&mut self.pending);
        let left = self.write(&pending);
        left.map_or(Step::Over, |left| self.keep(&pending[pending.len() - left..]))
    }

    fn keep(&mut self, rest: &[u8]) -> Step {
        if rest.is_empty() {
            return Step::Moved;
        }
        self.pending = rest.to_vec();
        Step::DestinationFull
    }

    /// Writes what can be written now; returns how many bytes are left, or
    /// nothing when the destination is gone.
    fn write(&self, bytes: &[u8]) -> Option<usize> {
        let to = match &self.destination {
            Sink::Nothing => return Some(0),
            Sink::Watched(to) => to.get_ref().as_fd(),
            Sink::File(to) => to.as_fd(),
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(to, rest) {
                Ok(n) => rest = &rest[n..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) if matches!(self.destination, Sink::File(_)) => {
                    // A full disk costs the log these bytes; it must not stop
                    // the workload.
                    crate::warning!("output file: {} bytes lost: {errno}", rest.len());
                    return Some(0);
                }
                Err(_) => return None,
            }
        }
        Some(rest.len())
    }

    /// Ends when the wanted side is worth another attempt.
    async fn ready(&self, wanted: Wanted) {
        match (wanted, &self.destination) {
            (Wanted::Source, _) => ready(&self.source, Interest::READABLE).await,
            (Wanted::Destination, Sink::Watched(to)) => ready(to, Interest::WRITABLE).await,
            (Wanted::Destination, Sink::File(_) | Sink::Nothing) => {}
        }
    }
}

fn splice_step(from: &OwnedFd, to: &OwnedFd) -> Step {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    match splice(from, None, to, None, SPLICE_MAX, flags) {
        Ok(0) => Step::Over,
        Ok(_) | Err(Errno::INTR) => Step::Moved,
        // splice(2) does not say which side it could not go on with.
        Err(Errno::AGAIN) if !is_ready(from.as_fd(), PollFlags::IN) => Step::SourceEmpty,
        Err(Errno::AGAIN) if !is_ready(to.as_fd(), PollFlags::OUT) => Step::DestinationFull,
        Err(Errno::AGAIN) => Step::Moved,
        Err(_) => Step::Over,
    }
}
