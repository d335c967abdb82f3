//! System calls, one instruction away from the kernel: no libc, no errno
//! variable, no allocation. A failed call says which one it was.

use core::ffi::CStr;

/// A step's failure as it goes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// errno, or 0 when `detail` tells all.
    pub errno: u32,
    /// System call number, or one of [`crate::report::detail`].
    pub detail: u32,
}

impl Fault {
    /// A failure that is not one of a system call.
    pub fn detail(detail: u32) -> Self {
        Self { errno: 0, detail }
    }
}

/// Result of a step or of a part of it.
pub type Outcome<T = ()> = Result<T, Fault>;

/// Numbers of the system calls that init makes on x86-64.
#[allow(missing_docs, reason = "the kernel's own names")]
pub mod nr {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const CLOSE: u32 = 3;
    pub const FSTAT: u32 = 5;
    pub const MMAP: u32 = 9;
    pub const RT_SIGACTION: u32 = 13;
    pub const RT_SIGPROCMASK: u32 = 14;
    pub const IOCTL: u32 = 16;
    pub const SENDFILE: u32 = 40;
    pub const SOCKET: u32 = 41;
    pub const SENDMSG: u32 = 46;
    pub const RECVMSG: u32 = 47;
    pub const SCHED_YIELD: u32 = 24;
    pub const CLONE: u32 = 56;
    pub const EXECVE: u32 = 59;
    pub const EXIT: u32 = 60;
    pub const WAIT4: u32 = 61;
    pub const GETPID: u32 = 39;
    pub const FCNTL: u32 = 72;
    pub const GETCWD: u32 = 79;
    pub const CHDIR: u32 = 80;
    pub const FCHDIR: u32 = 81;
    pub const FCHMOD: u32 = 91;
    pub const FCHOWN: u32 = 93;
    pub const UMASK: u32 = 95;
    pub const SETSID: u32 = 112;
    pub const SETGROUPS: u32 = 116;
    pub const SETRESUID: u32 = 117;
    pub const SETRESGID: u32 = 119;
    pub const CAPSET: u32 = 126;
    pub const PERSONALITY: u32 = 135;
    pub const FSTATFS: u32 = 138;
    pub const PIVOT_ROOT: u32 = 155;
    pub const PRCTL: u32 = 157;
    pub const SETRLIMIT: u32 = 160;
    pub const CHROOT: u32 = 161;
    pub const MOUNT: u32 = 165;
    pub const UMOUNT2: u32 = 166;
    pub const SETHOSTNAME: u32 = 170;
    pub const SETDOMAINNAME: u32 = 171;
    pub const FSETXATTR: u32 = 190;
    pub const FGETXATTR: u32 = 193;
    pub const FLISTXATTR: u32 = 196;
    pub const SCHED_SETAFFINITY: u32 = 203;
    pub const GETDENTS64: u32 = 217;
    pub const EXIT_GROUP: u32 = 231;
    pub const SET_MEMPOLICY: u32 = 238;
    pub const PRLIMIT64: u32 = 302;
    pub const KEYCTL: u32 = 250;
    pub const IOPRIO_SET: u32 = 251;
    pub const MKDIRAT: u32 = 258;
    pub const MKNODAT: u32 = 259;
    pub const FCHOWNAT: u32 = 260;
    pub const UNLINKAT: u32 = 263;
    pub const SYMLINKAT: u32 = 266;
    pub const READLINKAT: u32 = 267;
    pub const FCHMODAT: u32 = 268;
    pub const UNSHARE: u32 = 272;
    pub const UTIMENSAT: u32 = 280;
    pub const DUP3: u32 = 292;
    pub const SETNS: u32 = 308;
    pub const SCHED_SETATTR: u32 = 314;
    pub const SECCOMP: u32 = 317;
    pub const OPEN_TREE: u32 = 428;
    pub const MOVE_MOUNT: u32 = 429;
    pub const FSOPEN: u32 = 430;
    pub const FSCONFIG: u32 = 431;
    pub const FSMOUNT: u32 = 432;
    pub const FSPICK: u32 = 433;
    pub const CLOSE_RANGE: u32 = 436;
    pub const OPENAT2: u32 = 437;
    pub const FACCESSAT2: u32 = 439;
    pub const MOUNT_SETATTR: u32 = 442;
}

