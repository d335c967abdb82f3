//! config.json → [`Plan`]: pure, and the only place where a config is
//! validated. Every error names the field.
//!
//! A plan is what the engine does on its side (descriptors to open, a cgroup to
//! make, flags for the clone) and a [`Program`]: the encoded steps that init
//! performs, in order. `boathook plan` prints exactly these.

mod bare;
mod caps;
mod cgroupfs;
mod clocks;
mod devices;
mod labels;
mod mount_ids;
mod mounts;
mod namespaces;
mod net_devices;
mod process;
mod program;
mod rootfs;
mod sched;
mod show;
mod sysctl;
mod text;
mod users;

use std::path::{Path, PathBuf};

use boathook_init::Step;
use oci_spec::runtime::{Hook, Process, Spec};

pub(crate) use labels::mount_label;
pub use labels::{SecurityModules, wanted as wants_label};
pub use program::{HostFd, MappedBy, MountIds, Program};

use crate::cgroup::{CgroupPlan, Driver, Layout};
use crate::hooks::Creating;
use crate::resctrl::ResctrlPlan;
use crate::seccomp::{self, Filter};
use crate::{Error, Result};
use namespaces::{Birth, NEWPID, NEWUSER, Namespaces};
use program::Builder;

/// What a plan depends on besides the config.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle directory, absolute.
    pub bundle: &'a Path,
    /// The cgroup hierarchies of the host.
    pub cgroups: &'a Layout,
    /// Who manages cgroups.
    pub driver: Driver,
    /// chroot instead of pivot_root, for hosts that run from an initramfs.
    pub no_pivot_root: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Security modules of the kernel; asked only when a label is wanted.
    pub modules: SecurityModules,
    /// There is an empty mount namespace to begin with, for containers that can.
    pub bare: bool,
}

/// Everything that creating a container, or a process in one, will do.
#[derive(Debug)]
pub struct Plan {
    /// Descriptors that the engine opens for init, in the order of their slots.
    pub fds: Vec<HostFd>,
    /// `CLONE_NEW*` flags of the clone itself.
    pub clone_flags: u64,
    /// Whether init goes on in a copy of itself that is born in other namespaces.
    pub birth: bool,
    /// The pid namespace that is joined by path.
    pub joined_pid: Option<PathBuf>,
    /// The cgroup to make; `None` for a process in an existing container.
    pub cgroup: Option<CgroupPlan>,
    /// Its share of caches and memory bandwidth, if the config says something of it.
    pub resctrl: Option<ResctrlPlan>,
    /// Written to the process's `oom_score_adj` before init runs a step.
    pub oom_score_adj: Option<i32>,
    /// Whether init will send a terminal's master.
    pub terminal: bool,
    /// `argv[0]`.
    pub program_name: String,
    /// `CLONE_NEW*` of the namespaces that are not the host's: what a later
    /// process joins.
    pub namespaces: u32,
    /// Whether the container has a pid namespace of its own, whose end is the
    /// end of all its processes.
    pub private_pid: bool,
    /// The filter of its system calls.
    pub seccomp: Option<Filter>,
    /// What runs while init holds.
    pub hooks: Creating,
    /// What init does.
    pub program: Program,
}

