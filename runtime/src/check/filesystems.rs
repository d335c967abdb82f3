//! File systems: what they can do with mounts that are attached nowhere.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use boathook_fs::mount::{NewFs, Tree};
use boathook_fs::probe::Kernel;
use nix::sys::statfs::{self, FsType, statfs};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use rustix::fs::CWD;
use rustix::mount::{FsOpenFlags, fsconfig_set_flag, fsconfig_set_string, fsopen};

use super::{Area, State};
use crate::Engine;
use crate::idmap::IdMappings;

pub(super) fn look(engine: &Engine, area: &mut Area<'_>) {
    overlay(area);
    match some_ids().and_then(|ids| ids.map(|ids| engine.id_namespace(&ids)).transpose()) {
        Ok(Some(userns)) => id_maps(userns.as_fd(), area),
        Ok(None) => {}
        Err(error) => {
            let text = format!("id-mapped mounts are refused: {error}");
            area.add("id-mapped mounts", State::Lacking, text);
        }
    }
    area.offers(
        "resctrl",
        crate::resctrl::mount_point().is_ok(),
        "linux.intelRdt",
        "containers with linux.intelRdt are refused",
    );
}

/// Options are set on a file system that is never made.
fn overlay(area: &mut Area<'_>) {
    let option = |set: &dyn Fn(BorrowedFd<'_>) -> rustix::io::Result<()>| {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC);
        context.is_ok_and(|context| set(context.as_fd()).is_ok())
    };
    area.offers(
        "overlay",
        option(&|_| Ok(())),
        "root file systems of layers",
        "images need another snapshotter than overlayfs",
    );
    area.prefers(
        "overlay: lowerdir+",
        Kernel::host().overlay_lowerdir_append(),
        "one layer per call, as many as the kernel takes",
        "all layers in one string of at most a page",
    );
    let refused = "root file systems with this option are refused";
    let flag = |name: &'static str| option(&|context| fsconfig_set_flag(context, name));
    area.offers("overlay: volatile", flag("volatile"), "faster, and lost in a crash", refused);
    area.offers("overlay: userxattr", flag("userxattr"), "mounts in user namespaces", refused);
    let metacopy = option(&|context| fsconfig_set_string(context, "metacopy", "on"));
    area.offers("overlay: metacopy", metacopy, "a change of owner copies no content", refused);
}

/// One user and one group, neither of which has to exist.
fn some_ids() -> crate::Result<Option<IdMappings>> {
    let range =
        LinuxIdMappingBuilder::default().container_id(0_u32).host_id(100_000_u32).size(1_u32);
    let one: Vec<LinuxIdMapping> = range.build().into_iter().collect();
    IdMappings::new("check", Some(&one), Some(&one))
}

/// For the places where images and volumes are, and for new file systems.
fn id_maps(userns: BorrowedFd<'_>, area: &mut Area<'_>) {
    let mut verdict = |name: String, tree: boathook_fs::Result<Tree>| {
        let done =
            tree.and_then(|mut tree| tree.id_map(userns, false).and_then(|()| tree.into_fd()));
        let refused = match &done {
            Ok(_) => String::new(),
            Err(error) => format!("id-mapped mounts of it are refused: {error}"),
        };
        area.offers(name, done.is_ok(), "id-mapped mounts", &refused);
    };
    for path in ["/", "/run", "/var/lib/containerd", "/var/lib/kubelet"].map(Path::new) {
        if let Ok(found) = statfs(path) {
            let name = format!("{} ({})", path.display(), name_of(found.filesystem_type()));
            verdict(name, Tree::clone_at(CWD, path, false));
        }
    }
    let tmpfs = NewFs { fstype: "tmpfs", ..NewFs::default() };
    verdict("new tmpfs".to_owned(), Tree::new_fs(&tmpfs));
    let layers = [("lowerdir".to_owned(), Some("/etc:/usr".to_owned()))];
    let overlay = NewFs { fstype: "overlay", data: &layers, ..NewFs::default() };
    verdict("new overlay".to_owned(), Tree::new_fs(&overlay));
}

fn name_of(kind: FsType) -> String {
    const KNOWN: [(FsType, &str); 6] = [
        (statfs::EXT4_SUPER_MAGIC, "ext4"),
        (statfs::XFS_SUPER_MAGIC, "xfs"),
        (statfs::BTRFS_SUPER_MAGIC, "btrfs"),
        (statfs::TMPFS_MAGIC, "tmpfs"),
        (statfs::OVERLAYFS_SUPER_MAGIC, "overlay"),
        (statfs::NFS_SUPER_MAGIC, "nfs"),
    ];
    let known = KNOWN.iter().find(|(magic, _)| *magic == kind);
    known.map_or_else(|| format!("type {:#x}", kind.0), |(_, name)| (*name).to_owned())
}
