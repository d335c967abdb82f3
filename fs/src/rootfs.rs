//! The root filesystem of a container, as containerd asks for it in Create: a list of mounts
//! to be made on `bundle/rootfs`, first one first.
//!
//! All or nothing: every entry is checked before the first is mounted, and an error takes away
//! what this call mounted. An overlay of N layers costs fsopen, N + about 5 fsconfig, fsmount,
//! move_mount and two closes.

mod mapped;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub use mapped::{IdMap, IdRange};

use crate::flags::{self, DataOption, MountOptions};
use crate::mount::{self, NewFs, Tree};
use crate::overlay::Overlay;
use crate::root::Root;
use crate::{Error, Result};

/// One mount of containerd's list (`containerd.types.Mount`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountSpec {
    /// `overlay`, `bind`, or any filesystem type of this kernel.
    pub kind: String,
    /// Directory of a bind mount, device of a filesystem, or any word.
    pub source: String,
    /// Path below the root filesystem to mount on; empty or `/` for the root itself.
    pub target: String,
    /// As in fstab.
    pub options: Vec<String>,
}

/// What [`mount_rootfs`] mounted. Dropped without [`MountedRootfs::keep`], it is undone.
#[derive(Debug)]
#[must_use = "dropping it unmounts the root filesystem"]
pub struct MountedRootfs {
    /// Roots of the mounts, in the order they were made.
    mounts: Vec<OwnedFd>,
    /// The position of the topmost mount on the root itself.
    root: Option<usize>,
}

impl MountedRootfs {
    /// Leaves the mounts in place; [`unmount_rootfs`] takes them away later. The result is the
    /// root directory of the container (`O_PATH`), if anything was mounted on it.
    pub fn keep(mut self) -> Option<OwnedFd> {
        let root = self.root.take();
        let mut mounts = std::mem::take(&mut self.mounts);
        root.map(|at| mounts.swap_remove(at))
    }

    /// The number of mounts made.
    #[must_use]
    pub fn count(&self) -> usize {
        self.mounts.len()
    }

    /// Takes exactly these mounts away, last first, whatever else is mounted there.
    ///
    /// # Errors
    /// The first error by errno, after all were tried.
    pub fn undo(mut self) -> Result<()> {
        self.take_away()
    }

    fn take_away(&mut self) -> Result<()> {
        let mut result = Ok(());
        while let Some(root) = self.mounts.pop() {
            let done = mount::unmount_fd(root.as_fd());
            result = result.and(done);
        }
        result
    }
}

impl Drop for MountedRootfs {
    fn drop(&mut self) {
        // Whoever wants to know calls `undo`.
        let _ = self.take_away();
    }
}

/// Mounts `mounts` on the existing directory `on`, an absolute path of the host whose last
/// component is no symbolic link. With no mounts it does nothing: the directory is the root.
///
/// # Errors
/// `rootfs mount 2 (overlay): …` with `Invalid` for bad options, `Unsupported` for what this
/// build cannot do yet (`loop`, `fuse.*` helpers, options for containerd's own mount manager) or the kernel has no filesystem for, `NotFound` for a
/// missing layer, source or target. Nothing stays mounted.
pub fn mount_rootfs(mounts: &[MountSpec], on: &Path) -> Result<MountedRootfs> {
    mount_rootfs_mapped(mounts, on, None)
}

/// The mapping of ids that the mounts ask for by `uidmap=` and `gidmap=`, if one does.
///
/// # Errors
/// `Invalid` naming the option; `Unsupported` when two mounts ask for different ones.
pub fn id_map(mounts: &[MountSpec]) -> Result<Option<IdMap>> {
    let mut found: Option<IdMap> = None;
    for (at, spec) in mounts.iter().enumerate() {
        let in_mount = |e: Error| e.context(format!("rootfs mount {at} ({})", spec.kind));
        match (IdMap::of(spec).map_err(in_mount)?, &found) {
            (Some(map), Some(other)) if map != *other => {
                let problem = "uidmap and gidmap differ from those of another mount";
                return Err(in_mount(Error::unsupported(problem)));
            }
            (Some(map), _) => found = Some(map),
            (None, _) => {}
        }
    }
    Ok(found)
}

/// As [`mount_rootfs`], with files of mounts that ask for it shown with the owners that the user
/// namespace `userns` maps them to; it holds the mapping of [`id_map`].
///
/// # Errors
/// As [`mount_rootfs`]; `Invalid` when a mount asks for a mapping and `userns` is not given, or
/// when a layer's filesystem cannot be mapped.
pub fn mount_rootfs_mapped(
    mounts: &[MountSpec],
    on: &Path,
    userns: Option<BorrowedFd<'_>>,
) -> Result<MountedRootfs> {
    if !on.is_absolute() {
        let text = format!("rootfs {}: path is not absolute", on.display());
        return Err(Error::invalid(text));
    }
    let named = |at: usize, spec: &MountSpec| {
        let name = format!("rootfs mount {at} ({})", spec.kind);
        move |e: Error| e.context(name)
    };
    let plans = mounts
        .iter()
        .enumerate()
        .map(|(at, spec)| Plan::new(spec, userns).map_err(named(at, spec)))
        .collect::<Result<Vec<_>>>()?;
    let mut done = MountedRootfs { mounts: Vec::with_capacity(mounts.len()), root: None };
    for (at, (spec, plan)) in mounts.iter().zip(&plans).enumerate() {
        let root = plan.mount(spec, on).map_err(named(at, spec))?;
        if is_root(&spec.target) {
            done.root = Some(at);
        }
        done.mounts.push(root);
    }
    Ok(done)
}

