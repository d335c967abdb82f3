//! Directories that a layer needs and does not describe: they are those of the
//! layers below, so they keep their owner, mode, times and attributes.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::apply::{cover, stat};
use super::name::Name;
use super::tar::shown;
use crate::error::errno_of;
use crate::root::Root;
use crate::{Error, Result};

/// Longest list of names and longest value the kernel has (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 << 10;

/// A layer that was applied, and what [`Report`](super::Report) says of it.
#[derive(Debug)]
pub struct Applied {
    /// Its tree.
    pub root: Root,
    /// Whether it hides everything below it.
    pub root_opaque: bool,
}

/// What a layer says about a directory.
enum Answer {
    /// It is this one; with whether it is opaque, or one above it.
    Here(OwnedFd, bool),
    /// Lower layers have to be asked.
    Below,
    /// The layer hides it.
    Hidden,
}

/// Gives `parents`, directories of `layer` that no entry of it describes, the metadata they
/// have in the layers below, of which the topmost comes first. A directory that is not there, or
/// hidden, leaves its parent as it is.
///
/// # Errors
/// By errno.
pub fn inherit(layer: &Root, parents: &[Name], below: &[Applied]) -> Result<()> {
    for name in parents {
        let Some(to) = open(layer.as_fd(), name)? else { continue };
        for lower in below {
            match ask(lower.root.as_fd(), name)? {
                Answer::Here(from, _) => {
                    copy(from.as_fd(), to.as_fd(), name)?;
                    break;
                }
                Answer::Hidden => break,
                Answer::Below if lower.root_opaque => break,
                Answer::Below => {}
            }
        }
    }
    Ok(())
}

/// Hides all that the layers `below` have from `layer`, whose root is opaque, name by name: for
/// whoever cannot leave them out of the mount.
///
/// # Errors
/// By errno.
pub fn hide_all(layer: &Root, below: &[Applied]) -> Result<()> {
    let mut names = BTreeSet::new();
    for lower in below {
        let dir = step(lower.root.as_fd(), b".").map_err(|e| failed("openat", b".", e))?;
        for item in Dir::read_from(&dir).map_err(|e| failed("getdents", b".", e))? {
            let item = item.map_err(|e| failed("getdents", b".", e))?;
            names.insert(item.file_name().to_bytes().to_vec());
        }
    }
    let root = step(layer.as_fd(), b".").map_err(|e| failed("openat", b".", e))?;
    keeping_times(root.as_fd(), b".", || {
        let mut names = names.iter().filter(|name| !matches!(name.as_slice(), b"." | b".."));
        names.try_for_each(|name| cover(layer.as_fd(), name))
    })
}

/// Removes those of `whiteouts`, nodes in `layer`, that hide nothing, since no layer `below` has
/// their names. In a directory that no other layer has, overlayfs lists them as files that are
/// not there.
///
/// # Errors
/// By errno.
pub fn prune(layer: &Root, whiteouts: &[Name], below: &[Applied]) -> Result<()> {
    for name in whiteouts {
        let Some((parent, last)) = name.split() else { continue };
        if is_seen(below, &parent, last)? {
            continue;
        }
        let Some(dir) = directory(layer, &parent)? else { continue };
        keeping_times(dir.as_fd(), last, || match fs::unlinkat(&dir, last, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other.map_err(|e| failed("unlinkat", last, e)),
        })?;
    }
    Ok(())
}

/// Whether these layers, the topmost of which comes first, show something of this name.
fn is_seen(below: &[Applied], parent: &Name, last: &[u8]) -> Result<bool> {
    for lower in below {
        let answer = match parent.is_root() {
            true => step(lower.root.as_fd(), b".").map(|fd| Answer::Here(fd, lower.root_opaque)),
            false => Ok(ask(lower.root.as_fd(), parent)?),
        };
        match answer.map_err(|e| failed("openat", b".", e))? {
            Answer::Here(dir, opaque) => match stat(&dir, last) {
                Ok(stat) => return Ok(!is_whiteout(&stat)),
                Err(Errno::NOENT) if opaque => return Ok(false),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(failed("fstatat", last, e)),
            },
            Answer::Hidden => return Ok(false),
            Answer::Below => {}
        }
        if lower.root_opaque {
            return Ok(false);
        }
    }
    Ok(false)
}

