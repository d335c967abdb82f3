//! The `vm_*` tier: which tests of the root programs a node is booted for.
//!
//! It is what depends on the kernel, on the layout of the cgroups or on capabilities, and the
//! tests of `vm_node`, which run nowhere else. The rest is proved by the root tier already, and
//! emulation takes ten times as long.

use std::fmt;

use crate::vm::suite::CgroupMode;

/// A run of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The test program's name.
    pub(crate) program: &'static str,
    /// Only tests with this in their names.
    pub(crate) only: Option<String>,
    /// No tests with one of these in their names.
    pub(crate) skip: Vec<&'static str>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program)?;
        if let Some(only) = &self.only {
            write!(f, ", tests with {only} in their names")?;
        }
        if !self.skip.is_empty() {
            write!(f, ", without {}", self.skip.join(" "))?;
        }
        Ok(())
    }
}

/// Tests that are of the virtual machine only; the root tier leaves them out.
pub(crate) const NODE: &str = "vm_node";

/// Modules of `root_engine` that look the same on every host, or take an hour when emulated.
const SAME_EVERYWHERE: [&str; 18] = [
    "bare::",
    "binds::",
    "clocks::",
    "escapes::",
    "failing_calls::",
    "faults::",
    "hooks::",
    "identity::",
    "input::",
    "input_limits::",
    "killed::at_every",
    "mount_options::",
    "mounts::",
    "net_devices::",
    "old_kernels::",
    "scheduling::",
    "seccomp::",
    "streams::",
];

/// Of `root_ctr`: about streams and order, for which the kernel's cgroups are no matter.
const STREAMS: [&str; 6] =
    ["events_in_order", "output", "::input", "log_file", "many_rounds", "pid_file"];

/// What runs in a node of this layout: the tier, or all tests with `name` in their names.
pub(crate) fn parts(cgroup: CgroupMode, name: Option<&str>) -> Vec<Part> {
    let part = |program, only: Option<&str>, skip: &[&'static str]| {
        let mut skip = skip.to_vec();
        if program == "root_engine" && cgroup != CgroupMode::V2 {
            skip.push(NODE);
        }
        Part { program, only: only.map(str::to_owned), skip }
    };
    let tier = [
        part("root_cgroup", None, &[]),
        part("root_engine", None, &SAME_EVERYWHERE),
        part("root_engine", Some("every_hierarchy_is_shown"), &[]),
        part("root_engine", Some("cgroups_of_others"), &[]),
        part("root_process", Some("placement::"), &[]),
        part("root_ctr", Some("sid::boathook::"), &STREAMS),
    ];
    let Some(name) = name else { return tier.to_vec() };
    if tier.iter().any(|part| part.program.contains(name)) {
        return tier.into_iter().filter(|part| part.program.contains(name)).collect();
    }
    let mut programs: Vec<_> = tier.iter().map(|part| part.program).collect();
    programs.dedup();
    programs.into_iter().map(|program| part(program, Some(name), &[])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(parts: &[Part]) -> Vec<&str> {
        parts.iter().map(|part| part.program).collect()
    }

    #[test]
    fn the_nodes_own_tests_run_where_the_node_has_cgroup_v2() {
        let skipped = |mode| parts(mode, None).iter().any(|part| part.skip.contains(&NODE));
        assert!(!skipped(CgroupMode::V2));
        assert!(skipped(CgroupMode::Hybrid) && skipped(CgroupMode::V1));
    }

    #[test]
    fn a_name_asks_for_a_program_or_for_tests_of_all() {
        let whole = parts(CgroupMode::V2, Some("cgroup"));
        assert_eq!(programs(&whole), ["root_cgroup"]);
        assert_eq!(whole[0].only, None);
        let named = parts(CgroupMode::V2, Some("freez"));
        assert_eq!(programs(&named), ["root_cgroup", "root_engine", "root_process", "root_ctr"]);
        assert!(named.iter().all(|part| part.only.as_deref() == Some("freez")));
        assert!(named.iter().all(|part| part.skip.is_empty()));
    }
}
