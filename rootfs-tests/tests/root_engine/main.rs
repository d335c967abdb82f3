//! The engine on the real kernel: containers made, looked at from both sides and ended, without a
//! daemon, a shim or a mock in between.
//!
//! Each test starts from a census of this process's descendants, mounts, cgroups, descriptors,
//! threads and files, and must end with the same one. The program is also its own payload: bound
//! into a container it does what busybox cannot (see [`support::payload`]).

// The whole program is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

/// Declares the modules of tests and the program that runs their tables.
macro_rules! suite {
    ($($module:ident,)+) => {
        $(mod $module;)+

        fn main() -> std::process::ExitCode {
            if let Some(code) = support::payload::called() {
                return code;
            }
            support::harness::main(&[$((stringify!($module), $module::TESTS)),+])
        }
    };
}

suite! {
    binds,
    cgroups,
    devices,
    exec,
    identity,
    lifecycle,
    mounts,
    namespaces,
    process,
    resources,
    streams,
    terminal,
}
