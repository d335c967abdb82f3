//! Privileges, system call filters and security modules.

use std::fs;

use caps::{CapSet, Capability};

use super::{Area, State};
use crate::plan::SecurityModules;
use crate::sys;

/// Without these nothing can be made for a container; others only take away some of it.
const NEEDED: [Capability; 6] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_KILL,
    Capability::CAP_MKNOD,
];

pub(super) fn privileges(area: &mut Area<'_>) {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    let names = |lacking: Vec<&Capability>| {
        let mut names: Vec<_> = lacking.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        names.join(" ")
    };
    let lacking: Vec<_> = NEEDED.iter().filter(|cap| !held.contains(cap)).collect();
    let needed = match lacking.is_empty() {
        true => Ok(()),
        false => Err(format!("lacking: {}; run it as root", names(lacking))),
    };
    area.needs("privileges", needed, "root");
    let all = caps::runtime::procfs_all_supported(None).unwrap_or_else(|_| caps::all());
    let rest: Vec<_> =
        all.iter().filter(|cap| !held.contains(cap) && !NEEDED.contains(cap)).collect();
    match rest.is_empty() {
        true => area.is("capabilities", "all"),
        false => {
            let text = format!("lacking, so no container can have them: {}", names(rest));
            area.add("capabilities", State::Lacking, text);
        }
    }
}

pub(super) fn look(area: &mut Area<'_>) {
    seccomp(area);
    let modules = SecurityModules::of_this_host();
    for (name, there) in [("AppArmor", modules.apparmor), ("SELinux", modules.selinux)] {
        area.offers(
            name,
            there,
            "labels of processes",
            "containers with a label of it are refused",
        );
    }
    if let Ok(list) = fs::read_to_string("/sys/kernel/security/lsm") {
        area.is("security modules", list.trim_end().replace(',', " "));
    }
}

/// Flags of seccomp(2) that profiles may name.
const FLAGS: [(&str, libc::c_ulong); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_NEW_LISTENER", libc::SECCOMP_FILTER_FLAG_NEW_LISTENER),
    // Useless alone, and refused so: the last two make one question.
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1 << 5 | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER),
];

fn seccomp(area: &mut Area<'_>) {
    area.offers(
        "seccomp",
        sys::knows_seccomp_flags(0),
        "filters of system calls, compiled here",
        "containers with a profile are refused",
    );
    for (name, flags) in FLAGS {
        let refused = "profiles that ask for it are refused";
        area.offers(name, sys::knows_seccomp_flags(flags), "for profiles that ask for it", refused);
    }
}
