//! System calls that neither nix nor rustix offers.

use std::ffi::{CStr, c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;

/// The kernel's `struct clone_args` (Linux 5.3; `cgroup` since 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CHILD_STACK: usize = 64 << 10;

/// What the child does between clone and exec. It shares the parent's memory
/// and borrows this for exactly that time.
struct Child {
    program: c_int,
    socket: c_int,
    argv: [*const libc::c_char; 3],
    envp: [*const libc::c_char; 1],
    errno: c_int,
}

/// The child's only function: the parent's thread is stopped until it ends.
extern "C" fn child_main(child: *mut Child) -> ! {
    // SAFETY: `spawn` passes its own `Child` and waits (CLONE_VFORK) until this process has
    // executed the program or ended; only system calls are made, nothing allocates or locks.
    unsafe {
        let child = &mut *child;
        if libc::syscall(libc::SYS_fcntl, child.socket, libc::F_SETFD, 0) == 0 {
            let empty = c"".as_ptr();
            let (argv, envp) = (child.argv.as_ptr(), child.envp.as_ptr());
            libc::syscall(
                libc::SYS_execveat,
                child.program,
                empty,
                argv,
                envp,
                libc::AT_EMPTY_PATH,
            );
        }
        child.errno = *libc::__errno_location();
        libc::syscall(libc::SYS_exit_group, 127 as c_long);
        std::hint::unreachable_unchecked()
    }
}

/// Executes the program `program` as a new process in new namespaces (`flags`,
/// `CLONE_NEW*`) and, on cgroup v2, inside `cgroup` from birth.
///
/// `socket` is the one descriptor that the process keeps; `arguments` are its
/// argv. Vfork style: no memory is copied, so the cost does not grow with the
/// caller, and the calling thread stops for some 0.1 ms.
///
/// # Errors
/// errno of clone3(2) or of the exec.
pub(crate) fn spawn(
    program: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    arguments: [&CStr; 2],
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(i32, OwnedFd), Errno> {
    let mut stack = vec![0_u128; CHILD_STACK / 16];
    let mut child = Child {
        program: program.as_raw_fd(),
        socket: socket.as_raw_fd(),
        argv: [arguments[0].as_ptr(), arguments[1].as_ptr(), std::ptr::null()],
        envp: [std::ptr::null()],
        errno: 0,
    };
    let mut pidfd: c_int = -1;
    let vfork = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64;
    let mut args = CloneArgs {
        flags: flags | vfork | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: CHILD_STACK as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args`, the stack, `child` and `pidfd` live until `clone3` returns, which is
    // after the child has left this memory (CLONE_VFORK).
    let pid = unsafe { clone3(&args, &mut child) };
    drop(stack);
    if pid < 0 {
        return Err(Errno::from_raw(-pid as i32));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    if child.errno != 0 {
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
            rustix::process::WaitIdOptions::EXITED,
        );
        return Err(Errno::from_raw(child.errno));
    }
    Ok((pid as i32, pidfd))
}

/// The instruction and what the child does with it: it never returns into the
/// parent's frames, because it runs on a stack of its own.
///
/// # Safety
/// `args` must describe a vfork-like clone with its own stack, and `child`
/// must outlive the child's time in this address space.
unsafe fn clone3(args: &CloneArgs, child: &mut Child) -> isize {
    let result: isize;
    // SAFETY: only the named registers change in the parent; the child calls `child_main`,
    // which never returns.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call {main}",
            "ud2",
            "2:",
            main = sym child_main,
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") args, in("rsi") size_of::<CloneArgs>(),
            in("r12") child,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// Has the command's process killed when the thread that starts it ends, which
/// must therefore wait for it. Its own children are not affected.
pub(crate) fn die_with_this_thread(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The thread may have ended before that; then nobody sends the signal.
        let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        match u32::try_from(now) == Ok(parent) {
            true => Ok(()),
            false => Err(std::io::Error::from(Errno::ESRCH)),
        }
    };
    // SAFETY: after the fork `prepare` makes two system calls and an error from a number; it
    // neither allocates nor takes a lock.
    unsafe { command.pre_exec(prepare) };
}

/// Whose end is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose<'fd> {
    /// Any child.
    Any,
    /// The child with this pid.
    Pid(i32),
    /// The child behind this pidfd (Linux 5.4).
    PidFd(BorrowedFd<'fd>),
}

/// A child's end as waitid(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The child.
    pub(crate) pid: i32,
    /// Exit code, or 128 + number of the signal; real-time signals included,
    /// which nix's `Signal` cannot hold.
    pub(crate) code: u32,
}

/// Waits for the end of a child in a process group and reaps it.
///
/// # Errors
/// `ECHILD` when there is no such child.
pub(crate) fn wait_group(group: i32) -> Result<Option<Ended>, Errno> {
    wait_with(libc::P_PGID, group as libc::id_t, 0)
}

/// Waits for the end of the child behind a pidfd and leaves it to be reaped.
///
/// # Errors
/// `ECHILD` when there is no such child.
pub(crate) fn wait_until_ended(pidfd: BorrowedFd<'_>) -> Result<Option<Ended>, Errno> {
    wait_with(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, libc::WNOWAIT)
}

/// waitid(2) without blocking; `peek` leaves the child to be reaped later.
///
/// # Errors
/// `ECHILD` when there is no such child.
pub(crate) fn wait(whose: Whose<'_>, peek: bool) -> Result<Option<Ended>, Errno> {
    let (kind, id) = match whose {
        Whose::Any => (libc::P_ALL, 0),
        Whose::Pid(pid) => (libc::P_PID, pid as libc::id_t),
        Whose::PidFd(fd) => (libc::P_PIDFD, fd.as_raw_fd() as libc::id_t),
    };
    let keep = if peek { libc::WNOWAIT } else { 0 };
    wait_with(kind, id, libc::WNOHANG | keep)
}

fn wait_with(kind: libc::idtype_t, id: libc::id_t, flags: c_int) -> Result<Option<Ended>, Errno> {
    // SAFETY: a `siginfo_t` of zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a `siginfo_t` that lives across the call.
    let result = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | flags) };
    Errno::result(result)?;
    // SAFETY: after a successful waitid(2) the SIGCHLD members are set; they are zero when
    // no child has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = u32::try_from(status).unwrap_or(255);
    let code = if info.si_code == libc::CLD_EXITED { status } else { 128 + status };
    Ok(Some(Ended { pid, code }))
}

/// pidfd_send_signal(2), Linux 5.1.
///
/// # Errors
/// `ESRCH` when the process has ended, `EINVAL` for what is no signal.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: numbers and a null pointer, which asks the kernel to fill the information itself.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    Errno::result(result).map(drop)
}

/// Waits for a lock of flock(2) until somebody lets go of it; false at `until`.
///
/// # Errors
/// The kernel's refusal of the lock or of a timer.
pub(crate) fn flock_until(fd: BorrowedFd<'_>, until: Instant) -> Result<bool, Errno> {
    let left = || until.saturating_duration_since(Instant::now());
    if left().is_zero() {
        return Ok(false);
    }
    let _end = Interruptions::of_this_thread(left())?;
    loop {
        // SAFETY: a descriptor that is open for the time of the borrow, and numbers.
        match Errno::result(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX) }) {
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) if left().is_zero() => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A timer of timer_create(2) whose signal makes the blocking system calls of this thread end with
/// `EINTR`. Gone when it is dropped.
struct Interruptions {
    timer: c_int,
}

impl Interruptions {
    /// How often, once the time has come: the first signal may arrive before the call begins.
    const AGAIN: Duration = Duration::from_millis(10);

    /// The first one comes after `first`, which is more than nothing.
    fn of_this_thread(first: Duration) -> Result<Self, Errno> {
        // Real-time signals have no other user in this process; the last is the least likely.
        let signal = libc::SIGRTMAX();
        // SAFETY: zeroes are valid values of these structures of numbers, which live across the
        // calls; the handler does nothing, and without SA_RESTART that is the purpose.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = ignore as *const () as usize;
            Errno::result(libc::sigaction(signal, &raw const action, std::ptr::null_mut()))?;
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        }
        let mut timer: c_int = 0;
        // SAFETY: as above; the thread id is this thread's own.
        let made = unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal;
            event.sigev_notify_thread_id = libc::gettid();
            libc::syscall(
                libc::SYS_timer_create,
                libc::CLOCK_MONOTONIC,
                &raw const event,
                &raw mut timer,
            )
        };
        Errno::result(made)?;
        let this = Self { timer };
        let spec = libc::itimerspec { it_interval: time(Self::AGAIN), it_value: time(first) };
        let none: *mut libc::itimerspec = std::ptr::null_mut();
        // SAFETY: the timer has just been made, and `spec` lives across the call.
        let set =
            unsafe { libc::syscall(libc::SYS_timer_settime, timer, 0, &raw const spec, none) };
        Errno::result(set).map(|_| this)
    }
}

impl Drop for Interruptions {
    fn drop(&mut self) {
        // SAFETY: a number; the timer is this value's own.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.timer) };
    }
}

/// What the signal of [`Interruptions`] does.
extern "C" fn ignore(_: c_int) {}

fn time(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Takes ownership of a descriptor that has just arrived by SCM_RIGHTS.
pub(crate) fn adopt(fd: c_int) -> OwnedFd {
    // SAFETY: the only caller has it from the kernel in this very message, so nobody else
    // owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The `CLONE_NEW*` bit of a namespace file (`NS_GET_NSTYPE`, Linux 4.11).
///
/// # Errors
/// `ENOTTY` for a file that is no namespace.
pub(crate) fn namespace_kind(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument and touches no memory of ours.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    Errno::result(result).map(|kind| kind as u32)
}

/// Enters the UTS namespace of the calling process, which it is in: an answer to whether
/// setns(2) takes pidfds (Linux 5.8) that changes nothing.
///
/// # Errors
/// `EINVAL` where it takes none, `EPERM` without privilege.
pub(crate) fn setns_own(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: numbers only; the namespace is the one that the thread is in.
    let result = unsafe { libc::setns(pidfd.as_raw_fd(), libc::CLONE_NEWUTS) };
    Errno::result(result).map(drop)
}

/// Whether the kernel knows all of these flags of seccomp(2). Asked with a filter at no address,
/// which it does not get to see when it knows a flag not.
pub(crate) fn knows_seccomp_flags(flags: libc::c_ulong) -> bool {
    let none: *const libc::sock_fprog = std::ptr::null();
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: numbers and a null pointer, which the kernel finds out about before it does anything.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, none) };
    Errno::result(result) == Err(Errno::EFAULT)
}
