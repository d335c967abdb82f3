//! The engine on the real kernel: containers made, looked at from both sides and ended, without a
//! daemon, a shim or a mock in between.
//!
//! Each test starts from a census of this process's descendants, mounts, cgroups, descriptors,
//! threads and files, and must end with the same one. The program is also its own payload: bound
//! into a container it does what busybox cannot (see [`support::payload`]).

// The whole program is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

mod binds;
mod cgroups;
mod devices;
mod escapes;
mod exec;
mod faults;
mod identity;
mod input;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod seccomp;
mod streams;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = support::payload::called() {
        return code;
    }
    support::harness::main(&[
        ("binds", binds::TESTS),
        ("cgroups", cgroups::TESTS),
        ("devices", devices::TESTS),
        ("escapes::images", escapes::images::TESTS),
        ("escapes::neighbours", escapes::neighbours::TESTS),
        ("escapes::races", escapes::races::TESTS),
        ("exec", exec::TESTS),
        ("faults", faults::TESTS),
        ("identity", identity::TESTS),
        ("input", input::TESTS),
        ("lifecycle", lifecycle::TESTS),
        ("mounts", mounts::TESTS),
        ("namespaces", namespaces::TESTS),
        ("process", process::TESTS),
        ("resources", resources::TESTS),
        ("seccomp", seccomp::TESTS),
        ("streams", streams::TESTS),
        ("terminal", terminal::TESTS),
    ])
}
