//! The program: found with the user's rights, then executed.

use core::ffi::CStr;

use crate::consts::{
    AT_EACCESS, AT_FDCWD, DEFAULT_PATH, EACCES, EISDIR, ENOENT, ENOTDIR, EPERM, O_PATH, S_IFDIR,
    S_IFMT, SA_RESTORER, SIG_FIRST, SIG_LAST, SIG_SETMASK, SIGALRM, SIGHUP, SIGINT, SIGQUIT,
    SIGTERM, SIGUSR1, SIGUSR2,
};
use crate::passwd;
use crate::report::detail;
use crate::sys::{self, Fault, Outcome, PathBuf, fstat, nr, openat2, syscall};
use crate::wire::List;

/// A user id that no user has: the environment stays as it is.
const NO_HOME: u32 = u32::MAX;

/// What is executed, found and laid out before init reports that it is ready.
pub(crate) struct Program {
    path: PathBuf,
    /// argv, NULL, envp, NULL: pointers into the mapped plan and into `home`.
    pointers: &'static mut [usize],
    env_at: usize,
    home: &'static mut [usize],
}

impl Program {
    /// Finds `argv[0]` and lays out argument and environment pointers.
    pub(crate) fn prepare(
        root: i32,
        file: &CStr,
        args: List<'static>,
        env: List<'static>,
        uid: u32,
    ) -> Outcome<Self> {
        let first = args.iter().next().unwrap_or_default();
        let name = if file.is_empty() { first } else { file };
        let mut path = PathBuf::new();
        find(name, env, &mut path)?;
        let env_at = args.len() + 1;
        let pointers = sys::map_anonymous((env_at + env.len() + 2) * size_of::<usize>())?;
        let home = home_entry(root, env, uid)?;
        fill(pointers, args, 0);
        fill(pointers, env, env_at);
        if let (Some(first), Some(place)) = (home.first(), pointers.get_mut(env_at + env.len())) {
            *place = core::ptr::from_ref(first) as usize;
        }
        Ok(Self { path, pointers, env_at, home })
    }

    /// execve(2); returns only to say why it failed.
    pub(crate) fn execute(&self) -> Fault {
        let (Some(argv), Some(envp)) = (self.pointers.first(), self.pointers.get(self.env_at))
        else {
            return Fault::detail(detail::MALFORMED);
        };
        let _ = &self.home;
        match syscall!(nr::EXECVE, self.path.as_c_str(), argv, envp) {
            Err(fault) => fault,
            Ok(_) => Fault::detail(detail::MALFORMED),
        }
    }
}

fn fill(pointers: &mut [usize], strings: List<'static>, from: usize) {
    for (place, string) in pointers.iter_mut().skip(from).zip(strings.iter()) {
        *place = string.as_ptr() as usize;
    }
}

/// `HOME=…` in memory of its own, or nothing when the environment has it.
fn home_entry(root: i32, env: List<'_>, uid: u32) -> Outcome<&'static mut [usize]> {
    let set = env
        .iter()
        .any(|entry| entry.to_bytes().strip_prefix(b"HOME=").is_some_and(|v| !v.is_empty()));
    if set || uid == NO_HOME {
        return Ok(&mut []);
    }
    let mut text = PathBuf::new();
    text.push(b"HOME=")?;
    passwd::home_of(root, uid, &mut text);
    let bytes = text.as_c_str().to_bytes();
    // A zeroed mapping that is longer than the string ends it.
    let memory = sys::map_anonymous(bytes.len() + 1)?;
    for (index, byte) in bytes.iter().enumerate() {
        if let Some(word) = memory.get_mut(index / size_of::<usize>()) {
            *word |= usize::from(*byte) << (8 * (index % size_of::<usize>()));
        }
    }
    Ok(memory)
}

/// Looks for `name` as execvp(3) does, with the effective ids of now.
fn find(name: &CStr, env: List<'_>, out: &mut PathBuf) -> Outcome {
    let bytes = name.to_bytes();
    if bytes.is_empty() {
        return Err(Fault::detail(detail::NOT_IN_PATH));
    }
    if bytes.contains(&b'/') {
        out.push(bytes)?;
        return executable(out.as_c_str());
    }
    let mut answer = Fault::detail(detail::NOT_IN_PATH);
    for dir in search_path(env).split(|b| *b == b':') {
        out.clear();
        out.push(if dir.is_empty() { b"." } else { dir })?;
        out.push(b"/")?;
        out.push(bytes)?;
        match executable(out.as_c_str()) {
            Ok(()) => return Ok(()),
            Err(fault) if fault.detail == detail::NOT_EXECUTABLE => answer = fault,
            Err(_) => {}
        }
    }
    Err(answer)
}

fn search_path<'a>(env: List<'a>) -> &'a [u8] {
    let last = env.iter().filter_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).last();
    last.unwrap_or(DEFAULT_PATH)
}

fn executable(path: &CStr) -> Outcome {
    let fd = match openat2(AT_FDCWD, path, O_PATH, 0, 0) {
        Ok(fd) => fd,
        Err(fault) if matches!(fault.errno, ENOENT | ENOTDIR) => {
            return Err(Fault { errno: fault.errno, detail: detail::NO_SUCH_PROGRAM });
        }
        Err(fault) if matches!(fault.errno, EACCES | EPERM) => {
            return Err(Fault { errno: fault.errno, detail: detail::NOT_EXECUTABLE });
        }
        Err(fault) => return Err(fault),
    };
    if fstat(fd.number())?.mode & S_IFMT == S_IFDIR {
        return Err(Fault { errno: EISDIR, detail: detail::IS_DIRECTORY });
    }
    const X_OK: u32 = 1;
    match syscall!(nr::FACCESSAT2, AT_FDCWD, path, X_OK, AT_EACCESS) {
        Err(fault) if fault.errno == EACCES => {
            Err(Fault { errno: EACCES, detail: detail::NOT_EXECUTABLE })
        }
        other => other.map(drop),
    }
}

/// The kernel's `struct sigaction` on x86-64.
#[repr(C)]
struct SigAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Every signal to its default and none blocked: the engine's own settings
/// (an ignored SIGPIPE, say) are not the container's.
pub(crate) fn reset_signals() -> Outcome {
    let default = SigAction { handler: 0, flags: 0, restorer: 0, mask: 0 };
    for signal in SIG_FIRST..=SIG_LAST {
        // SIGKILL and SIGSTOP refuse, which is as good as done.
        let _ = syscall!(nr::RT_SIGACTION, signal, &default, 0_usize, 8_u32);
    }
    let none = 0_u64;
    syscall!(nr::RT_SIGPROCMASK, SIG_SETMASK, &none, 0_usize, 8_u32)?;
    Ok(())
}

/// While init waits for the start byte, the usual signals end it, although it
/// may be pid 1 of its namespace and would ignore them by default; execve
/// takes the handlers away again.
pub(crate) fn die_by_signals() -> Outcome {
    let handler = die as *const () as usize;
    let action = SigAction { handler, flags: SA_RESTORER, restorer: handler, mask: 0 };
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM] {
        syscall!(nr::RT_SIGACTION, signal, &action, 0_usize, 8_u32)?;
    }
    Ok(())
}

/// Ends with the exit code that a shell would show for the signal.
extern "C" fn die(signal: i32) -> ! {
    sys::exit(128 + signal)
}
