//! Mounts by descriptor: made detached, changed detached, attached last.

use core::ffi::CStr;

use core::sync::atomic::{AtomicI32, Ordering};

use crate::consts::{
    AT_EMPTY_PATH, AT_FDCWD, AT_RECURSIVE, EINVAL, ENOSYS, FSCONFIG_CMD_CREATE,
    FSCONFIG_CMD_RECONFIGURE, FSCONFIG_SET_FD, FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING,
    FSMOUNT_CLOEXEC, FSOPEN_CLOEXEC, FSPICK_CLOEXEC, FSPICK_EMPTY_PATH, MNT_DETACH,
    MOUNT_ATTR_IDMAP, MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH, OPEN_TREE_CLOEXEC,
    OPEN_TREE_CLONE,
};
use crate::report::detail;
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
    set_options(&context, options)?;
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
    set_attr(tree, &Change { set: attrs, ..Change::default() })?;
    Ok(Fd::new(tree as usize))
}

/// Which of them was refused is told in the place of the system call.
fn set_options(context: &Fd, options: List<'_>) -> Outcome {
    for (detail, option) in (detail::OPTION..).zip(options.iter()) {
        set_option(context, option).map_err(|fault| Fault { detail, ..fault })?;
    }
    Ok(())
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

/// Changes options of the file system that the mount `tree` shows.
pub(crate) fn reconfigure(tree: i32, options: List<'_>) -> Outcome {
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    let context = Fd::new(syscall!(nr::FSPICK, tree, c"", flags)?);
    set_options(&context, options)?;
    config(&context, FSCONFIG_CMD_RECONFIGURE, None)
}

/// A change of a mount, or of all mounts of a tree.
#[derive(Default)]
pub(crate) struct Change {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear first.
    pub(crate) clear: u64,
    /// `MS_SHARED` and its like, or 0.
    pub(crate) propagation: u64,
    /// On every mount of the tree.
    pub(crate) recursive: bool,
}

/// Changes the mount that `fd` is the root of. Kernels before 5.12 can do it
/// only to a mount that is attached, and attributes only to one at a time.
pub(crate) fn set_attr(fd: i32, change: &Change) -> Outcome {
    let &Change { set, clear, propagation, recursive } = change;
    match mount_setattr(fd, &MountAttr { set, clear, propagation, userns: 0 }, recursive) {
        Err(fault) if fault.errno == ENOSYS && (set | clear == 0 || !recursive) => {
            crate::classic::set_attr(fd, change)
        }
        other => other,
    }
}

/// Maps the ids of a detached mount by the mappings of a user namespace.
pub(crate) fn id_map(tree: i32, userns: i32) -> Outcome {
    let userns = u64::from(userns.unsigned_abs());
    let attr = MountAttr { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns };
    mount_setattr(tree, &attr, false)
}

fn mount_setattr(fd: i32, attr: &MountAttr, recursive: bool) -> Outcome {
    let flags = AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    syscall!(nr::MOUNT_SETATTR, fd, c"", flags, attr, size_of::<MountAttr>())?;
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
