//! Scheduling: CPUs, policy, I/O priority, memory nodes.

use crate::consts::EINVAL;
use crate::sys::{Outcome, nr, syscall};
use crate::wire::Ids;

/// Words of 64 bits in a CPU or node mask: 8192 numbers.
const WORDS: usize = 128;

/// The kernel's `struct sched_attr`, first version.
#[repr(C)]
pub(crate) struct Attr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: u32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl Attr {
    pub(crate) fn new(policy: u32, flags: u64, levels: [u32; 2], times: [u64; 3]) -> Self {
        let [nice, priority] = levels;
        let [runtime, deadline, period] = times;
        Self {
            size: size_of::<Self>() as u32,
            policy,
            flags,
            nice,
            priority,
            runtime,
            deadline,
            period,
        }
    }
}

/// sched_setattr(2) on this process.
pub(crate) fn policy(attr: &Attr) -> Outcome {
    syscall!(nr::SCHED_SETATTR, 0_u32, attr, 0_u32)?;
    Ok(())
}

/// ioprio_set(2) on this process group.
pub(crate) fn io_priority(value: u32) -> Outcome {
    const WHO_PGRP: u32 = 2;
    syscall!(nr::IOPRIO_SET, WHO_PGRP, 0_u32, value)?;
    Ok(())
}

/// All CPUs: affinity is cut to what the cgroup allows, so asking for
/// everything asks for exactly that.
pub(crate) fn all_cpus() -> Outcome {
    match set_affinity(&[u64::MAX; WORDS]) {
        Err(fault) if fault.errno == EINVAL => Ok(()),
        other => other,
    }
}

/// Exactly these CPUs.
pub(crate) fn affinity(cpus: Ids<'_>) -> Outcome {
    set_affinity(&words(cpus))
}

fn set_affinity(mask: &[u64; WORDS]) -> Outcome {
    syscall!(nr::SCHED_SETAFFINITY, 0_u32, size_of::<[u64; WORDS]>(), mask)?;
    Ok(())
}

/// set_mempolicy(2); without nodes the mask is left out, as MPOL_DEFAULT and
/// MPOL_LOCAL demand.
pub(crate) fn memory_policy(mode: u32, nodes: Ids<'_>) -> Outcome {
    if nodes.is_empty() {
        syscall!(nr::SET_MEMPOLICY, mode, 0_usize, 0_usize)?;
        return Ok(());
    }
    // The kernel reads one bit less than it is told.
    let bits = (nodes.len().min(WORDS * 2) * 32 + 1) as u64;
    syscall!(nr::SET_MEMPOLICY, mode, &words(nodes), bits)?;
    Ok(())
}

fn words(ids: Ids<'_>) -> [u64; WORDS] {
    let mut out = [0_u64; WORDS];
    for index in 0..ids.len() {
        if let (Some(word), Some(half)) = (out.get_mut(index / 2), ids.at(index)) {
            *word |= u64::from(half) << (32 * (index % 2));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_become_words() {
        let all = words(Ids::Slice(&[1, 2, 0x8000_0000]));
        assert_eq!(&all[..3], &[0x2_0000_0001, 0x8000_0000, 0]);
    }
}
