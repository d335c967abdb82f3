//! `mounts`: each entry becomes steps that make a detached tree, attach it and
//! set its attributes.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use boathook_fs::flags::{self, DataOption, MountOptions, PropagationKind, SbFlags};
use boathook_init::{List, Slot, Step};
use oci_spec::runtime::{Mount, Spec};

use super::namespaces::{Birth, Namespaces};
use super::program::{Builder, HostFd, MountIds};
use super::{Context, cgroupfs, labels, mount_ids, text};
use crate::{Error, ErrorKind, Result};

/// What later steps need of the mounts.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    /// The container's own proc file system, if it can be written to.
    pub(super) proc: Option<Slot>,
    /// Trees that become read-only once everything is in them.
    pub(super) seal: Vec<Slot>,
    /// Every mount so far, for those that change an earlier one.
    done: Vec<Done>,
}

/// A mount that is made by an earlier entry.
#[derive(Debug)]
struct Done {
    path: CString,
    tree: Slot,
    /// The type of a new file system; `None` for what belongs to somebody else.
    new: Option<String>,
}

/// What file systems of the kernel are a view of.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) namespaces: &'a Namespaces,
    /// The pid namespace that is joined, which init itself is not in.
    pub(super) pids: Option<Slot>,
}

/// One entry on its way into steps.
pub(super) struct Entry<'a> {
    pub(super) field: String,
    pub(super) mount: &'a Mount,
    pub(super) path: CString,
    pub(super) options: MountOptions,
    idmap: Option<MountIds>,
}

/// Adds the steps of all mounts, in the order of the config.
pub(super) fn steps(
    build: &mut Builder,
    spec: &Spec,
    context: &Context<'_>,
    view: &View<'_>,
) -> Result<Mounted> {
    let own_cgroup = view.namespaces.own_cgroup();
    let mut mounted = Mounted::default();
    let label = labels::of_mounts(spec, context.modules)?;
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let entry = Entry::new(format!("mounts[{index}]"), mount, spec)?;
        let kind = mount.typ().as_deref().unwrap_or_default();
        if entry.options.remount {
            remount(build, &entry, &mut mounted)?;
            continue;
        }
        let (tree, new) = match kind {
            _ if entry.options.bind.is_some() || kind == "bind" => {
                (bind(build, &entry, context.bundle)?, None)
            }
            "cgroup" | "cgroup2" => {
                entry.refuse_idmap()?;
                (cgroupfs::steps(build, &entry, context.cgroups, own_cgroup)?, None)
            }
            "" => return Err(Error::field(format!("{}.type", entry.field), "missing")),
            _ => (new_fs(build, &entry, kind, view, label, &mut mounted)?, Some(kind.to_owned())),
        };
        mounted.done.push(Done { path: entry.path, tree, new });
    }
    Ok(mounted)
}

impl<'a> Entry<'a> {
    fn new(field: String, mount: &'a Mount, spec: &Spec) -> Result<Self> {
        let path = text::in_container(&format!("{field}.destination"), mount.destination())?;
        if path.to_bytes() == b"/" {
            return Err(Error::field(format!("{field}.destination"), "/ is the root file system"));
        }
        let options = flags::parse(mount.options().as_deref().unwrap_or_default())
            .map_err(|e| Error::field(format!("{field}.options"), e))?;
        let idmap = mount_ids::of(&field, mount, &options, spec)?;
        let kind = mount.typ().as_deref().unwrap_or_default();
        if options.tmpcopyup && (kind != "tmpfs" || options.bind.is_some() || options.remount) {
            let problem = "\"tmpcopyup\" is for a new tmpfs only";
            return Err(Error::field(format!("{field}.options"), problem));
        }
        Ok(Self { field, mount, path, options, idmap })
    }

    fn refuse_idmap(&self) -> Result<()> {
        match &self.idmap {
            None => Ok(()),
            Some(ids) => {
                let problem = format!("the mount at {:?} cannot be id-mapped", self.path);
                Err(Error::field(&ids.field, problem).with_kind(ErrorKind::Unsupported))
            }
        }
    }

    pub(super) fn read_only(&self) -> bool {
        self.options.attr_set & libc::MOUNT_ATTR_RDONLY != 0
    }

    /// `MOUNT_ATTR_*` for a new mount; its recursive options count the same,
    /// because nothing is below it yet.
    pub(super) fn attrs(&self) -> u64 {
        self.options.attr_set | self.options.rec_set
    }

    /// Adds the changes of propagation, in order.
    pub(super) fn propagate(&self, build: &mut Builder, tree: Slot) {
        for change in &self.options.propagation {
            set_attr(build, tree, 0, 0, propagation_flag(change.kind), change.recursive);
        }
    }

