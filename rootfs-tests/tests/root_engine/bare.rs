//! Containers whose mount namespace begins with nothing of the host in it, as it does once an
//! engine is prepared. Nearly all other tests of this program are such containers too.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use boathook_runtime::{Create, CreateOptions, Engine, Stdio, spec};
use nix::mount::{MsFlags, mount};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{OpenTreeFlags, open_tree};
use serde_json::json;

use super::support::hostmount::HostMount;
use super::support::{Arena, Case, LIMIT, tests};

tests!(the_hosts_mounts_are_not_copied, a_path_of_the_host_in_a_file_systems_options);

/// Mounts of the host besides what it has.
const MOUNTS: u64 = 600;
/// More than a container's own mounts, and far less than those.
const FEW: u64 = 300;

/// Red if the container begins with a copy of what the host has mounted. The kernel numbers
/// mounts in the order of their making and never takes a number twice, so that two numbers tell
/// how many were made between them.
fn the_hosts_mounts_are_not_copied(arena: &Arena) {
    let top = arena.dir().join("many");
    let _mount = HostMount::tmpfs(&top);
    for number in 0..MOUNTS {
        let dir = top.join(number.to_string());
        fs::create_dir(&dir).unwrap();
        mount(Some(&dir), &dir, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    let engine = Engine::new(&arena.state());
    let first = mounts_made_by_a_create(&engine, &arena.sleeper());
    assert!(first > MOUNTS, "{first} mounts were made: the numbers tell nothing");
    engine.prepare().unwrap();
    let prepared = mounts_made_by_a_create(&engine, &arena.sleeper());
    assert!(prepared < FEW, "{prepared} mounts were made");
}

fn mounts_made_by_a_create(engine: &Engine, case: &Case<'_>) -> u64 {
    case.save();
    let spec = spec::load(case.bundle()).unwrap();
    let before = next_mount();
    let created = engine.create(Create {
        id: &case.id,
        bundle: case.bundle(),
        spec: &spec,
        stdio: Stdio::Fds { stdin: None, stdout: None, stderr: None },
        options: CreateOptions::default(),
        deadline: LIMIT,
    });
    let made = next_mount() - before;
    let created = created.unwrap_or_else(|error| panic!("create: {error}"));
    created.container.delete(LIMIT).unwrap();
    made
}

/// The number of a mount that is made now and gone at once (`STATX_MNT_ID_UNIQUE`, Linux 6.8).
fn next_mount() -> u64 {
    const UNIQUE: u32 = 0x4000;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree: OwnedFd = open_tree(CWD, "/", flags).unwrap();
    let found = statx(tree, "", AtFlags::EMPTY_PATH, StatxFlags::from_bits_retain(UNIQUE)).unwrap();
    assert_eq!(found.stx_mask & UNIQUE, UNIQUE, "this kernel numbers no mounts");
    found.stx_mnt_id
}

/// Red if a file system whose options are paths of the host is mounted where there are none.
fn a_path_of_the_host_in_a_file_systems_options(arena: &Arena) {
    let layers = ["upper", "lower"].map(|name| {
        let dir = arena.make_dir(name);
        fs::write(dir.join(name), name).unwrap();
        dir.display().to_string()
    });
    let mut case = arena.sh("cat /data/lower /data/upper");
    let lower = format!("lowerdir={}", layers.join(":"));
    case.mount("/data", "overlay", "overlay", &["ro", &lower]);
    assert_eq!(case.run().text(), "lowerupper");
    // A hook of the create finds the root at its place in the bundle.
    let mut case = arena.sleeper();
    let mark = case.bundle().join("rootfs/found");
    let script = format!("cat /proc/self/mountinfo > {}", arena.dir().join("seen").display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    case.config["hooks"] = json!({ "createContainer": hook });
    case.create().unwrap_or_else(|error| panic!("create: {error}")).delete();
    let seen = fs::read_to_string(arena.dir().join("seen")).unwrap();
    let root = mark.parent().and_then(Path::to_str).unwrap();
    assert!(seen.contains(root), "no {root} in {seen}");
}
