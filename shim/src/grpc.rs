//! One gRPC call to the daemon, small enough for the resident shim: a unary
//! call over a connection of its own (RFC 9113; "gRPC over HTTP2").
//!
//! What a library would do for many calls on one connection is left out: the
//! request fits into the windows that every server grants at the start, the
//! answer into the one granted here, and of its headers none is needed, since
//! a call that failed has no message.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::failure::{ErrorKind, Failure, Result};

/// The largest answer that is read; the daemon's own limit is the same for
/// most calls, and a container's record has some tens of KiB.
const MAX_ANSWER: usize = 4 << 20;
/// The window granted for it, with room for the frame that exceeds it.
const WINDOW: u32 = 4 << 20 | 16 << 10;
/// No larger frame comes unless it was asked for.
const MAX_FRAME: usize = 16 << 10;
/// In front of a message: whether it is compressed, and its length.
const MESSAGE_HEAD: usize = 5;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The stream of the call.
const CALL: u32 = 1;
const CONNECTION: u32 = 0;

/// Kinds of frames (RFC 9113, section 6).
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}

/// Flags of frames.
mod flag {
    pub(super) const ACK: u8 = 1;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const PADDED: u8 = 8;
}

/// A call that was made and whose answer has not been read.
#[derive(Debug)]
pub(crate) struct Call {
    stream: UnixStream,
    until: Instant,
}

/// A frame that came in.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Call {
    /// Calls `/package.Service/Method` of the daemon at `address`. All of it,
    /// the answer included, may take `limit`.
    ///
    /// # Errors
    /// Nobody listens there, or nobody takes the request.
    pub(crate) fn send(
        address: &str,
        namespace: &str,
        method: &str,
        message: &[u8],
        limit: Duration,
    ) -> Result<Self> {
        let until = Instant::now() + limit;
        let mut call = Self { stream: connect(address)?, until };
        let request = request(namespace, method, message)?;
        call.stream.set_write_timeout(Some(call.left()?)).map_err(untimed)?;
        call.stream.write_all(&request).map_err(|e| Failure::sys("write a call", e))?;
        Ok(call)
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// None comes in time, it is too large, or the daemon refuses the call.
    pub(crate) fn answer(mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let frame = self.frame()?;
            match (frame.kind, frame.stream) {
                (kind::SETTINGS, CONNECTION) if frame.flags & flag::ACK == 0 => {
                    self.acknowledge(kind::SETTINGS, &[])?;
                }
                (kind::PING, CONNECTION) if frame.flags & flag::ACK == 0 => {
                    self.acknowledge(kind::PING, &frame.payload)?;
                }
                (kind::DATA, CALL) => {
                    body.extend_from_slice(frame.data()?);
                    if body.len() > MAX_ANSWER + MESSAGE_HEAD {
                        return Err(broken(format!("an answer of more than {MAX_ANSWER} bytes")));
                    }
                }
                (kind::RST_STREAM, CALL) | (kind::GOAWAY, CONNECTION) => {
                    return Err(broken("the call was broken off"));
                }
                _ => {}
            }
            let ends = matches!(frame.kind, kind::DATA | kind::HEADERS);
            if ends && frame.stream == CALL && frame.flags & flag::END_STREAM != 0 {
                return message_of(body);
            }
        }
    }

    fn frame(&mut self) -> Result<Frame> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > MAX_FRAME {
            return Err(broken(format!("a frame of {length} bytes")));
        }
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        // The first bit is reserved.
        Ok(Frame { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1), payload })
    }

    /// Fills `bytes`. A daemon that sends a byte now and then does not win
    /// time by it.
    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            self.stream.set_read_timeout(Some(self.left()?)).map_err(untimed)?;
            match self.stream.read(&mut bytes[at..]) {
                Ok(0) => return Err(broken("the connection was closed")),
                Ok(count) => at += count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::sys("read an answer", e)),
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        self.stream.set_write_timeout(Some(self.left()?)).map_err(untimed)?;
        let written = self.stream.write_all(&frame(kind, flag::ACK, CONNECTION, payload)?);
        written.map_err(|e| Failure::sys("write to the daemon", e))
    }

    /// For the next read or write.
    fn left(&self) -> Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(broken("no answer in time")) } else { Ok(left) }
    }
}

impl Frame {
    /// The content of a DATA frame, without padding.
    fn data(&self) -> Result<&[u8]> {
        if self.flags & flag::PADDED == 0 {
            return Ok(&self.payload);
        }
        let content = self.payload.split_first().and_then(|(padding, rest)| {
            rest.len().checked_sub(usize::from(*padding)).and_then(|length| rest.get(..length))
        });
        content.ok_or_else(|| broken("a frame that is all padding"))
    }
}

fn untimed(error: std::io::Error) -> Failure {
    Failure::sys("set a time limit", error)
}

fn broken(problem: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Internal, format!("call to the daemon: {problem}"))
}

/// Connects without waiting: a daemon that hangs with a full backlog is as
/// good as none.
fn connect(address: &str) -> Result<UnixStream> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    let failed = |e: rustix::io::Errno| Failure::sys(format!("connect to {path}"), e);
    let name = SocketAddrUnix::new(path).map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let socket = socket.map_err(failed)?;
    rustix::net::connect(&socket, &name).map_err(failed)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false).map_err(|e| Failure::sys("connect", e))?;
    Ok(stream)
}

/// All that is sent for one call.
fn request(namespace: &str, method: &str, message: &[u8]) -> Result<Vec<u8>> {
    // No push, and the window of the call's stream.
    let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
    settings.extend(WINDOW.to_be_bytes());
    // Entries 3 and 6 of HPACK's static table (RFC 7541, appendix A).
    let mut headers = vec![0x83, 0x86];
    for (name, value) in [
        (":path", method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("containerd-namespace", namespace),
    ] {
        literal(&mut headers, name, value)?;
    }
    let length = u32::try_from(message.len()).map_err(|_| broken("a request that is too long"))?;
    let body = [&[0], &length.to_be_bytes()[..], message].concat();
    Ok([
        PREFACE,
        &frame(kind::SETTINGS, 0, CONNECTION, &settings)?,
        &frame(kind::WINDOW_UPDATE, 0, CONNECTION, &WINDOW.to_be_bytes())?,
        &frame(kind::HEADERS, flag::END_HEADERS, CALL, &headers)?,
        &frame(kind::DATA, flag::END_STREAM, CALL, &body)?,
    ]
    .concat())
}

/// A header that is spelt out and not to be remembered (RFC 7541, 6.2.2).
fn literal(out: &mut Vec<u8>, name: &str, value: &str) -> Result<()> {
    out.push(0);
    for text in [name, value] {
        // Longer ones would need more than a byte for their length.
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        out.push(length.ok_or_else(|| broken(format!("{text:?} is too long for a header")))?);
        out.extend_from_slice(text.as_bytes());
    }
    Ok(())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Vec<u8>> {
    if payload.len() > MAX_FRAME {
        return Err(broken("a request that is too long"));
    }
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    let mut out = length.to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    Ok(out)
}

/// The message in a body; one that was refused has none.
fn message_of(mut body: Vec<u8>) -> Result<Vec<u8>> {
    let Some(head) = body.first_chunk::<MESSAGE_HEAD>() else {
        return Err(broken("it was refused"));
    };
    let [compressed, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    if compressed != 0 || length != body.len() - MESSAGE_HEAD {
        return Err(broken("an answer that is not one message"));
    }
    body.drain(..MESSAGE_HEAD);
    Ok(body)
}

#[cfg(test)]
mod tests;
