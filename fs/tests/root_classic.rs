//! The fallbacks, with the newer system calls taken away from the test's thread.

// The whole file is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use boathook_fs::ErrorKind;
use boathook_fs::flags::{self, Propagation, PropagationKind, SbFlags};
use boathook_fs::mount::{self, NewFs, Tree};
use boathook_fs::overlay::Overlay;
use boathook_fs::probe::{Facilities, Kernel};
use boathook_fs::root::Root;
use boathook_fs::rootfs::{MountSpec, mount_rootfs, unmount_rootfs};
use common::sys::take_away;
use common::{dir, in_private_namespace, leaves_no_mount, mount_on, mounts};

/// What a kernel before 5.12 has not.
const SETATTR: &[libc::c_long] = &[libc::SYS_mount_setattr];
/// What the seccomp profile of an old outer container takes away.
const MOUNT_API: &[libc::c_long] = &[
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
];

fn layers(base: &Path, count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|i| {
            let layer = dir(base.join(format!("layer-{i}")));
            std::fs::write(layer.join(format!("only-{i}")), "").unwrap();
            layer
        })
        .collect()
}

fn list(layers: &[PathBuf]) -> String {
    layers.iter().map(|l| l.to_str().unwrap()).collect::<Vec<_>>().join(":")
}

fn spec(kind: &str, source: &Path, options: &[&str]) -> MountSpec {
    MountSpec {
        kind: kind.into(),
        source: source.to_str().unwrap().into(),
        target: String::new(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
    }
}

fn overlay_spec(base: &Path, count: usize) -> MountSpec {
    let lower = format!("lowerdir={}", list(&layers(base, count)));
    let upper = format!("upperdir={}", dir(base.join("up,per")).display());
    let work = format!("workdir={}", dir(base.join("work")).display());
    spec("overlay", Path::new("overlay"), &[&lower, &upper, &work, "index=off", "nosuid"])
}

fn check_rootfs(base: &Path) {
    let on = dir(base.join("rootfs"));
    let before = mounts();
    let root = mount_rootfs(&[overlay_spec(base, 2)], &on).unwrap().keep().unwrap();
    assert!(on.join("only-0").exists() && on.join("only-1").exists());
    assert_eq!(mount_on(&on).options, "rw,nosuid,relatime");
    let inside = Root::from_fd(root);
    inside.create_file(Path::new("new"), nix::sys::stat::Mode::empty()).unwrap();
    assert!(base.join("up,per/new").exists(), "the descriptor is not the root of the mount");
    unmount_rootfs(&on).unwrap();
    assert_eq!(mounts(), before);

    let source = dir(base.join("source"));
    let mounted = mount_rootfs(&[spec("bind", &source, &["rbind", "ro", "rslave"])], &on).unwrap();
    assert!(mount_on(&on).options.starts_with("ro,"), "{:?}", mount_on(&on));
    assert!(std::fs::write(on.join("f"), "x").is_err());
    std::fs::write(source.join("f"), "x").unwrap();
    mounted.undo().unwrap();
    assert_eq!(mounts(), before);

    let bad = spec("bind", &source, &["rbind", "rro"]);
    let e = leaves_no_mount(|| mount_rootfs(&[bad], &on).unwrap_err());
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("mount_setattr(set 0x1, clear 0x0, AT_RECURSIVE)"), "{e}");

    let missing = spec("bind", &base.join("missing"), &["rbind"]);
    let e = leaves_no_mount(|| mount_rootfs(&[missing], &on).unwrap_err());
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
}

#[test]
fn root_rootfs_without_mount_setattr() {
    in_private_namespace(|base| {
        take_away(SETATTR);
        assert!(!Kernel::default().mount_setattr() && !Kernel::default().idmap_mounts());
        assert!(Kernel::default().mount_api());
        check_rootfs(base);
    });
}

#[test]
fn root_rootfs_without_the_mount_api() {
    in_private_namespace(|base| {
        take_away(MOUNT_API);
        assert!(!Kernel::default().mount_api() && !Kernel::default().overlay_lowerdir_append());
        check_rootfs(base);
        let e = leaves_no_mount(|| {
            mount_rootfs(&[overlay_spec(base, 300)], &base.join("rootfs")).unwrap_err()
        });
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().contains("overlay mount options have "), "{e}");
    });
}

