//! Entries become files below an open directory.
//!
//! The directory is empty, private and of this layer alone, so nothing is
//! looked at before it is made: what is in the way says so (`EEXIST`) and was
//! put there by an entry before. Every name is used with the descriptor of its
//! directory and is never followed; a link among the parents is resolved by the
//! kernel with the layer's root as the root.
//!
//! Whiteouts, and the times of directories, wait for the end: only then is it
//! known what else the layer has.

mod body;
mod links;
mod meta;
mod nodes;
mod tree;
mod whiteouts;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Timestamps, Uid};
use rustix::io::Errno;

use super::name::{Meaning, Name};
use super::tar::{Archive, Entry, Kind, shown};
use super::warnings::Warnings;
use super::{Limits, Options};
use crate::error::errno_of;
use crate::root::Root;
use crate::rootfs::IdMap;
use crate::{Error, Result};
use meta::New;
use tree::{Missing, Tree, call};
use whiteouts::Whiteouts;

pub(super) use meta::stat;
pub(super) use tree::{clear, remove_dir};
pub(super) use whiteouts::cover;

/// What applying came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) entries: u64,
    pub(super) root_opaque: bool,
    pub(super) parents: Vec<Name>,
    pub(super) whiteouts: Vec<Name>,
    pub(super) warnings: Warnings,
}

/// Applies all entries of `archive` below `root`.
pub(super) fn apply<R: BufRead>(
    archive: &mut Archive<'_, R>,
    root: Root,
    options: &Options,
) -> Result<Outcome> {
    let mut applier = Applier::new(root, options)?;
    let mut entries = 0;
    while let Some(mut entry) = archive.next_entry()? {
        entries += 1;
        if let Some(owners) = &options.owners {
            shift(&mut entry, owners)?;
        }
        applier.entry(&entry, archive).map_err(|error| in_entry(&entry, error))?;
    }
    let mut parents = applier.made();
    if let Some(owners) = &options.owners {
        applier.own(&parents, owners)?;
    }
    parents.retain(|name| !applier.first && !applier.whiteouts.hides(name));
    let (root_opaque, whiteouts) = applier.finish()?;
    Ok(Outcome { entries, root_opaque, parents, whiteouts, warnings: applier.warnings })
}

/// The owners of an entry become those that the container's are on disk.
fn shift(entry: &mut Entry, owners: &IdMap) -> Result<()> {
    let outside = |what: &str, id: u32| {
        let text = format!("{what} {id} is not in the mapping of ids; it needs a wider range");
        in_entry(entry, Error::invalid(text))
    };
    let uid = owners.user(entry.uid).ok_or_else(|| outside("owner", entry.uid))?;
    let gid = owners.group(entry.gid).ok_or_else(|| outside("group", entry.gid))?;
    (entry.uid, entry.gid) = (uid, gid);
    Ok(())
}

/// Names the entry, unless the error does it already.
fn in_entry(entry: &Entry, error: Error) -> Error {
    error.context(format!("entry {}", shown(&entry.path)))
}

struct Applier<'o> {
    tree: Tree,
    new: New,
    limits: &'o Limits,
    first: bool,
    user_namespace: bool,
    /// Times of directories, set at the end.
    times: BTreeMap<Name, Timestamps>,
    whiteouts: Whiteouts,
    space: body::Space,
    warnings: Warnings,
}

impl<'o> Applier<'o> {
    fn new(root: Root, options: &'o Options) -> Result<Self> {
        let tree = Tree::new(root);
        Ok(Self {
            new: New::probe(tree.root())?,
            tree,
            limits: &options.limits,
            first: options.first,
            user_namespace: options.user_namespace,
            times: BTreeMap::new(),
            whiteouts: Whiteouts::default(),
            space: body::Space::default(),
            warnings: Warnings::default(),
        })
    }

    fn entry<R: BufRead>(&mut self, entry: &Entry, archive: &mut Archive<'_, R>) -> Result<()> {
        let meaning = Meaning::of(&entry.path, self.limits);
        match meaning.map_err(|problem| Error::invalid(problem.to_string()))? {
            Meaning::Ignored => {
                self.warnings.add(format!("{}: left out: aufs' own", shown(&entry.path)));
                Ok(())
            }
            Meaning::Opaque(directory) => {
                self.tree.directory(&directory, Missing::Make)?;
                self.whiteouts.opaque(directory);
                Ok(())
            }
            Meaning::Whiteout(name) => {
                if let Some((parent, _)) = name.split() {
                    self.tree.directory(&parent, Missing::Make)?;
                }
                self.whiteouts.hide(name);
                Ok(())
            }
            Meaning::File(name) => match name.split() {
                None => self.root(entry),
                Some((parent, last)) => self.file(&name, &parent, last, entry, archive),
            },
        }
    }

