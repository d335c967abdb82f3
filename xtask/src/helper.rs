//! `cargo xtask demo` and `cargo xtask bench`: prepare, build, and hand over to
//! the program of that name in `rootfs-tests`.

use std::process::Command;

use crate::apt;
use crate::binaries;
use crate::error::Error;
use crate::process;
use crate::tools::Tool;

/// Measured beside ours: the runc shim written in Rust.
const RUST_SHIM: Tool = Tool {
    package: "containerd-runc-shim",
    version: "0.2.0",
    program: "containerd-shim-runc-v2-rs",
    release: true,
};

pub(crate) fn demo(rest: &[String]) -> Result<(), Error> {
    run("demo", rest, |_| {})
}

/// The other shim is measured where it can be had; the rest does not need it.
pub(crate) fn bench(rest: &[String]) -> Result<(), Error> {
    run("bench", rest, |command| match RUST_SHIM.get() {
        Ok(program) => {
            command.env("BOATHOOK_RUST_SHIM", program);
        }
        Err(error) => println!("bench: without the runc shim in Rust: {error}"),
    })
}

/// Runs the helper program `name` with `rest` as its arguments.
fn run(name: &str, rest: &[String], prepare: impl Fn(&mut Command)) -> Result<(), Error> {
    apt::require_root(name, "it starts a private containerd and real containers")?;
    apt::ensure(apt::BUILD)?;
    apt::ensure(apt::ROOT)?;
    let release = binaries::release()?;
    let mut command = Command::new(binaries::helper(name)?);
    prepare(&mut command);
    command.args(rest).current_dir(process::workspace());
    process::run(release.announce(&mut command))
}
