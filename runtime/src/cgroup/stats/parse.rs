//! The text forms that cgroup files come in.

use super::types::{BlkioEntry, IoEntry, Pressure, PressureLine, RdmaEntry};

/// One number; `max` is `u64::MAX`. A v1 limit of −1 cannot occur: the kernel
/// prints its own maximum.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// `key value` lines.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, number(value)?))
    })
}

/// v1 blkio: `8:0 Read 4096` or `8:0 12`, and a closing `Total n` that has no device.
pub(super) fn blkio(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let second = words.next()?;
        let (op, value) = match words.next() {
            Some(value) => (second, value),
            None => ("", second),
        };
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// v2 `io.stat`: `8:0 rbytes=1 wbytes=2 …`.
pub(super) fn io_stat(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let mut entry = IoEntry { major, minor, ..IoEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `mlx4_0 hca_handle=2 hca_object=max`.
pub(super) fn rdma(text: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let mut entry = RdmaEntry { device: words.next()?.to_owned(), ..RdmaEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(u32::MAX);
            match key {
                "hca_handle" => entry.hca_handles = value,
                "hca_object" => entry.hca_objects = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

/// `some avg10=0.12 avg60=0.00 avg300=0.00 total=123` and the same for `full`.
pub(super) fn pressure(text: &str) -> Pressure {
    let mut out = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let target = match words.next() {
            Some("some") => &mut out.some,
            Some("full") => &mut out.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            pressure_value(target, key, value);
        }
    }
    out
}

fn pressure_value(line: &mut PressureLine, key: &str, value: &str) {
    match key {
        "avg10" => line.avg10 = hundredths(value),
        "avg60" => line.avg60 = hundredths(value),
        "avg300" => line.avg300 = hundredths(value),
        "total" => line.total_usec = value.parse().unwrap_or(0),
        _ => {}
    }
}

/// `1.53` is 153; the kernel always prints two decimals.
fn hundredths(text: &str) -> u32 {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    whole.parse::<u32>().unwrap_or(0) * 100 + part.parse::<u32>().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blkio_lines_with_and_without_an_operation() {
        let entries = blkio("8:0 Read 4096\n8:16 12\n8:0 Total 4096\nTotal 4096\n");
        let want =
            |major, minor, op: &str, value| BlkioEntry { major, minor, op: op.into(), value };
        assert_eq!(
            entries,
            [want(8, 0, "Read", 4096), want(8, 16, "", 12), want(8, 0, "Total", 4096)]
        );
    }

    #[test]
    fn io_stat_ignores_keys_it_does_not_know() {
        let entries = io_stat("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n");
        assert_eq!(
            entries,
            [IoEntry { major: 254, minor: 0, rbytes: 1, wbytes: 2, rios: 3, wios: 4 }]
        );
    }

    #[test]
    fn pressure_keeps_two_decimals() {
        let text = "some avg10=1.53 avg60=0.07 avg300=100.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let got = pressure(text);
        assert_eq!(got.some, PressureLine { avg10: 153, avg60: 7, avg300: 10_000, total_usec: 42 });
        assert_eq!(got.full.total_usec, 7);
    }

    #[test]
    fn numbers_and_rdma() {
        assert_eq!(number("max\n"), Some(u64::MAX));
        assert_eq!(number("12\n"), Some(12));
        assert_eq!(number("x"), None);
        let entry = &rdma("mlx4_0 hca_handle=2 hca_object=max\n")[0];
        assert_eq!((entry.hca_handles, entry.hca_objects), (2, u32::MAX));
    }
}