impl Plan {
    /// The plan for a new container.
    ///
    /// # Errors
    /// `InvalidInput` naming the field, `Unsupported` for a field that this
    /// version cannot honour.
    pub fn create(spec: &Spec, context: &Context<'_>) -> Result<Self> {
        check_version(spec.version())?;
        crate::hooks::check(spec)?;
        check_id(context.id)?;
        let process = spec.process().as_ref().ok_or_else(|| Error::field("process", "missing"))?;
        let linux = spec.linux().as_ref().ok_or_else(|| Error::field("linux", "missing"))?;
        let root = root_path(spec, context.bundle)?;
        let mut namespaces = Namespaces::of(linux)?;
        namespaces.check_process(process)?;
        if context.bare && bare::suits(spec, context, &namespaces) {
            namespaces.begin_bare();
        }
        let born = namespaces.birth();
        let mut cgroup = cgroup_plan(spec, context)?;
        if let Some(uid) = cgroupfs::owner(spec, &namespaces, context.cgroups) {
            cgroup = cgroup.owned_by(uid);
        }
        let rdt = linux.intel_rdt().as_ref();
        let resctrl = rdt.map(|rdt| ResctrlPlan::new(rdt, context.id)).transpose()?;
        let seccomp = linux.seccomp().as_ref().map(seccomp::compile).transpose()?;

        let mut build = Builder::new();
        build.join_cgroups(context.cgroups, born == Birth::Late);
        let pids = namespaces.enter(&mut build)?;
        build.push(&Step::ResetAffinity {});
        if namespaces.loopback() {
            build.push(&Step::Loopback {});
        }
        net_devices::steps(&mut build, linux, &namespaces)?;
        build.push(&Step::Session {});
        if !context.no_new_keyring {
            build.keyring(context.id)?;
        }
        let view = mounts::View { namespaces: &namespaces, pids };
        let proc = rootfs::steps(&mut build, spec, &root, context, &view)?;
        let late = process::before_scheduler(&mut build, process, born == Birth::Late);
        sched::process_steps(&mut build, process)?;
        sched::linux_steps(&mut build, linux)?;
        // A proc file system of other pids knows nothing of this process.
        let proc = proc.filter(|_| born != Birth::Late);
        labels::steps(&mut build, process, context.modules, proc)?;
        process::steps(&mut build, process, seccomp.as_ref(), late)?;
        Ok(Self {
            clone_flags: namespaces.clone_flags(),
            birth: born != Birth::Clone,
            joined_pid: namespaces.joined_pid().map(Path::to_owned),
            cgroup: Some(cgroup),
            resctrl,
            oom_score_adj: process.oom_score_adj(),
            terminal: process.terminal().unwrap_or(false),
            program_name: process::name(process)?,
            namespaces: namespaces.not_of_the_host(),
            private_pid: namespaces.private_pid(),
            seccomp,
            hooks: Creating::of(spec),
            fds: build.fds,
            program: build.program,
        })
    }

    /// The plan for one more process in a running container whose processes
    /// live in `namespaces` (`CLONE_NEW*`) and in v1 cgroups of `cgroups`, with
    /// the session keyring of the container `keyring`, if it has one, and under
    /// the filter of its first process.
    ///
    /// # Errors
    /// As for [`Plan::create`].
    pub fn exec(
        process: &Process,
        namespaces: u32,
        cgroups: &Layout,
        modules: SecurityModules,
        keyring: Option<&str>,
        seccomp: Option<Filter>,
    ) -> Result<Self> {
        let affinity = process.exec_cpu_affinity().as_ref();
        let mut build = Builder::new();
        if let Some(cpus) = affinity.and_then(|a| a.initial().as_deref()) {
            build.affinity("process.execCPUAffinity.initial", cpus)?;
        }
        let birth = namespaces & NEWPID != 0;
        build.join_cgroups(cgroups, birth);
        let container = build.fd(HostFd::Container);
        build.push(&Step::SetNs { ns: container, kinds: namespaces });
        if namespaces & NEWUSER != 0 {
            build.push(&Step::NamespaceRoot {});
        }
        match affinity.and_then(|a| a.cpu_affinity_final().as_deref()) {
            Some(cpus) => build.affinity("process.execCPUAffinity.final", cpus)?,
            None => build.push(&Step::ResetAffinity {}),
        }
        build.push(&Step::UseRoot {});
        build.push(&Step::Session {});
        if let Some(id) = keyring {
            build.keyring(id)?;
        }
        process::stdio(&mut build, process, process::For::Exec, birth)?;
        let late = process::before_scheduler(&mut build, process, birth);
        sched::process_steps(&mut build, process)?;
        labels::steps(&mut build, process, modules, None)?;
        process::steps(&mut build, process, seccomp.as_ref(), late)?;
        Ok(Self {
            clone_flags: 0,
            birth,
            joined_pid: None,
            cgroup: None,
            resctrl: None,
            oom_score_adj: process.oom_score_adj(),
            terminal: process.terminal().unwrap_or(false),
            program_name: process::name(process)?,
            namespaces,
            private_pid: false,
            seccomp,
            hooks: Creating::default(),
            fds: build.fds,
            program: build.program,
        })
    }
}

