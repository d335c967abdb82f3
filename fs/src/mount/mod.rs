//! Mounts as descriptors: made detached, changed while nobody can see them, attached last.
//!
//! ```text
//! new_fs ────┐              set_attr
//! clone_of ──┼─▶ Tree ──── set_propagation ───▶ attach ──▶ fd of the mount's root
//! clone_at ──┘  (detached)                        │
//!                                                 └─ an error, or a dropped Tree, leaves nothing behind
//! ```
//!
//! With the calls of Linux 5.2 a [`Tree`] is a descriptor. Where they are missing it is a
//! description that becomes a mount when it is attached (`classic`), so callers
//! write one way. What can only be done detached then answers `Unsupported`.

mod classic;
pub(crate) mod context;
mod unmount;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use crate::error::errno_of;
use crate::flags::{DataOption, Propagation, SbFlags};
use crate::sys::{self, SetAttr};
use crate::{Error, Result};
use classic::Recipe;
use context::FsContext;
pub use unmount::{unmount_all_below, unmount_at, unmount_fd};

/// A mount that is not attached anywhere. Dropping it undoes it.
#[derive(Debug)]
pub struct Tree {
    inner: Inner,
    /// What the kernel can only do once the mount is attached.
    after: Vec<Change>,
}

#[derive(Debug)]
enum Inner {
    Detached(OwnedFd),
    Later(Recipe),
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Attr { set: u64, clr: u64 },
    Propagation(Propagation),
}

/// A new filesystem instance.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewFs<'a> {
    /// Name of the filesystem, as in `/proc/filesystems`.
    pub fstype: &'a str,
    /// Device, or the word shown as source in mountinfo; `None` shows `none`.
    pub source: Option<&'a str>,
    /// Flags of the superblock.
    pub sb: SbFlags,
    /// Options of the filesystem itself.
    pub data: &'a [DataOption],
    /// `MOUNT_ATTR_*` of the mount.
    pub attr: u64,
}

impl Tree {
    /// Makes a filesystem instance and a detached mount of it.
    ///
    /// Overlay is understood: `lowerdir` may be longer than a page (see [`crate::overlay`]).
    ///
    /// # Errors
    /// Kind by errno, with what the kernel logged about it: `Unsupported` for an unknown type,
    /// `Invalid` for a bad option or value, `NotFound` for a missing device or layer.
    pub fn new_fs(fs: &NewFs<'_>) -> Result<Self> {
        if fs.fstype == "overlay" {
            return crate::overlay::Overlay::from_data(fs.data)?.tree(fs.source, fs.sb, fs.attr);
        }
        match FsContext::open(fs.fstype) {
            Ok(context) => {
                Self::configure(&context, fs).and_then(|()| Self::mount(context, fs.attr))
            }
            Err(e) if e.errno() == Some(Errno::ENOSYS) => Self::classic(fs),
            Err(e) => Err(e),
        }
    }

    fn configure(context: &FsContext<'_>, fs: &NewFs<'_>) -> Result<()> {
        if let Some(source) = fs.source.filter(|s| !s.is_empty()) {
            context.string("source", source)?;
        }
        context.superblock(fs.sb)?;
        fs.data.iter().try_for_each(|option| context.data(option))
    }

    /// The last two steps of a configured filesystem.
    pub(crate) fn mount(context: FsContext<'_>, attr: u64) -> Result<Self> {
        context.mount(attr).map(Self::detached)
    }

    /// A tree to be made by `mount(2)` when it is attached.
    pub(crate) fn classic(fs: &NewFs<'_>) -> Result<Self> {
        Ok(Self { inner: Inner::Later(Recipe::new_fs(fs)?), after: Vec::new() })
    }

    fn detached(fd: OwnedFd) -> Self {
        Self { inner: Inner::Detached(fd), after: Vec::new() }
    }

