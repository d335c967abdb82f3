//! /dev: the default nodes and links, those of the config, and what the device cgroup lets open.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use boathook_runtime::ErrorKind;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{major, minor};
use serde_json::{Value, json};

use super::support::{Arena, Case, Live, tests};

tests!(
    the_default_nodes,
    the_default_links,
    nodes_of_the_config,
    a_listed_default_is_made_as_listed,
    a_mount_takes_the_place_of_a_default_node,
    an_equal_node_of_the_image_stays,
    a_different_file_of_the_image_is_an_error,
    the_device_cgroup_decides_who_opens,
    ptmx_belongs_to_the_containers_own_terminals,
);

fn devices(case: &mut Case<'_>, all: &Value) {
    case.config["linux"]["devices"] = all.clone();
}

fn number(live: &Live, path: &str) -> (u32, u32) {
    let found = fs::symlink_metadata(live.inside(path)).unwrap();
    (major(found.rdev()), minor(found.rdev()))
}

/// Red if one of the specification's default devices is missing, or is another device, or cannot
/// be used by everybody.
fn the_default_nodes(arena: &Arena) {
    let live = arena.sleeper().start();
    for (path, device) in [
        ("/dev/null", (1, 3)),
        ("/dev/zero", (1, 5)),
        ("/dev/full", (1, 7)),
        ("/dev/random", (1, 8)),
        ("/dev/urandom", (1, 9)),
        ("/dev/tty", (5, 0)),
    ] {
        let found = fs::symlink_metadata(live.inside(path)).unwrap();
        assert!(found.file_type().is_char_device(), "{path}");
        assert_eq!(number(&live, path), device, "{path}");
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o666, 0, 0), "{path}");
    }
    let text = "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c; \
                echo x > /dev/full";
    let used = live.run(&["sh", "-c", text]);
    assert_eq!(used.out, "4\n3\n");
    assert!(used.err.contains("No space left"), "{used:?}");
    let names = live.sh("ls /dev");
    let want = "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\n\
                urandom\nzero";
    assert_eq!(names, want);
    live.delete();
}

/// Red if a link is missing or leads elsewhere.
fn the_default_links(arena: &Arena) {
    let live = arena.sleeper().start();
    for (path, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ] {
        assert_eq!(fs::read_link(live.inside(path)).unwrap().to_str(), Some(target), "{path}");
    }
    live.delete();
}

/// Red if kind, number, mode or owner of a listed device are lost; the umask must not count.
fn nodes_of_the_config(arena: &Arena) {
    let mut case = arena.sleeper();
    devices(
        &mut case,
        &json!([
            { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666,
              "uid": 1000, "gid": 2000 },
            { "path": "/dev/deep/er/disk", "type": "b", "major": 7, "minor": 300, "fileMode": 0o640 },
            { "path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 5 },
            { "path": "/dev/plain", "type": "u", "major": 1, "minor": 5 },
            { "path": "/opt/elsewhere", "type": "c", "major": 1, "minor": 3, "fileMode": 0o2601 },
        ]),
    );
    let live = case.start();
    let found = |path: &str| {
        let found = fs::symlink_metadata(live.inside(path)).unwrap();
        (found.mode(), number(&live, path), found.uid(), found.gid())
    };
    assert_eq!(found("/dev/fuse"), (0o020_666, (10, 229), 1000, 2000));
    assert_eq!(found("/dev/deep/er/disk"), (0o060_640, (7, 300), 0, 0));
    assert_eq!(found("/dev/pipe"), (0o010_622, (0, 0), 5, 0));
    assert_eq!(found("/dev/plain"), (0o020_666, (1, 5), 0, 0));
    assert_eq!(found("/opt/elsewhere"), (0o022_601, (1, 3), 0, 0));
    live.delete();
}

/// Red if a default is made first and the config's own word about it becomes a conflict.
fn a_listed_default_is_made_as_listed(arena: &Arena) {
    let mut case = arena.sleeper();
    devices(
        &mut case,
        &json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600,
                  "uid": 7, "gid": 8 }]),
    );
    let live = case.start();
    let found = fs::metadata(live.inside("/dev/null")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o600, 7, 8));
    live.delete();
}

