//! Owner, attributes, mode and times of an entry, in the order that loses none:
//! a change of owner takes set-id bits and capabilities away, and every change
//! but the last touches the times.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::super::tar::{Entry, Kind, Time, shown};
use super::super::warnings::Warnings;
use super::tree::call;
use crate::error::errno_of;
use crate::{Error, Result};

/// What the kernel gives to a new file by itself, so that only differences
/// have to be written: on many small files that is a quarter of the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct New {
    uid: u32,
    gid: u32,
    /// Bits that a mode loses.
    lost: u32,
    /// A directory hands its group on, so nothing can be told beforehand.
    inherits: bool,
}

impl New {
    /// Asks the file system: umask, default ACLs and set-group-id directories all count.
    pub(super) fn probe(root: BorrowedFd<'_>) -> Result<Self> {
        const NAME: &[u8] = b".boathook-probe";
        fs::mkdirat(root, NAME, Mode::from_raw_mode(0o777))
            .map_err(|e| call("mkdirat", NAME, e))?;
        let stat = fs::statat(root, NAME, AtFlags::SYMLINK_NOFOLLOW);
        fs::unlinkat(root, NAME, AtFlags::REMOVEDIR).map_err(|e| call("unlinkat", NAME, e))?;
        let stat = stat.map_err(|e| call("fstatat", NAME, e))?;
        Ok(Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            lost: 0o777 & !stat.st_mode,
            inherits: stat.st_mode & 0o2000 != 0,
        })
    }

    /// An entry with this mode was made.
    pub(super) fn saw_directory(&mut self, mode: u32) {
        self.inherits |= mode & 0o2000 != 0;
    }

    fn owner_differs(&self, entry: &Entry) -> bool {
        self.inherits || (entry.uid, entry.gid) != (self.uid, self.gid)
    }

    fn mode_differs(&self, entry: &Entry) -> bool {
        self.inherits || entry.mode & (0o7000 | self.lost) != 0
    }
}

/// Everything but the times of an open regular file.
pub(super) fn of_file(
    file: BorrowedFd<'_>,
    entry: &Entry,
    new: New,
    warnings: &mut Warnings,
) -> Result<()> {
    if new.owner_differs(entry) {
        let (uid, gid) = owner(entry);
        fs::fchown(file, uid, gid).map_err(|e| call("fchown", &entry.path, e))?;
    }
    for (name, value) in &entry.xattrs {
        if allowed(name, entry, warnings) {
            let result = fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty());
            check(result, name, entry, warnings)?;
        }
    }
    if new.mode_differs(entry) {
        let mode = Mode::from_raw_mode(entry.mode);
        fs::fchmod(file, mode).map_err(|e| call("fchmod", &entry.path, e))?;
    }
    Ok(())
}

/// Everything but the times of what `last` in `dir` is, without following it.
/// `new` is `None` for something that was there before.
pub(super) fn of_name(
    dir: BorrowedFd<'_>,
    last: &[u8],
    entry: &Entry,
    new: Option<New>,
    warnings: &mut Warnings,
) -> Result<()> {
    if new.is_none_or(|new| new.owner_differs(entry)) {
        let (uid, gid) = owner(entry);
        fs::chownat(dir, last, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| call("fchownat", &entry.path, e))?;
    }
    for (name, value) in &entry.xattrs {
        if allowed(name, entry, warnings) {
            check(set_xattr(dir, last, name, value), name, entry, warnings)?;
        }
    }
    if entry.kind != Kind::Symlink && new.is_none_or(|new| new.mode_differs(entry)) {
        set_mode(dir, last, entry.mode).map_err(|e| call("fchmodat", &entry.path, e))?;
    }
    Ok(())
}

/// fchmodat(2) that follows nothing, which the kernel has since 6.6 only.
fn set_mode(dir: BorrowedFd<'_>, last: &[u8], mode: u32) -> rustix::io::Result<()> {
    let fd =
        fs::openat(dir, last, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::from_raw_mode(mode))
}

/// lsetxattr(2) of a name in an open directory.
pub(super) fn set_xattr(
    dir: BorrowedFd<'_>,
    last: &[u8],
    name: &[u8],
    value: &[u8],
) -> rustix::io::Result<()> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(last);
    fs::lsetxattr(path, name, value, XattrFlags::empty())
}

/// The times of an entry; the access is never older than the modification, as
/// containerd has it.
pub(super) fn times(mtime: Time, atime: Option<Time>) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) };
    let last_access = spec(atime.unwrap_or(mtime).max(mtime));
    Timestamps { last_access, last_modification: spec(mtime) }
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

/// Whether an attribute of an image may reach the disk.
fn allowed(name: &[u8], entry: &Entry, warnings: &mut Warnings) -> bool {
    let followed = !matches!(entry.kind, Kind::File | Kind::Directory | Kind::HardLink);
    let reason = if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
        "an image must not set it"
    } else if name.starts_with(b"user.") && followed {
        "the kernel knows it for files and directories only"
    } else {
        return true;
    };
    warnings.add(format!("{}: {} left out: {reason}", shown(&entry.path), shown(name)));
    false
}

/// What a file system does not know is left out with a warning, but a
/// `security.` attribute decides what a program may do: without it the tree is
/// not the image.
fn check(
    result: rustix::io::Result<()>,
    name: &[u8],
    entry: &Entry,
    warnings: &mut Warnings,
) -> Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) if !name.starts_with(b"security.") => {
            let what = format!("{} left out: the file system does not take it", shown(name));
            warnings.add(format!("{}: {what}", shown(&entry.path)));
            Ok(())
        }
        // Only a link to a link or a device gets here.
        Err(Errno::PERM) if name.starts_with(b"user.") => {
            warnings.add(format!("{}: {} left out", shown(&entry.path), shown(name)));
            Ok(())
        }
        other => other.map_err(|e| {
            let text = format!("setxattr({}, {})", shown(&entry.path), shown(name));
            Error::sys(text, errno_of(e))
        }),
    }
}

/// Whether two names are the same file.
pub(super) fn same(a: &fs::Stat, b: &fs::Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// What is at a name, without following it.
pub(in crate::layer) fn stat(dir: impl AsFd, last: &[u8]) -> rustix::io::Result<fs::Stat> {
    fs::statat(dir, last, AtFlags::SYMLINK_NOFOLLOW)
}