/// Name of a system call that init makes, for messages of the engine.
pub fn name_of(number: u32) -> Option<&'static str> {
    NAMES.iter().find(|(n, _)| *n == number).map(|(_, name)| *name)
}

const NAMES: &[(u32, &str)] = &[
    (nr::READ, "read"),
    (nr::WRITE, "write"),
    (nr::CLOSE, "close"),
    (nr::FSTAT, "fstat"),
    (nr::MMAP, "mmap"),
    (nr::RT_SIGACTION, "rt_sigaction"),
    (nr::RT_SIGPROCMASK, "rt_sigprocmask"),
    (nr::IOCTL, "ioctl"),
    (nr::SENDFILE, "sendfile"),
    (nr::SOCKET, "socket"),
    (nr::SENDMSG, "sendmsg"),
    (nr::RECVMSG, "recvmsg"),
    (nr::CLONE, "clone"),
    (nr::EXECVE, "execve"),
    (nr::WAIT4, "wait4"),
    (nr::PRLIMIT64, "prlimit"),
    (nr::FCNTL, "fcntl"),
    (nr::GETCWD, "getcwd"),
    (nr::CHDIR, "chdir"),
    (nr::FCHDIR, "fchdir"),
    (nr::FCHMOD, "fchmod"),
    (nr::FCHOWN, "fchown"),
    (nr::UMASK, "umask"),
    (nr::SETSID, "setsid"),
    (nr::SETGROUPS, "setgroups"),
    (nr::SETRESUID, "setresuid"),
    (nr::SETRESGID, "setresgid"),
    (nr::CAPSET, "capset"),
    (nr::FSTATFS, "fstatfs"),
    (nr::PIVOT_ROOT, "pivot_root"),
    (nr::PRCTL, "prctl"),
    (nr::SETRLIMIT, "setrlimit"),
    (nr::CHROOT, "chroot"),
    (nr::MOUNT, "mount"),
    (nr::UMOUNT2, "umount2"),
    (nr::SETHOSTNAME, "sethostname"),
    (nr::SETDOMAINNAME, "setdomainname"),
    (nr::FSETXATTR, "fsetxattr"),
    (nr::FGETXATTR, "fgetxattr"),
    (nr::FLISTXATTR, "flistxattr"),
    (nr::SCHED_SETAFFINITY, "sched_setaffinity"),
    (nr::GETDENTS64, "getdents64"),
    (nr::PERSONALITY, "personality"),
    (nr::SET_MEMPOLICY, "set_mempolicy"),
    (nr::KEYCTL, "keyctl"),
    (nr::IOPRIO_SET, "ioprio_set"),
    (nr::SCHED_SETATTR, "sched_setattr"),
    (nr::MKDIRAT, "mkdirat"),
    (nr::MKNODAT, "mknodat"),
    (nr::FCHOWNAT, "fchownat"),
    (nr::UNLINKAT, "unlinkat"),
    (nr::SYMLINKAT, "symlinkat"),
    (nr::READLINKAT, "readlinkat"),
    (nr::UTIMENSAT, "utimensat"),
    (nr::FCHMODAT, "fchmodat"),
    (nr::UNSHARE, "unshare"),
    (nr::DUP3, "dup3"),
    (nr::SETNS, "setns"),
    (nr::SECCOMP, "seccomp"),
    (nr::OPEN_TREE, "open_tree"),
    (nr::MOVE_MOUNT, "move_mount"),
    (nr::FSOPEN, "fsopen"),
    (nr::FSCONFIG, "fsconfig"),
    (nr::FSMOUNT, "fsmount"),
    (nr::FSPICK, "fspick"),
    (nr::CLOSE_RANGE, "close_range"),
    (nr::OPENAT2, "openat2"),
    (nr::FACCESSAT2, "faccessat2"),
    (nr::MOUNT_SETATTR, "mount_setattr"),
];

#[cfg(not(target_arch = "x86_64"))]
compile_error!("boathook's init is written for x86-64");

