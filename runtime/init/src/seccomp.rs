//! The filter of system calls, the last thing before the exec.
//!
//! A filter may want to have its process's calls decided by an agent outside.
//! The kernel then makes a descriptor to listen at, which has to get out by a
//! process that may be held at any system call it makes. So a second thread,
//! which the filter is not for, hands it over:
//!
//! ```text
//! first thread   seccomp(2) ── descriptor ──┐            ┌── execve(2)
//! second thread  ...........................└ to engine ─┘ (ends with the exec)
//! ```
//! The two tell each other by memory, because waking somebody is a system call.

use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::consts::{
    ENOSYS, PR_SET_SECCOMP, SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_MODE_FILTER, SECCOMP_SET_MODE_FILTER,
};
use crate::report::{Report, detail, kind};
use crate::run::wait_for_byte;
use crate::sys::{self, Fault, Outcome, nr, syscall};

/// The kernel's `struct sock_fprog`.
#[repr(C)]
struct Program {
    /// Instructions of eight bytes.
    count: u16,
    first: usize,
}

/// seccomp(2); with a listener it returns when the engine has taken it.
pub(crate) fn load(socket: i32, step: u32, flags: u32, program: &[u8]) -> Outcome {
    let count = u16::try_from(program.len() / 8).map_err(|_| Fault::detail(detail::MALFORMED))?;
    let program = Program { count, first: program.as_ptr() as usize };
    if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return load_only(flags, &program);
    }
    SOCKET.store(socket, Ordering::Relaxed);
    STEP.store(step, Ordering::Relaxed);
    sys::start_thread(hand_over)?;
    let listener = syscall!(nr::SECCOMP, SECCOMP_SET_MODE_FILTER, flags, &program)?;
    LISTENER.store(listener as i32, Ordering::Release);
    while !matches!(LISTENER.load(Ordering::Acquire), TAKEN) {
        core::hint::spin_loop();
    }
    Ok(())
}

/// seccomp(2), or prctl(2) where an outer filter hides the former.
fn load_only(flags: u32, program: &Program) -> Outcome {
    match syscall!(nr::SECCOMP, SECCOMP_SET_MODE_FILTER, flags, program) {
        // Not to slow the process down is all that this flag is about.
        Err(fault) if fault.errno == ENOSYS && flags & !SECCOMP_FILTER_FLAG_SPEC_ALLOW == 0 => {
            syscall!(nr::PRCTL, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0_u32, 0_u32)
        }
        other => other,
    }
    .map(drop)
}

static SOCKET: AtomicI32 = AtomicI32::new(-1);
static STEP: AtomicU32 = AtomicU32::new(0);
/// The listener, or one of the two values below.
static LISTENER: AtomicI32 = AtomicI32::new(PENDING);
const PENDING: i32 = -1;
const TAKEN: i32 = -2;

/// The second thread. It waits no longer than the first one's system call
/// takes; when that fails, the process ends and this thread with it.
extern "C" fn hand_over() -> ! {
    let listener = loop {
        match LISTENER.load(Ordering::Acquire) {
            PENDING => _ = syscall!(nr::SCHED_YIELD),
            listener => break listener,
        }
    };
    let step = STEP.load(Ordering::Relaxed);
    let report = Report { kind: kind::LISTENER, step, errno: 0, detail: 0 };
    if wait_for_byte(SOCKET.load(Ordering::Relaxed), report, Some(listener)).is_err() {
        sys::exit(1);
    }
    LISTENER.store(TAKEN, Ordering::Release);
    sys::exit_thread()
}
