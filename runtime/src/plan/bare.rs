//! Whether a container's mount namespace can begin with nothing of the host in it
//! ([`crate::bare`]): not where anything looks for a path of the host from inside.

use boathook_fs::flags;
use boathook_init::Step;
use oci_spec::runtime::{Mount, Spec};

use super::Context;
use super::namespaces::Namespaces;
use super::program::{Builder, Program};
use crate::hooks::Creating;

/// File systems that are made of nothing but names and numbers. All others may take a path, such
/// as a device or a layer, and init would look for it.
const WITHOUT_PATHS: &[&str] = &[
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "hugetlbfs",
    "mqueue",
    "proc",
    "ramfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// Whether the container of `spec` can begin so.
///
/// A user namespace of its own would have no right to join, and would not be shown proc and sysfs;
/// hooks of the create find the container's root at its place in the bundle, and the host's files
/// around it; a root that cannot be pivoted keeps what is behind it.
pub(super) fn suits(spec: &Spec, context: &Context<'_>, namespaces: &Namespaces) -> bool {
    !namespaces.own_user()
        && !context.no_pivot_root
        && !Creating::of(spec).any()
        && spec.mounts().iter().flatten().all(without_paths)
}

fn without_paths(mount: &Mount) -> bool {
    let kind = mount.typ().as_deref().unwrap_or_default();
    let known = kind == "bind" || WITHOUT_PATHS.contains(&kind);
    // What is wrong with the options is told where the mount is planned.
    known
        || flags::parse(mount.options().as_deref().unwrap_or_default())
            .is_ok_and(|options| options.bind.is_some())
}

impl Program {
    /// What the process does that makes the namespace: an empty root that nobody can write to,
    /// and everything else given up.
    pub(crate) fn bare() -> Self {
        let mut build = Builder::new();
        build.push(&Step::Propagation { flags: libc::MS_REC | libc::MS_PRIVATE });
        let tree = build.empty_dir();
        build.push(&Step::MountRoot { tree, at: c"/" });
        build.push(&Step::Pivot {});
        build.push(&Step::Ready {});
        build.program
    }
}
