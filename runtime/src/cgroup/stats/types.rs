//! The data types of [`Cgroup::stats`](crate::cgroup::Cgroup::stats).
//!
//! Sources: Documentation/admin-guide/cgroup-v1/{cpuacct,memory,pids,
//! blkio-controller,hugetlb,rdma}.rst and cgroup-v2.rst of the kernel.

/// Usage of one cgroup, in the shape of the hierarchy that counted it.
///
/// A hybrid host counts in its v1 hierarchies, so it answers `V1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stats {
    /// cgroup v1 or hybrid.
    V1(Box<V1Stats>),
    /// cgroup v2.
    V2(Box<V2Stats>),
}

/// Usage as cgroup v1 counts it. A controller that is not mounted is `None`;
/// of those that a hybrid host has on v2 only, pids, hugetlb and rdma are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Stats {
    /// `cpu` and `cpuacct`; `None` when neither is mounted.
    pub cpu: Option<V1Cpu>,
    /// `memory`.
    pub memory: Option<V1Memory>,
    /// `pids`.
    pub pids: Option<PidsUsage>,
    /// `blkio`.
    pub blkio: Option<V1Blkio>,
    /// `hugetlb`, one entry per page size.
    pub hugetlb: Vec<HugetlbUsage>,
    /// `rdma`.
    pub rdma: Option<V1Rdma>,
}

/// CPU time and throttling on v1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Cpu {
    /// All CPU time, nanoseconds (`cpuacct.usage`).
    pub total_ns: u64,
    /// Time in the kernel, nanoseconds, in steps of 10 ms (`cpuacct.stat`).
    pub kernel_ns: u64,
    /// Time in user mode, nanoseconds, in steps of 10 ms (`cpuacct.stat`).
    pub user_ns: u64,
    /// Nanoseconds per possible CPU (`cpuacct.usage_percpu`).
    pub per_cpu_ns: Vec<u64>,
    /// `cpu.stat`.
    pub throttling: Throttling,
}

/// CFS bandwidth control on v1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Enforcement periods that have passed.
    pub periods: u64,
    /// Periods in which the group ran into its quota.
    pub throttled_periods: u64,
    /// Time for which the group was held back, nanoseconds.
    pub throttled_ns: u64,
}

/// Memory on v1, bytes unless said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Memory {
    /// `memory.stat`, this cgroup alone.
    pub own: MemoryStatV1,
    /// `memory.stat`, the `total_*` lines: this cgroup with its descendants.
    pub total: MemoryStatV1,
    /// The lowest `memory.limit_in_bytes` on the way to the root.
    pub hierarchical_limit: u64,
    /// The lowest `memory.memsw.limit_in_bytes` on the way to the root.
    pub hierarchical_swap_limit: u64,
    /// `memory.*`; `limit` is always the kernel's value, never 0 for "none".
    pub usage: MemoryUsage,
    /// `memory.memsw.*`: memory plus swap. `None` without swap accounting.
    pub swap: Option<MemoryUsage>,
    /// `memory.kmem.*`.
    pub kernel: Option<MemoryUsage>,
    /// `memory.kmem.tcp.*`.
    pub kernel_tcp: Option<MemoryUsage>,
    /// `memory.oom_control`.
    pub oom_control: MemoryOomControl,
}

/// One counter of the v1 memory controller, bytes unless said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// `*.limit_in_bytes`; "no limit" is the kernel's page-rounded maximum
    /// (`0x7FFFFFFFFFFFF000`).
    pub limit: u64,
    /// `*.usage_in_bytes`.
    pub usage: u64,
    /// `*.max_usage_in_bytes`, the high-water mark.
    pub max: u64,
    /// `*.failcnt`: how often the limit was hit (a count).
    pub failcnt: u64,
}

/// Lines of v1 `memory.stat`; bytes, except the `pg*` fields, which count events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the kernel's own line of the same name")]
pub struct MemoryStatV1 {
    pub cache: u64,
    pub rss: u64,
    pub rss_huge: u64,
    pub shmem: u64,
    pub mapped_file: u64,
    pub dirty: u64,
    pub writeback: u64,
    pub swap: u64,
    pub pgpgin: u64,
    pub pgpgout: u64,
    pub pgfault: u64,
    pub pgmajfault: u64,
    pub inactive_anon: u64,
    pub active_anon: u64,
    pub inactive_file: u64,
    pub active_file: u64,
    pub unevictable: u64,
}

/// v1 `memory.oom_control`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryOomControl {
    /// The OOM killer is switched off for this cgroup.
    pub oom_kill_disable: bool,
    /// Tasks are stopped now, waiting for memory.
    pub under_oom: bool,
    /// Tasks killed by the OOM killer (a count; kernel 4.13).
    pub oom_kill: u64,
}

/// Tasks now and at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PidsUsage {
    /// `pids.current`: threads, not processes.
    pub current: u64,
    /// `pids.max`; `None` is `max`.
    pub limit: Option<u64>,
}

/// Block I/O on v1. The lists that only CFQ fed are empty on kernels from 5.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Blkio {
    /// Bytes by device and operation.
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations by device and kind.
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Requests waiting now.
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Nanoseconds between dispatch and completion.
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Nanoseconds spent waiting in the scheduler's queues.
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Requests merged.
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Milliseconds of disk time.
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors transferred.
    pub sectors_recursive: Vec<BlkioEntry>,
}

/// One line of a v1 blkio file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    /// Device major number.
    pub major: u64,
    /// Device minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`; empty where the
    /// file has one value per device.
    pub op: String,
    /// In the unit of the list.
    pub value: u64,
}

