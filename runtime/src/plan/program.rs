//! Encoded steps, and the builder that hands out their slots.

use std::ffi::{CStr, CString};
use std::fmt;
use std::path::PathBuf;

use boathook_init::wire::{Header, Reader, Sink};
use boathook_init::{Slot, Step};

use super::text;
use crate::Result;
use crate::cgroup::{Kind, Layout};
use crate::idmap::IdMappings;

/// Something of the host that init gets as a descriptor, because it must not
/// see the host's paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostFd {
    /// The `tasks` file of the container's cgroup in the n-th v1 hierarchy.
    CgroupTasks(usize),
    /// A namespace file to join; `kind` is its `CLONE_NEW*` bit.
    Namespace {
        /// The path in the config.
        path: PathBuf,
        /// What it has to be.
        kind: u32,
    },
    /// The engine's mount namespace with nothing in it.
    NoMounts,
    /// pidfd of the container's first process.
    Container,
    /// A detached copy of the root file system's tree.
    Root(PathBuf),
    /// A detached copy of what is at a path of the host.
    Bind {
        /// Which mount of the config, for messages.
        field: String,
        /// Absolute path.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
        /// With its ids mapped, if asked for.
        idmap: Option<MountIds>,
    },
    /// A detached copy of a device node of the host.
    Device {
        /// Which device of the config, for messages.
        field: String,
        /// Absolute path.
        source: PathBuf,
        /// A block device.
        block: bool,
        /// Major number that it has to have.
        major: u32,
        /// Minor number that it has to have.
        minor: u32,
    },
    /// A user namespace whose mappings a new file system's mount gets.
    UserNamespace(MountIds),
    /// A detached copy of the container's cgroup directory in the n-th hierarchy.
    CgroupTree(usize),
    /// A detached copy of the host's null device.
    NullDevice,
    /// Standard input, output or error (0, 1, 2).
    Stdio(usize),
}

/// How the ids of a mount are mapped (`idmap` and `ridmap`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountIds {
    /// Which field asks for it, for messages.
    pub field: String,
    /// Where the mappings come from.
    pub by: MappedBy,
    /// On the mounts below it as well.
    pub recursive: bool,
}

/// Where the mappings of a mount come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappedBy {
    /// Mappings of the config: the mount's, or those of a new user namespace.
    Mappings(IdMappings),
    /// A user namespace that the container joins.
    Namespace(PathBuf),
}

/// The steps of a plan, encoded as init reads them.
#[derive(Clone, Default)]
pub struct Program {
    bytes: Vec<u8>,
    steps: u32,
    made: u32,
}

impl Program {
    /// The steps in order.
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let mut reader = Reader::new(&self.bytes);
        std::iter::from_fn(
            move || if reader.is_empty() { None } else { Step::get(&mut reader).ok() },
        )
    }

    /// How many descriptors its steps make.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// The bytes that init maps; `sent` is the number of descriptors sent to it.
    pub fn image(&self, sent: usize) -> Vec<u8> {
        let slots = u32::try_from(sent).unwrap_or(u32::MAX).saturating_add(self.made);
        let mut out = Buffer(Vec::with_capacity(Header::LEN + self.bytes.len()));
        Header { slots, steps: self.steps }.put(&mut out);
        out.0.extend_from_slice(&self.bytes);
        out.0
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps()).finish()
    }
}

struct Buffer(Vec<u8>);

impl Sink for Buffer {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Collects steps and descriptors.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) fds: Vec<HostFd>,
    pub(super) program: Program,
    null: Option<Slot>,
    empty: Option<Slot>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Appends a step.
    pub(super) fn push(&mut self, step: &Step<'_>) {
        let mut out = Buffer(std::mem::take(&mut self.program.bytes));
        step.put(&mut out);
        self.program.bytes = out.0;
        self.program.steps += 1;
    }

    /// A slot for something of the host.
    pub(super) fn fd(&mut self, fd: HostFd) -> Slot {
        self.fds.push(fd);
        Slot::sent(u32::try_from(self.fds.len() - 1).unwrap_or(u32::MAX))
    }

    /// A slot that a step will fill.
    pub(super) fn make(&mut self) -> Slot {
        self.program.made += 1;
        Slot::made(self.program.made - 1)
    }

    /// Joins the cgroup in every v1 hierarchy; on v2 the clone does it.
    ///
    /// A process with a `late` birth is two for a moment, and in a container that
    /// has all the processes it may have there is no room for that: the hierarchy
    /// that counts them is joined by the second one only.
    pub(super) fn join_cgroups(&mut self, layout: &Layout, late: bool) {
        let counts = |kind: &Kind| match kind {
            Kind::V1(list) => list.split(',').any(|name| name == "pids"),
            _ => false,
        };
        for (index, mount) in layout.mounts.iter().enumerate().filter(|(_, m)| !m.is_v2()) {
            let tasks = self.fd(HostFd::CgroupTasks(index));
            self.push(&match late && counts(&mount.kind) {
                true => Step::JoinAtBirth { tasks },
                false => Step::JoinCgroup { tasks },
            });
        }
    }

    /// A session keyring of the container's own, named as runc names it.
    pub(super) fn keyring(&mut self, id: &str) -> Result<()> {
        let name = text::c_string("id", format!("_ses.{id}"))?;
        self.push(&Step::Keyring { name: &name });
        Ok(())
    }

    /// Binds to the CPUs of a list.
    pub(super) fn affinity(&mut self, field: &str, list: &str) -> Result<()> {
        let cpus = super::sched::mask(field, list)?;
        if !list.trim().is_empty() {
            self.push(&Step::Affinity { cpus: boathook_init::Ids::Slice(&cpus) });
        }
        Ok(())
    }

    /// A new file system's slot, made by one step.
    pub(super) fn new_fs(
        &mut self,
        fstype: &CStr,
        source: &CStr,
        options: &[CString],
        attrs: u64,
    ) -> Slot {
        let slot = self.make();
        let options: Vec<&CStr> = options.iter().map(CString::as_c_str).collect();
        let options = boathook_init::List::Strings(&options);
        self.push(&Step::NewFs { slot, fstype, source, options, attrs });
        slot
    }

    /// The null device, opened once for a plan.
    pub(super) fn null_device(&mut self) -> Slot {
        match self.null {
            Some(slot) => slot,
            None => *self.null.insert({
                self.fds.push(HostFd::NullDevice);
                Slot::sent(u32::try_from(self.fds.len() - 1).unwrap_or(u32::MAX))
            }),
        }
    }

    /// An empty read-only directory, made once for a plan.
    pub(super) fn empty_dir(&mut self) -> Slot {
        if let Some(slot) = self.empty {
            return slot;
        }
        // One inode for the root; some kernels count one more (runc issue 5348).
        let options = [c"ro".to_owned(), c"size=0".to_owned(), c"nr_inodes=2".to_owned()];
        let slot = self.new_fs(c"tmpfs", c"tmpfs", &options, libc::MOUNT_ATTR_RDONLY);
        self.empty = Some(slot);
        slot
    }
}
