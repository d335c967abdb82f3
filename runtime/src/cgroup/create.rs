//! Making a cgroup in every hierarchy, and unmaking what was made if a step fails.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::group::{Cgroup, CgroupRecord, Member};
use super::hierarchy::Hierarchies;
use super::layout::Mode;
use super::path::Base;
use super::plan::CgroupPlan;
use super::{apply, file, v1, v2};
use crate::error::{Error, ErrorKind, Result};

/// How often a path is walked again because somebody else removed a parent
/// between two steps (a sibling's delete removes parents that are empty).
const RACES: usize = 16;

/// What a child needs in order to be in the cgroup from its first instant.
#[derive(Debug)]
pub enum Join {
    /// One `tasks` file per v1 hierarchy: the child, while it has one thread
    /// only, writes `0` to each.
    V1(Vec<OwnedFd>),
    /// The v2 directory, for `CLONE_INTO_CGROUP`.
    V2(OwnedFd),
    /// Both: clone into `unified`, then the child writes to `tasks`.
    Hybrid {
        /// As in [`Join::V1`].
        tasks: Vec<OwnedFd>,
        /// As in [`Join::V2`].
        unified: OwnedFd,
    },
}

impl Cgroup {
    /// Makes the cgroup and writes its limits, before any task is in it.
    ///
    /// An existing cgroup is taken over if it is empty and not frozen.
    ///
    /// # Errors
    /// `WrongState` for an existing one with processes or frozen; else what the
    /// kernel refused, with the field of config.json. Exactly the directories
    /// made by this call are removed again.
    pub fn create(hierarchies: &Hierarchies, plan: &CgroupPlan) -> Result<Self> {
        let paths = place(hierarchies, plan)?;
        let mut group = Self {
            hierarchies: hierarchies.clone(),
            driver: plan.driver(),
            members: Vec::with_capacity(paths.len()),
        };
        match group.fill(paths, plan) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.unmake();
                Err(error)
            }
        }
    }

    /// What [`Self::create`] is about to make, for a record that has to stand
    /// before the first directory does: where it goes, and which directories are
    /// missing now.
    ///
    /// # Errors
    /// This process's own cgroup cannot be read.
    pub fn intended(hierarchies: &Hierarchies, plan: &CgroupPlan) -> Result<CgroupRecord> {
        let paths = place(hierarchies, plan)?;
        let mut members = Vec::with_capacity(paths.len());
        for (index, path) in paths.into_iter().enumerate() {
            let made = missing(hierarchies.root(index), &path);
            members.push(Member { index, path, made });
        }
        let group = Self { hierarchies: hierarchies.clone(), driver: plan.driver(), members };
        Ok(group.record())
    }

    fn fill(&mut self, paths: Vec<String>, plan: &CgroupPlan) -> Result<()> {
        for (index, path) in paths.into_iter().enumerate() {
            let made = make(self.hierarchies.root(index), &path)
                .map_err(|errno| make_error(&self.hierarchies, index, &path, errno))?;
            self.members.push(Member { index, path, made });
        }
        if self.members.iter().any(|member| !member.made_leaf()) {
            self.require_idle()?;
        }
        v1::prepare(self, plan.writes())?;
        v2::prepare(self, plan)?;
        apply::apply(self, plan.writes())?;
        v2::hand_over(self, plan)
    }

    /// Takes back what [`Self::fill`] made; nothing is in it yet.
    fn unmake(&self) {
        for member in self.members.iter().rev() {
            let root = self.hierarchies.root(member.index);
            let _ = remove_made(root, &member.path, &member.made);
        }
    }

    fn require_idle(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::new(ErrorKind::WrongState, text));
        let pids = self.pids_everywhere()?;
        if !pids.is_empty() {
            return refuse(format!(
                "cgroup {} is not empty: {} processes, the first is {}",
                self.path(),
                pids.len(),
                pids[0]
            ));
        }
        match self.frozen_state() {
            Ok(super::FrozenState::Thawed) => Ok(()),
            Ok(_) => refuse(format!("cgroup {} is frozen", self.path())),
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Opens what a child joins by; for the first process and for every exec.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone.
    pub fn join_files(&self) -> Result<Join> {
        let mut tasks = Vec::with_capacity(self.members.len());
        let mut unified = None;
        for member in &self.members {
            let root = self.hierarchies.root(member.index);
            let failed = |errno| {
                let error = Error::sys(format!("opening cgroup /{}", member.path), errno);
                let gone = matches!(errno, Errno::ENOENT | Errno::ENODEV);
                if gone { error.with_kind(ErrorKind::NotFound) } else { error }
            };
            if self.hierarchies.mount(member.index).is_v2() {
                unified = Some(file::open_dir_path(root, &member.path).map_err(failed)?);
            } else {
                let path = format!("{}/tasks", member.path);
                tasks.push(file::open_write(root, &path).map_err(failed)?);
            }
        }
        match unified {
            Some(unified) if self.mode() == Mode::V2 => Ok(Join::V2(unified)),
            Some(unified) => Ok(Join::Hybrid { tasks, unified }),
            None => Ok(Join::V1(tasks)),
        }
    }
}

