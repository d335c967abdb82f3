//! HTTP/1.1 on the wire: one request, the head of its answer, and as much of
//! the body as the kubelet takes.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::USER_AGENT;
use super::url::Url;
use crate::handler::HttpHeader;

/// Go's limit of a response's head (net/http, MaxResponseHeaderBytes).
const MAX_HEAD: usize = 10 << 20;
/// Informational answers before the real one; Go has the same limit.
const MAX_INFORMATIONAL: usize = 5;
/// The kubelet reads no more of a body (maxRespBodyLength).
const MAX_BODY: u64 = 10 * 1024;
/// And for no longer: the answer has counted already.
const BODY_LIMIT: Duration = Duration::from_secs(2);

/// The beginning of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// Where a redirect leads.
    pub(super) location: Option<String>,
    pub(super) body: Body,
    /// What was read behind the head.
    pub(super) rest: Vec<u8>,
}

/// How an answer's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    UntilClosed,
}

/// The bytes of a GET. `own_host` allows a `Host` header to name another host;
/// a redirect does not take it along.
pub(super) fn request(url: &Url, own_host: bool, headers: &[HttpHeader]) -> Vec<u8> {
    let named: Vec<(String, &str)> =
        headers.iter().map(|h| (canonical(&h.name), h.value.trim())).collect();
    let get = |wanted: &str| named.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    let host = get("Host").filter(|host| own_host && !host.is_empty());
    let mut text = format!("GET {} HTTP/1.1\r\n", url.target);
    let mut add = |name: &str, value: &str| text.push_str(&format!("{name}: {value}\r\n"));
    add("Host", host.unwrap_or(&url.authority()));
    match get("User-Agent") {
        Some("") => {}
        agent => add("User-Agent", agent.unwrap_or(USER_AGENT)),
    }
    let no_accept = get("Accept") == Some("");
    if get("Accept").is_none() {
        add("Accept", "*/*");
    }
    for (name, value) in &named {
        match name.as_str() {
            // Said above, or the transport's affair (net/http, reqWriteExcludeHeader).
            "Host" | "User-Agent" | "Content-Length" | "Transfer-Encoding" | "Trailer" => {}
            "Accept" if no_accept => {}
            name => add(name, value),
        }
    }
    if get("Accept-Encoding").is_none() && get("Range").is_none() {
        add("Accept-Encoding", "gzip");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// `x-header-name` as `X-Header-Name`.
fn canonical(name: &str) -> String {
    let mut upper = true;
    let letter = |c: char| {
        let c = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        upper = c == '-';
        c
    };
    name.chars().map(letter).collect()
}

/// Reads the head of an answer.
pub(super) fn head(stream: &mut impl Read) -> Result<Head, String> {
    let mut bytes = Vec::new();
    for _ in 0..=MAX_INFORMATIONAL {
        let end = read_head(stream, &mut bytes)?;
        let rest = bytes.split_off(end);
        let (status, head) = parse(&bytes)?;
        // Switching protocols is final.
        if !(100..200).contains(&status) || status == 101 {
            return Ok(Head { rest, ..head });
        }
        bytes = rest;
    }
    Err("net/http: too many 1xx informational responses".to_owned())
}

/// Reads until `bytes` holds a head; returns where it ends.
fn read_head(stream: &mut impl Read, bytes: &mut Vec<u8>) -> Result<usize, String> {
    let mut seen = 0;
    let mut chunk = vec![0; 16 << 10];
    loop {
        if let Some(end) = end_of_head(bytes, seen) {
            return Ok(end);
        }
        let begin = &bytes[..bytes.len().min(5)];
        if !b"HTTP/".starts_with(begin) {
            let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
            let line = crate::message::quote(&line[..line.len().min(64)]);
            return Err(format!(
                "net/http: HTTP/1.x transport connection broken: malformed HTTP response {line}"
            ));
        }
        if bytes.len() > MAX_HEAD {
            return Err(format!(
                "net/http: server response headers exceeded {MAX_HEAD} bytes; aborted"
            ));
        }
        seen = bytes.len().saturating_sub(3);
        match stream.read(&mut chunk) {
            Ok(0) if bytes.is_empty() => return Err("EOF".to_owned()),
            Ok(0) => return Err("unexpected EOF".to_owned()),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(text(&e)),
        }
    }
}

/// An empty line, with or without carriage returns.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = bytes[at..].iter().position(|b| *b == b'\n') {
        at += found + 1;
        match bytes.get(at..) {
            Some([b'\n', ..]) => return Some(at + 1),
            Some([b'\r', b'\n', ..]) => return Some(at + 2),
            _ => {}
        }
    }
    None
}

fn parse(bytes: &[u8]) -> Result<(u16, Head), String> {
    let lines = bytes.iter().filter(|b| **b == b'\n').count();
    let mut headers = vec![httparse::EMPTY_HEADER; lines];
    let mut response = httparse::Response::new(&mut headers);
    let broken = |e: &dyn std::fmt::Display| {
        format!("net/http: HTTP/1.x transport connection broken: malformed HTTP response: {e}")
    };
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err("unexpected EOF".to_owned()),
        Err(e) => return Err(broken(&e)),
    }
    let get = |wanted: &str| {
        let found = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(wanted));
        found.map(|h| String::from_utf8_lossy(h.value).trim().to_owned())
    };
    let status = response.code.unwrap_or(0);
    let redirect = matches!(status, 301 | 302 | 303 | 307 | 308);
    let location = get("Location").filter(|to| redirect && !to.is_empty());
    let chunked = get("Transfer-Encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    let length = get("Content-Length").and_then(|v| v.parse().ok());
    let body = match (status, chunked, length) {
        (101 | 204 | 304, ..) => Body::Length(0),
        (_, true, _) => Body::Chunked,
        (_, false, Some(length)) => Body::Length(length),
        (_, false, None) => Body::UntilClosed,
    };
    Ok((status, Head { location, body, rest: Vec::new() }))
}

