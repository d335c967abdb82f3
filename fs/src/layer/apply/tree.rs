//! The directories of the tree that is being made, by descriptor.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::stat::Mode as NixMode;
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::name::Name;
use super::super::tar::shown;
use crate::error::errno_of;
use crate::root::Root;
use crate::{Error, Result};

/// Most directories that are kept open; a deeper path is walked again.
const OPEN_MAX: usize = 64;
/// Of directories that no entry speaks of.
const PARENT_MODE: u32 = 0o755;

/// A directory on the way to where the last entry was.
#[derive(Debug)]
struct Frame {
    name: Vec<u8>,
    /// `None` when it was closed to keep their number low.
    fd: Option<OwnedFd>,
}

/// What to do where a directory is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Fail,
}

/// The tree and a stack of open directories.
#[derive(Debug)]
pub(super) struct Tree {
    root: Root,
    frames: Vec<Frame>,
    /// Directories that were made because something is in them.
    made: BTreeSet<Name>,
}

impl Tree {
    pub(super) fn new(root: Root) -> Self {
        Self { root, frames: Vec::new(), made: BTreeSet::new() }
    }

    /// The root directory.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens the directory `name`. A component that is a symbolic link of this
    /// tree is followed inside the tree, by the kernel.
    pub(super) fn directory(&mut self, name: &Name, missing: Missing) -> Result<BorrowedFd<'_>> {
        let shared = self.frames.iter().zip(name.components());
        let mut keep = shared.take_while(|(frame, part)| frame.name == *part).count();
        if keep > 0 && self.frames.get(keep - 1).is_some_and(|frame| frame.fd.is_none()) {
            keep = 0;
        }
        self.frames.truncate(keep);
        for (depth, part) in name.components().enumerate().skip(keep) {
            let fd = self.step(name, depth, part, missing)?;
            self.frames.push(Frame { name: part.to_vec(), fd: Some(fd) });
            if let Some(old) = self.frames.len().checked_sub(OPEN_MAX + 1) {
                self.frames[old].fd = None;
            }
        }
        Ok(self.here())
    }

    /// The names of directories that no entry asked for when they were made.
    pub(super) fn take_made(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.made)
    }

    /// Forgets what is open: something that a path may lead through is about to change.
    pub(super) fn forget(&mut self) {
        self.frames.clear();
    }

    fn here(&self) -> BorrowedFd<'_> {
        match self.frames.last() {
            Some(Frame { fd: Some(fd), .. }) => fd.as_fd(),
            _ => self.root.as_fd(),
        }
    }

    fn step(
        &mut self,
        name: &Name,
        depth: usize,
        part: &[u8],
        missing: Missing,
    ) -> Result<OwnedFd> {
        let here = self.here();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(here, part, flags, Mode::empty()) {
            Err(Errno::NOENT) if missing == Missing::Make => {
                let mode = Mode::from_raw_mode(PARENT_MODE);
                fs::mkdirat(here, part, mode).map_err(|e| call("mkdirat", part, e))?;
                let fd = fs::openat(here, part, flags, Mode::empty())
                    .map_err(|e| call("openat", part, e))?;
                self.made.insert(name.first(depth + 1));
                Ok(fd)
            }
            Err(Errno::LOOP | Errno::NOTDIR) => self.through_link(name, depth, missing),
            other => other.map_err(|e| call("openat", part, e)),
        }
    }

    /// The first components of `name` up to `depth`, the last of which is no directory.
    fn through_link(&self, name: &Name, depth: usize, missing: Missing) -> Result<OwnedFd> {
        let parts: Vec<&[u8]> = name.components().take(depth + 1).collect();
        let path = parts.join(&b'/');
        let path = Path::new(OsStr::from_bytes(&path));
        match missing {
            Missing::Make => {
                self.root.create_dir_all(path, NixMode::from_bits_truncate(PARENT_MODE))
            }
            Missing::Fail => self
                .root
                .open_file(path, nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY),
        }
    }

    /// Removes `last` from the directory `parent`, with all that is in it.
    pub(super) fn remove(&mut self, parent: &Name, last: &[u8]) -> Result<()> {
        let here = self.directory(parent, Missing::Fail)?;
        let result = remove_at(here, last);
        self.forget();
        result
    }
}

/// A failed call on a name of the tree.
pub(super) fn call(what: &str, name: &[u8], errno: Errno) -> Error {
    Error::sys(format!("{what}({})", shown(name)), errno_of(errno))
}

fn remove_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => remove_dir(dir, name),
        other => other.map_err(|e| call("unlinkat", name, e)),
    }
}

/// Removes a directory however deep it is: one descriptor at a time, and up
/// again by `..`, which nobody can move because the tree is ours alone.
pub(in crate::layer) fn remove_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: BorrowedFd<'_>, name: &[u8]| {
        fs::openat(at, name, flags, Mode::empty()).map_err(|e| call("openat", name, e))
    };
    let mut here = open(dir, name)?;
    let mut path = vec![name.to_vec()];
    while let Some(own) = path.last() {
        match empty(here.as_fd())? {
            Some(inner) => {
                here = open(here.as_fd(), &inner)?;
                path.push(inner);
            }
            None if path.len() == 1 => {
                return fs::unlinkat(dir, own, AtFlags::REMOVEDIR)
                    .map_err(|e| call("unlinkat", own, e));
            }
            None => {
                let above = open(here.as_fd(), b"..")?;
                fs::unlinkat(&above, own, AtFlags::REMOVEDIR)
                    .map_err(|e| call("unlinkat", own, e))?;
                here = above;
                path.pop();
            }
        }
    }
    Ok(())
}

/// Removes all that is in a directory.
pub(in crate::layer) fn clear(root: &Root) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = fs::openat(root, c".", flags, Mode::empty()).map_err(|e| call("openat", b".", e))?;
    while let Some(inner) = empty(dir.as_fd())? {
        remove_dir(dir.as_fd(), &inner)?;
    }
    Ok(())
}

/// Unlinks what is no directory; the first directory that is not empty, if any.
fn empty(dir: BorrowedFd<'_>) -> Result<Option<Vec<u8>>> {
    let failed = |e| Error::sys("getdents of a directory to remove", errno_of(e));
    for item in Dir::read_from(dir).map_err(failed)? {
        let item = item.map_err(failed)?;
        let name = item.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let known_file = !matches!(item.file_type(), FileType::Directory | FileType::Unknown);
        let flags = if known_file { AtFlags::empty() } else { AtFlags::REMOVEDIR };
        match fs::unlinkat(dir, name, flags) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_vec())),
            Err(Errno::NOTDIR) => {
                fs::unlinkat(dir, name, AtFlags::empty()).map_err(|e| call("unlinkat", name, e))?
            }
            other => other.map_err(|e| call("unlinkat", name, e))?,
        }
    }
    Ok(None)
}
