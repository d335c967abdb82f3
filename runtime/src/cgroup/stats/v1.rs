//! Usage out of the v1 controllers' files.

use nix::errno::Errno;

use super::parse::{self, number, pairs};
use super::types::{
    BlkioEntry, HugetlbUsage, MemoryOomControl, MemoryStatV1, MemoryUsage, PidsUsage, V1Blkio,
    V1Cpu, V1Memory, V1Rdma, V1Stats, V2Hugetlb,
};
use super::v2;
use crate::cgroup::controller::Controller;
use crate::cgroup::group::{At, Cgroup};
use crate::error::Result;

/// `USER_HZ` is 100 on every architecture that Rust runs Linux on, whatever the kernel's own `HZ`.
const NS_PER_TICK: u64 = 10_000_000;

pub(super) fn read(group: &Cgroup) -> Result<V1Stats> {
    let on_v2 = |controller| group.hierarchies.layout().on_v2(controller);
    // What a hybrid host counts on v2 has other files.
    let at = |controller| group.member(controller).filter(|_| !on_v2(controller));
    let rdma = match group.member(Controller::Rdma) {
        Some(at) => Some(V1Rdma {
            current: parse::rdma(&text(at, "rdma.current")?),
            limit: parse::rdma(&text(at, "rdma.max")?),
        }),
        None => None,
    };
    let hugetlb = match group.member(Controller::Hugetlb) {
        Some(at) if on_v2(Controller::Hugetlb) => hugetlb_of_v2(at)?,
        Some(at) => hugetlb(at)?,
        None => Vec::new(),
    };
    Ok(V1Stats {
        cpu: cpu(at(Controller::Cpu), at(Controller::Cpuacct))?,
        memory: at(Controller::Memory).map(memory).transpose()?,
        pids: group.member(Controller::Pids).map(pids).transpose()?,
        blkio: at(Controller::Blkio).map(blkio).transpose()?,
        hugetlb,
        rdma,
    })
}

/// The text of a file that this kernel may lack (then empty), unless the whole group is gone.
pub(super) fn text(at: At<'_>, name: &str) -> Result<String> {
    match at.read(name) {
        Ok(text) => Ok(text),
        Err(Errno::ENOENT | Errno::EOPNOTSUPP) if at.exists() => Ok(String::new()),
        Err(errno) => Err(at.error("reading", name, errno)),
    }
}

fn value(at: At<'_>, name: &str) -> Result<u64> {
    Ok(number(&text(at, name)?).unwrap_or(0))
}

fn cpu(cpu: Option<At<'_>>, cpuacct: Option<At<'_>>) -> Result<Option<V1Cpu>> {
    if cpu.is_none() && cpuacct.is_none() {
        return Ok(None);
    }
    let mut out = V1Cpu::default();
    if let Some(at) = cpuacct {
        out.total_ns = value(at, "cpuacct.usage")?;
        for (key, ticks) in pairs(&text(at, "cpuacct.stat")?) {
            match key {
                "user" => out.user_ns = ticks.saturating_mul(NS_PER_TICK),
                "system" => out.kernel_ns = ticks.saturating_mul(NS_PER_TICK),
                _ => {}
            }
        }
        let per_cpu = text(at, "cpuacct.usage_percpu")?;
        out.per_cpu_ns = per_cpu.split_whitespace().filter_map(number).collect();
    }
    if let Some(at) = cpu {
        for (key, n) in pairs(&text(at, "cpu.stat")?) {
            match key {
                "nr_periods" => out.throttling.periods = n,
                "nr_throttled" => out.throttling.throttled_periods = n,
                "throttled_time" => out.throttling.throttled_ns = n,
                _ => {}
            }
        }
    }
    Ok(Some(out))
}

fn memory(at: At<'_>) -> Result<V1Memory> {
    let mut out = V1Memory::default();
    for (key, n) in pairs(&text(at, "memory.stat")?) {
        match (key, key.strip_prefix("total_")) {
            ("hierarchical_memory_limit", _) => out.hierarchical_limit = n,
            ("hierarchical_memsw_limit", _) => out.hierarchical_swap_limit = n,
            (_, Some(key)) => stat_line(&mut out.total, key, n),
            (key, None) => stat_line(&mut out.own, key, n),
        }
    }
    for (key, n) in pairs(&text(at, "memory.oom_control")?) {
        let MemoryOomControl { oom_kill_disable, under_oom, oom_kill } = &mut out.oom_control;
        match key {
            "oom_kill_disable" => *oom_kill_disable = n != 0,
            "under_oom" => *under_oom = n != 0,
            "oom_kill" => *oom_kill = n,
            _ => {}
        }
    }
    out.usage = usage(at, "memory")?.unwrap_or_default();
    out.swap = usage(at, "memory.memsw")?;
    out.kernel = usage(at, "memory.kmem")?;
    out.kernel_tcp = usage(at, "memory.kmem.tcp")?;
    Ok(out)
}

