//! OCI hooks (config.md, "POSIX-platform Hooks"): programs of the host or of
//! the container that run at fixed points of its life.
//!
//! | list | when | where the program is looked for and runs |
//! |---|---|---|
//! | prestart, createRuntime | mounts are there, before the root is entered | host |
//! | createContainer | the same moment, after those | host's file, container's namespaces |
//! | startContainer | before the program is executed | container, as the container's user |
//! | poststart | after it was executed | host |
//! | poststop | after everything was removed | host |
//!
//! Each gets the state document on standard input, and exactly the
//! environment that the config lists (CVE-2025-23266: a hook that took the
//! container's environment).

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio as Stream};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Hooks, Process as ProcessSpec, Spec};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::process::{children, wait_first};
use crate::{Error, ErrorKind, Result, image, sys};

/// Version of the specification that the state document follows.
const OCI_VERSION: &str = "1.3.0";
/// How much of a failed hook's output goes into the error.
const OUTPUT_MAX: u64 = 2048;

/// Hooks that run after the create, kept in the container's record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Later {
    /// Before the program is executed, inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// The container's own process, whose user and rights those get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Box<ProcessSpec>>,
    /// After the program was executed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// After everything was removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

impl Later {
    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.start_container.is_empty() && self.poststart.is_empty() && self.poststop.is_empty()
    }

    /// Takes them from a config.
    pub(crate) fn of(spec: &Spec) -> Self {
        let Some(hooks) = spec.hooks() else { return Self::default() };
        let list = |get: fn(&Hooks) -> &Option<Vec<Hook>>| get(hooks).clone().unwrap_or_default();
        let start_container = list(|h| h.start_container());
        let process = if start_container.is_empty() { None } else { spec.process().clone() };
        Self {
            start_container,
            process: process.map(Box::new),
            poststart: list(|h| h.poststart()),
            poststop: list(|h| h.poststop()),
        }
    }
}

/// Hooks that run while the container is created.
#[derive(Debug, Clone, Default)]
pub struct Creating {
    /// On the host: prestart, then createRuntime.
    pub runtime: Vec<Hook>,
    /// In the container's namespaces.
    pub container: Vec<Hook>,
}

impl Creating {
    #[allow(deprecated, reason = "containerd clients still send prestart hooks")]
    pub(crate) fn of(spec: &Spec) -> Self {
        let Some(hooks) = spec.hooks() else { return Self::default() };
        let mut runtime = hooks.prestart().clone().unwrap_or_default();
        runtime.extend(hooks.create_runtime().iter().flatten().cloned());
        Self { runtime, container: hooks.create_container().clone().unwrap_or_default() }
    }

    /// Whether the create has to stop for them.
    pub fn any(&self) -> bool {
        !self.runtime.is_empty() || !self.container.is_empty()
    }
}

/// Checks every hook of a config.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated, reason = "containerd clients still send prestart hooks")]
    let lists = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (name, list) in lists {
        for (index, hook) in list.iter().flatten().enumerate() {
            let field = format!("hooks.{name}[{index}]");
            if !hook.path().is_absolute() {
                let problem = format!("{} is not an absolute path", hook.path().display());
                return Err(Error::field(format!("{field}.path"), problem));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(Error::field(format!("{field}.timeout"), "must be greater than zero"));
            }
        }
    }
    Ok(())
}

/// The state document of runtime.md, as hooks get it.
pub(crate) fn document(
    id: &str,
    pid: i32,
    bundle: &Path,
    annotations: &HashMap<String, String>,
    status: &str,
) -> Vec<u8> {
    let json = json!({
        "ociVersion": OCI_VERSION,
        "id": id,
        "status": status,
        "pid": pid,
        "bundle": bundle,
        "annotations": annotations,
    });
    json.to_string().into_bytes()
}

/// When a hook has to be done: its own timeout, or the caller's limit.
pub(crate) fn limit_of(hook: &Hook, until: Instant) -> Instant {
    match hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()) {
        Some(seconds) => until.min(Instant::now() + Duration::from_secs(seconds)),
        None => until,
    }
}

