//! Which namespaces are new, which are joined, and which are the host's; and
//! when the process gets into them.
//!
//! ```text
//! at the clone   all new ones, as long as no user namespace is to own them
//! joined         setns(2), with the rights that the engine has on the host
//! mount          where there is an empty one: joined, then unshare(2)
//! user           new or joined; from here on those of its root
//! the rest       unshare(2), so that the user namespace owns it
//! birth          into pid and time namespaces, which are entered by a child only
//! ```

use std::ffi::CString;
use std::path::{Path, PathBuf};

use boathook_init::{Slot, Step};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Process};

use super::program::{Builder, HostFd};
use super::users::IdMaps;
use super::{clocks, text};
use crate::{Error, ErrorKind, Result};

const NEWNS: u32 = libc::CLONE_NEWNS as u32;
pub(super) const NEWPID: u32 = libc::CLONE_NEWPID as u32;
const NEWNET: u32 = libc::CLONE_NEWNET as u32;
const NEWIPC: u32 = libc::CLONE_NEWIPC as u32;
const NEWUTS: u32 = libc::CLONE_NEWUTS as u32;
const NEWCGROUP: u32 = libc::CLONE_NEWCGROUP as u32;
pub(super) const NEWUSER: u32 = libc::CLONE_NEWUSER as u32;
const NEWTIME: u32 = 0x80;

/// The namespaces of a container.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    new: u32,
    joined: Vec<(u32, PathBuf)>,
    maps: Option<IdMaps>,
    offsets: Option<CString>,
    /// The mount namespace begins as a copy of an empty one and not of the host's.
    bare: bool,
}

/// When the container's process is born into its pid and time namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Birth {
    /// With the engine's clone: there is no second process.
    Clone,
    /// As soon as the namespaces are there. Nobody else is in them, or nobody
    /// who is may look into a process with rights outside of the user namespace.
    Early,
    /// When it has no more rights than its program: others in the pid namespace
    /// see it from then on, and with CAP_SYS_PTRACE they rule it.
    Late,
}

impl Namespaces {
    /// Reads and checks `linux.namespaces` with the maps and offsets for them.
    pub(super) fn of(linux: &Linux) -> Result<Self> {
        let maps = IdMaps::of(linux)?;
        let mut this = Self { maps, offsets: clocks::lines(linux)?, ..Self::default() };
        for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let field = format!("linux.namespaces[{index}]");
            let kind = flag(namespace.typ());
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
        this.check_maps_and_offsets()?;
        Ok(this)
    }

    fn check_maps_and_offsets(&self) -> Result<()> {
        let user = self.has(NEWUSER);
        if self.maps.is_some() && !user {
            let problem = "there is no user namespace in linux.namespaces for it";
            return Err(Error::field("linux.uidMappings", problem));
        }
        if self.new & NEWUSER != 0 && self.maps.is_none() {
            let problem = "a new user namespace needs it";
            return Err(Error::field("linux.uidMappings", problem));
        }
        if self.offsets.is_some() && self.new & NEWTIME == 0 {
            let problem = "there is no new time namespace in linux.namespaces for it";
            return Err(Error::field("linux.timeOffsets", problem));
        }
        Ok(())
    }

    /// Has the mount namespace begin as a copy of an empty one.
    pub(super) fn begin_bare(&mut self) {
        self.bare = true;
    }

    /// Whether nothing of the host is in the mount namespace at any time.
    pub(super) fn bare(&self) -> bool {
        self.bare
    }

    /// An id that the maps do not have does not exist inside.
    pub(super) fn check_process(&self, process: &Process) -> Result<()> {
        self.maps.as_ref().map_or(Ok(()), |maps| maps.check_process(process))
    }

    /// When the process is born into its pid and time namespaces.
    pub(super) fn birth(&self) -> Birth {
        let (user, time) = (self.has(NEWUSER), self.new & NEWTIME != 0);
        let (pid, shared) = (self.private_pid(), self.joined_pid().is_some());
        match (pid, shared) {
            (true, _) if user || time => Birth::Early,
            (_, true) if user => Birth::Early,
            _ if user && time => Birth::Early,
            (_, true) => Birth::Late,
            _ if time => Birth::Late,
            _ => Birth::Clone,
        }
    }

    /// Whether the container's ids are its own.
    pub(super) fn own_user(&self) -> bool {
        self.has(NEWUSER)
    }

    /// The pid namespace that is joined.
    pub(super) fn joined_pid(&self) -> Option<&Path> {
        self.joined.iter().find(|(kind, _)| *kind == NEWPID).map(|(_, path)| path.as_path())
    }

