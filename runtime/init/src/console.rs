//! The container's terminal and the standard streams.

use core::ffi::CStr;

use crate::consts::{
    DEVPTS_SUPER_MAGIC, F_DUPFD_CLOEXEC, F_GETFD, O_CLOEXEC, O_NOCTTY, O_RDWR, RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, S_IFCHR, S_IFIFO, S_IFMT, TIOCGPTPEER, TIOCSCTTY,
    TIOCSPTLCK, TIOCSWINSZ,
};
use crate::paths::{self, Leaf};
use crate::report::detail;
use crate::sys::{Fault, Fd, Outcome, fs_magic, fstat, nr, openat2, syscall};
use crate::{mounts, report};

/// The device number of every ptmx.
const PTMX: (u32, u32) = (5, 2);
const PTMX_PATH: &CStr = c"dev/pts/ptmx";

/// Opens a terminal in the container's devpts and returns (master, slave).
///
/// The slave comes from the master by `TIOCGPTPEER`, never by the name
/// /dev/pts/N, which the container can replace (CVE-2025-52565).
pub(crate) fn open(root: i32, width: u32, height: u32) -> Outcome<(Fd, Fd)> {
    let rules = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
    let master = openat2(root, PTMX_PATH, O_RDWR | O_NOCTTY, 0, rules)?;
    if fs_magic(master.number())? != DEVPTS_SUPER_MAGIC || fstat(master.number())?.device() != PTMX
    {
        return Err(Fault::detail(detail::WRONG_FS));
    }
    let unlock = 0_i32;
    syscall!(nr::IOCTL, master.number(), TIOCSPTLCK, &unlock)?;
    let flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
    let slave = Fd::new(syscall!(nr::IOCTL, master.number(), TIOCGPTPEER, flags)?);
    if width != 0 || height != 0 {
        let size: [u16; 4] = [height as u16, width as u16, 0, 0];
        syscall!(nr::IOCTL, master.number(), TIOCSWINSZ, &size)?;
    }
    Ok((master, slave))
}

/// Mounts the terminal on /dev/console.
pub(crate) fn on_dev_console(root: i32, slave: i32) -> Outcome {
    let target = paths::resolve_or_make(root, c"dev/console", Leaf::File, 0o620, true)?;
    let tree = mounts::clone_tree(slave, false)?;
    mounts::attach(tree.number(), target.number())
}

/// Makes the terminal on standard input the controlling one of this session.
pub(crate) fn take() -> Outcome {
    syscall!(nr::IOCTL, 0_i32, TIOCSCTTY, 0_u32)?;
    Ok(())
}

/// Makes sure that no descriptor of the plan lands on 0, 1 or 2, where the
/// streams are put: the engine may run with some of them closed. Returns the
/// socket's number.
pub(crate) fn keep_standard_numbers(socket: i32) -> i32 {
    let moved = match socket {
        0..3 => syscall!(nr::FCNTL, socket, F_DUPFD_CLOEXEC, 3_u32).map_or(socket, |n| n as i32),
        _ => socket,
    };
    for number in 0..3_i32 {
        if syscall!(nr::FCNTL, number, F_GETFD).is_err() {
            let _ = syscall!(nr::DUP3, moved, number, O_CLOEXEC);
        }
    }
    moved
}

/// Puts three descriptors on 0, 1 and 2.
pub(crate) fn stdio(stdin: i32, stdout: i32, stderr: i32) -> Outcome {
    for (from, to) in [(stdin, 0_i32), (stdout, 1), (stderr, 2)] {
        syscall!(nr::DUP3, from, to, 0_u32)?;
    }
    Ok(())
}

/// Gives the pipes and terminals on 0, 1 and 2 to `uid`. Other kinds of file
/// may belong to the host and are left alone (CVE-2026-88265).
pub(crate) fn give_stdio(uid: u32) -> Outcome {
    for fd in 0..3_i32 {
        let stat = fstat(fd)?;
        let kind = stat.mode & S_IFMT;
        let terminal = kind == S_IFCHR && fs_magic(fd)? == DEVPTS_SUPER_MAGIC;
        if stat.uid != uid && (kind == S_IFIFO || terminal) {
            // Best effort, as for every runtime: a pipe of another user namespace stays as it is.
            let _ = syscall!(nr::FCHOWN, fd, uid, u32::MAX);
        }
    }
    Ok(())
}

/// The message that carries the master.
pub(crate) fn console_report(step: u32) -> report::Report {
    report::Report { kind: report::kind::CONSOLE, step, errno: 0, detail: 0 }
}
