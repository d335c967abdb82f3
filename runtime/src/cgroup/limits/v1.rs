//! Limits as files of the v1 controllers.
//!
//! The order within a controller is the one in which the writes succeed on a
//! new cgroup; where a living cgroup needs another order, `retry` finds it.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

use super::{Purpose, Write, check};
use crate::cgroup::Controller::{
    self, Blkio, Cpu, Cpuset, Hugetlb, Memory, NetCls, NetPrio, Pids, Rdma,
};
use crate::error::{Error, Result};

/// Adds the writes of the controllers that `wanted` names.
pub(super) fn writes(
    resources: &LinuxResources,
    purpose: Purpose,
    wanted: &dyn Fn(Controller) -> bool,
    out: &mut Vec<Write>,
) -> Result<()> {
    let cpu = resources.cpu().as_ref();
    if let Some(cpu) = cpu.filter(|_| wanted(Cpuset)) {
        cpuset(cpu, out)?;
    }
    if let Some(cpu) = cpu.filter(|_| wanted(Cpu)) {
        cpu_time(cpu, out)?;
    }
    if let Some(memory) = resources.memory().as_ref().filter(|_| wanted(Memory)) {
        self::memory(memory, purpose, out)?;
    }
    if let Some(limit) = check::pids_limit(resources)?.filter(|_| wanted(Pids)) {
        let value = if limit < 0 { "max".to_owned() } else { limit.to_string() };
        out.push(Write::new(Pids, "pids.max", value, "linux.resources.pids.limit"));
    }
    if let Some(io) = resources.block_io().as_ref().filter(|_| wanted(Blkio)) {
        block_io(io, out)?;
    }
    if wanted(Hugetlb) {
        for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
            let (size, bytes) = check::hugepage(index, limit)?;
            let field = format!("linux.resources.hugepageLimits[{index}]");
            let file = format!("hugetlb.{size}.limit_in_bytes");
            out.push(Write::new(Hugetlb, file, bytes, field.clone()));
            // Reservations are counted apart from kernel 5.7 on.
            let file = format!("hugetlb.{size}.rsvd.limit_in_bytes");
            out.push(Write::new(Hugetlb, file, bytes, field).optional_if(true));
        }
    }
    if let Some(network) = resources.network() {
        self::network(network, out)?;
    }
    if wanted(Rdma) {
        for (field, line) in check::rdma_lines(resources)? {
            out.push(Write::new(Rdma, "rdma.max", line, field).keyed());
        }
    }
    Ok(())
}

fn cpuset(cpu: &LinuxCpu, out: &mut Vec<Write>) -> Result<()> {
    let lists = [
        ("cpuset.cpus", "linux.resources.cpu.cpus", cpu.cpus()),
        ("cpuset.mems", "linux.resources.cpu.mems", cpu.mems()),
    ];
    for (file, field, list) in lists {
        if let Some(list) = check::cpu_list(field, list.as_deref())? {
            out.push(Write::new(Cpuset, file, list, field));
        }
    }
    Ok(())
}

fn cpu_time(cpu: &LinuxCpu, out: &mut Vec<Write>) -> Result<()> {
    if let Some(shares) = cpu.shares().filter(|s| *s != 0) {
        // The kernel would clamp in silence (kernel/sched/sched.h, MIN_SHARES and MAX_SHARES).
        if !(2..=262_144).contains(&shares) {
            let text = format!("{shares} is not in 2–262144");
            return Err(Error::field("linux.resources.cpu.shares", text));
        }
        out.push(Write::new(Cpu, "cpu.shares", shares, "linux.resources.cpu.shares").retry());
    }
    let bandwidth = check::bandwidth(cpu)?;
    let mut push = |file: &'static str, value: Option<String>, field: &'static str| {
        out.extend(value.map(|value| Write::new(Cpu, file, value, field).retry()));
    };
    push("cpu.cfs_period_us", text(bandwidth.period), "linux.resources.cpu.period");
    push("cpu.cfs_quota_us", text(bandwidth.quota), "linux.resources.cpu.quota");
    push("cpu.cfs_burst_us", text(bandwidth.burst), "linux.resources.cpu.burst");
    push("cpu.idle", text(check::idle(cpu.idle())?), "linux.resources.cpu.idle");
    let period = cpu.realtime_period().filter(|p| *p != 0);
    push("cpu.rt_period_us", text(period), "linux.resources.cpu.realtimePeriod");
    let runtime = cpu.realtime_runtime().filter(|r| *r != 0);
    push("cpu.rt_runtime_us", text(runtime), "linux.resources.cpu.realtimeRuntime");
    Ok(())
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|v| v.to_string())
}

