//! How a plan is laid out in memory: little-endian numbers, strings with their
//! length in front and a NUL behind, so that init can hand them to the kernel
//! where they lie.
//!
//! ```text
//! plan   = magic:u32 version:u32 slots:u32 steps:u32 step*
//! step   = opcode:u32 field*
//! field  = u32 | u64 | string | list | ids | bytes
//! string = length:u32 byte{length} NUL
//! list   = count:u32 string{count}
//! ids    = count:u32 u32{count}
//! bytes  = length:u32 u8{length}
//! ```
//!
//! Every length is checked against what is left of the buffer before it is
//! used; there is no other way to a byte of the plan than [`Reader`]
//! (CVE-2021-43784 was a length that overflowed its field).

use core::ffi::CStr;

/// First word of a plan: "BHK1".
pub const MAGIC: u32 = 0x314b_4842;
/// Version of the step table. Engine and init are built together, so this only
/// guards against a descriptor that is not a plan.
pub const VERSION: u32 = 1;
/// Most descriptors that a plan may use.
pub const MAX_SLOTS: u32 = 8192;

/// The bytes are not a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A place for a descriptor. There are two tables: one that the engine fills
/// before the first step, and one that steps fill with what they make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    const MADE: u32 = 1 << 16;

    /// The `index`-th descriptor that the engine sends.
    pub const fn sent(index: u32) -> Self {
        Slot(index)
    }

    /// The `index`-th descriptor that steps make.
    pub const fn made(index: u32) -> Self {
        Slot(index | Self::MADE)
    }

    /// The place in one table that has `sent` descriptors in front.
    pub const fn index(self, sent: usize) -> usize {
        let index = (self.0 & !Self::MADE) as usize;
        if self.is_made() { sent + index } else { index }
    }

    /// Whether a step makes it.
    pub const fn is_made(self) -> bool {
        self.0 & Self::MADE != 0
    }
}

/// Where encoded bytes go; implemented for the engine's buffer.
pub trait Sink {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);
}

/// A cursor over an encoded plan.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether every byte was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = tail;
        Ok(head)
    }

    fn string(&mut self) -> Result<&'a CStr, Malformed> {
        let length = u32::get(self)? as usize;
        let bytes = self.take(length.checked_add(1).ok_or(Malformed)?)?;
        CStr::from_bytes_with_nul(bytes).map_err(|_| Malformed)
    }
}

/// A value that can be a field of a step.
pub trait Field<'a>: Sized {
    /// Appends the encoded value to `out`.
    fn put(&self, out: &mut dyn Sink);
    /// Reads one value.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes end early or break the layout.
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed>;
    /// The value for people and for JSON.
    fn value(&self) -> Value<'a>;
}

/// A field of a step as it is shown by `boathook plan`.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// A number or a set of flags.
    Number(u64),
    /// A string.
    Text(&'a CStr),
    /// Several strings.
    Texts(List<'a>),
    /// Several numbers.
    Numbers(Ids<'a>),
    /// Something for the kernel.
    Bytes(&'a [u8]),
    /// A descriptor.
    Slot(Slot),
}

impl<'a> Field<'a> for u32 {
    fn put(&self, out: &mut dyn Sink) {
        out.put(&self.to_le_bytes());
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let bytes = from.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| Malformed)?))
    }
    fn value(&self) -> Value<'a> {
        Value::Number(u64::from(*self))
    }
}

impl<'a> Field<'a> for u64 {
    fn put(&self, out: &mut dyn Sink) {
        out.put(&self.to_le_bytes());
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let bytes = from.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| Malformed)?))
    }
    fn value(&self) -> Value<'a> {
        Value::Number(*self)
    }
}

impl<'a> Field<'a> for Slot {
    fn put(&self, out: &mut dyn Sink) {
        Field::put(&self.0, out);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let number = u32::get(from)?;
        if number & !Slot::MADE >= MAX_SLOTS { Err(Malformed) } else { Ok(Slot(number)) }
    }
    fn value(&self) -> Value<'a> {
        Value::Slot(*self)
    }
}

impl<'a> Field<'a> for &'a CStr {
    fn put(&self, out: &mut dyn Sink) {
        let bytes = self.to_bytes_with_nul();
        // A string of 4 GiB cannot come from a config.json that was read into memory.
        let length = u32::try_from(bytes.len() - 1).unwrap_or(u32::MAX);
        Field::put(&length, out);
        out.put(bytes);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        from.string()
    }
    fn value(&self) -> Value<'a> {
        Value::Text(self)
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn put(&self, out: &mut dyn Sink) {
        // As for a string.
        Field::put(&u32::try_from(self.len()).unwrap_or(u32::MAX), out);
        out.put(self);
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let length = u32::get(from)? as usize;
        from.take(length)
    }
    fn value(&self) -> Value<'a> {
        Value::Bytes(self)
    }
}

