//! Bind mounts: what is seen through them, what they forbid, and which mounts cross them later.

use std::fs;
use std::path::Path;

use boathook_runtime::ErrorKind;
use nix::mount::{MntFlags, umount2};
use serde_json::json;

use super::support::hostmount::HostMount;
use super::support::mountinfo::{self, Entry};
use super::support::{Arena, Live, tests};

tests!(
    files_and_directories,
    read_only_and_other_options,
    with_and_without_the_mounts_below,
    recursive_options_reach_the_mounts_below,
    the_hosts_mount_keeps_its_options,
    propagation_by_default_follows_the_host,
    propagation_private_is_cut_off,
    propagation_slave_follows_the_host,
    propagation_shared_goes_both_ways,
    a_source_that_is_not_there_is_named,
    a_relative_source_counts_from_the_bundle,
    devices_of_the_host_keep_working,
);

fn table(live: &Live) -> Vec<Entry> {
    mountinfo::parse(&live.proc("mountinfo"))
}

/// Red if a bind shows something else than its source.
fn files_and_directories(arena: &Arena) {
    let dir = arena.make_dir("source");
    fs::write(dir.join("file"), "content").unwrap();
    let mut case = arena.sh("cat /mnt/dir/file /etc/passwd; echo more >> /mnt/dir/file");
    case.bind(&dir, "/mnt/dir", &["bind"]);
    case.bind(&dir.join("file"), "/etc/passwd", &["rbind", "ro"]);
    assert_eq!(case.run().text(), "contentcontent");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "contentmore\n");
}

/// Red if an option of a bind is ignored, as mount(2) does without a remount.
fn read_only_and_other_options(arena: &Arena) {
    let dir = arena.make_dir("source");
    let mut case = arena.sh("touch /ro/x 2>/dev/null && echo written; touch /rw/x");
    case.bind(&dir, "/ro", &["bind", "ro", "nosuid", "nodev", "noexec", "noatime"]);
    case.bind(&dir, "/rw", &["bind", "rw"]);
    let live = case.create().unwrap();
    let table = table(&live);
    for option in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(mountinfo::at(&table, "/ro").has(option), "{option}");
    }
    assert!(mountinfo::at(&table, "/rw").has("rw"));
    live.start();
    assert_eq!(live.finish().out, "");
    assert!(dir.join("x").exists());
}

/// Red if `bind` takes the mounts below along, or `rbind` leaves them behind.
fn with_and_without_the_mounts_below(arena: &Arena) {
    let dir = arena.make_dir("source");
    let below = dir.join("below");
    let _mount = HostMount::tmpfs(&below);
    fs::write(below.join("there"), "").unwrap();
    let mut case = arena.sleeper();
    case.bind(&dir, "/flat", &["bind"]);
    case.bind(&dir, "/deep", &["rbind"]);
    let live = case.start();
    assert_eq!(live.sh("ls /flat/below; ls /deep/below"), "there");
    live.delete();
}

/// Red if `ro` reaches below the top, as it does not under runc, or `rro` does not.
fn recursive_options_reach_the_mounts_below(arena: &Arena) {
    let dir = arena.make_dir("source");
    let below = dir.join("below");
    let _mount = HostMount::tmpfs(&below);
    let mut case = arena.sleeper();
    case.bind(&dir, "/top", &["rbind", "ro"]);
    case.bind(&dir, "/all", &["rbind", "rro", "rnosuid"]);
    let live = case.start();
    let table = table(&live);
    let has = |point: &str, option: &str| mountinfo::at(&table, point).has(option);
    assert!(has("/top", "ro") && has("/top/below", "rw"));
    assert!(has("/all", "ro") && has("/all/below", "ro") && has("/all/below", "nosuid"));
    live.delete();
}

