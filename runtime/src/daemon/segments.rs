//! Where the program's own read-only segments are, from its ELF header
//! (elf(5)). Nothing here is trusted by address: a header that does not look
//! as expected means "none".

use std::fs::File;
use std::io::Read;
use std::ops::Range;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Bytes read: the header and as many program headers as a linker makes.
const READ: usize = 4096;
const CLASS_64_LITTLE_ENDIAN: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
const ET_EXEC: u16 = 2;
const PT_LOAD: u32 = 1;
const PF_W: u32 = 2;

/// Page-aligned address ranges of the segments of `/proc/self/exe` that are
/// mapped without write permission. Only for programs linked to a fixed
/// address; others have none here.
pub(super) fn read_only() -> Vec<Range<usize>> {
    let mut bytes = Vec::with_capacity(READ);
    let read = File::open("/proc/self/exe")
        .and_then(|file| file.take(READ as u64).read_to_end(&mut bytes));
    match read {
        Ok(_) => parse(&bytes),
        Err(_) => Vec::new(),
    }
}

fn parse(elf: &[u8]) -> Vec<Range<usize>> {
    let fixed = elf.starts_with(&CLASS_64_LITTLE_ENDIAN)
        && half(elf, 16) == Some(ET_EXEC)
        && half(elf, 54) == Some(PROGRAM_HEADER as u16);
    let (Some(offset), Some(count)) = (word(elf, 32), half(elf, 56)) else { return Vec::new() };
    if !fixed || offset != HEADER {
        return Vec::new();
    }
    let headers = (0..usize::from(count)).map(|n| offset + n * PROGRAM_HEADER);
    headers.filter_map(|at| segment(elf, at)).collect()
}

/// The pages of one segment, if it is loaded and never written. Pages that it
/// shares with a neighbour are left out.
fn segment(elf: &[u8], at: usize) -> Option<Range<usize>> {
    const PAGE: usize = 4096;
    let (kind, flags) = (quad(elf, at)?, quad(elf, at + 4)?);
    let (address, size) = (word(elf, at + 16)?, word(elf, at + 40)?);
    let start = address.checked_next_multiple_of(PAGE)?;
    let end = address.checked_add(size)? / PAGE * PAGE;
    (kind == PT_LOAD && flags & PF_W == 0 && start < end).then_some(start..end)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn quad(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segments_of_this_program_are_its_read_only_mappings() {
        let segments = read_only();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let here = the_segments_of_this_program_are_its_read_only_mappings as fn() as usize;
        assert!(segments.iter().any(|s| s.contains(&here)), "{segments:x?}\n{maps}");
        for segment in &segments {
            let writable = maps.lines().any(|line| {
                let (range, rest) = line.split_once(' ').unwrap();
                let (from, to) = range.split_once('-').unwrap();
                let address = |text| usize::from_str_radix(text, 16).unwrap();
                rest.starts_with("rw") && address(from) < segment.end && segment.start < address(to)
            });
            assert!(!writable, "{segment:x?}\n{maps}");
        }
    }

    #[test]
    fn other_files_have_none() {
        assert!(parse(b"").is_empty());
        assert!(parse(b"#!/bin/sh\n").is_empty());
        let mut shared = CLASS_64_LITTLE_ENDIAN.to_vec();
        shared.resize(READ, 0xff);
        assert!(parse(&shared).is_empty());
    }
}