    /// Whether the network is there before the container, so that somebody else
    /// may own it.
    pub(super) fn foreign_net(&self) -> bool {
        self.new & NEWNET == 0
    }

    fn has(&self, kind: u32) -> bool {
        self.new & kind != 0 || self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether the container has a namespace of this kind that is not the host's.
    fn not_host(&self, kind: u32) -> bool {
        self.has(kind)
    }

    /// What init makes by unshare(2): all that its user namespace is to own, what
    /// only a child enters, the cgroup namespace, whose root is where the
    /// process is at that moment, and the copy of an empty mount namespace.
    fn unshared(&self) -> u32 {
        let all = self.new & !NEWUSER;
        if self.has(NEWUSER) {
            return all;
        }
        let birth = if self.birth() == Birth::Early { NEWPID } else { 0 };
        let mounts = if self.bare { NEWNS } else { 0 };
        all & (NEWCGROUP | NEWTIME | birth | mounts)
    }

    /// `CLONE_NEW*` flags for the clone.
    pub(super) fn clone_flags(&self) -> u64 {
        u64::from(self.new & !NEWUSER & !self.unshared())
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

    /// Whether the container's cgroup is the root of its view.
    pub(super) fn new_cgroup(&self) -> bool {
        self.new & NEWCGROUP != 0
    }

    /// The user of the host that `uid` inside is; `None` where only the user
    /// namespace that is joined knows.
    pub(super) fn host_uid(&self, uid: u32) -> Option<u32> {
        match &self.maps {
            Some(maps) => maps.host_uid(uid),
            None => (!self.has(NEWUSER)).then_some(uid),
        }
    }

    /// A new network namespace has nothing but a loopback device that is down.
    pub(super) fn loopback(&self) -> bool {
        self.new & NEWNET != 0
    }

    /// Adds the steps that enter what the clone does not; returns the slot of
    /// the pid namespace that is joined.
    pub(super) fn enter(&self, build: &mut Builder) -> Result<Option<Slot>> {
        let mut pids = None;
        // The user namespace last: the engine's rights reach into the others, its root's may not.
        let (users, others): (Vec<_>, Vec<_>) =
            self.joined.iter().partition(|(kind, _)| *kind == NEWUSER);
        for (kind, path) in others.into_iter().chain(users) {
            let ns = build.fd(HostFd::Namespace { path: path.clone(), kind: *kind });
            build.push(&Step::SetNs { ns, kinds: *kind });
            if *kind == NEWPID {
                pids = Some(ns);
            }
        }
        if self.bare {
            let ns = build.fd(HostFd::NoMounts);
            build.push(&Step::SetNs { ns, kinds: NEWNS });
        }
        self.become_root(build)?;
        let flags = self.unshared();
        if flags != 0 {
            build.push(&Step::Unshare { flags });
        }
        if let Some(offsets) = &self.offsets {
            build.push(&Step::TimeOffsets { offsets });
        }
        if self.birth() == Birth::Early {
            // The engine finds both processes by it when something goes wrong.
            build.push(&Step::Session {});
            build.push(&Step::Birth { last: 0 });
        }
        Ok(pids)
    }

    /// The user namespace's ids, and to be its root.
    fn become_root(&self, build: &mut Builder) -> Result<()> {
        if !self.has(NEWUSER) {
            return Ok(());
        }
        let new = self.new & NEWUSER != 0;
        if new {
            build.push(&Step::Unshare { flags: NEWUSER });
        }
        if let Some(maps) = &self.maps {
            let (uids, gids) = (maps.uid_lines()?, maps.gid_lines()?);
            build.push(&match new {
                true => Step::IdMaps { uids: &uids, gids: &gids },
                false => Step::CheckMaps { uids: &uids, gids: &gids },
            });
        }
        build.push(&Step::NamespaceRoot {});
        Ok(())
    }
}

fn flag(kind: LinuxNamespaceType) -> u32 {
    match kind {
        LinuxNamespaceType::Mount => NEWNS,
        LinuxNamespaceType::Pid => NEWPID,
        LinuxNamespaceType::Network => NEWNET,
        LinuxNamespaceType::Ipc => NEWIPC,
        LinuxNamespaceType::Uts => NEWUTS,
        LinuxNamespaceType::Cgroup => NEWCGROUP,
        LinuxNamespaceType::User => NEWUSER,
        LinuxNamespaceType::Time => NEWTIME,
    }
}
