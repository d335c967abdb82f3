//! A container that exists: one more process in it, signals, freezing, limits,
//! figures, the end.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, LinuxResources, Process as ProcessSpec, Spec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::{Cgroup, FrozenState, OomWatch, Stats};
use crate::engine::{Shared, modules_for};
use crate::exec::{Launch, Launched, Stdio, launch};
use crate::hooks::{self, Later};
use crate::plan::Plan;
use crate::process::{Process, send_signal, wait_first};
use crate::resctrl::Groups;
use crate::seccomp::agent::Agent;
use crate::seccomp::{Filter, Listener};
use crate::state::{self, SeccompRecord, State, StateDir, start_time};
use crate::{Error, ErrorKind, Result};

/// How long poststop hooks without a timeout may take after a failed create.
const POSTSTOP_LIMIT: Duration = Duration::from_secs(10);

/// A container, made by this process or found by its record.
#[derive(Debug)]
pub struct Container {
    shared: Arc<Shared>,
    id: String,
    pid: i32,
    /// When its first process started, in clock ticks since boot.
    started: u64,
    bundle: PathBuf,
    namespaces: u32,
    private_pid: bool,
    keyring: bool,
    seccomp: Option<SeccompRecord>,
    resctrl: Option<Box<Groups>>,
    cgroup: Cgroup,
    pidfd: Option<OwnedFd>,
    /// Kept only where there are any.
    hooks: Option<Box<Later>>,
    /// Kept only for those who are told of them: hooks, agents of filters.
    annotations: HashMap<String, String>,
}

impl Container {
    pub(crate) fn new(
        shared: Arc<Shared>,
        state: &State,
        cgroup: Cgroup,
        pidfd: Option<OwnedFd>,
    ) -> Self {
        let later = state.boathook.hooks.clone();
        let later = if later.is_empty() { None } else { Some(later) };
        let seccomp = state.boathook.seccomp.clone();
        let told = later.is_some() || seccomp.as_ref().is_some_and(|s| s.listener.is_some());
        Self {
            shared,
            id: state.id.clone(),
            pid: state.pid,
            started: state.boathook.start_time,
            bundle: state.bundle.clone(),
            namespaces: state.boathook.namespaces,
            private_pid: state.boathook.private_pid,
            keyring: state.boathook.keyring,
            seccomp,
            resctrl: state.boathook.resctrl.clone().map(Box::new),
            cgroup,
            pidfd,
            annotations: match told {
                true => state.annotations.clone(),
                false => HashMap::new(),
            },
            hooks: later.map(Box::new),
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Pid of its first process, also after that ended.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its bundle.
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Whether the end of its first process is the end of all of them, because
    /// it is pid 1 of a namespace of their own.
    pub fn has_private_pidns(&self) -> bool {
        self.private_pid
    }

    /// Makes one more process in the container, which waits for
    /// [`Process::start`]. Returns the master of its terminal as well.
    ///
    /// # Errors
    /// `WrongState` when the container has ended or is paused; else as for a create.
    pub fn exec(
        &self,
        spec: &ProcessSpec,
        stdio: Stdio,
        deadline: Duration,
    ) -> Result<(Process, Option<OwnedFd>)> {
        let until = Instant::now() + deadline;
        let Some(pidfd) = &self.pidfd else { return Err(self.stopped()) };
        self.refuse_frozen()?;
        let layout = self.shared.hierarchies()?.layout();
        let keyring = self.keyring.then_some(self.id.as_str());
        let modules = modules_for(Some(spec));
        let plan = Plan::exec(spec, self.namespaces, layout, modules, keyring, self.filter()?)?;
        let launched = launch(&Launch {
            plan: &plan,
            cgroup: &self.cgroup,
            stdio,
            container: Some(pidfd.as_fd()),
            no_mounts: None,
            image: self.shared.image()?.as_fd(),
            until,
            hold: None,
            cancel: None,
        });
        match launched {
            Ok(Launched { mut process, console, .. }) => {
                if let Some(groups) = &self.resctrl {
                    groups.join(process.pid())?;
                }
                if let Some(listener) = plan.seccomp.as_ref().and_then(|f| f.listener.as_ref()) {
                    process.set_agent(self.agent(listener, process.pid(), "running")?);
                }
                Ok((process, console))
            }
            // A failure is explained best by the end of the container, if it ended meanwhile.
            // The kernel takes its namespaces away some time before its pidfd tells.
            Err(_) if self.ended() || state::is_exiting(self.pid) => Err(self.stopped()),
            Err(error) => Err(error),
        }
    }

    /// Who decides about the calls of a process of its.
    pub(crate) fn agent(&self, listener: &Listener, pid: i32, status: &str) -> Result<Agent> {
        Agent::new(listener, pid, &self.document(status))
    }

    /// What its first process runs under.
    fn filter(&self) -> Result<Option<Filter>> {
        let load = |record| state::load_filter(self.shared.root(), &self.id, record);
        self.seccomp.as_ref().map(load).transpose()
    }

    /// Starts the first process: startContainer hooks, the program, poststart
    /// hooks.
    ///
    /// # Errors
    /// Why the program could not be executed, or which hook failed; the
    /// container is ended then.
    pub fn start(&self, process: &Process, deadline: Duration) -> Result<()> {
        let Some(hooks) = &self.hooks else { return process.start(deadline) };
        let until = Instant::now() + deadline;
        let result = self.start_with(hooks, process, until);
        result.map_err(|error| {
            // A hook that found nobody to join is explained by why.
            let error = process.last_words().unwrap_or(error);
            let _ = process.signal(libc::SIGKILL);
            error
        })
    }

    fn start_with(&self, hooks: &Later, process: &Process, until: Instant) -> Result<()> {
        let left = || until.saturating_duration_since(Instant::now());
        if let Some(own) = &hooks.process {
            let document = self.document("created");
            for hook in &hooks.start_container {
                self.run_inside(own, hook, &document, until).map_err(|e| {
                    e.context(format!("startContainer hook {}", hook.path().display()))
                })?;
            }
        }
        process.start(left())?;
        let document = self.document("running");
        hooks::run_on_host("poststart", &hooks.poststart, &document, &self.bundle, until, None)
    }

    /// A hook that the container's own files provide runs as its user, never
    /// with more rights than its program.
    fn run_inside(
        &self,
        own: &ProcessSpec,
        hook: &Hook,
        document: &[u8],
        until: Instant,
    ) -> Result<()> {
        let mut spec = own.clone();
        let path = hook.path().display().to_string();
        let mut args = hook.args().clone().unwrap_or_default();
        args.splice(..1.min(args.len()), [path]);
        spec.set_args(Some(args));
        spec.set_env(hook.env().clone());
        spec.set_terminal(None);
        let (stdin, output) = hooks::streams(document)?;
        let copy = || output.try_clone().map(OwnedFd::from).ok();
        let stdio = Stdio::Fds { stdin: Some(stdin), stdout: copy(), stderr: copy() };
        let until = hooks::limit_of(hook, until);
        let left = || until.saturating_duration_since(Instant::now());
        let (process, _) = self.exec(&spec, stdio, left())?;
        process.start(left())?;
        finish(&process, output, until, None)
    }

    fn document(&self, status: &str) -> Vec<u8> {
        hooks::document(&self.id, self.pid, &self.bundle, &self.annotations, status)
    }

    /// A process that joins a frozen cgroup stops there, half made, and is
    /// beyond the reach of SIGKILL on v1.
    fn refuse_frozen(&self) -> Result<()> {
        match self.cgroup.frozen_state() {
            Ok(FrozenState::Frozen | FrozenState::Freezing) => {
                Err(Error::new(ErrorKind::WrongState, "cannot exec in a paused container"))
            }
            // Without a freezer nothing is frozen, and a cgroup that is gone fails with more to say.
            Ok(FrozenState::Thawed) | Err(_) => Ok(()),
        }
    }

    /// Whether its first process has ended.
    pub fn ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return true };
        crate::process::poll_readable(pidfd.as_fd(), Duration::ZERO)
    }

