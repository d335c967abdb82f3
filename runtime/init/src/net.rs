//! The loopback device of a new network namespace.

use crate::consts::{AF_INET, IFF_UP, SIOCGIFFLAGS, SIOCSIFFLAGS, SOCK_CLOEXEC, SOCK_DGRAM};
use crate::sys::{Fd, Outcome, nr, syscall};

/// The kernel's `struct ifreq` with flags.
#[repr(C)]
struct IfReq {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Brings `lo` up.
pub(crate) fn loopback_up() -> Outcome {
    let socket = Fd::new(syscall!(nr::SOCKET, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0_u32)?);
    let mut request = IfReq { name: *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0", flags: 0, rest: [0; 22] };
    syscall!(nr::IOCTL, socket.number(), SIOCGIFFLAGS, &mut request)?;
    request.flags |= IFF_UP;
    syscall!(nr::IOCTL, socket.number(), SIOCSIFFLAGS, &request)?;
    Ok(())
}
