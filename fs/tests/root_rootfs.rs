//! `rootfs` on a real kernel: overlays of few and many layers, binds, undo.

// The whole file is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use boathook_fs::ErrorKind;
use boathook_fs::rootfs::{MountSpec, mount_rootfs, mount_rootfs_mapped, unmount_rootfs};
use common::{dir, in_private_namespace, leaves_no_mount, mount_on, mount_raw, mounts};
use nix::mount::MsFlags;

fn spec(kind: &str, source: &str, options: Vec<String>) -> MountSpec {
    MountSpec { kind: kind.into(), source: source.into(), target: String::new(), options }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `count` layers; each has a file of its own and all have `top`, which tells the layer.
fn layers(base: &Path, count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|i| {
            let layer = dir(base.join(format!("snapshots/{i}/fs")));
            std::fs::write(layer.join(format!("only-{i}")), "").unwrap();
            std::fs::write(layer.join("top"), i.to_string()).unwrap();
            layer
        })
        .collect()
}

/// Options as containerd's overlay snapshotter writes them.
fn overlay(base: &Path, lower: &[PathBuf], writable: bool) -> MountSpec {
    let list: Vec<_> = lower.iter().map(|l| text(l).to_owned()).collect();
    let mut options = vec!["index=off".to_owned()];
    if writable {
        options.push(format!("workdir={}", text(&dir(base.join("work")))));
        options.push(format!("upperdir={}", text(&dir(base.join("upper")))));
    }
    options.push(format!("lowerdir={}", list.join(":")));
    spec("overlay", "overlay", options)
}

fn check_overlay(base: &Path, count: usize) {
    let on = dir(base.join("rootfs"));
    let lower = layers(base, count);
    let before = mounts();
    let spec = overlay(base, &lower, true);
    let list = spec.options.last().unwrap().len();
    let mounted = mount_rootfs(std::slice::from_ref(&spec), &on).unwrap();
    assert_eq!((mounted.count(), mounts().len()), (1, before.len() + 1));
    let root = mounted.keep().unwrap();

    let entry = mount_on(&on);
    assert_eq!((entry.fstype.as_str(), entry.source.as_str()), ("overlay", "overlay"));
    assert_eq!(std::fs::read_to_string(on.join("top")).unwrap(), "0", "the first layer is on top");
    for i in 0..count {
        assert!(on.join(format!("only-{i}")).exists(), "layer {i} of {count} ({list} bytes)");
    }
    std::fs::write(on.join("new"), "x").unwrap();
    assert!(base.join("upper/new").exists());
    let of_fd = nix::sys::stat::fstat(&root).unwrap();
    let of_path = std::fs::metadata(&on).unwrap();
    assert_eq!((of_fd.st_dev, of_fd.st_ino), (of_path.dev(), of_path.ino()));

    unmount_rootfs(&on).unwrap();
    assert_eq!(mounts(), before);
    unmount_rootfs(&on).unwrap();
    std::fs::remove_dir(&on).unwrap();
    unmount_rootfs(&on).unwrap();
}

#[test]
fn root_overlay_of_one_layer() {
    in_private_namespace(|base| check_overlay(base, 1));
}

#[test]
fn root_overlay_of_two_layers() {
    in_private_namespace(|base| check_overlay(base, 2));
}

#[test]
fn root_overlay_of_300_layers_is_longer_than_a_page() {
    in_private_namespace(|base| {
        let long: usize = layers(base, 300).iter().map(|l| text(l).len() + 1).sum();
        assert!(long > 4096, "the list has {long} bytes and proves nothing");
        check_overlay(base, 300);
    });
}

#[test]
fn root_overlay_read_only_has_no_upper() {
    in_private_namespace(|base| {
        let on = dir(base.join("rootfs"));
        let mut spec = overlay(base, &layers(base, 2), false);
        spec.options.extend(["ro", "nosuid", "nodev", "noatime"].map(str::to_owned));
        let _root = mount_rootfs(&[spec], &on).unwrap().keep();
        let entry = mount_on(&on);
        assert_eq!(entry.options, "ro,nosuid,nodev,noatime");
        assert!(entry.super_options.starts_with("ro,"), "{entry:?}");
        let e = std::fs::write(on.join("new"), "x").unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    });
}

