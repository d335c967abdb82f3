//! Id-mapped mounts: whose files are seen in a container, and whose they become.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use boathook_runtime::ErrorKind;
use serde_json::{Value, json};

use super::support::hostmount::HostMount;
use super::support::{Arena, Case, tests};

tests!(
    files_are_seen_and_made_by_the_mapping,
    the_whole_tree_or_its_top,
    mappings_alone_ask_for_it,
    a_new_file_system_is_mapped_too,
    the_containers_own_mappings,
    what_cannot_be_mapped_is_told,
    wrong_mappings_are_told,
);

fn map(inside: u32, host: u32) -> Value {
    json!([{ "containerID": inside, "hostID": host, "size": 1000 }])
}

/// Gives the last mount mappings: users by `shift`, groups by twice that.
fn mapped(case: &mut Case<'_>, shift: u32) {
    let mount = case.config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    mount["uidMappings"] = map(0, shift);
    mount["gidMappings"] = map(0, 2 * shift);
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

/// Red if users and groups are taken for each other, the map is read the wrong way round, or
/// files are shown with one owner and made with another.
fn files_are_seen_and_made_by_the_mapping(arena: &Arena) {
    let dir = arena.make_dir("source");
    fs::write(dir.join("file"), "").unwrap();
    fs::write(dir.join("other"), "").unwrap();
    chown(&dir, Some(0), Some(0)).unwrap();
    chown(dir.join("file"), Some(7), Some(8)).unwrap();
    chown(dir.join("other"), Some(5000), Some(5000)).unwrap();
    let mut case = arena.sh("stat -c %u:%g /mnt/file /mnt/other; touch /plain/new");
    case.bind(&dir, "/plain", &["rbind"]);
    case.bind(&dir, "/mnt", &["rbind", "idmap"]);
    // What is 0 to 999 on the file system is 10000 to 10999 here.
    mapped(&mut case, 10_000);
    // 5000 is not mapped: nobody (the kernel's overflow id).
    assert_eq!(case.run().text(), "10007:20008\n65534:65534");
    assert_eq!(owner(&dir.join("new")), (0, 0));

    let mut case = arena.sh("touch /mnt/made && stat -c %u:%g /mnt/made");
    case.user(10_001, 20_002, &[]);
    case.bind(&dir, "/mnt", &["rbind", "idmap"]);
    mapped(&mut case, 10_000);
    chown(&dir, Some(1), Some(2)).unwrap();
    assert_eq!(case.run().text(), "10001:20002");
    assert_eq!(owner(&dir.join("made")), (1, 2));
}

/// Red if `idmap` reaches the mounts below, or `ridmap` does not.
fn the_whole_tree_or_its_top(arena: &Arena) {
    let dir = arena.make_dir("source");
    let below = dir.join("below");
    let _mount = HostMount::tmpfs(&below);
    for name in ["top", "below/deep"] {
        fs::write(dir.join(name), "").unwrap();
    }
    for (option, deep) in [("idmap", "0"), ("ridmap", "10000")] {
        let mut case = arena.sh("stat -c %u /mnt/top /mnt/below/deep");
        case.bind(&dir, "/mnt", &["rbind", option]);
        mapped(&mut case, 10_000);
        assert_eq!(case.run().text(), format!("10000\n{deep}"), "{option}");
    }
}

/// Red if a config of the time before the options existed is not mapped at all. Two mounts with
/// equal mappings share what carries them, and their own options still count.
fn mappings_alone_ask_for_it(arena: &Arena) {
    let dir = arena.make_dir("source");
    fs::write(dir.join("file"), "").unwrap();
    let mut case = arena.sh("stat -c %u /a/file /b/file /c/file; touch /b/x 2>&1; \
                             grep -c idmapped /proc/self/mountinfo");
    for (point, shift, options) in
        [("/a", 10_000, &["bind"][..]), ("/b", 10_000, &["bind", "ro"]), ("/c", 20_000, &["bind"])]
    {
        case.bind(&dir, point, options);
        mapped(&mut case, shift);
    }
    let outcome = case.run();
    let lines: Vec<&str> = outcome.text().lines().collect();
    assert_eq!(lines[..3], ["10000", "10000", "20000"]);
    assert!(lines[3].ends_with("Read-only file system"), "{lines:?}");
    assert_eq!(lines[4], "3");
}

/// Red if only bind mounts are mapped.
fn a_new_file_system_is_mapped_too(arena: &Arena) {
    let mut case = arena.sh("stat -c %u:%g /mnt");
    case.mount("/mnt", "tmpfs", "tmpfs", &["uid=3", "gid=4", "idmap"]);
    mapped(&mut case, 10_000);
    assert_eq!(case.run().text(), "10003:20004");

    let mut case = arena.sleeper();
    case.mount("/mnt", "mqueue", "mqueue", &["idmap"]);
    mapped(&mut case, 10_000);
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("id-map the mount at \"/mnt\""), "{error}");
}

