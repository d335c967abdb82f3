//! What a stream value of the caller means, and opening it.
//!
//! | value | meaning |
//! |---|---|
//! | empty | none: /dev/null |
//! | absolute path | a fifo; for output any other file too, appended to |
//! | `fifo://path` | the same, as Docker writes it |
//! | other schemes | refused by name |

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

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

/// Opens the value of `stdin`.
pub(super) fn input(value: &str) -> Result<Option<Input>> {
    let Some(path) = path("stdin", value)? else { return Ok(None) };
    if !is_fifo("stdin", &path)? {
        return Err(Failure::invalid(format!("stdin: {value:?} is not a fifo")));
    }
    let open = |flags| open("stdin", &path, flags | OFlags::NONBLOCK);
    // The reader first: a writer cannot be opened without one (fifo(7)).
    let fifo = open(OFlags::RDONLY)?;
    let held = open(OFlags::WRONLY)?;
    Ok(Some(Input { fifo, held }))
}

/// Opens the value of an output stream.
pub(super) fn output(name: &str, value: &str) -> Result<Option<Output>> {
    let Some(path) = path(name, value)? else { return Ok(None) };
    let output = match is_fifo(name, &path)? {
        true => fifo(name, &path)?,
        false => Output::File(open(name, &path, OFlags::WRONLY | OFlags::APPEND)?),
    };
    Ok(Some(output))
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

fn path(name: &str, value: &str) -> Result<Option<PathBuf>> {
    let path = match value.split_once("://") {
        Some(("fifo", path)) => path,
        Some((scheme, _)) => {
            let text = format!("{name}: {value:?}: scheme {scheme:?} is not supported");
            return Err(Failure::unsupported(text));
        }
        None => value,
    };
    match path {
        "" if value.is_empty() => Ok(None),
        path if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
        _ => Err(Failure::invalid(format!("{name}: {value:?} is not an absolute path"))),
    }
}

fn is_fifo(name: &str, path: &Path) -> Result<bool> {
    let stat = rustix::fs::stat(path).map_err(|e| unusable(name, path, e))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

fn open(name: &str, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
        .map_err(|e| unusable(name, path, e))
}

fn unusable(name: &str, path: &Path, errno: rustix::io::Errno) -> Failure {
    let error = std::io::Error::from(errno);
    Failure::invalid(format!("{name}: {}: {error}", path.display()))
}
