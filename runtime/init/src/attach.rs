//! What is put into the root file system: mounts at paths, nodes, links,
//! masks and read-only covers.

use core::ffi::CStr;

use crate::consts::{
    AT_EMPTY_PATH, EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, MOUNT_ATTR_RDONLY, O_DIRECTORY,
    O_NOFOLLOW, O_PATH, O_RDONLY, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT,
};
use crate::mounts;
use crate::paths::{self, Leaf};
use crate::report::detail;
use crate::sys::{Fault, Fd, Outcome, fstat, makedev, nr, openat2, syscall};

/// Attaches a detached tree at a path of the container.
pub(crate) fn attach_at(
    root: i32,
    tree: i32,
    path: &CStr,
    strict: bool,
    keep_mode: bool,
) -> Outcome {
    let target = match paths::resolve(root, path, strict) {
        Err(fault) if fault.errno == ENOENT => {
            let leaf = if is_dir(tree)? { Leaf::Dir } else { Leaf::File };
            paths::make(root, path, leaf, 0o755, strict)?
        }
        Ok(found) if keep_mode => {
            let mode = fstat(found.number())?.mode & 0o7777;
            let top = openat2(tree, c".", O_RDONLY | O_DIRECTORY, 0, 0)?;
            syscall!(nr::FCHMOD, top.number(), mode)?;
            found
        }
        other => other?,
    };
    match mounts::attach(tree, target.number()) {
        Err(fault) if fault.errno == EINVAL => Err(mismatch(tree, target.number(), fault)?),
        other => other,
    }
}

/// move_mount(2) has one errno for many things; a directory on a file or a
/// file on a directory is the usual one.
fn mismatch(tree: i32, target: i32, fault: Fault) -> Outcome<Fault> {
    Ok(match (is_dir(tree)?, is_dir(target)?) {
        (true, false) => Fault { errno: ENOTDIR, ..fault },
        (false, true) => Fault { errno: EISDIR, ..fault },
        _ => fault,
    })
}

fn is_dir(fd: i32) -> Outcome<bool> {
    Ok(fstat(fd)?.mode & S_IFMT == S_IFDIR)
}

/// Makes a directory and its parents.
pub(crate) fn make_dir(root: i32, path: &CStr, mode: u32) -> Outcome {
    paths::resolve_or_make(root, path, Leaf::Dir, mode, false).map(drop)
}

/// A device node as the plan asks for it.
pub(crate) struct Node<'a> {
    pub(crate) path: &'a CStr,
    pub(crate) mode: u32,
    pub(crate) device: (u32, u32),
    pub(crate) owner: (u32, u32),
}

/// Makes a device node; an equal one that is there already stays.
pub(crate) fn node(root: i32, node: &Node<'_>) -> Outcome {
    let (parent, name) = paths::parent_of(root, node.path)?;
    let dev = makedev(node.device.0, node.device.1);
    match syscall!(nr::MKNODAT, parent.number(), name, node.mode, dev) {
        Ok(_) => {}
        Err(fault) if fault.errno == EEXIST => return same_node(parent.number(), name, node),
        Err(fault) => return Err(fault),
    }
    if node.owner != (0, 0) {
        let fd = openat2(parent.number(), name, O_PATH | O_NOFOLLOW, 0, 0)?;
        syscall!(nr::FCHOWNAT, fd.number(), c"", node.owner.0, node.owner.1, AT_EMPTY_PATH)?;
    }
    Ok(())
}

fn same_node(parent: i32, name: &CStr, node: &Node<'_>) -> Outcome {
    let fd = openat2(parent, name, O_PATH | O_NOFOLLOW, 0, 0)?;
    let stat = fstat(fd.number())?;
    let fifo = node.mode & S_IFMT == S_IFIFO;
    if stat.mode & S_IFMT == node.mode & S_IFMT && (fifo || stat.device() == node.device) {
        return Ok(());
    }
    Err(Fault { errno: EEXIST, detail: detail::OTHER_NODE })
}

/// Makes a symbolic link.
pub(crate) fn link(root: i32, target: &CStr, path: &CStr, replace: bool) -> Outcome {
    let (parent, name) = paths::parent_of(root, path)?;
    if replace {
        match syscall!(nr::UNLINKAT, parent.number(), name, 0_u32) {
            Err(fault) if fault.errno != ENOENT => return Err(fault),
            _ => {}
        }
    }
    match syscall!(nr::SYMLINKAT, target, parent.number(), name) {
        Err(fault) if fault.errno != EEXIST || replace => Err(fault),
        _ => Ok(()),
    }
}

/// Covers for masked paths. The first use attaches the tree itself; later ones
/// copy the attached one, because kernels before 6.15 cannot copy a tree that
/// is attached nowhere.
#[derive(Default)]
pub(crate) struct Covers {
    dir_used: bool,
    file_used: bool,
}

impl Covers {
    /// Covers `path`, if it exists.
    pub(crate) fn mask(&mut self, root: i32, path: &CStr, dir: i32, file: i32) -> Outcome {
        let Some(target) = existing(root, path)? else { return Ok(()) };
        let is_dir = is_dir(target.number())?;
        let (tree, used) =
            if is_dir { (dir, &mut self.dir_used) } else { (file, &mut self.file_used) };
        if *used {
            let copy = mounts::clone_tree(tree, false)?;
            return mounts::attach(copy.number(), target.number());
        }
        if !is_dir {
            null_device(tree)?;
        }
        *used = true;
        mounts::attach(tree, target.number())
    }
}

/// The cover of files must be the null device, not what a container's
/// /dev/null may lead to (CVE-2025-31133).
fn null_device(fd: i32) -> Outcome {
    let stat = fstat(fd)?;
    if stat.mode & S_IFMT == S_IFCHR && stat.device() == (1, 3) {
        return Ok(());
    }
    Err(Fault::detail(detail::OTHER_NODE))
}

/// Makes an existing path read-only by a bind mount on itself.
pub(crate) fn readonly(root: i32, path: &CStr) -> Outcome {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    let copy = mounts::clone_tree(target.number(), true)?;
    mounts::attach(copy.number(), target.number())?;
    let change = mounts::Change { set: MOUNT_ATTR_RDONLY, ..mounts::Change::default() };
    mounts::set_attr(copy.number(), &change)
}

fn existing(root: i32, path: &CStr) -> Outcome<Option<Fd>> {
    match paths::resolve(root, path, false) {
        Ok(fd) => Ok(Some(fd)),
        Err(fault) if matches!(fault.errno, ENOENT | ENOTDIR | EISDIR) => Ok(None),
        Err(fault) => Err(fault),
    }
}
