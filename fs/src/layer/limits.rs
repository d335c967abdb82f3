//! How much a layer may be and hold. An error names the limit by its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::tar::Problem;

/// Limits of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `entries`: how many there may be.
    pub entries: u64,
    /// `bytes`: after decompression.
    pub bytes: u64,
    /// `ratio`: decompressed to compressed bytes. gzip reaches 1032 at the most.
    pub ratio: u64,
    /// Decompressed bytes after which the ratio counts: small layers of zeros are common.
    pub ratio_from: u64,
    /// `path-bytes`: length of a path.
    pub path_bytes: u64,
    /// `depth`: components of a path.
    pub depth: u64,
    /// `extended-bytes`: one extended header, long name or sparse map.
    pub extended_bytes: u64,
    /// `pax-records`: records of one extended header.
    pub pax_records: u64,
    /// `xattrs`: extended attributes of an entry.
    pub xattrs: u64,
    /// `xattr-bytes`: value of one; the kernel's own limit.
    pub xattr_bytes: u64,
    /// `xattrs-bytes`: names and values of all of an entry.
    pub xattrs_bytes: u64,
    /// `sparse-segments`: of one file.
    pub sparse_segments: u64,
    /// `zstd-window-log`: the decompressor keeps two to the power of this many bytes.
    pub zstd_window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 64 << 30,
            ratio: 1100,
            ratio_from: 64 << 20,
            path_bytes: 4095,
            depth: 1024,
            extended_bytes: 1 << 20,
            pax_records: 4096,
            xattrs: 256,
            xattr_bytes: 64 << 10,
            xattrs_bytes: 256 << 10,
            sparse_segments: 65_536,
            zstd_window_log: 25,
        }
    }
}

/// Decompressed bytes that the layers of one image may have together, whatever threads they are
/// read by. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    spent: Arc<AtomicU64>,
    most: u64,
}

impl Budget {
    /// For `most` bytes: `image-bytes` in errors.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { spent: Arc::default(), most }
    }

    /// Takes `count` more of them.
    pub(super) fn spend(&self, count: u64) -> Result<(), Problem> {
        let before = self.spent.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) > self.most {
            return Err(Problem::limit("image-bytes", self.most));
        }
        Ok(())
    }
}
