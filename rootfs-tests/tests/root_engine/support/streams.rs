//! Pipes for a process's standard streams, and reading them to the end with a deadline.

use std::io::Read;
use std::os::fd::OwnedFd;

use boathook_runtime::Stdio;
use rootfs_tests::wait::{self, Deadline};

use super::LIMIT;

/// Our ends of three pipes.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Where the process's input comes from; dropped, the input ends.
    pub(crate) stdin: Option<OwnedFd>,
    stdout: Reader,
    stderr: Reader,
}

impl Streams {
    /// Three pipes: the process's ends and ours.
    pub(crate) fn pipes() -> (Stdio, Self) {
        let [(stdin, feed), (out, stdout), (err, stderr)] =
            [pipe(), pipe(), pipe()].map(|(reader, writer)| (reader, writer));
        let theirs = Stdio::Fds { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
        let ours = Self { stdin: Some(feed), stdout: Reader::new(out), stderr: Reader::new(err) };
        (theirs, ours)
    }

    /// Input ends, and both outputs are read until every process has closed them.
    pub(crate) fn finish(mut self) -> (String, String) {
        drop(self.stdin.take());
        let deadline = Deadline::after(LIMIT);
        (self.stdout.rest(deadline), self.stderr.rest(deadline))
    }

    /// One line of standard output, without its end.
    pub(crate) fn line(&mut self) -> String {
        self.stdout.line(Deadline::after(LIMIT))
    }
}

/// Bytes from a descriptor, never waiting longer than a deadline.
#[derive(Debug)]
pub(crate) struct Reader {
    file: std::fs::File,
    text: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { file: fd.into(), text: Vec::new() }
    }

    /// False at the end; a terminal ends with EIO when the last process has closed it.
    fn more(&mut self, deadline: Deadline) -> bool {
        wait::readable(&self.file, "output of a container", deadline)
            .unwrap_or_else(|error| panic!("{error}; so far: {}", self.so_far()));
        let mut buffer = [0; 4096];
        let count = self.file.read(&mut buffer).unwrap_or(0);
        self.text.extend_from_slice(&buffer[..count]);
        count > 0
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    pub(crate) fn rest(&mut self, deadline: Deadline) -> String {
        while self.more(deadline) {}
        String::from_utf8_lossy(&std::mem::take(&mut self.text)).into_owned()
    }

    pub(crate) fn line(&mut self, deadline: Deadline) -> String {
        loop {
            if let Some(at) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=at).collect();
                return String::from_utf8_lossy(&line).trim_end().to_owned();
            }
            assert!(self.more(deadline), "the output ends without a line: {}", self.so_far());
        }
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe")
}
