//! The engine on the real kernel: containers made, looked at from both sides and ended, without a
//! daemon, a shim or a mock in between.
//!
//! Each test starts from a census of this process's descendants, mounts, cgroups, descriptors,
//! threads and files, and must end with the same one. The program is also its own payload: bound
//! into a container it does what busybox cannot (see [`support::payload`]).
//!
//! The tests of `vm_node` need what only a node has, and run in the machine of `cargo xtask vm`.

// The whole program is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

mod bare;
mod binds;
mod cgroups;
mod clocks;
mod devices;
mod escapes;
mod exec;
mod failing_calls;
mod faults;
mod hooks;
mod identity;
mod idmap;
mod input;
mod input_limits;
mod killed;
mod lifecycle;
mod mount_options;
mod mounts;
mod namespaces;
mod net_devices;
mod old_kernels;
mod process;
mod resources;
mod scheduling;
mod seccomp;
mod streams;
mod terminal;
mod users;
mod vm_node;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = support::payload::called() {
        return code;
    }
    old_kernels::prepare();
    let races = if escapes::races::wanted() { escapes::races::TESTS } else { escapes::races::ALL };
    support::harness::main(&[
        ("bare", bare::TESTS),
        ("binds", binds::TESTS),
        ("cgroups", cgroups::TESTS),
        ("clocks", clocks::TESTS),
        ("devices", devices::TESTS),
        ("escapes", escapes::TESTS),
        ("escapes::images", escapes::images::TESTS),
        ("escapes::neighbours", escapes::neighbours::TESTS),
        ("escapes::races", races),
        ("escapes::roots", escapes::roots::TESTS),
        ("exec", exec::TESTS),
        ("failing_calls", failing_calls::TESTS),
        ("faults", faults::TESTS),
        ("hooks", hooks::TESTS),
        ("identity", identity::TESTS),
        ("idmap", idmap::TESTS),
        ("input", input::TESTS),
        ("input_limits", input_limits::TESTS),
        ("killed", killed::TESTS),
        ("lifecycle", lifecycle::TESTS),
        ("mount_options", mount_options::TESTS),
        ("mounts", mounts::TESTS),
        ("namespaces", namespaces::TESTS),
        ("net_devices", net_devices::TESTS),
        ("old_kernels", old_kernels::TESTS),
        ("process", process::TESTS),
        ("resources", resources::TESTS),
        ("scheduling", scheduling::TESTS),
        ("seccomp", seccomp::TESTS),
        ("streams", streams::TESTS),
        ("terminal", terminal::TESTS),
        ("users", users::TESTS),
        ("vm_node", vm_node::TESTS),
    ])
}
