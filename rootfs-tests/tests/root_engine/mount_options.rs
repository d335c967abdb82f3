//! Options of mounts: each one reaches the kernel, on kernels old and new.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use boathook_runtime::ErrorKind;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde_json::json;

use super::support::hostmount::HostMount;
use super::support::mountinfo::{self, Entry};
use super::support::{Arena, Live, tests};

tests!(
    each_option_of_a_mount_arrives,
    options_of_the_superblock_arrive,
    recursive_options_take_back_and_set,
    a_remount_changes_an_earlier_mount,
    a_remount_of_nothing_is_told,
    tmpcopyup_starts_with_what_was_there,
    tmpcopyup_beyond_its_size_is_told,
    tmpcopyup_is_for_tmpfs,
    the_same_without_mount_setattr,
    recursive_options_need_mount_setattr,
);

fn table(live: &Live) -> Vec<Entry> {
    mountinfo::parse(&live.proc("mountinfo"))
}

/// Red if an option is lost or taken for another, on a bind mount or on a new file system.
fn each_option_of_a_mount_arrives(arena: &Arena) {
    // What is asked for, and what mountinfo then has and has not.
    let rows: [(&[&str], &[&str], &[&str]); 12] = [
        (&["ro"], &["ro"], &["rw"]),
        (&["ro", "rw"], &["rw"], &["ro"]),
        (&["nosuid"], &["nosuid"], &["nodev", "noexec"]),
        (&["nodev"], &["nodev"], &["nosuid", "noexec"]),
        (&["noexec"], &["noexec"], &["nosuid", "nodev"]),
        (&["nosuid,nodev,noexec", "suid"], &["nodev", "noexec"], &["nosuid"]),
        (&["noatime"], &["noatime"], &["relatime"]),
        (&["strictatime"], &[], &["relatime", "noatime"]),
        (&["noatime", "relatime"], &["relatime"], &["noatime"]),
        (&["nodiratime"], &["nodiratime", "relatime"], &[]),
        (&["nosymfollow"], &["nosymfollow"], &[]),
        (&["nosymfollow", "symfollow"], &[], &["nosymfollow"]),
    ];
    let source = arena.make_dir("source");
    let mut case = arena.sleeper();
    for (number, (options, ..)) in rows.iter().enumerate() {
        let bind: Vec<&str> = ["bind"].into_iter().chain(options.iter().copied()).collect();
        case.bind(&source, &format!("/bind{number}"), &bind);
        case.mount(&format!("/new{number}"), "tmpfs", "tmpfs", options);
    }
    let live = case.start();
    let table = table(&live);
    for (number, (options, has, lacks)) in rows.iter().enumerate() {
        for point in [format!("/bind{number}"), format!("/new{number}")] {
            let found = mountinfo::at(&table, &point);
            assert!(has.iter().all(|o| found.has(o)), "{options:?}: {found:?}");
            assert!(!lacks.iter().any(|o| found.has(o)), "{options:?}: {found:?}");
        }
    }
    live.delete();
}

/// Red if a flag of the superblock does not reach a new file system, or stops the mount although
/// it has no meaning for it.
fn options_of_the_superblock_arrive(arena: &Arena) {
    let mut case = arena.sleeper();
    case.mount("/a", "tmpfs", "tmpfs", &["sync", "dirsync", "lazytime"]);
    case.mount("/b", "tmpfs", "tmpfs", &["sync", "async", "lazytime", "nolazytime"]);
    let nothing = ["iversion", "noiversion", "silent", "loud", "acl", "noacl", "defaults"];
    case.mount("/c", "tmpfs", "tmpfs", &nothing);
    let live = case.start();
    let table = table(&live);
    let superblock = |point: &str| mountinfo::at(&table, point).superblock.clone();
    for option in ["sync", "dirsync", "lazytime"] {
        assert!(superblock("/a").iter().any(|o| o == option), "{:?}", superblock("/a"));
        assert!(!superblock("/b").iter().any(|o| o == option), "{:?}", superblock("/b"));
    }
    live.delete();
}

