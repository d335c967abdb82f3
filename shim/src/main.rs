//! containerd-shim-boathook-v2: the shim containerd executes.

use std::process::ExitCode;

fn main() -> ExitCode {
    boathook_shim::program::run(std::env::args_os().skip(1))
}
