//! Licences, sources and bans of the dependencies, by cargo-deny.

use std::process::Command;

use crate::error::Error;
use crate::process::{self, workspace};
use crate::tools::Tool;

/// In the version the checks were written for.
const CARGO_DENY: Tool =
    Tool { package: "cargo-deny", version: "0.20.2", program: "cargo-deny", release: false };

/// Checks `deny.toml`, fetching cargo-deny when it is not there.
pub(crate) fn run() -> Result<(), Error> {
    let tool = CARGO_DENY.get()?;
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let mut command = Command::new(&tool);
        command.current_dir(workspace()).args(["--manifest-path", manifest, "--workspace"]);
        command.arg("--config").arg(workspace().join("deny.toml"));
        command.args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
        process::run(&mut command)?;
    }
    println!(
        "deny: bans, licences and sources were checked. Advisories were not: their database is a \
         git repository that has to be fetched, and this command works without one; run \
         `cargo deny check advisories` where it can be reached."
    );
    Ok(())
}
