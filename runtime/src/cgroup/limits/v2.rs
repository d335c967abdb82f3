//! Limits as files of the v2 controllers.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{Purpose, Write, check, convert};
use crate::cgroup::Controller;
use crate::cgroup::Controller::{Blkio, Cpu, Cpuset, Hugetlb, Memory, Pids, Rdma};
use crate::error::{Error, ErrorKind, Result};

pub(super) fn writes(resources: &LinuxResources, purpose: Purpose) -> Result<Vec<Write>> {
    let mut out = Vec::new();
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, &mut out)?;
    }
    if let Some(memory) = resources.memory() {
        self::memory(memory, purpose, &mut out)?;
    }
    if let Some(limit) = check::pids_limit(resources)? {
        // A child cannot be born into a group whose limit is 0; 1 refuses the
        // same forks once it is there.
        let value = if limit == 0 { "1".to_owned() } else { convert::max_or(limit) };
        out.push(Write::new(Pids, "pids.max", value, "linux.resources.pids.limit"));
    }
    if let Some(io) = resources.block_io() {
        block_io(io, &mut out)?;
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let (size, bytes) = check::hugepage(index, limit)?;
        let field = format!("linux.resources.hugepageLimits[{index}]");
        let file = format!("hugetlb.{size}.max");
        out.push(Write::new(Hugetlb, file, bytes, field.clone()));
        let file = format!("hugetlb.{size}.rsvd.max");
        out.push(Write::new(Hugetlb, file, bytes, field).optional_if(true));
    }
    if let Some(network) = resources.network() {
        if network.class_id().is_some() {
            return Err(v1_only("linux.resources.network.classID"));
        }
        if network.priorities().as_ref().is_some_and(|list| !list.is_empty()) {
            return Err(v1_only("linux.resources.network.priorities"));
        }
    }
    for (field, line) in check::rdma_lines(resources)? {
        out.push(Write::new(Rdma, "rdma.max", line, field).keyed());
    }
    unified(resources, &mut out)?;
    Ok(out)
}

fn v1_only(field: &str) -> Error {
    Error::field(field, "exists only on cgroup v1, and this host has v2")
        .with_kind(ErrorKind::Unsupported)
}

fn cpu(cpu: &LinuxCpu, out: &mut Vec<Write>) -> Result<()> {
    let lists = [
        ("cpuset.cpus", "linux.resources.cpu.cpus", cpu.cpus()),
        ("cpuset.mems", "linux.resources.cpu.mems", cpu.mems()),
    ];
    for (file, field, list) in lists {
        if let Some(list) = check::cpu_list(field, list.as_deref())? {
            out.push(Write::new(Cpuset, file, list, field));
        }
    }
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
    if bandwidth.quota.is_some() || bandwidth.period.is_some() {
        let quota = convert::max_or(bandwidth.quota.unwrap_or(-1));
        let period = bandwidth.period.unwrap_or(100_000);
        let field = if bandwidth.quota.is_some() { "quota" } else { "period" };
        let field = format!("linux.resources.cpu.{field}");
        out.push(Write::new(Cpu, "cpu.max", format!("{quota} {period}"), field).retry());
    }
    if let Some(burst) = bandwidth.burst {
        let field = "linux.resources.cpu.burst";
        out.push(Write::new(Cpu, "cpu.max.burst", burst, field).retry());
    }
    if let Some(idle) = check::idle(cpu.idle())? {
        out.push(Write::new(Cpu, "cpu.idle", idle, "linux.resources.cpu.idle").retry());
    }
    Ok(())
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

/// `unified`: the key is a file's name, the value goes into it as it is.
fn unified(resources: &LinuxResources, out: &mut Vec<Write>) -> Result<()> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (key, value) in entries {
        let field = format!("linux.resources.unified.{key}");
        let name = key.split('.').next().unwrap_or_default();
        if key.contains('/') || key.contains('\0') || !key.contains('.') {
            return Err(Error::field(field, "is not the name of a cgroup file"));
        }
        if name == "cgroup" {
            return Err(Error::field(field, "core files are the runtime's own"));
        }
        let Some(controller) = Controller::from_v2_name(name) else {
            let text = format!("{name:?} is no controller known to this version");
            return Err(Error::field(field, text).with_kind(ErrorKind::Unsupported));
        };
        out.push(Write::new(controller, key.clone(), value, field).keyed());
    }
    Ok(())
}
