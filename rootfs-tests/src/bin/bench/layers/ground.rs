//! A file system that no disk slows down: ext4 with a journal, on a loop device in memory.
//! Without a journal ext4 avoids inodes that were freed a moment ago, and a benchmark that makes
//! and removes the same files over and over measures that.

use std::fs;
use std::path::{Path, PathBuf};

use rootfs_tests::Result;
use rootfs_tests::command::Run;
use rootfs_tests::error::Context;

/// Bytes of the file system; memory is only taken for what is written.
const SIZE: u64 = 4 << 30;

/// It is there until this is dropped.
pub(crate) struct Ground {
    memory: PathBuf,
    pub(crate) dir: PathBuf,
}

impl Ground {
    /// Mounts it at `dir`, which is made.
    pub(crate) fn new(dir: PathBuf, memory: PathBuf) -> Result<Self> {
        for dir in [&dir, &memory] {
            fs::create_dir_all(dir).during(|| format!("mkdir {}", dir.display()))?;
        }
        Run::new("mount").args(["-t", "tmpfs", "boathook-bench"]).arg(&memory).ok()?;
        let ground = Self { memory, dir };
        ground.make()?;
        Ok(ground)
    }

    fn make(&self) -> Result<()> {
        let image = self.memory.join("image");
        let file = fs::File::create(&image).during(|| "create an image")?;
        file.set_len(SIZE).during(|| "truncate an image")?;
        // Else the kernel would write tables and journal while something is measured.
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        Run::new("mkfs.ext4").args(["-q", "-E", now]).arg(&image).ok()?;
        Run::new("mount").args(["-o", "loop"]).arg(&image).arg(&self.dir).ok()?;
        Ok(())
    }

    /// An empty directory for `name`.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).during(|| format!("mkdir {}", dir.display()))?;
        Ok(dir)
    }

    /// Removes it again with all that is in it.
    pub(crate) fn remove(dir: &Path) -> Result<()> {
        fs::remove_dir_all(dir).during(|| format!("remove {}", dir.display()))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for dir in [&self.dir, &self.memory] {
            // The census tells what is left.
            let _ = Run::new("umount").arg(dir).ok();
        }
    }
}