/// Red if a recursive option stops at the top, or its opposite does not take it back below.
fn recursive_options_take_back_and_set(arena: &Arena) {
    let dir = arena.make_dir("source");
    let below = dir.join("below");
    let _mount = HostMount::tmpfs(&below);
    let mut case = arena.sleeper();
    let set = ["rro", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnodiratime", "rnosymfollow"];
    let mut options = vec!["rbind"];
    options.extend(set);
    case.bind(&dir, "/set", &options);
    // The later of two counts, as without the r.
    options.extend(["rrw", "rsuid", "rdev", "rexec", "rrelatime", "rdiratime", "rsymfollow"]);
    case.bind(&dir, "/back", &options);
    let live = case.start();
    let table = table(&live);
    for point in ["/set", "/set/below", "/back", "/back/below"] {
        let found = mountinfo::at(&table, point);
        for option in set {
            let name = option.strip_prefix('r').unwrap();
            assert_eq!(found.has(name), point.starts_with("/set"), "{point} {name}: {found:?}");
        }
    }
    live.delete();
}

/// Red if a remount changes what it does not name, the host's own mount, or nothing.
fn a_remount_changes_an_earlier_mount(arena: &Arena) {
    let dir = arena.dir().join("source");
    let _mount = HostMount::tmpfs(&dir);
    let mut case = arena.sleeper();
    case.bind(&dir, "/bound", &["bind", "nosuid"]);
    case.mount("/bound", "none", "", &["remount", "bind", "ro"]);
    case.mount("/dev/shm", "tmpfs", "shm", &["remount", "size=1m", "noexec"]);
    case.mount("/new", "tmpfs", "tmpfs", &["ro", "mode=755"]);
    case.mount("/new", "none", "none", &["remount", "rw"]);
    case.mount("/shut", "tmpfs", "tmpfs", &["mode=755"]);
    case.mount("/shut", "none", "none", &["remount", "ro", "lazytime"]);
    // After the remount, so it is sealed only in the end.
    case.bind(&dir, "/shut/below", &["bind"]);
    let live = case.start();
    let table = table(&live);
    let found = |point: &str| mountinfo::at(&table, point);
    assert!(found("/bound").has("ro") && found("/bound").has("nosuid"), "{:?}", found("/bound"));
    let shm = found("/dev/shm");
    assert!(shm.superblock.iter().any(|o| o == "size=1024k"), "{shm:?}");
    assert!(shm.has("nosuid") && shm.has("noexec") && shm.has("nodev"), "{shm:?}");
    assert!(found("/new").has("rw") && found("/shut").has("ro") && found("/shut/below").has("rw"));
    assert!(found("/shut").superblock.iter().any(|o| o == "lazytime"), "{:?}", found("/shut"));
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let host = mountinfo::parse(&host);
    let host = mountinfo::at(&host, dir.to_str().unwrap());
    assert!(host.has("rw") && !host.has("nosuid"), "{host:?}");
    live.delete();
}

/// Red if a remount makes a mount, reaches the superblock of the host's file system, or passes
/// with options that mean nothing to it.
fn a_remount_of_nothing_is_told(arena: &Arena) {
    let index = arena.sleeper().config["mounts"].as_array().unwrap().len();
    for (point, options, field) in [
        ("/nothing", &["remount", "ro"][..], "options: \"remount\": no earlier entry"),
        ("/dev/../nothing", &["remount"], "options: \"remount\": no earlier entry"),
        ("/bound", &["remount", "size=1m"], "options: \"size=1m\" on a bind mount"),
        ("/dev", &["remount", "bind", "size=1m"], "options: \"size=1m\" on a bind mount"),
        ("/dev", &["remount", "tmpcopyup"], "options: \"tmpcopyup\""),
    ] {
        let mut case = arena.sleeper();
        case.bind(arena.dir(), "/bound", &["bind"]);
        case.mount(point, "tmpfs", "tmpfs", options);
        let error = case.refused();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let start = format!("mounts[{}].{field}", index + 1);
        assert!(error.to_string().starts_with(&start), "{error} does not start with {start}");
    }
    let mut case = arena.sleeper();
    case.mount("/dev/shm", "tmpfs", "shm", &["remount", "no_such_option"]);
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("remount at \"/dev/shm\""), "{error}");
}

