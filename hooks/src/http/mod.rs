//! The httpGet handler: one GET, as the kubelet makes it (pkg/probe/http and
//! pkg/kubelet/lifecycle), from inside the pod's network namespace.
//!
//! It runs in a process of its own ([`helper`]), because a network namespace
//! is entered by a thread for good, TLS needs memory, and a server may do
//! whatever it likes. Any answer at all is success. There is no time limit
//! here: whoever runs the process ends it.

pub mod helper;
mod tls;
mod url;
mod wire;

use std::io::{Read, Write};
use std::net::TcpStream;

use serde::{Deserialize, Serialize};

use crate::handler::HttpHeader;
use url::Url;
use wire::Head;

/// As in the kubelet's release line.
const USER_AGENT: &str = "kube-lifecycle/1.36";
/// Go's client gives up here too.
const MAX_REDIRECTS: usize = 10;
/// What Go's client says when a server answers a TLS greeting in plain text.
const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Over TLS.
    pub https: bool,
    /// Host; empty means the pod's own address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query as the handler has them.
    pub path: String,
    /// Headers as the handler has them.
    pub headers: Vec<HttpHeader>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// The server answered.
    Answered,
    /// It answered over http, having been asked over https; this is
    /// `HOST:PORT`.
    AnsweredWithoutTls(String),
    /// It did not; why.
    Failed(String),
}

/// Makes the request. `own` finds the pod's address.
pub fn get(request: &Request, own: impl FnOnce() -> Result<String, String>) -> Report {
    let host = match request.host.as_str() {
        "" => match own() {
            Ok(address) => address,
            Err(problem) => return Report::Failed(problem),
        },
        host => host.to_owned(),
    };
    let url = match Url::new(request.https, &host, request.port, &request.path) {
        Ok(url) => url,
        Err(problem) => return Report::Failed(problem),
    };
    let error = match follow(&url, &request.headers) {
        Ok(()) => return Report::Answered,
        Err(error) => error,
    };
    if request.https && error.contains(PLAIN_ANSWER) {
        // Whoever listens there has not shown who it is.
        let open = |h: &&HttpHeader| !h.name.eq_ignore_ascii_case("authorization");
        let headers: Vec<_> = request.headers.iter().filter(open).cloned().collect();
        let plain = Url { https: false, ..url.clone() };
        if follow(&plain, &headers).is_ok() {
            return Report::AnsweredWithoutTls(url.authority());
        }
    }
    Report::Failed(error)
}

/// Follows redirects of the same host; one to another host is an answer.
fn follow(first: &Url, headers: &[HttpHeader]) -> Result<(), String> {
    let mut url = first.clone();
    let mut asked = 1;
    loop {
        let named = |problem: String| format!("Get {:?}: {problem}", url.to_string());
        let location = exchange(&url, first, headers).map_err(named)?;
        let Some(location) = location else { return Ok(()) };
        let next = url.join(&location).map_err(named)?;
        if next.host != first.host {
            return Ok(());
        }
        if asked >= MAX_REDIRECTS {
            let problem = format!("stopped after {MAX_REDIRECTS} redirects");
            return Err(format!("Get {:?}: {problem}", next.to_string()));
        }
        asked += 1;
        url = next;
    }
}

/// One request and its answer; returns where a redirect leads.
fn exchange(url: &Url, first: &Url, headers: &[HttpHeader]) -> Result<Option<String>, String> {
    let tcp = connect(url)?;
    let bytes = wire::request(url, url == first, headers);
    if url.https {
        let copy = tcp.try_clone().map_err(|e| wire::text(&e))?;
        let mut stream = tls::wrap(tcp, &url.host)?;
        converse(&mut stream, &copy, &bytes)
    } else {
        let copy = tcp.try_clone().map_err(|e| wire::text(&e))?;
        converse(&mut (&tcp), &copy, &bytes)
    }
}

fn converse(
    stream: &mut (impl Read + Write),
    tcp: &TcpStream,
    request: &[u8],
) -> Result<Option<String>, String> {
    stream.write_all(request).and_then(|()| stream.flush()).map_err(|e| wire::text(&e))?;
    let Head { location, body, rest } = wire::head(stream)?;
    if location.is_none() {
        wire::discard(stream, tcp, body, rest);
    }
    Ok(location)
}

fn connect(url: &Url) -> Result<TcpStream, String> {
    TcpStream::connect((url.host.as_str(), url.port)).map_err(|e| {
        let verb = if e.raw_os_error().is_some() { "connect" } else { "lookup" };
        format!("dial tcp {}: {verb}: {}", url.authority(), wire::text(&e))
    })
}

#[cfg(test)]
mod tests;
