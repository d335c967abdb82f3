//! The release's own `ctr` against the private daemon.

use crate::command::{Output, Run};
use crate::ensure;
use crate::error::Result;
use std::path::PathBuf;

/// The last line of what a container says to [`Ctr::hear`].
const LAST: &str = "~the last line~";

/// Runs its arguments, says the last line on both streams, and waits for the end of its input.
/// The command's own end of line may be missing.
const SAY: &str = r#""$@"; code=$?; printf '\n%s\n' "$0" >&2; printf '\n%s\n' "$0"
read -r nothing; exit $code"#;

/// A command that stays until it has been heard; see [`Ctr::hear`].
#[must_use]
pub fn kept<'a>(command: &[&'a str]) -> Vec<&'a str> {
    // Not every container has a $PATH.
    [&["/bin/sh", "-c", SAY, LAST], command].concat()
}

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

    /// Runs a command in a container, where the arguments before it are of `run` or `task exec`,
    /// and returns its exit code with all that it has said.
    ///
    /// Before it deletes a process, `ctr` gives up fifos that it has not finished opening. On a
    /// busy machine a short process can be over by then, and all its output is lost in `ctr`,
    /// whatever the shim does. So a shell keeps the process until its last line has come out of
    /// `ctr`, and what is missing then was lost by the shim.
    ///
    /// # Errors
    /// `ctr` does not end, or succeeds without the last line.
    pub fn hear(&self, args: &[&str], command: &[&str]) -> Result<Output> {
        self.hear_kept(&[args, &kept(command)[..]].concat())
    }

    /// As [`Ctr::hear`], with a whole command line or a spec that has [`kept`] the command.
    ///
    /// # Errors
    /// As [`Ctr::hear`].
    pub fn hear_kept(&self, args: &[&str]) -> Result<Output> {
        let last = format!("\n{LAST}\n");
        let mut output = self.command(args.iter().copied()).heard(&last).output()?;
        let mut whole = true;
        for stream in [&mut output.stdout, &mut output.stderr] {
            // What follows is what `ctr` itself says at its end.
            let at = stream.windows(last.len()).position(|found| found == last.as_bytes());
            whole &= at.map(|at| stream.drain(at..at + last.len())).is_some();
        }
        ensure!(whole || output.code != 0, "{} ended before its last line came", output.command);
        Ok(output)
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
