//! What a cgroup has used: plain data with documented units, one struct per
//! cgroup generation, because the two count different things.
//!
//! Files that a kernel does not have leave their field at its default; a
//! cgroup that is gone is an error of kind `NotFound`, never a panic.

mod parse;
mod types;
mod v1;
mod v2;

use std::os::fd::AsFd;

pub use types::{
    BlkioEntry, CpuStat, HugetlbUsage, IoEntry, MemoryEvents, MemoryOomControl, MemoryStatV1,
    MemoryStatV2, MemoryUsage, PidsUsage, Pressure, PressureLine, RdmaEntry, Stats, Throttling,
    V1Blkio, V1Cpu, V1Memory, V1Rdma, V1Stats, V2Cpu, V2Hugetlb, V2Io, V2Memory, V2Stats,
};

use super::file;
use super::group::{At, Cgroup};
use super::layout::Mode;
use crate::error::{Error, ErrorKind, Result};

impl Cgroup {
    /// What the cgroup has used so far. Works as long as the directories are
    /// there, so also between the last exit and the delete.
    ///
    /// # Errors
    /// `NotFound` when the cgroup is gone.
    pub fn stats(&self) -> Result<Stats> {
        match self.mode() {
            Mode::V1 | Mode::Hybrid => Ok(Stats::V1(Box::new(v1::read(self)?))),
            Mode::V2 => match self.v2() {
                Some(at) => Ok(Stats::V2(Box::new(v2::read(at)?))),
                None => Err(Error::new(ErrorKind::NotFound, "the cgroup has no v2 directory")),
            },
        }
    }
}

/// The page sizes for which `hugetlb.<size><suffix>` exists.
fn page_sizes(at: At<'_>, suffix: &str) -> Result<Vec<String>> {
    let failed = |errno| at.error("listing", "hugetlb files", errno);
    let dir = file::open_dir_list(at.root, at.path).map_err(failed)?;
    let names = file::names(dir.as_fd()).map_err(failed)?;
    let size = |name: &String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<String> = names.iter().filter_map(size).collect();
    sizes.sort();
    Ok(sizes)
}
