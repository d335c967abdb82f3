//! Opening what a stream value names.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::uri::Target;
use crate::failure::{Failure, Result};

/// An input fifo and the writer that keeps it from ending.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) fifo: OwnedFd,
    pub(super) held: OwnedFd,
}

/// Where output goes.
#[derive(Debug)]
pub(super) enum Output {
    /// Opened for reading too, so that it has a reader when no client has it open.
    Fifo(OwnedFd, Client),
    /// Anything that is not a fifo.
    File(OwnedFd),
    /// To a program; no reader is held.
    Logger(OwnedFd),
}

/// The client at the other end of an output fifo.
#[derive(Debug)]
pub(super) struct Client {
    /// Keeps the fifo alive, and tells whether anybody reads it once our own
    /// reader is closed.
    pub(super) writer: OwnedFd,
    /// Whether there was a reader, or one waiting in open(2), when we came.
    /// Then it has what it needs, and if it is gone it does not want more.
    pub(super) seen: bool,
}

/// Opens what `stdin` names.
pub(super) fn input(value: &str, target: &Target) -> Result<Option<Input>> {
    let path = match target {
        Target::Nothing => return Ok(None),
        Target::Path(path) => path,
        Target::File(_) | Target::Logger(_) => {
            return Err(Failure::invalid(format!("stdin: {value:?}: not a place to read from")));
        }
    };
    if !is_fifo(path).map_err(|e| unusable("stdin", path, e))? {
        return Err(Failure::invalid(format!("stdin: {value:?} is not a fifo")));
    }
    let open = |flags| open("stdin", path, flags | OFlags::NONBLOCK);
    // The reader first: a writer cannot be opened without one (fifo(7)).
    let fifo = open(OFlags::RDONLY)?;
    let held = open(OFlags::WRONLY)?;
    Ok(Some(Input { fifo, held }))
}

/// Opens the file or fifo of an output stream.
pub(super) fn output(name: &str, path: &Path) -> Result<Output> {
    match is_fifo(path).map_err(|e| unusable(name, path, e))? {
        true => fifo(name, path),
        false => Ok(Output::File(open(name, path, OFlags::WRONLY | OFlags::APPEND)?)),
    }
}

fn fifo(name: &str, path: &Path) -> Result<Output> {
    let open = |flags| {
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let unusable = |errno| unusable(name, path, errno);
    // fifo(7): without a reader this fails with ENXIO.
    let early = match open(OFlags::WRONLY) {
        Ok(writer) => Some(writer),
        Err(Errno::NXIO) => None,
        Err(errno) => return Err(unusable(errno)),
    };
    let both = open(OFlags::RDWR).map_err(unusable)?;
    let seen = early.is_some();
    let writer = early.map_or_else(|| open(OFlags::WRONLY), Ok).map_err(unusable)?;
    Ok(Output::Fifo(both, Client { writer, seen }))
}

/// Makes the file of a `file://` value, and the directories above it, unless
/// there is something at its path.
pub(super) fn make(name: &str, path: &Path) -> Result<()> {
    match is_fifo(path) {
        Err(Errno::NOENT) => {}
        found => return found.map(drop).map_err(|e| unusable(name, path, e)),
    }
    let above = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(above)
        .map_err(|e| Failure::invalid(format!("{name}: {}: {e}", above.display())))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))
        .map(drop)
        .map_err(|e| unusable(name, path, e))
}

fn is_fifo(path: &Path) -> rustix::io::Result<bool> {
    let stat = rustix::fs::stat(path)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn open(name: &str, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .map_err(|e| unusable(name, path, e))
}

fn unusable(name: &str, path: &Path, errno: Errno) -> Failure {
    let error = std::io::Error::from(errno);
    Failure::invalid(format!("{name}: {}: {error}", path.display()))
}
