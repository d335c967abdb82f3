//! Sysctls: split by structure, namespaced ones only.

use std::ffi::CString;

use boathook_init::{Slot, Step};
use oci_spec::runtime::Linux;

use super::namespaces::Namespaces;
use super::program::Builder;
use super::text;
use crate::{Error, Result};

/// Sysctls of the IPC namespace.
const IPC: [&str; 9] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
    "kernel/shm_next_id",
];

/// Adds a step for each sysctl, sorted so that equal configs make equal plans.
/// `proc` is the container's proc file system, if it has a writable one.
pub(super) fn steps(
    build: &mut Builder,
    linux: &Linux,
    namespaces: &Namespaces,
    proc: Option<Slot>,
) -> Result<()> {
    let mut all: Vec<_> = linux.sysctl().iter().flatten().collect();
    if all.is_empty() {
        return Ok(());
    }
    all.sort();
    let proc = proc.unwrap_or_else(|| build.new_fs(c"proc", c"proc", &[], 0));
    for (key, value) in all {
        let field = format!("linux.sysctl.{key}");
        let path = path_of(&field, key, namespaces)?;
        let value = text::c_string(&field, value.as_str())?;
        build.push(&Step::Sysctl { proc, path: &path, value: &value });
    }
    Ok(())
}

/// The file below /proc, if the container owns the namespace that it belongs to.
fn path_of(field: &str, key: &str, namespaces: &Namespaces) -> Result<CString> {
    let path = slashed(key);
    let bad = |name: &str| name.is_empty() || name == "." || name == "..";
    if path.split('/').any(bad) || path.contains(['\0', '=', '\n']) {
        return Err(Error::field(field, "not the name of a sysctl"));
    }
    let (allowed, needed) = if path.starts_with("net/") {
        (namespaces.own_net(), "network")
    } else if path.starts_with("fs/mqueue/") || IPC.contains(&path.as_str()) {
        (namespaces.own_ipc(), "ipc")
    } else if path == "kernel/domainname" {
        (namespaces.own_uts(), "uts")
    } else {
        let problem = "not in a namespace of the container, so it would change the host";
        return Err(Error::field(field, problem));
    };
    if !allowed {
        let problem = format!("needs a {needed} namespace of the container's own");
        return Err(Error::field(field, problem));
    }
    text::c_string(field, format!("sys/{path}"))
}

/// The rule of sysctl(8): the first separator decides; if it is a dot, dots
/// and slashes change places (`net.ipv4.conf.eth0/1.forwarding`).
fn slashed(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes().get(at) == Some(&b'.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_follow_sysctl_8() {
        assert_eq!(slashed("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(slashed("net/ipv4/ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(slashed("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(slashed("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
