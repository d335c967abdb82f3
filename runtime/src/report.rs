//! Reports of init become errors for people, in the words that users of
//! containerd know.

use boathook_init::report::{Report, detail};
use boathook_init::{Slot, Step, sys};
use nix::errno::Errno;

use crate::plan::Program;
use crate::{Error, ErrorKind};

/// The error for a step that failed before the container was ready.
pub(crate) fn step_failure(program: &Program, report: &Report) -> Error {
    let step = program.steps().nth(report.step as usize);
    let kind = match step {
        Some(step) if asks_wrongly(&step, report) => ErrorKind::InvalidInput,
        Some(step) if lacks(&step, report) => ErrorKind::Unsupported,
        _ => kind_of(report),
    };
    let text = match step {
        Some(Step::Program { args, .. }) => {
            let name = args.iter().next().unwrap_or_default().to_string_lossy();
            program_text(&name, report)
        }
        Some(Step::Cwd { path }) => {
            let path = path.to_string_lossy();
            format!("chdir to cwd ({path:?}) set in config.json failed: {}", errno_text(report))
        }
        Some(step @ (Step::NewFs { slot: tree, .. } | Step::SetAttr { tree, .. })) => {
            format!("{}{}: {}", describe(&step), place_of(program, tree), cause_in(&step, report))
        }
        Some(step @ Step::IdMap { tree, .. }) => {
            let place = place_of(program, tree);
            format!("{}{place}: {}", describe(&step), id_map_cause(report))
        }
        Some(Step::Label { value, .. }) => label_text(&value.to_string_lossy(), report),
        Some(step @ Step::Birth { .. }) if errno_of(report) == Errno::EAGAIN => {
            let hint = "is linux.resources.pids.limit too low?";
            format!("{}: {} ({hint})", describe(&step), cause(report))
        }
        Some(step) => format!("{}: {}", describe(&step), cause_in(&step, report)),
        None => format!("step {}: {}", report.step, cause(report)),
    };
    Error::new(kind, format!("unable to start container process: {text}"))
}

/// The error for a program that could not be executed after the start.
pub(crate) fn exec_failure(program: &str, report: &Report) -> Error {
    use Errno::{EACCES, EISDIR, ELIBBAD, ELOOP, ENOENT, ENOEXEC, ENOTDIR};
    if matches!(report.detail, sys::nr::SECCOMP | sys::nr::CLONE) {
        let text = format!("linux.seccomp: load the filter: {}", cause(report));
        // What is wrong with the program is ours to avoid; a flag may be newer than the kernel.
        let newer = errno_of(report) == Errno::EINVAL;
        return Error::new(if newer { ErrorKind::Unsupported } else { kind_of(report) }, text);
    }
    let text = format!("unable to start container process: exec {program}: {}", cause(report));
    let broken = [EACCES, EISDIR, ELIBBAD, ELOOP, ENOENT, ENOEXEC, ENOTDIR];
    let broken = broken.contains(&errno_of(report));
    Error::new(if broken { ErrorKind::InvalidInput } else { kind_of(report) }, text)
}

fn program_text(name: &str, report: &Report) -> String {
    match report.detail {
        detail::NOT_IN_PATH => format!("exec: {name:?}: executable file not found in $PATH"),
        detail::NO_SUCH_PROGRAM => {
            format!("exec: {name:?}: stat {name}: no such file or directory")
        }
        detail::NOT_EXECUTABLE => format!("exec: {name:?}: permission denied"),
        detail::IS_DIRECTORY => format!("exec: {name:?}: is a directory"),
        detail::CWD_OUTSIDE => "current working directory is outside of container mount \
                                namespace root"
            .to_owned(),
        _ => format!("exec: {name:?}: {}", cause(report)),
    }
}

/// AppArmor wants a verb before the name of the profile, SELinux the context alone.
fn label_text(value: &str, report: &Report) -> String {
    match value.strip_prefix("exec ") {
        Some(profile) if errno_of(report) == Errno::ENOENT => {
            format!("process.apparmorProfile: {profile:?} is not loaded")
        }
        Some(profile) => format!("process.apparmorProfile: {profile:?}: {}", cause(report)),
        None => format!("process.selinuxLabel: {value:?}: {}", cause(report)),
    }
}

fn kind_of(report: &Report) -> ErrorKind {
    match report.detail {
        detail::NOT_IN_PATH
        | detail::NO_SUCH_PROGRAM
        | detail::NOT_EXECUTABLE
        | detail::IS_DIRECTORY
        | detail::CWD_OUTSIDE
        | detail::OTHER_NODE => ErrorKind::InvalidInput,
        // The classes of `Error::sys`.
        _ => Error::sys("", std::io::Error::from_raw_os_error(errno_of(report) as i32)).kind(),
    }
}

fn errno_of(report: &Report) -> Errno {
    Errno::from_raw(i32::try_from(report.errno).unwrap_or(0))
}

