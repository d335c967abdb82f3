//! What a cgroup has used: plain data with documented units, one struct per
//! cgroup generation, because the two count different things.
//!
//! Files that a kernel does not have leave their field at its default; a
//! cgroup that is gone is an error of kind `NotFound`, never a panic.

mod types;

pub use types::{
    BlkioEntry, CpuStat, HugetlbUsage, IoEntry, MemoryEvents, MemoryOomControl, MemoryStatV1,
    MemoryStatV2, MemoryUsage, PidsUsage, Pressure, PressureLine, RdmaEntry, Stats, Throttling,
    V1Blkio, V1Cpu, V1Memory, V1Rdma, V1Stats, V2Cpu, V2Hugetlb, V2Io, V2Memory, V2Stats,
};
