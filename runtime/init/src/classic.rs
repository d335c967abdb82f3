//! Changes of attached mounts by mount(2), for kernels before 5.12.

use crate::consts::{
    MOUNT_ATTR_ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_STRICTATIME, MS_BIND, MS_NOATIME, MS_NODIRATIME, MS_NOSYMFOLLOW, MS_REC,
    MS_RELATIME, MS_REMOUNT, MS_STRICTATIME, ST_NOATIME, ST_NODIRATIME, ST_NOSYMFOLLOW,
    ST_RELATIME,
};
use crate::mounts::{self, Change};
use crate::sys::{Outcome, PathBuf, mount_flags, nr, syscall};
use crate::wire::List;

/// Read-only, nosuid, nodev and noexec are the same bits everywhere.
const COMMON: u64 = 0xf;

/// As `mounts::set_attr`, whose recursive attributes this cannot do.
///
/// mount(2) takes a path only. The one that leads to the descriptor and nowhere
/// else is in a proc file system that nobody but this process has.
pub(crate) fn set_attr(fd: i32, change: &Change) -> Outcome {
    let proc = mounts::new_fs(c"proc", c"", List::Strings(&[]), 0)?;
    syscall!(nr::FCHDIR, proc.number())?;
    let mut path = PathBuf::new();
    path.push(b"self/fd/")?;
    path.push_number(fd.unsigned_abs() as usize)?;
    let path = path.as_c_str();
    if change.propagation != 0 {
        let flags = change.propagation | if change.recursive { MS_REC } else { 0 };
        syscall!(nr::MOUNT, c"", path, 0_usize, flags, 0_usize)?;
    }
    if change.set | change.clear != 0 {
        // It replaces all flags, so those that shall stay are named as well.
        let attributes = (of_statfs(mount_flags(fd)?) & !change.clear) | change.set;
        let flags = MS_REMOUNT | MS_BIND | for_mount(attributes);
        syscall!(nr::MOUNT, c"", path, 0_usize, flags, 0_usize)?;
    }
    syscall!(nr::CHDIR, c"/").map(drop)
}

/// `ST_*` of statfs(2) as `MOUNT_ATTR_*`.
fn of_statfs(flags: u64) -> u64 {
    let mut out = flags & COMMON;
    for (st, attr) in
        [(ST_NODIRATIME, MOUNT_ATTR_NODIRATIME), (ST_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW)]
    {
        out |= if flags & st != 0 { attr } else { 0 };
    }
    out | match (flags & ST_NOATIME != 0, flags & ST_RELATIME != 0) {
        (true, _) => MOUNT_ATTR_NOATIME,
        (false, true) => 0,
        (false, false) => MOUNT_ATTR_STRICTATIME,
    }
}

/// `MOUNT_ATTR_*` as `MS_*` of mount(2).
fn for_mount(attributes: u64) -> u64 {
    let mut out = attributes & COMMON;
    for (attr, ms) in
        [(MOUNT_ATTR_NODIRATIME, MS_NODIRATIME), (MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW)]
    {
        out |= if attributes & attr != 0 { ms } else { 0 };
    }
    out | match attributes & MOUNT_ATTR_ATIME {
        MOUNT_ATTR_NOATIME => MS_NOATIME,
        MOUNT_ATTR_STRICTATIME => MS_STRICTATIME,
        _ => MS_RELATIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red if a flag gets lost on the way from what is to what shall be.
    #[test]
    fn every_flag_of_a_mount_survives_both_ways() {
        for (st, attr, ms) in [
            (ST_RELATIME, 0, MS_RELATIME),
            (ST_NOATIME | ST_RELATIME, MOUNT_ATTR_NOATIME, MS_NOATIME),
            (0, MOUNT_ATTR_STRICTATIME, MS_STRICTATIME),
            (ST_RELATIME | 0xf, 0xf, 0xf | MS_RELATIME),
            (ST_RELATIME | ST_NODIRATIME, MOUNT_ATTR_NODIRATIME, MS_NODIRATIME | MS_RELATIME),
            (ST_RELATIME | ST_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW | MS_RELATIME),
        ] {
            assert_eq!((of_statfs(st), for_mount(attr)), (attr, ms));
        }
    }
}
