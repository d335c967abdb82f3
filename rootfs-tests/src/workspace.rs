//! Where things of this workspace are: the target directory and the programs under test.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Names the directory of the built programs; see [`program`].
pub const BIN_DIR: &str = "BOATHOOK_BIN_DIR";

/// The workspace's root, as it was when the suites were built.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Cargo's target directory: the one this program was built into, else the workspace's own.
///
/// # Errors
/// The path of this program is not known.
pub fn target_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return Ok(root().join(dir));
    }
    let program = std::env::current_exe()
        .map_err(|source| Error::Io { what: "path of this program".into(), source })?;
    // A target directory is marked as a cache (bford.info/cachedir), and so is each target in it.
    let marked = program.ancestors().filter(|dir| dir.join("CACHEDIR.TAG").is_file()).last();
    Ok(marked.map_or_else(|| root().join("target"), Path::to_owned))
}

/// A program of this workspace, built for release.
///
/// Looked for in `BOATHOOK_BIN_DIR`, else in the target directory's `release` directories.
///
/// # Errors
/// [`Error::Missing`] with what to do.
pub fn program(name: &str) -> Result<PathBuf> {
    let dirs = match std::env::var_os(BIN_DIR) {
        Some(dir) => vec![root().join(dir)],
        None => {
            let target = target_dir()?;
            let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            vec![target.join(triple).join("release"), target.join("release")]
        }
    };
    let found = dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::Missing {
        what: format!("{name} (looked in {dirs:?})"),
        remedy: format!(
            "build it with `cargo build --release --workspace --bins`, or set {BIN_DIR} to its \
             directory"
        ),
    })
}

/// The shim under test.
///
/// # Errors
/// [`Error::Missing`] with what to do.
pub fn shim() -> Result<PathBuf> {
    program("containerd-shim-boathook-v2")
}

/// The command line under test.
///
/// # Errors
/// [`Error::Missing`] with what to do.
pub fn cli() -> Result<PathBuf> {
    program("boathook")
}
