//! Which namespaces are new, which are joined, and which are the host's.

use std::path::PathBuf;

use boathook_init::Step;
use oci_spec::runtime::{Linux, LinuxNamespaceType};

use super::program::{Builder, HostFd};
use super::text;
use crate::{Error, ErrorKind, Result};

const NEWNS: u32 = libc::CLONE_NEWNS as u32;
const NEWPID: u32 = libc::CLONE_NEWPID as u32;
const NEWNET: u32 = libc::CLONE_NEWNET as u32;
const NEWIPC: u32 = libc::CLONE_NEWIPC as u32;
const NEWUTS: u32 = libc::CLONE_NEWUTS as u32;
const NEWCGROUP: u32 = libc::CLONE_NEWCGROUP as u32;

/// The namespaces of a container.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    new: u32,
    joined: Vec<(u32, PathBuf)>,
}

impl Namespaces {
    /// Reads and checks `linux.namespaces`.
    pub(super) fn of(linux: &Linux) -> Result<Self> {
        let mut this = Self::default();
        for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let field = format!("linux.namespaces[{index}]");
            let kind = flag(&field, namespace.typ())?;
            if this.has(kind) {
                let problem = format!("namespace {} is listed twice", namespace.typ());
                return Err(Error::field(field, problem));
            }
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    let field = format!("{field}.path");
                    text::absolute(&field, path)?;
                    this.joined.push((kind, path.clone()));
                }
                _ => this.new |= kind,
            }
        }
        if this.new & NEWNS == 0 {
            let problem = "a new mount namespace is needed for the root file system";
            return Err(Error::new(ErrorKind::Unsupported, format!("linux.namespaces: {problem}")));
        }
        Ok(this)
    }

    fn has(&self, kind: u32) -> bool {
        self.new & kind != 0 || self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether the container has a namespace of this kind that is not the host's.
    fn not_host(&self, kind: u32) -> bool {
        self.has(kind)
    }

    /// `CLONE_NEW*` flags for the clone. A new cgroup namespace is made later,
    /// after the process is in its cgroup, because that becomes its root.
    pub(super) fn clone_flags(&self) -> u64 {
        u64::from(self.new & !NEWCGROUP)
    }

    /// Every kind that is new or joined.
    pub(super) fn not_of_the_host(&self) -> u32 {
        self.joined.iter().fold(self.new, |all, (kind, _)| all | kind)
    }

    pub(super) fn private_pid(&self) -> bool {
        self.new & NEWPID != 0
    }

    pub(super) fn own_uts(&self) -> bool {
        self.not_host(NEWUTS)
    }

    pub(super) fn own_ipc(&self) -> bool {
        self.not_host(NEWIPC)
    }

    pub(super) fn own_net(&self) -> bool {
        self.not_host(NEWNET)
    }

    pub(super) fn own_cgroup(&self) -> bool {
        self.not_host(NEWCGROUP)
    }

    /// A new network namespace has nothing but a loopback device that is down.
    pub(super) fn loopback(&self) -> bool {
        self.new & NEWNET != 0
    }

    /// Adds the steps that join; returns which descriptor is the pid namespace,
    /// which only the clone can enter.
    pub(super) fn enter(&self, build: &mut Builder) -> Option<usize> {
        let mut pid = None;
        for (kind, path) in &self.joined {
            let ns = build.fd(HostFd::Namespace { path: path.clone(), kind: *kind });
            if *kind == NEWPID {
                pid = Some(build.fds.len() - 1);
            } else {
                build.push(&Step::SetNs { ns, kinds: *kind });
            }
        }
        if self.new & NEWCGROUP != 0 {
            build.push(&Step::Unshare { flags: NEWCGROUP });
        }
        pid
    }
}

fn flag(field: &str, kind: LinuxNamespaceType) -> Result<u32> {
    Ok(match kind {
        LinuxNamespaceType::Mount => NEWNS,
        LinuxNamespaceType::Pid => NEWPID,
        LinuxNamespaceType::Network => NEWNET,
        LinuxNamespaceType::Ipc => NEWIPC,
        LinuxNamespaceType::Uts => NEWUTS,
        LinuxNamespaceType::Cgroup => NEWCGROUP,
        other => {
            let text =
                format!("{field}.type: {other} namespaces are not supported by this version");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
    })
}