/// A list of strings: given as a slice when a plan is written, read from the
/// plan's own bytes afterwards.
#[derive(Clone, Copy)]
pub enum List<'a> {
    /// Strings to encode.
    Strings(&'a [&'a CStr]),
    /// `count` strings, already checked, in the plan's bytes.
    Encoded {
        /// How many there are.
        count: u32,
        /// Their bytes.
        bytes: &'a [u8],
    },
}

impl<'a> List<'a> {
    /// How many strings there are.
    pub fn len(&self) -> usize {
        match self {
            List::Strings(all) => all.len(),
            List::Encoded { count, .. } => *count as usize,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The strings in order.
    pub fn iter(&self) -> ListIter<'a> {
        match *self {
            List::Strings(all) => ListIter::Strings(all.iter()),
            List::Encoded { bytes, .. } => ListIter::Encoded(Reader::new(bytes)),
        }
    }
}

impl PartialEq for List<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl core::fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Iterator over a [`List`].
#[derive(Debug, Clone)]
pub enum ListIter<'a> {
    /// Over a slice.
    Strings(core::slice::Iter<'a, &'a CStr>),
    /// Over encoded bytes.
    Encoded(Reader<'a>),
}

impl<'a> Iterator for ListIter<'a> {
    type Item = &'a CStr;
    fn next(&mut self) -> Option<&'a CStr> {
        match self {
            ListIter::Strings(all) => all.next().copied(),
            // The list was walked once when it was decoded: an error here is its end.
            ListIter::Encoded(reader) if reader.is_empty() => None,
            ListIter::Encoded(reader) => reader.string().ok(),
        }
    }
}

impl<'a> Field<'a> for List<'a> {
    fn put(&self, out: &mut dyn Sink) {
        Field::put(&u32::try_from(self.len()).unwrap_or(u32::MAX), out);
        for string in self.iter() {
            string.put(out);
        }
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = u32::get(from)?;
        let start = from.rest;
        for _ in 0..count {
            from.string()?;
        }
        let length = start.len() - from.rest.len();
        Ok(List::Encoded { count, bytes: start.get(..length).ok_or(Malformed)? })
    }
    fn value(&self) -> Value<'a> {
        Value::Texts(*self)
    }
}

/// A list of numbers, such as group ids.
#[derive(Debug, Clone, Copy)]
pub enum Ids<'a> {
    /// Numbers to encode.
    Slice(&'a [u32]),
    /// Little-endian bytes, four for each number.
    Encoded(&'a [u8]),
}

impl Ids<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Ids::Slice(all) => all.len(),
            Ids::Encoded(bytes) => bytes.len() / 4,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number at `index`.
    pub fn at(&self, index: usize) -> Option<u32> {
        match self {
            Ids::Slice(all) => all.get(index).copied(),
            Ids::Encoded(bytes) => {
                let from = index.checked_mul(4)?;
                let four = bytes.get(from..from.checked_add(4)?)?;
                Some(u32::from_le_bytes(four.try_into().ok()?))
            }
        }
    }
}

impl PartialEq for Ids<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && (0..self.len()).all(|i| self.at(i) == other.at(i))
    }
}

impl<'a> Field<'a> for Ids<'a> {
    fn put(&self, out: &mut dyn Sink) {
        Field::put(&u32::try_from(self.len()).unwrap_or(u32::MAX), out);
        for index in 0..self.len() {
            Field::put(&self.at(index).unwrap_or(0), out);
        }
    }
    fn get(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = u32::get(from)? as usize;
        Ok(Ids::Encoded(from.take(count.checked_mul(4).ok_or(Malformed)?)?))
    }
    fn value(&self) -> Value<'a> {
        Value::Numbers(*self)
    }
}

/// What stands in front of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How many descriptors the plan uses, filled ones and made ones.
    pub slots: u32,
    /// How many steps follow.
    pub steps: u32,
}

impl Header {
    /// Length of the encoded header in bytes.
    pub const LEN: usize = 16;

    /// Appends the encoded header to `out`.
    pub fn put(&self, out: &mut dyn Sink) {
        for word in [MAGIC, VERSION, self.slots, self.steps] {
            Field::put(&word, out);
        }
    }

    /// Reads and checks the header.
    ///
    /// # Errors
    /// [`Malformed`] for anything that is not the header of this version.
    pub fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if u32::get(from)? != MAGIC || u32::get(from)? != VERSION {
            return Err(Malformed);
        }
        let header = Header { slots: u32::get(from)?, steps: u32::get(from)? };
        if header.slots > MAX_SLOTS { Err(Malformed) } else { Ok(header) }
    }
}
