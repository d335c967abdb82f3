//! `process`: everything between the finished root file system and execve.

use std::ffi::{CStr, CString};

use boathook_init::{List, Step};
use oci_spec::runtime::{Hook, PosixRlimitType, Process};

use super::program::{Builder, HostFd};
use super::{caps, sched, text};
use crate::seccomp::Filter;
use crate::{Error, Result};

/// What runc leaves a process with when the config says nothing.
const DEFAULT_UMASK: u32 = 0o022;

/// Which process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// The container's first.
    Container,
    /// A later one.
    Exec,
}

/// `argv[0]`.
pub(super) fn name(process: &Process) -> Result<String> {
    match process.args().as_ref().and_then(|args| args.first()) {
        Some(name) => Ok(name.clone()),
        None => Err(Error::field("process.args", "must not be empty")),
    }
}

/// The terminal or the standard streams: before the pivot for a container,
/// because /dev/console is a mount.
///
/// A process that is born `late` takes its terminal then: who leads the session
/// until then is another one.
pub(super) fn stdio(build: &mut Builder, process: &Process, of: For, late: bool) -> Result<()> {
    if process.terminal().unwrap_or(false) {
        let size = process.console_size();
        let (width, height) = match size {
            Some(size) => (dimension("width", size.width())?, dimension("height", size.height())?),
            None => (0, 0),
        };
        let console = u32::from(of == For::Container);
        build.push(&Step::Terminal { width, height, console });
        if !late {
            build.push(&Step::TakeTerminal {});
        }
        return Ok(());
    }
    let [stdin, stdout, stderr] = [0, 1, 2].map(|n| build.fd(HostFd::Stdio(n)));
    build.push(&Step::Stdio { stdin, stdout, stderr });
    Ok(())
}

fn dimension(name: &str, value: u64) -> Result<u32> {
    u16::try_from(value).map(u32::from).map_err(|_| {
        Error::field(format!("process.consoleSize.{name}"), format!("{value} is more than 65535"))
    })
}

/// Adds the late birth now if the config's way of scheduling does not outlive
/// it; returns whether it is still to come.
pub(super) fn before_scheduler(build: &mut Builder, process: &Process, late: bool) -> bool {
    if late && sched::lost_at_birth(process) {
        born(build, process);
        return false;
    }
    late
}

/// The birth of a process that comes late, and what it has to do again.
fn born(build: &mut Builder, process: &Process) {
    build.push(&Step::Birth { last: 1 });
    build.push(&Step::Session {});
    if process.terminal().unwrap_or(false) {
        build.push(&Step::TakeTerminal {});
    }
}

/// The last steps of a process: from its mask to its exec, with its birth if
/// that is to be `late`.
///
/// A filter is loaded after everything else, so that a profile need not allow
/// what init does. That takes no_new_privs or CAP_SYS_ADMIN, which is why init
/// keeps the latter where the former is not wanted (docs/decisions/0007).
pub(super) fn steps(
    build: &mut Builder,
    process: &Process,
    filter: Option<&Filter>,
    late: bool,
) -> Result<()> {
    let mask = process.user().umask().unwrap_or(DEFAULT_UMASK);
    if mask > 0o7777 {
        return Err(Error::field("process.user.umask", format!("{mask:o} has unknown bits")));
    }
    build.push(&Step::Umask { mask });
    let restricted = process.no_new_privileges().unwrap_or(false);
    if restricted {
        build.push(&Step::NoNewPrivs {});
    }
    text::absolute("process.cwd", process.cwd())?;
    build.push(&Step::Cwd { path: &raw_path("process.cwd", process)? });
    build.push(&Step::StdioOwner { uid: process.user().uid() });
    // Late, because what init opens counts against them; but the right to raise them must be there.
    let number = rlimits(build, process, late)?;
    let until_exec = if filter.is_some() && !restricted { caps::SYS_ADMIN } else { 0 };
    caps::identity(build, process, until_exec)?;
    program(build, process)?;
    if late {
        born(build, process);
    }
    if let Some((soft, hard)) = number {
        build.push(&Step::Rlimit { resource: libc::RLIMIT_NPROC, soft, hard });
    }
    build.push(&Step::Ready {});
    if let Some(filter) = filter {
        build.push(&Step::Seccomp { flags: filter.flags, program: &filter.bytes() });
    }
    build.push(&Step::Exec {});
    Ok(())
}

