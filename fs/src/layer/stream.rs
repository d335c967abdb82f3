//! From the blob to the bytes of the archive, counted and hashed on both sides.
//!
//! ```text
//! blob ─ Input (digest, size) ─ gzip | zstd | plain ─ Stream (diff id, limits) ─▶ tar
//! ```

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::decoder::{CHUNK, Decoder, Format, broken};
use super::digest::Digest;
use super::input::Hashing;
use super::limits::{Budget, Limits};
use super::tar::Problem;
use crate::{Error, ErrorKind, Result};

/// What the blob is known to be; what is `None` is not checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// Digest of the blob.
    pub digest: Option<Digest>,
    /// Size of the blob in bytes.
    pub size: Option<u64>,
    /// Digest of the decompressed bytes, all of them.
    pub diff_id: Option<Digest>,
}

/// What the blob was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Digest of the blob.
    pub digest: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the decompressed bytes.
    pub diff_id: Digest,
    /// Number of the decompressed bytes.
    pub diff_size: u64,
}

impl Expected {
    /// Compares with what was found.
    pub(super) fn compare(&self, found: &Found) -> Result<()> {
        differs("size", self.size, &found.size)?;
        differs("digest", self.digest, &found.digest)?;
        differs("diff id", self.diff_id, &found.diff_id)
    }
}

/// Counts decompressed bytes, and says when they are too many.
pub(super) struct Tally<'l> {
    pub(super) bytes: u64,
    pub(super) limits: &'l Limits,
    budget: Option<Budget>,
}

impl<'l> Tally<'l> {
    /// They count for `budget` too.
    pub(super) fn new(limits: &'l Limits, budget: Option<Budget>) -> Self {
        Self { bytes: 0, limits, budget }
    }

    /// `count` more, when so many bytes of the blob were read.
    pub(super) fn add(&mut self, count: usize, blob_bytes: u64) -> io::Result<()> {
        self.bytes += count as u64;
        self.check(count, blob_bytes).map_err(broken)
    }

    fn check(&self, count: usize, blob_bytes: u64) -> Result<(), Problem> {
        if let Some(budget) = &self.budget {
            budget.spend(count as u64)?;
        }
        if self.bytes > self.limits.bytes {
            return Err(Problem::limit("bytes", self.limits.bytes));
        }
        let ratio = self.bytes / blob_bytes.max(1);
        if self.bytes > self.limits.ratio_from && ratio > self.limits.ratio {
            return Err(Problem::limit("ratio", self.limits.ratio));
        }
        Ok(())
    }
}

/// The decompressed bytes of a blob.
pub(super) struct Stream<'l, R> {
    decoder: Decoder<R>,
    buffer: Box<[u8]>,
    at: usize,
    len: usize,
    hash: Sha256,
    tally: Tally<'l>,
    expected: Expected,
}

impl<'l, R: Read> Stream<'l, R> {
    pub(super) fn new(
        blob: R,
        format: Format,
        expected: Expected,
        limits: &'l Limits,
    ) -> Result<Self> {
        let hashing = Hashing::Here(Sha256::new());
        Ok(Self {
            decoder: Decoder::new(blob, format, expected.size, limits, hashing)?,
            buffer: vec![0; CHUNK].into_boxed_slice(),
            at: 0,
            len: 0,
            hash: Sha256::new(),
            tally: Tally::new(limits, None),
            expected,
        })
    }

    /// Its bytes count for `budget` too.
    pub(super) fn within(mut self, budget: Option<Budget>) -> Self {
        self.tally.budget = budget;
        self
    }

    /// Reads what is left, and compares with what was expected.
    pub(super) fn finish(mut self) -> Result<Found> {
        loop {
            let count = self.fill_buf().map_err(read_error)?.len();
            if count == 0 {
                break;
            }
            self.consume(count);
        }
        let (size, digest) = self.decoder.end()?;
        let diff_id = Digest::of(self.hash);
        let digest = digest.unwrap_or(diff_id);
        let found = Found { digest, size, diff_id, diff_size: self.tally.bytes };
        self.expected.compare(&found)?;
        Ok(found)
    }
}

impl<R: Read> Read for Stream<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut there = self.fill_buf()?;
        let count = there.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Stream<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.len {
            self.len = self.decoder.read(&mut self.buffer)?;
            self.at = 0;
            self.hash.update(self.buffer.get(..self.len).unwrap_or_default());
            self.tally.add(self.len, self.decoder.bytes())?;
        }
        Ok(self.buffer.get(self.at..self.len).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at = self.len.min(self.at + count);
    }
}

fn differs<T: PartialEq + std::fmt::Display>(
    what: &str,
    expected: Option<T>,
    found: &T,
) -> Result<()> {
    match expected {
        Some(expected) if expected != *found => {
            Err(Error::invalid(format!("{what}: expected {expected}, found {found}")))
        }
        _ => Ok(()),
    }
}

