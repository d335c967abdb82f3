//! System calls that neither nix nor rustix offers safely.

use std::io;

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
