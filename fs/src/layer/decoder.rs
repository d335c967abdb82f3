//! What a blob is compressed with, and its bytes.

use std::io::{self, BufRead, Read};

use super::digest::Digest;
use super::input::{Hashing, Input};
use super::limits::Limits;
use super::stream::read_error;
use super::tar::Problem;
use crate::{Error, Result};
use flate2::bufread::MultiGzDecoder;

/// Bytes that go through the decompressor at once; more brings nothing.
pub(super) const CHUNK: usize = 256 << 10;

/// How a blob says it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not at all, and nothing is looked at.
    Plain,
    /// In a way that its first bytes tell.
    Compressed,
    /// Perhaps, as its first bytes tell.
    Unknown,
}

impl Format {
    /// The format of a media type; `None` for one that is no layer.
    ///
    /// As in containerd the type tells whether a blob is compressed, and its
    /// first bytes how; Docker's uncompressed type may be either.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar" => Some(Self::Plain),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(Self::Compressed),
            "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Some(Self::Unknown),
            _ => None,
        }
    }
}

/// A blob behind its decompressor.
pub(super) enum Decoder<R> {
    Plain(Input<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    /// Frame after frame, to the end of the blob; those to be skipped, in which zstd:chunked has
    /// its table of contents, yield nothing.
    Zstd {
        decoder: zstd::Decoder<'static, Input<R>>,
        window_log: u32,
    },
}

impl<R: Read> Decoder<R> {
    /// The blob's digest is made as `hashing` says, unless it is the archive's.
    pub(super) fn new(
        blob: R,
        format: Format,
        most: Option<u64>,
        limits: &Limits,
        hashing: Hashing,
    ) -> Result<Self> {
        let mut input = Input::new(blob, most, hashing);
        let start = first_bytes(&mut input)?;
        match (format, start) {
            (Format::Plain, _) => Ok(Self::plain(input)),
            (_, [0x1f, 0x8b, ..]) => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(input)))),
            (_, [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18]) => {
                let window_log = limits.zstd_window_log;
                let decoder = zstd::Decoder::with_buffer(input).and_then(|mut decoder| {
                    decoder.window_log_max(window_log)?;
                    Ok(decoder)
                });
                let decoder = decoder.map_err(|e| {
                    Error::invalid(format!("limit zstd-window-log = {window_log}: {e}"))
                })?;
                Ok(Self::Zstd { decoder, window_log })
            }
            (Format::Unknown, _) => Ok(Self::plain(input)),
            (Format::Compressed, _) => {
                Err(Error::invalid("the blob is said to be compressed and is not"))
            }
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd { decoder, window_log } => {
                decoder.read(buffer).map_err(|error| of_zstd(error, *window_log))
            }
        }
    }

    /// One hash is enough for a blob that is its archive.
    fn plain(mut input: Input<R>) -> Self {
        input.hashing = Hashing::Not;
        Self::Plain(input)
    }

    /// Whether the blob is the archive.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Bytes of the blob that were read so far.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Plain(input) => input.bytes,
            Self::Gzip(decoder) => decoder.get_ref().bytes,
            Self::Zstd { decoder, .. } => decoder.get_ref().bytes,
        }
    }

    /// Size of the blob, of which nothing may be left, and its digest if it was made here.
    pub(super) fn end(self) -> Result<(u64, Option<Digest>)> {
        let mut input = match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd { decoder, .. } => decoder.finish(),
        };
        if !input.fill_buf().map_err(read_error)?.is_empty() {
            return Err(Error::invalid("the blob has bytes behind its compressed data"));
        }
        Ok((input.bytes, input.end()))
    }
}

/// The library's errors are of no kind, and all but one say that the data is broken.
fn of_zstd(error: io::Error, window_log: u32) -> io::Error {
    // The text is libzstd's own, and part of its interface: ZSTD_getErrorString.
    let window = "Frame requires too much memory for decoding";
    match (error.raw_os_error(), error.kind()) {
        (None, io::ErrorKind::Other) if error.to_string() == window => {
            broken(Problem::limit("zstd-window-log", u64::from(window_log)))
        }
        (None, io::ErrorKind::Other) => broken(Problem::new(format!("zstd: {error}"))),
        _ => error,
    }
}