/// Kernel memory and its TCP part are not limited: the kernel dropped the
/// first in 5.16 and runtimes ignore both; `useHierarchy` is always on since 5.11.
fn memory(memory: &LinuxMemory, purpose: Purpose, out: &mut Vec<Write>) -> Result<()> {
    let memory = check::memory(memory, purpose)?;
    if let Some(limit) = memory.limit {
        let field = "linux.resources.memory.limit";
        out.push(Write::new(Memory, "memory.limit_in_bytes", limit, field).retry());
    }
    if let Some(swap) = memory.swap {
        let field = if memory.swap_implied {
            "linux.resources.memory.limit"
        } else {
            "linux.resources.memory.swap"
        };
        // Without swap accounting "no limit" is what there is.
        let write = Write::new(Memory, "memory.memsw.limit_in_bytes", swap, field).retry();
        out.push(write.optional_if(swap < 0));
    }
    if let Some(reservation) = memory.reservation {
        let field = "linux.resources.memory.reservation";
        out.push(Write::new(Memory, "memory.soft_limit_in_bytes", reservation, field));
    }
    if let Some(swappiness) = memory.swappiness {
        let field = "linux.resources.memory.swappiness";
        out.push(Write::new(Memory, "memory.swappiness", swappiness, field));
    }
    if memory.disable_oom_killer {
        let field = "linux.resources.memory.disableOOMKiller";
        // Reads back as a table, so the old value cannot simply be put back.
        out.push(Write::new(Memory, "memory.oom_control", 1, field).keyed());
    }
    Ok(())
}

fn block_io(io: &LinuxBlockIo, out: &mut Vec<Write>) -> Result<()> {
    let field = "linux.resources.blockIO.weight";
    if let Some(weight) = check::weight(field, io.weight())? {
        // CFQ's file went with CFQ in 5.0; BFQ has its own.
        let write = Write::new(Blkio, "blkio.bfq.weight", weight, field);
        out.push(write.or("blkio.weight", weight).keyed());
    }
    let field = "linux.resources.blockIO.leafWeight";
    if let Some(weight) = check::weight(field, io.leaf_weight())? {
        out.push(Write::new(Blkio, "blkio.leaf_weight", weight, field).keyed());
    }
    for (index, item) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{index}]");
        let device = check::device(&field, item.major(), item.minor())?;
        if let Some(weight) = check::weight(&field, item.weight())? {
            let value = format!("{device} {weight}");
            let write = Write::new(Blkio, "blkio.bfq.weight_device", &value, field.clone());
            out.push(write.or("blkio.weight_device", &value).keyed());
        }
        if let Some(weight) = check::weight(&field, item.leaf_weight())? {
            let value = format!("{device} {weight}");
            out.push(Write::new(Blkio, "blkio.leaf_weight_device", value, field).keyed());
        }
    }
    for rule in check::throttles(io)? {
        let value = format!("{} {}", rule.device, rule.rate);
        out.push(Write::new(Blkio, rule.v1_file, value, rule.field).keyed());
    }
    Ok(())
}

fn network(network: &LinuxNetwork, out: &mut Vec<Write>) -> Result<()> {
    if let Some(class) = network.class_id() {
        out.push(Write::new(NetCls, "net_cls.classid", class, "linux.resources.network.classID"));
    }
    for (index, item) in network.priorities().iter().flatten().enumerate() {
        let field = format!("linux.resources.network.priorities[{index}].name");
        let value = format!("{} {}", check::word(&field, item.name())?, item.priority());
        out.push(Write::new(NetPrio, "net_prio.ifpriomap", value, field).keyed());
    }
    Ok(())
}