/// An error of reading: of the data when a decoder says so, else of the source.
#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(super) fn read_error(error: io::Error) -> Error {
    match (error.kind(), error.raw_os_error()) {
        (_, Some(errno)) => Error::sys("read the blob", nix::errno::Errno::from_raw(errno)),
        (io::ErrorKind::UnexpectedEof, None) => Error::invalid("the blob ends too early"),
        (io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData, None) => {
            Error::invalid(error.to_string())
        }
        _ => Error::of_kind(ErrorKind::Io, format!("read the blob: {error}")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    pub(in crate::layer) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn read(blob: &[u8], format: Format, expected: Expected) -> Result<(Vec<u8>, Found)> {
        read_within(blob, format, expected, &Limits::default())
    }

    fn read_within(
        blob: &[u8],
        format: Format,
        expected: Expected,
        limits: &Limits,
    ) -> Result<(Vec<u8>, Found)> {
        let mut stream = Stream::new(blob, format, expected, limits)?;
        let mut bytes = vec![0; 10];
        let count = stream.read(&mut bytes).map_err(read_error)?;
        bytes.truncate(count);
        // The rest is read by `finish`, as what stands behind an archive is.
        stream.finish().map(|found| (bytes, found))
    }

    #[test]
    fn every_member_counts_for_the_diff_id() {
        let whole = vec![b'x'; 600_000];
        let plain = read(&whole, Format::Plain, Expected::default()).unwrap().1;
        assert_eq!((plain.digest, plain.size), (plain.diff_id, 600_000));
        let members = [gzip(&whole[..5]), gzip(b""), gzip(&whole[5..])].concat();
        let (start, found) = read(&members, Format::Compressed, Expected::default()).unwrap();
        assert_eq!(start, b"xxxxx", "the first member ends here");
        assert_eq!((found.diff_id, found.diff_size), (plain.diff_id, 600_000));
        assert_eq!(found.size, members.len() as u64);
    }

    #[test]
    fn the_type_tells_whether_and_the_bytes_tell_how() {
        let blob = gzip(b"abc");
        assert_eq!(read(&blob, Format::Unknown, Expected::default()).unwrap().0, b"abc");
        assert_eq!(read(b"abc", Format::Unknown, Expected::default()).unwrap().0, b"abc");
        assert_eq!(
            read(&blob, Format::Plain, Expected::default()).unwrap().1.size,
            blob.len() as u64
        );
        assert!(read(b"abc", Format::Compressed, Expected::default()).is_err());
        let docker = "application/vnd.docker.image.rootfs.diff.tar";
        assert_eq!(Format::of_media_type(docker), Some(Format::Unknown));
        assert_eq!(Format::of_media_type(&format!("{docker}.gzip")), Some(Format::Compressed));
        assert_eq!(Format::of_media_type("text/plain"), None);
    }

    #[test]
    fn a_stream_that_is_not_whole_is_an_error() {
        let good = gzip(&vec![b'x'; 100_000]);
        let mut crc = good.clone();
        let at = crc.len() - 6;
        crc[at] ^= 1;
        for (what, blob) in [
            ("junk behind", [&good[..], b"junk"].concat()),
            ("zeros behind", [&good[..], &[0; 512]].concat()),
            ("one zero behind", [&good[..], &[0]].concat()),
            ("no trailer", good[..good.len() - 8].to_vec()),
            ("half a trailer", good[..good.len() - 4].to_vec()),
            ("cut", good[..good.len() / 2].to_vec()),
            ("wrong checksum", crc),
        ] {
            let error = read(&blob, Format::Compressed, Expected::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
        }
    }

    #[test]
    fn what_is_not_as_expected_is_named() {
        let blob = gzip(b"abc");
        let size = blob.len() as u64;
        let found = read(&blob, Format::Compressed, Expected::default()).unwrap().1;
        let right =
            Expected { digest: Some(found.digest), size: Some(size), diff_id: Some(found.diff_id) };
        assert!(read(&blob, Format::Compressed, right).is_ok());
        for (expected, wanted) in [
            (Expected { size: Some(size - 1), ..right }, "longer than its"),
            (Expected { size: Some(size + 1), ..right }, "size: expected"),
            (Expected { digest: Some(found.diff_id), ..right }, "digest: expected sha256:"),
            (Expected { diff_id: Some(found.digest), ..right }, "diff id: expected sha256:"),
        ] {
            let error = read(&blob, Format::Compressed, expected).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_bomb_ends_at_its_limit() {
        let blob = gzip(&vec![0; 2 << 20]);
        let limited = |limits: &Limits| {
            let result = read_within(&blob, Format::Compressed, Expected::default(), limits);
            result.map(|_| ()).map_err(|error| error.to_string())
        };
        let ratio = Limits { ratio: 100, ratio_from: 1 << 20, ..Limits::default() };
        assert_eq!(limited(&ratio).unwrap_err(), "more than the limit ratio = 100");
        let later = Limits { ratio_from: 4 << 20, ..ratio };
        assert_eq!(limited(&later), Ok(()));
        let bytes = Limits { bytes: 1 << 20, ..Limits::default() };
        assert_eq!(limited(&bytes).unwrap_err(), "more than the limit bytes = 1048576");
        assert_eq!(limited(&Limits::default()), Ok(()));
    }
}
