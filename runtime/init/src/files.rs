//! Small files: kernel settings through a private proc file system, and the
//! container's own text files read with a bound.

use core::ffi::CStr;

use crate::consts::{
    EINTR, ENOENT, O_NOCTTY, O_NONBLOCK, O_RDONLY, O_WRONLY, PROC_SUPER_MAGIC, RESOLVE_BENEATH,
    RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, S_IFMT, S_IFREG,
};
use crate::report::detail;
use crate::sys::{Fault, Outcome, PathBuf, fs_magic, fstat, nr, openat2, syscall};

/// Writes `value` to a file below the proc tree `proc`. The path may cross
/// neither links nor mounts, and the file must be procfs: a container cannot
/// redirect the write (CVE-2025-52881).
pub(crate) fn write_proc(proc: i32, path: &CStr, value: &CStr) -> Outcome {
    let rules = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    let file = openat2(proc, path, O_WRONLY, 0, rules)?;
    if fs_magic(file.number())? != PROC_SUPER_MAGIC {
        return Err(Fault::detail(detail::WRONG_FS));
    }
    write(file.number(), value.to_bytes())
}

/// Writes the label of the next exec to `file` of this process's directory
/// below the proc tree `proc`, or to `older` where the kernel lacks it. The
/// directory is named by number, because `self` is a link.
pub(crate) fn label(proc: i32, file: &CStr, older: &CStr, value: &CStr) -> Outcome {
    let pid = syscall!(nr::GETPID)?;
    match write_proc(proc, own(pid, file)?.as_c_str(), value) {
        Err(fault) if fault.errno == ENOENT => write_proc(proc, own(pid, older)?.as_c_str(), value),
        other => other,
    }
}

/// `<pid>/<file>`.
fn own(pid: usize, file: &CStr) -> Outcome<PathBuf> {
    let mut path = PathBuf::new();
    path.push_number(pid)?;
    path.push(b"/")?;
    path.push(file.to_bytes())?;
    Ok(path)
}

/// write(2) of all bytes in one call, as kernel files demand.
pub(crate) fn write(fd: i32, bytes: &[u8]) -> Outcome {
    let first = bytes.first().unwrap_or(&0);
    loop {
        match syscall!(nr::WRITE, fd, first, bytes.len()) {
            Err(fault) if fault.errno == EINTR => {}
            Err(fault) => return Err(fault),
            Ok(_) => return Ok(()),
        }
    }
}

/// Reads a regular file of the container piece by piece and gives each piece
/// to `each`, up to `limit` bytes in all. Opening must not block: the
/// container may have a fifo there.
pub(crate) fn read_limited(
    root: i32,
    path: &CStr,
    limit: usize,
    each: &mut dyn FnMut(&[u8]),
) -> Outcome {
    let file = openat2(
        root,
        path,
        O_RDONLY | O_NONBLOCK | O_NOCTTY,
        0,
        RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    )?;
    if fstat(file.number())?.mode & S_IFMT != S_IFREG {
        return Ok(());
    }
    let mut buffer = [0_u8; 4096];
    let mut total = 0_usize;
    while total < limit {
        let got = match syscall!(nr::READ, file.number(), &mut buffer, buffer.len()) {
            Err(fault) if fault.errno == EINTR => continue,
            other => other?,
        };
        if got == 0 {
            break;
        }
        total += got;
        each(buffer.get(..got).unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_directory_is_named_by_number() {
        for (pid, wanted) in
            [(1, c"1/attr/exec"), (40_960, c"40960/attr/exec"), (0, c"0/attr/exec")]
        {
            assert_eq!(own(pid, c"attr/exec").unwrap().as_c_str(), wanted);
        }
    }
}