    fn file<R: BufRead>(
        &mut self,
        name: &Name,
        parent: &Name,
        last: &[u8],
        entry: &Entry,
        archive: &mut Archive<'_, R>,
    ) -> Result<()> {
        let place = Place { name, parent, last };
        match entry.kind {
            Kind::File => self.regular(&place, entry, archive),
            Kind::Directory => self.directory(&place, entry),
            Kind::HardLink => self.hard_link(&place, entry),
            Kind::Symlink => self.symlink(&place, entry),
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.node(&place, entry),
        }
    }

    /// The root is there; its metadata is the entry's.
    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::invalid("the layer's root must be a directory"));
        }
        meta::of_name(self.tree.root(), b".", entry, None, &mut self.warnings)?;
        self.new.saw_directory(entry.mode);
        self.times.insert(Name::default(), meta::times(entry.mtime, entry.atime));
        Ok(())
    }

    fn directory(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let make = |dir: BorrowedFd<'_>| fs::mkdirat(dir, place.last, mode);
        let dir = self.tree.directory(place.parent, Missing::Make)?;
        let new = match make(dir) {
            // Two directories of one name are one, with the later metadata.
            Err(Errno::EXIST) if is_directory(dir, place.last) => None,
            Err(Errno::EXIST) => {
                self.make_again("mkdirat", place, make)?;
                Some(self.new)
            }
            other => {
                other.map_err(|e| call("mkdirat", place.last, e))?;
                Some(self.new)
            }
        };
        let dir = self.tree.directory(place.parent, Missing::Fail)?;
        meta::of_name(dir, place.last, entry, new, &mut self.warnings)?;
        self.new.saw_directory(entry.mode);
        self.times.insert(place.name.clone(), meta::times(entry.mtime, entry.atime));
        Ok(())
    }

    /// Makes something; what an earlier entry put there is removed first.
    fn make<T>(
        &mut self,
        what: &str,
        place: &Place<'_>,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let dir = self.tree.directory(place.parent, Missing::Make)?;
        match make(dir) {
            Err(Errno::EXIST) => self.make_again(what, place, make),
            other => other.map_err(|e| call(what, place.last, e)),
        }
    }

    fn make_again<T>(
        &mut self,
        what: &str,
        place: &Place<'_>,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        self.tree.remove(place.parent, place.last)?;
        self.forget_times(place.name);
        let dir = self.tree.directory(place.parent, Missing::Make)?;
        make(dir).map_err(|e| call(what, place.last, e))
    }

    /// The directory is gone with all below it.
    fn forget_times(&mut self, name: &Name) {
        let below = name.join(b"");
        self.times.remove(name);
        let gone: Vec<Name> = self
            .times
            .range(below.clone()..)
            .map(|(name, _)| name)
            .take_while(|name| name.as_bytes().starts_with(below.as_bytes()))
            .cloned()
            .collect();
        for name in gone {
            self.times.remove(&name);
        }
    }

    /// Directories that were made for what is in them, and that no entry speaks of.
    fn made(&mut self) -> Vec<Name> {
        let made = self.tree.take_made();
        made.into_iter().filter(|name| !self.times.contains_key(name)).collect()
    }

    /// They, and the root that no entry speaks of, are the container's root's.
    fn own(&mut self, parents: &[Name], owners: &IdMap) -> Result<()> {
        let (Some(uid), Some(gid)) = (owners.user(0), owners.group(0)) else {
            return Err(Error::invalid("the mapping of ids has no root"));
        };
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        if !self.times.contains_key(&Name::default()) {
            fs::chownat(self.tree.root(), c".", uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed("fchownat", b".", e))?;
        }
        for (above, last) in parents.iter().filter_map(Name::split) {
            let Ok(dir) = self.tree.directory(&above, Missing::Fail) else { continue };
            match fs::chownat(dir, last, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                other => other.map_err(|e| failed("fchownat", last, e))?,
            }
        }
        Ok(())
    }

    /// What could not be done before all entries were there.
    fn finish(&mut self) -> Result<(bool, Vec<Name>)> {
        let whiteouts = std::mem::take(&mut self.whiteouts);
        let written = match self.first {
            // Nothing lies below the first layer.
            true => (false, Vec::new()),
            false => whiteouts.write(&mut self.tree, self.user_namespace)?,
        };
        for (name, times) in std::mem::take(&mut self.times) {
            let Some((parent, last)) = name.split() else {
                let root = self.tree.root();
                fs::utimensat(root, c".", &times, AtFlags::empty())
                    .map_err(|e| failed("utimensat", b".", e))?;
                continue;
            };
            // A link on the way to it may be another by now; then nobody finds it by this name.
            let Ok(dir) = self.tree.directory(&parent, Missing::Fail) else { continue };
            match fs::utimensat(dir, last, &times, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                other => other.map_err(|e| call("utimensat", last, e))?,
            }
        }
        Ok(written)
    }
}

/// Where an entry goes.
struct Place<'e> {
    name: &'e Name,
    parent: &'e Name,
    last: &'e [u8],
}

fn is_directory(dir: BorrowedFd<'_>, last: &[u8]) -> bool {
    meta::stat(dir, last)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn failed(what: &str, name: &[u8], errno: Errno) -> Error {
    Error::sys(format!("{what}({})", shown(name)), errno_of(errno))
}
