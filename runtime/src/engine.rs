//! The engine: creates containers and finds them again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;

use crate::cancel::Cancel;
use crate::cgroup::{Cgroup, CgroupRecord, Driver, Hierarchies};
use crate::container::{self, Container};
use crate::exec::{Launch, Launched, Stdio, launch};
use crate::hooks::Later;
use crate::idmap::IdMappings;
use crate::plan::{Context, Plan, SecurityModules, mount_label, wants_label};
use crate::process::Process;
use crate::resctrl::{self, Groups, GroupsUndo};
use crate::seccomp::agent;
use crate::state::{self, Attempt, Making, Private, State, StateDir, start_time};
use crate::{Error, ErrorKind, Result, bare, image};

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
    /// What containers' mount namespaces begin with, once it is there.
    no_mounts: OnceLock<OwnedFd>,
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
        let shared = Shared {
            root: root.to_owned(),
            image: OnceLock::new(),
            no_mounts: OnceLock::new(),
            hierarchies: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The host's cgroup hierarchies.
    ///
    /// # Errors
    /// When there are none.
    pub fn hierarchies(&self) -> Result<&Hierarchies> {
        self.shared.hierarchies()
    }

    /// The program that processes begin with.
    pub(crate) fn image(&self) -> Result<BorrowedFd<'_>> {
        self.shared.image().map(AsFd::as_fd)
    }

    /// A user namespace that holds `mappings` and no process, as id-mapped mounts want it.
    ///
    /// # Errors
    /// `Unsupported` where the kernel has no user namespaces, `Exhausted` at the limit of
    /// `user.max_user_namespaces`.
    pub fn id_namespace(&self, mappings: &IdMappings) -> Result<OwnedFd> {
        mappings.namespace(self.shared.image()?.as_fd())
    }

    /// Has the creates from here on take the same time however many mounts the host has, by a
    /// mount namespace that they begin with. It takes as long as one create does, so it is for
    /// engines that make several containers, and for a moment at which nobody waits.
    ///
    /// # Errors
    /// `Unsupported` where that cannot be, or the kernel's refusal. Creates work all the same.
    pub fn prepare(&self) -> Result<()> {
        if self.shared.no_mounts.get().is_none() {
            let made = bare::namespace(self.shared.image()?.as_fd())?;
            let _ = self.shared.no_mounts.set(made);
        }
        Ok(())
    }

    /// Whether [`Self::prepare`] has done its work.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        self.shared.no_mounts.get().is_some()
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
            bare: self.is_prepared(),
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
        self.create_unless(request, &Cancel::default())
    }

    /// As [`Self::create`], ended early by `cancel`.
    ///
    /// # Errors
    /// As [`Self::create`]; `WrongState` after the cancel.
    pub fn create_unless(&self, request: Create<'_>, cancel: &Cancel) -> Result<Created> {
        let id = request.id;
        let created = self.make(request, cancel);
        cancel.release();
        created.map_err(|error| match cancel.cancelled() {
            true => error
                .context(format!("container {id:?} was deleted while it was created"))
                .with_kind(ErrorKind::WrongState),
            false => error,
        })
    }

    fn make(&self, request: Create<'_>, cancel: &Cancel) -> Result<Created> {
        let until = Instant::now() + request.deadline;
        let plan = self.plan(request.id, request.bundle, request.spec, request.options)?;
        let listener = plan.seccomp.as_ref().and_then(|filter| filter.listener.as_ref());
        listener.map(agent::check).transpose()?;
        let (dir, left) = StateDir::claim(&self.shared.root, request.id)?;
        if let Some(left) = left {
            // Its maker was killed and nobody has deleted it since.
            self.adopt(&left)?.end(until)?;
        }
        let seccomp = plan.seccomp.as_ref().map(|f| dir.save_filter(f)).transpose()?;
        let record = |process: Option<&Process>,
                      cgroup: CgroupRecord,
                      groups: Option<&Groups>,
                      making: Option<Making>|
         -> Result<State> {
            Ok(State {
                oci_version: request.spec.version().clone(),
                id: request.id.to_owned(),
                pid: process.map_or(0, Process::pid),
                bundle: request.bundle.to_owned(),
                annotations: request.spec.annotations().clone().unwrap_or_default(),
                boathook: Private {
                    start_time: process.map_or(Ok(0), |it| start_time(it.pid()))?,
                    namespaces: plan.namespaces,
                    private_pid: plan.private_pid,
                    keyring: !request.options.no_new_keyring,
                    cgroup,
                    resctrl: groups.cloned(),
                    seccomp: seccomp.clone(),
                    hooks: Later::of(request.spec),
                    making,
                },
            })
        };
        let cgroup = CgroupUndo(Some(self.make_cgroup(&plan, &mut |cgroup, making| {
            dir.save(&record(None, cgroup, None, Some(making))?)
        })?));
        let groups = plan.resctrl.as_ref().map(|p| Groups::make(p, &resctrl::mount_point()?));
        let groups = GroupsUndo::new(groups.transpose()?);
        if groups.get().is_some() {
            let cgroup = cgroup.get()?.record();
            dir.save(&record(None, cgroup, groups.get(), Some(Making::Owned))?)?;
        }
        let run_hooks = |process: &Process| {
            let state = record(Some(process), cgroup.get()?.record(), groups.get(), None)?;
            container::run_creating(&self.shared, &state, cgroup.get()?, process, &plan, until)
        };
        let launched = launch(&Launch {
            plan: &plan,
            cgroup: cgroup.get()?,
            stdio: request.stdio,
            container: None,
            no_mounts: self.shared.no_mounts.get().map(AsFd::as_fd),
            image: self.shared.image()?.as_fd(),
            until,
            hold: Some(&run_hooks),
            cancel: Some(cancel),
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
        let state = record(Some(&process), cgroup.get()?.record(), groups.get(), None)?;
        dir.save(&state)?;
        let pidfd =
            process.pidfd().try_clone_to_owned().map_err(|e| Error::sys("duplicate a pidfd", e))?;
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

    /// Makes the cgroup. `record` stands before the first directory does, and
    /// again when something else was found than was expected.
    fn make_cgroup(
        &self,
        plan: &Plan,
        record: &mut dyn FnMut(CgroupRecord, Making) -> Result<()>,
    ) -> Result<Cgroup> {
        let hierarchies = self.hierarchies()?;
        let plan = plan.cgroup.as_ref().ok_or_else(no_cgroup)?;
        let intended = Cgroup::intended(hierarchies, plan)?;
        record(intended.clone(), Making::Intended)?;
        let cgroup = CgroupUndo(Some(Cgroup::create(hierarchies, plan)?));
        let made = cgroup.get()?.record();
        if made != intended {
            record(made, Making::Owned)?;
        }
        cgroup.keep()
    }

    /// Finds a container by its record, whoever made it. One whose maker was
    /// killed half-way is found too: it has no process and can be deleted.
    ///
    /// # Errors
    /// `NotFound` when there is no record of it, `WrongState` while it is made.
    pub fn open(&self, id: &str) -> Result<Container> {
        let mut state = state::load(&self.shared.root, id)?;
        if state.boathook.making.is_some() {
            state = match StateDir::lock(&self.shared.root, id)? {
                Attempt::Locked(dir) => dir.record()?.ok_or_else(|| missing(id))?,
                Attempt::Busy => return Err(being_made(id)),
                Attempt::Absent => return Err(missing(id)),
            };
        }
        self.adopt(&state)
    }

    /// Ends and removes whatever there is of `id`: a container, what a maker
    /// that was killed left of one, or nothing. One that is being made at this
    /// moment is ended, and its maker undoes what it has done.
    ///
    /// # Errors
    /// `Timeout` when a process did not go or the maker does not come to its
    /// end; what is left can be removed later.
    pub fn remove(&self, id: &str, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        let root = &self.shared.root;
        let end_maker = || {
            // Best effort: the lock tells when it has ended.
            let record = state::load(root, id).ok();
            let record = record.filter(|state| state.boathook.making.is_some());
            if let Some(container) = record.and_then(|state| self.adopt(&state).ok()) {
                let _ = container.signal_all(libc::SIGKILL);
            }
        };
        let Some(dir) = StateDir::lock_until(root, id, until, Some(&end_maker))? else {
            // Whoever removed the last container may have been killed before this.
            state::remove_empty(root);
            return Ok(());
        };
        if let Some(state) = dir.record()? {
            self.adopt(&state)?.end(until)?;
        }
        dir.remove()
    }

    /// The container of a record.
    fn adopt(&self, state: &State) -> Result<Container> {
        let mut cgroup = Cgroup::from_record(self.hierarchies()?, &state.boathook.cgroup)?;
        if state.boathook.making == Some(Making::Intended) {
            cgroup = cgroup.made_only();
        }
        let pidfd = container::pidfd_of(state.pid, state.boathook.start_time)?;
        Ok(Container::new(self.shared.clone(), state, cgroup, pidfd))
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

fn no_cgroup() -> Error {
    Error::new(ErrorKind::Internal, "the plan has no cgroup")
}

fn missing(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("container {id:?} does not exist"))
}

fn being_made(id: &str) -> Error {
    Error::new(ErrorKind::WrongState, format!("container {id:?} is being created"))
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
