//! Descriptors of the host that a plan asks for.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use boathook_fs::mount::Tree;
use rustix::fs::CWD;

use super::{Launch, Stdio};
use crate::cgroup::{Cgroup, Join};
use crate::plan::{HostFd, Plan};
use crate::{Error, ErrorKind, Result, sys};

/// Opens them in the order of their slots.
pub(super) fn open(plan: &Plan, launch: &Launch<'_>, join: &Join) -> Result<Vec<OwnedFd>> {
    let mut tasks = match join {
        Join::V1(tasks) | Join::Hybrid { tasks, .. } => tasks.iter(),
        Join::V2(_) => [].iter(),
    };
    plan.fds
        .iter()
        .map(|fd| match fd {
            HostFd::CgroupTasks(_) => match tasks.next() {
                Some(file) => duplicate(file.as_fd()),
                None => Err(missing("tasks file of the container's cgroup")),
            },
            HostFd::Namespace { path, kind } => namespace(path, *kind),
            HostFd::Container => match launch.container {
                Some(pidfd) => duplicate(pidfd),
                None => Err(missing("container's first process")),
            },
            HostFd::Root(path) => tree("root.path", path, true),
            HostFd::Bind { field, source, recursive } => tree(field, source, *recursive),
            HostFd::CgroupTree(index) => cgroup_tree(launch.cgroup, *index),
            HostFd::NullDevice => tree("null device", Path::new("/dev/null"), false),
            HostFd::Stdio(number) => stdio(&launch.stdio, *number),
        })
        .collect()
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("no descriptor for the {what}"))
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(|e| Error::sys("duplicate a descriptor", e))
}

/// A detached copy of what is at a path of the host.
fn tree(field: &str, path: &Path, recursive: bool) -> Result<OwnedFd> {
    let failed = |error: boathook_fs::Error| {
        let kind = match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => ErrorKind::InvalidInput,
            Some(libc::EPERM | libc::EACCES) => ErrorKind::PermissionDenied,
            _ => ErrorKind::Internal,
        };
        Error::new(kind, format!("{field}: {error}"))
    };
    Tree::clone_at(CWD, path, recursive).and_then(Tree::into_fd).map_err(failed)
}

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

fn stdio(stdio: &Stdio, number: usize) -> Result<OwnedFd> {
    let given = match (stdio, number) {
        (Stdio::Fds { stdin, .. }, 0) => stdin,
        (Stdio::Fds { stdout, .. }, 1) => stdout,
        (Stdio::Fds { stderr, .. }, _) => stderr,
        (Stdio::Terminal, _) => return Err(missing("standard streams")),
    };
    match given {
        Some(fd) => duplicate(fd.as_fd()),
        None => {
            let null = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_CLOEXEC)
                .open("/dev/null");
            null.map(OwnedFd::from).map_err(|e| Error::sys("open /dev/null", e))
        }
    }
}