    fn stopped(&self) -> Error {
        let text = format!("container {:?} is not running", self.id);
        Error::new(ErrorKind::WrongState, text)
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        match &self.pidfd {
            Some(pidfd) => send_signal(pidfd.as_fd(), signal),
            None => Err(Error::new(ErrorKind::NotFound, "process already finished")),
        }
    }

    /// Sends a signal to every process of the container.
    ///
    /// # Errors
    /// `NotFound` when its cgroup is gone.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        self.cgroup.signal_all(signal)
    }

    /// Kills every process of the container and waits for their end.
    ///
    /// # Errors
    /// `Timeout` when some are left.
    pub fn kill_all(&self, limit: Duration) -> Result<()> {
        self.cgroup.kill_all(Instant::now() + limit)
    }

    /// The pids of its processes.
    ///
    /// # Errors
    /// `NotFound` when its cgroup is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.cgroup.pids(true)
    }

    /// Freezes it.
    ///
    /// # Errors
    /// `Timeout` when it could not be frozen; it runs then.
    pub fn pause(&self, limit: Duration) -> Result<()> {
        self.cgroup.freeze(Instant::now() + limit)
    }

    /// Thaws it.
    ///
    /// # Errors
    /// When its cgroup is gone.
    pub fn resume(&self) -> Result<()> {
        self.cgroup.thaw()
    }

    /// Changes its limits.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported` naming the field.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        self.cgroup.update(resources)
    }

    /// What it has used.
    ///
    /// # Errors
    /// `NotFound` when its cgroup is gone.
    pub fn stats(&self) -> Result<Stats> {
        self.cgroup.stats()
    }

    /// A watch on its running out of memory.
    ///
    /// # Errors
    /// `Unsupported` without a memory controller.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        self.cgroup.oom_watch()
    }

    /// Ends what is left of it and removes its cgroup and its record. May be
    /// repeated: what is gone is fine, and a container that was made under the
    /// same id since then is left alone.
    ///
    /// # Errors
    /// `Timeout` when a process did not go, or another delete of it does not
    /// end; the record stays then.
    pub fn delete(&self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        let Some(dir) = StateDir::lock_until(self.shared.root(), &self.id, until, None)? else {
            return self.end(until);
        };
        match dir.record()? {
            Some(state) if !self.is_of(&state) => Ok(()),
            _ => self.end(until).and_then(|()| dir.remove()),
        }
    }

    fn is_of(&self, state: &State) -> bool {
        (state.pid, state.boathook.start_time) == (self.pid, self.started)
    }

    /// Ends its processes, removes its cgroup, runs its poststop hooks.
    pub(crate) fn end(&self, until: Instant) -> Result<()> {
        // The usual case: everybody is gone, and an rmdir proves it.
        if self.cgroup.delete(Instant::now()).is_err() {
            self.cgroup.kill_all(until)?;
            self.cgroup.delete(until)?;
        }
        if let Some(groups) = &self.resctrl {
            groups.remove();
        }
        if let Some(hooks) = &self.hooks {
            let document = self.document("stopped");
            // The specification wants a warning at most; the container is gone in any case.
            let _ = hooks::run_on_host(
                "poststop",
                &hooks.poststop,
                &document,
                &self.bundle,
                until,
                None,
            );
        }
        Ok(())
    }
}

