//! Maps of sparse files, formats 0.0, 0.1 and 1.0 of GNU tar ("Storing Sparse
//! Files"): where the stored bytes belong; all else are holes.

use super::number::decimal;
use super::{Limits, Problem};

/// Stored bytes and their place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where they belong.
    pub offset: u64,
    /// How many they are.
    pub length: u64,
}

/// Numbers parted by `mark`, two for each segment.
///
/// # Errors
/// No number, an odd count, more than the limit.
pub(super) fn pairs(text: &[u8], mark: u8, limits: &Limits) -> Result<Vec<Segment>, Problem> {
    let mut segments = Vec::new();
    if text.is_empty() {
        return Ok(segments);
    }
    let mut numbers = text.split(|b| *b == mark);
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or_else(|| Problem::new("an offset without a length"))?;
        if segments.len() as u64 == limits.sparse_segments {
            return Err(Problem::limit("sparse-segments", limits.sparse_segments));
        }
        segments.push(Segment { offset: decimal(offset)?, length: decimal(length)? });
    }
    Ok(segments)
}

/// The map of format 1.0, which stands in front of the data in whole blocks:
/// the number of segments and the segments, one number a line. It is handed in
/// block by block until it is complete.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    text: Vec<u8>,
    /// Lines seen.
    lines: u64,
    /// Lines that there will be, once the first is known.
    wanted: Option<u64>,
    blocks: u64,
}

impl MapReader {
    /// Takes one more block; the map when it is complete.
    pub(super) fn feed(
        &mut self,
        block: &[u8; 512],
        limits: &Limits,
    ) -> Result<Option<Vec<Segment>>, Problem> {
        self.blocks += 1;
        if self.blocks * 512 > limits.extended_bytes {
            return Err(Problem::limit("extended-bytes", limits.extended_bytes));
        }
        for byte in block {
            if self.wanted == Some(self.lines) {
                // The rest of the block is padding.
                break;
            }
            self.text.push(*byte);
            if *byte == b'\n' {
                self.end_of_line(limits)?;
            }
        }
        if self.wanted != Some(self.lines) {
            return Ok(None);
        }
        let text = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        let rest = text.iter().position(|b| *b == b'\n').map_or(text.len(), |at| at + 1);
        pairs(text.get(rest..).unwrap_or_default(), b'\n', limits).map(Some)
    }

    fn end_of_line(&mut self, limits: &Limits) -> Result<(), Problem> {
        self.lines += 1;
        if self.wanted.is_none() {
            let count = decimal(self.text.strip_suffix(b"\n").unwrap_or_default())?;
            if count > limits.sparse_segments {
                return Err(Problem::limit("sparse-segments", limits.sparse_segments));
            }
            self.wanted = Some(1 + 2 * count);
        }
        Ok(())
    }
}

/// Checks a map: ascending, without overlap, inside the file, and of exactly
/// the bytes that are stored.
pub(super) fn check(map: &[Segment], size: u64, stored: u64) -> Result<(), Problem> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for segment in map {
        if segment.offset < end {
            return Err(Problem::new("sparse map: segments overlap or are not in order"));
        }
        let last = segment.offset.checked_add(segment.length).filter(|last| *last <= size);
        end = last.ok_or_else(|| Problem::new("sparse map: a segment ends beyond the file"))?;
        // No overflow: the segments lie side by side below `size`.
        sum += segment.length;
    }
    if sum != stored {
        let text = format!("sparse map: it speaks of {sum} bytes and {stored} are stored");
        return Err(Problem::new(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(all: &[(u64, u64)]) -> Vec<Segment> {
        all.iter().map(|(offset, length)| Segment { offset: *offset, length: *length }).collect()
    }

    #[test]
    fn maps_must_be_in_order_inside_and_of_what_is_stored() {
        assert_eq!(check(&segments(&[(0, 2), (2, 3), (10, 0)]), 10, 5), Ok(()));
        assert_eq!(check(&[], 10, 0), Ok(()));
        for (map, text) in [
            (&[(0, 3), (2, 3)][..], "overlap"),
            (&[(5, 1), (0, 1)], "overlap"),
            (&[(8, 3)], "beyond"),
            (&[(u64::MAX, 2)], "beyond"),
            (&[(0, 4)], "4 bytes and 5 are stored"),
        ] {
            let error = check(&segments(map), 10, 5).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    fn read(text: &str, limits: &Limits) -> Result<Option<Vec<Segment>>, Problem> {
        let mut reader = MapReader::default();
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let (blocks, _) = bytes.as_chunks::<512>();
        for block in blocks {
            if let Some(map) = reader.feed(block, limits)? {
                return Ok(Some(map));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_map_in_front_of_the_data_is_read_to_its_last_line() {
        let limits = Limits::default();
        assert_eq!(
            read("2\n0\n512\n4096\n8\n", &limits).unwrap().unwrap(),
            segments(&[(0, 512), (4096, 8)])
        );
        assert_eq!(read("0\n", &limits).unwrap().unwrap(), []);
        // Over the edge of a block.
        let many: String = (0..200).map(|n| format!("{}\n1\n", n * 1000)).collect();
        assert_eq!(read(&format!("200\n{many}"), &limits).unwrap().unwrap().len(), 200);
        assert_eq!(read("2\n0\n1\n", &limits).unwrap(), None, "two lines are missing");
        assert!(read("x\n", &limits).is_err());
        assert!(read("1\n0\n-1\n", &limits).is_err());
        let few = Limits { sparse_segments: 1, ..limits };
        assert!(
            read("2\n0\n1\n2\n1\n", &few).unwrap_err().to_string().contains("sparse-segments = 1")
        );
        assert!(pairs(b"0,1,2,3", b',', &few).is_err());
        assert!(pairs(b"0,1,2", b',', &Limits::default()).is_err());
    }
}
