//! Checks that do not depend on the cgroup generation. Each error names the field.

use std::fmt::Display;

use oci_spec::runtime::{LinuxBlockIo, LinuxHugepageLimit, LinuxMemory, LinuxResources};

use super::Purpose;
use crate::error::{Error, Result};

/// Every CPU and node number the kernel can have is below this (`NR_CPUS` is at most 8192).
const MAX_CPU: u32 = 65_536;

/// Memory limits with the rules between them applied. `None` leaves a file alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) limit: Option<i64>,
    pub(super) reservation: Option<i64>,
    /// Memory plus swap.
    pub(super) swap: Option<i64>,
    /// `swap` was not in the config but follows from an unlimited `limit`.
    pub(super) swap_implied: bool,
    pub(super) swappiness: Option<u64>,
    pub(super) disable_oom_killer: bool,
}

/// Applies the OCI rules: 0 is "unset", −1 "no limit", `swap` includes memory.
pub(super) fn memory(memory: &LinuxMemory, purpose: Purpose) -> Result<Memory> {
    let limit = bytes("linux.resources.memory.limit", memory.limit())?;
    let reservation = bytes("linux.resources.memory.reservation", memory.reservation())?;
    let mut swap = bytes("linux.resources.memory.swap", memory.swap())?;
    let swap_implied = swap.is_none() && limit == Some(-1);
    if swap_implied {
        swap = Some(-1);
    }
    if let Some(swap) = swap.filter(|s| *s > 0) {
        let field = "linux.resources.memory.swap";
        match limit {
            Some(limit) if limit > swap => {
                let text = format!(
                    "{swap} is less than linux.resources.memory.limit {limit}; swap counts memory plus swap"
                );
                return Err(Error::field(field, text));
            }
            Some(-1) => {
                let text = format!("{swap} needs a limit, but linux.resources.memory.limit is -1");
                return Err(Error::field(field, text));
            }
            None if purpose == Purpose::Create => {
                let text = format!("{swap} needs linux.resources.memory.limit");
                return Err(Error::field(field, text));
            }
            _ => {}
        }
    }
    if let Some(value) = memory.swappiness().filter(|v| *v > 100) {
        let text = format!("{value} is not in 0–100");
        return Err(Error::field("linux.resources.memory.swappiness", text));
    }
    Ok(Memory {
        limit,
        reservation,
        swap,
        swap_implied,
        swappiness: memory.swappiness(),
        disable_oom_killer: memory.disable_oom_killer().unwrap_or(false),
    })
}

fn bytes(field: &str, value: Option<i64>) -> Result<Option<i64>> {
    match value {
        None | Some(0) => Ok(None),
        Some(v) if v < -1 => Err(Error::field(field, format!("{v} is negative; -1 is no limit"))),
        some => Ok(some),
    }
}

/// `pids.limit`: −1 is no limit, 0 is a limit (runtime-spec 1.3).
pub(super) fn pids_limit(resources: &LinuxResources) -> Result<Option<i64>> {
    let limit = resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit);
    match limit {
        Some(v) if v < -1 => Err(Error::field(
            "linux.resources.pids.limit",
            format!("{v} is negative; -1 is no limit"),
        )),
        other => Ok(other),
    }
}

/// CPU bandwidth: quota, burst and period in microseconds. 0 is "unset" for quota and period.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bandwidth {
    pub(super) quota: Option<i64>,
    pub(super) period: Option<u64>,
    pub(super) burst: Option<u64>,
}

pub(super) fn bandwidth(cpu: &oci_spec::runtime::LinuxCpu) -> Result<Bandwidth> {
    let quota = cpu.quota().filter(|q| *q != 0);
    let period = cpu.period().filter(|p| *p != 0);
    if let Some(quota) = quota.filter(|q| *q < -1) {
        let text = format!("{quota} is negative; -1 is no limit");
        return Err(Error::field("linux.resources.cpu.quota", text));
    }
    if let (Some(burst), Some(quota)) = (cpu.burst(), quota.filter(|q| *q > 0))
        && burst > quota.unsigned_abs()
    {
        let text = format!("{burst} is more than linux.resources.cpu.quota {quota}");
        return Err(Error::field("linux.resources.cpu.burst", text));
    }
    Ok(Bandwidth { quota, period, burst: cpu.burst() })
}

/// `cpu.idle` is 0 or 1.
pub(super) fn idle(value: Option<i64>) -> Result<Option<i64>> {
    match value {
        Some(v) if v != 0 && v != 1 => {
            Err(Error::field("linux.resources.cpu.idle", format!("{v} is neither 0 nor 1")))
        }
        other => Ok(other),
    }
}

/// A list of CPUs or memory nodes, `0-3,7,8-15:2/4` (cpuset(7)). Empty is "unset".
pub(super) fn cpu_list<'a>(field: &str, list: Option<&'a str>) -> Result<Option<&'a str>> {
    let Some(list) = list.filter(|l| !l.is_empty()) else { return Ok(None) };
    for item in list.split(',') {
        if !valid_item(item) {
            let text = format!(
                "{list:?}: {item:?} is neither a number below {MAX_CPU} nor a range such as 0-3"
            );
            return Err(Error::field(field, text));
        }
    }
    Ok(Some(list))
}