/// Waits for a hook inside and turns its end into a result. One that is still
/// there is killed by the drop of `process`.
fn finish(
    process: &Process,
    output: File,
    until: Instant,
    init: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let watched: Vec<_> = std::iter::once(process.pidfd()).chain(init).collect();
    let first = wait_first(&watched, until.saturating_duration_since(Instant::now()))?;
    match (process.reap()?, first) {
        (Some(status), _) if status.code == 0 => Ok(()),
        (Some(status), _) => Err(hooks::failed(&format!("exit status {}", status.code), output)),
        (None, Some(_)) => Err(hooks::init_ended()),
        (None, None) => Err(hooks::too_slow()),
    }
}

/// Runs the hooks of a create while init holds: those on the host, then those
/// in the container's namespaces.
pub(crate) fn run_creating(
    shared: &Shared,
    state: &State,
    cgroup: &Cgroup,
    init: &Process,
    plan: &Plan,
    until: Instant,
) -> Result<()> {
    let document =
        hooks::document(&state.id, state.pid, &state.bundle, &state.annotations, "creating");
    let alive = Some(init.pidfd());
    let bundle = &state.bundle;
    hooks::run_on_host("createRuntime", &plan.hooks.runtime, &document, bundle, until, alive)?;
    let pids = plan.joined_pid.as_deref();
    for hook in &plan.hooks.container {
        let (stdin, output) = hooks::streams(&document)?;
        let copy = || output.try_clone().map(OwnedFd::from).ok();
        let stdio = Stdio::Fds { stdin: Some(stdin), stdout: copy(), stderr: copy() };
        let until = hooks::limit_of(hook, until);
        let layout = shared.hierarchies()?.layout();
        let plan = Plan::hook(hook, state.boathook.namespaces, pids, layout)?;
        let launched = launch(&Launch {
            plan: &plan,
            cgroup,
            stdio,
            container: Some(init.pidfd()),
            no_mounts: None,
            image: shared.image()?.as_fd(),
            until,
            hold: None,
            cancel: None,
        });
        let named = |e: Error| e.context(format!("createContainer hook {}", hook.path().display()));
        let Launched { process, .. } = launched.map_err(named)?;
        process.start(until.saturating_duration_since(Instant::now())).map_err(named)?;
        finish(&process, output, until, alive).map_err(named)?;
    }
    Ok(())
}

/// The poststop hooks of a container whose create failed; their failure
/// changes nothing any more.
pub(crate) fn run_poststop(spec: &Spec, id: &str, bundle: &Path) {
    let later = Later::of(spec);
    if later.poststop.is_empty() {
        return;
    }
    let annotations = spec.annotations().clone().unwrap_or_default();
    let document = hooks::document(id, 0, bundle, &annotations, "stopped");
    let until = Instant::now() + POSTSTOP_LIMIT;
    let _ = hooks::run_on_host("poststop", &later.poststop, &document, bundle, until, None);
}

/// pidfd of a process, if it is the one that started at `started`: a reused
/// pid is somebody else. The check comes after the open, so that it is about
/// the process that the descriptor holds.
///
/// # Errors
/// When that cannot be found out: a container must not pass for ended because
/// there was no descriptor left to ask with.
pub(crate) fn pidfd_of(pid: i32, started: u64) -> Result<Option<OwnedFd>> {
    let Some(id) = Pid::from_raw(pid) else { return Ok(None) };
    let pidfd = match pidfd_open(id, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(Error::sys(format!("pidfd_open({pid})"), error)),
    };
    match start_time(pid) {
        Ok(found) => Ok((found == started).then_some(pidfd)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