impl Plan {
    /// The plan for a hook of the host that runs in the namespaces of a
    /// container whose root is not entered yet. `pids` is the pid namespace that
    /// it joins by path: its process may not be born there yet.
    ///
    /// # Errors
    /// `InvalidInput` for a NUL byte in its strings.
    pub(crate) fn hook(
        hook: &Hook,
        namespaces: u32,
        pids: Option<&Path>,
        cgroups: &Layout,
    ) -> Result<Self> {
        let mut build = Builder::new();
        let birth = namespaces & NEWPID != 0;
        build.join_cgroups(cgroups, birth);
        let container = build.fd(HostFd::Container);
        match pids {
            Some(path) => {
                let path = path.to_owned();
                let ns = build.fd(HostFd::Namespace { path, kind: NEWPID });
                build.push(&Step::SetNs { ns, kinds: NEWPID });
                build.push(&Step::SetNs { ns: container, kinds: namespaces & !NEWPID });
            }
            None => build.push(&Step::SetNs { ns: container, kinds: namespaces }),
        }
        if namespaces & NEWUSER != 0 {
            build.push(&Step::NamespaceRoot {});
        }
        build.push(&Step::UseRoot {});
        process::hook(&mut build, hook, birth)?;
        Ok(Self {
            clone_flags: 0,
            birth,
            joined_pid: None,
            cgroup: None,
            resctrl: None,
            oom_score_adj: None,
            terminal: false,
            program_name: hook.path().display().to_string(),
            namespaces,
            private_pid: false,
            seccomp: None,
            hooks: Creating::default(),
            fds: build.fds,
            program: build.program,
        })
    }
}

fn cgroup_plan(spec: &Spec, context: &Context<'_>) -> Result<CgroupPlan> {
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|l| l.cgroups_path().as_ref());
    let path = path.map(|p| text::utf8("linux.cgroupsPath", p)).transpose()?;
    let resources = linux.and_then(|l| l.resources().as_ref());
    CgroupPlan::new(path, context.id, context.driver, resources, context.cgroups)
}

/// Versions of the specification are SemVer, and 1.x stays compatible.
fn check_version(version: &str) -> Result<()> {
    match version.strip_prefix("1.") {
        Some(_) => Ok(()),
        None => Err(Error::field("ociVersion", format!("{version:?} is not a version 1.x"))),
    }
}

/// The directory of the root file system, absolute.
fn root_path(spec: &Spec, bundle: &Path) -> Result<PathBuf> {
    let root = spec.root().as_ref().ok_or_else(|| Error::field("root", "missing"))?;
    if root.path().as_os_str().is_empty() {
        return Err(Error::field("root.path", "must not be empty"));
    }
    text::no_nul("root.path", root.path())?;
    Ok(bundle.join(root.path()))
}

/// Longest id: it becomes a file name and a part of a cgroup path.
const ID_MAX: usize = 255;

/// Checks a container's id: letters, digits, `_ + - .`, not starting with a dot.
///
/// # Errors
/// `InvalidInput` naming the id.
pub fn check_id(id: &str) -> Result<()> {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > ID_MAX || id.starts_with('.') || !id.chars().all(ok) {
        return Err(Error::field("id", format!("invalid container id {id:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod mount_tests;
#[cfg(test)]
mod tests;