fn valid_item(item: &str) -> bool {
    let (range, stride) = item.split_once(':').map_or((item, None), |(r, s)| (r, Some(s)));
    let (first, last) = range.split_once('-').map_or((range, None), |(a, b)| (a, Some(b)));
    let Some(first) = number(first).filter(|n| *n < MAX_CPU) else { return false };
    let last_fits = match last {
        Some(last) => number(last).is_some_and(|n| n >= first && n < MAX_CPU),
        None => stride.is_none(),
    };
    let stride_fits = stride.is_none_or(|s| {
        s.split_once('/')
            .and_then(|(used, of)| Some((number(used)?, number(of)?)))
            .is_some_and(|(used, of)| used > 0 && used <= of)
    });
    last_fits && stride_fits
}

/// Digits only: `u32::from_str` would take a plus sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Checks a huge page limit's page size, `2MB`, and its value.
pub(super) fn hugepage(index: usize, limit: &LinuxHugepageLimit) -> Result<(&str, u64)> {
    let size = limit.page_size().as_str();
    let digits = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
    let known = digits.is_some_and(|d| !d.starts_with('0') && number(d).is_some());
    if !known {
        let field = format!("linux.resources.hugepageLimits[{index}].pageSize");
        return Err(Error::field(field, format!("{size:?} is not a size such as 2MB or 1GB")));
    }
    let bytes = u64::try_from(limit.limit()).map_err(|_| {
        let field = format!("linux.resources.hugepageLimits[{index}].limit");
        Error::field(field, format!("{} is negative", limit.limit()))
    })?;
    Ok((size, bytes))
}

/// A `blockIO` weight: 10–1000, 0 is "unset".
pub(super) fn weight(field: impl Display, value: Option<u16>) -> Result<Option<u16>> {
    match value {
        None | Some(0) => Ok(None),
        Some(v) if !(10..=1000).contains(&v) => {
            Err(Error::field(field, format!("{v} is not in 10–1000")))
        }
        some => Ok(some),
    }
}

/// `major:minor`, both not negative.
pub(super) fn device(field: impl Display, major: i64, minor: i64) -> Result<String> {
    if major < 0 || minor < 0 || major > i64::from(u32::MAX) || minor > i64::from(u32::MAX) {
        return Err(Error::field(field, format!("{major}:{minor} is no device number")));
    }
    Ok(format!("{major}:{minor}"))
}

/// One throttle rule: which list of `blockIO`, the device, the rate.
pub(super) struct Throttle {
    pub(super) field: String,
    /// v1 file name.
    pub(super) v1_file: &'static str,
    /// v2 `io.max` key.
    pub(super) v2_key: &'static str,
    pub(super) device: String,
    pub(super) rate: u64,
}

pub(super) fn throttles(io: &LinuxBlockIo) -> Result<Vec<Throttle>> {
    let lists = [
        ("throttleReadBpsDevice", "read_bps", "rbps", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "write_bps", "wbps", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "read_iops", "riops", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "write_iops", "wiops", io.throttle_write_iops_device()),
    ];
    let mut out = Vec::new();
    for (name, v1, v2_key, list) in lists {
        for (index, item) in list.iter().flatten().enumerate() {
            let field = format!("linux.resources.blockIO.{name}[{index}]");
            let device = device(&field, item.major(), item.minor())?;
            let v1_file = match v1 {
                "read_bps" => "blkio.throttle.read_bps_device",
                "write_bps" => "blkio.throttle.write_bps_device",
                "read_iops" => "blkio.throttle.read_iops_device",
                _ => "blkio.throttle.write_iops_device",
            };
            out.push(Throttle { field, v1_file, v2_key, device, rate: item.rate() });
        }
    }
    Ok(out)
}

/// A name that goes into a cgroup file beside other words: no blank, no control character.
pub(super) fn word(field: impl Display, name: &str) -> Result<&str> {
    let clean = !name.is_empty() && name.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if clean { Ok(name) } else { Err(Error::field(field, format!("{name:?} is no name"))) }
}

/// `rdma.max` lines, sorted by device so that the order of a hash map does not show.
pub(super) fn rdma_lines(resources: &LinuxResources) -> Result<Vec<(String, String)>> {
    let mut lines = Vec::new();
    for (device, limit) in resources.rdma().iter().flatten() {
        let field = format!("linux.resources.rdma.{device}");
        let mut line = word(&field, device)?.to_owned();
        if let Some(handles) = limit.hca_handles() {
            line.push_str(&format!(" hca_handle={handles}"));
        }
        if let Some(objects) = limit.hca_objects() {
            line.push_str(&format!(" hca_object={objects}"));
        }
        if line.len() == device.len() {
            return Err(Error::field(field, "neither hcaHandles nor hcaObjects is given"));
        }
        lines.push((field, line));
    }
    lines.sort();
    Ok(lines)
}
