//! Device nodes and named pipes, which are made and never opened.

use rustix::fs::{self, AtFlags, FileType, Mode};

use super::super::tar::{Entry, Kind, shown};
use super::{Applier, Missing, Place, failed, meta};
use crate::{Error, Result};

impl Applier<'_> {
    pub(super) fn node(&mut self, place: &Place<'_>, entry: &Entry) -> Result<()> {
        let (major, minor) = entry.device;
        let kind = match entry.kind {
            Kind::CharDevice if (major, minor) == (0, 0) => {
                let text = "character device 0:0 is what whiteouts are on disk; no file may be one";
                return Err(Error::invalid(text));
            }
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let device = fs::makedev(major, minor);
        let made =
            self.make("mknodat", place, |dir| fs::mknodat(dir, place.last, kind, mode, device));
        match made {
            // No user namespace but the first may make one (Linux has no exception but 0:0).
            Err(error)
                if self.user_namespace
                    && kind != FileType::Fifo
                    && error.errno() == Some(nix::errno::Errno::EPERM) =>
            {
                self.warnings.add(format!("{}: device left out", shown(&entry.path)));
                return Ok(());
            }
            other => other?,
        }
        let dir = self.tree.directory(place.parent, Missing::Fail)?;
        meta::of_name(dir, place.last, entry, Some(self.new), &mut self.warnings)?;
        let times = meta::times(entry.mtime, entry.atime);
        fs::utimensat(dir, place.last, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed("utimensat", place.last, e))
    }
}