/// Red if options are set on the host's mount and not on a copy of it.
fn the_hosts_mount_keeps_its_options(arena: &Arena) {
    let dir = arena.dir().join("source");
    let _mount = HostMount::tmpfs(&dir);
    let host = || {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mountinfo::at(&mountinfo::parse(&text), dir.to_str().unwrap()).options.clone()
    };
    let before = host();
    let mut case = arena.sleeper();
    case.bind(&dir, "/mnt", &["bind", "ro", "noexec"]);
    case.start().delete();
    assert_eq!(host(), before);
}

/// What reaches whom: mounts on the host below the source of a bind, once the container runs, and
/// mounts in the container below the destination. Returns (in the container, on the host).
fn crossings(arena: &Arena, options: &[&str]) -> (bool, bool) {
    let source = arena.dir().join("source");
    let _shared = HostMount::shared(&source);
    let [ours, theirs] = ["ours", "theirs"].map(|name| source.join(name));
    [&ours, &theirs].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let mut case = arena.sleeper();
    case.capabilities(&["CAP_SYS_ADMIN"]);
    case.bind(&source, "/mnt", options);
    if options.contains(&"rshared") {
        case.config["linux"]["rootfsPropagation"] = json!("rshared");
    }
    let live = case.start();
    let _later = HostMount::tmpfs(&ours);
    live.sh("mount -t tmpfs inside /mnt/theirs");
    let inside = table(&live).iter().any(|entry| entry.point == "/mnt/ours");
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let host = host.lines().any(|line| line.contains(theirs.to_str().unwrap()));
    live.delete();
    if host {
        umount2(&theirs, MntFlags::MNT_DETACH).unwrap();
    }
    (inside, host)
}

/// Red if volumes mounted late on the host do not arrive, or containers mount on the host.
fn propagation_by_default_follows_the_host(arena: &Arena) {
    assert_eq!(crossings(arena, &["rbind"]), (true, false));
}

/// Red if a private bind lets anything through.
fn propagation_private_is_cut_off(arena: &Arena) {
    assert_eq!(crossings(arena, &["rbind", "rprivate"]), (false, false));
}

/// Red if Kubernetes' HostToContainer does not work.
fn propagation_slave_follows_the_host(arena: &Arena) {
    assert_eq!(crossings(arena, &["rbind", "rslave"]), (true, false));
}

/// Red if Kubernetes' Bidirectional does not work: the copy of the source must stay in the peer
/// group of the host's mount.
fn propagation_shared_goes_both_ways(arena: &Arena) {
    assert_eq!(crossings(arena, &["rbind", "rshared"]), (true, true));
}

/// Red if the message does not tell which mount of the config has which wrong source.
fn a_source_that_is_not_there_is_named(arena: &Arena) {
    let mut case = arena.sleeper();
    let index = case.config["mounts"].as_array().unwrap().len();
    for source in ["/nowhere/at/all", "/etc/passwd/below"] {
        case.bind(Path::new(source), "/mnt", &["bind"]);
        let error = case.refused();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(text.starts_with(&format!("mounts[{index}].source: ")), "{text}");
        assert!(text.contains(source), "{text}");
        case.config["mounts"].as_array_mut().unwrap().pop();
    }
}

/// Red if a relative source counts from the engine's working directory (config.md, "Mounts").
fn a_relative_source_counts_from_the_bundle(arena: &Arena) {
    let mut case = arena.case(&["cat", "/mnt"]);
    fs::write(case.bundle().join("beside"), "bundle").unwrap();
    case.bind(Path::new("beside"), "/mnt", &["bind"]);
    assert_eq!(case.run().text(), "bundle");
}

/// Red if a whole /dev of the host is filled with nodes and links of the engine's.
fn devices_of_the_host_keep_working(arena: &Arena) {
    let dev = arena.dir().join("dev");
    let _mount = HostMount::tmpfs(&dev);
    fs::write(dev.join("mark"), "").unwrap();
    let mut case = arena.case(&["ls", "-A", "/dev"]);
    let mounts = case.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    case.bind(&dev, "/dev", &["rbind"]);
    assert_eq!(case.run().text(), "mark");
    assert_eq!(fs::read_dir(&dev).unwrap().count(), 1);
}