#[test]
fn root_overlay_options_reach_the_kernel() {
    in_private_namespace(|base| {
        let on = dir(base.join("rootfs"));
        let mut spec = overlay(base, &layers(base, 2), true);
        spec.options.extend(["volatile", "metacopy=on,xino=off", "userxattr"].map(str::to_owned));
        // The kernel refuses metacopy together with userxattr: both words have reached it.
        let e = leaves_no_mount(|| mount_rootfs(std::slice::from_ref(&spec), &on).unwrap_err());
        let text = "rootfs mount 0 (overlay): fsconfig(overlay, create): Invalid argument";
        assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::Invalid, text));
        *spec.options.last_mut().unwrap() = "xino=bad".into();
        let e = leaves_no_mount(|| mount_rootfs(std::slice::from_ref(&spec), &on).unwrap_err());
        let text = "rootfs mount 0 (overlay): fsconfig(overlay, xino=bad): Invalid argument \
                    (overlay: Bad value for 'xino')";
        assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::Invalid, text));
        spec.options.pop();
        let _root = mount_rootfs(&[spec], &on).unwrap().keep();
        let entry = mount_on(&on);
        for word in ["volatile", "metacopy=on"] {
            assert!(entry.super_options.contains(word), "{word} in {entry:?}");
        }
    });
}

#[test]
fn root_odd_and_long_layer_names() {
    in_private_namespace(|base| {
        let long = format!("{0}/{0}/{0}", "n".repeat(120));
        let names = ["a:b", "c\\d", "e,f", "g h", "i\nj", "\\:", long.as_str()];
        let mut list = Vec::new();
        for name in names {
            let layer = dir(base.join("lower").join(name));
            std::fs::write(layer.join(format!("in-{}", list.len())), "").unwrap();
            list.push(text(&layer).replace('\\', "\\\\").replace(':', "\\:"));
        }
        let on = dir(base.join("rootfs"));
        let (upper, work) = (dir(base.join("up,p:e\\r")), dir(base.join("w").join(&long)));
        let options = vec![
            format!("lowerdir={}", list.join(":")),
            format!("upperdir={}", text(&upper).replace('\\', "\\\\")),
            format!("workdir={}", text(&work)),
        ];
        let _root = mount_rootfs(&[spec("overlay", "", options)], &on).unwrap().keep();
        for (i, name) in names.iter().enumerate() {
            assert!(on.join(format!("in-{i}")).exists(), "layer {name:?}");
        }
        std::fs::write(on.join("new"), "x").unwrap();
        assert!(upper.join("new").exists());
    });
}

#[test]
fn root_missing_layer_leaves_nothing() {
    in_private_namespace(|base| {
        let on = dir(base.join("rootfs"));
        let mut lower = layers(base, 3);
        lower.insert(1, base.join("missing"));
        let spec = overlay(base, &lower, true);
        let e = leaves_no_mount(|| mount_rootfs(&[spec], &on).unwrap_err());
        assert_eq!(e.kind(), ErrorKind::NotFound);
        let want = format!(
            "rootfs mount 0 (overlay): fsconfig(overlay, lowerdir+={}): No such file or directory",
            text(&base.join("missing"))
        );
        assert_eq!(e.to_string(), want);
    });
}