fn stat_line(stat: &mut MemoryStatV1, key: &str, n: u64) {
    let field = match key {
        "cache" => &mut stat.cache,
        "rss" => &mut stat.rss,
        "rss_huge" => &mut stat.rss_huge,
        "shmem" => &mut stat.shmem,
        "mapped_file" => &mut stat.mapped_file,
        "dirty" => &mut stat.dirty,
        "writeback" => &mut stat.writeback,
        "swap" => &mut stat.swap,
        "pgpgin" => &mut stat.pgpgin,
        "pgpgout" => &mut stat.pgpgout,
        "pgfault" => &mut stat.pgfault,
        "pgmajfault" => &mut stat.pgmajfault,
        "inactive_anon" => &mut stat.inactive_anon,
        "active_anon" => &mut stat.active_anon,
        "inactive_file" => &mut stat.inactive_file,
        "active_file" => &mut stat.active_file,
        "unevictable" => &mut stat.unevictable,
        _ => return,
    };
    *field = n;
}

/// The four files of one memory counter; `None` where this kernel does not count it.
fn usage(at: At<'_>, prefix: &str) -> Result<Option<MemoryUsage>> {
    let file = |suffix: &str| text(at, &format!("{prefix}.{suffix}"));
    let Some(usage) = number(&file("usage_in_bytes")?) else { return Ok(None) };
    Ok(Some(MemoryUsage {
        usage,
        limit: number(&file("limit_in_bytes")?).unwrap_or(u64::MAX),
        max: number(&file("max_usage_in_bytes")?).unwrap_or(0),
        failcnt: number(&file("failcnt")?).unwrap_or(0),
    }))
}

pub(super) fn pids(at: At<'_>) -> Result<PidsUsage> {
    let limit = text(at, "pids.max")?;
    Ok(PidsUsage { current: value(at, "pids.current")?, limit: limit.trim_end().parse().ok() })
}

fn blkio(at: At<'_>) -> Result<V1Blkio> {
    let service = |name: &str| -> Result<Vec<BlkioEntry>> {
        // BFQ counts what passes through it, the throttler what passes by all
        // schedulers; a device under neither scheduler has only the second.
        for prefix in ["blkio.bfq", "blkio.throttle", "blkio"] {
            let entries = parse::blkio(&text(at, &format!("{prefix}.{name}"))?);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    let plain = |name: &str| Ok(parse::blkio(&text(at, name)?));
    Ok(V1Blkio {
        io_service_bytes_recursive: service("io_service_bytes_recursive")?,
        io_serviced_recursive: service("io_serviced_recursive")?,
        io_queued_recursive: plain("blkio.io_queued_recursive")?,
        io_service_time_recursive: plain("blkio.io_service_time_recursive")?,
        io_wait_time_recursive: plain("blkio.io_wait_time_recursive")?,
        io_merged_recursive: plain("blkio.io_merged_recursive")?,
        io_time_recursive: plain("blkio.time_recursive")?,
        sectors_recursive: plain("blkio.sectors_recursive")?,
    })
}

fn hugetlb(at: At<'_>) -> Result<Vec<HugetlbUsage>> {
    let entry = |page_size: String| {
        let file = |what: &str| value(at, &format!("hugetlb.{page_size}.{what}"));
        Ok(HugetlbUsage {
            usage: file("usage_in_bytes")?,
            max: file("max_usage_in_bytes")?,
            failcnt: file("failcnt")?,
            page_size,
        })
    };
    super::page_sizes(at, ".usage_in_bytes")?.into_iter().map(entry).collect()
}

/// v2 keeps no high-water mark; the present usage is the best that is known.
fn hugetlb_of_v2(at: At<'_>) -> Result<Vec<HugetlbUsage>> {
    let entry = |huge: V2Hugetlb| HugetlbUsage {
        usage: huge.current,
        max: huge.current,
        failcnt: huge.failcnt,
        page_size: huge.page_size,
    };
    Ok(v2::hugetlb(at)?.into_iter().map(entry).collect())
}
