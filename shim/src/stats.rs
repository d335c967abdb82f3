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
        blkio: field(stats.blkio.as_ref(), |usage| blkio(usage, &Devices::of_this_host)),
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

/// `devices` is asked only where there is something to name.
fn blkio(blkio: &source::V1Blkio, devices: &dyn Fn() -> Devices) -> v1::BlkIOStat {
    let lists = [
        &blkio.io_service_bytes_recursive,
        &blkio.io_serviced_recursive,
        &blkio.io_queued_recursive,
        &blkio.io_service_time_recursive,
        &blkio.io_wait_time_recursive,
        &blkio.io_merged_recursive,
        &blkio.io_time_recursive,
        &blkio.sectors_recursive,
    ];
    let silent = lists.iter().all(|list| list.is_empty());
    let devices = if silent { Devices::default() } else { devices() };
    let [bytes, serviced, queued, service_time, wait_time, merged, time, sectors] =
        lists.map(|list| list.iter().map(|entry| blkio_entry(entry, &devices)).collect());
    v1::BlkIOStat {
        io_service_bytes_recursive: bytes,
        io_serviced_recursive: serviced,
        io_queued_recursive: queued,
        io_service_time_recursive: service_time,
        io_wait_time_recursive: wait_time,
        io_merged_recursive: merged,
        io_time_recursive: time,
        sectors_recursive: sectors,
        ..Default::default()
    }
}

fn blkio_entry(entry: &BlkioEntry, devices: &Devices) -> v1::BlkIOEntry {
    v1::BlkIOEntry {
        op: entry.op.clone(),
        device: devices.name(entry.major, entry.minor),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..Default::default()
    }
}

/// Block devices by their numbers.
#[derive(Debug, Default)]
struct Devices(Vec<(u64, u64, String)>);

impl Devices {
    fn of_this_host() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/diskstats").unwrap_or_default())
    }

    /// Each line begins with major, minor and name (the kernel's
    /// Documentation/admin-guide/iostats.rst).
    fn parse(text: &str) -> Self {
        let device = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((major, minor, format!("/dev/{}", words.next()?)))
        };
        Self(text.lines().filter_map(device).collect())
    }

    /// Empty for a device that is gone.
    fn name(&self, major: u64, minor: u64) -> String {
        let found = self.0.iter().find(|(a, b, _)| (*a, *b) == (major, minor));
        found.map(|(_, _, name)| name.clone()).unwrap_or_default()
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
            oom_group_kill: events.oom_group_kill,
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
        nr_bursts: cpu.stat.nr_bursts,
        burst_usec: cpu.stat.burst_usec,
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
    fn block_devices_have_the_names_of_the_host() {
        let entry = |major, value| BlkioEntry { major, minor: 1, op: "Read".into(), value };
        let usage = source::V1Blkio {
            io_service_bytes_recursive: vec![entry(254, 4096), entry(9, 1)],
            ..Default::default()
        };
        let text = " 254       0 vda 10 0 80 9\n 254       1 vda1 7 0 56 8\nnot a line\n";
        let stat = blkio(&usage, &|| Devices::parse(text));
        let named: Vec<_> = stat.io_service_bytes_recursive.iter().map(|e| &*e.device).collect();
        assert_eq!(named, ["/dev/vda1", ""]);
        blkio(&source::V1Blkio::default(), &|| panic!("asked for nothing"));
    }

    /// Every field of a message that this kernel fills must come out of it: a
    /// field that is forgotten in the mapping shows as a zero here.
    #[test]
    fn no_field_of_v2_is_forgotten() {
        let line = PressureLine { avg10: 1, avg60: 2, avg300: 3, total_usec: 4 };
        let pressure = Some(Pressure { some: line.clone(), full: line });
        let stat = source::CpuStat {
            usage_usec: 1,
            user_usec: 2,
            system_usec: 3,
            nr_periods: 4,
            nr_throttled: 5,
            throttled_usec: 6,
            nr_bursts: 7,
            burst_usec: 8,
        };
        let events = source::MemoryEvents {
            low: 1,
            high: 2,
            max: 3,
            oom: 4,
            oom_kill: 5,
            oom_group_kill: 6,
        };
        let memory = source::V2Memory {
            usage: 1,
            usage_limit: 2,
            max_usage: 3,
            swap_usage: 4,
            swap_limit: 5,
            swap_max_usage: 6,
            pressure: pressure.clone(),
            ..Default::default()
        };
        let entry = source::IoEntry { major: 1, minor: 2, rbytes: 3, wbytes: 4, rios: 5, wios: 6 };
        let stats = source::V2Stats {
            cpu: source::V2Cpu { stat, pressure: pressure.clone() },
            memory: Some(memory),
            memory_events: Some(events),
            io: Some(source::V2Io { usage: vec![entry], pressure }),
            ..Default::default()
        };
        let stats = source::Stats::V2(Box::new(stats));
        let metrics: v2::Metrics = decode(&stats, "io.containerd.cgroups.v2.Metrics");
        let (cpu, memory) = (&metrics.cpu, &metrics.memory);
        let times = [cpu.usage_usec, cpu.user_usec, cpu.system_usec, cpu.nr_periods];
        assert_eq!(times, [1, 2, 3, 4]);
        let limits = [cpu.nr_throttled, cpu.throttled_usec, cpu.nr_bursts, cpu.burst_usec];
        assert_eq!(limits, [5, 6, 7, 8]);
        let bytes = [memory.usage, memory.usage_limit, memory.max_usage];
        assert_eq!(bytes, [1, 2, 3]);
        let swap = [memory.swap_usage, memory.swap_limit, memory.swap_max_usage];
        assert_eq!(swap, [4, 5, 6]);
        let events = &metrics.memory_events;
        let counts = [events.low, events.high, events.max, events.oom, events.oom_kill];
        assert_eq!((counts, events.oom_group_kill), ([1, 2, 3, 4, 5], 6));
        let io = &metrics.io.usage[0];
        assert_eq!(
            [io.major, io.minor, io.rbytes, io.wbytes, io.rios, io.wios],
            [1, 2, 3, 4, 5, 6]
        );
        for psi in [&cpu.psi, &memory.psi, &metrics.io.psi] {
            for line in [&psi.some, &psi.full] {
                let averages = (line.avg10, line.avg60, line.avg300, line.total);
                assert_eq!(averages, (0.01, 0.02, 0.03, 4));
            }
        }
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
