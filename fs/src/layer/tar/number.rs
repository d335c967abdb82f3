//! Numbers of tar: octal or base-256 in headers, decimal in PAX records.

use super::Problem;

/// A number of a header field: base-256 when the first bit is set, else octal
/// with leading blanks, ended by a NUL or a blank. An empty field is 0.
///
/// # Errors
/// Anything else, and what does not fit.
pub(super) fn field(bytes: &[u8]) -> Result<i64, Problem> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base256(bytes),
        _ => octal(bytes),
    }
}

fn octal(bytes: &[u8]) -> Result<i64, Problem> {
    let start = bytes.iter().position(|b| *b != b' ').unwrap_or(bytes.len());
    let digits = bytes.get(start..).unwrap_or_default();
    let end = digits.iter().position(|b| matches!(b, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if rest.iter().any(|b| !matches!(b, 0 | b' ')) {
        return Err(Problem::new("octal number followed by something else"));
    }
    digits.iter().try_fold(0_i64, |sum, digit| match digit {
        b'0'..=b'7' => sum
            .checked_mul(8)
            .map(|sum| sum + i64::from(digit - b'0'))
            .ok_or_else(|| Problem::new("octal number is too large")),
        _ => Err(Problem::new("not an octal number")),
    })
}

/// Two's complement in all bits but the first.
fn base256(bytes: &[u8]) -> Result<i64, Problem> {
    let negative = bytes.first().is_some_and(|b| b & 0x40 != 0);
    let mut value = if negative { -1_i64 } else { 0 };
    for (at, byte) in bytes.iter().enumerate() {
        // The mark is no part of the number; it takes the place of another sign bit.
        let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
        let shifted = value.checked_mul(256);
        let shifted = shifted.ok_or_else(|| Problem::new("base-256 number is too large"))?;
        value = shifted | i64::from(byte);
    }
    Ok(value)
}

/// A decimal number without a sign.
///
/// # Errors
/// No digit, another character, or what does not fit.
pub(super) fn decimal(text: &[u8]) -> Result<u64, Problem> {
    if text.is_empty() {
        return Err(Problem::new("a number without digits"));
    }
    text.iter().try_fold(0_u64, |sum, digit| {
        if !digit.is_ascii_digit() {
            return Err(Problem::new("not a decimal number"));
        }
        sum.checked_mul(10)
            .and_then(|sum| sum.checked_add(u64::from(digit - b'0')))
            .ok_or_else(|| Problem::new("decimal number is too large"))
    })
}

/// A point in time: seconds since 1970 and nanoseconds, never before 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds.
    pub seconds: i64,
    /// 0 to 999 999 999.
    pub nanoseconds: u32,
}

impl Time {
    /// Last second whose nanoseconds fit into 64 bits.
    const LAST: i64 = i64::MAX / 1_000_000_000;

    /// The time, or 1970 for one that is earlier or beyond what 64 bits of
    /// nanoseconds hold, as containerd has it.
    pub(super) fn clamped(seconds: i64, nanoseconds: u32) -> Self {
        if (0..Self::LAST).contains(&seconds) {
            Self { seconds, nanoseconds }
        } else {
            Self::default()
        }
    }

    /// `seconds[.fraction]` of a PAX record, perhaps negative; digits beyond
    /// nanoseconds are cut.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Problem> {
        let (sign, rest) = match text.split_first() {
            Some((b'-', rest)) => (-1, rest),
            _ => (1, text),
        };
        let point = rest.iter().position(|b| *b == b'.').unwrap_or(rest.len());
        let (whole, fraction) = rest.split_at(point);
        let seconds = i64::try_from(decimal(whole)?).unwrap_or(i64::MAX);
        let fraction = fraction.get(1..).unwrap_or_default();
        if !fraction.iter().all(u8::is_ascii_digit) {
            return Err(Problem::new("not a time"));
        }
        let digit = |at: usize| fraction.get(at).map_or(0, |d| u32::from(d - b'0'));
        let nanoseconds = (0..9).fold(0, |sum, at| sum * 10 + digit(at));
        if sign < 0 { Ok(Self::default()) } else { Ok(Self::clamped(seconds, nanoseconds)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_headers() {
        for (bytes, wanted) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"77777777", 0o7777_7777),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX),
        ] {
            assert_eq!(field(bytes).unwrap(), wanted, "{bytes:?}");
        }
        for bytes in [
            &b"0000648\0"[..],
            b"-1      ",
            b"644\0 7\0\0",
            b"0x10\0\0\0\0",
            b"777777777777777777777777",
            b"\x80\0\0\x01\0\0\0\0\0\0\0\0",
            b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(field(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn times_of_records() {
        let time = |s, n| Time { seconds: s, nanoseconds: n };
        for (text, wanted) in [
            ("1700000000", time(1_700_000_000, 0)),
            ("1700000000.5", time(1_700_000_000, 500_000_000)),
            ("1.0000000019", time(1, 1)),
            ("1.", time(1, 0)),
            ("-1.5", time(0, 0)),
            ("9223372036", time(0, 0)),
            ("9223372035.9", time(9_223_372_035, 900_000_000)),
            ("9223372036854775807", time(0, 0)),
        ] {
            assert_eq!(Time::parse(text.as_bytes()).unwrap(), wanted, "{text}");
        }
        for text in ["", ".5", "1.-5", "1e3", " 1", "+1", "--1"] {
            assert!(Time::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
