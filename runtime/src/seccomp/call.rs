//! System calls by name: their numbers on each architecture, and the two calls
//! of i386 that stand for many.

use super::arch::Arch;
use super::syscalls::CALLS;

/// There is no such call on that architecture.
pub(super) const NONE: u16 = u16::MAX;

/// One row of the table.
#[derive(Debug)]
pub(super) struct Call {
    name: &'static str,
    numbers: [u16; 3],
}

impl Call {
    pub(super) const fn new(name: &'static str, x86_64: u16, x86: u16, x32: u16) -> Self {
        Self { name, numbers: [x86_64, x86, x32] }
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    direct: [u16; 3],
    packed: Option<Packed>,
}

impl Numbers {
    /// The call's own number, without the bit of x32.
    pub(super) fn direct(&self, arch: Arch) -> Option<u16> {
        Some(self.direct[arch as usize]).filter(|number| *number != NONE)
    }

    /// How the call is made through socketcall(2) or ipc(2).
    pub(super) fn packed(&self, arch: Arch) -> Option<Packed> {
        self.packed.filter(|_| arch == Arch::X86)
    }
}

/// A call that i386 also makes, or only makes, through another one whose first
/// argument says which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Packed {
    /// The number of socketcall(2) or ipc(2).
    pub(super) outer: u16,
    /// The value of its first argument.
    pub(super) selector: u16,
}

const SOCKETCALL: u16 = 102;
const IPC: u16 = 117;

impl Packed {
    /// Bits of the first argument that select: the upper half of ipc(2)'s is a
    /// version, which the kernel cuts off first (ipc/syscall.c).
    pub(super) fn mask(self) -> u64 {
        if self.outer == IPC { 0xffff } else { 0xffff_ffff }
    }
}

/// Values from include/uapi/linux/net.h.
const SOCKET_CALLS: [(&str, u16); 20] = [
    ("accept", 5),
    ("accept4", 18),
    ("bind", 2),
    ("connect", 3),
    ("getpeername", 7),
    ("getsockname", 6),
    ("getsockopt", 15),
    ("listen", 4),
    ("recv", 10),
    ("recvfrom", 12),
    ("recvmmsg", 19),
    ("recvmsg", 17),
    ("send", 9),
    ("sendmmsg", 20),
    ("sendmsg", 16),
    ("sendto", 11),
    ("setsockopt", 14),
    ("shutdown", 13),
    ("socket", 1),
    ("socketpair", 8),
];

/// Values from include/uapi/linux/ipc.h.
const IPC_CALLS: [(&str, u16); 12] = [
    ("msgctl", 14),
    ("msgget", 13),
    ("msgrcv", 12),
    ("msgsnd", 11),
    ("semctl", 3),
    ("semget", 2),
    ("semop", 1),
    ("semtimedop", 4),
    ("shmat", 21),
    ("shmctl", 24),
    ("shmdt", 22),
    ("shmget", 23),
];

fn packed(name: &str) -> Option<Packed> {
    // Spares most names two searches.
    if !matches!(name.as_bytes().first(), Some(b'a'..=b's')) {
        return None;
    }
    let selector = |calls: &[(&str, u16)]| {
        calls.binary_search_by(|(known, _)| (*known).cmp(name)).ok().map(|at| calls[at].1)
    };
    let socket = selector(&SOCKET_CALLS).map(|s| Packed { outer: SOCKETCALL, selector: s });
    socket.or_else(|| selector(&IPC_CALLS).map(|s| Packed { outer: IPC, selector: s }))
}

/// What `name` stands for; `None` when no architecture of ours knows it.
pub(super) fn lookup(name: &str) -> Option<Numbers> {
    let packed = packed(name);
    match CALLS.binary_search_by(|call| call.name.cmp(name)) {
        Ok(at) => Some(Numbers { direct: CALLS[at].numbers, packed }),
        Err(_) => packed.map(|p| Numbers { direct: [NONE; 3], packed: Some(p) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_so_that_every_name_is_found() {
        for call in &CALLS {
            assert_eq!(lookup(call.name).unwrap().direct, call.numbers, "{}", call.name);
        }
        for (name, selector) in SOCKET_CALLS.iter().chain(&IPC_CALLS) {
            let found = lookup(name).unwrap().packed(Arch::X86).unwrap();
            assert_eq!(found.selector, *selector, "{name}");
            assert_eq!(lookup(name).unwrap().packed(Arch::X32), None);
        }
        assert_eq!(lookup("no_such_call"), None);
        assert_eq!(lookup(""), None);
    }

    #[test]
    fn numbers_are_those_of_the_c_library() {
        let number = |name| lookup(name).unwrap().direct(Arch::X86_64).map(i64::from);
        for (name, expected) in [
            ("read", libc::SYS_read),
            ("execve", libc::SYS_execve),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("mount_setattr", libc::SYS_mount_setattr),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        assert_eq!(number("socketcall"), None);
    }
}
