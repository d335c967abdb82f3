//! The engine on kernels that lack what this one has, by a filter in front of the system calls.
//!
//! Where a newer facility is only the better way, the whole engine is to do the same without it:
//! the tests of this program are run once more as on Linux 5.10, the oldest supported. Where there
//! is no other way, the error is to say so and nothing to be left.

use std::process::Command;

use super::support::arena::UNPREPARED;
use super::support::harness::again;
use super::support::{Arena, Case, census, payload, sys, tests};

tests!(
    the_engine_as_on_linux_5_10,
    without_preparation_as_on_linux_5_10,
    each_call_that_nothing_replaces,
    the_proc_of_a_shared_pid_namespace_before_6_18,
);

/// System calls that came after Linux 5.10, in the order of their coming (syscalls(2)). Those
/// without a name in libc stand as numbers, which are the same on all architectures.
const AFTER_5_10: &[i64] = &[
    libc::SYS_epoll_pwait2,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl_fd,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    libc::SYS_memfd_secret,
    libc::SYS_process_mrelease,
    libc::SYS_futex_waitv,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_fchmodat2,
    // cachestat,
    451,
    // map_shadow_stack, futex_wake, futex_wait, futex_requeue, statmount, listmount,
    // lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules, mseal, setxattrat, getxattrat,
    // listxattrat, removexattrat, open_tree_attr, file_getattr, file_setattr
    453,
    454,
    455,
    456,
    457,
    458,
    459,
    460,
    461,
    462,
    463,
    464,
    465,
    466,
    467,
    468,
    469,
];

/// Flags that came after Linux 5.10: call, which argument, bits. Kernels before answer EINVAL.
const NEW_FLAGS: &[(i64, u32, u32)] = &[
    // CLOSE_RANGE_CLOEXEC, 5.11.
    (libc::SYS_close_range, 2, 4),
    // MFD_NOEXEC_SEAL and MFD_EXEC, 6.3.
    (libc::SYS_memfd_create, 1, 8 | 16),
    // A descriptor for fsconfig(2): the option pidns of procfs, 6.18.
    (libc::SYS_fsconfig, 4, u32::MAX),
];

/// Tests of what Linux 5.10 cannot do at all (that it is refused in plain words is under test in
/// their own files), of the filter that stands here for the old kernel, and of what takes long.
const NOT_FOR_5_10: &[&str] = &[
    "binds::recursive_options_reach_the_mounts_below",
    "mount_options::recursive_options_take_back_and_set",
    "idmap::",
    // Covers the host's sysfs before it is attached, which takes Linux 5.12.
    "users::with_the_hosts_network",
    "escapes::images::files_and_directories_are_closed_to_others",
    // Before Linux 6.18 the proc of a joined pid namespace is mounted by a helper in it, for a
    // moment and with more rights than the container has; docs/security.md says so.
    "a_tracer_never_sees_the_engine_behind_another_container",
    "escapes::races",
    "escapes::first_container",
    "failing_calls",
    "faults",
    "old_kernels",
    // Wants a host with cgroup v2 alone.
    "vm_node",
];

/// Set for a run of this program that is to find an old kernel.
const VARIABLE: &str = "ROOT_ENGINE_AS_ON_5_10";

/// Called first of all.
pub(crate) fn prepare() {
    if std::env::var_os(VARIABLE).is_some() {
        sys::take_away(AFTER_5_10, NEW_FLAGS).unwrap();
    }
}

/// Red if anything that containers, execs, mounts, devices, masks or terminals need has no other
/// way on Linux 5.10. Seen red with `sealed` of `image.rs` not trying without the newer flag.
fn the_engine_as_on_linux_5_10(_: &Arena) {
    as_on_5_10(&[], &[], 60);
}

/// What mounts, the same by engines that make their first container.
fn without_preparation_as_on_linux_5_10(_: &Arena) {
    as_on_5_10(&[UNPREPARED], &["mount"], 25);
}

/// Runs this program once more; `least` is how many tests there are, at least.
fn as_on_5_10(variables: &[&str], filter: &[&str], least: usize) {
    let skip = NOT_FOR_5_10.iter().flat_map(|name| ["--skip", name]);
    let arguments: Vec<_> = filter.iter().copied().chain(skip).collect();
    again(&[variables, &[VARIABLE]].concat(), &arguments, least);
}

/// Without what every supported kernel has there is nothing to fall back to: an outer container's
/// filter can take it away all the same. Red if that is anything but an error that says which call
/// is missing, of the class for it, and if something is left. Seen red without the class for ENOSYS in
/// `error::kind_of`, and without `close_listed` in `open_files::close_all_but`.
fn each_call_that_nothing_replaces(arena: &Arena) {
    let case = arena.sleeper();
    case.save();
    for (call, name) in [
        (libc::SYS_openat2, "openat2"),
        (libc::SYS_clone3, "clone"),
        (libc::SYS_fsopen, "fsopen"),
        (libc::SYS_fsconfig, "fsconfig"),
        (libc::SYS_fsmount, "fsmount"),
        (libc::SYS_open_tree, "open_tree"),
        (libc::SYS_move_mount, "move_mount"),
        (libc::SYS_memfd_create, "memfd_create"),
        (libc::SYS_faccessat2, "faccessat2"),
        (libc::SYS_pivot_root, "pivot_root"),
    ] {
        let answer = without(&case, &call.to_string());
        assert!(answer.starts_with("error Unsupported "), "{name}: {answer}");
        assert!(answer.contains(name), "{name}: {answer}");
        assert_eq!(census::cgroups(&case.id), [""; 0], "{name}");
        assert!(!arena.state().exists(), "{name}");
    }
    // Known by another way: what closes descriptors, and what waits for a process.
    for call in [libc::SYS_close_range, libc::SYS_mount_setattr] {
        let answer = without(&case, &call.to_string());
        assert!(answer.starts_with("ok"), "{call}: {answer}");
    }
}

/// The option `pidns` of procfs is an argument of fsconfig(2) that all other uses leave at 0. Red if
/// nothing replaces it, or the proc file system is about the engine's own pids: the program is found
/// by way of the first process of the namespace, in whose root alone it is. Seen red without the child
/// in `mounts::proc_of`.
fn the_proc_of_a_shared_pid_namespace_before_6_18(arena: &Arena) {
    let first = arena.sleeper();
    std::fs::copy(first.file("/bin/busybox"), first.file("/mark")).unwrap();
    let live = first.start();
    let mut case = arena.case(&["/proc/1/root/mark", "true"]);
    case.namespace("pid", Some(&format!("/proc/{}/ns/pid", live.process.pid())));
    case.save();
    const AUX: u32 = 4;
    let answer = without(&case, &format!("{}/{AUX}", libc::SYS_fsconfig));
    assert!(answer.starts_with("ok"), "{answer}");
    live.delete();
}

/// What a create without this system call answers.
fn without(case: &Case<'_>, call: &str) -> String {
    let state = case.arena.state();
    let [bundle, state] = [case.bundle(), &state].map(|path| path.to_str().unwrap());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(payload::args("without", &[call, bundle, state]).iter().skip(1))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
}
