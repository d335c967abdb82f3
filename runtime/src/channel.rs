//! The one connection between engine and init: a SEQPACKET pair that brings
//! the plan and its descriptors in, reports out, and the start byte in.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use boathook_init::report::{Report, kind};
use boathook_init::run::FDS_PER_MESSAGE;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::process::{wait_either, wait_readable};
use crate::report::exec_failure;
use crate::seccomp::agent::Agent;
use crate::{Error, ErrorKind, Result};

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// What came from init.
#[derive(Debug)]
pub(crate) enum Message {
    /// A report, with the terminal's master if it is a console report.
    Report(Report, Option<OwnedFd>),
    /// Init closed its end: it executed its program or ended.
    Closed,
}

impl Channel {
    /// The engine's end and init's end.
    pub(crate) fn pair() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|e| Error::sys("socketpair for init", e))?;
        Ok((Self(ours), theirs))
    }

    /// Queues the plan and the descriptors of its slots. Done before the
    /// clone, so that init never waits for them.
    pub(crate) fn send_plan(
        &self,
        plan: BorrowedFd<'_>,
        sent: &[BorrowedFd<'_>],
        made: u32,
    ) -> Result<()> {
        let raw: Vec<i32> = std::iter::once(&plan).chain(sent).map(AsRawFd::as_raw_fd).collect();
        let total = u32::try_from(sent.len()).unwrap_or(u32::MAX).saturating_add(made);
        let mut left = raw.len();
        for batch in raw.chunks(FDS_PER_MESSAGE) {
            left -= batch.len();
            let mut words = [0_u8; 8];
            words[..4].copy_from_slice(&total.to_le_bytes());
            words[4..].copy_from_slice(&u32::try_from(left).unwrap_or(u32::MAX).to_le_bytes());
            let rights = [ControlMessage::ScmRights(batch)];
            let data = [IoSlice::new(&words)];
            sendmsg::<()>(self.0.as_raw_fd(), &data, &rights, MsgFlags::MSG_NOSIGNAL, None)
                .map_err(|e| Error::sys(format!("send {} descriptors to init", batch.len()), e))?;
        }
        Ok(())
    }

    /// The next message, or `Timeout` at `until`. The end of `sender`, a process's
    /// pidfd, is the end of the connection, even if a copy of it holds it open.
    pub(crate) fn receive(
        &self,
        sender: Option<BorrowedFd<'_>>,
        until: Instant,
    ) -> Result<Message> {
        let left = until.saturating_duration_since(Instant::now());
        let ours = self.0.as_fd();
        if !wait_either(ours, sender.unwrap_or(ours), left)? {
            return Err(Error::new(ErrorKind::Timeout, "container init did not answer in time"));
        }
        if sender.is_some() && !wait_readable(ours, Duration::ZERO)? {
            return Ok(Message::Closed);
        }
        let mut bytes = [0_u8; Report::LEN];
        let mut space = cmsg_space!([i32; 1]);
        let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let (length, fd) = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(message) => break (message.bytes, taken(message.cmsgs())),
                // The second says, once, that init ended with our plan unread; what it sent
                // before, or the end, comes after that.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(e) => return Err(Error::sys("receive from init", e)),
            }
        };
        if length == 0 {
            return Ok(Message::Closed);
        }
        match Report::from_bytes(&bytes[..length]) {
            Some(report) => Ok(Message::Report(report, fd)),
            None => Err(Error::new(ErrorKind::Internal, "container init sent a broken report")),
        }
    }

    /// Sends the byte that a waiting init goes on by.
    pub(crate) fn send_byte(&self) -> Result<()> {
        match nix::sys::socket::send(self.0.as_raw_fd(), b"s", MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::EPIPE | Errno::ECONNRESET) => {
                let text = "cannot start a container that has stopped";
                Err(Error::new(ErrorKind::WrongState, text))
            }
            Err(e) => Err(Error::sys("send the start byte to init", e)),
        }
    }

    /// Why an init that has ended did not wait for its start, if it could say so.
    pub(crate) fn last_words(&self, program: &str) -> Option<Error> {
        match self.receive(None, Instant::now()) {
            Ok(Message::Report(report, _)) if report.kind == kind::FAILED => {
                Some(exec_failure(program, &report))
            }
            _ => None,
        }
    }

    /// Sends the start byte and waits for the exec, which closes init's end. The
    /// listener of a filter that wants to be listened to goes to `agent`.
    pub(crate) fn release_and_confirm(
        self,
        program: &str,
        agent: Option<&Agent>,
        deadline: Duration,
    ) -> Result<()> {
        let until = Instant::now() + deadline;
        let connection = agent.map(|agent| agent.connect(until)).transpose()?;
        if let Err(error) = self.send_byte() {
            return Err(self.last_words(program).unwrap_or(error));
        }
        let mut message = self.receive(None, until)?;
        if let Some(connection) = connection
            && let Message::Report(Report { kind: kind::LISTENER, .. }, Some(listener)) = &message
        {
            connection.send(listener.as_fd())?;
            self.send_byte()?;
            message = self.receive(None, until)?;
        }
        match message {
            Message::Closed => Ok(()),
            Message::Report(report, _) if report.kind == kind::FAILED => {
                Err(exec_failure(program, &report))
            }
            Message::Report(..) => {
                Err(Error::new(ErrorKind::Internal, "container init sent an unexpected report"))
            }
        }
    }
}

/// The first descriptor among control messages, owned by the caller.
fn taken(cmsgs: Result<nix::sys::socket::CmsgIterator<'_>, Errno>) -> Option<OwnedFd> {
    cmsgs.ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().map(|fd| crate::sys::adopt(*fd)),
        _ => None,
    })
}
