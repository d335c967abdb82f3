//! The container's view of cgroups at the destination of a `cgroup` mount.

use std::ffi::{CStr, CString};
use std::path::Path;

use boathook_fs::flags::{self, MountOptions};
use boathook_init::{Slot, Step};
use oci_spec::runtime::{Mount, Spec};

use super::mounts::Entry;
use super::namespaces::Namespaces;
use super::program::{Builder, HostFd};
use super::text;
use crate::Result;
use crate::cgroup::{HierarchyMount, Kind, Layout, Mode};

/// Adds the steps: on v2 one mount; on v1 a tmpfs with one mount for each
/// hierarchy, which in a cgroup namespace of its own shows the container's
/// cgroup as the root, and is a copy of that directory otherwise
/// (CVE-2023-25809: never the host's tree).
pub(super) fn steps(
    build: &mut Builder,
    entry: &Entry<'_>,
    layout: &Layout,
    own_namespace: bool,
) -> Result<Slot> {
    if layout.mode == Mode::V2 {
        let tree = view(build, entry, layout, 0, own_namespace, &entry.path)?;
        entry.propagate(build, tree);
        return Ok(tree);
    }
    let attrs = entry.attrs() & !libc::MOUNT_ATTR_RDONLY;
    let base = build.new_fs(c"tmpfs", c"tmpfs", &[c"mode=755".to_owned()], attrs);
    build.push(&Step::Attach { tree: base, path: &entry.path, strict: 1, keep_mode: 0 });
    entry.propagate(build, base);
    for (index, mount) in layout.mounts.iter().enumerate().filter(|(_, m)| !m.is_v2()) {
        let name = mount.mount_point.file_name().unwrap_or_default();
        let path = below(entry, name.as_ref())?;
        view(build, entry, layout, index, own_namespace, &path)?;
        links(build, entry, mount, name.as_encoded_bytes())?;
    }
    if entry.read_only() {
        let set = libc::MOUNT_ATTR_RDONLY;
        build.push(&Step::SetAttr { tree: base, set, clear: 0, propagation: 0, recursive: 0 });
    }
    Ok(base)
}

/// Who is to own the cgroup (config-linux.md, "Cgroup ownership"): on a v2 host the user that the
/// process is on the host, if the container sees the cgroup as its root and may write to it.
pub(super) fn owner(spec: &Spec, namespaces: &Namespaces, layout: &Layout) -> Option<u32> {
    if layout.mode != Mode::V2 || !namespaces.new_cgroup() {
        return None;
    }
    spec.mounts().iter().flatten().find(|mount| writable(mount))?;
    namespaces.host_uid(spec.process().as_ref()?.user().uid())
}

fn writable(mount: &Mount) -> bool {
    let kind = mount.typ().as_deref().unwrap_or_default();
    // What is wrong with the options is told where the mount is planned.
    let options = flags::parse(mount.options().as_deref().unwrap_or_default());
    let writable = |it: MountOptions| {
        it.bind.is_none() && (it.attr_set | it.rec_set) & libc::MOUNT_ATTR_RDONLY == 0
    };
    matches!(kind, "cgroup" | "cgroup2") && options.is_ok_and(writable)
}

fn below(entry: &Entry<'_>, name: &Path) -> Result<CString> {
    let mut path = entry.path.to_bytes().to_vec();
    path.push(b'/');
    path.extend_from_slice(name.as_os_str().as_encoded_bytes());
    text::c_string(&entry.field, path)
}

/// Attaches a tree that shows the container's cgroup in one hierarchy.
fn view(
    build: &mut Builder,
    entry: &Entry<'_>,
    layout: &Layout,
    index: usize,
    own_namespace: bool,
    path: &CStr,
) -> Result<Slot> {
    let Some(mount) = layout.mounts.get(index).filter(|_| own_namespace) else {
        let tree = build.fd(HostFd::CgroupTree(index));
        build.push(&Step::Attach { tree, path, strict: 1, keep_mode: 0 });
        let (set, propagation) = (entry.attrs(), libc::MS_PRIVATE);
        build.push(&Step::SetAttr { tree, set, clear: 0, propagation, recursive: 0 });
        return Ok(tree);
    };
    let (fstype, options) = match &mount.kind {
        Kind::V2 => (c"cgroup2", Vec::new()),
        Kind::Named(name) => (
            c"cgroup",
            vec![c"none".to_owned(), text::c_string(&entry.field, format!("name={name}"))?],
        ),
        Kind::V1(list) => (c"cgroup", controllers(&entry.field, list)?),
    };
    let tree = build.new_fs(fstype, c"cgroup", &options, entry.attrs());
    build.push(&Step::Attach { tree, path, strict: 1, keep_mode: 0 });
    Ok(tree)
}

fn controllers(field: &str, list: &str) -> Result<Vec<CString>> {
    list.split(',').map(|name| text::c_string(field, name)).collect()
}

/// `cpu -> cpu,cpuacct`, where several controllers share a hierarchy.
fn links(
    build: &mut Builder,
    entry: &Entry<'_>,
    mount: &HierarchyMount,
    name: &[u8],
) -> Result<()> {
    let Kind::V1(list) = &mount.kind else { return Ok(()) };
    let target = text::c_string(&entry.field, name)?;
    let target: &CStr = &target;
    for controller in list.split(',').filter(|c| c.as_bytes() != name) {
        let path = below(entry, controller.as_ref())?;
        build.push(&Step::Link { target, path: &path, replace: 0 });
    }
    Ok(())
}
