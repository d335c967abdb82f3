//! Ids and capabilities, in the one order that leaves no moment with more
//! rights than before.

use crate::consts::{
    CAP_VERSION_3, EINVAL, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP, PR_SET_KEEPCAPS,
};
use crate::sys::{Outcome, nr, syscall};
use crate::wire::Ids;

/// Most supplementary groups (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;

/// The five sets as bit masks.
pub(crate) struct Capabilities {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// Changes groups, group, user and capabilities for good.
pub(crate) fn become_user(uid: u32, gid: u32, groups: Ids<'_>, caps: &Capabilities) -> Outcome {
    drop_bounding(caps.bounding)?;
    syscall!(nr::PRCTL, PR_SET_KEEPCAPS, 1_u32, 0_u32, 0_u32, 0_u32)?;
    // Always called, also with no group: the engine's own groups must not leak (CVE-2023-25173).
    set_groups(groups)?;
    syscall!(nr::SETRESGID, gid, gid, gid)?;
    syscall!(nr::SETRESUID, uid, uid, uid)?;
    syscall!(nr::PRCTL, PR_SET_KEEPCAPS, 0_u32, 0_u32, 0_u32, 0_u32)?;
    set_capabilities(caps)?;
    raise_ambient(caps.ambient)
}

/// Becomes root of a user namespace that was entered with ids it may not know.
pub(crate) fn become_root() -> Outcome {
    syscall!(nr::SETGROUPS, 0_u32, 0_usize)?;
    syscall!(nr::SETRESGID, 0_u32, 0_u32, 0_u32)?;
    syscall!(nr::SETRESUID, 0_u32, 0_u32, 0_u32)?;
    Ok(())
}

/// Raises the hard limit of `resource` to `hard` if it is lower.
pub(crate) fn raise_limit(resource: u32, hard: u64) -> Outcome {
    let mut limit = [0_u64; 2];
    syscall!(nr::PRLIMIT64, 0_u32, resource, 0_usize, &mut limit)?;
    if limit[1] < hard {
        syscall!(nr::SETRLIMIT, resource, &[limit[0], hard])?;
    }
    Ok(())
}

fn drop_bounding(keep: u64) -> Outcome {
    for cap in 0..64_u32 {
        if keep >> cap & 1 == 1 {
            continue;
        }
        match syscall!(nr::PRCTL, PR_CAPBSET_DROP, cap, 0_u32, 0_u32, 0_u32) {
            // Beyond the kernel's last capability.
            Err(fault) if fault.errno == EINVAL => break,
            other => other?,
        };
    }
    Ok(())
}

fn set_groups(groups: Ids<'_>) -> Outcome {
    let count = groups.len().min(MAX_GROUPS + 1);
    // Two u32 in each word of the mapping.
    let memory = crate::sys::map_anonymous(count.max(1) * 4)?;
    for index in 0..count {
        let word = memory.get_mut(index / 2);
        if let (Some(word), Some(group)) = (word, groups.at(index)) {
            *word |= (group as usize) << (32 * (index % 2));
        }
    }
    match memory.first() {
        Some(first) => syscall!(nr::SETGROUPS, count, first)?,
        None => syscall!(nr::SETGROUPS, 0_u32, 0_usize)?,
    };
    Ok(())
}

fn set_capabilities(caps: &Capabilities) -> Outcome {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let data: [[u32; 3]; 2] = [
        [low(caps.effective), low(caps.permitted), low(caps.inheritable)],
        [high(caps.effective), high(caps.permitted), high(caps.inheritable)],
    ];
    syscall!(nr::CAPSET, &header, &data)?;
    Ok(())
}

fn raise_ambient(set: u64) -> Outcome {
    syscall!(nr::PRCTL, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0_u32, 0_u32, 0_u32)?;
    for cap in (0..64_u32).filter(|cap| set >> cap & 1 == 1) {
        syscall!(nr::PRCTL, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0_u32, 0_u32)?;
    }
    Ok(())
}