fn without_dev<'a>(arena: &'a Arena, args: &[&str]) -> Case<'a> {
    let mut case = arena.case(args);
    let mounts = case.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    case
}

/// Red if `-v /dev/urandom:/dev/random`, an old habit, is a conflict.
fn a_mount_takes_the_place_of_a_default_node(arena: &Arena) {
    let mut case = arena.sleeper();
    case.bind("/dev/urandom".as_ref(), "/dev/random", &["bind"]);
    case.bind("/dev/pts/ptmx".as_ref(), "/dev/ptmx", &["bind"]);
    let live = case.start();
    assert_eq!(number(&live, "/dev/random"), (1, 9));
    assert_eq!(number(&live, "/dev/ptmx"), (5, 2));
    live.delete();
}

/// Red if an image that brings its own nodes cannot run.
fn an_equal_node_of_the_image_stays(arena: &Arena) {
    let case = without_dev(arena, &["/bin/sleep", "1000"]);
    let node = case.file("/dev/null");
    mknod(&node, SFlag::S_IFCHR, Mode::from_bits_truncate(0o640), makedev(1, 3)).unwrap();
    symlink("/elsewhere", case.file("/dev/fd")).unwrap();
    let live = case.start();
    assert_eq!(fs::metadata(live.inside("/dev/null")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_link(live.inside("/dev/fd")).unwrap().to_str(), Some("/elsewhere"));
    assert_eq!(number(&live, "/dev/zero"), (1, 5));
    live.delete();
}

/// Red if something that is not the device wanted is used in its place: a regular file, another
/// device, a link.
fn a_different_file_of_the_image_is_an_error(arena: &Arena) {
    let case = without_dev(arena, &["/bin/sleep", "1000"]);
    let node = case.file("/dev/full");
    let makers: [&dyn Fn(); 4] = [
        &|| fs::write(&node, "").unwrap(),
        &|| mknod(&node, SFlag::S_IFCHR, Mode::empty(), makedev(1, 5)).unwrap(),
        &|| mknod(&node, SFlag::S_IFBLK, Mode::empty(), makedev(1, 7)).unwrap(),
        &|| symlink("null", &node).unwrap(),
    ];
    for make in makers {
        make();
        let error = case.refused();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(text.contains("device node \"/dev/full\": another file is there"), "{text}");
        fs::remove_file(&node).unwrap();
    }
}

/// Red if the rules are not in force when the program runs: a node can be made, not opened.
fn the_device_cgroup_decides_who_opens(arena: &Arena) {
    let mut case = arena.sh("mknod /tmp/kmsg c 1 11; mknod /tmp/null c 1 3; \
         echo x > /tmp/null && echo allowed; (: < /tmp/kmsg) 2>&1; (: < /tmp/listed) 2>&1");
    let mut node = json!({ "path": "/tmp/listed", "type": "c", "major": 1, "minor": 11 });
    node["fileMode"] = json!(0o666);
    devices(&mut case, &json!([node]));
    // mknod itself is asked for by this rule, as in containerd's config.
    let rules = case.config["linux"]["resources"]["devices"].as_array_mut().unwrap();
    rules.push(json!({ "allow": true, "type": "c", "access": "m" }));
    let outcome = case.run();
    let lines: Vec<&str> = outcome.out.lines().collect();
    assert_eq!(lines.len(), 3, "{outcome:?}");
    assert_eq!(lines[0], "allowed");
    for line in &lines[1..] {
        assert!(line.contains("Operation not permitted"), "{outcome:?}");
    }
}

/// Red if /dev/ptmx is the host's, whose terminals the container could not see.
fn ptmx_belongs_to_the_containers_own_terminals(arena: &Arena) {
    let live = arena.sleeper().start();
    let names = live.sh("exec 5<>/dev/ptmx; ls /dev/pts");
    assert_eq!(names, "0\nptmx");
    live.delete();
}
