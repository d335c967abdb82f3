//! The program's first instruction and what the compiler expects to find:
//! built by the engine's build script, not by cargo.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

// The kernel starts us with argc at the stack pointer and argv behind it.
core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {entry}",
    "ud2",
    entry = sym entry,
);

/// `argv[1]` is the number of the socket to the engine.
unsafe extern "C" fn entry(stack: *const usize) -> ! {
    // SAFETY: the kernel put argc here, and argv[1] is a string because the engine passes two.
    let text = unsafe {
        if *stack < 2 {
            boathook_init::sys::exit(125);
        }
        core::ffi::CStr::from_ptr(*stack.add(2) as *const core::ffi::c_char)
    };
    let mut socket = 0_i32;
    for digit in text.to_bytes() {
        socket = socket.wrapping_mul(10).wrapping_add(i32::from(digit.wrapping_sub(b'0')));
    }
    boathook_init::run::main(socket)
}

/// No code of ours panics; if the compiler's checks ever prove that wrong, the
/// engine sees the process end without a report.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    boathook_init::sys::exit(126)
}

/// memcpy(3), which the compiler calls for larger copies.
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller vouches for both ranges.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// memmove(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: the ranges do not overlap in a way that a forward copy would break.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: the caller vouches for both ranges; copied from the end because they overlap.
    unsafe {
        core::arch::asm!("std", "rep movsb", "cld", inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _, options(nostack));
    }
    to
}

/// memset(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller vouches for the range.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    to
}

/// memcmp(3).
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    let mut at = 0;
    while at < count {
        // SAFETY: the caller vouches for both ranges, and `at` is inside them.
        let (x, y) = unsafe { (core::ptr::read_volatile(a.add(at)), core::ptr::read_volatile(b.add(at))) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        at += 1;
    }
    0
}

/// bcmp(3): memcmp(3) that only tells equal from different.
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: passed on to the caller.
    unsafe { memcmp(a, b, count) }
}

/// strlen(3), used by `CStr`.
///
/// # Safety
/// As for the C function.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const core::ffi::c_char) -> usize {
    let mut len = 0;
    // SAFETY: the caller vouches for a NUL at the end.
    while unsafe { core::ptr::read_volatile(text.add(len)) } != 0 {
        len += 1;
    }
    len
}
