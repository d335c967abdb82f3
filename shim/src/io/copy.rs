//! Copying from one descriptor to another, without a buffer where the kernel
//! can do it (splice between pipes), and without one that stays resident where
//! it cannot.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::endpoint::{Client, Output};
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
    /// A pipe to a process; non-blocking.
    Pipe(OwnedFd),
    /// A fifo, and what is known of whoever reads it; non-blocking.
    Fifo(OwnedFd, Client),
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
            Output::Fifo(fd, client) => Self::Fifo(fd, client),
            Output::File(fd) => Self::File(fd),
            Output::Logger(fd) => Self::Pipe(fd),
        }
    }
}

/// What one attempt to move bytes met.
enum Step {
    /// This many bytes have gone on.
    Moved(u64),
    SourceEmpty,
    DestinationFull,
    /// Nobody can take the bytes any more.
    DestinationGone,
    /// End of file.
    Over,
}

/// How long a stream that is to be forgotten waits for a reader it should have.
const READER_LIMIT: Duration = Duration::from_secs(5);
/// Longest pause between two looks for a reader.
const LOOK: Duration = Duration::from_millis(32);

/// The end of a process, as the copy of its output saw it.
#[derive(Clone, Copy)]
struct End {
    /// Bytes the process had written itself and that have not gone on yet.
    owed: u64,
    /// When to stop waiting for more.
    limit: Instant,
    forgotten: bool,
}

impl End {
    fn forget(&mut self) {
        if !self.forgotten {
            self.forgotten = true;
            self.limit = self.limit.max(Instant::now() + READER_LIMIT);
        }
    }
}

