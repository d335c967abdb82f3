//! Descriptors of the host that a plan asks for.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use boathook_fs::mount::Tree;
use rustix::fs::{CWD, FileType};

use super::{Launch, Stdio};
use crate::cgroup::{Cgroup, Join};
use crate::plan::{HostFd, MappedBy, MountIds, Plan};
use crate::{Error, ErrorKind, Result, sys};

/// A descriptor for init: one that is open anyhow, or one opened for it.
pub(super) enum Given<'a> {
    /// Open anyhow.
    Lent(BorrowedFd<'a>),
    /// Opened for init, closed once it was sent.
    Opened(OwnedFd),
}

impl AsFd for Given<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Given::Lent(fd) => *fd,
            Given::Opened(fd) => fd.as_fd(),
        }
    }
}

/// Opens them in the order of their slots.
pub(super) fn open<'a>(
    plan: &'a Plan,
    launch: &'a Launch<'_>,
    join: &'a Join,
) -> Result<Vec<Given<'a>>> {
    let mut tasks = match join {
        Join::V1(tasks) | Join::Hybrid { tasks, .. } => tasks.iter(),
        Join::V2(_) => [].iter(),
    };
    let mut mapped_by = UserNamespaces { image: launch.image, known: Vec::new() };
    plan.fds
        .iter()
        .map(|fd| match fd {
            HostFd::CgroupTasks(_) => match tasks.next() {
                Some(file) => Ok(Given::Lent(file.as_fd())),
                None => Err(missing("tasks file of the container's cgroup")),
            },
            HostFd::Namespace { path, kind } => namespace(path, *kind).map(Given::Opened),
            HostFd::NoMounts => match launch.no_mounts {
                Some(namespace) => Ok(Given::Lent(namespace)),
                None => Err(missing("mount namespace to begin with")),
            },
            HostFd::Container => match launch.container {
                Some(pidfd) => Ok(Given::Lent(pidfd)),
                None => Err(missing("container's first process")),
            },
            HostFd::Root(path) => root(path).map(Given::Opened),
            HostFd::Bind { field, source, recursive, idmap: None } => {
                tree(field, source, *recursive).map(Given::Opened)
            }
            HostFd::Bind { field, source, recursive, idmap: Some(ids) } => {
                let userns = mapped_by.namespace(ids)?;
                mapped_tree(field, source, *recursive, ids, userns).map(Given::Opened)
            }
            HostFd::UserNamespace(ids) => {
                let userns = mapped_by.namespace(ids)?.try_clone_to_owned();
                userns.map(Given::Opened).map_err(|e| Error::sys("duplicate a descriptor", e))
            }
            HostFd::Device { field, source, block, major, minor } => {
                device(field, source, *block, (*major, *minor)).map(Given::Opened)
            }
            HostFd::CgroupTree(index) => cgroup_tree(launch.cgroup, *index).map(Given::Opened),
            HostFd::NullDevice => {
                tree("null device", Path::new("/dev/null"), false).map(Given::Opened)
            }
            HostFd::Stdio(number) => stdio(&launch.stdio, *number),
        })
        .collect()
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("no descriptor for the {what}"))
}

/// A detached copy of the root file system.
fn root(path: &Path) -> Result<OwnedFd> {
    let tree = tree("root.path", path, true)?;
    let stat = rustix::fs::fstat(&tree).map_err(|e| Error::sys("fstat of the root", e))?;
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Ok(tree);
    }
    Err(Error::field("root.path", format!("{} is not a directory", path.display())))
}

/// A detached copy of what is at a path of the host.
fn tree(field: &str, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let tree = Tree::clone_at(CWD, path, recursive).and_then(Tree::into_fd);
    tree.map_err(|error| tree_failed(field, &error))
}

/// A detached copy of a device node, which must be the one that was asked for.
fn device(field: &str, path: &Path, block: bool, wanted: (u32, u32)) -> Result<OwnedFd> {
    let tree = tree(field, path, false)?;
    let stat = rustix::fs::fstat(&tree).map_err(|e| Error::sys("fstat of a device", e))?;
    let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let found = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if FileType::from_raw_mode(stat.st_mode) == kind && found == wanted {
        return Ok(tree);
    }
    let (major, minor) = wanted;
    let problem = format!(
        "{} of the host is not device {major}:{minor}, and in a user namespace no other can be made",
        path.display()
    );
    Err(Error::field(field, problem))
}