/// The bare instruction.
///
/// # Safety
/// The arguments must be right for the call: every pointer valid for as long
/// and as far as the kernel uses it.
#[cfg(not(fuzzing))]
#[inline(always)]
unsafe fn raw(number: u32, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the instruction only changes rax, rcx, r11 and what the caller vouches for.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

#[cfg(fuzzing)]
use crate::fake::kernel as raw;

/// A value that can be an argument: a number, or a pointer whose target
/// outlives the call because it is borrowed for it.
pub trait Arg {
    /// The register's content.
    fn arg(self) -> usize;
}

macro_rules! numbers { ($($t:ty),*) => { $( impl Arg for $t {
    #[inline(always)]
    fn arg(self) -> usize { self as usize }
} )* } }
numbers!(u16, u32, u64, usize, i32);

impl Arg for &CStr {
    #[inline(always)]
    fn arg(self) -> usize {
        self.as_ptr() as usize
    }
}

impl<T> Arg for &T {
    #[inline(always)]
    fn arg(self) -> usize {
        core::ptr::from_ref(self) as usize
    }
}

impl<T> Arg for &mut T {
    #[inline(always)]
    fn arg(self) -> usize {
        core::ptr::from_mut(self) as usize
    }
}

/// Makes a call and turns its result into a value or a [`Fault`].
///
/// # Safety
/// As for the instruction: pointers among `args` must be valid for what the
/// call `number` reads or writes through them.
#[inline]
pub unsafe fn call(number: u32, args: [usize; 6]) -> Outcome<usize> {
    // SAFETY: passed on to the caller.
    let result = unsafe { raw(number, args) };
    if (-4095..0).contains(&result) {
        return Err(Fault { errno: result.unsigned_abs() as u32, detail: number });
    }
    Ok(result as usize)
}

/// `syscall!(NR, a, b, …)`: every argument is converted by [`Arg`].
macro_rules! syscall {
    ($nr:expr $(, $arg:expr)* $(,)?) => {
        // A match, because what is made for an argument must live until the call is over.
        match [$( $crate::sys::Arg::arg($arg) ),*] {
            given => {
                let given: &[usize] = &given;
                let mut args = [0_usize; 6];
                args[..given.len()].copy_from_slice(given);
                // SAFETY: references among the arguments are borrowed until the match ends, and
                // the call site passes the kernel the type that this call takes.
                unsafe { $crate::sys::call($nr, args) }
            }
        }
    };
}
pub(crate) use syscall;

/// A descriptor that is closed when it is dropped.
#[derive(Debug)]
pub struct Fd(i32);

impl Fd {
    /// Takes the descriptor that a call returned.
    pub(crate) fn new(number: usize) -> Self {
        Fd(number as i32)
    }

    /// Its number.
    pub fn number(&self) -> i32 {
        self.0
    }

    /// Gives up ownership: the caller keeps the number.
    pub(crate) fn into_number(self) -> i32 {
        let number = self.0;
        core::mem::forget(self);
        number
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        let _ = syscall!(nr::CLOSE, self.0);
    }
}

/// What openat2(2) takes.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2), tried again when a rename raced with it (`EAGAIN`).
pub(crate) fn openat2(dir: i32, path: &CStr, flags: u64, mode: u64, resolve: u64) -> Outcome<Fd> {
    use crate::consts::{EAGAIN, EINTR, O_CLOEXEC};
    let how = OpenHow { flags: flags | O_CLOEXEC, mode, resolve };
    let mut tries = 0;
    loop {
        match syscall!(nr::OPENAT2, dir, path, &how, size_of::<OpenHow>()) {
            Ok(fd) => return Ok(Fd::new(fd)),
            Err(fault) if tries < 128 && (fault.errno == EAGAIN || fault.errno == EINTR) => {
                tries += 1
            }
            Err(fault) => return Err(fault),
        }
    }
}

/// The kernel's `struct stat` on x86-64.
#[repr(C)]
#[derive(Default)]
#[allow(missing_docs, reason = "the kernel's own names")]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pad: u32,
    pub rdev: u64,
    pub size: i64,
    block_size: u64,
    blocks: u64,
    /// Seconds and nanoseconds of the last access and of the last change.
    pub times: [[u64; 2]; 2],
    rest: [u64; 5],
}

impl Stat {
    /// Major and minor number of a device node.
    pub fn device(&self) -> (u32, u32) {
        let major = ((self.rdev >> 8) & 0xfff) | ((self.rdev >> 32) & !0xfff);
        let minor = (self.rdev & 0xff) | ((self.rdev >> 12) & !0xff);
        (major as u32, minor as u32)
    }
}

