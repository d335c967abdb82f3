//! A container's cgroup: one directory per hierarchy, held by path below the
//! hierarchy's descriptor, so that a resident process keeps no descriptor per
//! container.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::controller::Controller;
use super::hierarchy::Hierarchies;
use super::layout::Mode;
use super::plan::Driver;
use super::{file, path};
use crate::error::{Error, ErrorKind, Result};

/// A container's cgroup in all hierarchies.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(super) hierarchies: Hierarchies,
    pub(super) driver: Driver,
    pub(super) members: Vec<Member>,
}

/// The cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Index of the hierarchy.
    pub(super) index: usize,
    /// Below the mount point, no slash at either end.
    pub(super) path: String,
    /// As in [`CgroupMember::made`].
    pub(super) made: Vec<usize>,
}

impl Member {
    /// False when an existing, empty leaf was taken over.
    pub(super) fn made_leaf(&self) -> bool {
        self.made.last() == Some(&self.path.len())
    }
}

/// What `state.json` keeps of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupRecord {
    /// Who made it.
    pub driver: Driver,
    /// One entry per hierarchy.
    pub members: Vec<CgroupMember>,
}

/// One hierarchy's entry of a [`CgroupRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMember {
    /// The hierarchy as the second field of `/proc/PID/cgroup` names it:
    /// `memory`, `cpu,cpuacct`, `name=systemd`, empty for v2.
    pub hierarchy: String,
    /// Below the mount point, no slash at either end.
    pub path: String,
    /// The lengths of those prefixes of `path` that the runtime made, shortest
    /// first: usually the whole path alone, and its parents where they were missing.
    pub made: Vec<usize>,
}

/// A cgroup's directory in one hierarchy.
#[derive(Debug)]
pub struct CgroupDirectory<'a> {
    /// As in [`CgroupMember::hierarchy`].
    pub hierarchy: String,
    /// Where the hierarchy is mounted on the host.
    pub mount_point: &'a Path,
    /// The mount's root, `O_PATH`.
    pub root: BorrowedFd<'a>,
    /// The cgroup below `root`, no slash at either end.
    pub path: &'a str,
    /// Whether it is the v2 hierarchy.
    pub is_v2: bool,
}

