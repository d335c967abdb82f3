//! Limits as files of the v2 controllers.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

use super::{Purpose, Write, check, convert};
use crate::cgroup::Controller::{self, Blkio, Cpu, Cpuset, Hugetlb, Memory, NetCls, Pids, Rdma};
use crate::error::{Error, ErrorKind, Result};

/// A new cgroup's, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

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
        cpu_time(cpu, purpose, out)?;
    }
    if let Some(memory) = resources.memory().as_ref().filter(|_| wanted(Memory)) {
        self::memory(memory, purpose, out)?;
    }
    if let Some(limit) = check::pids_limit(resources)?.filter(|_| wanted(Pids)) {
        // A child cannot be born into a group whose limit is 0; 1 refuses the
        // same forks once it is there.
        let value = if limit == 0 { "1".to_owned() } else { convert::max_or(limit) };
        out.push(Write::new(Pids, "pids.max", value, "linux.resources.pids.limit"));
    }
    if let Some(io) = resources.block_io().as_ref().filter(|_| wanted(Blkio)) {
        block_io(io, out)?;
    }
    if wanted(Hugetlb) {
        for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
            let (size, bytes) = check::hugepage(index, limit)?;
            let field = format!("linux.resources.hugepageLimits[{index}]");
            out.push(Write::new(Hugetlb, format!("hugetlb.{size}.max"), bytes, field.clone()));
            let file = format!("hugetlb.{size}.rsvd.max");
            out.push(Write::new(Hugetlb, file, bytes, field).optional_if(true));
        }
    }
    if let Some(network) = resources.network().as_ref().filter(|_| wanted(NetCls)) {
        refuse_network(network)?;
    }
    if wanted(Rdma) {
        for (field, line) in check::rdma_lines(resources)? {
            out.push(Write::new(Rdma, "rdma.max", line, field).keyed());
        }
    }
    Ok(())
}

fn refuse_network(network: &LinuxNetwork) -> Result<()> {
    if network.class_id().is_some() {
        return Err(v1_only("linux.resources.network.classID"));
    }
    if network.priorities().as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(v1_only("linux.resources.network.priorities"));
    }
    Ok(())
}

fn v1_only(field: &str) -> Error {
    Error::field(field, "exists only on cgroup v1, and this host has v2")
        .with_kind(ErrorKind::Unsupported)
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

fn cpu_time(cpu: &LinuxCpu, purpose: Purpose, out: &mut Vec<Write>) -> Result<()> {
    if cpu.realtime_runtime().is_some_and(|v| v != 0) {
        return Err(v1_only("linux.resources.cpu.realtimeRuntime"));
    }
    if cpu.realtime_period().is_some_and(|v| v != 0) {
        return Err(v1_only("linux.resources.cpu.realtimePeriod"));
    }
    if let Some(weight) = cpu.shares().and_then(convert::cpu_weight) {
        out.push(Write::new(Cpu, "cpu.weight", weight, "linux.resources.cpu.shares").retry());
    }
    let bandwidth = check::bandwidth(cpu)?;
    out.extend(cpu_max(&bandwidth, purpose).map(Write::retry));
    if let Some(burst) = bandwidth.burst {
        let field = "linux.resources.cpu.burst";
        out.push(Write::new(Cpu, "cpu.max.burst", burst, field).retry());
    }
    if let Some(idle) = check::idle(cpu.idle())? {
        out.push(Write::new(Cpu, "cpu.idle", idle, "linux.resources.cpu.idle").retry());
    }
    Ok(())
}

/// `cpu.max` is `quota period`. What an update leaves out stays as it is: the
/// kernel keeps the period when it is not written, the quota must be.
fn cpu_max(bandwidth: &check::Bandwidth, purpose: Purpose) -> Option<Write> {
    let file = "cpu.max";
    let quota_field = "linux.resources.cpu.quota";
    let period_field = "linux.resources.cpu.period";
    match (bandwidth.quota.map(convert::max_or), bandwidth.period, purpose) {
        (None, None, _) => None,
        (Some(quota), Some(period), _) => {
            Some(Write::new(Cpu, file, format!("{quota} {period}"), quota_field))
        }
        (Some(quota), None, Purpose::Create) => {
            Some(Write::new(Cpu, file, format!("{quota} {DEFAULT_PERIOD}"), quota_field))
        }
        (Some(quota), None, Purpose::Update) => Some(Write::new(Cpu, file, quota, quota_field)),
        (None, Some(period), Purpose::Create) => {
            Some(Write::new(Cpu, file, format!("max {period}"), period_field))
        }
        (None, Some(period), Purpose::Update) => {
            Some(Write::new(Cpu, file, period, period_field).keep_first())
        }
    }
}

fn memory(memory: &LinuxMemory, purpose: Purpose, out: &mut Vec<Write>) -> Result<()> {
    let memory = check::memory(memory, purpose)?;
    if memory.disable_oom_killer {
        return Err(v1_only("linux.resources.memory.disableOOMKiller"));
    }
    if memory.swappiness.is_some() {
        return Err(v1_only("linux.resources.memory.swappiness"));
    }
    if let Some(swap) = memory.swap {
        let Some(limit) = memory.limit.or((swap < 0).then_some(-1)) else {
            return Err(Error::field(
                "linux.resources.memory.swap",
                format!("{swap} needs linux.resources.memory.limit"),
            ));
        };
        let value = convert::swap_max(swap, limit);
        // Without a swap controller nothing is swapped for the group, and no limit is needed.
        let write = Write::new(
            Memory,
            "memory.swap.max",
            convert::max_or(value),
            "linux.resources.memory.swap",
        );
        out.push(write.optional_if(value <= 0));
    }
    if let Some(limit) = memory.limit {
        let value = convert::max_or(limit);
        out.push(Write::new(Memory, "memory.max", value, "linux.resources.memory.limit"));
    }
    if let Some(reservation) = memory.reservation {
        let value = convert::max_or(reservation);
        out.push(Write::new(Memory, "memory.low", value, "linux.resources.memory.reservation"));
    }
    Ok(())
}

fn block_io(io: &LinuxBlockIo, out: &mut Vec<Write>) -> Result<()> {
    let field = "linux.resources.blockIO.weight";
    if let Some(weight) = check::weight(field, io.weight())? {
        // BFQ takes OCI's numbers as they are; io.cost has a range of its own.
        let write = Write::new(Blkio, "io.bfq.weight", weight, field);
        out.push(write.or("io.weight", convert::io_weight(weight)).keyed());
    }
    if io.leaf_weight().is_some_and(|w| w != 0) {
        return Err(v1_only("linux.resources.blockIO.leafWeight"));
    }
    for (index, item) in io.weight_device().iter().flatten().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{index}]");
        let device = check::device(&field, item.major(), item.minor())?;
        if item.leaf_weight().is_some_and(|w| w != 0) {
            return Err(v1_only(&format!("{field}.leafWeight")));
        }
        if let Some(weight) = check::weight(&field, item.weight())? {
            let write = Write::new(Blkio, "io.bfq.weight", format!("{device} {weight}"), field);
            let value = format!("{device} {}", convert::io_weight(weight));
            out.push(write.or("io.weight", value).keyed());
        }
    }
    for rule in check::throttles(io)? {
        // OCI's rate 0 lifts a limit, as on v1; `io.max` wants a word for that.
        let rate = if rule.rate == 0 { "max".to_owned() } else { rule.rate.to_string() };
        let value = format!("{} {}={rate}", rule.device, rule.v2_key);
        out.push(Write::new(Blkio, "io.max", value, rule.field).keyed());
    }
    Ok(())
}