/// Reads what the kubelet reads of a body, so that the server can end in
/// peace. Whatever goes wrong here changes nothing.
pub(super) fn discard(stream: &mut impl Read, tcp: &TcpStream, body: Body, rest: Vec<u8>) {
    let until = Instant::now() + BODY_LIMIT;
    let wanted = match body {
        Body::Length(length) if length > MAX_BODY => return,
        Body::Length(length) => length,
        Body::Chunked | Body::UntilClosed => MAX_BODY,
    };
    let mut count = rest.len() as u64;
    let mut tail = rest;
    let mut chunk = [0; 4096];
    while count < wanted {
        if body == Body::Chunked && tail.ends_with(b"0\r\n\r\n") {
            return;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || tcp.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(got) => {
                count += got as u64;
                tail.extend_from_slice(&chunk[..got]);
                tail.drain(..tail.len().saturating_sub(5));
            }
        }
    }
}

/// An error as Go prints it: without a number, beginning with a small letter.
pub(super) fn text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> HttpHeader {
        HttpHeader { name: name.into(), value: value.into() }
    }

    fn sent(headers: &[HttpHeader]) -> String {
        let url = Url::new(false, "10.0.0.1", 80, "/stop?x").unwrap();
        String::from_utf8(request(&url, true, headers)).unwrap()
    }

    #[test]
    fn the_kubelets_defaults() {
        assert_eq!(
            sent(&[]),
            "GET /stop?x HTTP/1.1\r\nHost: 10.0.0.1:80\r\nUser-Agent: kube-lifecycle/1.36\r\n\
             Accept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
        );
    }

    #[test]
    fn headers_of_the_handler() {
        let text = sent(&[
            header("x-b", "1"),
            header("X-A", "2"),
            header("X-B", "3"),
            header("host", "example.org"),
            header("user-agent", "me"),
            header("accept", ""),
            header("content-length", "9"),
        ]);
        assert_eq!(
            text,
            "GET /stop?x HTTP/1.1\r\nHost: example.org\r\nUser-Agent: me\r\nX-B: 1\r\nX-A: 2\r\n\
             X-B: 3\r\nAccept-Encoding: gzip\r\n\r\n"
        );
    }

    fn answer(text: &str) -> Result<Head, String> {
        head(&mut text.as_bytes())
    }

    #[test]
    fn heads() {
        let head = answer("HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert_eq!((head.body, head.rest.as_slice()), (Body::Length(3), &b"abc"[..]));
        assert_eq!(answer("HTTP/1.0 200 OK\n\n").unwrap().body, Body::UntilClosed);
        let moved = answer("HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 302 F\r\nlocation: /x\r\n\r\n");
        assert_eq!(moved.unwrap().location.as_deref(), Some("/x"));
        assert_eq!(answer("HTTP/1.1 200 OK\r\nLocation: /x\r\n\r\n").unwrap().location, None);
        for (text, part) in [
            ("", "EOF"),
            ("HTTP/1.1 2", "unexpected EOF"),
            ("SSH-2.0-x\r\n", "malformed HTTP response \"SSH-2.0-x\\r\""),
            ("HTTP/1.1 abc\r\n\r\n", "malformed"),
            (&"HTTP/1.1 103 E\r\n\r\n".repeat(7), "too many 1xx"),
        ] {
            let error = answer(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    /// Has no end, and counts what was taken of it.
    struct Endless(u64);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(b'x');
            self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
    }

    #[test]
    fn of_a_body_no_more_is_read_than_the_kubelet_takes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Its figure, and no constant of ours; a read of 4 KiB may go beyond it.
        let most = 10_240_u64.next_multiple_of(4096);
        for (body, rest, taken) in [
            (Body::UntilClosed, 0, most),
            (Body::Chunked, 0, most),
            (Body::Length(10_240), 0, most),
            (Body::Length(10_240), 10_240, 0),
            (Body::Length(10), 9, 4096),
            // Closed unread.
            (Body::Length(10_241), 0, 0),
            (Body::Length(u64::MAX), 0, 0),
            (Body::Length(0), 0, 0),
        ] {
            let mut stream = Endless(0);
            discard(&mut stream, &tcp, body, vec![b'x'; rest]);
            assert_eq!(stream.0, taken, "{body:?}, {rest} bytes of which were there");
        }
    }

    #[test]
    fn a_body_that_does_not_come_is_not_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let begun = Instant::now();
        discard(&mut &tcp, &tcp, Body::UntilClosed, Vec::new());
        assert!(begun.elapsed() >= Duration::from_millis(1_990), "{:?}", begun.elapsed());
    }

    #[test]
    fn endless_headers_have_an_end() {
        let line = b"X: y\r\n".iter().cycle().copied();
        let bytes: Vec<u8> =
            b"HTTP/1.1 200 OK\r\n".iter().copied().chain(line.take(11 << 20)).collect();
        assert!(head(&mut bytes.as_slice()).unwrap_err().contains("10485760"));
    }
}