/// Runs hooks on the host, one after the other; the first failure ends it, and
/// so does the end of `init` where there is one to wait with.
pub(crate) fn run_on_host(
    stage: &str,
    hooks: &[Hook],
    document: &[u8],
    bundle: &Path,
    until: Instant,
    init: Option<BorrowedFd<'_>>,
) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, document, bundle, limit_of(hook, until), init)
            .map_err(|e| e.context(format!("{stage} hook #{index}: {}", hook.path().display())))?;
    }
    Ok(())
}

fn run_one(
    hook: &Hook,
    document: &[u8],
    bundle: &Path,
    until: Instant,
    init: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let (input, output) = streams(document)?;
    let mut command = Command::new(hook.path());
    let args = hook.args().as_deref().unwrap_or_default();
    if let Some(name) = args.first() {
        command.arg0(name);
    }
    command.args(args.iter().skip(1)).env_clear().current_dir(bundle);
    for entry in hook.env().iter().flatten() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        command.env(name, value);
    }
    let copy = |file: &File| file.try_clone().map_err(|e| Error::sys("duplicate a descriptor", e));
    command.stdin(Stream::from(input)).stdout(copy(&output)?).stderr(copy(&output)?);
    // Whoever cleans up after a runtime that was killed must not meet its hooks.
    sys::die_with_this_thread(&mut command);
    // Listed before it can end, so that the reaper of orphans leaves it to us.
    let mut listed = children();
    let mut child = command.spawn().map_err(|e| Error::sys("start", e))?;
    let pid = i32::try_from(child.id()).unwrap_or(0);
    listed.add(pid);
    drop(listed);
    let end = first_end(pid, init, until);
    if !matches!(end, Ok(End::Hook)) {
        let _ = child.kill();
    }
    let status = child.wait();
    children().remove(pid);
    let status = status.map_err(|e| Error::sys("wait", e))?;
    match end? {
        End::Hook if status.success() => Ok(()),
        End::Hook => Err(failed(&status.to_string(), output)),
        End::Init => Err(init_ended()),
        End::Limit => Err(too_slow()),
    }
}

/// What came first.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Hook,
    Init,
    Limit,
}

fn first_end(pid: i32, init: Option<BorrowedFd<'_>>, until: Instant) -> Result<End> {
    let Some(id) = Pid::from_raw(pid) else { return Ok(End::Hook) };
    let pidfd = pidfd_open(id, PidfdFlags::empty())
        .map_err(|e| Error::sys(format!("pidfd_open({pid})"), e))?;
    let watched: Vec<_> = std::iter::once(pidfd.as_fd()).chain(init).collect();
    Ok(match wait_first(&watched, until.saturating_duration_since(Instant::now()))? {
        Some(0) => End::Hook,
        Some(_) => End::Init,
        None => End::Limit,
    })
}

/// The container's end while a hook ran.
pub(crate) fn init_ended() -> Error {
    let text = "the container's first process ended meanwhile, and it was killed";
    Error::new(ErrorKind::WrongState, text)
}

/// The end of a hook's time.
pub(crate) fn too_slow() -> Error {
    Error::new(ErrorKind::Timeout, "it did not end in time and was killed")
}

/// The document to read, and a place for what is written.
pub(crate) fn streams(document: &[u8]) -> Result<(OwnedFd, File)> {
    let input = File::from(image::sealed("hook-state", document, MemfdFlags::NOEXEC_SEAL)?);
    (&input).seek(SeekFrom::Start(0)).map_err(|e| Error::sys("rewind a memfd", e))?;
    let output = memfd_create("hook-output", MemfdFlags::CLOEXEC)
        .map_err(|e| Error::sys("memfd_create(hook-output)", e))?;
    Ok((input.into(), File::from(output)))
}

/// How a hook failed, with the beginning of what it wrote.
pub(crate) fn failed(status: &str, mut output: File) -> Error {
    let mut text = Vec::new();
    let _ = output.seek(SeekFrom::Start(0));
    let _ = output.take(OUTPUT_MAX).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    Error::new(ErrorKind::Internal, format!("{status}, output: {:?}", text.trim_end()))
}