fn is_whiteout(stat: &fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// A directory of the layer, its root too.
fn directory(layer: &Root, name: &Name) -> Result<Option<OwnedFd>> {
    match name.is_root() {
        true => step(layer.as_fd(), b".").map(Some).map_err(|e| failed("openat", b".", e)),
        false => open(layer.as_fd(), name),
    }
}

/// What is made or removed in a directory changes its times, which are the layer's word.
fn keeping_times(
    dir: BorrowedFd<'_>,
    name: &[u8],
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let stat = fs::fstat(dir).map_err(|e| failed("fstat", name, e))?;
    work()?;
    fs::futimens(dir, &times(&stat)).map_err(|e| failed("futimens", name, e))
}

fn ask(layer: BorrowedFd<'_>, name: &Name) -> Result<Answer> {
    let mut here = None;
    let mut opaque = false;
    for part in name.components() {
        let at = here.as_ref().map_or(layer, OwnedFd::as_fd);
        match step(at, part) {
            Ok(fd) => {
                opaque |= is_opaque(fd.as_fd())?;
                here = Some(fd);
            }
            Err(Errno::NOENT) if opaque => return Ok(Answer::Hidden),
            Err(Errno::NOENT) => return Ok(Answer::Below),
            // A whiteout, a link or another file in its place.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Answer::Hidden),
            Err(e) => return Err(failed("openat", part, e)),
        }
    }
    Ok(here.map_or(Answer::Below, |fd| Answer::Here(fd, opaque)))
}

/// The directory, unless it is none.
fn open(layer: BorrowedFd<'_>, name: &Name) -> Result<Option<OwnedFd>> {
    Ok(match ask(layer, name)? {
        Answer::Here(fd, _) => Some(fd),
        Answer::Below | Answer::Hidden => None,
    })
}

fn step(at: BorrowedFd<'_>, part: &[u8]) -> rustix::io::Result<OwnedFd> {
    // Not O_PATH: attributes are read and written by the descriptor.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(at, part, flags, Mode::empty())
}

fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    for name in [c"trusted.overlay.opaque", c"user.overlay.opaque"] {
        let mut value = [0_u8; 8];
        match fs::fgetxattr(dir, name, &mut value) {
            Ok(1) if value[0] == b'y' => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
            Err(e) => return Err(failed("fgetxattr", name.to_bytes(), e)),
        }
    }
    Ok(false)
}

/// In the order that loses nothing: owner, attributes, mode, times.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Name) -> Result<()> {
    let call = |what| move |e| failed(what, name.as_bytes(), e);
    let stat = fs::fstat(from).map_err(call("fstat"))?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::fchown(to, Some(uid), Some(gid)).map_err(call("fchown"))?;
    let mut names = vec![0_u8; XATTR_MAX];
    let count = match fs::flistxattr(from, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other.map_err(call("flistxattr"))?,
    };
    let names = names.get(..count).unwrap_or_default();
    for xattr in names.split(|b| *b == 0).filter(|xattr| !xattr.is_empty()) {
        if xattr.starts_with(b"trusted.") || xattr.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; XATTR_MAX];
        let count = fs::fgetxattr(from, xattr, &mut value).map_err(call("fgetxattr"))?;
        let value = value.get(..count).unwrap_or_default();
        fs::fsetxattr(to, xattr, value, XattrFlags::empty()).map_err(call("fsetxattr"))?;
    }
    // The mode of a descriptor that is no O_PATH one follows nothing.
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(call("fchmod"))?;
    fs::futimens(to, &times(&stat)).map_err(call("futimens"))
}

fn times(stat: &fs::Stat) -> Timestamps {
    let spec = |tv_sec: i64, nanoseconds: u64| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn failed(what: &str, name: &[u8], errno: Errno) -> Error {
    Error::sys(format!("{what}({})", shown(name)), errno_of(errno))
}
