//! Capability names become bits.

use std::str::FromStr;

use boathook_init::{Ids, Step};
use oci_spec::runtime::{Capabilities, Process};

use super::program::Builder;
use crate::{Error, Result};

/// The right to load a filter.
pub(super) const SYS_ADMIN: u64 = 1 << 21;

/// The five sets; a process without any has none, as under runc. What is in
/// `until_exec` is left to init on top: execve(2) takes away what is not in the
/// other sets (capabilities(7), "Transformation of capabilities").
pub(super) fn identity(build: &mut Builder, process: &Process, until_exec: u64) -> Result<()> {
    let user = process.user();
    let caps = process.capabilities().as_ref();
    let set =
        |name: &str, get: fn(&oci_spec::runtime::LinuxCapabilities) -> &Option<Capabilities>| {
            bits(name, caps.and_then(|c| get(c).as_ref()))
        };
    let permitted = set("permitted", |c| c.permitted())?;
    let inheritable = set("inheritable", |c| c.inheritable())?;
    // The kernel raises ambient only what is permitted and inheritable; asking for more is
    // EPERM there and a warning elsewhere, so it is left out here.
    let ambient = set("ambient", |c| c.ambient())? & permitted & inheritable;
    let groups = groups(process);
    check_ids(process, &groups)?;
    build.push(&Step::Identity {
        uid: user.uid(),
        gid: user.gid(),
        groups: Ids::Slice(&groups),
        bounding: set("bounding", |c| c.bounding())?,
        effective: set("effective", |c| c.effective())? & permitted | until_exec,
        permitted: permitted | until_exec,
        inheritable,
        ambient,
    });
    Ok(())
}

/// The largest number is no id: the kernel takes it for "leave it as it is",
/// and that would be root.
fn check_ids(process: &Process, groups: &[u32]) -> Result<()> {
    let user = process.user();
    let all = [("uid", user.uid()), ("gid", user.gid())].into_iter();
    let all = all.chain(groups.iter().map(|gid| ("additionalGids", *gid)));
    for (name, id) in all {
        if id == u32::MAX {
            return Err(Error::field(format!("process.user.{name}"), format!("{id} is not an id")));
        }
    }
    Ok(())
}

/// Exactly the additional groups of the config.
fn groups(process: &Process) -> Vec<u32> {
    process.user().additional_gids().clone().unwrap_or_default()
}

fn bits(name: &str, set: Option<&Capabilities>) -> Result<u64> {
    let mut mask = 0;
    for capability in set.into_iter().flatten() {
        let text = format!("CAP_{capability}");
        let known = caps::Capability::from_str(&text).map_err(|_| {
            Error::field(
                format!("process.capabilities.{name}"),
                format!("unknown capability {text}"),
            )
        })?;
        mask |= known.bitmask();
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_the_kernels_bits() {
        let set: Capabilities =
            serde_json::from_str(r#"["CAP_CHOWN", "CAP_NET_RAW", "CAP_CHECKPOINT_RESTORE"]"#)
                .unwrap();
        assert_eq!(bits("bounding", Some(&set)).unwrap(), 1 | 1 << 13 | 1 << 40);
        assert_eq!(bits("bounding", None).unwrap(), 0);
    }
}
