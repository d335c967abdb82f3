//! `cargo xtask demo` and `cargo xtask bench`: prepare, build, and hand over to
//! the program of that name in `rootfs-tests`.

use std::process::Command;

use crate::apt;
use crate::binaries;
use crate::error::Error;
use crate::process;

/// Runs the helper program `name` with `rest` as its arguments.
pub(crate) fn run(name: &str, rest: &[String]) -> Result<(), Error> {
    apt::require_root(name, "it starts a private containerd and real containers")?;
    apt::ensure(apt::BUILD)?;
    apt::ensure(apt::ROOT)?;
    let release = binaries::release()?;
    let mut command = Command::new(binaries::helper(name)?);
    command.args(rest).current_dir(process::workspace());
    process::run(release.announce(&mut command))
}