/// Copies output until it ends; see [`super`] for when that is.
pub(super) fn output(
    source: Source,
    destination: Destination,
    mut phase: watch::Receiver<Phase>,
) -> Result<impl Future<Output = ()> + Send + 'static> {
    let (destination, late) = match destination {
        Destination::Fifo(fifo, client) => {
            (Destination::Pipe(fifo), Some(Late { client, phase: phase.clone() }))
        }
        other => (other, None),
    };
    let mut copy = Copy::new(source, destination)?;
    let copying = async move {
        let mut end: Option<End> = None;
        loop {
            let now = *phase.borrow_and_update();
            if now != Phase::Running {
                let end = end.get_or_insert_with(|| copy.end());
                if now == Phase::Forgotten {
                    end.forget();
                }
            }
            let ready = match copy.step() {
                Step::Moved(count) => {
                    if let Some(end) = &mut end {
                        end.owed = end.owed.saturating_sub(count);
                    }
                    tokio::task::coop::consume_budget().await;
                    continue;
                }
                Step::SourceEmpty if now == Phase::Forgotten => return,
                Step::SourceEmpty => Wanted::Source,
                Step::DestinationFull => Wanted::Destination,
                // A process must not get SIGPIPE because its log is gone.
                Step::DestinationGone => {
                    copy.discard();
                    continue;
                }
                Step::Over => return,
            };
            // What nobody reads while the daemon is away is kept for its return.
            let kept = |end: &End| ready == Wanted::Destination && end.owed > 0;
            let limit = end.filter(|end| end.forgotten || !kept(end));
            tokio::select! {
                () = copy.ready(ready) => {}
                // Fails when the streams are dropped, and this task with them.
                changed = phase.changed() => if changed.is_err() { return },
                () = at(limit.map(|end| end.limit)) => return,
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

/// A fifo that must not be closed while nobody reads it: what is in it would
/// be gone, and a client that opens it later would wait for a writer for ever.
/// A client may be that late because a process was over at once, or because
/// the daemon was away when it ended.
struct Late {
    client: Client,
    phase: watch::Receiver<Phase>,
}

impl Late {
    /// Ends when somebody reads, or when the process is forgotten and a
    /// reader is not expected any more.
    ///
    /// The kernel counts readers but has no event for the first one that does
    /// not cost a descriptor of its kind (inotify(7)), so it is asked at growing
    /// intervals; a process that has been dead for long has no client that is
    /// about to come, and then only Delete matters.
    async fn wait(mut self) {
        let patient = Instant::now() + DRAIN_LIMIT;
        let mut pause = Duration::from_millis(1);
        let mut forgotten = None;
        while !self.client.reads() {
            if *self.phase.borrow_and_update() == Phase::Forgotten && forgotten.is_none() {
                forgotten = Some(Instant::now() + READER_LIMIT);
            }
            match forgotten {
                Some(until) if self.client.seen || Instant::now() >= until => return,
                Some(_) => tokio::time::sleep(pause).await,
                None if Instant::now() >= patient => {
                    if self.phase.changed().await.is_err() {
                        return;
                    }
                }
                None => {
                    let changed = self.phase.changed();
                    if let Ok(Err(_)) = tokio::time::timeout(pause, changed).await {
                        return;
                    }
                }
            }
            pause = (pause * 2).min(LOOK);
        }
    }
}

impl Client {
    /// Whether somebody has the fifo open for reading, now that our own
    /// descriptor, which counts as a reader, is closed.
    fn reads(&self) -> bool {
        let mut fds = [PollFd::new(&self.writer, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // POLLERR is how a pipe says that nobody reads (poll(2)).
        !matches!(poll(&mut fds, Some(&now)), Ok(1)) || !fds[0].revents().contains(PollFlags::ERR)
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
                Step::Moved(_) => tokio::task::coop::consume_budget().await,
                Step::SourceEmpty => copy.ready(Wanted::Source).await,
                Step::DestinationFull => copy.ready(Wanted::Destination).await,
                Step::DestinationGone | Step::Over => return,
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

#[derive(Clone, Copy, PartialEq, Eq)]
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
            Destination::Pipe(fd) | Destination::Fifo(fd, _) | Destination::Terminal(fd) => {
                Sink::Watched(watch(fd, Interest::WRITABLE)?)
            }
            Destination::File(fd) => Sink::File(fd),
            Destination::Nothing => Sink::Nothing,
        };
        let source = watch(source, Interest::READABLE)?;
        Ok(Self { source, destination, spliced: pipes, pending: Vec::new() })
    }

    /// What is still to be moved at the end of the process.
    fn end(&self) -> End {
        // A terminal cannot tell; its kernel buffer is small.
        let unread = ioctl_fionread(self.source.get_ref()).unwrap_or(0);
        let owed = unread.saturating_add(self.pending.len() as u64);
        End { owed, limit: Instant::now() + DRAIN_LIMIT, forgotten: false }
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
                    return left
                        .map_or(Step::DestinationGone, |left| self.keep(n, &buffer[n - left..n]));
                }
                Err(Errno::AGAIN) => return Step::SourceEmpty,
                Err(Errno::INTR) => return Step::Moved(0),
                // EIO: the last process has closed the terminal (pty(7)).
                Err(_) => return Step::Over,
            }
        }
        let pending = std::mem::take(&mut self.pending);
        let left = self.write(&pending);
        let all = pending.len();
        left.map_or(Step::DestinationGone, |left| self.keep(all, &pending[all - left..]))
    }

    /// From here on what is read goes nowhere.
    fn discard(&mut self) {
        self.destination = Sink::Nothing;
        self.spliced = false;
        self.pending = Vec::new();
    }

    /// Keeps what could not be written of `all` bytes.
    fn keep(&mut self, all: usize, rest: &[u8]) -> Step {
        if rest.is_empty() {
            return Step::Moved(all as u64);
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
        Ok(count) => Step::Moved(count as u64),
        Err(Errno::INTR) => Step::Moved(0),
        // splice(2) does not say which side it could not go on with.
        Err(Errno::AGAIN) if !is_ready(from.as_fd(), PollFlags::IN) => Step::SourceEmpty,
        Err(Errno::AGAIN) if !is_ready(to.as_fd(), PollFlags::OUT) => Step::DestinationFull,
        Err(Errno::AGAIN) => Step::Moved(0),
        Err(Errno::PIPE) => Step::DestinationGone,
        Err(_) => Step::Over,
    }
}
