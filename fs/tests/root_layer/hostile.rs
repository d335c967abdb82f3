//! Layers that want out, and layers that are merely strange.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use boathook_fs::ErrorKind;
use boathook_fs::layer::{Limits, Options};

use super::{Tarball, Yard, quick, read};

fn tarball() -> Tarball {
    Tarball::default()
}

/// Red when a name or a target with `..` reaches the file system, or when an
/// error leaves half a layer behind (the yard looks).
#[test]
fn root_what_is_refused_leaves_nothing() {
    let yard = Yard::new();
    for (what, tarball, wanted) in [
        ("dotdot", tarball().file("../canary/file", "x"), "`..`"),
        ("dotdot inside", tarball().file("a/../b", "x"), "`..`"),
        ("hard link out", tarball().hard_link("a", "../canary/file"), "target: the name has"),
        ("hard link absolute", tarball().hard_link("a", "/etc/passwd"), "not in this layer"),
        ("hard link to itself", tarball().hard_link("a", "a"), "not in this layer"),
        (
            "hard link to itself, there",
            tarball().file("a", "x").hard_link("a", "./a"),
            "cannot be a link to itself",
        ),
        (
            "hard link to a directory",
            tarball().dir("d", 0o755).hard_link("a", "d"),
            "one name only",
        ),
        (
            "hard link through a link",
            tarball().symlink("l", "/").hard_link("a", "l/etc/passwd"),
            "not in this layer",
        ),
        ("file as root", tarball().file("./", "x"), "must be a directory"),
        ("a whiteout device", tarball().device("d/x", 0, 0), "device 0:0"),
        ("a file as a parent", tarball().file("a", "x").file("a/b", "x"), "openat"),
        (
            "a loop of links",
            tarball().symlink("a", "b").symlink("b", "a").file("a/x", ""),
            "openat2",
        ),
        ("a whiteout of ..", tarball().file("d/.wh...", ""), "names no file"),
        ("an unknown type", tarball().entry("z", b'Z', 0, "", b""), "unknown type 'Z'"),
    ] {
        let error = yard.apply(tarball).unwrap_err();
        assert!(error.to_string().contains(wanted), "{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
    }
}

/// Red when a link among the parents is followed by anybody but the kernel
/// with the layer as the root.
#[test]
fn root_links_among_the_parents_stay_inside() {
    links_among_the_parents_stay_inside();
}

/// The same where the kernel has no openat2, or a sandbox refuses it.
#[test]
fn root_links_stay_inside_without_openat2() {
    let thread = std::thread::spawn(|| {
        super::common::sys::take_away(&[libc::SYS_openat2]);
        links_among_the_parents_stay_inside();
        hard_links();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn links_among_the_parents_stay_inside() {
    let yard = Yard::new();
    let canary = yard.canary();
    let canary = canary.to_str().unwrap();
    for target in [canary.to_owned(), format!("../../../../../../..{canary}"), "/".to_owned()] {
        let tarball = tarball()
            .symlink("l", &target)
            .file("l/file", "inside")
            .dir("l/sub", 0o700)
            .file("l/sub/x", "inside")
            .file("after", "a");
        let (layer, _) = yard.apply(tarball).unwrap();
        let place = layer.join(target.trim_start_matches("../").trim_start_matches('/'));
        let place = if target == "/" { layer.clone() } else { place };
        assert_eq!(read(place.join("file")), "inside", "{target}");
        assert_eq!(read(place.join("sub/x")), "inside", "{target}");
        let meta = fs::metadata(place.join("sub")).unwrap();
        assert_eq!((meta.mode() & 0o777, meta.mtime()), (0o700, 0o14_524_250_400));
        assert!(fs::symlink_metadata(layer.join("l")).unwrap().is_symlink());
    }
}

/// Red when the last component is followed or opened: a link, a fifo or a
/// device in the place of a file is replaced.
#[test]
fn root_the_last_entry_of_a_name_counts() {
    let yard = Yard::new();
    let canary = yard.canary().join("file");
    let canary = canary.to_str().unwrap();
    let tarball = tarball()
        .symlink("link", canary)
        .file("link", "mine")
        .symlink("dir", canary)
        .dir("dir", 0o750)
        .device("node", 1, 3)
        .file("node", "mine")
        .entry("fifo", b'6', 0o644, "", b"")
        .file("fifo", "mine")
        .file("twice", "one")
        .entry("twice", b'0', 0o600, "", b"two")
        .dir("tree", 0o755)
        .file("tree/a/b/c", "x")
        .file("tree", "a file")
        .file("back", "a file")
        .dir("back", 0o711)
        .file("back/in", "x")
        .dir("back", 0o700);
    let (layer, _) = yard.apply(tarball).unwrap();
    for name in ["link", "node", "fifo"] {
        assert!(fs::symlink_metadata(layer.join(name)).unwrap().is_file(), "{name}");
        assert_eq!(read(layer.join(name)), "mine");
    }
    assert_eq!(fs::symlink_metadata(layer.join("dir")).unwrap().mode(), 0o040_750);
    assert_eq!(read(layer.join("twice")), "two");
    assert_eq!(fs::metadata(layer.join("twice")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(read(layer.join("tree")), "a file");
    assert_eq!(read(layer.join("back/in")), "x");
    assert_eq!(fs::metadata(layer.join("back")).unwrap().mode() & 0o777, 0o700);
}

/// Red when a hard link is made to anything but the target itself, or does not
/// bring its metadata to the file that both are.
#[test]
fn root_hard_links() {
    hard_links();
}

fn hard_links() {
    let yard = Yard::new();
    let tarball = tarball()
        .file("old", "old")
        .file("a", "x")
        .entry("b", b'1', 0o4755, "a", b"")
        .symlink("s", "nowhere")
        .hard_link("t", "s")
        .hard_link("old", "a")
        .device("n", 1, 3)
        .hard_link("m", "n");
    let (layer, _) = yard.apply(tarball).unwrap();
    let meta = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap();
    assert_eq!(meta("a").ino(), meta("b").ino());
    assert_eq!(meta("a").ino(), meta("old").ino());
    assert_eq!(meta("s").ino(), meta("t").ino());
    assert!(meta("t").is_symlink());
    assert_eq!(meta("n").ino(), meta("m").ino());
    assert!(meta("m").file_type().is_char_device());
    assert_eq!(read(layer.join("old")), "x");
    // The later entry's mode, which is the link's.
    assert_eq!(meta("a").mode() & 0o7777, 0o644);
}

#[test]
fn root_attributes_that_an_image_must_not_set() {
    let yard = Yard::new();
    let tarball = tarball()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", "y"),
            ("SCHILY.xattr.user.overlay.redirect", "/etc"),
            ("SCHILY.xattr.trusted.x", "y"),
            ("SCHILY.xattr.user.kept", "v"),
            ("SCHILY.xattr.user.empty", ""),
        ])
        .dir("d", 0o755)
        .pax(&[("SCHILY.xattr.user.x", "y")])
        .symlink("l", "d");
    let (layer, report) = yard.apply(tarball).unwrap();
    let tree = super::snapshot::of(&layer);
    let names: Vec<_> = tree[std::path::Path::new("d")].xattrs.keys().cloned().collect();
    assert_eq!(names, [b"user.empty".to_vec(), b"user.kept".to_vec()]);
    assert_eq!(report.warnings.count, 4, "{:?}", report.warnings);
    assert!(report.warnings.texts[0].contains("\"trusted.overlay.opaque\" left out"));
}

/// Red when depth costs descriptors or a stack: more than a process may open.
#[test]
fn root_a_deep_tree_needs_few_descriptors() {
    let yard = Yard::new();
    let mut tarball = tarball();
    let deep = |depth: usize| "d/".repeat(depth);
    for depth in 1..=1000 {
        let path = deep(depth);
        tarball = tarball.pax(&[("path", &path)]).dir("d", 0o755);
        if depth % 100 == 0 {
            tarball = tarball.file("top", "x");
        }
    }
    let removed = |tarball: Tarball| tarball.file("d", "no tree any more");
    let (layer, report) = yard.apply(tarball).unwrap();
    assert_eq!(report.entries, 1010);
    assert!(layer.join(deep(1000)).is_dir());
    let tarball = Tarball::default().pax(&[("path", &deep(1000))]).dir("d", 0o755);
    let (layer, _) = yard.apply(removed(tarball)).unwrap();
    assert_eq!(read(layer.join("d")), "no tree any more");
    let too_deep = Tarball::default().pax(&[("path", &deep(1025))]).dir("d", 0o755);
    let error = yard.apply(too_deep).unwrap_err().to_string();
    assert!(error.contains("more than the limit depth = 1024"), "{error}");
}

#[test]
fn root_limits_are_named_with_the_entry() {
    let yard = Yard::new();
    let limits = Limits { entries: 2, ..Limits::default() };
    let bytes = tarball().file("a", "").file("b", "").file("c", "").bytes();
    let error = yard.apply_bytes(&bytes, &Options { limits, ..quick() }).unwrap_err();
    assert_eq!(error.to_string(), "more than the limit entries = 2");
    let limits = Limits { path_bytes: 5, ..Limits::default() };
    let bytes = tarball().file("a/long/one", "").bytes();
    let error = yard.apply_bytes(&bytes, &Options { limits, ..quick() }).unwrap_err();
    assert_eq!(error.to_string(), "entry \"a/long/one\": more than the limit path-bytes = 5");
}

/// A size that is only claimed must cost nothing, and what came before is gone.
#[test]
fn root_a_cut_archive_publishes_nothing() {
    let yard = Yard::new();
    let whole = tarball().file("a", "x").entry("b", b'0', 0o644, "", &[b'y'; 5000]).bytes();
    for cut in [1024 + 100, 1536, 1536 + 700, 3000] {
        let error = yard.apply_bytes(&whole[..cut], &quick());
        match cut {
            // At the edge of a block, between two entries, an archive may end.
            1024 | 1536 if error.is_ok() => {}
            _ => assert!(error.unwrap_err().to_string().contains("the archive ends"), "{cut}"),
        }
    }
}
