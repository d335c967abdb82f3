//! `mount` on a real kernel: detached trees, their flags and propagation, and taking mounts away.

// The whole file is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use boathook_fs::ErrorKind;
use boathook_fs::flags::{self, Propagation, PropagationKind};
use boathook_fs::mount::{self, NewFs, Tree};
use boathook_fs::probe::Kernel;
use common::{dir, in_private_namespace, leaves_no_mount, mount_on, mount_raw, mounts};
use nix::mount::MsFlags;

fn tmpfs(options: &[&str]) -> boathook_fs::Result<Tree> {
    let o = flags::parse(options)?;
    Tree::new_fs(&NewFs {
        fstype: "tmpfs",
        source: Some("made"),
        sb: o.sb,
        data: &o.data,
        attr: o.attr_set,
    })
}

#[test]
fn root_options_of_a_new_filesystem() {
    in_private_namespace(|base| {
        let on = dir(base.join("on"));
        for (options, mount_options, super_options) in [
            (&["rw"][..], "rw,relatime", &["rw"][..]),
            (&["ro", "size=64k", "mode=700"], "ro,relatime", &["ro", "size=64k", "mode=700"]),
            (&["nosuid", "nodev", "noexec", "strictatime"], "rw,nosuid,nodev,noexec", &["rw"]),
            (&["noatime", "nodiratime"], "rw,noatime,nodiratime", &["rw"]),
            (
                &["sync", "dirsync", "nosymfollow"],
                "rw,relatime,nosymfollow",
                &["rw", "sync", "dirsync"],
            ),
            // tmpfs takes no such parameter, and mount(2) would not complain either.
            (&["acl", "iversion", "silent", "lazytime"], "rw,relatime", &["lazytime"]),
        ] {
            let root = tmpfs(options).unwrap().attach_at(&on).unwrap();
            let entry = mount_on(&on);
            assert_eq!(
                (entry.options.as_str(), entry.source.as_str()),
                (mount_options, "made"),
                "{options:?}"
            );
            let words: Vec<_> = entry.super_options.split(',').collect();
            for word in super_options {
                assert!(words.contains(word), "{word} in {words:?} for {options:?}");
            }
            mount::unmount_fd(root.as_fd()).unwrap();
        }
    });
}

