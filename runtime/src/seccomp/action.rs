//! Actions of a profile as the kernel's return values (linux/seccomp.h).

use oci_spec::runtime::LinuxSeccompAction as Action;

use crate::{Error, Result};

const KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
pub(super) const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

/// "No such system call".
pub(super) const ENOSYS: u32 = ERRNO | libc::ENOSYS as u32;

/// The kernel takes larger ones for this one (kernel/seccomp.c, `MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;
/// A tracer gets 16 bits.
const MAX_TRACE: u32 = 0xffff;

/// The return value of `action`; `errno` is what stands in `field`.
pub(super) fn value(action: Action, errno: Option<u32>, field: impl Fn() -> String) -> Result<u32> {
    let (base, most) = match action {
        Action::ScmpActErrno => (ERRNO, MAX_ERRNO),
        Action::ScmpActTrace => (TRACE, MAX_TRACE),
        other => {
            return match errno {
                None => Ok(plain(other)),
                Some(errno) => Err(Error::field(
                    field(),
                    format!("{errno} is given, but {other} returns none"),
                )),
            };
        }
    };
    match errno {
        None => Ok(base | libc::EPERM as u32),
        Some(errno) if errno <= most => Ok(base | errno),
        Some(errno) => Err(Error::field(field(), format!("{errno} is more than {most}"))),
    }
}

fn plain(action: Action) -> u32 {
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => KILL_THREAD,
        Action::ScmpActKillProcess => KILL_PROCESS,
        Action::ScmpActTrap => TRAP,
        Action::ScmpActErrno => ERRNO,
        Action::ScmpActNotify => NOTIFY,
        Action::ScmpActTrace => TRACE,
        Action::ScmpActLog => LOG,
        Action::ScmpActAllow => ALLOW,
    }
}

/// Whether calls that nobody listed go on to the kernel, or to a tracer that
/// can tell new ones from old ones.
pub(super) fn lets_pass(value: u32) -> bool {
    matches!(value & 0xffff_0000, ALLOW | LOG | TRACE)
}

/// Whether `value` is looser than `other`, in the order by which the kernel
/// picks among several filters: as signed numbers, the smallest wins.
pub(super) fn looser(value: u32, other: u32) -> bool {
    let rank = |value: u32| (value & 0xffff_0000).cast_signed();
    rank(value) > rank(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_belongs_to_the_actions_that_return_one() {
        let of = |action, errno| value(action, errno, || "there".to_owned());
        assert_eq!(of(Action::ScmpActErrno, None).unwrap(), 0x0005_0001);
        assert_eq!(of(Action::ScmpActErrno, Some(0)).unwrap(), 0x0005_0000);
        assert_eq!(of(Action::ScmpActErrno, Some(4095)).unwrap(), 0x0005_0fff);
        assert_eq!(of(Action::ScmpActTrace, Some(0xffff)).unwrap(), 0x7ff0_ffff);
        assert_eq!(of(Action::ScmpActKill, None).unwrap(), 0);
        for (action, errno) in [
            (Action::ScmpActErrno, 4096),
            (Action::ScmpActTrace, 0x1_0000),
            (Action::ScmpActAllow, 1),
            (Action::ScmpActNotify, 0),
        ] {
            let error = of(action, Some(errno)).unwrap_err().to_string();
            assert!(error.starts_with("there: ") && error.contains(&errno.to_string()), "{error}");
        }
    }

    #[test]
    fn killing_the_process_is_the_strictest_of_all() {
        let order = [KILL_PROCESS, KILL_THREAD, TRAP, ERRNO, NOTIFY, TRACE, LOG, ALLOW];
        for pair in order.windows(2) {
            assert!(looser(pair[1], pair[0]) && !looser(pair[0], pair[1]), "{pair:x?}");
        }
        assert!(!looser(ERRNO | 5, ERRNO));
    }
}
