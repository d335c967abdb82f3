//! The daemon's streaming server, spoken to over a WebSocket as the API server does.
//!
//! Each message begins with the number of its channel (k8s.io/apimachinery
//! `pkg/util/httpstream/wsstream`, k8s.io/kubelet `pkg/cri/streaming`):
//!
//! | protocol | 0 | 1 | 2 | 3 | 4 | 255 |
//! |---|---|---|---|---|---|---|
//! | v4.channel.k8s.io, exec and attach | input | output | errors | status, JSON | size, JSON | – |
//! | v5.channel.k8s.io | as v4 | | | | | ends the channel that follows |
//! | v4.channel.k8s.io, port-forward | data | errors | | | | – |
//!
//! Both channels of a port begin with the port, two bytes, little end first.

use crate::error::{Context, Error, Result};
use crate::wait::{Deadline, PATIENCE};
use serde_json::{Value, json};
use std::net::TcpStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";

const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const STATUS: u8 = 3;
const SIZE: u8 = 4;
/// Of v5: ends the channel whose number follows.
const CLOSE: u8 = 255;
/// Channels of the longer protocol.
const CHANNELS: usize = 5;

/// A WebSocket and what each of its channels has brought.
struct Channels {
    socket: WebSocket<TcpStream>,
    protocol: String,
    got: [Vec<u8>; CHANNELS],
    ended: bool,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Channels").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Channels {
    /// Opens the address that a call of CRI has answered, which is good for once.
    fn open(url: &str, protocols: &str) -> Result<Self> {
        let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        let address = address.ok_or_else(|| Error::check(format!("streaming address {url:?}")))?;
        let stream = TcpStream::connect(address).during(|| format!("connect to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE)).during(|| "set a time limit")?;
        stream.set_write_timeout(Some(PATIENCE)).during(|| "set a time limit")?;
        let failed = |error: &dyn std::fmt::Display| Error::Format {
            what: format!("handshake with {address}"),
            why: error.to_string(),
        };
        let mut request = url
            .replacen("http://", "ws://", 1)
            .into_client_request()
            .map_err(|error| failed(&error))?;
        let offer = HeaderValue::from_str(protocols).map_err(|error| failed(&error))?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", offer);
        let (socket, answer) =
            tungstenite::client(request, stream).map_err(|error| failed(&error))?;
        let chosen = answer.headers().get("Sec-WebSocket-Protocol");
        let protocol = chosen.and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
        Ok(Self { socket, protocol, got: Default::default(), ended: false })
    }

    fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<()> {
        let message = [&[channel], bytes].concat();
        self.socket
            .send(Message::binary(message))
            .map_err(|error| Error::check(format!("send on channel {channel}: {error}")))
    }

    /// Takes one message in; false at the end of all.
    fn read(&mut self, deadline: Deadline, what: &str) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let left = deadline.left();
        if left.is_zero() {
            return Err(deadline.missed(what, &self.shown()));
        }
        let limited = self.socket.get_ref().set_read_timeout(Some(left));
        limited.during(|| "set a time limit")?;
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => self.take(&bytes),
            Ok(Message::Text(text)) => self.take(text.as_bytes()),
            Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => self.ended = true,
            Ok(_) => {}
            // The server ends with the connection, not with words.
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => self.ended = true,
            Err(tungstenite::Error::Io(error))
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                return Err(deadline.missed(what, &self.shown()));
            }
            Err(error) => {
                return Err(Error::check(format!("{what}: {error}; so far {}", self.shown())));
            }
        }
        Ok(!self.ended)
    }

    fn take(&mut self, message: &[u8]) {
        if let Some((channel, bytes)) = message.split_first()
            && let Some(got) = self.got.get_mut(usize::from(*channel))
        {
            got.extend_from_slice(bytes);
        }
    }

    fn got(&self, channel: u8) -> &[u8] {
        self.got.get(usize::from(channel)).map_or(&[], Vec::as_slice)
    }

    fn shown(&self) -> String {
        let each = self.got.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty());
        each.map(|(channel, bytes)| {
            format!("channel {channel}: {:?} ", String::from_utf8_lossy(bytes))
        })
        .collect()
    }

    /// Reads until a channel holds this text.
    fn expect(&mut self, channel: u8, text: &str) -> Result<()> {
        let what = format!("{text:?} on channel {channel}");
        let deadline = Deadline::after(PATIENCE);
        let found = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(text);
        while !found(self.got(channel)) {
            if !self.read(deadline, &what)? {
                return Err(Error::check(format!("{what}: the end instead; {}", self.shown())));
            }
        }
        Ok(())
    }

    /// Reads to the end.
    fn rest(&mut self) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        while self.read(deadline, "the end of the stream")? {}
        Ok(())
    }
}

/// How a streamed command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Everything from standard output; with a terminal, from that.
    pub stdout: Vec<u8>,
    /// Everything from standard error.
    pub stderr: Vec<u8>,
    /// The exit code; none where the status channel stayed silent.
    pub code: Option<i32>,
}