    /// A copy of the mount that `from` is in, with `from` as its root (a bind mount);
    /// `recursive` copies what is mounted below it too.
    ///
    /// # Errors
    /// `Invalid` when the mount is unbindable, `Denied` without CAP_SYS_ADMIN.
    pub fn clone_of(from: BorrowedFd<'_>, recursive: bool) -> Result<Self> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
        match rustix::mount::open_tree(from, "", flags | OpenTreeFlags::AT_EMPTY_PATH) {
            Ok(fd) => Ok(Self::detached(fd)),
            Err(e) if errno_of(e) == Errno::ENOSYS => {
                let from = from.try_clone_to_owned().map_err(|e| {
                    Error::sys("dup", Errno::from_raw(e.raw_os_error().unwrap_or(0)))
                })?;
                Ok(Self {
                    inner: Inner::Later(Recipe::Bind { from, recursive }),
                    after: Vec::new(),
                })
            }
            Err(e) => Err(Error::sys(format!("open_tree({from:?}, {flags:?})"), errno_of(e))),
        }
    }

    /// As [`Tree::clone_of`], of a path relative to `dir`; symbolic links are followed with no
    /// root but the process's own, so `path` must be the host's, never a container's.
    ///
    /// # Errors
    /// As [`Tree::clone_of`]; `NotFound` when there is no `path`.
    pub fn clone_at(dir: BorrowedFd<'_>, path: &Path, recursive: bool) -> Result<Self> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
        match rustix::mount::open_tree(dir, path, flags) {
            Ok(fd) => Ok(Self::detached(fd)),
            Err(e) if errno_of(e) == Errno::ENOSYS => {
                let from = open_path(dir, path, OFlag::empty())?;
                Ok(Self {
                    inner: Inner::Later(Recipe::Bind { from, recursive }),
                    after: Vec::new(),
                })
            }
            Err(e) => {
                let call = format!("open_tree({}, {flags:?})", path.display());
                Err(Error::sys(call, errno_of(e)))
            }
        }
    }

    /// Clears `clr`, then sets `set` (`MOUNT_ATTR_*`).
    ///
    /// # Errors
    /// `Unsupported` for `recursive` before Linux 5.12; `Denied` when a flag is locked.
    pub fn set_attr(&mut self, set: u64, clr: u64, recursive: bool) -> Result<()> {
        if set == 0 && clr == 0 {
            return Ok(());
        }
        if let Inner::Detached(fd) = &self.inner {
            let change = SetAttr { set, clr, recursive, propagation: 0 };
            match sys::mount_setattr(fd.as_fd(), change) {
                Err(Errno::ENOSYS) if !recursive => {}
                result => return result.map_err(|e| setattr_failed(change, e)),
            }
        } else if recursive {
            return Err(setattr_failed(
                SetAttr { set, clr, recursive, propagation: 0 },
                Errno::ENOSYS,
            ));
        }
        self.after.push(Change::Attr { set, clr });
        Ok(())
    }

    /// Changes how mounts propagate to and from this tree.
    ///
    /// # Errors
    /// Kind by errno.
    pub fn set_propagation(&mut self, change: Propagation) -> Result<()> {
        if let Inner::Detached(fd) = &self.inner {
            match propagate(fd.as_fd(), change) {
                Err(e) if e.errno() == Some(Errno::ENOSYS) => {}
                result => return result,
            }
        }
        self.after.push(Change::Propagation(change));
        Ok(())
    }

    /// Shows the files of the mount with other owners, by the mappings of the user namespace
    /// `userns` (an id-mapped mount, Linux 5.12); `recursive` maps all mounts below it as well.
    ///
    /// # Errors
    /// `Invalid` when a filesystem of the tree cannot be mapped, `Denied` when a mount of it is
    /// mapped already, `Unsupported` without `mount_setattr`.
    pub fn id_map(&mut self, userns: BorrowedFd<'_>, recursive: bool) -> Result<()> {
        let mapped = match &self.inner {
            Inner::Detached(fd) => sys::mount_idmap(fd.as_fd(), userns, recursive),
            Inner::Later(_) => Err(Errno::ENOSYS),
        };
        mapped.map_err(|e| Error::sys("mount_setattr(MOUNT_ATTR_IDMAP)", e))
    }