#[test]
fn root_a_later_failure_takes_the_earlier_mounts_away() {
    in_private_namespace(|base| {
        let on = dir(base.join("rootfs"));
        let first = overlay(base, &layers(base, 2), true);
        let tmp = |target: &str| MountSpec {
            target: target.into(),
            ..spec("tmpfs", "tmpfs", vec!["size=64k".into()])
        };
        for (bad, kind) in [
            (spec("bind", text(&base.join("missing")), vec!["rbind".into()]), ErrorKind::NotFound),
            (spec("nosuchfs", "none", Vec::new()), ErrorKind::Unsupported),
            (spec("tmpfs", "none", vec!["size=many".into()]), ErrorKind::Invalid),
            (tmp("no/such/target"), ErrorKind::NotFound),
            (tmp("top"), ErrorKind::Invalid),
        ] {
            let list = [first.clone(), tmp("/"), first.clone(), bad];
            let e = leaves_no_mount(|| mount_rootfs(&list, &on).unwrap_err());
            assert_eq!(e.kind(), kind, "{e}");
            assert!(e.to_string().starts_with("rootfs mount 3 ("), "{e}");
        }
        let e = mount_rootfs(&[spec("tmpfs", "none", vec!["size=many".into()])], &on).unwrap_err();
        assert!(e.to_string().contains("Bad value for 'size'"), "{e}");
    });
}

#[test]
fn root_targets_stay_inside_and_undo_takes_only_its_own() {
    in_private_namespace(|base| {
        let on = dir(base.join("rootfs"));
        let outside = dir(base.join("data"));
        let lower = layers(base, 1);
        dir(lower[0].join("data/inner"));
        symlink("/../../../data", lower[0].join("way-out")).unwrap();
        mount_raw(Some("other"), &on, Some("tmpfs"), MsFlags::empty());
        let before = mounts();
        let list = [
            overlay(base, &lower, true),
            MountSpec { target: "way-out/inner".into(), ..spec("tmpfs", "sub", Vec::new()) },
        ];
        let mounted = mount_rootfs(&list, &on).unwrap();
        assert_eq!(mount_on(&on.join("data/inner")).source, "sub");
        assert!(!mounts().iter().any(|m| m.point.starts_with(&outside)));
        assert_eq!(mount_on(&on).fstype, "overlay");
        mounted.undo().unwrap();
        assert_eq!(mounts(), before);
        drop(mount_rootfs(&list, &on).unwrap());
        assert_eq!(mounts(), before);

        let _root = mount_rootfs(&list, &on).unwrap().keep();
        assert_eq!(mounts().len(), before.len() + 2);
        unmount_rootfs(&on).unwrap();
        assert!(!mounts().iter().any(|m| m.point.starts_with(&on)));
    });
}

#[test]
fn root_bind_and_rbind() {
    in_private_namespace(|base| {
        let on = dir(base.join("rootfs"));
        let source = dir(base.join("source"));
        mount_raw(Some("sub"), &dir(source.join("sub")), Some("tmpfs"), MsFlags::empty());
        let bind = |options: &[&str]| {
            let options = options.iter().map(|o| (*o).to_owned()).collect();
            mount_rootfs(&[spec("bind", text(&source), options)], &on).unwrap()
        };
        let mounted = bind(&["rbind", "rw"]);
        std::fs::write(on.join("f"), "x").unwrap();
        assert!(source.join("f").exists());
        assert_eq!(mount_on(&on.join("sub")).source, "sub");
        mounted.undo().unwrap();

        let mounted = bind(&["rbind", "ro"]);
        assert!(mount_on(&on).options.starts_with("ro"));
        assert!(mount_on(&on.join("sub")).options.starts_with("rw"), "ro is of one mount only");
        assert!(std::fs::write(on.join("f"), "x").is_err());
        mounted.undo().unwrap();

        let mounted = bind(&["rbind", "rro"]);
        assert!(mount_on(&on.join("sub")).options.starts_with("ro"));
        mounted.undo().unwrap();

        mount_raw(None, &source.join("sub"), None, MsFlags::MS_SHARED);
        let mounted = bind(&["rbind", "rslave"]);
        assert!(mount_on(&on.join("sub")).propagation.starts_with("master:"));
        mounted.undo().unwrap();

        let mounted = bind(&["bind"]);
        assert!(!mounts().iter().any(|m| m.point == on.join("sub")), "bind took a submount");
        mounted.undo().unwrap();
        std::fs::write(source.join("sub/still-writable"), "x").unwrap();
    });
}

