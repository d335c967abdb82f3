//! One header block (POSIX 1003.1 pax, "ustar Interchange Format"; GNU tar
//! manual, "Basic Tar Format").

use super::number::{Time, field};
use super::{Block, Problem};

/// What a header says, before extensions change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) type_flag: u8,
    pub(super) mode: u32,
    /// Checked when no extension overrides it.
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: Time,
    /// Major and minor number; zeros unless it is a device node.
    pub(super) device: (i64, i64),
}

/// A field by name and place.
struct Place(&'static str, usize, usize);

const MODE: Place = Place("mode", 100, 8);
const UID: Place = Place("uid", 108, 8);
const GID: Place = Place("gid", 116, 8);
const SIZE: Place = Place("size", 124, 12);
const MTIME: Place = Place("mtime", 136, 12);
const CHECKSUM: Place = Place("checksum", 148, 8);
const MAJOR: Place = Place("devmajor", 329, 8);
const MINOR: Place = Place("devminor", 337, 8);

impl Header {
    /// Reads a block that is not all zeros.
    pub(super) fn parse(block: &Block) -> Result<Self, Problem> {
        checksum(block)?;
        let type_flag = block[156];
        let size = u64::try_from(number(block, &SIZE)?)
            .map_err(|_| Problem::new("size: a negative number"))?;
        let device = match type_flag {
            b'3' | b'4' => (number(block, &MAJOR)?, number(block, &MINOR)?),
            _ => (0, 0),
        };
        Ok(Self {
            name: name(block),
            link: text(&block[157..257]).to_vec(),
            type_flag,
            // More than these bits is the file's type, which some writers repeat here.
            mode: (number(block, &MODE)? & 0o7777) as u32,
            uid: number(block, &UID)?,
            gid: number(block, &GID)?,
            size,
            mtime: Time::clamped(number(block, &MTIME)?, 0),
            device,
        })
    }
}

/// Only the POSIX format has a prefix; others have other things there.
fn name(block: &Block) -> Vec<u8> {
    let name = text(&block[..100]);
    let star = &block[508..512] == b"tar\0";
    let prefix = match &block[257..263] {
        b"ustar\0" if star => text(&block[345..476]),
        b"ustar\0" => text(&block[345..500]),
        _ => b"",
    };
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn number(block: &Block, place: &Place) -> Result<i64, Problem> {
    let Place(name, from, len) = *place;
    field(&block[from..from + len]).map_err(|problem| problem.of(name))
}

/// The sum of all bytes with the sum's own field as blanks; historic writers
/// added signed bytes.
fn checksum(block: &Block) -> Result<(), Problem> {
    let Place(_, from, len) = CHECKSUM;
    let wanted = number(block, &CHECKSUM)?;
    let own = from..from + len;
    let bytes =
        || block.iter().enumerate().map(|(at, b)| if own.contains(&at) { b' ' } else { *b });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    if wanted == unsigned || wanted == signed {
        return Ok(());
    }
    Err(Problem::new(format!("checksum: the header says {wanted}, its bytes make {unsigned}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as GNU tar writes one, with its checksum.
    fn block(change: impl FnOnce(&mut Block)) -> Block {
        let mut block = [0; 512];
        block[..3].copy_from_slice(b"a/b");
        block[100..108].copy_from_slice(b"0100644\0");
        block[108..116].copy_from_slice(b"0001750\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(b"00000000005\0");
        block[136..148].copy_from_slice(b"14532660400\0");
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut block);
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum::<u32>() + 8 * 32;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    #[test]
    fn a_usual_header() {
        let header = Header::parse(&block(|_| ())).unwrap();
        assert_eq!(header.name, b"a/b");
        assert_eq!((header.mode, header.uid, header.gid, header.size), (0o644, 1000, 0, 5));
        assert_eq!(header.mtime.seconds, 0o14_532_660_400);
    }

    #[test]
    fn a_prefix_belongs_to_the_posix_format_only() {
        let with = |magic: &[u8; 8]| {
            let block = block(|b| {
                b[257..265].copy_from_slice(magic);
                b[345..350].copy_from_slice(b"12345");
            });
            Header::parse(&block).unwrap().name
        };
        assert_eq!(with(b"ustar\x0000"), b"12345/a/b");
        assert_eq!(with(b"ustar  \0"), b"a/b");
        assert_eq!(with(b"\0\0\0\0\0\0\0\0"), b"a/b");
    }

    #[test]
    fn wrong_fields_are_named() {
        let error = |change: fn(&mut Block)| Header::parse(&block(change)).unwrap_err().to_string();
        assert!(error(|b| b[124] = b'x').starts_with("size: "));
        assert!(error(|b| b[124..136].fill(0xff)).starts_with("size: a negative number"));
        assert!(error(|b| b[108] = b'9').starts_with("uid: "));
        let mut broken = block(|_| ());
        broken[0] = b'z';
        let text = Header::parse(&broken).unwrap_err().to_string();
        assert!(text.starts_with("checksum: the header says "), "{text}");
    }

    #[test]
    fn a_checksum_of_signed_bytes_is_accepted() {
        let mut block = block(|b| b[0] = 0xe9);
        let sum = (0_i32 - 256)
            + block[..148].iter().chain(&block[156..]).map(|b| i32::from(*b)).sum::<i32>()
            + 8 * 32;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(Header::parse(&block).unwrap().name, b"\xe9/b");
    }
}
