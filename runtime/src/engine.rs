//! The engine: creates containers and finds them again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;

use crate::cgroup::{Cgroup, Driver, Hierarchies};
use crate::container::{self, Container};
use crate::exec::{Launch, Launched, Stdio, launch};
use crate::hooks::Later;
use crate::plan::{Context, Plan, SecurityModules, mount_label, wants_label};
use crate::process::Process;
use crate::resctrl::{self, Groups, GroupsUndo};
use crate::seccomp::agent;
use crate::state::{self, Private, State, StateDir, start_time};
use crate::{Result, image};

/// How long the undo of a failed create may take.
const UNDO_LIMIT: Duration = Duration::from_secs(10);

/// Makes containers and keeps what they share: the host's cgroup layout and
/// the sealed init program, both made when first needed.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    root: PathBuf,
    image: OnceLock<OwnedFd>,
    hierarchies: OnceLock<Hierarchies>,
}

/// What a container is made from.
#[derive(Debug)]
pub struct Create<'a> {
    /// Its id, unique below the state root.
    pub id: &'a str,
    /// The bundle directory, absolute.
    pub bundle: &'a Path,
    /// The parsed config.json.
    pub spec: &'a Spec,
    /// The first process's standard streams.
    pub stdio: Stdio,
    /// Choices that are not in the config.
    pub options: CreateOptions,
    /// How long it may take until init is ready.
    pub deadline: Duration,
}

/// Choices that are not in the config.
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateOptions {
    /// `linux.cgroupsPath` is `slice:prefix:name`, and systemd makes the cgroup.
    pub systemd_cgroup: bool,
    /// chroot instead of pivot_root.
    pub no_pivot_root: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
}

/// A new container, its first process (waiting for its start) and the master
/// of its terminal.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// Its first process.
    pub process: Process,
    /// The terminal's master.
    pub console: Option<OwnedFd>,
}

impl Engine {
    /// An engine whose records are below `root`.
    pub fn new(root: &Path) -> Self {
        let shared =
            Shared { root: root.to_owned(), image: OnceLock::new(), hierarchies: OnceLock::new() };
        Self { shared: Arc::new(shared) }
    }

    /// The host's cgroup hierarchies.
    ///
    /// # Errors
    /// When there are none.
    pub fn hierarchies(&self) -> Result<&Hierarchies> {
        self.shared.hierarchies()
    }

