//! Running a program with a deadline and keeping what it wrote.

use crate::error::{Context, Error, Result};
use crate::wait::{self, Deadline, PATIENCE};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A command line to be run once.
#[derive(Debug)]
pub struct Run {
    command: Command,
    stdin: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
    within: Duration,
}

/// How a program ended and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit code, or 128 plus the signal.
    pub code: i32,
    /// Everything from standard output.
    pub stdout: Vec<u8>,
    /// Everything from standard error.
    pub stderr: Vec<u8>,
}

impl Run {
    /// A program by name or path, with no arguments yet.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), stdin: None, last: None, within: PATIENCE }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it in this directory.
    #[must_use]
    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Feeds standard input; without this it is empty.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Ends standard input when this has come from both standard output and standard error, for a
    /// program that is not to end before it has been heard.
    #[must_use]
    pub fn heard(mut self, last: &str) -> Self {
        self.last = Some(last.as_bytes().to_vec());
        self
    }

    /// Allows this much time instead of [`PATIENCE`].
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Runs to the end, whatever the exit code.
    ///
    /// # Errors
    /// It cannot be started, or [`Error::Deadline`] with what it wrote so far; it is killed then.
    pub fn output(mut self) -> Result<Output> {
        let line = line(&self.command);
        let piped = self.stdin.is_some() || self.last.is_some();
        let stdin = if piped { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().during(|| format!("start {line}"))?;
        let input = child.stdin.take();
        let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let deadline = Deadline::after(self.within);
        let mut heard = [Vec::new(), Vec::new()];
        if let Some(last) = &self.last {
            heard = [&stdout, &stderr].map(|pieces| collect_until(pieces, last, deadline));
            drop(input);
        } else if let (Some(bytes), Some(mut pipe)) = (self.stdin.take(), input) {
            // A program that ends without reading is no failure of this side.
            std::thread::spawn(move || pipe.write_all(&bytes));
        }
        let ended = end(&mut child, &line, deadline);
        let [mut out, mut err] = heard;
        out.extend(collect(&stdout, deadline));
        err.extend(collect(&stderr, deadline));
        let (stdout, stderr) = (out, err);
        match ended {
            Ok(status) => Ok(Output { command: line, code: code(status), stdout, stderr }),
            Err(error) => {
                let text = tail(&[stdout, stderr].concat());
                Err(Error::Check(format!("{error}\n{text}")))
            }
        }
    }

    /// Runs to the end and wants exit code 0.
    ///
    /// # Errors
    /// As [`Run::output`], or [`Error::Command`] with the end of its output.
    pub fn ok(self) -> Result<Output> {
        let output = self.output()?;
        if output.code == 0 { Ok(output) } else { Err(output.refused()) }
    }
}

impl Output {
    /// Standard output as text, without white space round it.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Standard error as text, without white space round it.
    #[must_use]
    pub fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }

    /// The error for an exit code that was not wanted.
    #[must_use]
    pub fn refused(&self) -> Error {
        Error::Command {
            command: self.command.clone(),
            status: format!("exit code {}", self.code),
            output: tail(&[self.stdout.as_slice(), self.stderr.as_slice()].concat()),
        }
    }
}

/// Waits for the end of a child; kills it when the time is over.
///
/// # Errors
/// [`Error::Deadline`].
pub fn end(child: &mut Child, what: &str, deadline: Deadline) -> Result<ExitStatus> {
    let in_time = wait::process(child.id())
        .and_then(|fd| wait::readable(&fd, &format!("the end of {what}"), deadline));
    if let Err(error) = in_time {
        child.kill().during(|| format!("kill {what}"))?;
        child.wait().during(|| format!("wait for {what}"))?;
        return Err(error);
    }
    child.wait().during(|| format!("wait for {what}"))
}

/// An exit code as shells count it: 128 plus the signal for a killed process.
#[must_use]
pub fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Reads a pipe to its end in the background, piece by piece, so that a pipe which somebody keeps
/// open costs only the deadline and loses nothing.
fn drain(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer.get(..count).unwrap_or_default().to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

fn collect(pieces: &Receiver<Vec<u8>>, deadline: Deadline) -> Vec<u8> {
    let mut all = Vec::new();
    let least = Duration::from_millis(200);
    while let Ok(piece) = pieces.recv_timeout(deadline.left().max(least)) {
        all.extend(piece);
    }
    all
}

/// What comes until this has come, or the pipe's end or the deadline.
fn collect_until(pieces: &Receiver<Vec<u8>>, last: &[u8], deadline: Deadline) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.windows(last.len()).any(|found| found == last) {
        let Ok(piece) = pieces.recv_timeout(deadline.left()) else { break };
        all.extend(piece);
    }
    all
}

/// The last four kilobytes as text.
fn tail(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(4096);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).trim().to_owned()
}

/// A program that runs on beside the test, read line by line.
#[derive(Debug)]
pub struct Stream {
    child: Child,
    name: String,
    pieces: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Stream {
    /// Starts it with an open standard input; what it writes to standard error goes to the test's
    /// own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let name = line(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().during(|| format!("start {name}"))?;
        let pieces = drain(child.stdout.take());
        Ok(Self { child, name, pieces, buffer: Vec::new() })
    }

    /// The next line, without its end; none within this time.
    pub fn line(&mut self, within: Duration) -> Option<String> {
        let deadline = Deadline::after(within);
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(at + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.buffer.extend(self.pieces.recv_timeout(deadline.left()).ok()?);
        }
    }

    /// Lines up to and including the first that satisfies `last`.
    ///
    /// # Errors
    /// None does in time; the message holds those that came.
    pub fn until(&mut self, what: &str, mut last: impl FnMut(&str) -> bool) -> Result<Vec<String>> {
        let deadline = Deadline::after(PATIENCE);
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line(deadline.left()) else {
                let what = format!("{what} from {}", self.name);
                return Err(deadline.missed(&what, &lines.join("\n")));
            };
            let found = last(&line);
            lines.push(line);
            if found {
                return Ok(lines);
            }
        }
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// It no longer reads, or the input was closed.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let what = || format!("write to {}", self.name);
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let pipe = self.child.stdin.as_mut().ok_or_else(gone).during(what)?;
        pipe.write_all(text.as_bytes()).during(what)
    }

    /// Ends its standard input.
    pub fn close_input(&mut self) {
        self.child.stdin = None;
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(mut self) -> Result<i32> {
        end(&mut self.child, &self.name, Deadline::after(PATIENCE)).map(code)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red if the input ends before the last line has come from both, or does not end then.
    #[test]
    fn input_ends_when_the_last_line_was_heard() {
        let script = "echo one; echo last; sleep 0.1; echo two >&2; echo last >&2; cat; echo over";
        let said = Run::new("sh").args(["-c", script]).heard("last\n").ok().unwrap();
        assert_eq!((said.text(), said.complaint()), ("one\nlast\nover".into(), "two\nlast".into()));
    }

    /// Red if one that never says it is waited for longer than it lives.
    #[test]
    fn a_program_that_ends_unheard_is_over() {
        let said =
            Run::new("sh").args(["-c", "echo one; exit 3"]).heard("last\n").output().unwrap();
        assert_eq!((said.text(), said.code), ("one".into(), 3));
    }
}
