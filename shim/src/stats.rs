//! A cgroup's figures as containerd's metrics messages. The daemon accepts only
//! the generation its host runs, so the message follows the cgroup's.

use boathook_runtime::cgroup::stats as source;
use containerd_shim_protos::{cgroups::metrics as v1, cgroups_v2::metrics as v2};
use protobuf::{Message, MessageField};
use source::{BlkioEntry, HugetlbUsage, MemoryUsage, Pressure, PressureLine, RdmaEntry};

use crate::failure::{ErrorKind, Failure, Result};
use crate::table::Answer;

/// Encodes `stats` for the answer to Stats.
///
/// # Errors
/// Never in practice: encoding into memory.
pub fn answer(stats: &source::Stats) -> Result<Answer> {
    let (type_url, value) = match stats {
        source::Stats::V1(stats) => {
            ("io.containerd.cgroups.v1.Metrics", metrics_v1(stats).write_to_bytes())
        }
        source::Stats::V2(stats) => {
            ("io.containerd.cgroups.v2.Metrics", metrics_v2(stats).write_to_bytes())
        }
    };
    let value = value.map_err(|e| Failure::new(ErrorKind::Internal, format!("metrics: {e}")))?;
    Ok(Answer::Stats { type_url, value })
}

fn metrics_v1(stats: &source::V1Stats) -> v1::Metrics {
    v1::Metrics {
        hugetlb: stats.hugetlb.iter().map(hugetlb_v1).collect(),
        pids: field(stats.pids.as_ref(), |pids| v1::PidsStat {
            current: pids.current,
            // The v1 message says "no limit" with 0.
            limit: pids.limit.unwrap_or(0),
            ..Default::default()
        }),
        cpu: field(stats.cpu.as_ref(), cpu_v1),
        memory: field(stats.memory.as_ref(), memory_v1),
        blkio: field(stats.blkio.as_ref(), blkio),
        rdma: field(stats.rdma.as_ref(), |rdma| v1::RdmaStat {
            current: rdma.current.iter().map(rdma_v1).collect(),
            limit: rdma.limit.iter().map(rdma_v1).collect(),
            ..Default::default()
        }),
        memory_oom_control: field(stats.memory.as_ref(), |memory| v1::MemoryOomControl {
            oom_kill_disable: memory.oom_control.oom_kill_disable.into(),
            under_oom: memory.oom_control.under_oom.into(),
            oom_kill: memory.oom_control.oom_kill,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn cpu_v1(cpu: &source::V1Cpu) -> v1::CPUStat {
    let usage = v1::CPUUsage {
        total: cpu.total_ns,
        kernel: cpu.kernel_ns,
        user: cpu.user_ns,
        per_cpu: cpu.per_cpu_ns.clone(),
        ..Default::default()
    };
    let throttling = v1::Throttle {
        periods: cpu.throttling.periods,
        throttled_periods: cpu.throttling.throttled_periods,
        throttled_time: cpu.throttling.throttled_ns,
        ..Default::default()
    };
    v1::CPUStat {
        usage: Some(usage).into(),
        throttling: Some(throttling).into(),
        ..Default::default()
    }
}

fn memory_v1(memory: &source::V1Memory) -> v1::MemoryStat {
    let (own, total) = (&memory.own, &memory.total);
    v1::MemoryStat {
        cache: own.cache,
        rss: own.rss,
        rss_huge: own.rss_huge,
        mapped_file: own.mapped_file,
        dirty: own.dirty,
        writeback: own.writeback,
        pg_pg_in: own.pgpgin,
        pg_pg_out: own.pgpgout,
        pg_fault: own.pgfault,
        pg_maj_fault: own.pgmajfault,
        inactive_anon: own.inactive_anon,
        active_anon: own.active_anon,
        inactive_file: own.inactive_file,
        active_file: own.active_file,
        unevictable: own.unevictable,
        hierarchical_memory_limit: memory.hierarchical_limit,
        hierarchical_swap_limit: memory.hierarchical_swap_limit,
        total_cache: total.cache,
        total_rss: total.rss,
        total_rss_huge: total.rss_huge,
        total_mapped_file: total.mapped_file,
        total_dirty: total.dirty,
        total_writeback: total.writeback,
        total_pg_pg_in: total.pgpgin,
        total_pg_pg_out: total.pgpgout,
        total_pg_fault: total.pgfault,
        total_pg_maj_fault: total.pgmajfault,
        total_inactive_anon: total.inactive_anon,
        total_active_anon: total.active_anon,
        total_inactive_file: total.inactive_file,
        total_active_file: total.active_file,
        total_unevictable: total.unevictable,
        usage: Some(entry(&memory.usage)).into(),
        swap: field(memory.swap.as_ref(), entry),
        kernel: field(memory.kernel.as_ref(), entry),
        kernel_tcp: field(memory.kernel_tcp.as_ref(), entry),
        ..Default::default()
    }
}

fn entry(usage: &MemoryUsage) -> v1::MemoryEntry {
    v1::MemoryEntry {
        limit: usage.limit,
        usage: usage.usage,
        max: usage.max,
        failcnt: usage.failcnt,
        ..Default::default()
    }
}

fn hugetlb_v1(usage: &HugetlbUsage) -> v1::HugetlbStat {
    v1::HugetlbStat {
        usage: usage.usage,
        max: usage.max,
        failcnt: usage.failcnt,
        pagesize: usage.page_size.clone(),
        ..Default::default()
    }
}

fn blkio(blkio: &source::V1Blkio) -> v1::BlkIOStat {
    let entries = |entries: &[BlkioEntry]| entries.iter().map(blkio_entry).collect();
    v1::BlkIOStat {
        io_service_bytes_recursive: entries(&blkio.io_service_bytes_recursive),
        io_serviced_recursive: entries(&blkio.io_serviced_recursive),
        io_queued_recursive: entries(&blkio.io_queued_recursive),
        io_service_time_recursive: entries(&blkio.io_service_time_recursive),
        io_wait_time_recursive: entries(&blkio.io_wait_time_recursive),
        io_merged_recursive: entries(&blkio.io_merged_recursive),
        io_time_recursive: entries(&blkio.io_time_recursive),
        sectors_recursive: entries(&blkio.sectors_recursive),
        ..Default::default()
    }
}

fn blkio_entry(entry: &BlkioEntry) -> v1::BlkIOEntry {
    v1::BlkIOEntry {
        op: entry.op.clone(),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..Default::default()
    }
}

fn rdma_v1(entry: &RdmaEntry) -> v1::RdmaEntry {
    v1::RdmaEntry {
        device: entry.device.clone(),
        hca_handles: entry.hca_handles,
        hca_objects: entry.hca_objects,
        ..Default::default()
    }
}

fn metrics_v2(stats: &source::V2Stats) -> v2::Metrics {
    v2::Metrics {
        pids: field(stats.pids.as_ref(), |pids| v2::PidsStat {
            current: pids.current,
            limit: pids.limit.unwrap_or(u64::MAX),
            ..Default::default()
        }),
        cpu: Some(cpu_v2(&stats.cpu)).into(),
        memory: field(stats.memory.as_ref(), memory_v2),
        rdma: field(stats.rdma.as_ref(), |rdma| v2::RdmaStat {
            current: rdma.current.iter().map(rdma_v2).collect(),
            limit: rdma.limit.iter().map(rdma_v2).collect(),
            ..Default::default()
        }),
        io: field(stats.io.as_ref(), |io| v2::IOStat {
            usage: io.usage.iter().map(io_entry).collect(),
            psi: field(io.pressure.as_ref(), psi),
            ..Default::default()
        }),
        hugetlb: stats.hugetlb.iter().map(hugetlb_v2).collect(),
        memory_events: field(stats.memory_events.as_ref(), |events| v2::MemoryEvents {
            low: events.low,
            high: events.high,
            max: events.max,
            oom: events.oom,
            oom_kill: events.oom_kill,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn cpu_v2(cpu: &source::V2Cpu) -> v2::CPUStat {
    v2::CPUStat {
        usage_usec: cpu.stat.usage_usec,
        user_usec: cpu.stat.user_usec,
        system_usec: cpu.stat.system_usec,
        nr_periods: cpu.stat.nr_periods,
        nr_throttled: cpu.stat.nr_throttled,
        throttled_usec: cpu.stat.throttled_usec,
        psi: field(cpu.pressure.as_ref(), psi),
        ..Default::default()
    }
}

fn memory_v2(memory: &source::V2Memory) -> v2::MemoryStat {
    let stat = &memory.stat;
    v2::MemoryStat {
        anon: stat.anon,
        file: stat.file,
        kernel_stack: stat.kernel_stack,
        slab: stat.slab,
        sock: stat.sock,
        shmem: stat.shmem,
        file_mapped: stat.file_mapped,
        file_dirty: stat.file_dirty,
        file_writeback: stat.file_writeback,
        anon_thp: stat.anon_thp,
        inactive_anon: stat.inactive_anon,
        active_anon: stat.active_anon,
        inactive_file: stat.inactive_file,
        active_file: stat.active_file,
        unevictable: stat.unevictable,
        slab_reclaimable: stat.slab_reclaimable,
        slab_unreclaimable: stat.slab_unreclaimable,
        pgfault: stat.pgfault,
        pgmajfault: stat.pgmajfault,
        workingset_refault: stat.workingset_refault,
        workingset_activate: stat.workingset_activate,
        workingset_nodereclaim: stat.workingset_nodereclaim,
        pgrefill: stat.pgrefill,
        pgscan: stat.pgscan,
        pgsteal: stat.pgsteal,
        pgactivate: stat.pgactivate,
        pgdeactivate: stat.pgdeactivate,
        pglazyfree: stat.pglazyfree,
        pglazyfreed: stat.pglazyfreed,
        thp_fault_alloc: stat.thp_fault_alloc,
        thp_collapse_alloc: stat.thp_collapse_alloc,
        usage: memory.usage,
        usage_limit: memory.usage_limit,
        max_usage: memory.max_usage,
        swap_usage: memory.swap_usage,
        swap_limit: memory.swap_limit,
        swap_max_usage: memory.swap_max_usage,
        psi: field(memory.pressure.as_ref(), psi),
        ..Default::default()
    }
}

fn hugetlb_v2(usage: &source::V2Hugetlb) -> v2::HugeTlbStat {
    v2::HugeTlbStat {
        current: usage.current,
        max: usage.max,
        pagesize: usage.page_size.clone(),
        failcnt: usage.failcnt,
        ..Default::default()
    }
}

fn rdma_v2(entry: &RdmaEntry) -> v2::RdmaEntry {
    v2::RdmaEntry {
        device: entry.device.clone(),
        hca_handles: entry.hca_handles,
        hca_objects: entry.hca_objects,
        ..Default::default()
    }
}

fn io_entry(entry: &source::IoEntry) -> v2::IOEntry {
    v2::IOEntry {
        major: entry.major,
        minor: entry.minor,
        rbytes: entry.rbytes,
        wbytes: entry.wbytes,
        rios: entry.rios,
        wios: entry.wios,
        ..Default::default()
    }
}

fn psi(pressure: &Pressure) -> v2::PSIStats {
    v2::PSIStats {
        some: Some(psi_line(&pressure.some)).into(),
        full: Some(psi_line(&pressure.full)).into(),
        ..Default::default()
    }
}

fn psi_line(line: &PressureLine) -> v2::PSIData {
    // The source counts hundredths of a percent, as the kernel prints them.
    let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
    v2::PSIData {
        avg10: percent(line.avg10),
        avg60: percent(line.avg60),
        avg300: percent(line.avg300),
        total: line.total_usec,
        ..Default::default()
    }
}

fn field<S, T>(source: Option<&S>, convert: impl Fn(&S) -> T) -> MessageField<T> {
    MessageField::from_option(source.map(convert))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<M: Message>(stats: &source::Stats, name: &str) -> M {
        let Answer::Stats { type_url, value } = answer(stats).unwrap() else { panic!("no stats") };
        assert_eq!(type_url, name);
        M::parse_from_bytes(&value).unwrap()
    }

    #[test]
    fn v1_figures_stay_what_they_are() {
        let memory = source::V1Memory {
            usage: MemoryUsage { limit: 100, usage: 40, max: 60, failcnt: 1 },
            total: source::MemoryStatV1 { inactive_file: 7, ..Default::default() },
            oom_control: source::MemoryOomControl { under_oom: true, ..Default::default() },
            ..Default::default()
        };
        let stats = source::V1Stats {
            cpu: Some(source::V1Cpu { total_ns: 5, kernel_ns: 2, ..Default::default() }),
            memory: Some(memory),
            pids: Some(source::PidsUsage { current: 3, limit: None }),
            ..Default::default()
        };
        let stats = source::Stats::V1(Box::new(stats));
        let metrics: v1::Metrics = decode(&stats, "io.containerd.cgroups.v1.Metrics");
        assert_eq!((metrics.cpu.usage.total, metrics.cpu.usage.kernel), (5, 2));
        assert_eq!((metrics.memory.usage.limit, metrics.memory.usage.usage), (100, 40));
        assert_eq!(metrics.memory.total_inactive_file, 7);
        assert_eq!(metrics.memory_oom_control.under_oom, 1);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, 0));
        assert!(metrics.rdma.is_none() && metrics.blkio.is_none());
    }

    #[test]
    fn v2_pressure_is_in_percent_and_no_limit_is_the_largest() {
        let some = PressureLine { avg10: 1234, total_usec: 9, ..Default::default() };
        let pressure = Some(Pressure { some, ..Default::default() });
        let stats = source::V2Stats {
            cpu: source::V2Cpu { pressure, ..Default::default() },
            pids: Some(source::PidsUsage { current: 1, limit: None }),
            memory_events: Some(source::MemoryEvents { oom_kill: 2, ..Default::default() }),
            ..Default::default()
        };
        let stats = source::Stats::V2(Box::new(stats));
        let metrics: v2::Metrics = decode(&stats, "io.containerd.cgroups.v2.Metrics");
        assert_eq!((metrics.cpu.psi.some.avg10, metrics.cpu.psi.some.total), (12.34, 9));
        assert_eq!(metrics.pids.limit, u64::MAX);
        assert_eq!(metrics.memory_events.oom_kill, 2);
    }
}
