//! Usage out of the v2 controllers' files.

use super::parse::{self, number, pairs};
use super::types::{
    CpuStat, MemoryEvents, MemoryStatV2, Pressure, V1Rdma, V2Cpu, V2Hugetlb, V2Io, V2Memory,
    V2Stats,
};
use super::v1::{pids, text};
use crate::cgroup::group::At;
use crate::error::Result;

pub(super) fn read(at: At<'_>) -> Result<V2Stats> {
    // A controller that is off for this group has none of its files.
    let pids = pids(at)?;
    let io_stat = text(at, "io.stat")?;
    let rdma = parse::rdma(&text(at, "rdma.max")?);
    Ok(V2Stats {
        cpu: V2Cpu { stat: cpu_stat(&text(at, "cpu.stat")?), pressure: pressure(at, "cpu")? },
        memory: memory(at)?,
        memory_events: memory_events(&text(at, "memory.events")?),
        pids: at.read("pids.current").is_ok().then_some(pids),
        io: match (io_stat.is_empty(), pressure(at, "io")?) {
            (true, None) => None,
            (_, pressure) => Some(V2Io { usage: parse::io_stat(&io_stat), pressure }),
        },
        hugetlb: hugetlb(at)?,
        rdma: match rdma.is_empty() {
            true => None,
            false => Some(V1Rdma { current: parse::rdma(&text(at, "rdma.current")?), limit: rdma }),
        },
    })
}

fn pressure(at: At<'_>, what: &str) -> Result<Option<Pressure>> {
    let text = text(at, &format!("{what}.pressure"))?;
    Ok((!text.is_empty()).then(|| parse::pressure(&text)))
}

pub(super) fn cpu_stat(text: &str) -> CpuStat {
    let mut out = CpuStat::default();
    for (key, n) in pairs(text) {
        match key {
            "usage_usec" => out.usage_usec = n,
            "user_usec" => out.user_usec = n,
            "system_usec" => out.system_usec = n,
            "nr_periods" => out.nr_periods = n,
            "nr_throttled" => out.nr_throttled = n,
            "throttled_usec" => out.throttled_usec = n,
            "nr_bursts" => out.nr_bursts = n,
            "burst_usec" => out.burst_usec = n,
            _ => {}
        }
    }
    out
}

fn memory(at: At<'_>) -> Result<Option<V2Memory>> {
    let stat = text(at, "memory.stat")?;
    if stat.is_empty() {
        return Ok(None);
    }
    let stat = memory_stat(&stat);
    let value = |name: &str| Ok(number(&text(at, name)?));
    Ok(Some(V2Memory {
        usage: value("memory.current")?.unwrap_or(stat.anon + stat.file),
        usage_limit: value("memory.max")?.unwrap_or(u64::MAX),
        max_usage: value("memory.peak")?.unwrap_or(0),
        swap_usage: value("memory.swap.current")?.unwrap_or(0),
        swap_limit: value("memory.swap.max")?.unwrap_or(u64::MAX),
        swap_max_usage: value("memory.swap.peak")?.unwrap_or(0),
        pressure: pressure(at, "memory")?,
        stat,
    }))
}

pub(super) fn memory_stat(text: &str) -> MemoryStatV2 {
    let mut s = MemoryStatV2::default();
    for (key, n) in pairs(text) {
        let field = match key {
            "anon" => &mut s.anon,
            "file" => &mut s.file,
            "kernel_stack" => &mut s.kernel_stack,
            "slab" => &mut s.slab,
            "sock" => &mut s.sock,
            "shmem" => &mut s.shmem,
            "file_mapped" => &mut s.file_mapped,
            "file_dirty" => &mut s.file_dirty,
            "file_writeback" => &mut s.file_writeback,
            "anon_thp" => &mut s.anon_thp,
            "inactive_anon" => &mut s.inactive_anon,
            "active_anon" => &mut s.active_anon,
            "inactive_file" => &mut s.inactive_file,
            "active_file" => &mut s.active_file,
            "unevictable" => &mut s.unevictable,
            "slab_reclaimable" => &mut s.slab_reclaimable,
            "slab_unreclaimable" => &mut s.slab_unreclaimable,
            "pgfault" => &mut s.pgfault,
            "pgmajfault" => &mut s.pgmajfault,
            // Split by kind since 5.9: the sum is the old value.
            "workingset_refault" | "workingset_refault_anon" | "workingset_refault_file" => {
                s.workingset_refault += n;
                continue;
            }
            "workingset_activate" | "workingset_activate_anon" | "workingset_activate_file" => {
                s.workingset_activate += n;
                continue;
            }
            "workingset_nodereclaim" => &mut s.workingset_nodereclaim,
            "pgrefill" => &mut s.pgrefill,
            "pgscan" => &mut s.pgscan,
            "pgsteal" => &mut s.pgsteal,
            "pgactivate" => &mut s.pgactivate,
            "pgdeactivate" => &mut s.pgdeactivate,
            "pglazyfree" => &mut s.pglazyfree,
            "pglazyfreed" => &mut s.pglazyfreed,
            "thp_fault_alloc" => &mut s.thp_fault_alloc,
            "thp_collapse_alloc" => &mut s.thp_collapse_alloc,
            _ => continue,
        };
        *field = n;
    }
    s
}

fn memory_events(text: &str) -> Option<MemoryEvents> {
    let mut out = MemoryEvents::default();
    for (key, n) in pairs(text) {
        match key {
            "low" => out.low = n,
            "high" => out.high = n,
            "max" => out.max = n,
            "oom" => out.oom = n,
            "oom_kill" => out.oom_kill = n,
            "oom_group_kill" => out.oom_group_kill = n,
            _ => {}
        }
    }
    (!text.is_empty()).then_some(out)
}

pub(super) fn hugetlb(at: At<'_>) -> Result<Vec<V2Hugetlb>> {
    let entry = |page_size: String| {
        let file = |what: &str| text(at, &format!("hugetlb.{page_size}.{what}"));
        let events = file("events")?;
        let failcnt = pairs(&events).find(|(key, _)| *key == "max").map_or(0, |(_, n)| n);
        Ok(V2Hugetlb {
            current: number(&file("current")?).unwrap_or(0),
            max: number(&file("max")?).unwrap_or(u64::MAX),
            failcnt,
            page_size,
        })
    };
    super::page_sizes(at, ".current")?.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_v2_files_land_in_their_fields() {
        let cpu = cpu_stat(
            "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnice_usec 0\nnr_periods 4\nnr_throttled 2\nthrottled_usec 9\n\
             nr_bursts 6\nburst_usec 8\n",
        );
        assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec), (30, 20, 10));
        assert_eq!((cpu.nr_periods, cpu.nr_throttled, cpu.throttled_usec), (4, 2, 9));
        assert_eq!((cpu.nr_bursts, cpu.burst_usec), (6, 8));
        let stat = memory_stat(
            "anon 5\nfile 7\nworkingset_refault_anon 1\nworkingset_refault_file 2\npgfault 9\nunknown 1\n",
        );
        assert_eq!((stat.anon, stat.file, stat.workingset_refault, stat.pgfault), (5, 7, 3, 9));
        let events = memory_events("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\noom_group_kill 4\n");
        let counts = events.map(|e| (e.max, e.oom, e.oom_kill, e.oom_group_kill));
        assert_eq!(counts, Some((3, 1, 2, 4)));
        assert_eq!(memory_events(""), None);
    }
}
