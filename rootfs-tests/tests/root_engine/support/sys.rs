//! System calls that neither nix nor rustix offers safely.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// Takes ownership of a descriptor that has just arrived by SCM_RIGHTS.
pub(crate) fn adopt(fd: i32) -> OwnedFd {
    // SAFETY: the caller has it from the kernel in this very message, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A program of the seccomp machine, put together instruction by instruction (seccomp(2)).
struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Offsets in `struct seccomp_data`.
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;

    fn new() -> Self {
        let mut filter = Self(Vec::new());
        filter.load(Self::NUMBER);
        filter
    }

    fn push(&mut self, code: u32, jump: (u8, u8), k: u32) {
        self.0.push(libc::sock_filter { code: code as u16, jt: jump.0, jf: jump.1, k });
    }

    fn load(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), offset);
    }

    /// Skips so many instructions unless what was loaded is `value`.
    fn unless(&mut self, value: i64, skip: u8) {
        self.push(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, (0, skip), value as u32);
    }

    fn answer(&mut self, action: u32) {
        self.push(libc::BPF_RET | libc::BPF_K, (0, 0), action);
    }

    /// seccomp(2); the process keeps the filter for good and passes it on to its children.
    fn install(mut self, flags: libc::c_ulong) -> io::Result<i32> {
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_mut_ptr() };
        // SAFETY: `program` points to the instructions, which live until after the call; the
        // kernel copies and checks them.
        let done = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as i32) }
    }
}

/// From now on every system call of this process and its children is asked about at the
/// descriptor that is returned, but for `free` ones and messages by `socket`.
pub(crate) fn ask_about_calls(
    free: &[libc::c_long],
    socket: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let mut filter = Filter::new();
    for call in free {
        filter.unless(*call, 1);
        filter.answer(libc::SECCOMP_RET_ALLOW);
    }
    for call in [libc::SYS_read, libc::SYS_write, libc::SYS_sendmsg] {
        filter.unless(call, 4);
        filter.load(Filter::FIRST_ARGUMENT);
        filter.unless(i64::from(socket.as_raw_fd()), 1);
        filter.answer(libc::SECCOMP_RET_ALLOW);
        filter.load(Filter::NUMBER);
    }
    filter.answer(libc::SECCOMP_RET_USER_NOTIF);
    filter.install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER).map(adopt)
}

/// From now on this process and its children are without `calls` (ENOSYS) and without flags of
/// others: call, number of the argument, bits (EINVAL).
pub(crate) fn take_away(
    calls: &[libc::c_long],
    flags: &[(libc::c_long, u32, u32)],
) -> io::Result<()> {
    let errno = |number: i32| libc::SECCOMP_RET_ERRNO | number as u32;
    let mut filter = Filter::new();
    for call in calls {
        filter.unless(*call, 1);
        filter.answer(errno(libc::ENOSYS));
    }
    for (call, argument, bits) in flags {
        filter.unless(*call, 4);
        filter.load(Filter::FIRST_ARGUMENT + 8 * argument);
        filter.push(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, (0, 1), *bits);
        filter.answer(errno(libc::EINVAL));
        filter.load(Filter::NUMBER);
    }
    filter.answer(libc::SECCOMP_RET_ALLOW);
    filter.install(0).map(drop)
}
