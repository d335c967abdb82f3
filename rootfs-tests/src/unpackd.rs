//! `boathook unpackd` as a daemon's neighbour.

use crate::command;
use crate::containerd::Daemon;
use crate::error::{Context, Error, Result};
use crate::wait::{self, Deadline, PATIENCE};
use crate::{host, workspace};
use rustix::process::Signal;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A differ that runs; dropping it ends it.
#[derive(Debug)]
pub struct Unpackd {
    child: Option<Child>,
    log: PathBuf,
    socket: PathBuf,
}

impl Unpackd {
    /// Starts it where a daemon of [`Daemon::with_differ`] looks for it, and waits until it listens.
    ///
    /// # Errors
    /// It is not built, or does not come up.
    pub fn start(daemon: &Daemon) -> Result<Self> {
        Self::start_at(&daemon.dir().join("root"), daemon.dir())
    }

    /// As [`Unpackd::start`], with socket and log in `dir`, for the daemon's directory `root`.
    ///
    /// # Errors
    /// As of [`Unpackd::start`].
    pub fn start_at(root: &Path, dir: &Path) -> Result<Self> {
        let (log, socket) = (dir.join("unpackd.log"), dir.join("unpackd.sock"));
        let program = workspace::cli()?;
        let out = File::create(&log).during(|| format!("create {}", log.display()))?;
        let child = Command::new(&program)
            .args(["unpackd", "--root"])
            .arg(root)
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stderr(out)
            .spawn()
            .during(|| format!("start {}", program.display()))?;
        let mut it = Self { child: Some(child), log, socket };
        wait::until("unpackd to listen", PATIENCE, || {
            let ended = it.child.as_mut().map(Child::try_wait).transpose();
            let ended = ended.during(|| "wait for unpackd")?.flatten();
            let log = fs::read_to_string(&it.log).unwrap_or_default();
            crate::ensure!(ended.is_none(), "unpackd ended at once: {log}");
            Ok(log.contains("serving on").then_some(()))
        })?;
        Ok(it)
    }

    /// What it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many layers it has applied.
    #[must_use]
    pub fn applied(&self) -> usize {
        self.log().matches(": applied, ").count()
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().during(|| "kill unpackd")?;
        child.wait().map(drop).during(|| "wait for unpackd")
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end in time, or leaves its socket.
    pub fn end(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        host::signal(child.id(), Signal::TERM)?;
        let ended = command::end(&mut child, "unpackd", Deadline::after(PATIENCE));
        ended.map_err(|error| Error::check(format!("{error}\n{}", self.log())))?;
        crate::ensure!(!self.socket.exists(), "unpackd left {}", self.socket.display());
        Ok(())
    }
}

impl Drop for Unpackd {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