fn tree_failed(field: &str, error: &boathook_fs::Error) -> Error {
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => ErrorKind::InvalidInput,
        Some(errno) => Error::sys("", std::io::Error::from_raw_os_error(errno)).kind(),
        None => ErrorKind::Internal,
    };
    Error::new(kind, format!("{field}: {error}"))
}

/// As [`tree`], with its ids mapped. That has to happen here: the right to map
/// belongs to the owner of the file system, and while nothing can be seen in it.
fn mapped_tree(
    field: &str,
    path: &Path,
    recursive: bool,
    ids: &MountIds,
    userns: BorrowedFd<'_>,
) -> Result<OwnedFd> {
    let mut tree =
        Tree::clone_at(CWD, path, recursive).map_err(|error| tree_failed(field, &error))?;
    match tree.id_map(userns, ids.recursive) {
        Ok(()) => tree.into_fd().map_err(|error| tree_failed(field, &error)),
        Err(error) => Err(not_mapped(&ids.field, path, &error)),
    }
}

/// The kernel's answer for a file system that does not know id-mapped mounts is `EINVAL`.
fn not_mapped(field: &str, path: &Path, error: &boathook_fs::Error) -> Error {
    let (kind, why) = match error.raw_os_error() {
        Some(libc::EINVAL) => (ErrorKind::Unsupported, "its file system cannot be id-mapped"),
        Some(libc::ENOSYS) => {
            (ErrorKind::Unsupported, "this kernel has no id-mapped mounts (Linux 5.12)")
        }
        Some(libc::EPERM) => (ErrorKind::PermissionDenied, "it may not be id-mapped again"),
        _ => (ErrorKind::Internal, "it was not id-mapped"),
    };
    Error::new(kind, format!("{field}: {}: {why}: {error}", path.display()))
}

/// User namespaces for mappings, one for all mounts that are mapped alike.
struct UserNamespaces<'a> {
    image: BorrowedFd<'a>,
    known: Vec<(&'a MappedBy, OwnedFd)>,
}

impl<'a> UserNamespaces<'a> {
    fn namespace(&mut self, ids: &'a MountIds) -> Result<BorrowedFd<'_>> {
        let at = match self.known.iter().position(|(by, _)| **by == ids.by) {
            Some(at) => at,
            None => {
                let made = match &ids.by {
                    MappedBy::Mappings(mappings) => {
                        mappings.namespace(self.image).map_err(|error| error.context(&ids.field))?
                    }
                    MappedBy::Namespace(path) => namespace(path, NEWUSER)?,
                };
                self.known.push((&ids.by, made));
                self.known.len() - 1
            }
        };
        Ok(self.known[at].1.as_fd())
    }
}

const NEWUSER: u32 = libc::CLONE_NEWUSER as u32;

fn cgroup_tree(cgroup: &Cgroup, index: usize) -> Result<OwnedFd> {
    let Some(directory) = cgroup.directories().nth(index) else {
        return Err(missing("directory of the container's cgroup"));
    };
    Tree::clone_at(directory.root, Path::new(directory.path), false)
        .and_then(Tree::into_fd)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("view of the cgroup: {e}")))
}

/// Opens a namespace file and checks that it is one of the kind asked for.
fn namespace(path: &Path, kind: u32) -> Result<OwnedFd> {
    let field = "linux.namespaces";
    let shown = path.display();
    let file = File::open(path).map_err(|e| Error::field(field, format!("{shown}: {e}")))?;
    match sys::namespace_kind(file.as_fd()) {
        Ok(found) if found == kind => Ok(file.into()),
        Ok(_) => Err(Error::field(field, format!("{shown} is a namespace of another type"))),
        Err(_) => Err(Error::field(field, format!("{shown} is not a namespace"))),
    }
}

fn stdio(stdio: &Stdio, number: usize) -> Result<Given<'_>> {
    let given = match (stdio, number) {
        (Stdio::Fds { stdin, .. }, 0) => stdin,
        (Stdio::Fds { stdout, .. }, 1) => stdout,
        (Stdio::Fds { stderr, .. }, _) => stderr,
        (Stdio::Terminal, _) => return Err(missing("standard streams")),
    };
    match given {
        Some(fd) => Ok(Given::Lent(fd.as_fd())),
        None => {
            let null = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_CLOEXEC)
                .open("/dev/null");
            null.map(|file| Given::Opened(file.into())).map_err(|e| Error::sys("open /dev/null", e))
        }
    }
}
