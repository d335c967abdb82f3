//! Directories that a layer needs and does not describe: they are those of the
//! layers below, so they keep their owner, mode, times and attributes.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, Dir, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::apply::cover;
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
    /// It is this one.
    Here(OwnedFd),
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
                Answer::Here(from) => {
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
    for name in names.iter().filter(|name| !matches!(name.as_slice(), b"." | b"..")) {
        cover(layer.as_fd(), name)?;
    }
    Ok(())
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
    Ok(here.map_or(Answer::Below, Answer::Here))
}

/// The directory, unless it is none.
fn open(layer: BorrowedFd<'_>, name: &Name) -> Result<Option<OwnedFd>> {
    Ok(match ask(layer, name)? {
        Answer::Here(fd) => Some(fd),
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
    let spec = |tv_sec: i64, nanoseconds: u64| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    let times = Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    };
    fs::futimens(to, &times).map_err(call("futimens"))
}

fn failed(what: &str, name: &[u8], errno: Errno) -> Error {
    Error::sys(format!("{what}({})", shown(name)), errno_of(errno))
}