/// Makes a container's working directory where it is missing: while the root
/// can still be written to, and before masks and read-only paths cover it.
pub(super) fn make_cwd(build: &mut Builder, process: &Process) -> Result<()> {
    let path = text::absolute("process.cwd", process.cwd())?;
    build.push(&Step::MakeDir { path: &path, mode: 0o755 });
    Ok(())
}

/// The working directory as it is written: the kernel resolves it inside the
/// container, and init checks where it led.
fn raw_path(field: &str, process: &Process) -> Result<CString> {
    text::c_string(field, process.cwd().as_os_str().as_encoded_bytes())
}

fn program(build: &mut Builder, process: &Process) -> Result<()> {
    name(process)?;
    let args = text::c_strings("process.args", process.args().as_deref().unwrap_or_default())?;
    let env = text::c_strings("process.env", process.env().as_deref().unwrap_or_default())?;
    for (index, entry) in env.iter().enumerate() {
        let bytes = entry.to_bytes();
        if !bytes.contains(&b'=') || bytes.first() == Some(&b'=') {
            let problem = format!("{entry:?} is not NAME=value");
            return Err(Error::field(format!("process.env[{index}]"), problem));
        }
    }
    let mut env = last_of_each(&env);
    // As good as missing, and a second entry would hide behind it.
    env.retain(|entry| entry.to_bytes() != b"HOME=");
    let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
    build.push(&Step::Program {
        file: c"",
        args: List::Strings(&args),
        env: List::Strings(&env),
        uid: process.user().uid(),
    });
    Ok(())
}

/// A hook: its streams, its environment and nothing else.
pub(super) fn hook(build: &mut Builder, hook: &Hook, late: bool) -> Result<()> {
    let [stdin, stdout, stderr] = [0, 1, 2].map(|n| build.fd(HostFd::Stdio(n)));
    build.push(&Step::Stdio { stdin, stdout, stderr });
    let file = text::c_string("hooks.path", hook.path().as_os_str().as_encoded_bytes())?;
    let mut args = text::c_strings("hooks.args", hook.args().as_deref().unwrap_or_default())?;
    if args.is_empty() {
        args.push(file.clone());
    }
    let env = text::c_strings("hooks.env", hook.env().as_deref().unwrap_or_default())?;
    let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
    let env: Vec<&CStr> = env.iter().map(CString::as_c_str).collect();
    let (args, env) = (List::Strings(&args), List::Strings(&env));
    build.push(&Step::Program { file: &file, args, env, uid: u32::MAX });
    if late {
        build.push(&Step::Session {});
        build.push(&Step::Birth { last: 1 });
    }
    build.push(&Step::Ready {});
    build.push(&Step::Exec {});
    Ok(())
}

/// Of several settings of one variable the last counts, at its place: what a
/// program finds must not depend on whether it looks from the front.
fn last_of_each(env: &[CString]) -> Vec<&CStr> {
    let name = |entry: &CString| {
        let bytes = entry.to_bytes();
        let end = bytes.iter().position(|b| *b == b'=').unwrap_or(bytes.len());
        bytes[..end].to_vec()
    };
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<&CStr> =
        env.iter().rev().filter(|e| seen.insert(name(e))).map(CString::as_c_str).collect();
    kept.reverse();
    kept
}

/// Limits of resources, while the process may still change them. The number of
/// processes comes back if the birth is to be `late`: for a moment there are two.
fn rlimits(build: &mut Builder, process: &Process, late: bool) -> Result<Option<(u64, u64)>> {
    let mut seen = Vec::new();
    let mut number = None;
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let field = format!("process.rlimits[{index}]");
        let resource = resource(limit.typ());
        if seen.contains(&resource) {
            return Err(Error::field(field, format!("{} is listed twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            let problem =
                format!("soft limit {} is above hard limit {}", limit.soft(), limit.hard());
            return Err(Error::field(field, problem));
        }
        seen.push(resource);
        if late && resource == libc::RLIMIT_NPROC {
            build.push(&Step::RaiseLimit { resource, hard: limit.hard() });
            number = Some((limit.soft(), limit.hard()));
        } else {
            build.push(&Step::Rlimit { resource, soft: limit.soft(), hard: limit.hard() });
        }
    }
    Ok(number)
}

fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}