    /// The plan for a container, without carrying it out.
    ///
    /// # Errors
    /// As [`Plan::create`].
    pub fn plan(
        &self,
        id: &str,
        bundle: &Path,
        spec: &Spec,
        options: CreateOptions,
    ) -> Result<Plan> {
        let driver = if options.systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs };
        let context = Context {
            id,
            bundle,
            cgroups: self.hierarchies()?.layout(),
            driver,
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            modules: match mount_label(spec) {
                Some(_) => SecurityModules::of_this_host(),
                None => modules_for(spec.process().as_ref()),
            },
        };
        Plan::create(spec, &context)
    }

    /// Makes a container up to the point where its first process waits to be
    /// started. Blocks, at most for the request's deadline and the undo.
    ///
    /// # Errors
    /// What is wrong with the config, or what the kernel refused; nothing of
    /// the container is left then.
    pub fn create(&self, request: Create<'_>) -> Result<Created> {
        let until = Instant::now() + request.deadline;
        let plan = self.plan(request.id, request.bundle, request.spec, request.options)?;
        let listener = plan.seccomp.as_ref().and_then(|filter| filter.listener.as_ref());
        listener.map(agent::check).transpose()?;
        let dir = StateDir::claim(&self.shared.root, request.id)?;
        let seccomp = plan.seccomp.as_ref().map(|f| dir.save_filter(f)).transpose()?;
        let hierarchies = self.hierarchies()?;
        let cgroup = match &plan.cgroup {
            Some(plan) => CgroupUndo(Some(Cgroup::create(hierarchies, plan)?)),
            None => CgroupUndo(None),
        };
        let groups = plan.resctrl.as_ref().map(|p| Groups::make(p, &resctrl::mount_point()?));
        let groups = GroupsUndo::new(groups.transpose()?);
        let record = |process: &Process| -> Result<State> {
            Ok(State {
                oci_version: request.spec.version().clone(),
                id: request.id.to_owned(),
                pid: process.pid(),
                bundle: request.bundle.to_owned(),
                annotations: request.spec.annotations().clone().unwrap_or_default(),
                boathook: Private {
                    start_time: start_time(process.pid())?,
                    namespaces: plan.namespaces,
                    private_pid: plan.private_pid,
                    keyring: !request.options.no_new_keyring,
                    cgroup: cgroup.get()?.record(),
                    resctrl: groups.get().cloned(),
                    seccomp: seccomp.clone(),
                    hooks: Later::of(request.spec),
                },
            })
        };
        let run_hooks = |process: &Process| {
            let state = record(process)?;
            container::run_creating(&self.shared, &state, cgroup.get()?, process, &plan, until)
        };
        let launched = launch(&Launch {
            plan: &plan,
            cgroup: cgroup.get()?,
            stdio: request.stdio,
            container: None,
            image: self.shared.image()?.as_fd(),
            until,
            hold: Some(&run_hooks),
        });
        let Launched { devices, mut process, console } = match launched {
            Ok(launched) => launched,
            Err(error) => {
                drop(cgroup);
                container::run_poststop(request.spec, request.id, request.bundle);
                return Err(error);
            }
        };
        if let Some(groups) = groups.get() {
            groups.join(process.pid())?;
        }
        let state = record(&process)?;
        dir.save(&state)?;
        let pidfd = process
            .pidfd()
            .try_clone_to_owned()
            .map_err(|e| crate::Error::sys("duplicate a pidfd", e))?;
        let container = Container::new(self.shared.clone(), &state, cgroup.keep()?, Some(pidfd));
        if let Some(listener) = listener {
            process.set_agent(container.agent(listener, process.pid(), "created")?);
        }
        dir.keep();
        groups.keep();
        if let Some(devices) = devices {
            devices.keep();
        }
        Ok(Created { container, process, console })
    }

    /// Finds a container by its record, whoever made it.
    ///
    /// # Errors
    /// `NotFound` when there is no record of it.
    pub fn open(&self, id: &str) -> Result<Container> {
        let state = state::load(&self.shared.root, id)?;
        let cgroup = Cgroup::from_record(self.hierarchies()?, &state.boathook.cgroup)?;
        let pidfd = container::pidfd_of(state.pid, state.boathook.start_time)?;
        Ok(Container::new(self.shared.clone(), &state, cgroup, pidfd))
    }
}

impl Shared {
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn image(&self) -> Result<&OwnedFd> {
        if let Some(image) = self.image.get() {
            return Ok(image);
        }
        let made = image::sealed_program()?;
        Ok(self.image.get_or_init(|| made))
    }

    pub(crate) fn hierarchies(&self) -> Result<&Hierarchies> {
        if let Some(found) = self.hierarchies.get() {
            return Ok(found);
        }
        let found = Hierarchies::probe()?;
        Ok(self.hierarchies.get_or_init(|| found))
    }
}

/// A cgroup that is killed and removed unless it is kept.
struct CgroupUndo(Option<Cgroup>);

impl CgroupUndo {
    fn get(&self) -> Result<&Cgroup> {
        self.0.as_ref().ok_or_else(no_cgroup)
    }

    fn keep(mut self) -> Result<Cgroup> {
        self.0.take().ok_or_else(no_cgroup)
    }
}

/// The kernel's security modules, asked for only when a label is wanted.
pub(crate) fn modules_for(process: Option<&oci_spec::runtime::Process>) -> SecurityModules {
    match process {
        Some(process) if wants_label(process) => SecurityModules::of_this_host(),
        _ => SecurityModules::default(),
    }
}

fn no_cgroup() -> crate::Error {
    crate::Error::new(crate::ErrorKind::Internal, "the plan has no cgroup")
}

impl Drop for CgroupUndo {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.0 {
            let until = Instant::now() + UNDO_LIMIT;
            let _ = cgroup.kill_all(until);
            let _ = cgroup.delete(until);
        }
    }
}
