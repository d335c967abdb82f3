//! Records of a PAX extended header (POSIX 1003.1 pax, "pax Extended Header";
//! GNU tar manual, "Storing Sparse Files"; star(5) for `SCHILY.xattr`).

use super::number::{Time, decimal};
use super::sparse::{Segment, pairs};
use super::{Limits, Problem};

/// An extended attribute: name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What the records say; `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Sparse,
    /// From `LIBARCHIVE.xattr.`, used where there is no twin in `xattrs`.
    encoded: Vec<Xattr>,
}

/// The `GNU.sparse.*` records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Of formats 0.0 and 0.1.
    pub(super) map: Option<Vec<Segment>>,
    /// An offset of format 0.0 whose length is still to come.
    offset: Option<u64>,
}

impl Records {
    /// Reads all records of `body`.
    pub(super) fn parse(body: &[u8], limits: &Limits) -> Result<Self, Problem> {
        let mut records = Self::default();
        let mut rest = body;
        let mut count = 0_u64;
        while !rest.is_empty() {
            count += 1;
            if count > limits.pax_records {
                return Err(Problem::limit("pax-records", limits.pax_records));
            }
            let Record { key, value, behind } = Record::first_of(rest)?;
            records.put(key, value, limits).map_err(|problem| problem.of(lossy(key)))?;
            rest = behind;
        }
        if records.sparse.offset.is_some() {
            return Err(Problem::new("GNU.sparse.offset: no numbytes follows"));
        }
        let Self { xattrs, encoded, .. } = &mut records;
        encoded.retain(|(key, _)| !xattrs.iter().any(|(twin, _)| twin == key));
        xattrs.append(encoded);
        check_xattrs(xattrs, limits)?;
        Ok(records)
    }

    fn put(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), Problem> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            return put_xattr(&mut self.xattrs, name.to_vec(), value.to_vec());
        }
        if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            return put_xattr(&mut self.encoded, unescape(name)?, base64(value)?);
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.put(key, value, limits);
        }
        // An empty value takes an earlier one back: the header counts.
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| no_nul(value)).transpose()?,
            b"linkpath" => self.link = given.then(|| no_nul(value)).transpose()?,
            b"size" => self.size = given.then(|| size(value)).transpose()?,
            b"uid" => self.uid = given.then(|| id(value)).transpose()?,
            b"gid" => self.gid = given.then(|| id(value)).transpose()?,
            b"mtime" => self.mtime = given.then(|| Time::parse(value)).transpose()?,
            b"atime" => self.atime = given.then(|| Time::parse(value)).transpose()?,
            _ => {}
        }
        Ok(())
    }
}