/// Detaches everything mounted on `on` or below it; may be repeated, and `on` may be gone.
///
/// # Errors
/// As [`mount::unmount_all_below`].
pub fn unmount_rootfs(on: &Path) -> Result<()> {
    mount::unmount_all_below(on).map(drop)
}

/// Options that containerd handles before it calls, or that need more than a mount.
const UNSUPPORTED: &[&str] = &["loop"];
/// Options that say how ids are mapped; see [`IdMap`].
const ID_MAP: &[&str] = &["uidmap", "gidmap"];
/// Values that are paths: taken whole, since nothing says that a path has no comma.
const PATHS: &[&str] = &["lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir"];

struct Plan<'a> {
    what: What,
    options: MountOptions,
    /// The user namespace whose mapping the files are shown with.
    userns: Option<BorrowedFd<'a>>,
}

enum What {
    Overlay(Overlay),
    Bind { recursive: bool },
    Other,
}

impl<'a> Plan<'a> {
    fn new(spec: &MountSpec, userns: Option<BorrowedFd<'a>>) -> Result<Self> {
        check_words(spec)?;
        let wanted = IdMap::of(spec)?.is_some();
        if wanted && userns.is_none() {
            return Err(Error::invalid("mount option uidmap: there is no user namespace for it"));
        }
        let is_overlay = spec.kind == "overlay";
        let mut words = Vec::with_capacity(spec.options.len());
        let mut paths: Vec<DataOption> = Vec::new();
        for option in &spec.options {
            let (key, value) =
                option.split_once('=').map_or((option.as_str(), None), |(k, v)| (k, Some(v)));
            if UNSUPPORTED.contains(&key) || key.starts_with("X-containerd.") {
                return Err(Error::unsupported(format!(
                    "mount option {option:?} is not supported"
                )));
            }
            if ID_MAP.contains(&key) {
                continue;
            }
            match value {
                Some(value) if is_overlay && PATHS.contains(&key) => {
                    paths.push((key.to_owned(), Some(value.to_owned())));
                }
                _ => words.push(option.as_str()),
            }
        }
        let mut options = flags::parse(&words)?;
        check_actions(&options)?;
        let what = match (spec.kind.as_str(), options.bind) {
            ("rbind", _) => What::Bind { recursive: true },
            ("bind", None) => What::Bind { recursive: false },
            (_, Some(bind)) => What::Bind { recursive: bind.recursive },
            ("overlay", None) => {
                paths.append(&mut options.data);
                What::Overlay(Overlay::from_data(&paths)?)
            }
            _ => What::Other,
        };
        if let (What::Bind { .. }, [(key, _), ..]) = (&what, options.data.as_slice()) {
            let text = format!("mount option {key:?} means nothing to a bind mount");
            return Err(Error::invalid(text));
        }
        if wanted && matches!(what, What::Other) {
            let text = format!("mount option uidmap is not supported for type {:?}", spec.kind);
            return Err(Error::unsupported(text));
        }
        Ok(Self { what, options, userns: userns.filter(|_| wanted) })
    }

    fn mount(&self, spec: &MountSpec, on: &Path) -> Result<OwnedFd> {
        let mut tree = self.tree(spec, on)?;
        let options = &self.options;
        tree.set_attr(options.rec_set, options.rec_clr, true)?;
        for change in &options.propagation {
            tree.set_propagation(*change)?;
        }
        if is_root(&spec.target) {
            return tree.attach_at(on);
        }
        let target = Root::open(on)?.resolve(Path::new(&spec.target))?;
        tree.attach(target.as_fd())
    }

    fn tree(&self, spec: &MountSpec, on: &Path) -> Result<Tree> {
        let MountOptions { attr_set, attr_clr, sb, .. } = self.options;
        match (&self.what, self.userns) {
            (What::Overlay(overlay), None) => overlay.tree(Some(&spec.source), sb, attr_set),
            (What::Overlay(overlay), Some(userns)) => {
                mapped::overlay(overlay, &spec.source, (sb, attr_set), on, userns)
            }
            (What::Bind { recursive }, userns) => {
                let source = Path::new(&spec.source);
                let mut tree = Tree::clone_at(rustix::fs::CWD, source, *recursive)?;
                userns.map_or(Ok(()), |userns| tree.id_map(userns, *recursive))?;
                tree.set_attr(attr_set, attr_clr, false)?;
                Ok(tree)
            }
            (What::Other, _) => Tree::new_fs(&NewFs {
                fstype: &spec.kind,
                source: Some(&spec.source),
                sb,
                data: &self.options.data,
                attr: attr_set,
            }),
        }
    }
}