    /// Adds the changes of attributes: of the mount, then of the whole tree.
    fn change_attributes(&self, build: &mut Builder, tree: Slot) {
        let MountOptions { attr_set, attr_clr, rec_set, rec_clr, .. } = self.options;
        if attr_set | attr_clr != 0 {
            set_attr(build, tree, attr_set, attr_clr, 0, false);
        }
        if rec_set | rec_clr != 0 {
            set_attr(build, tree, rec_set, rec_clr, 0, true);
        }
    }
}

/// The `MS_*` bit of a propagation type.
pub(super) fn propagation_flag(kind: PropagationKind) -> u64 {
    match kind {
        PropagationKind::Shared => libc::MS_SHARED,
        PropagationKind::Slave => libc::MS_SLAVE,
        PropagationKind::Private => libc::MS_PRIVATE,
        PropagationKind::Unbindable => libc::MS_UNBINDABLE,
    }
}

/// A copy of something of the host, attached first and changed then: kernels
/// before 5.12 can only change what is attached, and nobody is there to see it.
fn bind(build: &mut Builder, entry: &Entry<'_>, bundle: &Path) -> Result<Slot> {
    let Entry { field, options, .. } = entry;
    let source_field = format!("{field}.source");
    let Some(source) = entry.mount.source().as_ref().filter(|s| !s.as_os_str().is_empty()) else {
        return Err(Error::field(source_field, "missing"));
    };
    text::no_nul(&source_field, source)?;
    entry.refuse_data()?;
    let recursive = options.bind.is_some_and(|b| b.recursive);
    let source = bundle.join(source);
    let idmap = entry.idmap.clone();
    let tree = build.fd(HostFd::Bind { field: source_field, source, recursive, idmap });
    build.push(&Step::Attach { tree, path: &entry.path, strict: 0, keep_mode: 0 });
    if options.propagation.is_empty() {
        // What is mounted in the container stays there, what the host mounts arrives.
        set_attr(build, tree, 0, 0, libc::MS_SLAVE, true);
    }
    entry.propagate(build, tree);
    entry.change_attributes(build, tree);
    Ok(tree)
}

impl Entry<'_> {
    /// Data would change the superblock, which belongs to the host.
    fn refuse_data(&self) -> Result<()> {
        match self.options.data.first() {
            None => Ok(()),
            Some(option) => {
                let problem = format!("{:?} on a bind mount", as_text(option));
                Err(Error::field(format!("{}.options", self.field), problem))
            }
        }
    }
}

fn set_attr(build: &mut Builder, tree: Slot, set: u64, clear: u64, propagation: u64, deep: bool) {
    build.push(&Step::SetAttr { tree, set, clear, propagation, recursive: u32::from(deep) });
}

fn new_fs(
    build: &mut Builder,
    entry: &Entry<'_>,
    kind: &str,
    view: &View<'_>,
    label: Option<&str>,
    mounted: &mut Mounted,
) -> Result<Slot> {
    let field = &entry.field;
    let fstype = text::c_string(&format!("{field}.type"), kind)?;
    let source = entry.mount.source().as_ref().map(|s| s.as_os_str().as_encoded_bytes());
    let source = text::c_string(&format!("{field}.source"), source.unwrap_or_default())?;
    // A tmpfs gets mount points made in it, so it is sealed when all is done.
    let seal = kind == "tmpfs" && entry.read_only();
    let mut options = superblock_options(entry.options.sb, kind, seal);
    options.extend(data_options(entry)?);
    if let Some(label) = label.filter(|_| labels::takes_context(kind, &entry.options.data)) {
        options.push(text::c_string("linux.mountLabel", format!("context={label}"))?);
    }
    let attrs = if seal { entry.attrs() & !libc::MOUNT_ATTR_RDONLY } else { entry.attrs() };
    let tree = view.new_fs(build, &fstype, &source, &options, attrs);
    if let Some(ids) = &entry.idmap {
        let userns = build.fd(HostFd::UserNamespace(ids.clone()));
        build.push(&Step::IdMap { tree, userns });
    }
    if entry.options.tmpcopyup {
        build.push(&Step::CopyUp { tree, path: &entry.path });
    }
    // The kernel's own file systems must not be led elsewhere by a link of the image.
    let strict = u32::from(matches!(kind, "proc" | "sysfs"));
    let mode_given = entry.options.data.iter().any(|(key, _)| key == "mode");
    let keep_mode = u32::from(kind == "tmpfs" && !mode_given);
    build.push(&Step::Attach { tree, path: &entry.path, strict, keep_mode });
    entry.propagate(build, tree);
    if kind == "proc"
        && entry.path.to_bytes() == b"/proc"
        && entry.attrs() & libc::MOUNT_ATTR_RDONLY == 0
    {
        mounted.proc = Some(tree);
    }
    if seal {
        mounted.seal.push(tree);
    }
    Ok(tree)
}

/// What the file system itself is told.
fn data_options(entry: &Entry<'_>) -> Result<Vec<CString>> {
    let field = format!("{}.options", entry.field);
    entry.options.data.iter().map(|option| text::c_string(&field, as_text(option))).collect()
}

/// An option as the config has it.
fn as_text((key, value): &DataOption) -> String {
    match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    }
}

