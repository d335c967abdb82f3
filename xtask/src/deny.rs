//! Licences, sources and bans of the dependencies, by cargo-deny.

use std::path::PathBuf;

use crate::binaries::target_dir;
use crate::error::Error;
use crate::process::{self, cargo, workspace};

/// The version the checks were written for.
const VERSION: &str = "0.20.2";

/// Checks `deny.toml`, fetching cargo-deny when it is not there.
pub(crate) fn run() -> Result<(), Error> {
    let tool = tool()?;
    let mut command = std::process::Command::new(tool);
    command.current_dir(workspace()).args([
        "--workspace",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    process::run(&mut command)?;
    println!(
        "deny: bans, licences and sources were checked. Advisories were not: their database is a \
         git repository that has to be fetched, and this command works without one; run \
         `cargo deny check advisories` where it can be reached."
    );
    Ok(())
}

/// The pinned version in a directory of our own, so that neither the user's
/// programs nor another version of the tool come into it.
fn tool() -> Result<PathBuf, Error> {
    let root = target_dir().join("tools").join(format!("cargo-deny-{VERSION}"));
    let tool = root.join("bin/cargo-deny");
    if tool.is_file() {
        return Ok(tool);
    }
    println!("missing: cargo-deny {VERSION}; building it takes a minute");
    let mut install = cargo(&["install", "--locked", "--quiet", "--debug", "cargo-deny"]);
    install.args(["--version", VERSION, "--no-track", "--root"]).arg(&root);
    // Away from the workspace, whose flags are meant for our programs only.
    install.current_dir("/").env_remove("CARGO_TARGET_DIR");
    process::run(&mut install)?;
    Ok(tool)
}