#[test]
fn root_a_link_in_place_of_the_rootfs_is_not_followed() {
    in_private_namespace(|base| {
        let elsewhere = dir(base.join("elsewhere"));
        let on = base.join("rootfs");
        symlink(&elsewhere, &on).unwrap();
        let spec = overlay(base, &layers(base, 2), true);
        let e = leaves_no_mount(|| mount_rootfs(&[spec], &on).unwrap_err());
        assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
        mount_raw(Some("kept"), &elsewhere, Some("tmpfs"), MsFlags::empty());
        leaves_no_mount(|| unmount_rootfs(&on).unwrap());
    });
}

#[test]
fn root_rounds_leave_no_mount_and_no_descriptor() {
    in_private_namespace(|base| {
        let on = dir(base.join("rootfs"));
        let spec = overlay(base, &layers(base, 5), true);
        // Of this thread alone: other tests of this program come and go.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
        let descriptors = || std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
        let before = descriptors();
        leaves_no_mount(|| {
            for round in 0..100 {
                let root = mount_rootfs(std::slice::from_ref(&spec), &on).unwrap().keep();
                assert!(root.is_some(), "round {round}");
                unmount_rootfs(&on).unwrap();
            }
        });
        assert_eq!(descriptors(), before);
    });
}

/// A user namespace whose root is `ROOT` outside; its process ends with this call.
fn user_namespace() -> std::fs::File {
    let mut child = std::process::Command::new("unshare")
        .args(["--user", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // `cat` answers only once it lives in the new namespace.
    let mut said = [0; 1];
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", child.id()), format!("0 {ROOT} 65536")).unwrap();
    }
    let namespace = std::fs::File::open(format!("/proc/{}/ns/user", child.id())).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    namespace
}

const ROOT: u32 = 200_000;

fn mapped(mut spec: MountSpec) -> MountSpec {
    spec.options.extend(["uidmap", "gidmap"].map(|key| format!("{key}=0:{ROOT}:65536")));
    spec
}

/// Red when a layer is taken without its mapping, or when the mapped layers stay mounted.
#[test]
fn root_layers_get_the_owners_of_a_user_namespace() {
    in_private_namespace(|base| {
        let on = dir(base.join("rootfs"));
        let lower = layers(base, 3);
        let spec = mapped(overlay(base, &lower, true));
        let before = mounts();
        let userns = user_namespace();
        let rootfs = mount_rootfs_mapped(&[spec], &on, Some(userns.as_fd())).unwrap();
        assert_eq!((rootfs.count(), mounts().len()), (1, before.len() + 1));
        for file in ["top", "only-0", "only-2"] {
            let seen = std::fs::metadata(on.join(file)).unwrap();
            assert_eq!((seen.uid(), seen.gid()), (ROOT, ROOT), "{file}");
        }
        let layer = std::fs::metadata(lower[0].join("top")).unwrap();
        assert_eq!((layer.uid(), layer.gid()), (0, 0), "the layer itself is as it was");
        rootfs.undo().unwrap();
        assert_eq!(mounts(), before);
    });
}

/// A layer that cannot be mapped, here for want of a directory, leaves nothing mounted.
#[test]
fn root_a_mapped_layer_that_is_missing_leaves_nothing() {
    in_private_namespace(|base| {
        let on = dir(base.join("rootfs"));
        let mut lower = layers(base, 2);
        lower.push(base.join("nowhere"));
        let spec = mapped(overlay(base, &lower, true));
        let before = mounts();
        let userns = user_namespace();
        let e = mount_rootfs_mapped(&[spec], &on, Some(userns.as_fd())).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
        assert!(e.to_string().contains("nowhere"), "{e}");
        assert_eq!(mounts(), before);
    });
}