/// Whether a step failed for what the config asks for: an unknown file system
/// or option, a place that cannot be one, a directory that is not there.
fn asks_wrongly(step: &Step<'_>, report: &Report) -> bool {
    use Errno::{EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENODEV, ENOENT, ENOTDIR};
    use sys::nr::{SETGROUPS, SETRESGID, SETRESUID};
    let errno = errno_of(report);
    match step {
        Step::Attach { .. } | Step::NewFs { .. } | Step::Reconfigure { .. } => {
            matches!(errno, EINVAL | EISDIR | ELOOP | ENAMETOOLONG | ENODEV | ENOTDIR)
        }
        Step::MakeDir { .. } | Step::Cwd { .. } | Step::Terminal { .. } => {
            matches!(errno, EISDIR | ELOOP | ENAMETOOLONG | ENOENT | ENOTDIR)
        }
        // A profile that nobody has loaded; a context of no policy.
        Step::Label { .. } => matches!(errno, ENOENT | EINVAL),
        // An id that the user namespace does not have.
        Step::Identity { .. } => {
            errno == EINVAL && matches!(report.detail, SETRESUID | SETRESGID | SETGROUPS)
        }
        _ => false,
    }
}

/// Whether a step failed for what this kernel or a file system does not have.
fn lacks(step: &Step<'_>, report: &Report) -> bool {
    match step {
        Step::SetAttr { .. } => errno_of(report) == Errno::ENOSYS,
        Step::IdMap { .. } => matches!(errno_of(report), Errno::ENOSYS | Errno::EINVAL),
        _ => false,
    }
}

/// Where a tree is mounted in the container.
fn place_of(program: &Program, wanted: Slot) -> String {
    let place = program.steps().find_map(|step| match step {
        Step::Attach { tree, path, .. } if tree == wanted => Some(format!(" at {path:?}")),
        _ => None,
    });
    place.unwrap_or_default()
}

/// A file system that does not know id-mapped mounts says `EINVAL`.
fn id_map_cause(report: &Report) -> String {
    match errno_of(report) {
        Errno::EINVAL => "this file system cannot be id-mapped".to_owned(),
        Errno::ENOSYS => "this kernel has no id-mapped mounts (Linux 5.12)".to_owned(),
        _ => cause(report),
    }
}

/// Why, with the option of a file system that was refused.
fn cause_in(step: &Step<'_>, report: &Report) -> String {
    let mut options = match step {
        Step::NewFs { options, .. }
        | Step::NewProc { options, .. }
        | Step::NewSysfs { options, .. }
        | Step::Reconfigure { options, .. } => options.iter(),
        _ => return cause(report),
    };
    let index = report.detail.checked_sub(detail::OPTION);
    let option = index.and_then(|index| options.nth(index as usize));
    match option {
        Some(option) => format!("option {option:?}: {}", lower(errno_of(report).desc())),
        None => cause(report),
    }
}

/// Why, as far as init could tell: the system call and the errno.
fn cause(report: &Report) -> String {
    let reason = match report.detail {
        detail::MALFORMED => "malformed plan",
        detail::OTHER_NODE => "another file is there",
        detail::WRONG_FS => "not on the expected file system",
        detail::NO_SLOT => "a descriptor is missing",
        _ => "",
    };
    if !reason.is_empty() {
        return reason.to_owned();
    }
    let errno = errno_of(report);
    match sys::name_of(report.detail) {
        Some("execve" | "chdir") | None => lower(errno.desc()),
        Some(call) => format!("{call}: {}", lower(errno.desc())),
    }
}

/// The errno alone, where people know the message without a system call.
fn errno_text(report: &Report) -> String {
    if report.errno == 0 { cause(report) } else { lower(errno_of(report).desc()) }
}

/// libc's texts start with a capital, error chains do not.
fn lower(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// What a step was doing.
fn describe(step: &Step<'_>) -> String {
    match step {
        Step::Attach { path, .. } => format!("mount at {path:?}"),
        Step::NewFs { fstype, source, .. } => format!("mount {fstype:?} (source {source:?})"),
        Step::SetAttr { recursive: 1, set, clear, .. } if set | clear != 0 => {
            "recursive options of the mount".to_owned()
        }
        Step::SetAttr { propagation: 0, .. } => "options of the mount".to_owned(),
        Step::SetAttr { .. } => "propagation of the mount".to_owned(),
        Step::IdMap { .. } => "id-map the mount".to_owned(),
        Step::CopyUp { path, .. } => format!("tmpcopyup of {path:?}"),
        Step::Reconfigure { path, options, .. } => {
            format!("remount at {path:?} with {options:?}")
        }
        Step::MakeDir { path, .. } => format!("directory {path:?}"),
        Step::Terminal { .. } => "terminal from /dev/pts/ptmx".to_owned(),
        Step::Node { path, .. } => format!("device node {path:?}"),
        Step::Link { path, .. } => format!("symbolic link {path:?}"),
        Step::Mask { path, .. } => format!("mask {path:?}"),
        Step::Readonly { path } => format!("read-only path {path:?}"),
        Step::Sysctl { path, value, .. } => format!("write sysctl {path:?} = {value:?}"),
        Step::Hostname { name } => format!("hostname {name:?}"),
        Step::Rlimit { resource, soft, hard } => {
            format!("error setting rlimit type {resource} to {soft}:{hard}")
        }
        Step::Identity { uid, gid, .. } => format!("become user {uid}:{gid}"),
        Step::JoinCgroup { .. } => "join cgroup".to_owned(),
        Step::Birth { .. } => "be born in the pid namespace".to_owned(),
        Step::JoinAtBirth { .. } => "join cgroup".to_owned(),
        Step::NewProc { .. } => "mount \"proc\" of the pid namespace".to_owned(),
        Step::NewSysfs { .. } => "mount \"sysfs\"".to_owned(),
        Step::Unshare { flags } => format!("new namespaces {flags:#x}"),
        Step::SetNs { kinds, .. } => format!("join namespaces {kinds:#x}"),
        other => other.name().to_lowercase(),
    }
}
