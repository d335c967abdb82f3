//! Which calls are made to fail, and how.

use libc::c_long;

/// Calls that are let through uncounted wherever they come from: they end something or tell what is
/// known and cannot fail (close(2) frees the number whatever it answers), so an error of theirs
/// would be one that no kernel gives.
const NEVER_FAIL: &[c_long] = &[
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getppid,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
];

/// What the engine's process calls besides, and no engine has a say in. Memory is one: a Rust
/// program ends where its allocator gets none, which is the case of a shim that dies. The others
/// tell what is known, wake, or wait for a child that is there.
const NOT_THE_ENGINES: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_waitid,
    libc::SYS_wait4,
    // How the standard library hears of a hook that could not be executed; it panics where it
    // cannot hear.
    libc::SYS_recvfrom,
];

/// What is never counted and need not be asked about.
pub(super) fn never_fail() -> &'static [c_long] {
    NEVER_FAIL
}

/// Whether a call of the engine's own process counts.
pub(super) fn counts_in_engine(call: c_long) -> bool {
    !NOT_THE_ENGINES.contains(&call)
}

/// The errno that a call of its kind fails with on a machine in trouble.
pub(super) fn errno_of(call: c_long) -> i32 {
    match call {
        // The disk or the device.
        libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_getdents64
        | libc::SYS_lseek
        | libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_fstat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_fstatfs
        | libc::SYS_readlink
        | libc::SYS_readlinkat
        | libc::SYS_unlink
        | libc::SYS_unlinkat
        | libc::SYS_rmdir => libc::EIO,
        // No room.
        libc::SYS_write
        | libc::SYS_mkdir
        | libc::SYS_mkdirat
        | libc::SYS_mknodat
        | libc::SYS_symlinkat
        | libc::SYS_linkat
        | libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_ftruncate => libc::ENOSPC,
        // No memory.
        libc::SYS_open
        | libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_dup
        | libc::SYS_dup2
        | libc::SYS_dup3
        | libc::SYS_fcntl
        | libc::SYS_memfd_create
        | libc::SYS_socket
        | libc::SYS_socketpair
        | libc::SYS_pipe2
        | libc::SYS_sendmsg
        | libc::SYS_sendto
        | libc::SYS_recvmsg
        | libc::SYS_recvfrom
        | libc::SYS_poll
        | libc::SYS_ppoll
        | libc::SYS_pidfd_open
        | libc::SYS_fsopen
        | libc::SYS_fsmount
        | libc::SYS_open_tree
        | libc::SYS_mmap
        | libc::SYS_clone
        | libc::SYS_clone3
        | libc::SYS_vfork
        | libc::SYS_execve
        | libc::SYS_execveat => libc::ENOMEM,
        // The right to.
        _ => libc::EPERM,
    }
}
