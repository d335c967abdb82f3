//! A program on a terminal that the test holds the other end of.

use crate::command;
use crate::ensure;
use crate::error::{Context, Error, Result};
use crate::wait::{self, Deadline, PATIENCE};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command};
use std::time::Duration;

/// A program and its terminal.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    child: Child,
    seen: String,
}

impl Terminal {
    /// Starts a command on a new terminal of this size.
    ///
    /// # Errors
    /// No terminal is to be had, or the command cannot be started.
    pub fn start(mut command: Command, rows: u16, columns: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).during(|| "openpt")?;
        grantpt(&master).during(|| "grantpt")?;
        unlockpt(&master).during(|| "unlockpt")?;
        let name = ptsname(&master, Vec::new()).during(|| "ptsname")?;
        let path = OsStr::from_bytes(name.as_bytes());
        let slave = File::options()
            .read(true)
            .write(true)
            .open(path)
            .during(|| format!("open {}", path.display()))?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).during(|| "tcsetwinsize")?;
        let copy = || slave.try_clone().during(|| "duplicate a terminal");
        let child = command
            .stdin(copy()?)
            .stdout(copy()?)
            .stderr(slave)
            .spawn()
            .during(|| format!("start {command:?}"))?;
        // Dropping the command closes its copies; then the child holds the only ones and its end
        // is the end of what can be read.
        drop(command);
        Ok(Self { master: File::from(master), child, seen: String::new() })
    }

    /// Types something.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn send(&mut self, text: &str) -> Result<()> {
        self.master.write_all(text.as_bytes()).during(|| "write to the terminal")
    }

    /// Changes the terminal's size; the program gets SIGWINCH if it is in the foreground.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).during(|| "tcsetwinsize")
    }

    /// The process on the terminal.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads until `text` has appeared, and returns everything before its end.
    ///
    /// # Errors
    /// It does not appear; the message shows what did.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        let found = self.appears(text, PATIENCE)?;
        found.ok_or_else(|| {
            let within = PATIENCE.as_secs();
            Error::check(format!("no {text:?} on the terminal within {within} s:\n{}", self.seen))
        })
    }

    /// As [`Terminal::expect`]; nothing when it does not appear within this time.
    ///
    /// # Errors
    /// The program ends without it.
    pub fn appears(&mut self, text: &str, within: Duration) -> Result<Option<String>> {
        let deadline = Deadline::after(within);
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return Ok(Some(std::mem::replace(&mut self.seen, rest)));
            }
            match wait::readable(&self.master, "the terminal", deadline) {
                Err(Error::Deadline { .. }) => return Ok(None),
                ready => ready?,
            }
            let more = self.read()?;
            ensure!(more, "no {text:?} on the terminal before its end:\n{}", self.seen);
        }
    }

    /// Waits for the program's end; returns its exit code and what else it wrote.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(mut self) -> Result<(i32, String)> {
        let deadline = Deadline::after(PATIENCE);
        while self.read_until(deadline)? {}
        let status = command::end(&mut self.child, "the program on the terminal", deadline)?;
        Ok((command::code(status), std::mem::take(&mut self.seen)))
    }

    fn read_until(&mut self, deadline: Deadline) -> Result<bool> {
        let ready = wait::readable(&self.master, "the terminal's end", deadline);
        ready.map_err(|error| Error::check(format!("{error}:\n{}", self.seen)))?;
        self.read()
    }

    /// Whether there is more; a terminal without programs answers EIO.
    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                let text = buffer.get(..count).unwrap_or_default();
                self.seen.push_str(&String::from_utf8_lossy(text));
                Ok(true)
            }
            Err(error) if error.raw_os_error() == Some(5) => Ok(false),
            Err(error) => Err(error).during(|| "read from the terminal"),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Only a test that failed half-way leaves the program alive.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
