//! How the kernel schedules the process: policy, I/O priority, CPUs, memory
//! nodes, personality.

use boathook_init::{Ids, Step};
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};

use super::program::Builder;
use crate::{Error, Result};

/// Highest CPU or node number that a list may name (`CONFIG_NR_CPUS` ends at 8192).
const NUMBER_MAX: u32 = 8191;

/// Steps of `process.scheduler` and `process.ioPriority`.
pub(super) fn process_steps(build: &mut Builder, process: &Process) -> Result<()> {
    if let Some(scheduler) = process.scheduler() {
        policy(build, scheduler)?;
    }
    if let Some(io) = process.io_priority() {
        let priority = u32::try_from(io.priority()).ok().filter(|p| *p <= 7).ok_or_else(|| {
            Error::field("process.ioPriority.priority", format!("{} is not 0 to 7", io.priority()))
        })?;
        // IOPRIO_PRIO_VALUE of linux/ioprio.h.
        let class = match io.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        build.push(&Step::IoPriority { value: class << 13 | priority });
    }
    Ok(())
}

/// Whether a process scheduled like that cannot have a child that is.
pub(super) fn lost_at_birth(process: &Process) -> bool {
    process.scheduler().as_ref().is_some_and(|scheduler| {
        let flags = scheduler.flags().as_deref().unwrap_or_default();
        *scheduler.policy() == LinuxSchedulerPolicy::SchedDeadline
            || flags.contains(&LinuxSchedulerFlag::SchedResetOnFork)
    })
}

/// Steps of `linux.memoryPolicy` and `linux.personality`, for a container.
pub(super) fn linux_steps(build: &mut Builder, linux: &Linux) -> Result<()> {
    if let Some(policy) = linux.memory_policy() {
        memory_policy(build, policy)?;
    }
    if let Some(personality) = linux.personality() {
        // No value of `flags` means anything yet (config-linux.md, "Personality"); runc passes over
        // whatever is there.
        let domain = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        };
        build.push(&Step::Personality { domain });
    }
    Ok(())
}

fn policy(build: &mut Builder, scheduler: &Scheduler) -> Result<()> {
    let field = |name: &str| format!("process.scheduler.{name}");
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(Error::field(field("policy"), "Linux has no SCHED_ISO"));
        }
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
    };
    let nice = scheduler.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(Error::field(field("nice"), format!("{nice} is not -20 to 19")));
    }
    let real_time = matches!(policy, libc::SCHED_FIFO | libc::SCHED_RR);
    let priority = scheduler.priority().unwrap_or(0);
    if priority != 0 && !real_time {
        let problem = format!("{priority} is only for SCHED_FIFO and SCHED_RR");
        return Err(Error::field(field("priority"), problem));
    }
    let deadlines = [
        ("runtime", scheduler.runtime()),
        ("deadline", scheduler.deadline()),
        ("period", scheduler.period()),
    ];
    for (name, value) in deadlines {
        if value.is_some_and(|v| v != 0) && policy != libc::SCHED_DEADLINE {
            return Err(Error::field(field(name), "is only for SCHED_DEADLINE"));
        }
    }
    build.push(&Step::Scheduler {
        policy: policy.cast_unsigned(),
        flags: scheduler.flags().iter().flatten().fold(0, |all, flag| all | flag_bit(*flag)),
        nice: nice.cast_unsigned(),
        priority: u32::try_from(priority)
            .map_err(|_| Error::field(field("priority"), format!("{priority} is negative")))?,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    });
    Ok(())
}

/// `SCHED_FLAG_*` of linux/sched.h.
fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn memory_policy(build: &mut Builder, policy: &oci_spec::runtime::LinuxMemoryPolicy) -> Result<()> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => libc::MPOL_DEFAULT,
        MemoryPolicyModeType::MpolPreferred => libc::MPOL_PREFERRED,
        MemoryPolicyModeType::MpolBind => libc::MPOL_BIND,
        MemoryPolicyModeType::MpolInterleave => libc::MPOL_INTERLEAVE,
        MemoryPolicyModeType::MpolLocal => libc::MPOL_LOCAL,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |all, flag| {
        all | match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        }
    });
    let nodes = match policy.nodes().as_deref() {
        Some(list) => mask("linux.memoryPolicy.nodes", list)?,
        None => Vec::new(),
    };
    build.push(&Step::MemoryPolicy {
        mode: mode.cast_unsigned() | flags,
        nodes: Ids::Slice(&nodes),
    });
    Ok(())
}

/// A list such as `0-3,7` as words of 32 bits, padded to whole 64-bit words.
pub(super) fn mask(field: &str, list: &str) -> Result<Vec<u32>> {
    let bad = |part: &str| {
        Error::field(field, format!("{part:?} is not a number or a range up to {NUMBER_MAX}"))
    };
    let number = |part: &str, text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let value = if digits { text.parse::<u32>().ok() } else { None };
        value.filter(|v| *v <= NUMBER_MAX).ok_or_else(|| bad(part))
    };
    let mut words = vec![0_u32; 2];
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(part, first)?, number(part, last)?),
            None => (number(part, part)?, number(part, part)?),
        };
        if first > last {
            return Err(bad(part));
        }
        for bit in first..=last {
            let word = (bit / 32) as usize;
            if word >= words.len() {
                words.resize((word + 2) & !1, 0);
            }
            words[word] |= 1 << (bit % 32);
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        assert_eq!(mask("f", "0-3,7").unwrap(), [0x8f, 0]);
        assert_eq!(mask("f", "").unwrap(), [0, 0]);
        assert_eq!(mask("f", "64, 33").unwrap(), [0, 2, 1, 0]);
        for bad in ["a", "3-1", "1-", "-1", "+1", "8192", "99999999999"] {
            assert!(mask("f", bad).is_err(), "{bad}");
        }
    }
}
