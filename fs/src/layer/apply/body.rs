//! Regular files: created, filled, then their metadata.

use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

use super::super::tar::{Archive, Entry, Segment};
use super::{Applier, Place, failed, meta};
use crate::{Error, Result};

/// Bytes between two looks at the free space.
const LOOK_EVERY: u64 = 64 << 20;
/// A layer leaves this much free, or a twentieth of a small file system.
const KEEP_FREE: u64 = 256 << 20;

/// When to look at the free space again.
#[derive(Debug, Default)]
pub(super) struct Space {
    written: u64,
    looked_at: Option<u64>,
}

impl Space {
    /// `count` more bytes are about to be written.
    fn take(&mut self, root: BorrowedFd<'_>, count: u64) -> Result<()> {
        self.written += count;
        if self.looked_at.is_some_and(|at| self.written - at < LOOK_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(self.written);
        let stat = fs::fstatvfs(root).map_err(|e| failed("fstatvfs", b".", e))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let all = stat.f_blocks.saturating_mul(stat.f_frsize);
        if free < KEEP_FREE.min(all / 20) {
            return Err(Error::sys(
                format!("{free} bytes are left on the file system"),
                nix::errno::Errno::ENOSPC,
            ));
        }
        Ok(())
    }
}

impl Applier<'_> {
    pub(super) fn regular<R: BufRead>(
        &mut self,
        place: &Place<'_>,
        entry: &Entry,
        archive: &mut Archive<'_, R>,
    ) -> Result<()> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let file = self.make("openat", place, |dir| fs::openat(dir, place.last, flags, mode))?;
        match &entry.sparse {
            None => self.fill(file.as_fd(), place.last, archive)?,
            Some(map) => self.fill_sparse(file.as_fd(), place.last, map, entry.size, archive)?,
        }
        meta::of_file(file.as_fd(), entry, self.new, &mut self.warnings)?;
        fs::futimens(&file, &meta::times(entry.mtime, entry.atime))
            .map_err(|e| failed("futimens", place.last, e))
    }

    fn fill<R: BufRead>(
        &mut self,
        file: BorrowedFd<'_>,
        name: &[u8],
        archive: &mut Archive<'_, R>,
    ) -> Result<()> {
        let (space, root) = (&mut self.space, self.tree.root());
        archive.read_body::<Error>(|mut piece| {
            space.take(root, piece.len() as u64)?;
            while !piece.is_empty() {
                match rustix::io::write(file, piece) {
                    Err(Errno::INTR) => {}
                    done => {
                        let count = done.map_err(|e| failed("write", name, e))?;
                        piece = piece.get(count..).unwrap_or_default();
                    }
                }
            }
            Ok(())
        })
    }

    /// Bytes go to their places; what lies between is a hole, and so is the end.
    fn fill_sparse<R: BufRead>(
        &mut self,
        file: BorrowedFd<'_>,
        name: &[u8],
        map: &[Segment],
        size: u64,
        archive: &mut Archive<'_, R>,
    ) -> Result<()> {
        let (space, root) = (&mut self.space, self.tree.root());
        let mut segments = map.iter().copied().filter(|segment| segment.length > 0);
        let mut now = segments.next();
        archive.read_body::<Error>(|mut piece| {
            space.take(root, piece.len() as u64)?;
            while let (Some(segment), false) = (&mut now, piece.is_empty()) {
                let most = usize::try_from(segment.length).unwrap_or(usize::MAX);
                let part = piece.get(..most.min(piece.len())).unwrap_or_default();
                match rustix::io::pwrite(file, part, segment.offset) {
                    Err(Errno::INTR) => continue,
                    done => {
                        let count = done.map_err(|e| failed("pwrite", name, e))?;
                        piece = piece.get(count..).unwrap_or_default();
                        segment.offset += count as u64;
                        segment.length -= count as u64;
                    }
                }
                if segment.length == 0 {
                    now = segments.next();
                }
            }
            Ok(())
        })?;
        fs::ftruncate(file, size).map_err(|e| failed("ftruncate", name, e))
    }
}