#[test]
fn root_what_the_kernel_says_is_in_the_error() {
    in_private_namespace(|_| {
        let e = leaves_no_mount(|| tmpfs(&["size=many"]).unwrap_err());
        assert_eq!(
            (e.kind(), e.to_string().as_str()),
            (
                ErrorKind::Invalid,
                "fsconfig(tmpfs, size=many): Invalid argument (tmpfs: Bad value for 'size')"
            )
        );
        let e = tmpfs(&["nonsense"]).unwrap_err();
        assert!(e.to_string().contains("Unknown parameter 'nonsense'"), "{e}");
        let e = Tree::new_fs(&NewFs { fstype: "nosuchfs", ..NewFs::default() }).unwrap_err();
        assert_eq!(
            (e.kind(), e.to_string().as_str()),
            (ErrorKind::Unsupported, "fsopen(nosuchfs): No such device")
        );
        let e = tmpfs(&[&format!("mpol={}", "x".repeat(256))]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
        assert!(e.to_string().contains("value has 256 bytes, the kernel takes 255"), "{e}");
    });
}

#[test]
fn root_dropped_trees_were_never_there() {
    in_private_namespace(|base| {
        leaves_no_mount(|| {
            drop(tmpfs(&[]).unwrap());
            let from = File::open(base).unwrap();
            drop(Tree::clone_of(from.as_fd(), true).unwrap());
        });
    });
}

#[test]
fn root_flags_of_a_tree_change_before_it_is_attached() {
    in_private_namespace(|base| {
        let source = dir(base.join("source"));
        mount_raw(Some("sub"), &dir(source.join("sub")), Some("tmpfs"), MsFlags::MS_NOATIME);
        let on = dir(base.join("on"));
        for (options, top, sub) in [
            (&["rbind", "ro"][..], "ro,relatime", "rw,noatime"),
            (&["rbind", "rro", "rnosuid"], "ro,nosuid,relatime", "ro,nosuid,noatime"),
            (&["rbind", "noexec", "ratime"], "rw,noexec,relatime", "rw,relatime"),
            (&["rbind", "rstrictatime"], "rw", "rw"),
        ] {
            let o = flags::parse(options).unwrap();
            let from = File::open(base).unwrap();
            let mut tree = Tree::clone_at(from.as_fd(), Path::new("source"), true).unwrap();
            tree.set_attr(o.attr_set, o.attr_clr, false).unwrap();
            tree.set_attr(o.rec_set, o.rec_clr, true).unwrap();
            let root = tree.attach_at(&on).unwrap();
            assert_eq!(mount_on(&on).options, top, "{options:?}");
            assert_eq!(mount_on(&on.join("sub")).options, sub, "{options:?}");
            mount::unmount_fd(root.as_fd()).unwrap();
        }
        assert_eq!(mount_on(&source.join("sub")).options, "rw,noatime", "the source was changed");
    });
}

#[test]
fn root_flags_of_an_attached_mount() {
    in_private_namespace(|base| {
        let on = dir(base.join("on"));
        let root = tmpfs(&["nosuid", "noatime"]).unwrap().attach_at(&on).unwrap();
        let o = flags::parse(&["ro", "suid", "relatime"]).unwrap();
        mount::set_attr(root.as_fd(), o.attr_set, o.attr_clr, false).unwrap();
        assert_eq!(mount_on(&on).options, "ro,relatime");
        let not_a_root = File::open("/proc/self").unwrap();
        let e = mount::set_attr(not_a_root.as_fd(), o.attr_set, o.attr_clr, false).unwrap_err();
        assert_eq!(e.to_string(), "mount_setattr(set 0x1, clear 0x72): Invalid argument");
    });
}

#[test]
fn root_propagation_in_order() {
    in_private_namespace(|base| {
        let source = dir(base.join("source"));
        mount_raw(Some("source"), &source, Some("tmpfs"), MsFlags::empty());
        mount_raw(None, &source, None, MsFlags::MS_SHARED);
        let on = dir(base.join("on"));
        let id = mount_on(&source).propagation.replace("shared:", "");
        for (options, want) in [
            (&[][..], format!("shared:{id}")),
            (&["rslave"], format!("master:{id}")),
            (&["private"], String::new()),
            (&["unbindable"], "unbindable".to_owned()),
        ] {
            let mut tree = Tree::clone_at(File::open("/").unwrap().as_fd(), &source, true).unwrap();
            for change in flags::parse::<&str>(options).unwrap().propagation {
                tree.set_propagation(change).unwrap();
            }
            let root = tree.attach_at(&on).unwrap();
            assert_eq!(mount_on(&on).propagation, want, "{options:?}");
            mount::unmount_fd(root.as_fd()).unwrap();
        }
        let root = tmpfs(&[]).unwrap().attach_at(&on).unwrap();
        let shared = Propagation { kind: PropagationKind::Shared, recursive: true };
        mount::set_propagation(root.as_fd(), shared).unwrap();
        assert!(mount_on(&on).propagation.starts_with("shared:"));
        let mut tree = Tree::clone_of(root.as_fd(), false).unwrap();
        for change in flags::parse(&["slave", "shared"]).unwrap().propagation {
            tree.set_propagation(change).unwrap();
        }
        let second = tree.attach_at(&on).unwrap();
        let got = mount_on(&on).propagation;
        assert!(got.contains("shared:") && got.contains("master:"), "{got}");
        drop(second);
    });
}

#[test]
fn root_the_target_is_the_descriptor_and_not_its_name() {
    in_private_namespace(|base| {
        let (on, other) = (dir(base.join("on")), dir(base.join("other")));
        let target = File::open(&on).unwrap();
        std::fs::rename(&on, base.join("moved")).unwrap();
        symlink(&other, &on).unwrap();
        let root = tmpfs(&[]).unwrap().attach(target.as_fd()).unwrap();
        assert_eq!(mount_on(&base.join("moved")).source, "made");
        assert!(!mounts().iter().any(|m| m.point == other));
        drop(root);

        let file = base.join("file");
        std::fs::write(&file, "below").unwrap();
        std::fs::write(base.join("over"), "above").unwrap();
        let over = File::open(base.join("over")).unwrap();
        let tree = Tree::clone_of(over.as_fd(), false).unwrap();
        tree.attach(File::open(&file).unwrap().as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "above");
        let e = tmpfs(&[]).unwrap().attach(File::open(base.join("over")).unwrap().as_fd());
        assert_eq!(e.unwrap_err().kind(), ErrorKind::Invalid, "a directory on a file");
    });
}

#[test]
fn root_overlay_through_new_fs() {
    in_private_namespace(|base| {
        let (a, b, on) = (dir(base.join("a")), dir(base.join("b")), dir(base.join("on")));
        std::fs::write(a.join("in-a"), "").unwrap();
        std::fs::write(b.join("in-b"), "").unwrap();
        let list = format!("lowerdir={}:{}", a.display(), b.display());
        let o = flags::parse(&["ro", list.as_str()]).unwrap();
        let fs =
            NewFs { fstype: "overlay", source: None, sb: o.sb, data: &o.data, attr: o.attr_set };
        let _root = Tree::new_fs(&fs).unwrap().attach_at(&on).unwrap();
        assert!(on.join("in-a").exists() && on.join("in-b").exists());
    });
}

#[test]
fn root_everything_below_goes_and_nothing_beside() {
    in_private_namespace(|base| {
        let on = dir(base.join("on"));
        let place = |path: &Path| {
            let path = dir(path.to_owned());
            mount_raw(Some("x"), &path, Some("tmpfs"), MsFlags::empty());
        };
        for path in ["on-beside", "on/a", "on/a/b c", "on/a/b c", "on/d\\e/f\ng", "on/a/b c/deep"] {
            place(&base.join(path));
        }
        let beside = mounts().iter().filter(|m| !m.point.starts_with(&on)).count();
        assert!(mount::unmount_all_below(&on).unwrap() > 0);
        assert_eq!(mounts().len(), beside, "{:?}", mounts());
        assert_eq!(mount::unmount_all_below(&on).unwrap(), 0);
        assert_eq!(mount_on(&base.join("on-beside")).source, "x");

        // Stacked on the path itself, and found by another name of its parent.
        place(&on);
        place(&on);
        place(&on.join("sub"));
        symlink(base, base.join("alias")).unwrap();
        mount::unmount_all_below(&base.join("alias/on")).unwrap();
        assert_eq!(mounts().len(), beside);
        place(&on.join("only-below"));
        mount::unmount_all_below(&base.join("alias/on")).unwrap();
        assert_eq!(mounts().len(), beside);

        // A link in the last place is nothing that could be mounted on.
        place(&on);
        symlink(&on, base.join("link")).unwrap();
        leaves_no_mount(|| assert_eq!(mount::unmount_all_below(&base.join("link")).unwrap(), 0));
        leaves_no_mount(|| assert!(!mount::unmount_at(&base.join("link")).unwrap()));
        let held = File::create(on.join("busy")).unwrap();
        assert!(mount::unmount_at(&on).unwrap(), "a busy mount must go too");
        drop(held);
        assert!(!mount::unmount_at(&on).unwrap());
        let e = mount::unmount_fd(File::open(&on).unwrap().as_fd()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid);
    });
}

#[test]
fn root_probes_say_what_the_real_thing_does() {
    in_private_namespace(|base| {
        let kernel = Kernel::default();
        assert_eq!(kernel.mount_api(), tmpfs(&[]).unwrap().into_fd().is_ok());
        let mut tree = tmpfs(&[]).unwrap();
        tree.set_attr(libc::MOUNT_ATTR_RDONLY, 0, false).unwrap();
        assert_eq!(kernel.mount_setattr(), tree.into_fd().is_ok());
        assert!(kernel.mount_setattr() || !kernel.idmap_mounts());
        let context =
            rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        let real = rustix::mount::fsconfig_set_string(&context, "lowerdir+", base).is_ok();
        assert_eq!(kernel.overlay_lowerdir_append(), real);
    });
}