/// A device number as mknod(2) takes it.
pub fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    ((major & 0xffff_f000) << 32)
        | ((major & 0xfff) << 8)
        | ((minor & 0xffff_ff00) << 12)
        | (minor & 0xff)
}

/// fstat(2).
pub(crate) fn fstat(fd: i32) -> Outcome<Stat> {
    let mut stat = Stat::default();
    syscall!(nr::FSTAT, fd, &mut stat)?;
    Ok(stat)
}

/// Type of the file system that `fd` is on.
pub(crate) fn fs_magic(fd: i32) -> Outcome<u64> {
    let mut buffer = [0_u64; 15];
    syscall!(nr::FSTATFS, fd, &mut buffer)?;
    Ok(buffer[0])
}

/// `ST_*` flags of the mount that `fd` is on.
pub(crate) fn mount_flags(fd: i32) -> Outcome<u64> {
    let mut buffer = [0_u64; 15];
    syscall!(nr::FSTATFS, fd, &mut buffer)?;
    Ok(buffer[10])
}

/// Ends the process.
pub fn exit(code: i32) -> ! {
    loop {
        let _ = syscall!(nr::EXIT_GROUP, code);
    }
}

/// Starts a second thread at `run`, on a stack of its own. It shares memory,
/// descriptors and signals; execve(2) of the first thread ends it.
pub(crate) fn start_thread(run: extern "C" fn() -> !) -> Outcome {
    use crate::consts::{CLONE_FILES, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM};
    start_on_stack(u64::from(CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD), run).map(drop)
}

/// clone(2) with shared memory: what is new starts at `run`, on a stack of its own.
fn start_on_stack(flags: u64, run: extern "C" fn() -> !) -> Outcome<usize> {
    if cfg!(fuzzing) {
        return Err(Fault { errno: crate::consts::EAGAIN, detail: nr::CLONE });
    }
    const STACK: usize = 16 * 1024;
    let stack = map_anonymous(STACK)?;
    // Mappings start at a page, so this is aligned as a call wants it.
    let top = stack.as_mut_ptr() as usize + STACK;
    let result: isize;
    // SAFETY: `flags` of all callers have CLONE_VM; what is new runs on `stack`, which nobody else uses and nothing unmaps, and
    // calls `run`, which never returns; the first one goes on behind the label as after any call.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") nr::CLONE as isize => result,
            in("rdi") flags, in("rsi") top, in("rdx") 0, in("r10") 0, in("r8") 0,
            in("r12") run as usize,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    if result < 0 {
        return Err(Fault { errno: result.unsigned_abs() as u32, detail: nr::CLONE });
    }
    Ok(result as usize)
}

/// A copy of this process as its sibling: a child of the same parent. Returns
/// the copy's pid here and 0 in the copy.
pub(crate) fn fork_sibling() -> Outcome<usize> {
    // With CLONE_PARENT the copy tells its end by the signal that this process does.
    syscall!(nr::CLONE, crate::consts::CLONE_PARENT, 0_usize, 0_usize, 0_usize, 0_usize)
}

/// Runs `work` in a child that shares memory and descriptors with this process
/// and ends with it; this process stops until then.
pub(crate) fn in_child(work: extern "C" fn() -> !) -> Outcome {
    use crate::consts::{CLONE_FILES, CLONE_VFORK, CLONE_VM, EINTR, WAIT_ALL};
    let pid = start_on_stack(u64::from(CLONE_VM | CLONE_FILES | CLONE_VFORK), work)?;
    loop {
        match syscall!(nr::WAIT4, pid, 0_usize, WAIT_ALL, 0_usize) {
            Err(fault) if fault.errno == EINTR => {}
            other => return other.map(drop),
        }
    }
}

/// Ends the calling thread.
pub(crate) fn exit_thread() -> ! {
    loop {
        let _ = syscall!(nr::EXIT, 0_u32);
    }
}

