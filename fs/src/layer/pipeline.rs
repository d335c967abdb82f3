//! Reading, writing and hashing a layer, each in a thread of its own, so that the slowest of them
//! sets the pace instead of their sum.
//!
//! ```text
//!      reader                     caller                 hasher
//! blob ─▶ decompress ── full ──▶ tar, apply ── used ──▶ diff id
//!     └──────────── used bytes of the blob ───────────▶ digest
//! ```
//!
//! Buffers wander from one to the next and, when they were hashed, back. Every channel is short,
//! so the memory is bounded. Nobody waits for a buffer to come back, only for the next one in this
//! order to take or to give one, so whoever ends first lets all others end.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::decoder::{CHUNK, Decoder, Format};
use super::digest::Digest;
use super::input::Hashing;
use super::limits::{Budget, Limits};
use super::stream::{Expected, Found, Tally, read_error};
use crate::{Error, ErrorKind, Result};

/// Buffers in a channel, of [`CHUNK`] bytes each.
const QUEUE: usize = 4;

/// A buffer and how much of it is filled.
type Chunk = (Vec<u8>, usize);

/// A buffer for the hasher.
enum Job {
    Blob(Chunk),
    Archive(Chunk),
}

/// The way to the hasher, and back for its buffers.
pub(super) struct Used {
    jobs: SyncSender<Job>,
    empty: Receiver<Vec<u8>>,
}

impl Used {
    /// Bytes of the blob; an empty buffer takes the place of theirs.
    pub(super) fn blob(&mut self, buffer: &mut Vec<u8>, len: usize) {
        let full = std::mem::replace(buffer, empty_one(&self.empty));
        // It only ends early when somebody else has failed.
        let _ = self.jobs.send(Job::Blob((full, len)));
    }
}

fn empty_one(empty: &Receiver<Vec<u8>>) -> Vec<u8> {
    empty.try_recv().unwrap_or_else(|_| vec![0; CHUNK])
}