fn is_root(target: &str) -> bool {
    target.bytes().all(|b| b == b'/')
}

fn check_words(spec: &MountSpec) -> Result<()> {
    let fields = [("type", &spec.kind), ("source", &spec.source), ("target", &spec.target)];
    if let Some((field, value)) = fields.iter().find(|(_, value)| value.contains('\0')) {
        return Err(Error::invalid(format!("{field} {value:?}: contains a NUL byte")));
    }
    if spec.kind.is_empty() {
        return Err(Error::invalid("type: is empty"));
    }
    // Served by programs (mount.fuse3 and its like), which this crate never executes.
    if spec.kind.starts_with("fuse.") || spec.kind.starts_with("fuse3.") {
        return Err(Error::unsupported(format!("type {:?} needs a mount helper", spec.kind)));
    }
    Ok(())
}

fn check_actions(options: &MountOptions) -> Result<()> {
    let unsupported = [
        (options.remount, "remount"),
        (options.tmpcopyup, "tmpcopyup"),
        (options.idmap.is_some(), "idmap"),
    ];
    match unsupported.iter().find(|(given, _)| *given) {
        Some((_, name)) => {
            Err(Error::unsupported(format!("mount option {name:?} is not supported for a rootfs")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn spec(kind: &str, options: &[&str]) -> MountSpec {
        MountSpec {
            kind: kind.into(),
            source: "/nowhere".into(),
            target: String::new(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        }
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name_before_anything_is_mounted() {
        let layers = "lowerdir=/a:/b";
        for (bad, kind, text) in [
            (
                spec("overlay", &[layers, "uidmap=0:1000:65536", "gidmap=0:1000:65536"]),
                ErrorKind::Invalid,
                "rootfs mount 1 (overlay): mount option uidmap: there is no user namespace for it",
            ),
            (
                spec("ext4", &["loop"]),
                ErrorKind::Unsupported,
                "rootfs mount 1 (ext4): mount option \"loop\" is not supported",
            ),
            (
                spec("overlay", &[layers, "X-containerd.mkdir.path=/x"]),
                ErrorKind::Unsupported,
                "rootfs mount 1 (overlay): mount option \"X-containerd.mkdir.path=/x\" is not supported",
            ),
            (
                spec("fuse3.fuse-overlayfs", &[]),
                ErrorKind::Unsupported,
                "rootfs mount 1 (fuse3.fuse-overlayfs): type \"fuse3.fuse-overlayfs\" needs a mount helper",
            ),
            (
                spec("bind", &["rbind", "size=1m"]),
                ErrorKind::Invalid,
                "rootfs mount 1 (bind): mount option \"size\" means nothing to a bind mount",
            ),
            (
                spec("bind", &["remount"]),
                ErrorKind::Unsupported,
                "rootfs mount 1 (bind): mount option \"remount\" is not supported for a rootfs",
            ),
            (spec("", &[]), ErrorKind::Invalid, "rootfs mount 1 (): type: is empty"),
            (
                spec("overlay", &["index=off"]),
                ErrorKind::Invalid,
                "rootfs mount 1 (overlay): overlay mount option lowerdir is missing",
            ),
        ] {
            // The first entry could be mounted by root, so only the order of checks saves it.
            let first = spec("tmpfs", &[]);
            let e = mount_rootfs(&[first, bad], Path::new("/no/such/rootfs")).unwrap_err();
            assert_eq!((e.kind(), e.to_string().as_str()), (kind, text));
        }
    }

    #[test]
    fn relative_bundle_paths_are_refused() {
        let e = mount_rootfs(&[], Path::new("rootfs")).unwrap_err();
        assert_eq!(e.to_string(), "rootfs rootfs: path is not absolute");
    }

    #[test]
    fn commas_in_layer_paths_do_not_part_options() {
        let plan = Plan::new(&spec("overlay", &["lowerdir=/a,b:/c", "index=off,userxattr"]), None)
            .unwrap();
        let What::Overlay(overlay) = plan.what else { panic!("not an overlay") };
        let data = |k: &str, v: Option<&str>| (k.to_owned(), v.map(str::to_owned));
        let want = Overlay::from_data(&[
            data("lowerdir", Some("/a,b:/c")),
            data("index", Some("off")),
            data("userxattr", None),
        ]);
        assert_eq!(overlay, want.unwrap());
    }

    #[test]
    fn no_mounts_means_nothing_to_do() {
        let done = mount_rootfs(&[], Path::new("/no/such/rootfs")).unwrap();
        assert_eq!(done.count(), 0);
        assert!(done.keep().is_none());
    }
}
