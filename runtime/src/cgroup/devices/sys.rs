//! bpf(2), as far as device programs need it.
//!
//! Every call hands over an [`Attr`] of full size: from 6.17 on the kernel
//! writes a query's `revision` at offset 56 even into a caller's shorter
//! buffer (opencontainers/cgroups#69).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::program::Insn;

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;

/// All programs of a cgroup and of its ancestors must agree.
const ALLOW_MULTI: u32 = 2;
/// Linux 5.6.
const REPLACE: u32 = 4;

/// `union bpf_attr`: 144 bytes in 2023 and growing. The kernel takes a longer
/// one whose tail is zero.
#[repr(C, align(8))]
struct Attr([u8; 256]);

const _: () = assert!(size_of::<Attr>() >= 144, "the kernel writes behind a short one");

impl Attr {
    fn new() -> Self {
        Self([0; 256])
    }

    fn with(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn with_fd(self, at: usize, fd: BorrowedFd<'_>) -> Self {
        self.with(at, fd.as_raw_fd().cast_unsigned())
    }

    fn with_bytes(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn with_pointer<T>(self, at: usize, pointer: *const T) -> Self {
        self.with_bytes(at, &(pointer as u64).to_ne_bytes())
    }

    fn word(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        u32::from_ne_bytes(bytes)
    }

    /// # Safety
    /// Every pointer in `self` must be valid for what `command` does with it,
    /// in the length that stands beside it.
    unsafe fn call(&mut self, command: i32) -> Result<RawFd, Errno> {
        // SAFETY: `self` is a whole attr; the pointers in it are the caller's promise.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), size_of::<Self>())
        };
        debug_assert!(self.0[192..].iter().all(|byte| *byte == 0), "bpf({command}) wrote far out");
        Errno::result(result).map(|value| value as RawFd)
    }

    /// As [`Self::call`], for commands that return a new descriptor.
    ///
    /// # Safety
    /// As there.
    unsafe fn open(&mut self, command: i32) -> Result<OwnedFd, Errno> {
        // SAFETY: passed on.
        let fd = unsafe { self.call(command) }?;
        // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Loads a device program. With a `log`, the verifier writes its reasons into
/// it as text that ends in NUL.
///
/// # Errors
/// `EINVAL` or `EACCES` when the verifier refuses, `E2BIG` for more than a
/// million instructions, `EPERM` without the privilege and, before 5.11, above
/// `RLIMIT_MEMLOCK`.
pub(super) fn load(code: &[Insn], name: &str, log: Option<&mut [u8]>) -> Result<OwnedFd, Errno> {
    let count = u32::try_from(code.len()).map_err(|_| Errno::E2BIG)?;
    // The verifier wants one; it matters for calls into GPL-only helpers, and there are none.
    let licence = c"Apache-2.0";
    let mut attr = Attr::new()
        .with(0, PROG_TYPE_CGROUP_DEVICE)
        .with(4, count)
        .with_pointer(8, code.as_ptr())
        .with_pointer(16, licence.as_ptr())
        .with_bytes(48, &name.as_bytes()[..name.len().min(15)])
        .with(68, CGROUP_DEVICE);
    if let Some(log) = log {
        let size = u32::try_from(log.len()).map_err(|_| Errno::EINVAL)?;
        attr = attr.with(24, 1).with(28, size).with_pointer(32, log.as_mut_ptr());
    }
    // SAFETY: `code` with its length, the licence and the log with its length outlive the call;
    // the log is borrowed for writing.
    unsafe { attr.open(PROG_LOAD) }
}

/// Attaches a program to the cgroup behind the directory `cgroup`, in place of
/// `instead` or beside what is there.
///
/// # Errors
/// `EINVAL` for a replacement before 5.6, `ENOENT` when `instead` is not
/// attached, `E2BIG` beside 64 others, `EPERM` above or beside a program that
/// was attached as the only one.
pub(super) fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    instead: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let flags = if instead.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI };
    let mut attr =
        Attr::new().with_fd(0, cgroup).with_fd(4, program).with(8, CGROUP_DEVICE).with(12, flags);
    if let Some(instead) = instead {
        attr = attr.with_fd(16, instead);
    }
    // SAFETY: numbers only.
    unsafe { attr.call(PROG_ATTACH) }.map(drop)
}

/// Detaches a program from a cgroup.
///
/// # Errors
/// `ENOENT` when it is not attached.
pub(super) fn detach(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attr = Attr::new().with_fd(0, cgroup).with_fd(4, program).with(8, CGROUP_DEVICE);
    // SAFETY: numbers only.
    unsafe { attr.call(PROG_DETACH) }.map(drop)
}

/// The ids of the device programs attached to this very cgroup.
///
/// # Errors
/// `ENOSPC` when `ids` is too short (64 is the most there can be), `EPERM`
/// without `CAP_NET_ADMIN`.
pub(super) fn query(cgroup: BorrowedFd<'_>, ids: &mut [u32; 64]) -> Result<usize, Errno> {
    let mut attr = Attr::new()
        .with_fd(0, cgroup)
        .with(4, CGROUP_DEVICE)
        .with_pointer(16, ids.as_mut_ptr())
        .with(24, ids.len() as u32);
    // SAFETY: `ids` outlives the call, is borrowed for writing, and its length stands beside it.
    unsafe { attr.call(PROG_QUERY) }?;
    Ok((attr.word(24) as usize).min(ids.len()))
}

/// A descriptor of a loaded program.
///
/// # Errors
/// `ENOENT` when it is gone, `EPERM` without `CAP_SYS_ADMIN`.
pub(super) fn open(id: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    unsafe { Attr::new().with(0, id).open(PROG_GET_FD_BY_ID) }
}

/// The name a program was loaded with (`bpf_prog_info.name`, Linux 4.15).
///
/// # Errors
/// What the kernel answers; there is no usual case.
pub(super) fn name(program: BorrowedFd<'_>) -> Result<String, Errno> {
    // struct bpf_prog_info: 232 bytes in 2025; the name is 16 bytes at offset 64.
    let mut info = [0_u64; 64];
    let size = size_of_val(&info) as u32;
    let mut attr = Attr::new().with_fd(0, program).with(4, size).with_pointer(8, info.as_mut_ptr());
    // SAFETY: `info` outlives the call, is borrowed for writing, and its size stands beside it.
    unsafe { attr.call(OBJ_GET_INFO_BY_FD) }?;
    let bytes = info[8..10].iter().flat_map(|word| word.to_ne_bytes());
    Ok(bytes.take_while(|byte| *byte != 0).map(char::from).collect())
}
