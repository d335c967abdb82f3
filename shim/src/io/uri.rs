//! What a stream value of the caller means.
//!
//! | value | meaning |
//! |---|---|
//! | empty | none: /dev/null |
//! | absolute path, or `fifo://path` as Docker writes it | a fifo; for output any other file too, appended to |
//! | `file:///path` | a file, made with the directories above it, appended to |
//! | `binary:///program?name=value&…` | a program that takes the output, with `name value …` as arguments |
//! | `binary-v2:///…` | the same, and it must say that it is ready |
//! | other schemes | refused by name |
//!
//! containerd reads the last three with Go's `net/url`, so both the path and
//! the query may have percent escapes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::failure::{Failure, Result};

/// What a value names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing.
    Nothing,
    /// What is at this path.
    Path(PathBuf),
    /// The file at this path, which may have to be made.
    File(PathBuf),
    /// A program.
    Logger(Logger),
}

/// A logging program and how to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logger {
    pub(super) path: PathBuf,
    pub(super) args: Vec<String>,
    /// Only a byte counts as ready, not the closing of the pipe.
    pub(super) must_report: bool,
}

/// Reads the value of the stream `name`.
///
/// # Errors
/// An unknown scheme, a path that is not absolute, escapes that are none.
pub(super) fn parse(name: &str, value: &str) -> Result<Target> {
    let wrong = |problem: &str| Failure::invalid(format!("{name}: {value:?}: {problem}"));
    if value.is_empty() {
        return Ok(Target::Nothing);
    }
    let Some((scheme, rest)) = scheme(value) else {
        return match value.starts_with('/') {
            true => Ok(Target::Path(PathBuf::from(value))),
            false => Err(wrong("not an absolute path")),
        };
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = |text| decode(text).filter(|p| p.as_bytes().starts_with(b"/")).map(PathBuf::from);
    let path = || path(place).ok_or_else(|| wrong("no absolute path behind the scheme"));
    match scheme {
        "fifo" if rest.starts_with('/') => Ok(Target::Path(PathBuf::from(rest))),
        "fifo" => Err(wrong("no absolute path behind the scheme")),
        "file" => Ok(Target::File(path()?)),
        "binary" | "binary-v2" => Ok(Target::Logger(Logger {
            path: path()?,
            args: arguments(query).ok_or_else(|| wrong("the query cannot be read"))?,
            must_report: scheme == "binary-v2",
        })),
        _ => Err(wrong(&format!("scheme {scheme:?} is not known"))),
    }
}

/// The scheme of a URI (RFC 3986, section 3.1) and what is behind `://`.
fn scheme(value: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = value.split_once("://")?;
    let name = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (name && scheme.starts_with(|c: char| c.is_ascii_alphabetic())).then_some((scheme, rest))
}

/// Each name of a query once, with its first value: `a=b&c` are `a b c` and
/// an empty argument.
fn arguments(query: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut arguments = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |part: &str| decode(&part.replace('+', " "))?.into_string().ok();
        let name = text(name)?;
        if seen.insert(name.clone()) {
            arguments.extend([name, text(value)?]);
        }
    }
    Some(arguments)
}

/// Takes percent escapes out; none for a wrong escape or a NUL, which no path
/// and no argument can hold.
fn decode(text: &str) -> Option<OsString> {
    let escapes = text.split('%').skip(1);
    let hex =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
    if !escapes.into_iter().all(hex) {
        return None;
    }
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    (!bytes.contains(&0)).then(|| OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ErrorKind;

    fn logger(path: &str, args: &[&str], must_report: bool) -> Target {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        Target::Logger(Logger { path: path.into(), args, must_report })
    }

    #[test]
    fn every_form_is_told_apart() {
        for (value, target) in [
            ("", Target::Nothing),
            ("/run/x/fifo", Target::Path("/run/x/fifo".into())),
            ("/odd://name", Target::Path("/odd://name".into())),
            ("fifo:///run/x", Target::Path("/run/x".into())),
            ("fifo:///run/100%", Target::Path("/run/100%".into())),
            ("file:///var/log/a%20b", Target::File("/var/log/a b".into())),
            ("binary:///bin/log", logger("/bin/log", &[], false)),
            ("binary-v2:///bin/log?", logger("/bin/log", &[], true)),
        ] {
            assert_eq!(parse("stdout", value).unwrap(), target, "{value}");
        }
    }

    #[test]
    fn the_query_becomes_arguments() {
        for (query, args) in [
            ("a=1&b=2", &["a", "1", "b", "2"][..]),
            ("z=1&a=2&z=3", &["z", "1", "a", "2"]),
            ("--path=%2Fvar%2Flog&flag", &["--path", "/var/log", "flag", ""]),
            ("text=two+words&sum=1%2B1&e=a%3Db", &["text", "two words", "sum", "1+1", "e", "a=b"]),
            ("&&a=&", &["a", ""]),
        ] {
            let value = format!("binary:///l?{query}");
            assert_eq!(parse("stdout", &value).unwrap(), logger("/l", args, false), "{query}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_stream_and_value() {
        for (value, part) in [
            ("relative/path", "not an absolute path"),
            ("ttrpc+unix:///run/s", "\"ttrpc+unix\""),
            ("BINARY:///bin/log", "\"BINARY\""),
            ("file://relative", "absolute"),
            ("file:///bad%2", "absolute"),
            ("file:///nul%00", "absolute"),
            ("binary://", "absolute"),
            ("binary:///l?a=%zz", "query"),
            ("fifo://x", "absolute"),
        ] {
            let failure = parse("stderr", value).unwrap_err();
            assert_eq!(failure.kind(), ErrorKind::InvalidInput, "{value}");
            let text = failure.to_string();
            assert!(text.contains("stderr") && text.contains(part), "{value}: {text}");
            assert!(text.contains(value), "{value}: {text}");
        }
    }
}
