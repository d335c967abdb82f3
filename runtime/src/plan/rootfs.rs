//! The root file system: attached, filled, entered, covered, sealed.

use std::path::{Path, PathBuf};

use boathook_init::{Slot, Step};
use oci_spec::runtime::{Linux, Spec};

use super::mounts::View;
use super::namespaces::{Birth, Namespaces};
use super::program::{Builder, HostFd};
use super::{Context, devices, mounts, process, sysctl, text};
use crate::hooks::Creating;
use crate::{Error, Result};

/// Adds every step from the first mount to the sealed root; returns the
/// container's proc file system, if it has a new one.
pub(super) fn steps(
    build: &mut Builder,
    spec: &Spec,
    root: &Path,
    context: &Context<'_>,
    view: &View<'_>,
) -> Result<Option<Slot>> {
    let namespaces = view.namespaces;
    let linux = spec.linux().as_ref().ok_or_else(|| Error::field("linux", "missing"))?;
    let own = spec.process().as_ref().ok_or_else(|| Error::field("process", "missing"))?;
    let holds = Creating::of(spec).any();
    if !namespaces.bare() {
        build.push(&Step::Propagation { flags: libc::MS_REC | libc::MS_SLAVE });
    }
    let tree = attach_root(build, root, holds)?;
    let mounted = mounts::steps(build, spec, context, view)?;
    devices::steps(build, spec, namespaces.own_user())?;
    let late = namespaces.birth() == Birth::Late;
    process::stdio(build, own, process::For::Container, late)?;
    if holds {
        build.push(&Step::Hold {});
    }
    build.push(if context.no_pivot_root { &Step::Chroot {} } else { &Step::Pivot {} });
    process::make_cwd(build, own)?;
    names(build, spec, namespaces)?;
    // Before the covers: they lie on the same proc file system.
    sysctl::steps(build, linux, namespaces, mounted.proc)?;
    covers(build, linux)?;
    for slot in mounted.seal {
        read_only(build, slot);
    }
    root_attributes(build, spec, linux, tree)?;
    Ok(mounted.proc)
}

/// The root's tree, which follows the host's mounts but tells it nothing.
/// Hooks of the create expect it at its place in the bundle.
fn attach_root(build: &mut Builder, root: &Path, holds: bool) -> Result<Slot> {
    let tree = build.fd(HostFd::Root(PathBuf::from(root)));
    let place = if holds { root } else { Path::new("/") };
    let at = text::c_string("root.path", place.as_os_str().as_encoded_bytes())?;
    build.push(&Step::MountRoot { tree, at: &at });
    let propagation = libc::MS_SLAVE;
    build.push(&Step::SetAttr { tree, set: 0, clear: 0, propagation, recursive: 1 });
    Ok(tree)
}

fn names(build: &mut Builder, spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    let hostname = spec.hostname().as_deref().filter(|n| !n.is_empty());
    let domainname = spec.domainname().as_deref().filter(|n| !n.is_empty());
    for (field, name) in [("hostname", hostname), ("domainname", domainname)] {
        let Some(name) = name else { continue };
        if !namespaces.own_uts() {
            let problem = "needs a uts namespace of the container's own";
            return Err(Error::field(field, problem));
        }
        if name.len() > NAME_MAX {
            return Err(Error::field(field, format!("{name:?} is longer than {NAME_MAX} bytes")));
        }
        let name = text::c_string(field, name)?;
        match field {
            "hostname" => build.push(&Step::Hostname { name: &name }),
            _ => build.push(&Step::Domainname { name: &name }),
        }
    }
    Ok(())
}

/// `__NEW_UTS_LEN` of the kernel.
const NAME_MAX: usize = 64;

fn covers(build: &mut Builder, linux: &Linux) -> Result<()> {
    for (index, path) in linux.readonly_paths().iter().flatten().enumerate() {
        let path = text::absolute(&format!("linux.readonlyPaths[{index}]"), Path::new(path))?;
        build.push(&Step::Readonly { path: &path });
    }
    let masked = linux.masked_paths().as_deref().unwrap_or_default();
    if masked.is_empty() {
        return Ok(());
    }
    let (dir, file) = (build.empty_dir(), build.null_device());
    for (index, path) in masked.iter().enumerate() {
        let path = text::absolute(&format!("linux.maskedPaths[{index}]"), Path::new(path))?;
        build.push(&Step::Mask { path: &path, dir, file });
    }
    Ok(())
}

fn read_only(build: &mut Builder, tree: Slot) {
    let set = libc::MOUNT_ATTR_RDONLY;
    build.push(&Step::SetAttr { tree, set, clear: 0, propagation: 0, recursive: 0 });
}

/// Propagation and read-only of the root itself, last of all.
fn root_attributes(build: &mut Builder, spec: &Spec, linux: &Linux, tree: Slot) -> Result<()> {
    if let Some(name) = linux.rootfs_propagation().as_deref().filter(|n| !n.is_empty()) {
        let (propagation, recursive) = propagation(name)?;
        build.push(&Step::SetAttr { tree, set: 0, clear: 0, propagation, recursive });
    }
    if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false) {
        read_only(build, tree);
    }
    Ok(())
}

fn propagation(name: &str) -> Result<(u64, u32)> {
    Ok(match name {
        "shared" => (libc::MS_SHARED, 0),
        "rshared" => (libc::MS_SHARED, 1),
        "slave" => (libc::MS_SLAVE, 0),
        "rslave" => (libc::MS_SLAVE, 1),
        "private" => (libc::MS_PRIVATE, 0),
        "rprivate" => (libc::MS_PRIVATE, 1),
        "unbindable" => (libc::MS_UNBINDABLE, 0),
        "runbindable" => (libc::MS_UNBINDABLE, 1),
        other => {
            let problem = format!("{other:?} is no propagation");
            return Err(Error::field("linux.rootfsPropagation", problem));
        }
    })
}
