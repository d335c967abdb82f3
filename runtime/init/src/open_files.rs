//! Which descriptors are there when a path of the container is looked up, and
//! which are left to its program.
//!
//! One that leaks is a way out (CVE-2024-21626), so neither function trusts
//! that everything else is made close-on-exec, and neither gives up where an
//! outer container's filter hides close_range(2).

use core::ffi::CStr;

use crate::consts::{AT_FDCWD, CLOSE_RANGE_CLOEXEC, F_SETFD, FD_CLOEXEC, O_DIRECTORY, O_RDONLY};
use crate::sys::{Outcome, nr, openat2, syscall};

/// Closes whatever the engine's process had open without close-on-exec. Called
/// before anything of a container is entered.
pub(crate) fn close_all_but(socket: i32) -> Outcome {
    let below = match socket {
        0..=3 => Ok(0),
        _ => syscall!(nr::CLOSE_RANGE, 3_u32, socket - 1, 0_u32),
    };
    let above = syscall!(nr::CLOSE_RANGE, socket + 1, u32::MAX, 0_u32);
    match below.and(above) {
        Ok(_) => Ok(()),
        Err(_) => close_listed(socket),
    }
}

/// The same with the host's list of what is open.
fn close_listed(socket: i32) -> Outcome {
    let list = openat2(AT_FDCWD, c"/proc/self/fd", O_RDONLY | O_DIRECTORY, 0, 0)?;
    let mut buffer = [0_u8; 2048];
    loop {
        let length = syscall!(nr::GETDENTS64, list.number(), &mut buffer, buffer.len())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        // struct linux_dirent64: 16 bytes, the record's length, a type, the name.
        while let Some(&[low, high]) = rest.get(16..18) {
            let record = usize::from(u16::from_le_bytes([low, high]));
            let name = CStr::from_bytes_until_nul(rest.get(19..).unwrap_or_default());
            if let Some(number) = number_of(name.unwrap_or_default().to_bytes())
                && number > 2
                && number != socket
                && number != list.number()
            {
                let _ = syscall!(nr::CLOSE, number);
            }
            rest = rest.get(record.max(1)..).unwrap_or_default();
        }
    }
}

/// The number that a name of `/proc/self/fd` is; `.` and `..` are none.
fn number_of(name: &[u8]) -> Option<i32> {
    let mut number = (!name.is_empty()).then_some(0_i32);
    for byte in name {
        let digit = char::from(*byte).to_digit(10).and_then(|digit| i32::try_from(digit).ok());
        number = number?.checked_mul(10)?.checked_add(digit?);
    }
    number
}

/// Leaves the program 0, 1 and 2. Every descriptor of ours is close-on-exec
/// anyhow; this makes sure of it. `highest` is the highest number that can be
/// in use. The flag is known since Linux 5.11, and older kernels refuse it.
pub(crate) fn hide_all(highest: i32) {
    if syscall!(nr::CLOSE_RANGE, 3_u32, u32::MAX, CLOSE_RANGE_CLOEXEC).is_err() {
        for number in 3..=highest {
            let _ = syscall!(nr::FCNTL, number, F_SETFD, FD_CLOEXEC);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::number_of;

    #[test]
    fn only_numbers_are_numbers() {
        for (name, number) in [("0", Some(0)), ("17", Some(17)), ("2147483647", Some(i32::MAX))] {
            assert_eq!(number_of(name.as_bytes()), number);
        }
        for name in ["", ".", "..", "1x", "-1", "2147483648"] {
            assert_eq!(number_of(name.as_bytes()), None, "{name:?}");
        }
    }
}
