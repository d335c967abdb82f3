//! The C library calls behind [`super::fork`] and the heap controls.

use std::io;

/// `fork(2)`; 0 in the child.
pub(super) fn fork() -> io::Result<i32> {
    // SAFETY: no pointer is involved. The caller has checked that this process
    // has one thread, so the child inherits no lock held by a lost thread.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// One malloc arena, trim threshold 64 KiB, and no heap growth in large steps.
pub(super) fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and is called before any other thread
    // exists, which is the only time its parameters may change safely.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 16 * 1024);
    }
}

/// `malloc_trim(3)`.
pub(super) fn malloc_trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks and touches only
    // memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
