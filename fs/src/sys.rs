//! The system calls that neither nix nor rustix wrap.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// What one `mount_setattr` call changes (Linux 5.12).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SetAttr {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear first.
    pub(crate) clr: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 for no change.
    pub(crate) propagation: u64,
    /// The mount and everything mounted below it.
    pub(crate) recursive: bool,
}

/// Changes the mount whose root `mount` is.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, change: SetAttr) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clr,
        propagation: change.propagation,
        userns_fd: 0,
    };
    apply(mount, &attr, change.recursive)
}

/// Maps the ids of the mount whose root `mount` is by the mappings of a user namespace.
pub(crate) fn mount_idmap(
    mount: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    recursive: bool,
) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(userns.as_raw_fd().unsigned_abs()),
    };
    apply(mount, &attr, recursive)
}

fn apply(mount: BorrowedFd<'_>, attr: &libc::mount_attr, recursive: bool) -> Result<(), Errno> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the path is an empty C string of static life; `attr` is initialised and of
    // the size that is passed, and the kernel only reads it during the call; `mount` is
    // borrowed, so the descriptor stays open for as long.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(ret).map(drop)
}

/// What `mount_setattr` says to a question that changes nothing: an id-mapping by a
/// descriptor that cannot exist. `EBADF` when it knows id-mapped mounts, `ENOSYS` when
/// there is no such call.
pub(crate) fn mount_setattr_probe() -> Errno {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: i32::MAX as u64,
    };
    // SAFETY: as in `mount_setattr`; descriptor -1 is no descriptor, so the call cannot
    // reach any mount.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            -1,
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    match Errno::result(ret) {
        Ok(_) => Errno::UnknownErrno,
        Err(errno) => errno,
    }
}
