//! A reader of tar archives as image layers are: ustar, PAX and GNU headers,
//! long names, sparse files by PAX records. Pure: it knows no file system.
//!
//! ```text
//! archive = { extension* header body padding }* zeros
//! extension = x | g | L | K, each with a body
//! ```
//!
//! What could be read in two ways is refused instead of guessed; there is one
//! size of an entry from the moment its extensions are read (CVE-2025-62518 was
//! two).

mod entry;
mod header;
mod number;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::BufRead;

pub(super) use entry::shown;
pub use entry::{Entry, Kind};
pub use number::Time;
pub use pax::Xattr;
pub use sparse::Segment;

use super::limits::Limits;
use header::Header;
use pax::Records;
use sparse::MapReader;

/// The unit of an archive.
const BLOCK: usize = 512;
type Block = [u8; BLOCK];

/// What is wrong with the bytes of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// More than `key` allows.
    pub(super) fn limit(key: &str, value: u64) -> Self {
        Self(format!("more than the limit {key} = {value}"))
    }

    /// Names what it was found in.
    pub(super) fn of(self, what: impl fmt::Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

/// Why an archive could not be read on.
#[derive(Debug)]
pub enum Error {
    /// The archive is broken or not accepted.
    Archive(Problem),
    /// The bytes did not come.
    Read(std::io::Error),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Archive(problem)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive(problem) => problem.fmt(f),
            Self::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

type Result<T> = std::result::Result<T, Error>;

/// A position in an archive, and the entry whose body comes next.
#[derive(Debug)]
pub struct Archive<'l, R> {
    input: R,
    limits: &'l Limits,
    /// Bytes of the current body that are left.
    body: u64,
    /// Zeros behind it.
    padding: u64,
    /// Entries read.
    entries: u64,
    /// Whether the end of the archive was read.
    ended: bool,
}

/// Extensions in front of a header.
#[derive(Default)]
struct Extensions {
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Extensions {
    fn any(&self) -> bool {
        self.records.is_some() || self.long_name.is_some() || self.long_link.is_some()
    }
}

impl<'l, R: BufRead> Archive<'l, R> {
    /// Starts at the first byte of `input`.
    pub fn new(input: R, limits: &'l Limits) -> Self {
        Self { input, limits, body: 0, padding: 0, entries: 0, ended: false }
    }

    /// The next entry; what is left of the one before is skipped. `None` at the
    /// end of the archive.
    ///
    /// # Errors
    /// Whatever is not a header, is cut short, or is more than a limit.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_body()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(block) = self.header_block()? else {
                if extensions.any() {
                    return Err(Problem::new("an extended header without an entry").into());
                }
                self.ended = true;
                return Ok(None);
            };
            self.count()?;
            let header = Header::parse(&block)?;
            match header.type_flag {
                b'x' => {
                    let body = self.extension(&header)?;
                    let records = Records::parse(&body, self.limits)?;
                    once(&mut extensions.records, records, "extended headers")?;
                }
                // A global header speaks of nothing that counts here, but it must be one.
                b'g' => {
                    let body = self.extension(&header)?;
                    Records::parse(&body, self.limits)?;
                }
                b'L' => {
                    let name = up_to_nul(self.extension(&header)?);
                    once(&mut extensions.long_name, name, "long names")?;
                }
                b'K' => {
                    let name = up_to_nul(self.extension(&header)?);
                    once(&mut extensions.long_link, name, "long link targets")?;
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// Hands the stored bytes of the current entry to `each`, piece by piece,
    /// where they lie in the reader's buffer.
    ///
    /// # Errors
    /// An archive that ends in the body; what `each` says.
    pub fn read_body<E: From<Error>>(
        &mut self,
        mut each: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        while self.body > 0 {
            let buffer = self.input.fill_buf().map_err(Error::Read)?;
            let wanted = usize::try_from(self.body).unwrap_or(usize::MAX);
            let piece = buffer.get(..wanted.min(buffer.len())).unwrap_or_default();
            if piece.is_empty() {
                return Err(Error::from(Problem::new("the archive ends in the body")).into());
            }
            each(piece)?;
            let count = piece.len();
            self.input.consume(count);
            self.body -= count as u64;
        }
        Ok(())
    }

    /// Gives the input back; only what stands behind the end is unread.
    pub fn into_input(self) -> R {
        self.input
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry> {
        let Extensions { records, long_name, long_link } = extensions;
        let named = Named { long_name, long_link, records: records.unwrap_or_default() };
        let (mut entry, stored) = Entry::new(header, named)?;
        self.expect(stored);
        if entry.has_map_in_body() {
            let map = self.map_in_body().map_err(|error| entry.name_in(error))?;
            entry.set_map(map);
        }
        entry.check_map(self.body).map_err(|problem| entry.name_in(problem.into()))?;
        Ok(entry)
    }

    /// From here on a body of `stored` bytes is to be read.
    fn expect(&mut self, stored: u64) {
        self.body = stored;
        self.padding = stored.next_multiple_of(BLOCK as u64) - stored;
    }

    fn map_in_body(&mut self) -> Result<Vec<Segment>> {
        let mut reader = MapReader::default();
        loop {
            if self.body < BLOCK as u64 {
                return Err(Problem::new("sparse map: it is longer than the body").into());
            }
            let mut block = [0; BLOCK];
            self.fill(&mut block)?;
            self.body -= BLOCK as u64;
            if let Some(map) = reader.feed(&block, self.limits)? {
                return Ok(map);
            }
        }
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Problem::limit("entries", self.limits.entries).into());
        }
        Ok(())
    }

    /// The body of an extension header, which is never large.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        if header.size > self.limits.extended_bytes {
            return Err(Problem::limit("extended-bytes", self.limits.extended_bytes).into());
        }
        self.expect(header.size);
        let mut body = Vec::new();
        self.read_body::<Error>(|piece| {
            body.extend_from_slice(piece);
            Ok(())
        })?;
        self.skip_body()?;
        Ok(body)
    }

    fn skip_body(&mut self) -> Result<()> {
        self.read_body::<Error>(|_| Ok(()))?;
        self.body = std::mem::take(&mut self.padding);
        self.read_body::<Error>(|_| Ok(()))
    }

    /// The next block that is no zeros. Archives end with two blocks of zeros,
    /// with one, or just so.
    fn header_block(&mut self) -> Result<Option<Block>> {
        let mut block = [0; BLOCK];
        if self.ended || !self.fill_or_end(&mut block)? {
            return Ok(None);
        }
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        if self.fill_or_end(&mut block)? && block != [0; BLOCK] {
            return Err(Problem::new("a header behind a block of zeros").into());
        }
        Ok(None)
    }

    fn fill_or_end(&mut self, block: &mut Block) -> Result<bool> {
        if self.input.fill_buf().map_err(Error::Read)?.is_empty() {
            return Ok(false);
        }
        self.fill(block).map(|()| true)
    }

    fn fill(&mut self, block: &mut Block) -> Result<()> {
        self.input.read_exact(block).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Problem::new("the archive ends in the middle of a block").into()
            }
            _ => Error::Read(error),
        })
    }
}

/// What extensions say of the entry behind them.
struct Named {
    records: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// Two extensions of one kind for one entry have two readings.
fn once<T>(place: &mut Option<T>, value: T, what: &str) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::new(format!("two {what} in a row")).into()),
    }
}

fn up_to_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}