/// The path in each hierarchy.
fn place(hierarchies: &Hierarchies, plan: &CgroupPlan) -> Result<Vec<String>> {
    let path = &plan.location().path;
    match plan.location().base {
        Base::MountRoot => Ok(vec![path.clone(); hierarchies.len()]),
        Base::Own => {
            let own = hierarchies.own_paths()?;
            let join = |(index, own): (usize, String)| {
                let own = own.trim_matches('/');
                let base = match hierarchies.mount(index).is_v2() {
                    true => own.rsplit_once('/').map_or("", |(parent, _)| parent),
                    false => own,
                };
                if base.is_empty() { path.clone() } else { format!("{base}/{path}") }
            };
            Ok(own.into_iter().enumerate().map(join).collect())
        }
    }
}

/// Makes `path` with its missing parents; returns the lengths of the prefixes
/// of `path` that were made, shortest first. One system call when only the leaf
/// is missing.
fn make(root: BorrowedFd<'_>, path: &str) -> nix::Result<Vec<usize>> {
    let mut made = Vec::new();
    for _ in 0..RACES {
        let result = match file::make_dir(root, path) {
            Err(Errno::ENOENT) => make_parents(root, path, &mut made),
            Ok(()) => {
                made.push(path.len());
                return Ok(made);
            }
            Err(Errno::EEXIST) => return Ok(made),
            Err(errno) => Err(errno),
        };
        // ENOENT: somebody removed a parent; once more from the top.
        if let Err(errno) = result
            && errno != Errno::ENOENT
        {
            let _ = remove_made(root, path, &made);
            return Err(errno);
        }
    }
    let _ = remove_made(root, path, &made);
    Err(Errno::ENOENT)
}

/// The lengths of the prefixes of `path` that do not exist, shortest first.
/// Looked for from the end: mostly the leaf alone is missing.
fn missing(root: BorrowedFd<'_>, path: &str) -> Vec<usize> {
    let mut made = Vec::new();
    let parents = path.rmatch_indices('/').map(|(at, _)| at);
    for at in std::iter::once(path.len()).chain(parents) {
        // What is no directory is told by the attempt to make it.
        if !matches!(file::exists(root, &path[..at]), Ok(false)) {
            break;
        }
        made.push(at);
    }
    made.reverse();
    made
}

fn make_parents(root: BorrowedFd<'_>, path: &str, made: &mut Vec<usize>) -> nix::Result<()> {
    for (at, _) in path.match_indices('/') {
        match file::make_dir(root, &path[..at]) {
            Ok(()) if !made.contains(&at) => made.push(at),
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Removes the prefixes of `path` listed in `made`, the longest first, as far
/// as they are empty: somebody else's cgroup may be in a parent by now, and
/// then the parent is theirs to keep.
pub(super) fn remove_made(root: BorrowedFd<'_>, path: &str, made: &[usize]) -> nix::Result<()> {
    for prefix in made.iter().rev().filter_map(|&length| path.get(..length)) {
        match file::remove_dir(root, prefix) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn make_error(hierarchies: &Hierarchies, index: usize, path: &str, errno: Errno) -> Error {
    let place = hierarchies.mount(index).mount_point.join(path);
    let error = Error::sys(format!("making cgroup {}", place.display()), errno);
    match errno {
        Errno::EINVAL | Errno::ENAMETOOLONG | Errno::ENOTDIR => {
            error.with_kind(ErrorKind::InvalidInput)
        }
        _ => error,
    }
}
