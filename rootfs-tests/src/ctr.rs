//! The release's own `ctr` against the private daemon.

use crate::command::{Output, Run};
use crate::error::Result;
use std::path::PathBuf;

/// `ctr` with its daemon and namespace set.
#[derive(Clone, Debug)]
pub struct Ctr {
    program: PathBuf,
    socket: PathBuf,
    namespace: String,
}

impl Ctr {
    pub(crate) fn new(program: PathBuf, socket: PathBuf, namespace: &str) -> Self {
        Self { program, socket, namespace: namespace.to_owned() }
    }

    /// containerd's namespace this one works in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A command to which more can be added before it runs.
    #[must_use]
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        self.bare().args(args)
    }

    /// Runs it and wants success.
    ///
    /// # Errors
    /// It fails, with what it wrote.
    pub fn ok(&self, args: &[&str]) -> Result<Output> {
        self.command(args.iter().copied()).ok()
    }

    /// Runs it; the exit code is the caller's affair.
    ///
    /// # Errors
    /// It cannot be started or does not end.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        self.command(args.iter().copied()).output()
    }

    /// The command line for callers that run it themselves, such as on a terminal.
    #[must_use]
    pub fn std_command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command.arg("--address").arg(&self.socket).arg("--namespace").arg(&self.namespace);
        command
    }

    fn bare(&self) -> Run {
        Run::new(&self.program)
            // Else `ctr run` of 2.x comments on the daemon's configuration.
            .env("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1")
            .arg("--address")
            .arg(&self.socket)
            .arg("--namespace")
            .arg(&self.namespace)
    }
}
