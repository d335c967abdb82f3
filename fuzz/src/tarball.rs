//! Archives for the targets that read them.

use boathook_fs::layer::{Archive, Entry, Limits, TarError};

/// A header block with a right checksum.
pub fn header(name: &str, kind: u8, size: usize) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..124].copy_from_slice(b"0000644\x000000000\x000000000\0");
    block[124..148].copy_from_slice(format!("{size:011o}\x0000000000000\0").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

/// Makes the checksum right.
pub fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Bytes and the zeros behind them.
pub fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Reads everything and checks what must hold of each entry.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Vec<Entry>, TarError> {
    let mut archive = Archive::new(bytes, limits);
    let (mut entries, mut read) = (Vec::new(), 0);
    while let Some(entry) = archive.next_entry()? {
        let before = read;
        archive.read_body::<TarError>(|piece| {
            assert!(!piece.is_empty());
            read += piece.len() as u64;
            Ok(())
        })?;
        check(&entry, read - before, limits);
        entries.push(entry);
        assert!(read <= bytes.len() as u64 && entries.len() * 512 <= bytes.len());
    }
    Ok(entries)
}

fn check(entry: &Entry, stored: u64, limits: &Limits) {
    assert!(!entry.path.contains(&0) && !entry.link.contains(&0), "{entry:?}");
    assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.gid != u32::MAX, "{entry:?}");
    assert!(entry.mtime.seconds >= 0 && entry.mtime.nanoseconds < 1_000_000_000, "{entry:?}");
    assert!(i64::try_from(entry.size).is_ok(), "{entry:?}");
    assert!(entry.xattrs.len() as u64 <= limits.xattrs, "{entry:?}");
    for (at, (name, value)) in entry.xattrs.iter().enumerate() {
        assert!(!name.is_empty() && !name.contains(&0) && value.len() as u64 <= limits.xattr_bytes);
        assert!(entry.xattrs.iter().skip(at + 1).all(|(other, _)| other != name), "{entry:?}");
    }
    let Some(map) = &entry.sparse else {
        assert_eq!(entry.size, stored, "{entry:?}");
        return;
    };
    assert!(map.len() as u64 <= limits.sparse_segments);
    let mut end = 0;
    for segment in map {
        assert!(segment.offset >= end, "{map:?}");
        end = segment.offset.checked_add(segment.length).expect("an end");
    }
    assert!(end <= entry.size, "{map:?} in {}", entry.size);
    assert_eq!(map.iter().map(|segment| segment.length).sum::<u64>(), stored, "{map:?}");
}