/// Anonymous zeroed memory of `len` bytes, never given back: init ends or
/// executes something else soon.
pub(crate) fn map_anonymous(len: usize) -> Outcome<&'static mut [usize]> {
    const PROT_READ_WRITE: u32 = 3;
    const MAP_PRIVATE_ANONYMOUS: u32 = 0x22;
    let words = len.div_ceil(size_of::<usize>());
    let bytes = (words * size_of::<usize>()).max(1);
    let at = syscall!(
        nr::MMAP,
        0_usize,
        bytes,
        PROT_READ_WRITE,
        MAP_PRIVATE_ANONYMOUS,
        -1_i32,
        0_usize
    )?;
    // SAFETY: the kernel has just mapped `bytes` zeroed, page-aligned bytes here for this
    // process alone, and nothing unmaps them.
    Ok(unsafe { core::slice::from_raw_parts_mut(at as *mut usize, words) })
}

/// The content of a sealed descriptor, mapped read-only for good.
pub(crate) fn map_sealed(fd: i32) -> Outcome<&'static [u8]> {
    const PROT_READ: u32 = 1;
    const MAP_PRIVATE: u32 = 2;
    let len = fstat(fd)?.size as usize;
    let at = syscall!(nr::MMAP, 0_usize, len.max(1), PROT_READ, MAP_PRIVATE, fd, 0_usize)?;
    // SAFETY: `len` bytes of the file are mapped for good, and the engine sealed the file
    // against writing and shrinking before it sent it.
    Ok(unsafe { core::slice::from_raw_parts(at as *const u8, len) })
}

/// The bytes of words that the kernel filled.
pub(crate) fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: every byte of initialised words is an initialised byte, and the length is theirs.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// Bytes of a string with its NUL, from a fixed buffer.
pub(crate) struct PathBuf {
    bytes: [u8; 4096],
    len: usize,
}

impl PathBuf {
    /// An empty string.
    pub(crate) fn new() -> Self {
        Self { bytes: [0; 4096], len: 0 }
    }

    /// Appends; `ENAMETOOLONG` when it would not fit with its NUL.
    pub(crate) fn push(&mut self, more: &[u8]) -> Outcome {
        let too_long = Fault { errno: crate::consts::ENAMETOOLONG, detail: nr::OPENAT2 };
        let end = self.len.checked_add(more.len()).ok_or(too_long)?;
        if end >= self.bytes.len() {
            return Err(too_long);
        }
        self.bytes.get_mut(self.len..end).ok_or(too_long)?.copy_from_slice(more);
        self.len = end;
        if let Some(nul) = self.bytes.get_mut(end) {
            *nul = 0;
        }
        Ok(())
    }

    /// Appends a number in decimal.
    pub(crate) fn push_number(&mut self, number: usize) -> Outcome {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        let mut rest = number;
        while at > 0 && (rest > 0 || at == digits.len()) {
            at -= 1;
            if let Some(digit) = digits.get_mut(at) {
                *digit = b'0' + (rest % 10) as u8;
            }
            rest /= 10;
        }
        self.push(digits.get(at..).unwrap_or_default())
    }

    /// Becomes what the symbolic link says that `link` was opened at.
    pub(crate) fn read_link(&mut self, link: i32) -> Outcome {
        self.clear();
        let room = self.bytes.len() - 1;
        self.len = syscall!(nr::READLINKAT, link, c"", &mut self.bytes, room)?;
        if let Some(nul) = self.bytes.get_mut(self.len) {
            *nul = 0;
        }
        Ok(())
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.bytes[0] = 0;
    }

    /// The string.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_kernels_packing() {
        for (major, minor) in [(1, 3), (5, 2), (4095, 255), (4096, 256), (0xffff, 0xf_ffff)] {
            let stat = Stat { rdev: makedev(major, minor), ..Stat::default() };
            assert_eq!(stat.device(), (major, minor));
        }
    }

    #[test]
    fn a_path_that_does_not_fit_is_an_error_and_not_a_shorter_path() {
        let mut path = PathBuf::new();
        path.push(&[b'a'; 4000]).unwrap();
        assert!(path.push(&[b'b'; 96]).is_err());
        assert_eq!(path.as_c_str().count_bytes(), 4000);
        path.push(&[b'c'; 95]).unwrap();
        assert_eq!(path.as_c_str().count_bytes(), 4095);
    }

    #[test]
    fn every_number_in_the_table_of_names_is_there_once() {
        for (at, (number, _)) in NAMES.iter().enumerate() {
            assert!(NAMES.iter().skip(at + 1).all(|(other, _)| other != number));
        }
        assert_eq!(name_of(nr::OPENAT2), Some("openat2"));
    }
}