impl Cgroup {
    /// The existing cgroup at `path`, below the mount point of each hierarchy
    /// that has it.
    ///
    /// # Errors
    /// `NotFound` when no hierarchy has it, `InvalidInput` for a path that no
    /// cgroup can have.
    pub fn open(hierarchies: &Hierarchies, path: &str) -> Result<Self> {
        let path = path::normalise(path, "cgroup path")?;
        let mut members = Vec::new();
        for index in 0..hierarchies.len() {
            match file::exists(hierarchies.root(index), &path) {
                Ok(true) => members.push(Member { index, path: path.clone(), made: Vec::new() }),
                Ok(false) => {}
                Err(errno) => return Err(Error::sys(format!("looking up cgroup /{path}"), errno)),
            }
        }
        if members.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, format!("cgroup /{path} does not exist")));
        }
        Ok(Self { hierarchies: hierarchies.clone(), driver: Driver::Cgroupfs, members })
    }

    /// The cgroup of a record. Nothing is looked up, so the directories may be
    /// gone; a hierarchy that is no longer mounted is left out.
    ///
    /// # Errors
    /// `InvalidInput` for a record with a path that no cgroup can have.
    pub fn from_record(hierarchies: &Hierarchies, record: &CgroupRecord) -> Result<Self> {
        let mut members = Vec::with_capacity(record.members.len());
        for entry in &record.members {
            let path = path::normalise(&entry.path, "cgroup record")?;
            let mounts = &hierarchies.layout().mounts;
            if let Some(index) = mounts.iter().position(|m| m.key() == entry.hierarchy) {
                members.push(Member { index, path, made: entry.made.clone() });
            }
        }
        Ok(Self { hierarchies: hierarchies.clone(), driver: record.driver, members })
    }

    /// The same without the directories whose leaf is not listed as made: those
    /// were there before.
    #[must_use]
    pub fn made_only(mut self) -> Self {
        self.members.retain(Member::made_leaf);
        self
    }

    /// What to keep in order to find this cgroup again.
    pub fn record(&self) -> CgroupRecord {
        let entry = |member: &Member| CgroupMember {
            hierarchy: self.hierarchies.mount(member.index).key(),
            path: member.path.clone(),
            made: member.made.clone(),
        };
        CgroupRecord { driver: self.driver, members: self.members.iter().map(entry).collect() }
    }

    /// Its directory in each hierarchy.
    pub fn directories(&self) -> impl Iterator<Item = CgroupDirectory<'_>> {
        self.members.iter().map(|member| {
            let mount = self.hierarchies.mount(member.index);
            CgroupDirectory {
                hierarchy: mount.key(),
                mount_point: &mount.mount_point,
                root: self.hierarchies.root(member.index),
                path: &member.path,
                is_v2: mount.is_v2(),
            }
        })
    }

    /// How the host uses cgroups.
    pub fn mode(&self) -> Mode {
        self.hierarchies.mode()
    }

    /// Its path with a leading slash, for messages and events.
    pub fn path(&self) -> String {
        self.members.first().map_or_else(String::new, |m| format!("/{}", m.path))
    }

    pub(super) fn member(&self, controller: Controller) -> Option<At<'_>> {
        let index = self.hierarchies.layout().index_of(controller)?;
        self.at(self.members.iter().find(|m| m.index == index)?)
    }

    pub(super) fn v2(&self) -> Option<At<'_>> {
        let index = self.hierarchies.layout().v2_index()?;
        self.at(self.members.iter().find(|m| m.index == index)?)
    }

    /// The hierarchy whose list of processes we trust: v2 where it holds the
    /// controllers, else the v1 hierarchy that could stop them.
    pub(super) fn lead(&self) -> Result<At<'_>> {
        let found = match self.mode() {
            Mode::V2 => self.v2(),
            Mode::V1 | Mode::Hybrid => [Controller::Freezer, Controller::Pids, Controller::Memory]
                .into_iter()
                .find_map(|controller| self.member(controller))
                .or_else(|| self.at(self.members.first()?)),
        };
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "the cgroup has no directory"))
    }

    fn at<'a>(&'a self, member: &'a Member) -> Option<At<'a>> {
        Some(At { root: self.hierarchies.root(member.index), path: &member.path })
    }
}

/// A cgroup directory in one hierarchy, ready for use.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) root: BorrowedFd<'a>,
    pub(super) path: &'a str,
}

impl At<'_> {
    pub(super) fn file(&self, name: &str) -> String {
        let mut path = String::with_capacity(self.path.len() + 1 + name.len());
        path.push_str(self.path);
        path.push('/');
        path.push_str(name);
        path
    }

    pub(super) fn read(&self, name: &str) -> nix::Result<String> {
        file::read(self.root, &self.file(name))
    }

    pub(super) fn write(&self, name: &str, value: &str) -> nix::Result<()> {
        file::write(self.root, &self.file(name), value)
    }

    pub(super) fn open_read(&self, name: &str) -> nix::Result<OwnedFd> {
        file::open_read(self.root, &self.file(name))
    }

    pub(super) fn exists(&self) -> bool {
        file::exists(self.root, self.path).unwrap_or(true)
    }

    /// The error of a failed access to `name`: `NotFound` when the whole
    /// cgroup is gone, else by errno.
    pub(super) fn error(&self, doing: &str, name: &str, errno: Errno) -> Error {
        let text = format!("{doing} {name} of cgroup /{}", self.path);
        let error = Error::sys(text, errno);
        if self.gone(errno) { error.with_kind(ErrorKind::NotFound) } else { error }
    }

    /// Whether `errno` came from the cgroup having been removed.
    pub(super) fn gone(&self, errno: Errno) -> bool {
        matches!(errno, Errno::ENOENT | Errno::ENODEV) && !self.exists()
    }
}
