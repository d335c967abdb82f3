//! Symbolic links, whose text is never looked at, and hard links, whose target
//! is looked for in this layer.

use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use super::super::name::Name;
use super::super::tar::{Entry, shown};
use super::{Applier, Missing, Place, failed, meta};
use crate::{Error, Result};

impl Applier<'_> {
    pub(super) fn symlink(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let link = entry.link.as_slice();
        self.make("symlinkat", place, |dir| fs::symlinkat(link, dir, place.last))?;
        let dir = self.tree.directory(place.parent, Missing::Fail)?;
        meta::of_name(dir, place.last, entry, Some(self.new), &mut self.warnings)?;
        let times = meta::times(entry.mtime, entry.atime);
        fs::utimensat(dir, place.last, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed("utimensat", place.last, e))
    }

    /// Both names are one file, and the entry's metadata is the file's, as
    /// containerd has it.
    pub(super) fn hard_link(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let wrong = |why: &str| {
            let (from, to) = (shown(&entry.path), shown(&entry.link));
            Error::invalid(format!("hard link {from} to {to}: {why}"))
        };
        let target = Name::parse(&entry.link, self.limits)
            .map_err(|problem| wrong(&format!("target: {problem}")))?;
        let absent = "the target is not in this layer";
        let (parent, last) =
            target.split().ok_or_else(|| wrong("a directory has one name only"))?;
        // A descriptor of its own: making the new name may move the stack elsewhere.
        let from = self.tree.directory(&parent, Missing::Fail).map_err(|_| wrong(absent))?;
        let from = from.try_clone_to_owned().map_err(|e| wrong(&e.to_string()))?;
        let old = meta::stat(&from, last).map_err(|_| wrong(absent))?;
        if FileType::from_raw_mode(old.st_mode) == FileType::Directory {
            return Err(wrong("a directory has one name only"));
        }
        let dir = self.tree.directory(place.parent, Missing::Make)?;
        match fs::linkat(&from, last, dir, place.last, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                let there =
                    meta::stat(dir, place.last).map_err(|e| failed("fstatat", place.last, e))?;
                if meta::same(&there, &old) {
                    let above = |fd| meta::stat(fd, b".").map_err(|e| failed("fstatat", b".", e));
                    if last == place.last && meta::same(&above(from.as_fd())?, &above(dir)?) {
                        return Err(wrong("a file cannot be a link to itself"));
                    }
                } else {
                    self.make_again("linkat", place, |dir| {
                        fs::linkat(&from, last, dir, place.last, AtFlags::empty())
                    })?;
                }
            }
            other => other.map_err(|e| failed("linkat", place.last, e))?,
        }
        self.shared_metadata(place, entry, FileType::from_raw_mode(old.st_mode))
    }

    fn shared_metadata(&mut self, place: &Place<'_>, entry: &Entry, kind: FileType) -> Result<()> {
        let dir = self.tree.directory(place.parent, Missing::Fail)?;
        // The mode of a symbolic link cannot be set.
        let mut of_link = entry.clone();
        if kind == FileType::Symlink {
            of_link.kind = super::Kind::Symlink;
        }
        meta::of_name(dir, place.last, &of_link, None, &mut self.warnings)?;
        let times = meta::times(entry.mtime, entry.atime);
        fs::utimensat(dir, place.last, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed("utimensat", place.last, e))
    }
}
