//! The C library calls behind [`super::fork`] and the heap controls.

use std::io;
use std::ops::Range;

/// `fork(2)`; 0 in the child.
pub(super) fn fork() -> io::Result<i32> {
    // SAFETY: no pointer is involved. The caller has checked that this process
    // has one thread, so the child inherits no lock held by a lost thread.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
}

/// `close_range(2)` (Linux 5.9) from `first` to the last one there is.
pub(super) fn close_from(first: u32) {
    // SAFETY: the caller is `main` before it has opened anything, so no value
    // of this program owns any of these descriptors.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, 0);
    }
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

/// `madvise(MADV_DONTNEED)` on pages of the program's own file that are mapped
/// without write permission.
pub(super) fn drop_pages(segment: Range<usize>) {
    let start = std::ptr::with_exposed_provenance_mut::<libc::c_void>(segment.start);
    // SAFETY: `segments::read_only` gives whole pages of segments that are
    // never writable, so no page differs from the file, from which the kernel
    // reads it again on the next access.
    unsafe {
        libc::madvise(start, segment.end - segment.start, libc::MADV_DONTNEED);
    }
}