    /// Attaches the mount on what `target` stands for and gives the root of the mount, an
    /// `O_PATH` descriptor. `target` itself keeps standing for what is below.
    ///
    /// # Errors
    /// Kind by errno, `Invalid` when one is a directory and the other is not. Nothing stays
    /// attached.
    pub fn attach(self, target: BorrowedFd<'_>) -> Result<OwnedFd> {
        let root = match self.inner {
            Inner::Detached(fd) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
                    | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                rustix::mount::move_mount(&fd, "", target, "", flags)
                    .map_err(|e| Error::sys(format!("move_mount({target:?})"), errno_of(e)))?;
                fd
            }
            Inner::Later(recipe) => recipe.attach(target)?,
        };
        finish(root, &self.after)
    }

    /// As [`Tree::attach`], on an absolute path of the host. A symbolic link at its end is not
    /// followed.
    ///
    /// # Errors
    /// As [`Tree::attach`]; `NotFound` when there is no `path`.
    pub fn attach_at(self, path: &Path) -> Result<OwnedFd> {
        let Inner::Detached(fd) = self.inner else {
            let target = open_path(rustix::fs::CWD, path, OFlag::O_NOFOLLOW)?;
            return self.attach(target.as_fd());
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&fd, "", rustix::fs::CWD, path, flags)
            .map_err(|e| Error::sys(format!("move_mount({})", path.display()), errno_of(e)))?;
        finish(fd, &self.after)
    }

    /// The descriptor, to be handed to another process. Its mount vanishes with its last
    /// descriptor unless it is attached.
    ///
    /// # Errors
    /// `Unsupported` where mounts cannot be detached, or where a change still waits for the
    /// mount to be attached (Linux before 5.12).
    pub fn into_fd(self) -> Result<OwnedFd> {
        match self.inner {
            Inner::Detached(fd) if self.after.is_empty() => Ok(fd),
            Inner::Detached(_) => {
                Err(Error::sys("mount_setattr on a detached mount", Errno::ENOSYS))
            }
            Inner::Later(_) => Err(Error::sys("fsopen, open_tree", Errno::ENOSYS)),
        }
    }
}

/// Makes the changes that had to wait; if one fails the mount is taken away again.
fn finish(root: OwnedFd, changes: &[Change]) -> Result<OwnedFd> {
    for change in changes {
        let done = match *change {
            Change::Attr { set, clr } => set_attr(root.as_fd(), set, clr, false),
            Change::Propagation(change) => set_propagation(root.as_fd(), change),
        };
        if let Err(e) = done {
            let _ = unmount_fd(root.as_fd());
            return Err(e);
        }
    }
    Ok(root)
}

/// Changes the flags of the attached mount whose root `mount` is; see [`Tree::set_attr`].
///
/// # Errors
/// As [`Tree::set_attr`].
pub fn set_attr(mount: BorrowedFd<'_>, set: u64, clr: u64, recursive: bool) -> Result<()> {
    if set == 0 && clr == 0 {
        return Ok(());
    }
    let change = SetAttr { set, clr, recursive, propagation: 0 };
    match sys::mount_setattr(mount, change) {
        Err(Errno::ENOSYS) if !recursive => classic::set_attr(mount, set, clr),
        result => result.map_err(|e| setattr_failed(change, e)),
    }
}

/// Changes the propagation of the attached mount whose root `mount` is.
///
/// # Errors
/// Kind by errno.
pub fn set_propagation(mount: BorrowedFd<'_>, change: Propagation) -> Result<()> {
    match propagate(mount, change) {
        Err(e) if e.errno() == Some(Errno::ENOSYS) => classic::set_propagation(mount, change),
        result => result,
    }
}

fn propagate(mount: BorrowedFd<'_>, change: Propagation) -> Result<()> {
    let propagation = classic::ms_of_propagation(change.kind);
    let change = SetAttr { propagation, recursive: change.recursive, ..SetAttr::default() };
    sys::mount_setattr(mount, change).map_err(|e| setattr_failed(change, e))
}

fn setattr_failed(change: SetAttr, errno: Errno) -> Error {
    let SetAttr { set, clr, propagation, recursive } = change;
    let below = if recursive { ", AT_RECURSIVE" } else { "" };
    let what = if propagation == 0 {
        format!("set {set:#x}, clear {clr:#x}")
    } else {
        format!("propagation {propagation:#x}")
    };
    Error::sys(format!("mount_setattr({what}{below})"), errno)
}

fn open_path(dir: BorrowedFd<'_>, path: &Path, more: OFlag) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | more;
    nix::fcntl::openat(dir, path, flags, nix::sys::stat::Mode::empty())
        .map_err(|e| Error::sys(format!("openat({}, {flags:?})", path.display()), e))
}
