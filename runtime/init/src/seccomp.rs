//! The filter of system calls, the last thing before the exec.

use crate::consts::{
    ENOSYS, PR_SET_SECCOMP, SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_MODE_FILTER,
    SECCOMP_SET_MODE_FILTER,
};
use crate::report::detail;
use crate::sys::{Fault, Outcome, nr, syscall};

/// The kernel's `struct sock_fprog`.
#[repr(C)]
struct Program {
    /// Instructions of eight bytes.
    count: u16,
    first: usize,
}

/// seccomp(2), or prctl(2) where an outer filter hides the former.
pub(crate) fn load(flags: u32, program: &[u8]) -> Outcome {
    let count = u16::try_from(program.len() / 8).map_err(|_| Fault::detail(detail::MALFORMED))?;
    let program = Program { count, first: program.as_ptr() as usize };
    let loaded = syscall!(nr::SECCOMP, SECCOMP_SET_MODE_FILTER, flags, &program);
    match loaded {
        // Not to slow the process down is all that this flag is about.
        Err(fault) if fault.errno == ENOSYS && flags & !SECCOMP_FILTER_FLAG_SPEC_ALLOW == 0 => {
            syscall!(nr::PRCTL, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0_u32, 0_u32)
        }
        other => other,
    }
    .map(drop)
}
