//! Shared by the tests of `linux.seccomp`.
// Each test program uses its part of it.
#![allow(dead_code)]

pub(crate) mod bpf;
pub(crate) mod model;
pub(crate) mod names;
pub(crate) mod oracle;
pub(crate) mod random;
pub(crate) mod sys;

use oci_spec::runtime::LinuxSeccomp;

/// A profile like the one that container engines use when none is given, for a
/// container with the usual capabilities.
pub(crate) fn default_profile() -> LinuxSeccomp {
    serde_json::from_str(include_str!("default_profile.json")).unwrap()
}