/// Red if `idmap` alone is not the mapping of the container's user namespace, new or joined: root
/// on the host's file system is root in the container.
fn the_containers_own_mappings(arena: &Arena) {
    let dir = arena.make_dir("source");
    fs::write(dir.join("file"), "").unwrap();
    chown(dir.join("file"), Some(3), Some(4)).unwrap();
    let shifted = |case: &mut Case<'_>| {
        case.new_namespace("user");
        case.new_namespace("cgroup");
        case.config["linux"]["uidMappings"] = map(0, 100_000);
        case.config["linux"]["gidMappings"] = map(0, 200_000);
        chown(case.file("/"), Some(100_000), Some(200_000)).unwrap();
    };
    let mut case = arena.sleeper();
    shifted(&mut case);
    case.bind(&dir, "/mnt", &["rbind", "idmap"]);
    case.bind(&dir, "/plain", &["rbind"]);
    let live = case.start();
    let script = "stat -c %u:%g /mnt/file /plain/file; touch /mnt/made";
    assert_eq!(live.sh(script), "3:4\n65534:65534");
    assert_eq!(owner(&dir.join("made")), (0, 0));

    let mut other = arena.sh("stat -c %u:%g /mnt/file");
    let path = format!("/proc/{}/ns/user", live.process.pid());
    other.namespace("user", Some(&path));
    chown(other.file("/"), Some(100_000), Some(200_000)).unwrap();
    other.bind(&dir, "/mnt", &["rbind", "idmap"]);
    assert_eq!(other.run().text(), "3:4");
    live.delete();
}

/// Red if a file system that does not know mappings is mounted without, or the message does not
/// tell which mount of the config and which source.
fn what_cannot_be_mapped_is_told(arena: &Arena) {
    let mut case = arena.sleeper();
    let index = case.config["mounts"].as_array().unwrap().len();
    case.bind(Path::new("/sys/kernel"), "/mnt", &["rbind", "idmap"]);
    mapped(&mut case, 10_000);
    let error = case.refused();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
    assert!(text.starts_with(&format!("mounts[{index}].uidMappings: /sys/kernel: ")), "{text}");

    case.without_mount("/mnt");
    case.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    mapped(&mut case, 10_000);
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().starts_with(&format!("mounts[{index}].uidMappings: ")), "{error}");

    case.without_mount("/sys/fs/cgroup");
    case.bind(arena.dir(), "/mnt", &["rbind", "idmap"]);
    mapped(&mut case, 10_000);
    let error = case.create_without(libc::SYS_mount_setattr).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("Linux 5.12"), "{error}");
}

/// Red if half a mapping passes, or one that the kernel would take for another.
fn wrong_mappings_are_told(arena: &Arena) {
    let index = arena.sleeper().config["mounts"].as_array().unwrap().len();
    let entry = |inside: u32, host: u32, size: u32| json!({ "containerID": inside, "hostID": host, "size": size });
    for (users, groups, field) in [
        (map(0, 5), json!([]), "gidMappings: missing"),
        (json!([]), map(0, 5), "uidMappings: missing"),
        (json!([entry(0, 5, 0)]), map(0, 5), "uidMappings[0].size: "),
        (map(0, 5), json!([entry(0, 5, 9), entry(8, 90, 1)]), "gidMappings[1].containerID: 8"),
        (json!([]), json!([]), "options: \"idmap\": needs uidMappings"),
    ] {
        let mut case = arena.sleeper();
        case.bind(arena.dir(), "/mnt", &["rbind", "idmap"]);
        let mount = case.config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
        mount["uidMappings"] = users;
        mount["gidMappings"] = groups;
        let error = case.refused();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let start = format!("mounts[{index}].{field}");
        assert!(error.to_string().starts_with(&start), "{error} does not start with {start}");
    }
}
