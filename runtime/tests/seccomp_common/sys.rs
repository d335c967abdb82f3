//! Programs put into the kernel, and bare system calls under them.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use boathook_runtime::seccomp::Filter;

/// Runs `work` in a child of its own under `filter`, and returns its exit
/// code, or minus the signal that ended it.
///
/// `work` must only make system calls: the child is a copy of one thread of a
/// program that may have more.
pub(crate) fn under(filter: &Filter, work: impl FnOnce() -> i32) -> i32 {
    let bytes = filter.bytes();
    // SAFETY: the child makes system calls only and leaves by _exit, so that nothing of the
    // parent's, such as a lock that another thread holds, is used in it.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid == 0 {
        let code = if load(&bytes, filter.flags) { work() } else { 120 };
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` is written by the kernel; the pid is a child of this process.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Puts the calling thread under a program, for good.
fn load(bytes: &[u8], flags: u32) -> bool {
    let len = (bytes.len() / 8) as u16;
    let program = libc::sock_fprog { len, filter: bytes.as_ptr().cast_mut().cast() };
    // SAFETY: numbers only; it changes this thread alone.
    let nnp = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `program` points to the `len` instructions in `bytes`, which the kernel copies.
    let loaded = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    nnp == 0 && loaded == 0
}

/// How long the kernel takes to load the program on the calling thread.
pub(crate) fn time_to_load(filter: &Filter) -> Duration {
    let bytes = filter.bytes();
    let start = Instant::now();
    assert!(load(&bytes, filter.flags), "{}", std::io::Error::last_os_error());
    start.elapsed()
}

/// A call with numbers as arguments: its result, or minus errno.
pub(crate) fn call(number: u32, args: [u64; 3]) -> i64 {
    let result: i64;
    // SAFETY: the callers below pass no pointers but null ones, which the kernel checks.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") u64::from(number) => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// The same as a 32-bit program makes it.
pub(crate) fn call_i386(number: u32, arg: u32) -> i32 {
    let result: u64;
    // SAFETY: as above; rbx is put back because the compiler keeps it for itself.
    unsafe {
        core::arch::asm!(
            "xchg rbx, {arg}",
            "int 0x80",
            "xchg rbx, {arg}",
            arg = inout(reg) u64::from(arg) => _,
            inlateout("rax") u64::from(number) => result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result as i32
}
