//! `mounts`: each entry becomes steps that make a detached tree, set its
//! attributes and attach it.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

use boathook_fs::flags::{self, MountOptions, PropagationKind, SbFlags};
use boathook_init::{List, Slot, Step};
use oci_spec::runtime::{Mount, Spec};

use super::namespaces::{Birth, Namespaces};
use super::program::{Builder, HostFd};
use super::{Context, cgroupfs, text};
use crate::{Error, ErrorKind, Result};

/// What later steps need of the mounts.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    /// The container's own proc file system, if it can be written to.
    pub(super) proc: Option<Slot>,
    /// Trees that become read-only once everything is in them.
    pub(super) seal: Vec<Slot>,
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
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let entry = Entry::new(format!("mounts[{index}]"), mount)?;
        let kind = mount.typ().as_deref().unwrap_or_default();
        match kind {
            _ if entry.options.bind.is_some() || kind == "bind" => {
                bind(build, &entry, context.bundle)?
            }
            "cgroup" | "cgroup2" => cgroupfs::steps(build, &entry, context.cgroups, own_cgroup)?,
            "" => return Err(Error::field(format!("{}.type", entry.field), "missing")),
            _ => new_fs(build, &entry, kind, view, &mut mounted)?,
        }
    }
    Ok(mounted)
}

impl<'a> Entry<'a> {
    fn new(field: String, mount: &'a Mount) -> Result<Self> {
        let path = text::in_container(&format!("{field}.destination"), mount.destination())?;
        if path.to_bytes() == b"/" {
            return Err(Error::field(format!("{field}.destination"), "/ is the root file system"));
        }
        let options = flags::parse(mount.options().as_deref().unwrap_or_default())
            .map_err(|e| Error::field(format!("{field}.options"), e))?;
        let later = [
            ("remount", options.remount),
            ("tmpcopyup", options.tmpcopyup),
            ("idmap", options.idmap.is_some()),
        ];
        for (name, asked) in later {
            if asked {
                let text = format!("{field}.options: {name} is not supported by this version");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        }
        let mapped = |m: &Option<Vec<_>>| m.as_ref().is_some_and(|m| !m.is_empty());
        if mapped(mount.uid_mappings()) || mapped(mount.gid_mappings()) {
            let text = format!("{field}.uidMappings: not supported by this version");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(Self { field, mount, path, options })
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
            let propagation = propagation_flag(change.kind);
            let recursive = u32::from(change.recursive);
            build.push(&Step::SetAttr { tree, set: 0, clear: 0, propagation, recursive });
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

fn bind(build: &mut Builder, entry: &Entry<'_>, bundle: &Path) -> Result<()> {
    let Entry { field, options, .. } = entry;
    let source_field = format!("{field}.source");
    let Some(source) = entry.mount.source().as_ref().filter(|s| !s.as_os_str().is_empty()) else {
        return Err(Error::field(source_field, "missing"));
    };
    text::no_nul(&source_field, source)?;
    if let Some((key, _)) = options.data.first() {
        // It would change the superblock, which belongs to the host.
        return Err(Error::field(format!("{field}.options"), format!("{key:?} on a bind mount")));
    }
    let recursive = options.bind.is_some_and(|b| b.recursive);
    let source = bundle.join(source);
    let tree = build.fd(HostFd::Bind { field: source_field, source, recursive });
    if options.propagation.is_empty() {
        // What is mounted in the container stays there, what the host mounts arrives.
        set_attr(build, tree, 0, 0, libc::MS_SLAVE, true);
    }
    entry.propagate(build, tree);
    if options.attr_set | options.attr_clr != 0 {
        set_attr(build, tree, options.attr_set, options.attr_clr, 0, false);
    }
    if options.rec_set | options.rec_clr != 0 {
        set_attr(build, tree, options.rec_set, options.rec_clr, 0, true);
    }
    build.push(&Step::Attach { tree, path: &entry.path, strict: 0, keep_mode: 0 });
    Ok(())
}

fn set_attr(build: &mut Builder, tree: Slot, set: u64, clear: u64, propagation: u64, deep: bool) {
    build.push(&Step::SetAttr { tree, set, clear, propagation, recursive: u32::from(deep) });
}

fn new_fs(
    build: &mut Builder,
    entry: &Entry<'_>,
    kind: &str,
    view: &View<'_>,
    mounted: &mut Mounted,
) -> Result<()> {
    let field = &entry.field;
    let fstype = text::c_string(&format!("{field}.type"), kind)?;
    let source = entry.mount.source().as_ref().map(|s| s.as_os_str().as_encoded_bytes());
    let source = text::c_string(&format!("{field}.source"), source.unwrap_or_default())?;
    // A tmpfs gets mount points made in it, so it is sealed when all is done.
    let seal = kind == "tmpfs" && entry.read_only();
    let mut options = superblock_options(entry.options.sb, seal);
    let mut mode_given = false;
    for (key, value) in &entry.options.data {
        mode_given |= key == "mode";
        let text = match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        };
        options.push(text::c_string(&format!("{field}.options"), text)?);
    }
    let attrs = if seal { entry.attrs() & !libc::MOUNT_ATTR_RDONLY } else { entry.attrs() };
    let tree = view.new_fs(build, &fstype, &source, &options, attrs);
    // The kernel's own file systems must not be led elsewhere by a link of the image.
    let strict = u32::from(matches!(kind, "proc" | "sysfs"));
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
                let host = HostFd::Bind { field, source: source_path, recursive: false };
                let (host, slot) = (build.fd(host), build.make());
                build.push(&Step::NewSysfs { slot, host, source, options: list, attrs });
                slot
            }
            _ => build.new_fs(fstype, source, options, attrs),
        }
    }
}

/// Flags of the superblock as fsconfig(2) names them.
fn superblock_options(flags: SbFlags, seal: bool) -> Vec<CString> {
    let names = [
        (SbFlags::RDONLY, c"ro"),
        (SbFlags::SYNCHRONOUS, c"sync"),
        (SbFlags::DIRSYNC, c"dirsync"),
        (SbFlags::MANDLOCK, c"mand"),
        (SbFlags::LAZYTIME, c"lazytime"),
    ];
    let wanted = names.iter().filter(|(bit, _)| flags.set & bit != 0);
    wanted
        .filter(|(bit, _)| !(seal && *bit == SbFlags::RDONLY))
        .map(|(_, n)| (*n).to_owned())
        .collect()
}