/// `remount`: changes what an earlier entry mounted at the same place. Only what
/// the options name changes (mount(8)); data reaches the superblock of a file
/// system that this config made, and no other's.
fn remount(build: &mut Builder, entry: &Entry<'_>, mounted: &mut Mounted) -> Result<()> {
    let field = format!("{}.options", entry.field);
    entry.refuse_idmap()?;
    let Some(target) = mounted.done.iter().rfind(|done| done.path == entry.path) else {
        let problem = format!("\"remount\": no earlier entry mounts at {:?}", entry.path);
        return Err(Error::field(field, problem));
    };
    let tree = target.tree;
    match &target.new {
        Some(kind) if entry.options.bind.is_none() => {
            let tmpfs = kind == "tmpfs";
            let mut options = superblock_options(entry.options.sb, kind, true);
            options.extend(cleared_options(entry.options.sb));
            options.extend(data_options(entry)?);
            if !options.is_empty() {
                let options: Vec<&CStr> = options.iter().map(CString::as_c_str).collect();
                let options = List::Strings(&options);
                build.push(&Step::Reconfigure { tree, path: &entry.path, options });
            }
            let MountOptions { attr_set, attr_clr, .. } = entry.options;
            if (attr_set | attr_clr) & libc::MOUNT_ATTR_RDONLY != 0 {
                mounted.seal.retain(|sealed| *sealed != tree);
                mounted.proc = mounted.proc.filter(|proc| *proc != tree || !entry.read_only());
            }
            if tmpfs && entry.read_only() {
                // Not now, for the same reason as with a new one.
                mounted.seal.push(tree);
            }
            let later = if tmpfs { libc::MOUNT_ATTR_RDONLY } else { 0 };
            let (set, clear) = (attr_set & !later, attr_clr);
            if set | clear != 0 {
                set_attr(build, tree, set, clear, 0, false);
            }
            let MountOptions { rec_set, rec_clr, .. } = entry.options;
            if rec_set | rec_clr != 0 {
                set_attr(build, tree, rec_set, rec_clr, 0, true);
            }
        }
        _ => {
            entry.refuse_data()?;
            entry.change_attributes(build, tree);
        }
    }
    entry.propagate(build, tree);
    Ok(())
}

impl View<'_> {
    /// A new file system; proc and sysfs are views of namespaces that may be
    /// somebody else's.
    fn new_fs(
        &self,
        build: &mut Builder,
        fstype: &CStr,
        source: &CStr,
        options: &[CString],
        attrs: u64,
    ) -> Slot {
        let pids = self.pids.filter(|_| self.namespaces.birth() == Birth::Late);
        let list: Vec<&CStr> = options.iter().map(CString::as_c_str).collect();
        let list = List::Strings(&list);
        match (fstype.to_bytes(), pids) {
            (b"proc", Some(pids)) => {
                let slot = build.make();
                build.push(&Step::NewProc { slot, pids, source, options: list, attrs });
                slot
            }
            (b"sysfs", _) if self.namespaces.own_user() && self.namespaces.foreign_net() => {
                let field = "sysfs of the host".to_owned();
                let source_path = PathBuf::from("/sys");
                let host =
                    HostFd::Bind { field, source: source_path, recursive: false, idmap: None };
                let (host, slot) = (build.fd(host), build.make());
                build.push(&Step::NewSysfs { slot, host, source, options: list, attrs });
                slot
            }
            _ => build.new_fs(fstype, source, options, attrs),
        }
    }
}

/// Flags of the superblock as fsconfig(2) names them. `iversion` and `acl` are
/// options of single file systems; all others have them always or never.
fn superblock_options(flags: SbFlags, kind: &str, seal: bool) -> Vec<CString> {
    let names = [
        (SbFlags::RDONLY, c"ro", !seal),
        (SbFlags::SYNCHRONOUS, c"sync", true),
        (SbFlags::DIRSYNC, c"dirsync", true),
        (SbFlags::MANDLOCK, c"mand", true),
        (SbFlags::LAZYTIME, c"lazytime", true),
        (SbFlags::I_VERSION, c"i_version", kind == "ext4"),
        (SbFlags::POSIXACL, c"acl", matches!(kind, "ext4" | "btrfs" | "f2fs")),
    ];
    let wanted = names.iter().filter(|(bit, _, has)| flags.set & bit != 0 && *has);
    wanted.map(|(_, name, _)| (*name).to_owned()).collect()
}

/// The flags that a remount takes back.
fn cleared_options(flags: SbFlags) -> impl Iterator<Item = CString> {
    let names = [
        (SbFlags::SYNCHRONOUS, c"async"),
        (SbFlags::MANDLOCK, c"nomand"),
        (SbFlags::LAZYTIME, c"nolazytime"),
    ];
    names
        .into_iter()
        .filter(move |(bit, _)| flags.clear & bit != 0)
        .map(|(_, name)| name.to_owned())
}
