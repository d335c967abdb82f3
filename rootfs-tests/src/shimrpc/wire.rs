//! ttrpc frames: a ten-byte header and a protobuf message (containerd/ttrpc `PROTOCOL.md`).
//!
//! The ttrpc crate's own client hands every message through two threads, which a bench would
//! measure, and refuses to send what is malformed, which a test has to. This one is a socket and a
//! map of answers that came before they were asked for.

use crate::error::{Context, Error, Result};
use crate::wait::{self, Deadline};
use protobuf::Message;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use ttrpc::{Request, Response};

/// Kind of a frame that asks.
pub(super) const REQUEST: u8 = 1;
/// Kind of a frame that answers.
pub(super) const RESPONSE: u8 = 2;
/// ttrpc's limit of a message, in bytes.
const LIMIT: u32 = 4 << 20;

/// One frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) stream: u32,
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    pub(super) fn write(&self, mut to: impl Write) -> std::io::Result<()> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(10 + self.payload.len());
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend([self.kind, 0]);
        bytes.extend(&self.payload);
        to.write_all(&bytes)
    }

    pub(super) fn read(mut from: impl Read) -> std::io::Result<Self> {
        let mut header = [0; 10];
        from.read_exact(&mut header)?;
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length > LIMIT {
            return Err(std::io::Error::other(format!("a frame of {length} bytes")));
        }
        let mut payload = vec![0; length as usize];
        from.read_exact(&mut payload)?;
        Ok(Self { stream: u32::from_be_bytes([s0, s1, s2, s3]), kind, payload })
    }
}

/// A connection to a ttrpc server; several calls may be under way on it.
#[derive(Debug)]
pub struct Ttrpc {
    /// After which the server gives up on each call that is sent from now on.
    pub timeout: Option<Duration>,
    socket: UnixStream,
    next: u32,
    early: HashMap<u32, Vec<u8>>,
}

/// A call that was sent and not yet answered.
#[derive(Debug)]
#[must_use = "an answer that nobody takes stays in memory"]
pub struct Pending {
    stream: u32,
    call: String,
}

impl Ttrpc {
    /// Connects to a socket by path.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> Result<Self> {
        let socket =
            UnixStream::connect(path).during(|| format!("connect to {}", path.display()))?;
        // Clients use odd numbers.
        Ok(Self { timeout: None, socket, next: 1, early: HashMap::new() })
    }

    /// Sends a request without waiting; the payload may be anything.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn send(&mut self, service: &str, method: &str, payload: Vec<u8>) -> Result<Pending> {
        let limit = self.timeout.map_or(0, |it| i64::try_from(it.as_nanos()).unwrap_or(i64::MAX));
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload,
            timeout_nano: limit,
            ..Request::new()
        };
        let payload = request.write_to_bytes().map_err(|error| Error::Format {
            what: format!("request {method}"),
            why: error.to_string(),
        })?;
        let stream = self.next;
        self.next += 2;
        let frame = Frame { stream, kind: REQUEST, payload };
        frame.write(&self.socket).during(|| format!("send {method}"))?;
        Ok(Pending { stream, call: method.to_owned() })
    }

    /// Waits for the answer to a request that was sent.
    ///
    /// # Errors
    /// [`Error::Rpc`] with the server's code, [`Error::Deadline`], or the peer is gone.
    pub fn receive<A: Message>(&mut self, pending: &Pending, within: Duration) -> Result<A> {
        let call = &pending.call;
        let deadline = Deadline::after(within);
        let payload = loop {
            if let Some(payload) = self.early.remove(&pending.stream) {
                break payload;
            }
            wait::readable(&self.socket, &format!("the answer to {call}"), deadline)?;
            let frame =
                Frame::read(&self.socket).during(|| format!("read the answer to {call}"))?;
            if frame.kind == RESPONSE {
                self.early.insert(frame.stream, frame.payload);
            }
        };
        let bad = |error: protobuf::Error| Error::Format {
            what: format!("answer to {call}"),
            why: error.to_string(),
        };
        let response = Response::parse_from_bytes(&payload).map_err(bad)?;
        let code = tonic::Code::from(response.status.code.value());
        if code != tonic::Code::Ok {
            return Err(Error::Rpc {
                call: call.clone(),
                code: format!("{code:?}"),
                message: response.status.message.clone(),
            });
        }
        A::parse_from_bytes(&response.payload).map_err(bad)
    }
}
