//! Mounts by descriptor: made detached, changed detached, attached last.

use core::ffi::CStr;

use core::sync::atomic::{AtomicI32, Ordering};

use crate::consts::{
    AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, EINVAL, FSCONFIG_CMD_CREATE, FSCONFIG_SET_FD,
    FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSMOUNT_CLOEXEC, FSOPEN_CLOEXEC, MNT_DETACH,
    MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH, OPEN_TREE_CLOEXEC, OPEN_TREE_CLONE,
};
use crate::sys::{Fault, Fd, Outcome, PathBuf, nr, syscall};
use crate::wire::List;

/// What mount_setattr(2) takes.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// A detached mount of a new file system.
pub(crate) fn new_fs(fstype: &CStr, source: &CStr, options: List<'_>, attrs: u64) -> Outcome<Fd> {
    finish(open_fs(fstype)?, source, options, attrs)
}

fn open_fs(fstype: &CStr) -> Outcome<Fd> {
    Ok(Fd::new(syscall!(nr::FSOPEN, fstype, FSOPEN_CLOEXEC)?))
}

/// The rest of the way from a context to a detached mount.
fn finish(context: Fd, source: &CStr, options: List<'_>, attrs: u64) -> Outcome<Fd> {
    if !source.is_empty() {
        config(&context, FSCONFIG_SET_STRING, Some((c"source", source)))?;
    }
    for option in options.iter() {
        set_option(&context, option)?;
    }
    config(&context, FSCONFIG_CMD_CREATE, None)?;
    Ok(Fd::new(syscall!(nr::FSMOUNT, context.number(), FSMOUNT_CLOEXEC, attrs)?))
}

/// A detached proc file system that shows the pid namespace `pids`, which this
/// process is not in, but its children are.
///
/// Kernels before 6.18 have no option for it: there a child opens the context,
/// which then is about the child's namespace. That moment aside, nothing with
/// our rights is seen in there.
pub(crate) fn proc_of(pids: i32, source: &CStr, options: List<'_>, attrs: u64) -> Outcome<Fd> {
    let context = open_fs(c"proc")?;
    let number = context.number();
    match syscall!(nr::FSCONFIG, number, FSCONFIG_SET_FD, c"pidns", 0_usize, pids) {
        Ok(_) => finish(context, source, options, attrs),
        Err(fault) if fault.errno == EINVAL => {
            crate::sys::in_child(open_proc)?;
            let opened = CONTEXT.load(Ordering::Relaxed);
            match u32::try_from(opened) {
                Ok(fd) => finish(Fd::new(fd as usize), source, options, attrs),
                Err(_) => Err(Fault { errno: opened.unsigned_abs(), detail: nr::FSOPEN }),
            }
        }
        Err(fault) => Err(fault),
    }
}

/// What the child opened, or its errno, negative.
static CONTEXT: AtomicI32 = AtomicI32::new(-1);

extern "C" fn open_proc() -> ! {
    let opened = match syscall!(nr::FSOPEN, c"proc", FSOPEN_CLOEXEC) {
        Ok(fd) => fd as i32,
        Err(fault) => (fault.errno as i32).wrapping_neg(),
    };
    CONTEXT.store(opened, Ordering::Relaxed);
    crate::sys::exit(0)
}

/// The host's sysfs in the place of a container's own.
pub(crate) fn host_sysfs(tree: i32, attrs: u64) -> Outcome<Fd> {
    set_attr(tree, attrs, 0, 0, false)?;
    Ok(Fd::new(tree as usize))
}

fn set_option(context: &Fd, option: &CStr) -> Outcome {
    let bytes = option.to_bytes();
    let Some(at) = bytes.iter().position(|b| *b == b'=') else {
        let none = 0_usize;
        syscall!(nr::FSCONFIG, context.number(), FSCONFIG_SET_FLAG, option, none, 0_u32)?;
        return Ok(());
    };
    let mut key = PathBuf::new();
    key.push(bytes.get(..at).unwrap_or_default())?;
    let value = option.to_bytes_with_nul().get(at + 1..).unwrap_or_default();
    let value = CStr::from_bytes_with_nul(value).unwrap_or_default();
    config(context, FSCONFIG_SET_STRING, Some((key.as_c_str(), value)))
}

fn config(context: &Fd, command: u32, pair: Option<(&CStr, &CStr)>) -> Outcome {
    let fd = context.number();
    match pair {
        Some((key, value)) => syscall!(nr::FSCONFIG, fd, command, key, value, 0_u32)?,
        None => syscall!(nr::FSCONFIG, fd, command, 0_usize, 0_usize, 0_u32)?,
    };
    Ok(())
}

/// mount_setattr(2) on the tree that `fd` is.
pub(crate) fn set_attr(
    fd: i32,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> Outcome {
    let attr = MountAttr { set, clear, propagation, userns: 0 };
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    syscall!(nr::MOUNT_SETATTR, fd, c"", flags, &attr, size_of::<MountAttr>())?;
    Ok(())
}

/// A detached copy of the mount at `fd`, with the mounts below it if asked.
pub(crate) fn clone_tree(fd: i32, recursive: bool) -> Outcome<Fd> {
    let deep = if recursive { AT_RECURSIVE } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | deep;
    Ok(Fd::new(syscall!(nr::OPEN_TREE, fd, c"", flags)?))
}

/// Attaches the detached tree on what `target` is.
pub(crate) fn attach(tree: i32, target: i32) -> Outcome {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    syscall!(nr::MOVE_MOUNT, tree, c"", target, c"", flags)?;
    Ok(())
}

/// Attaches the detached tree at a path of the old root.
pub(crate) fn attach_outside(tree: i32, path: &CStr) -> Outcome {
    syscall!(nr::MOVE_MOUNT, tree, c"", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Sets the propagation of all mounts of the namespace.
pub(crate) fn set_propagation(flags: u64) -> Outcome {
    syscall!(nr::MOUNT, c"", c"/", 0_usize, flags, 0_usize)?;
    Ok(())
}

/// Makes `root` the root of the mount namespace and drops the old one.
///
/// `pivot_root(".", ".")` stacks the old root on the new one, so that the
/// detaching needs no directory to put it in.
pub(crate) fn pivot(root: i32) -> Outcome {
    syscall!(nr::FCHDIR, root)?;
    syscall!(nr::PIVOT_ROOT, c".", c".")?;
    syscall!(nr::UMOUNT2, c".", MNT_DETACH)?;
    syscall!(nr::CHDIR, c"/")?;
    Ok(())
}

/// Makes `root` the process's root, the rest of the namespace staying behind it.
pub(crate) fn chroot(root: i32) -> Outcome {
    syscall!(nr::FCHDIR, root)?;
    syscall!(nr::CHROOT, c".")?;
    syscall!(nr::CHDIR, c"/")?;
    Ok(())
}
