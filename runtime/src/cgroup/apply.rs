//! Planned writes, carried out by descriptor.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::controller::Controller;
use super::file;
use super::group::{At, Cgroup};
use super::limits::Write;
use crate::error::{Error, ErrorKind, Result};

/// A value that a write replaced.
#[derive(Debug)]
pub(super) struct Replaced {
    controller: Controller,
    file: String,
    value: String,
}

/// Does the writes in order; one that the kernel refuses because of a
/// neighbour that comes later is tried again at the end.
pub(super) fn apply(group: &Cgroup, writes: &[Write]) -> Result<()> {
    Applier::new(group, false).run(writes)
}

/// As [`apply`], for a living cgroup: if one write fails, the values that the
/// earlier ones replaced are put back.
pub(super) fn apply_or_restore(group: &Cgroup, writes: &[Write]) -> Result<()> {
    let mut applier = Applier::new(group, true);
    let result = applier.run(writes);
    if result.is_err() {
        restore(group, applier.replaced);
    }
    result
}

fn restore(group: &Cgroup, mut replaced: Vec<Replaced>) {
    // Backwards, and twice over, for the same reason for which writes are
    // retried. What cannot be put back stays; the caller gets the first error.
    replaced.reverse();
    for _ in 0..2 {
        replaced.retain(|old| match group.member(old.controller) {
            Some(at) => at.write(&old.file, &old.value).is_err(),
            None => false,
        });
    }
}

struct Applier<'a> {
    group: &'a Cgroup,
    keep: bool,
    replaced: Vec<Replaced>,
    /// The file of the last write: device rules go into one file, one by one.
    open: Option<(Controller, String, OwnedFd)>,
}

impl<'a> Applier<'a> {
    fn new(group: &'a Cgroup, keep: bool) -> Self {
        Self { group, keep, replaced: Vec::new(), open: None }
    }

    fn run(&mut self, writes: &[Write]) -> Result<()> {
        let mut again = Vec::new();
        for write in writes {
            match self.write(write) {
                Err((errno, _)) if write.retry && errno == Errno::EINVAL => again.push(write),
                other => other.map_err(|(_, error)| error)?,
            }
        }
        again.into_iter().try_for_each(|write| self.write(write).map_err(|(_, error)| error))
    }

    fn write(&mut self, write: &Write) -> Result<(), (Errno, Error)> {
        let Some(at) = self.group.member(write.controller) else {
            return if write.optional { Ok(()) } else { Err((Errno::ENOENT, no_member(write))) };
        };
        let first = self.write_file(at, write, &write.file, &write.value);
        let result = match (first, &write.instead) {
            (Err(Errno::ENOENT), Some((name, value))) => self.write_file(at, write, name, value),
            (first, _) => first,
        };
        match result {
            Err(Errno::ENOENT) if write.optional && at.exists() => Ok(()),
            Err(errno) => Err((errno, write_error(at, write, errno))),
            Ok(()) => Ok(()),
        }
    }

    fn write_file(
        &mut self,
        at: At<'_>,
        write: &Write,
        name: &str,
        value: &str,
    ) -> nix::Result<()> {
        let mut value = Cow::Borrowed(value);
        if write.keep_first || self.keep && write.single {
            let old = at.read(name)?;
            if write.keep_first {
                let first = old.split_whitespace().next().unwrap_or_default();
                value = Cow::Owned(format!("{first} {value}"));
            }
            if self.keep && write.single {
                self.replaced.push(Replaced {
                    controller: write.controller,
                    file: name.to_owned(),
                    value: old.trim_end().to_owned(),
                });
            }
        }
        let known = matches!(&self.open, Some((c, n, _)) if *c == write.controller && n == name);
        if !known {
            let fd = file::open_write(at.root, &at.file(name))?;
            self.open = Some((write.controller, name.to_owned(), fd));
        }
        match &self.open {
            Some((_, _, fd)) => file::write_all(fd.as_fd(), &value),
            None => Err(Errno::EBADF),
        }
    }
}

fn no_member(write: &Write) -> Error {
    let text = format!("the cgroup has no directory with the {} controller", write.controller);
    Error::field(&write.field, text).with_kind(ErrorKind::Unsupported)
}

/// The class of a refused write: the value was wrong, unless the errno says that
/// the kernel lacks the file, the cgroup is gone, in use, or we may not.
fn write_error(at: At<'_>, write: &Write, errno: Errno) -> Error {
    let mut text = format!("{}: writing {:?} to {}", write.field, write.value, write.file);
    let kind = match errno {
        _ if at.gone(errno) => Some(ErrorKind::NotFound),
        Errno::ENOENT => {
            text.push_str(", which this kernel does not have");
            Some(ErrorKind::Unsupported)
        }
        Errno::EBUSY => {
            if write.controller == Controller::Memory
                && let Ok(usage) =
                    at.read("memory.usage_in_bytes").or_else(|_| at.read("memory.current"))
            {
                text.push_str(&format!(" with {} bytes in use", usage.trim_end()));
            }
            Some(ErrorKind::WrongState)
        }
        Errno::EINVAL | Errno::ERANGE | Errno::EOVERFLOW | Errno::ENODEV => {
            Some(ErrorKind::InvalidInput)
        }
        // CPUs or nodes that the parent does not have, or none at all.
        Errno::EACCES | Errno::ENOSPC if write.controller == Controller::Cpuset => {
            Some(ErrorKind::InvalidInput)
        }
        _ => None,
    };
    let error = Error::sys(text, errno);
    match kind {
        Some(kind) => error.with_kind(kind),
        None => error,
    }
}
