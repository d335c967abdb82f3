//! Programs from the registry, pinned, in a directory of our own: neither the
//! user's programs nor another version of the tool come into it.

use std::path::PathBuf;

use crate::binaries::target_dir;
use crate::error::Error;
use crate::process::{self, cargo};

/// A program that a step needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// The crate's name in the registry.
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// The program's name.
    pub(crate) program: &'static str,
    /// Optimised, for a program whose speed is looked at; else it is built quickly.
    pub(crate) release: bool,
}

impl Tool {
    /// Builds it unless it is there; answers where.
    pub(crate) fn get(&self) -> Result<PathBuf, Error> {
        let root = target_dir().join("tools").join(format!("{}-{}", self.package, self.version));
        let program = root.join("bin").join(self.program);
        if program.is_file() {
            return Ok(program);
        }
        println!("missing: {} {}; building it takes a minute", self.package, self.version);
        let mut install = cargo(&["install", "--locked", "--quiet", self.package]);
        install.args(["--version", self.version, "--no-track", "--root"]).arg(&root);
        if !self.release {
            install.arg("--debug");
        }
        // Away from the workspace, whose flags are meant for our programs only.
        install.current_dir("/").env_remove("CARGO_TARGET_DIR");
        process::run(&mut install)?;
        Ok(program)
    }
}
