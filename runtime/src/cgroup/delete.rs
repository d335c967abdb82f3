//! Removing a cgroup: directories only, children first, as often as needed.

use std::os::fd::AsFd;
use std::time::Instant;

use nix::errno::Errno;

use super::create::remove_made;
use super::file;
use super::freezer::{empty_event, wait_event};
use super::group::{At, Cgroup, Member};
use super::procs::{self, Backoff, timed_out};
use crate::error::{Error, Result};

impl Cgroup {
    /// Removes the cgroup with its child cgroups in every hierarchy, and the
    /// parents that were made for it as far as they are empty. May be repeated:
    /// what is gone is fine.
    ///
    /// # Errors
    /// `Timeout` when a process is still in it at the deadline; nothing is
    /// killed here.
    pub fn delete(&self, deadline: Instant) -> Result<()> {
        // The last member first: on a hybrid host that is v2, which can tell us
        // when the group has emptied.
        for member in self.members.iter().rev() {
            self.delete_member(member, deadline)?;
        }
        Ok(())
    }

    fn delete_member(&self, member: &Member, deadline: Instant) -> Result<()> {
        let at = At { root: self.hierarchies.root(member.index), path: &member.path };
        let mut backoff = Backoff::default();
        loop {
            match file::remove_dir(at.root, at.path) {
                Ok(()) | Err(Errno::ENOENT) => break,
                // Children or processes.
                Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
                Err(errno) => {
                    return Err(Error::sys(format!("removing cgroup /{}", at.path), errno));
                }
            }
            match remove_children(at) {
                Ok(()) if matches!(file::remove_dir(at.root, at.path), Ok(())) => break,
                Ok(()) | Err(Errno::EBUSY | Errno::ENOENT | Errno::ENODEV) => {}
                Err(errno) => {
                    let text = format!("removing child cgroups of /{}", at.path);
                    return Err(Error::sys(text, errno));
                }
            }
            if !self.wait_empty(deadline)? || !backoff.pause(deadline) {
                let left = self.pids_everywhere()?;
                let text = match left.first() {
                    Some(pid) => format!("{} processes are left, such as {pid}", left.len()),
                    None => "it stayed busy".to_owned(),
                };
                return Err(timed_out(self, &text));
            }
        }
        let parents = match member.made_leaf() {
            true => &member.made[..member.made.len() - 1],
            false => &member.made,
        };
        remove_made(at.root, at.path, parents)
            .map_err(|errno| Error::sys(format!("removing parents of cgroup /{}", at.path), errno))
    }

    /// Waits until no process is left in any hierarchy; false at the deadline.
    fn wait_empty(&self, deadline: Instant) -> Result<bool> {
        if !self.wait_unpopulated(deadline)? {
            return Ok(false);
        }
        let mut backoff = Backoff::default();
        loop {
            let pids = self.pids_everywhere()?;
            if pids.is_empty() {
                return Ok(true);
            }
            let pidfds = procs::watch(&pids)?;
            if !procs::wait_dead(pidfds, deadline)? {
                return Ok(false);
            }
            if self.pids_everywhere()? == pids && !backoff.pause(deadline) {
                return Ok(false);
            }
        }
    }

    /// Waits for v2's `populated 0`; true at once without a v2 directory.
    pub(super) fn wait_unpopulated(&self, deadline: Instant) -> Result<bool> {
        let Some(at) = self.v2() else { return Ok(true) };
        let events = match at.open_read("cgroup.events") {
            Ok(events) => events,
            Err(errno) if at.gone(errno) => return Ok(true),
            Err(errno) => return Err(at.error("opening", "cgroup.events", errno)),
        };
        match wait_event(&events, empty_event, deadline) {
            Ok(done) => Ok(done),
            Err(super::freezer::WaitError::Read(errno)) if at.gone(errno) => Ok(true),
            Err(failure) => Err(failure.describe(at, "cgroup.events")),
        }
    }
}

/// Removes the cgroups below `at`, the deepest first.
fn remove_children(at: At<'_>) -> nix::Result<()> {
    let leaf = file::open_dir_list(at.root, at.path)?;
    procs::visit(leaf, &mut |_| Ok(()), &mut |parent, name| match file::remove_dir_at(
        parent.as_fd(),
        name,
    ) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    })
}