/// What the caller reads the archive from.
pub(super) struct Piped {
    full: Receiver<io::Result<Chunk>>,
    now: Chunk,
    at: usize,
    jobs: SyncSender<Job>,
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Piped {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.now.1 {
            self.at = 0;
            let used = std::mem::take(&mut self.now);
            if used.1 > 0 {
                let _ = self.jobs.send(Job::Archive(used));
            }
            // The reader has ended when there is nobody to receive from; why, it tells at the end.
            self.now = self.full.recv().unwrap_or_else(|_| Ok(Chunk::default()))?;
        }
        Ok(self.now.0.get(self.at..self.now.1).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at = self.now.1.min(self.at + count);
    }
}

/// Lets `work` read the archive in `blob`, and what it leaves be read, and compares with what is
/// expected.
pub(super) fn run<T>(
    blob: impl Read + Send,
    format: Format,
    expected: Expected,
    limits: &Limits,
    budget: Option<Budget>,
    work: impl FnOnce(&mut Piped) -> Result<T>,
) -> Result<(T, Found)> {
    let (fill, full) = sync_channel(QUEUE);
    let (jobs, to_hash) = sync_channel(2 * QUEUE);
    let (blob_back, blob_empty) = sync_channel(QUEUE);
    let (archive_back, archive_empty) = sync_channel(QUEUE);
    thread::scope(|scope| {
        let spawn = |error: io::Error| Error::of_kind(ErrorKind::Io, format!("a thread: {error}"));
        let hasher = thread::Builder::new()
            .name("layer-hash".to_owned())
            .spawn_scoped(scope, move || hash(&to_hash, &blob_back, &archive_back))
            .map_err(spawn)?;
        let used = Used { jobs: jobs.clone(), empty: blob_empty };
        let reader = Reader { fill, empty: archive_empty, tally: Tally::new(limits, budget) };
        let reader = thread::Builder::new()
            .name("layer-read".to_owned())
            .spawn_scoped(scope, move || reader.run(blob, format, expected.size, used))
            .map_err(spawn)?;
        let mut piped = Piped { full, now: Chunk::default(), at: 0, jobs };
        let done = work(&mut piped).and_then(|done| rest(piped).map(|()| done));
        // Whatever was between them is dropped by now, so both end.
        let died = |_| Error::of_kind(ErrorKind::Io, "a thread died");
        let read = reader.join().map_err(died)?;
        let (blob_digest, diff_id) = hasher.join().map_err(died)?;
        let done = done?;
        let Blob { size, diff_size, plain } = read?;
        let digest = if plain { diff_id } else { blob_digest };
        let found = Found { digest, size, diff_id, diff_size };
        expected.compare(&found)?;
        Ok((done, found))
    })
}

/// Reads to the end, and gives the last buffer away.
fn rest(mut piped: Piped) -> Result<()> {
    loop {
        let count = piped.fill_buf().map_err(read_error)?.len();
        if count == 0 {
            return Ok(());
        }
        piped.consume(count);
    }
}

fn hash(
    jobs: &Receiver<Job>,
    blob_back: &SyncSender<Vec<u8>>,
    archive_back: &SyncSender<Vec<u8>>,
) -> (Digest, Digest) {
    let (mut blob, mut archive) = (Sha256::new(), Sha256::new());
    for job in jobs {
        let (hash, back, (buffer, len)) = match job {
            Job::Blob(chunk) => (&mut blob, blob_back, chunk),
            Job::Archive(chunk) => (&mut archive, archive_back, chunk),
        };
        hash.update(buffer.get(..len).unwrap_or_default());
        match back.try_send(buffer) {
            // There are enough, or nobody reads any more.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
    (Digest::of(blob), Digest::of(archive))
}

/// What the reader found.
struct Blob {
    size: u64,
    diff_size: u64,
    /// The blob is the archive.
    plain: bool,
}

struct Reader<'l> {
    fill: SyncSender<io::Result<Chunk>>,
    empty: Receiver<Vec<u8>>,
    tally: Tally<'l>,
}

impl Reader<'_> {
    fn run(
        mut self,
        blob: impl Read,
        format: Format,
        most: Option<u64>,
        used: Used,
    ) -> Result<Blob> {
        let limits = self.tally.limits;
        let mut decoder = Decoder::new(blob, format, most, limits, Hashing::There(used))?;
        loop {
            let mut chunk = (empty_one(&self.empty), 0);
            let full = self.fill(&mut decoder, &mut chunk);
            // Nobody takes it: the caller has failed, and knows why.
            let gone = chunk.1 > 0 && self.fill.send(Ok(chunk)).is_err();
            match full {
                Ok(true) if !gone => {}
                Ok(_) => break,
                Err(error) => {
                    let _ = self.fill.send(Err(error));
                    break;
                }
            }
        }
        let plain = decoder.is_plain();
        let (size, _) = decoder.end()?;
        Ok(Blob { size, diff_size: self.tally.bytes, plain })
    }

    /// Whether there may be more.
    fn fill<R: Read>(&mut self, decoder: &mut Decoder<R>, chunk: &mut Chunk) -> io::Result<bool> {
        let (buffer, len) = chunk;
        while let Some(space) = buffer.get_mut(*len..).filter(|space| !space.is_empty()) {
            let count = decoder.read(space)?;
            if count == 0 {
                return Ok(false);
            }
            *len += count;
            self.tally.add(count, decoder.bytes())?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::{Stream, tests::gzip};
    use super::*;

    /// More than all channels hold.
    fn much() -> Vec<u8> {
        (0..1_000_000_u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect()
    }

    fn piped(blob: impl Read + Send, expected: Expected) -> Result<(u64, Found)> {
        let count = |input: &mut Piped| {
            let start = input.by_ref().take(1_000_000);
            let mut start = std::io::BufReader::new(start);
            io::copy(&mut start, &mut io::sink()).map_err(read_error)
        };
        run(blob, Format::Unknown, expected, &Limits::default(), None, count)
    }

    /// Red when a byte is lost, comes twice or is hashed in another order.
    #[test]
    fn the_same_is_found_as_by_one_thread() {
        let whole = much();
        let twice = [gzip(&whole[..2_000_000]), gzip(b""), gzip(&whole[2_000_000..])].concat();
        let zstd = zstd::encode_all(&whole[..], 1).unwrap();
        let mut broken = gzip(&whole);
        let middle = broken.len() / 2;
        broken[middle] ^= 1;
        for blob in [
            whole.clone(),
            Vec::new(),
            gzip(b"x"),
            [&twice[..], b"junk"].concat(),
            twice[..twice.len() - 4].to_vec(),
            zstd[..zstd.len() / 2].to_vec(),
            twice,
            zstd,
            broken,
        ] {
            let limits = Limits::default();
            let one = Stream::new(&blob[..], Format::Unknown, Expected::default(), &limits)
                .and_then(Stream::finish);
            let many = piped(&blob[..], Expected::default());
            match (one, many) {
                (Ok(one), Ok((count, many))) => {
                    assert_eq!(one, many);
                    assert_eq!(count, one.diff_size.min(1_000_000));
                }
                (Err(one), Err(many)) => assert_eq!(one.to_string(), many.to_string()),
                (one, many) => panic!("{one:?}, {many:?}"),
            }
        }
    }

    /// Red when somebody waits for ever for one who is gone.
    #[test]
    fn whoever_fails_first_ends_it() {
        let blob = gzip(&much());
        let gives_up = |_: &mut Piped| Err::<(), _>(Error::invalid("enough"));
        let limits = Limits::default();
        let none = Expected::default();
        let error = run(&blob[..], Format::Unknown, none, &limits, None, gives_up).unwrap_err();
        assert_eq!(error.to_string(), "enough");
        let few = Limits { bytes: 3_000_000, ..Limits::default() };
        let all = |input: &mut Piped| io::copy(input, &mut io::sink()).map_err(read_error);
        let error = run(&blob[..], Format::Unknown, none, &few, None, all).unwrap_err();
        assert_eq!(error.to_string(), "more than the limit bytes = 3000000");
        let wrong = Expected { size: Some(blob.len() as u64 + 1), ..none };
        assert!(piped(&blob[..], wrong).unwrap_err().to_string().starts_with("size: expected"));
        let short = Expected { size: Some(blob.len() as u64 - 1), ..none };
        assert!(piped(&blob[..], short).unwrap_err().to_string().contains("longer than its"));
    }

    #[test]
    fn a_blob_that_cannot_be_read_says_why() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
        let blob = gzip(&much());
        for start in [0, blob.len() / 2] {
            let error = piped((&blob[..start]).chain(Fails), Expected::default()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
        }
    }
}
