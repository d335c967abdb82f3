//! The bytes of a blob as they are stored: counted, and hashed when they were used.

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::decoder::{CHUNK, broken};
use super::digest::Digest;
use super::pipeline::Used;
use super::tar::Problem;

/// Where the bytes of a blob are hashed.
pub(super) enum Hashing {
    /// Nowhere: they are the same as those of the archive.
    Not,
    /// Here.
    Here(Sha256),
    /// In another thread, which gets the buffers.
    There(Used),
}

/// Reads a blob, and stops at the size that is expected.
pub(super) struct Input<R> {
    inner: R,
    buffer: Vec<u8>,
    at: usize,
    len: usize,
    /// Read so far.
    pub(super) bytes: u64,
    most: Option<u64>,
    pub(super) hashing: Hashing,
}

impl<R: Read> Input<R> {
    pub(super) fn new(inner: R, most: Option<u64>, hashing: Hashing) -> Self {
        Self { inner, buffer: vec![0; CHUNK], at: 0, len: 0, bytes: 0, most, hashing }
    }

    /// The digest, when it was made here; nothing may be left to read.
    pub(super) fn end(mut self) -> Option<Digest> {
        self.retire();
        match self.hashing {
            Hashing::Here(hash) => Some(Digest::of(hash)),
            Hashing::Not | Hashing::There(_) => None,
        }
    }

    /// What is in the buffer was used.
    fn retire(&mut self) {
        let used = self.buffer.get(..self.len).unwrap_or_default();
        match &mut self.hashing {
            _ if used.is_empty() => {}
            Hashing::Not => {}
            Hashing::Here(hash) => hash.update(used),
            Hashing::There(elsewhere) => elsewhere.blob(&mut self.buffer, self.len),
        }
        (self.at, self.len) = (0, 0);
    }

    fn count(&mut self, count: usize) -> io::Result<usize> {
        self.bytes += count as u64;
        match self.most {
            Some(most) if self.bytes > most => {
                Err(broken(Problem::new(format!("the blob is longer than its {most} bytes"))))
            }
            _ => Ok(count),
        }
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What nobody hashes here need not be copied.
        if self.at == self.len && matches!(self.hashing, Hashing::Not) {
            let count = self.inner.read(buffer)?;
            return self.count(count);
        }
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.len {
            self.retire();
            let count = self.inner.read(&mut self.buffer)?;
            self.len = self.count(count)?;
        }
        Ok(self.buffer.get(self.at..self.len).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at = self.len.min(self.at + count);
    }
}
