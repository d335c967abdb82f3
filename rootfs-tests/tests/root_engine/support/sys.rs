//! System calls that neither nix nor rustix offers safely.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::signal::{SigHandler, Signal};

/// A signal that this process ignores until the value is dropped.
#[derive(Debug)]
pub(crate) struct Ignored(Signal, SigHandler);

impl Ignored {
    pub(crate) fn new(signal: Signal) -> Self {
        // SAFETY: no handler of ours is installed, so nothing runs in signal context.
        let old = unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) };
        Self(signal, old.expect("sigaction"))
    }
}

impl Drop for Ignored {
    fn drop(&mut self) {
        // SAFETY: puts back what was there before.
        let _ = unsafe { nix::sys::signal::signal(self.0, self.1) };
    }
}

/// The description of this process's session keyring: type, owner, rights, name (keyctl(2)).
pub(crate) fn session_keyring() -> io::Result<String> {
    const KEYCTL_DESCRIBE: i32 = 6;
    const KEY_SPEC_SESSION_KEYRING: i32 = -3;
    let mut text = [0_u8; 512];
    // SAFETY: the kernel writes at most `text.len()` bytes to `text`.
    let length = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_DESCRIBE,
            KEY_SPEC_SESSION_KEYRING,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let text = &text[..length.min(text.len())];
    Ok(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}

/// One of this process's standard streams, closed until the value is dropped.
#[derive(Debug)]
pub(crate) struct Closed {
    number: i32,
    saved: i32,
}

impl Closed {
    pub(crate) fn new(number: i32) -> Self {
        // SAFETY: numbers only. The one thread of this process writes nothing to the stream while
        // it is closed; the copy is above everything that is open.
        let saved = unsafe {
            let saved = libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 500);
            libc::close(number);
            saved
        };
        assert!(saved >= 500, "{}", io::Error::last_os_error());
        Self { number, saved }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        // SAFETY: numbers only; `saved` is a descriptor of ours that nobody else knows.
        unsafe {
            libc::dup2(self.saved, self.number);
            libc::close(self.saved);
        }
    }
}

/// The next call that a filter's listener is asked about; blocks until there is one.
pub(crate) fn notified(listener: BorrowedFd<'_>) -> io::Result<libc::seccomp_notif> {
    // SAFETY: all zeroes are a value of this plain structure, and the one the kernel asks for.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such structure there.
    let done =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    if done == 0 { Ok(call) } else { Err(io::Error::last_os_error()) }
}

/// Lets the call fail with an errno, or go on with `None`.
pub(crate) fn decide(
    listener: BorrowedFd<'_>,
    call: &libc::seccomp_notif,
    errno: Option<i32>,
) -> io::Result<()> {
    let go_on = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let answer = libc::seccomp_notif_resp {
        id: call.id,
        val: 0,
        error: errno.map_or(0, |errno| -errno),
        flags: if errno.is_some() { 0 } else { go_on },
    };
    // SAFETY: the kernel reads one such structure there.
    let done = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