impl Sparse {
    fn put(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), Problem> {
        match key {
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"name" => self.name = Some(no_nul(value)?),
            b"size" | b"realsize" => self.size = Some(size(value)?),
            b"map" => self.map = Some(pairs(value, b',', limits)?),
            b"offset" => match self.offset.replace(size(value)?) {
                None => {}
                Some(_) => return Err(Problem::new("two in a row")),
            },
            b"numbytes" => {
                let offset = self.offset.take().ok_or_else(|| Problem::new("without an offset"))?;
                let map = self.map.get_or_insert_default();
                map.push(Segment { offset, length: size(value)? });
                if map.len() as u64 > limits.sparse_segments {
                    return Err(Problem::limit("sparse-segments", limits.sparse_segments));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// One record, and what stands behind it.
struct Record<'b> {
    key: &'b [u8],
    value: &'b [u8],
    behind: &'b [u8],
}

impl<'b> Record<'b> {
    /// Cuts the first record off: `length SP key=value LF`, where the length is
    /// of the whole record.
    fn first_of(bytes: &'b [u8]) -> Result<Self, Problem> {
        let broken = |what: &str| Problem::new(format!("extended header: {what}"));
        // 20 digits hold any length that can be there.
        let blank = bytes.iter().take(21).position(|b| *b == b' ');
        let blank = blank.ok_or_else(|| broken("a record without a length"))?;
        let length = bytes.get(..blank).map_or(Ok(0), decimal);
        let length = length.map_err(|problem| problem.of("extended header"))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (record, behind) = bytes
            .split_at_checked(length)
            .ok_or_else(|| broken("a record is longer than the header"))?;
        let text = record
            .get(blank + 1..)
            .and_then(|text| text.strip_suffix(b"\n"))
            .ok_or_else(|| broken("a record does not end where it says"))?;
        let equals = text.iter().position(|b| *b == b'=');
        let equals = equals.filter(|at| *at > 0).ok_or_else(|| broken("a record without a key"))?;
        let (key, value) = text.split_at(equals);
        if key.contains(&0) {
            return Err(broken("a key with a NUL byte"));
        }
        Ok(Self { key, value: value.get(1..).unwrap_or_default(), behind })
    }
}

/// The last of two attributes of one name counts.
fn put_xattr(all: &mut Vec<Xattr>, name: Vec<u8>, value: Vec<u8>) -> Result<(), Problem> {
    if name.is_empty() || name.contains(&0) {
        return Err(Problem::new("not the name of an attribute"));
    }
    all.retain(|(old, _)| *old != name);
    all.push((name, value));
    Ok(())
}

fn check_xattrs(xattrs: &[Xattr], limits: &Limits) -> Result<(), Problem> {
    if xattrs.len() as u64 > limits.xattrs {
        return Err(Problem::limit("xattrs", limits.xattrs));
    }
    let mut sum = 0;
    for (name, value) in xattrs {
        let length = value.len() as u64;
        if length > limits.xattr_bytes {
            return Err(Problem::limit("xattr-bytes", limits.xattr_bytes).of(lossy(name)));
        }
        sum += length + name.len() as u64;
        if sum > limits.xattrs_bytes {
            return Err(Problem::limit("xattrs-bytes", limits.xattrs_bytes).of(lossy(name)));
        }
    }
    Ok(())
}

fn no_nul(value: &[u8]) -> Result<Vec<u8>, Problem> {
    if value.contains(&0) { Err(Problem::new("a NUL byte")) } else { Ok(value.to_vec()) }
}

/// A size that the kernel can have.
fn size(value: &[u8]) -> Result<u64, Problem> {
    decimal(value).and_then(|n| {
        if i64::try_from(n).is_ok() { Ok(n) } else { Err(Problem::new("too large for a file")) }
    })
}

fn id(value: &[u8]) -> Result<u32, Problem> {
    let number = decimal(value)?;
    super::entry::id_of(i64::try_from(number).unwrap_or(i64::MAX))
}

fn lossy(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// `%41` → `A`.
fn unescape(text: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|d| char::from(*d).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(Problem::new("a percent sign without two digits"));
        };
        out.push((high * 16 + low) as u8);
    }
    Ok(out)
}

/// RFC 4648, with or without padding.
fn base64(text: &[u8]) -> Result<Vec<u8>, Problem> {
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err(Problem::new("not base64")),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    if count == 6 { Err(Problem::new("base64 is cut short")) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let length = (1..4)
            .map(|digits| body.len() + digits)
            .find(|n| n.to_string().len() + body.len() == *n);
        [length.unwrap().to_string().as_bytes(), &body].concat()
    }

    fn parse(lines: &[(&str, &[u8])]) -> Result<Records, Problem> {
        let body: Vec<u8> = lines.iter().flat_map(|(key, value)| line(key, value)).collect();
        Records::parse(&body, &Limits::default())
    }

    #[test]
    fn records_override_and_empty_ones_take_back() {
        let got = parse(&[
            ("path", b"a\nb"),
            ("size", b"12"),
            ("size", b""),
            ("uid", b"4294967294"),
            ("mtime", b"1.25"),
            ("comment", b"x=y"),
        ])
        .unwrap();
        assert_eq!(got.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!((got.size, got.uid), (None, Some(u32::MAX - 1)));
        assert_eq!(got.mtime.unwrap().nanoseconds, 250_000_000);
    }

    #[test]
    fn an_attribute_may_be_empty_and_schily_wins() {
        let got = parse(&[
            ("LIBARCHIVE.xattr.user.a%20b", b"aGk"),
            ("LIBARCHIVE.xattr.user.twin", b"aGk="),
            ("SCHILY.xattr.user.twin", b"raw\0"),
            ("SCHILY.xattr.user.none", b""),
        ]);
        let wanted: [Xattr; 3] = [
            (b"user.twin".to_vec(), b"raw\0".to_vec()),
            (b"user.none".to_vec(), Vec::new()),
            (b"user.a b".to_vec(), b"hi".to_vec()),
        ];
        assert_eq!(got.unwrap().xattrs, wanted);
    }

    #[test]
    fn broken_records_are_errors_and_never_skipped() {
        for body in [
            &b"5 a=b"[..],
            b"7 a=b\n",
            b"6 a=b\nx",
            b"x a=b\n",
            b" a=b\n",
            b"6 =bb\n",
            b"6 abb\n",
            b"-6 a=b\n",
            b"18446744073709551616 a=b\n",
            b"2 ",
            b"0 ",
        ] {
            assert!(Records::parse(body, &Limits::default()).is_err(), "{}", body.escape_ascii());
        }
        for (key, value, wanted) in [
            ("path", &b"a\0b"[..], "path: a NUL byte"),
            ("uid", b"4294967295", "uid: 4294967295 is no user or group id"),
            ("size", b"-1", "size: not a decimal number"),
            ("size", b"9223372036854775808", "size: too large for a file"),
            ("SCHILY.xattr.", b"x", "SCHILY.xattr.: not the name of an attribute"),
            ("LIBARCHIVE.xattr.a", b"!", "LIBARCHIVE.xattr.a: not base64"),
            ("GNU.sparse.numbytes", b"1", "GNU.sparse.numbytes: without an offset"),
        ] {
            assert_eq!(parse(&[(key, value)]).unwrap_err().to_string(), wanted);
        }
    }

    #[test]
    fn limits_are_named() {
        let limits = Limits { pax_records: 1, xattrs: 1, xattr_bytes: 2, ..Limits::default() };
        let error = |lines: &[(&str, &[u8])]| {
            let body: Vec<u8> = lines.iter().flat_map(|(key, value)| line(key, value)).collect();
            Records::parse(&body, &limits).unwrap_err().to_string()
        };
        assert_eq!(error(&[("a", b"1"), ("b", b"2")]), "more than the limit pax-records = 1");
        assert_eq!(
            error(&[("SCHILY.xattr.user.k", b"123")]),
            "user.k: more than the limit xattr-bytes = 2"
        );
    }
}
