//! The `start` command: find or make the server of the pod, say where it is.
//!
//! It is on the way of every container start and must take no longer than it
//! has to: no runtime, no thread, one read of config.json for two annotations,
//! and a fork in place of an execution.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use boathook_runtime::cgroup::{Cgroup, Hierarchies};
use boathook_runtime::daemon::{Fork, fork};
use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};
use serde::Deserialize;

use crate::args::Flags;
use crate::bundle;
use crate::dialect::Request;
use crate::failure::{Failure, Result};
use crate::log::Log;
use crate::server::Setup;
use crate::socket::{self, Claim, DEFAULT_DIR};

/// More than any options message; a stream without end is not one.
const MAX_STDIN: u64 = 4 << 20;

/// What the process is after [`start`].
#[derive(Debug)]
pub enum Role {
    /// The command; the reply has been written.
    Command,
    /// The server that was left behind.
    Server(Box<Setup>),
}

/// Answers the daemon and, where there is none yet, forks the server.
///
/// # Errors
/// Flags, stdin or config.json that cannot be used; the kernel's refusals.
/// Nothing is left behind then.
pub fn start(flags: &Flags) -> Result<Role> {
    segment("-namespace", &flags.namespace)?;
    segment("-id", &flags.id)?;
    let request = Request::parse(&read_stdin()?, flags)?;
    let bundle = Path::new(".");
    let group = group(bundle)?.unwrap_or_else(|| flags.id.clone());
    let dir = request.socket_dir.as_deref().unwrap_or(Path::new(DEFAULT_DIR));
    let path = socket::path(dir, &flags.address, &flags.namespace, &group)?;
    let address = socket::address(&path);
    bundle::write_address(bundle, &address)?;
    let mut undo = Undo { armed: true, socket: None };
    match socket::claim(&path)? {
        Claim::Served => {
            reply(&request, &address)?;
            undo.disarm();
            Ok(Role::Command)
        }
        Claim::Bound(listener, file) => {
            undo.socket = Some(file.clone());
            adjust_oom_score();
            schedule_apart()?;
            enter_cgroup(request.options.shim_cgroup.as_deref())?;
            let setup = Setup {
                listener,
                socket: file,
                namespace: flags.namespace.clone(),
                address: flags.address.clone(),
                ttrpc_address: request
                    .ttrpc_address
                    .clone()
                    .or_else(|| std::env::var("TTRPC_ADDRESS").ok())
                    .unwrap_or_else(|| format!("{}.ttrpc", flags.address)),
                options: request.options.clone(),
                log: Log::open(bundle, flags.debug || request.debug),
            };
            match fork()? {
                Fork::Child => {
                    undo.disarm();
                    Ok(Role::Server(Box::new(setup)))
                }
                Fork::Parent(_) => {
                    // From here on the server looks after itself: one that
                    // nobody calls ends by itself.
                    undo.disarm();
                    reply(&request, &address)?;
                    Ok(Role::Command)
                }
            }
        }
    }
}

/// Takes back what a failed start has put into the file system.
struct Undo {
    armed: bool,
    socket: Option<socket::SocketFile>,
}

impl Undo {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if self.armed {
            bundle::remove_address(Path::new("."));
            if let Some(socket) = &self.socket {
                socket.remove();
            }
        }
    }
}

fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_STDIN + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::sys("read stdin", e))?;
    if bytes.len() as u64 > MAX_STDIN {
        return Err(Failure::invalid(format!("stdin: more than {MAX_STDIN} bytes")));
    }
    Ok(bytes)
}

fn reply(request: &Request, address: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&request.reply(address)?)
        .and_then(|()| stdout.flush())
        .map_err(|e| Failure::sys("write the reply", e))
}

/// Both become parts of paths.
fn segment(flag: &str, value: &str) -> Result<()> {
    if value.is_empty() || value == "." || value == ".." || value.contains(['/', '\0']) {
        return Err(Failure::invalid(format!("{flag}: {value:?} cannot be part of a path")));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "io.containerd.runc.v2.group")]
    group: Option<String>,
    #[serde(rename = "io.kubernetes.cri.sandbox-id")]
    sandbox: Option<String>,
}

/// The name under which containers share a server.
fn group(bundle: &Path) -> Result<Option<String>> {
    let config = fs::read(bundle.join("config.json"))
        .map_err(|e| Failure::invalid(format!("config.json: {e}")))?;
    // serde would take a list for the fields of a struct in their order.
    if config.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Failure::invalid("config.json: not an object"));
    }
    let Config { annotations } = serde_json::from_slice(&config)
        .map_err(|e| Failure::invalid(format!("config.json: {e}")))?;
    let given = |name: Option<String>| name.filter(|n| !n.is_empty());
    Ok(given(annotations.group).or(given(annotations.sandbox)))
}

/// A server is a little more willing to go than the daemon that started it.
/// Best effort: without CAP_SYS_RESOURCE the kernel refuses to lower it.
fn adjust_oom_score() {
    const FILE: &str = "oom_score_adj";
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let score = fs::read_to_string(format!("/proc/{parent}/{FILE}"));
    if let Some(score) = score.ok().and_then(|s| s.trim().parse::<i32>().ok()) {
        let _ = fs::write(format!("/proc/self/{FILE}"), (score + 1).min(1000).to_string());
    }
}

/// Gives the pod a core scheduling cookie of its own, where the daemon is
/// configured to ask for it. The server and its containers inherit it.
fn schedule_apart() -> Result<()> {
    if std::env::var_os("SCHED_CORE").is_none_or(|v| v.is_empty()) {
        return Ok(());
    }
    let own = rustix::process::getpid();
    create_core_scheduling_cookie(own, CoreSchedulingScope::ProcessGroup)
        .map_err(|e| Failure::sys("SCHED_CORE: create a core scheduling cookie", e))
}

/// Moves this process, and with it the server that it leaves behind, into the
/// cgroup that the options name. It has to exist, on cgroup v1 in one
/// hierarchy at least, as under containerd's own shim.
fn enter_cgroup(path: Option<&str>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    Hierarchies::probe()
        .and_then(|hierarchies| Cgroup::open(&hierarchies, path)?.enter())
        .map_err(|e| Failure::from(e).context(format!("options: shim_cgroup: {path:?}")))
}