/// Red if a file, its content, owner, mode or time is missing, or a link is followed.
fn tmpcopyup_starts_with_what_was_there(arena: &Arena) {
    let mut case = arena.sleeper();
    let dir = case.file("/full");
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(dir.join("large"), &large).unwrap();
    fs::write(dir.join("sub/deep/file"), "content").unwrap();
    for number in 0..300 {
        fs::write(dir.join(format!("sub/a-name-that-is-not-short-{number}")), "").unwrap();
    }
    symlink("/etc/passwd", dir.join("link")).unwrap();
    mknod(&dir.join("pipe"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0).unwrap();
    mknod(&dir.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 3))
        .unwrap();
    chown(dir.join("sub/deep/file"), Some(7), Some(8)).unwrap();
    chown(&dir, Some(9), Some(10)).unwrap();
    for (name, mode) in [("sub/deep/file", 0o4751), ("sub/deep", 0o2750), ("", 0o1770)] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let capability = attribute_everything(&dir);
    let want = fs::metadata(dir.join("sub/deep/file")).unwrap();
    case.mount("/full", "tmpfs", "tmpfs", &["tmpcopyup", "size=16m"]);
    case.mount("/made", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let live = case.start();
    let inside = |name: &str| live.inside(&format!("/full/{name}"));
    assert_eq!(fs::read(inside("large")).unwrap(), large);
    let got = fs::metadata(inside("sub/deep/file")).unwrap();
    assert_eq!((got.mode(), got.uid(), got.gid()), (0o104_751, 7, 8));
    assert_eq!((got.mtime(), got.mtime_nsec()), (want.mtime(), want.mtime_nsec()));
    assert_eq!(xattr(&inside("sub/deep/file"), "security.capability"), capability);
    assert_eq!(xattr(&inside("sub/deep/file"), "trusted.empty"), b"");
    assert_eq!(xattr(&inside("sub/deep/file"), "trusted.long").len(), 3000);
    assert_eq!(xattr(&inside("sub/deep"), "trusted.where"), b"directory");
    assert_eq!(xattr(&inside(""), "trusted.where"), b"top");
    assert_eq!(fs::metadata(inside("sub/deep")).unwrap().mode(), 0o042_750);
    let top = fs::metadata(inside("")).unwrap();
    assert_eq!((top.mode(), top.uid(), top.gid()), (0o041_770, 9, 10));
    assert_eq!(fs::read_dir(inside("sub")).unwrap().count(), 301);
    assert_eq!(fs::read_link(inside("link")).unwrap().to_str(), Some("/etc/passwd"));
    assert_eq!(fs::symlink_metadata(inside("pipe")).unwrap().mode(), 0o010_640);
    let null = fs::symlink_metadata(inside("null")).unwrap();
    assert_eq!((null.mode(), null.rdev()), (0o020_600, makedev(1, 3)));
    assert_eq!(mountinfo::at(&table(&live), "/full").kind, "tmpfs");
    // It is a copy.
    live.sh("rm -r /full/sub; echo x > /full/large");
    live.delete();
    assert_eq!(fs::metadata(dir.join("large")).unwrap().len(), 3_000_000);
    assert!(dir.join("sub/deep/file").exists());
}

/// Red if half a copy passes for the whole.
fn tmpcopyup_beyond_its_size_is_told(arena: &Arena) {
    let mut case = arena.sleeper();
    fs::create_dir(case.file("/full")).unwrap();
    fs::write(case.file("/full/large"), vec![1; 1 << 20]).unwrap();
    case.mount("/full", "tmpfs", "tmpfs", &["tmpcopyup", "size=64k"]);
    let error = case.refused();
    let text = error.to_string();
    assert!(text.contains("tmpcopyup of \"/full\"") && text.contains("o space left"), "{text}");
}

/// Gives the tree of the test extended attributes; returns the capabilities of its program.
fn attribute_everything(dir: &Path) -> Vec<u8> {
    // VFS_CAP_REVISION_2 of linux/capability.h: CAP_NET_BIND_SERVICE, effective and permitted.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (name, attribute, value) in [
        ("sub/deep/file", "security.capability", &capability[..]),
        ("sub/deep/file", "trusted.empty", b""),
        ("sub/deep/file", "trusted.long", &[7; 3000]),
        ("sub/deep", "trusted.where", b"directory"),
        ("", "trusted.where", b"top"),
    ] {
        setxattr(dir.join(name), attribute, value, XattrFlags::empty())
            .unwrap_or_else(|error| panic!("{attribute} of {name:?}: {error}"));
    }
    capability.to_vec()
}

fn xattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 4096];
    let length = getxattr(path, name, &mut value)
        .unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
    value.truncate(length);
    value
}

/// Red if it passes for something that it does nothing for.
fn tmpcopyup_is_for_tmpfs(arena: &Arena) {
    let index = arena.sleeper().config["mounts"].as_array().unwrap().len();
    for (kind, options) in [("bind", &["bind", "tmpcopyup"][..]), ("mqueue", &["tmpcopyup"])] {
        let mut case = arena.sleeper();
        case.mount("/x", kind, "/", options);
        let error = case.refused();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let start = format!("mounts[{index}].options: \"tmpcopyup\" ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
}

/// Red if a kernel of the 5.10 series, which has no mount_setattr, makes another container.
fn the_same_without_mount_setattr(arena: &Arena) {
    let dir = arena.dir().join("source");
    let _mount = HostMount::shared(&dir);
    let mut case = arena.sleeper();
    case.bind(&dir, "/flags", &["bind", "ro", "nosuid", "noexec", "noatime"]);
    case.bind(&dir, "/shared", &["rbind", "rshared"]);
    case.bind(&dir, "/plain", &["rbind"]);
    case.mount("/mnt", "tmpfs", "tmpfs", &["ro", "nodev", "mode=755"]);
    case.bind(&dir, "/mnt/below", &["bind", "private"]);
    case.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
    case.config["root"]["readonly"] = json!(true);
    case.config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/etc"]);
    let seen = |live: Live| -> Vec<_> {
        let table = table(&live);
        live.start();
        assert_eq!(live.sh("touch /etc/x /x /flags/x /mnt/x 2>&1 | grep -c Read-only"), "4");
        live.delete();
        let kept = |entry: Entry| {
            let groups = entry.propagation.iter();
            let groups: Vec<_> = groups
                .map(|group| group.split(':').next().unwrap_or_default().to_owned())
                .collect();
            (entry.point, entry.options, groups)
        };
        table.into_iter().map(kept).collect()
    };
    let new = seen(case.create().unwrap());
    let old = seen(case.create_without(libc::SYS_mount_setattr).unwrap());
    assert_eq!(old, new);
}

/// Red if half of it is done and passes for the whole.
fn recursive_options_need_mount_setattr(arena: &Arena) {
    let mut case = arena.sleeper();
    case.bind(arena.dir(), "/mnt", &["rbind", "rro"]);
    let error = case.create_without(libc::SYS_mount_setattr).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
    assert!(text.contains("recursive options of the mount at \"/mnt\""), "{text}");
}