/// An exec or attach.
#[derive(Debug)]
pub struct Session(Channels);

impl Session {
    pub(super) fn open(url: &str) -> Result<Self> {
        Channels::open(url, &format!("{V5}, {V4}")).map(Self)
    }

    /// Whether the server lets a client end its input and still listen.
    #[must_use]
    pub fn can_end_input(&self) -> bool {
        self.0.protocol == V5
    }

    /// Writes to the command's standard input.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn input(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.send(INPUT, bytes)
    }

    /// Ends the command's standard input; see [`Session::can_end_input`].
    ///
    /// # Errors
    /// The connection is gone.
    pub fn end_input(&mut self) -> Result<()> {
        self.0.send(CLOSE, &[INPUT])
    }

    /// Changes the size of the command's terminal.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        let size = json!({ "Width": columns, "Height": rows }).to_string();
        self.0.send(SIZE, size.as_bytes())
    }

    /// Waits until standard output, or the terminal, has brought this text.
    ///
    /// # Errors
    /// It does not come.
    pub fn expect(&mut self, text: &str) -> Result<()> {
        self.0.expect(OUTPUT, text)
    }

    /// Hangs up, as a client does that is killed.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn hang_up(mut self) -> Result<()> {
        let closed = self.0.socket.close(None).and_then(|()| self.0.socket.flush());
        closed.map_err(|error| Error::check(format!("close the connection: {error}")))
    }

    /// Says goodbye and stays until the server has closed the connection, hence has read all.
    ///
    /// A socket that is closed with something unread in it is reset, and with the reset the kernel
    /// drops what the other side has not read yet.
    ///
    /// # Errors
    /// The server does not close it.
    pub fn leave(mut self) -> Result<()> {
        let closed = self.0.socket.close(None).and_then(|()| self.0.socket.flush());
        closed.map_err(|error| Error::check(format!("close the connection: {error}")))?;
        self.0.rest()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It does not come, or the status cannot be read.
    pub fn end(mut self) -> Result<Ended> {
        self.0.rest()?;
        let code = exit_code(self.0.got(STATUS))?;
        let [_, stdout, stderr, ..] = self.0.got;
        debug_assert_eq!((OUTPUT, ERRORS), (1, 2));
        Ok(Ended { stdout, stderr, code })
    }
}

/// The status channel's `metav1.Status`: success, or a cause named `ExitCode`.
fn exit_code(status: &[u8]) -> Result<Option<i32>> {
    if status.is_empty() {
        return Ok(None);
    }
    let unclear = || Error::check(format!("status: {}", String::from_utf8_lossy(status)));
    let status: Value = serde_json::from_slice(status).map_err(|_| unclear())?;
    if status.get("status").and_then(Value::as_str) == Some("Success") {
        return Ok(Some(0));
    }
    let causes = status.pointer("/details/causes").and_then(Value::as_array);
    let code = causes.into_iter().flatten().find_map(|cause| {
        let is_code = cause.get("reason").and_then(Value::as_str) == Some("ExitCode");
        cause.get("message").filter(|_| is_code)?.as_str()?.parse().ok()
    });
    code.map(Some).ok_or_else(unclear)
}

/// One forwarded connection.
#[derive(Debug)]
pub struct Forward(Channels);

impl Forward {
    pub(super) fn open(url: &str, port: u16) -> Result<Self> {
        let mut channels = Channels::open(url, V4)?;
        let port = port.to_le_bytes();
        let deadline = Deadline::after(PATIENCE);
        while channels.got(0).len() < port.len() || channels.got(1).len() < port.len() {
            if !channels.read(deadline, "the port on both channels")? {
                return Err(Error::check(format!("no port: {}", channels.shown())));
            }
        }
        for got in channels.got.iter_mut().take(2) {
            let rest = got.split_off(port.len());
            crate::ensure_eq!(*got, port, "the port at the beginning of a channel");
            *got = rest;
        }
        Ok(Self(channels))
    }

    /// Writes to the connection.
    ///
    /// # Errors
    /// It is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.send(0, bytes)
    }

    /// Reads until this many bytes have come in all, and returns them.
    ///
    /// # Errors
    /// They do not come; what the error channel says is shown.
    pub fn receive(&mut self, count: usize) -> Result<&[u8]> {
        let deadline = Deadline::after(PATIENCE);
        while self.0.got(0).len() < count {
            if !self.0.read(deadline, &format!("{count} bytes of the port"))? {
                return Err(Error::check(format!("the end after {}", self.0.shown())));
            }
        }
        Ok(self.0.got(0))
    }

    /// Reads until the error channel says something, and returns it.
    ///
    /// # Errors
    /// It stays silent.
    pub fn refusal(&mut self) -> Result<String> {
        let deadline = Deadline::after(PATIENCE);
        while self.0.got(1).is_empty() {
            if !self.0.read(deadline, "words on the error channel")? {
                return Err(Error::check("the port's error channel stayed silent"));
            }
        }
        Ok(String::from_utf8_lossy(self.0.got(1)).into_owned())
    }
}
