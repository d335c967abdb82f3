//! Root filesystems whose files have other owners inside a user namespace.
//!
//! containerd says so by the options `uidmap=` and `gidmap=`. They are not for the kernel: the
//! lower layers of an overlay have to be id-mapped mounts (Linux 5.12, overlay since 5.19). The
//! overlay takes each layer by its path and keeps a mount of its own of it, so the mapped mounts
//! stand in a temporary directory until the overlay is made. That the layers must be attached to
//! be taken holds until Linux 6.15; so they always are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkdirat};

use super::MountSpec;
use crate::error::errno_of;
use crate::flags::{Propagation, PropagationKind, SbFlags};
use crate::mount::{self, NewFs, Tree};
use crate::overlay::Overlay;
use crate::{Error, Result};

/// One range of `uidmap=` or `gidmap=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside of the user namespace.
    pub inside: u32,
    /// The id of the host that it stands for.
    pub outside: u32,
    /// So many ids.
    pub count: u32,
}

/// Who owns files, by the options `uidmap=` and `gidmap=` of a mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    /// Mappings of users.
    pub users: Vec<IdRange>,
    /// Mappings of groups.
    pub groups: Vec<IdRange>,
}

impl IdMap {
    /// The user of the host that `inside` stands for.
    #[must_use]
    pub fn user(&self, inside: u32) -> Option<u32> {
        outside(&self.users, inside)
    }

    /// The group of the host that `inside` stands for.
    #[must_use]
    pub fn group(&self, inside: u32) -> Option<u32> {
        outside(&self.groups, inside)
    }

    /// Reads ranges `inside:outside:count`, parted by commas, one list for users and one for groups.
    ///
    /// # Errors
    /// `Invalid` naming the list.
    pub fn parse(users: &str, groups: &str) -> Result<Self> {
        Ok(Self { users: ranges(users, users)?, groups: ranges(groups, groups)? })
    }

    /// Takes the two options of one mount; `None` when it has neither.
    pub(super) fn of(spec: &MountSpec) -> Result<Option<Self>> {
        let mut map = Self::default();
        for option in &spec.options {
            match option.split_once('=') {
                Some(("uidmap", value)) => map.users = ranges(option, value)?,
                Some(("gidmap", value)) => map.groups = ranges(option, value)?,
                _ => {}
            }
        }
        match (map.users.is_empty(), map.groups.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Ok(Some(map)),
            (no_users, _) => {
                let missing = if no_users { "uidmap" } else { "gidmap" };
                Err(Error::invalid(format!("mount option {missing} is missing beside the other")))
            }
        }
    }
}

fn outside(ranges: &[IdRange], inside: u32) -> Option<u32> {
    let range = ranges.iter().find(|r| inside >= r.inside && inside - r.inside < r.count)?;
    range.outside.checked_add(inside - range.inside)
}

/// `0:200000:65536`, more of them after commas.
fn ranges(option: &str, value: &str) -> Result<Vec<IdRange>> {
    let wrong = || Error::invalid(format!("mount option {option:?}: not inside:outside:count"));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse().map_err(|_| wrong()) } else { Err(wrong()) }
    };
    let range = |text: &str| {
        let mut words = text.split(':');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(inside), Some(outside), Some(count), None) => Ok(IdRange {
                inside: number(inside)?,
                outside: number(outside)?,
                count: number(count)?,
            }),
            _ => Err(wrong()),
        }
    };
    value.split(',').map(range).collect()
}

/// Makes the overlay, detached, over id-mapped mounts of its lower layers. They are attached
/// below `on` meanwhile, and gone when this returns.
pub(super) fn overlay(
    overlay: &Overlay,
    source: &str,
    (sb, attr): (SbFlags, u64),
    on: &Path,
    userns: BorrowedFd<'_>,
) -> Result<Tree> {
    let stand = Stand::make(on)?;
    let moved = overlay.moved(|number, layer| stand.hold(number, Path::new(layer), userns))?;
    let tree = moved.tree(Some(source), sb, attr)?;
    stand.end()?;
    Ok(tree)
}

/// A small filesystem on `on` where mounts stand for a moment; taken away with them when dropped.
struct Stand {
    on: PathBuf,
    root: Option<OwnedFd>,
}

impl Stand {
    fn make(on: &Path) -> Result<Self> {
        let fs = NewFs { fstype: "tmpfs", source: Some("layers"), ..NewFs::default() };
        let mut tree = Tree::new_fs(&fs)?;
        tree.set_propagation(Propagation { kind: PropagationKind::Private, recursive: false })?;
        let root = tree.attach_at(on)?;
        Ok(Self { on: on.to_owned(), root: Some(root) })
    }

    /// Attaches an id-mapped mount of `layer` and says where.
    fn hold(&self, number: usize, layer: &Path, userns: BorrowedFd<'_>) -> Result<String> {
        let place = self.on.join(number.to_string());
        mkdirat(CWD, &place, Mode::RWXU)
            .map_err(|e| Error::sys(format!("mkdir({})", place.display()), errno_of(e)))?;
        let mut tree = Tree::clone_at(CWD, layer, false)?;
        tree.id_map(userns, false)
            .map_err(|e| e.context(format!("id map of layer {}", layer.display())))?;
        tree.attach_at(&place)?;
        Ok(place.display().to_string())
    }

    fn end(mut self) -> Result<()> {
        self.take_away()
    }

    fn take_away(&mut self) -> Result<()> {
        self.root.take().map_or(Ok(()), |root| mount::unmount_fd(root.as_fd()))
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        // Whoever wants to know calls `end`.
        let _ = self.take_away();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn of(options: &[&str]) -> Result<Option<IdMap>> {
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        IdMap::of(&MountSpec { kind: "overlay".into(), options, ..MountSpec::default() })
    }

    #[test]
    fn containerds_mappings_are_read() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let map = of(&["lowerdir=/a", "uidmap=0:200000:65536", "gidmap=0:5:1,1:100:2"]);
        let want = IdMap {
            users: vec![range(0, 200_000, 65_536)],
            groups: vec![range(0, 5, 1), range(1, 100, 2)],
        };
        assert_eq!(map.unwrap(), Some(want));
        assert_eq!(of(&["lowerdir=/a"]).unwrap(), None);
    }

    #[test]
    fn wrong_mappings_are_named() {
        for (option, beside) in [
            ("uidmap=0:1", "gidmap=0:1:1"),
            ("uidmap=", "gidmap=0:1:1"),
            ("uidmap=0:1:2:3", "gidmap=0:1:1"),
            ("gidmap=-1:1:2", "uidmap=0:1:1"),
            ("gidmap=+1:1:2", "uidmap=0:1:1"),
            ("uidmap=0:4294967296:1", "gidmap=0:1:1"),
        ] {
            let e = of(&[beside, option]).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Invalid);
            assert!(e.to_string().contains(option), "{e}");
        }
        let e = of(&["uidmap=0:1:1"]).unwrap_err().to_string();
        assert_eq!(e, "mount option gidmap is missing beside the other");
    }
}
