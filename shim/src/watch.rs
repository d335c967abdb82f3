//! Descriptors the runtime watches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::failure::{Failure, Result};

/// A descriptor the runtime watches.
pub type Watched = AsyncFd<OwnedFd>;

/// Has the runtime watch `fd`. To be called inside the runtime.
///
/// # Errors
/// The kernel's refusal: regular files cannot be watched, and the number of
/// watches has a limit.
#[expect(
    deprecated,
    reason = "unsound only for types that may hand out another descriptor later; OwnedFd cannot, and the successor needs unsafe"
)]
pub fn watch(fd: OwnedFd, interest: Interest) -> Result<Watched> {
    AsyncFd::with_interest(fd, interest).map_err(|e| Failure::sys("watch a descriptor", e))
}

/// Waits until poll(2) agrees that `fd` is ready for `interest`.
///
/// The runtime learns of edges only, so it must be told when readiness is
/// gone, and only then: a splice that could not go on may have been stopped by
/// its other side. Hence the question to the kernel.
pub async fn ready(fd: &Watched, interest: Interest) {
    let flag = if interest.is_readable() { PollFlags::IN } else { PollFlags::OUT };
    loop {
        let Ok(mut guard) = fd.ready(interest).await else { return };
        let check = |fd: &Watched| match is_ready(fd.get_ref().as_fd(), flag) {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::WouldBlock)),
        };
        if guard.try_io(check).is_ok() {
            return;
        }
    }
}

/// Waits until `fd` can be read, at most `limit`. Blocks: not for the server.
pub fn wait(fd: BorrowedFd<'_>, limit: Duration) {
    let until = Instant::now() + limit;
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// What poll(2) says at once. Errors and hang-ups count as ready: the next
/// attempt will meet them.
pub fn is_ready(fd: BorrowedFd<'_>, flag: PollFlags) -> bool {
    let mut fds = [PollFd::new(&fd, flag)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let polled = poll(&mut fds, Some(&now));
    polled.is_err() || !fds[0].revents().is_empty()
}