/// An error of the data, which is none of reading it.
pub(super) fn broken(problem: Problem) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// The first four bytes, or fewer of a shorter blob, without taking them.
fn first_bytes<R: Read>(input: &mut Input<R>) -> Result<[u8; 4]> {
    let buffer = input.fill_buf().map_err(read_error)?;
    let mut start = [0; 4];
    for (to, from) in start.iter_mut().zip(buffer) {
        *to = *from;
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::stream::{Expected, Found, Stream};
    use super::*;
    use crate::ErrorKind;

    fn frame(bytes: &[u8]) -> Vec<u8> {
        let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
        out.include_checksum(true).unwrap();
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn skippable(kind: u8, bytes: &[u8]) -> Vec<u8> {
        let len = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [&[0x50 | kind, 0x2a, 0x4d, 0x18][..], &len, bytes].concat()
    }

    fn read(blob: &[u8], limits: &Limits) -> Result<Found> {
        Stream::new(blob, Format::Compressed, Expected::default(), limits)?.finish()
    }

    fn diff_id(bytes: &[u8]) -> Found {
        let limits = Limits::default();
        Stream::new(bytes, Format::Plain, Expected::default(), &limits).unwrap().finish().unwrap()
    }

    /// zstd:chunked puts its table of contents in a frame to be skipped.
    #[test]
    fn frames_follow_each_other_and_some_are_skipped() {
        let whole = vec![b'x'; 700_000];
        let toc = skippable(0, &[7; 300_000]);
        let parts = [
            skippable(0xf, b""),
            frame(&whole[..5]),
            toc.clone(),
            frame(b""),
            frame(&whole[5..]),
            toc,
        ];
        let blob = parts.concat();
        let found = read(&blob, &Limits::default()).unwrap();
        let plain = diff_id(&whole);
        assert_eq!((found.diff_id, found.diff_size), (plain.diff_id, 700_000));
        assert_eq!((found.size, found.digest), (blob.len() as u64, diff_id(&blob).digest));
    }

    #[test]
    fn frames_that_are_not_whole_are_an_error() {
        let good = frame(&(0..90_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        let mut sum = good.clone();
        *sum.last_mut().unwrap() ^= 1;
        for (what, blob) in [
            ("junk behind", [&good[..], b"junk and more of it"].concat()),
            ("zeros behind", [&good[..], &[0; 512]].concat()),
            ("one zero behind", [&good[..], &[0]].concat()),
            ("half a magic number behind", [&good[..], &[0x28, 0xb5]].concat()),
            ("gzip behind", [&good[..], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0]].concat()),
            ("cut frame", good[..good.len() / 2].to_vec()),
            ("cut checksum", good[..good.len() - 2].to_vec()),
            ("wrong checksum", sum),
            ("cut frame to skip", [&good[..], &skippable(0, &[1; 99])[..50]].concat()),
        ] {
            let error = read(&blob, &Limits::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
        }
    }

    #[test]
    fn a_window_beyond_the_limit_is_named() {
        let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
        out.window_log(24).unwrap();
        out.write_all(&[b'x'; 100]).unwrap();
        out.flush().unwrap();
        let blob = out.finish().unwrap();
        let limits = Limits { zstd_window_log: 23, ..Limits::default() };
        let error = read(&blob, &limits).unwrap_err();
        assert_eq!(error.to_string(), "more than the limit zstd-window-log = 23");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(read(&blob, &Limits::default()).is_ok());
        let impossible = Limits { zstd_window_log: 99, ..limits };
        let error = read(&blob, &impossible).unwrap_err().to_string();
        assert!(error.starts_with("limit zstd-window-log = 99: "), "{error}");
    }

    /// What is read is told from what is wrong with it.
    #[test]
    fn a_blob_that_cannot_be_read_is_not_called_broken() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
        let blob = frame(&[7; 1000]);
        let limits = Limits::default();
        let input = (&blob[..20]).chain(Fails);
        let stream = Stream::new(input, Format::Compressed, Expected::default(), &limits).unwrap();
        assert_eq!(stream.finish().unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}