fn check_flags(base: &Path) {
    let on = dir(base.join("on"));
    let o = flags::parse(&["size=64k", "nosuid", "noatime", "mode=700"]).unwrap();
    let fs =
        NewFs { fstype: "tmpfs", source: Some("t"), sb: o.sb, data: &o.data, attr: o.attr_set };
    let mut tree = Tree::new_fs(&fs).unwrap();
    let more = flags::parse(&["ro", "suid", "nodev", "strictatime"]).unwrap();
    tree.set_attr(more.attr_set, more.attr_clr, false).unwrap();
    tree.set_propagation(Propagation { kind: PropagationKind::Shared, recursive: false }).unwrap();
    let root = tree.attach_at(&on).unwrap();
    let entry = mount_on(&on);
    assert_eq!((entry.options.as_str(), entry.source.as_str()), ("ro,nodev", "t"));
    assert!(entry.propagation.starts_with("shared:"), "{entry:?}");
    assert!(entry.super_options.contains("size=64k,mode=700"), "{entry:?}");

    let back = flags::parse(&["rw", "noatime", "nodiratime"]).unwrap();
    mount::set_attr(root.as_fd(), back.attr_set, back.attr_clr, false).unwrap();
    assert_eq!(mount_on(&on).options, "rw,nodev,noatime,nodiratime");
    let private = Propagation { kind: PropagationKind::Private, recursive: true };
    mount::set_propagation(root.as_fd(), private).unwrap();
    assert_eq!(mount_on(&on).propagation, "");
    let e = mount::set_attr(root.as_fd(), 1, 0, true).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);

    let mut tree = Tree::clone_of(root.as_fd(), false).unwrap();
    tree.set_attr(1, 0, false).unwrap();
    assert_eq!(tree.into_fd().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn root_flags_without_mount_setattr() {
    in_private_namespace(|base| {
        take_away(SETATTR);
        check_flags(base);
    });
}

#[test]
fn root_flags_without_the_mount_api() {
    in_private_namespace(|base| {
        take_away(MOUNT_API);
        check_flags(base);
    });
}

#[test]
fn root_a_change_that_fails_after_attaching_takes_the_mount_away() {
    in_private_namespace(|base| {
        take_away(SETATTR);
        let on = dir(base.join("on"));
        leaves_no_mount(|| {
            let fs = NewFs { fstype: "tmpfs", ..NewFs::default() };
            let mut tree = Tree::new_fs(&fs).unwrap();
            tree.set_attr(libc::MOUNT_ATTR_RDONLY, 0, false).unwrap();
            // The second change cannot be made: from here on mount(2) is gone too.
            take_away(&[libc::SYS_mount]);
            assert_eq!(tree.attach_at(&on).unwrap_err().kind(), ErrorKind::Unsupported);
        });
    });
}

#[test]
fn root_layers_as_one_list() {
    in_private_namespace(|base| {
        let old = Kernel::assume(Facilities {
            mount_api: true,
            mount_setattr: false,
            idmap_mounts: false,
            openat2: true,
            overlay_lowerdir_append: false,
        });
        let on = dir(base.join("on"));
        let mut odd = layers(base, 1);
        odd.push(dir(base.join("a:b\\c")));
        std::fs::write(base.join("a:b\\c/only-1"), "").unwrap();
        let escaped = list(&odd).replace("a:b\\c", "a\\:b\\\\c");
        // Up to 255 bytes by fsconfig, up to a page by mount(2), and no further.
        for (value, count) in
            [(escaped, 2), (list(&layers(base, 60)), 60), (list(&layers(base, 300)), 300)]
        {
            let o = flags::parse(&[format!("lowerdir={value}")]).unwrap();
            let overlay = Overlay::from_data(&o.data).unwrap();
            assert_eq!(overlay.layers(), count);
            let tree = overlay.tree_on(&old, None, SbFlags::default(), 0);
            if value.len() > 4096 {
                assert_eq!(tree.unwrap_err().kind(), ErrorKind::Unsupported);
                continue;
            }
            let root = tree.unwrap().attach_at(&on).unwrap();
            for i in 0..count {
                assert!(on.join(format!("only-{i}")).exists(), "layer {i} of {count}");
            }
            mount::unmount_fd(root.as_fd()).unwrap();
        }
    });
}

/// Red when a path is refused or leads out of its root where a filter takes openat2(2) away.
#[test]
fn root_paths_stay_inside_without_openat2() {
    in_private_namespace(|base| {
        let inside = base.join("inside");
        fs::create_dir_all(inside.join("etc")).unwrap();
        fs::write(inside.join("etc/passwd"), "").unwrap();
        for (name, target) in [("absolute", "/etc"), ("upwards", "../../../../etc")] {
            std::os::unix::fs::symlink(target, inside.join(name)).unwrap();
        }
        let wanted = fs::metadata(inside.join("etc/passwd")).unwrap().ino();
        take_away(&[libc::SYS_openat2]);
        assert!(!Kernel::default().openat2());
        let root = Root::open(&inside).unwrap();
        for path in ["etc/passwd", "absolute/passwd", "upwards/passwd", "../etc/passwd"] {
            let found = fs::File::from(root.resolve(Path::new(path)).unwrap());
            assert_eq!(found.metadata().unwrap().ino(), wanted, "{path}");
        }
        let e = root.resolve(Path::new("none")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    });
}
