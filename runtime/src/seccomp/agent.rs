//! The agent that decides about calls with `SCMP_ACT_NOTIFY`: it gets the
//! listening descriptor and the container process state, over one connection
//! for each process (config-linux.md, "The Container Process State").

use std::fs;
use std::io::{ErrorKind as Io, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::json;

use super::Listener;
use crate::{Error, ErrorKind, Result};

const FIELD: &str = "linux.seccomp.listenerPath";

/// What a process's agent is told, and where.
#[derive(Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    message: Vec<u8>,
}

impl Agent {
    /// For the process `pid` of the container whose state document is `state`.
    pub(crate) fn new(listener: &Listener, pid: i32, state: &[u8]) -> Result<Self> {
        let state: serde_json::Value = serde_json::from_slice(state)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("state document: {e}")))?;
        let message = json!({
            "ociVersion": state.get("ociVersion"),
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": listener.metadata,
            "state": state,
        });
        Ok(Self { path: listener.path.clone(), message: message.to_string().into_bytes() })
    }

    /// A connection, made before the process goes on, so that nothing runs
    /// that nobody listens to.
    pub(crate) fn connect(&self, until: Instant) -> Result<Connection<'_>> {
        let failed = |e: rustix::io::Errno| refused(&self.path, e.into());
        let flags = SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        // Zero would mean no limit.
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        set_socket_timeout(&socket, Timeout::Send, Some(left)).map_err(failed)?;
        let address = SocketAddrUnix::new(&self.path).map_err(failed)?;
        connect(&socket, &address).map_err(failed)?;
        Ok(Connection { stream: UnixStream::from(socket), agent: self })
    }
}

/// Refuses a path where no socket is, before anything of the container is made.
pub(crate) fn check(listener: &Listener) -> Result<()> {
    let path = &listener.path;
    let found = fs::metadata(path).map_err(|e| refused(path, e))?;
    if found.file_type().is_socket() {
        return Ok(());
    }
    Err(Error::field(FIELD, format!("{} is not a socket", path.display())))
}

fn refused(path: &Path, error: std::io::Error) -> Error {
    let text = format!("{FIELD}: {}", path.display());
    match error.kind() {
        Io::NotFound | Io::ConnectionRefused | Io::NotADirectory => {
            Error::sys(text, error).with_kind(ErrorKind::InvalidInput)
        }
        Io::WouldBlock => Error::new(ErrorKind::Timeout, format!("{text}: it does not accept")),
        _ => Error::sys(text, error),
    }
}

/// A connection for one message.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    stream: UnixStream,
    agent: &'a Agent,
}

impl Connection<'_> {
    /// Sends everything and closes the connection.
    pub(crate) fn send(self, listener: BorrowedFd<'_>) -> Result<()> {
        let fds = [listener.as_raw_fd()];
        let mut rest = self.agent.message.as_slice();
        // The descriptor goes with the first part, should the message need several.
        let mut control = vec![ControlMessage::ScmRights(&fds)];
        while !rest.is_empty() {
            let part = [IoSlice::new(rest)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.stream.as_raw_fd(), &part, &control, flags, None) {
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    control.clear();
                }
                Err(Errno::EINTR) => {}
                Err(e) => return Err(refused(&self.agent.path, e.into())),
            }
        }
        Ok(())
    }
}
