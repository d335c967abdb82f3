//! URLs, as far as a hook needs them: built from a handler, moved by a
//! redirect. The rules are those of Go's net/url, which the kubelet uses.

use std::fmt;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) https: bool,
    /// Without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query, escaped.
    pub(super) target: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

/// A URL reference taken apart; a fragment is dropped, it is never sent.
struct Reference<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl Url {
    /// The URL of a handler. Scheme and host inside the path are overwritten;
    /// what is no URL reference is taken for a path as it is.
    pub(super) fn new(https: bool, host: &str, port: u16, path: &str) -> Result<Self, String> {
        let target = match Reference::parse(path) {
            Ok(Reference { scheme: Some(_), authority: None, path, .. })
                if !path.starts_with('/') =>
            {
                return Err("http: no Host in request URL".to_owned());
            }
            Ok(reference) => reference.target(reference.path),
            Err(_) => escape(path, false),
        };
        Ok(Self { https, host: host.to_owned(), port, target: rooted(target) })
    }

    /// `host:port`, IPv6 in brackets.
    pub(super) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Where a Location header leads from here.
    pub(super) fn join(&self, location: &str) -> Result<Self, String> {
        let bad = || format!("failed to parse Location header {location:?}");
        let to = Reference::parse(location).map_err(|()| bad())?;
        let https = match to.scheme {
            None => self.https,
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => false,
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => true,
            Some(scheme) => return Err(format!("unsupported protocol scheme {scheme:?}")),
        };
        if let Some(authority) = to.authority {
            let (host, port) = split_authority(authority, https).ok_or_else(bad)?;
            return Ok(Self { https, host, port, target: rooted(to.target(to.path)) });
        }
        if to.scheme.is_some() {
            return Err("http: no Host in request URL".to_owned());
        }
        let own_path = self.target.split('?').next().unwrap_or("/");
        let path = match to.path {
            "" if to.query.is_none() => return Ok(self.clone()),
            "" => own_path.to_owned(),
            path if path.starts_with('/') => without_dots(path),
            path => {
                let dir = &own_path[..=own_path.rfind('/').unwrap_or(0)];
                without_dots(&format!("{dir}{path}"))
            }
        };
        let target = rooted(to.target(&path));
        Ok(Self { target, ..self.clone() })
    }
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Result<Self, ()> {
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(());
        }
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        if scheme.is_none() && !rest.starts_with('/') {
            // It would be read as a scheme.
            let segment = rest.split('/').next().unwrap_or_default();
            if segment.contains(':') {
                return Err(());
            }
        }
        let has_authority =
            rest.starts_with("//") && (scheme.is_some() || !rest.starts_with("///"));
        let (authority, path) = match rest.strip_prefix("//").filter(|_| has_authority) {
            Some(rest) => match rest.find('/') {
                Some(at) => (Some(&rest[..at]), &rest[at..]),
                None => (Some(rest), ""),
            },
            None => (None, rest),
        };
        if bad_escape(path) { Err(()) } else { Ok(Self { scheme, authority, path, query }) }
    }

    fn target(&self, path: &str) -> String {
        let path = escape(path, true);
        match self.query {
            Some(query) => format!("{path}?{}", query.replace(' ', "%20")),
            None => path,
        }
    }
}

fn split_scheme(text: &str) -> Result<(Option<&str>, &str), ()> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err(()),
            b':' => return Ok((Some(&text[..at]), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((None, text))
}

fn split_authority(authority: &str, https: bool) -> Option<(String, u16)> {
    let authority = authority.rsplit('@').next()?;
    let default = if https { 443 } else { 80 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').unwrap_or(port))
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let port = if port.is_empty() { default } else { port.parse().ok()? };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

fn rooted(target: String) -> String {
    if target.starts_with('/') { target } else { format!("/{target}") }
}

fn bad_escape(path: &str) -> bool {
    let bytes = path.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    (0..bytes.len()).any(|at| bytes[at] == b'%' && !(hex(at + 1) && hex(at + 2)))
}

/// Escapes what may not stand in a path. `escaped` says that `%` begins an
/// escape already.
fn escape(path: &str, escaped: bool) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'%' if escaped => out.push('%'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(byte.into()),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'='
            | b'@' | b'!' | b'\'' | b'(' | b')' | b'*' | b'[' | b']' => out.push(byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// RFC 3986, section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> String {
        Url::new(false, "h", 80, path).unwrap().target
    }

    #[test]
    fn the_path_of_a_handler() {
        for (path, expected) in [
            ("/", "/"),
            ("", "/"),
            ("stop", "/stop"),
            ("/a?b=c&d", "/a?b=c&d"),
            ("/a#frag", "/a"),
            ("/a b", "/a%20b"),
            ("/ä", "/%C3%A4"),
            ("/a%20b", "/a%20b"),
            ("http://other:1/x?y", "/x?y"),
            ("//other/x", "/x"),
            // No URL references: raw paths.
            ("/100%", "/100%25"),
            ("/a\nb?c", "/a%0Ab%3Fc"),
            ("a:b/c d", "/a:b/c%20d"),
            (":x", "/:x"),
        ] {
            // "a:b/c d" has the scheme "a" and no host.
            if path == "a:b/c d" {
                assert!(Url::new(false, "h", 80, path).is_err());
                continue;
            }
            assert_eq!(target(path), expected, "{path:?}");
        }
    }

    #[test]
    fn names_of_servers() {
        let v6 = Url::new(true, "fd00::1", 8443, "/").unwrap();
        assert_eq!(v6.to_string(), "https://[fd00::1]:8443/");
    }

    #[test]
    fn redirects() {
        let from = Url::new(false, "h", 8080, "/a/b?c").unwrap();
        for (location, expected) in [
            ("/x", "http://h:8080/x"),
            ("x", "http://h:8080/a/x"),
            ("../x?q", "http://h:8080/x?q"),
            ("./", "http://h:8080/a/"),
            ("?q", "http://h:8080/a/b?q"),
            ("", "http://h:8080/a/b?c"),
            ("//o/x", "http://o:80/x"),
            ("https://h/x#f", "https://h:443/x"),
            ("HTTP://u:p@[::1]:7/", "http://[::1]:7/"),
            ("/../../x", "http://h:8080/x"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), expected, "{location:?}");
        }
        assert!(from.join("ftp://h/").unwrap_err().contains("unsupported protocol scheme \"ftp\""));
        for bad in ["http://h:x/", "http:///x", "/%zz", "\u{1}"] {
            assert!(from.join(bad).is_err(), "{bad:?}");
        }
    }
}