/// Huge pages of one size, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugetlbUsage {
    /// As in the file name: `2MB`, `1GB`.
    pub page_size: String,
    /// In use.
    pub usage: u64,
    /// High-water mark.
    pub max: u64,
    /// Allocations refused (a count).
    pub failcnt: u64,
}

/// RDMA on v1 (and v2: the files are the same).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V1Rdma {
    /// `rdma.current`.
    pub current: Vec<RdmaEntry>,
    /// `rdma.max`; `max` is `u32::MAX`.
    pub limit: Vec<RdmaEntry>,
}

/// RDMA objects of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdmaEntry {
    /// Device name, such as `mlx4_0`.
    pub device: String,
    /// HCA handles.
    pub hca_handles: u32,
    /// HCA objects.
    pub hca_objects: u32,
}

/// Usage as cgroup v2 counts it. A controller that is off is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V2Stats {
    /// `cpu.stat`, `cpu.pressure`.
    pub cpu: V2Cpu,
    /// `memory.*`.
    pub memory: Option<V2Memory>,
    /// `memory.events`.
    pub memory_events: Option<MemoryEvents>,
    /// `pids.*`.
    pub pids: Option<PidsUsage>,
    /// `io.*`.
    pub io: Option<V2Io>,
    /// `hugetlb.*`, one entry per page size.
    pub hugetlb: Vec<V2Hugetlb>,
    /// `rdma.*`.
    pub rdma: Option<V1Rdma>,
}

/// CPU on v2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V2Cpu {
    /// `cpu.stat`.
    pub stat: CpuStat,
    /// `cpu.pressure`.
    pub pressure: Option<Pressure>,
}

/// v2 `cpu.stat`; times in microseconds. The last three are 0 without the cpu controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the kernel's own line of the same name")]
pub struct CpuStat {
    pub usage_usec: u64,
    pub user_usec: u64,
    pub system_usec: u64,
    pub nr_periods: u64,
    pub nr_throttled: u64,
    pub throttled_usec: u64,
    pub nr_bursts: u64,
    pub burst_usec: u64,
}

/// Memory on v2, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V2Memory {
    /// `memory.stat`.
    pub stat: MemoryStatV2,
    /// `memory.current`; in the root cgroup, which lacks the file, anon + file.
    pub usage: u64,
    /// `memory.max`; `max` is `u64::MAX`.
    pub usage_limit: u64,
    /// `memory.peak` (kernel 5.19), else 0.
    pub max_usage: u64,
    /// `memory.swap.current`.
    pub swap_usage: u64,
    /// `memory.swap.max`; `max` is `u64::MAX`.
    pub swap_limit: u64,
    /// `memory.swap.peak` (kernel 6.5), else 0.
    pub swap_max_usage: u64,
    /// `memory.pressure`.
    pub pressure: Option<Pressure>,
}

/// Lines of v2 `memory.stat`; bytes for amounts, counts for events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the kernel's own line of the same name")]
pub struct MemoryStatV2 {
    pub anon: u64,
    pub file: u64,
    pub kernel_stack: u64,
    pub slab: u64,
    pub sock: u64,
    pub shmem: u64,
    pub file_mapped: u64,
    pub file_dirty: u64,
    pub file_writeback: u64,
    pub anon_thp: u64,
    pub inactive_anon: u64,
    pub active_anon: u64,
    pub inactive_file: u64,
    pub active_file: u64,
    pub unevictable: u64,
    pub slab_reclaimable: u64,
    pub slab_unreclaimable: u64,
    pub pgfault: u64,
    pub pgmajfault: u64,
    pub workingset_refault: u64,
    pub workingset_activate: u64,
    pub workingset_nodereclaim: u64,
    pub pgrefill: u64,
    pub pgscan: u64,
    pub pgsteal: u64,
    pub pgactivate: u64,
    pub pgdeactivate: u64,
    pub pglazyfree: u64,
    pub pglazyfreed: u64,
    pub thp_fault_alloc: u64,
    pub thp_collapse_alloc: u64,
}

/// v2 `memory.events`, counts since the cgroup was made, descendants included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the kernel's own line of the same name")]
pub struct MemoryEvents {
    pub low: u64,
    pub high: u64,
    pub max: u64,
    pub oom: u64,
    pub oom_kill: u64,
    pub oom_group_kill: u64,
}

/// I/O on v2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V2Io {
    /// `io.stat`, one entry per device.
    pub usage: Vec<IoEntry>,
    /// `io.pressure`.
    pub pressure: Option<Pressure>,
}

/// One line of v2 `io.stat`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoEntry {
    /// Device major number.
    pub major: u64,
    /// Device minor number.
    pub minor: u64,
    /// Bytes read.
    pub rbytes: u64,
    /// Bytes written.
    pub wbytes: u64,
    /// Read operations.
    pub rios: u64,
    /// Write operations.
    pub wios: u64,
}

/// Huge pages of one size on v2, bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V2Hugetlb {
    /// As in the file name: `2MB`, `1GB`.
    pub page_size: String,
    /// `hugetlb.*.current`.
    pub current: u64,
    /// `hugetlb.*.max`; `max` is `u64::MAX`.
    pub max: u64,
    /// The `max` line of `hugetlb.*.events` (a count).
    pub failcnt: u64,
}

/// Pressure stall information of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Some task was stalled.
    pub some: PressureLine,
    /// All tasks were stalled at once.
    pub full: PressureLine,
}

/// One line of a `*.pressure` file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PressureLine {
    /// Share of the last 10 s, hundredths of a per cent (`1.53` is 153).
    pub avg10: u32,
    /// Share of the last 60 s, hundredths of a per cent.
    pub avg60: u32,
    /// Share of the last 300 s, hundredths of a per cent.
    pub avg300: u32,
    /// Total stall time, microseconds.
    pub total_usec: u64,
}
