//! Whiteouts of images become those of overlayfs (kernel, overlayfs.rst,
//! "whiteouts and opaque directories"): a character device 0:0 hides a name, an
//! attribute hides all that lower layers have in a directory.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;

use super::super::name::Name;
use super::tree::{Missing, Tree};
use super::{failed, is_directory, meta};
use crate::Result;

/// The attribute of an opaque directory.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// The same where overlayfs is mounted with `userxattr`.
const USER_OPAQUE: &[u8] = b"user.overlay.opaque";

/// What a layer hides; written when all its entries are there.
#[derive(Debug, Default)]
pub(super) struct Whiteouts {
    hidden: BTreeSet<Name>,
    opaque: BTreeSet<Name>,
}

impl Whiteouts {
    /// Lower layers' `name` is hidden.
    pub(super) fn hide(&mut self, name: Name) {
        self.hidden.insert(name);
    }

    /// All that lower layers have in `directory` is hidden.
    pub(super) fn opaque(&mut self, directory: Name) {
        self.opaque.insert(directory);
    }

    /// Writes all; returns whether the root is opaque, which no attribute can
    /// say: overlayfs ignores it on the root of a layer. And the names for which there is a node.
    pub(super) fn write(
        mut self,
        tree: &mut Tree,
        user_namespace: bool,
    ) -> Result<(bool, Vec<Name>)> {
        let mut nodes = Vec::new();
        let attribute = if user_namespace { USER_OPAQUE } else { OPAQUE };
        let root_opaque = self.opaque.contains(&Name::default());
        for directory in &self.opaque {
            mark(tree, directory, attribute)?;
        }
        // In order, so that a directory comes before what is in it.
        for name in std::mem::take(&mut self.hidden) {
            let Some((parent, last)) = name.split() else { continue };
            // Only directories that are merged filter whiteouts: in an opaque one the name would
            // be listed and yet not be there.
            if self.covers(&parent) {
                continue;
            }
            // A parent that is no directory any more hides what was below it by itself.
            let Ok(dir) = tree.directory(&parent, Missing::Fail) else { continue };
            match meta::stat(dir, last) {
                Ok(_) if is_directory(dir, last) => {
                    mark(tree, &name, attribute)?;
                    self.opaque.insert(name);
                }
                // The layer's own file of that name hides the lower one.
                Ok(_) => {}
                Err(Errno::NOENT) => {
                    hide(dir, last)?;
                    nodes.push(name);
                }
                Err(e) => return Err(failed("fstatat", last, e)),
            }
        }
        Ok((root_opaque, nodes))
    }

    /// Whether nothing that lower layers have at `name` is seen, the directory itself included.
    pub(super) fn hides(&self, name: &Name) -> bool {
        let mut at = name.clone();
        loop {
            if self.hidden.contains(&at) {
                return true;
            }
            let Some((parent, _)) = at.split() else { return false };
            if self.opaque.contains(&parent) {
                return true;
            }
            at = parent;
        }
    }

    /// Whether `directory` or one above it is opaque.
    fn covers(&self, directory: &Name) -> bool {
        let mut at = directory.clone();
        loop {
            if self.opaque.contains(&at) {
                return true;
            }
            match at.split() {
                Some((parent, _)) => at = parent,
                None => return false,
            }
        }
    }
}

/// Hides what lower layers have at `name`, which is at the top of the layer `root`: by a whiteout
/// when the layer does not have it, by the attribute when it is a directory of both.
pub(in crate::layer) fn cover(root: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    match meta::stat(root, name) {
        Ok(_) if is_directory(root, name) => meta::set_xattr(root, name, OPAQUE, b"y")
            .map_err(|e| failed("setxattr opaque", name, e)),
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => hide(root, name),
        Err(e) => Err(failed("fstatat", name, e)),
    }
}

/// Makes the directory opaque, unless it is none any more.
fn mark(tree: &mut Tree, name: &Name, attribute: &[u8]) -> Result<()> {
    let Some((parent, last)) = name.split() else { return Ok(()) };
    let Ok(dir) = tree.directory(&parent, Missing::Fail) else { return Ok(()) };
    if !is_directory(dir, last) {
        return Ok(());
    }
    meta::set_xattr(dir, last, attribute, b"y").map_err(|e| failed("setxattr opaque", last, e))
}

fn hide(dir: BorrowedFd<'_>, last: &[u8]) -> Result<()> {
    fs::mknodat(dir, last, FileType::CharacterDevice, Mode::empty(), fs::makedev(0, 0))
        .map_err(|e| failed("mknodat", last, e))?;
    // A set-group-id directory hands its group on.
    fs::chownat(dir, last, Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| failed("fchownat", last, e))
}
