//! Root file systems that are traps as a whole, and what a container may see of others' cgroups.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use boathook_runtime::{ErrorKind, Stdio};
use serde_json::json;

use crate::support::{Arena, Case, census, mountinfo, tests};

tests!(
    every_name_of_the_root_is_a_link,
    a_read_only_root_that_brings_its_own_proc,
    cgroups_of_others_are_out_of_reach,
    hooks_get_what_the_config_says_and_no_more,
);

/// A directory of the host with one file, which nobody may change, add to or mount on.
fn precious(arena: &Arena) -> std::path::PathBuf {
    let dir = arena.make_dir("precious");
    fs::write(dir.join("file"), "root:x:0:0::/stolen:/bin/sh\n").unwrap();
    dir
}

/// CVE-2025-24965, CVE-2026-84042, CVE-2018-15664: whatever is looked for or made in a root is
/// resolved below it. Every name that the engine uses is a link here, to each kind of place that a
/// link can lead to. Seen red as by `first_container`, with names looked up from the root's descriptor
/// without any of the rules of `paths::rules`: nodes, directories and files were made on the host.
/// (Tried in a mount namespace on an overlay of the machine's root, as the mutant writes to that.)
fn every_name_of_the_root_is_a_link(arena: &Arena) {
    let target = precious(arena);
    let host = target.to_str().unwrap();
    let up = "../".repeat(40);
    let root = "/proc/self/root";
    let leads = [
        host.to_owned(),
        format!("{up}{host}"),
        format!("{root}{host}"),
        format!("/proc/1/root{host}"),
        "/proc/self/cwd".to_owned(),
        "/proc/self/fd/3".to_owned(),
        "self".to_owned(),
        String::from("."),
    ];
    let file = format!("{host}/file");
    for lead in leads {
        let mut case = arena.case(&["/bin/busybox", "true"]);
        let names = ["dev", "proc", "sys", "run", "etc", "tmp", "work", "mnt", "self"];
        for name in names {
            let place = case.file(name);
            let _ = fs::remove_dir_all(&place);
            let _ = fs::remove_file(&place);
            symlink(&lead, place).unwrap();
        }
        case.bind(&arena.make_dir("source"), "/mnt/deep/er", &["rbind"]);
        case.bind(&target.join("file"), "/work/copy", &["bind", "ro"]);
        case.mount("/tmp", "tmpfs", "tmpfs", &[]);
        case.config["process"]["cwd"] = json!("/work/dir");
        case.config["linux"]["maskedPaths"] = json!(["/etc/file", "/work/file", "/sys/firmware"]);
        case.config["linux"]["readonlyPaths"] = json!(["/etc", "/work/file"]);
        case.config["linux"]["devices"] =
            json!([{ "path": "/work/node", "type": "c", "major": 1, "minor": 3 }]);
        refused_or_inside(&case, &lead);
        for kernels in ["/proc", "/sys"] {
            case.without_mount(kernels);
        }
        refused_or_inside(&case, &lead);
        // Nor does a mount cover the place where the links lead.
        case.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] == "bind");
        refused_or_inside(&case, &lead);
        assert_eq!(census::entries(&target), ["file"], "{lead}");
        let found = fs::metadata(&file).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 0, 0o644), "{lead}");
        assert!(fs::read_to_string(&file).unwrap().starts_with("root:"), "{lead}");
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(host), "{lead}: mounted on:\n{table}");
    }
}

/// Either the error names a place in the container, or all that the container shows is its own.
#[track_caller]
fn refused_or_inside(case: &Case<'_>, lead: &str) {
    let none = Stdio::Fds { stdin: None, stdout: None, stderr: None };
    match case.create_with(none) {
        Ok(live) => {
            let table = mountinfo::parse(&live.proc("mountinfo"));
            assert!(table.iter().all(|entry| entry.point.starts_with('/')), "{lead}: {table:#?}");
            live.delete();
        }
        Err(error) => {
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{lead}: {text}");
            assert!(text.contains("\"/") || text.contains("masked"), "{lead}: {text}");
        }
    }
}

/// CVE-2026-115521: the root becomes read-only by its descriptor, not by a name below a /proc that
/// the image may bring. Seen red with the root's last `SetAttr` left out of the plan.
fn a_read_only_root_that_brings_its_own_proc(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["root"]["readonly"] = json!(true);
    case.without_mount("/proc");
    for list in ["maskedPaths", "readonlyPaths"] {
        case.config["linux"][list] = json!([]);
    }
    for of in ["self", "thread-self", "1"] {
        let dir = case.file(&format!("/proc/{of}/fd"));
        fs::create_dir_all(&dir).unwrap();
        (0..64).for_each(|number| symlink("/tmp", dir.join(number.to_string())).unwrap());
    }
    let live = case.start();
    let table = mountinfo::parse(&live.proc("mountinfo"));
    assert!(mountinfo::at(&table, "/").has("ro"), "{table:#?}");
    assert!(table.iter().all(|entry| entry.point != "/tmp"), "{table:#?}");
    assert_eq!(live.sh("touch /x 2>/dev/null; touch /tmp/x 2>/dev/null; ls / | grep -c x; :"), "0");
    live.delete();
}

/// CVE-2023-25809, CVE-2022-0492: of every hierarchy a container has its own part only, writable or
/// not, with a namespace or without, and there is no `release_agent` in it. Seen red with the tree
/// of the hierarchy's root in `host::cgroup_tree`.
fn cgroups_of_others_are_out_of_reach(arena: &Arena) {
    let neighbour = arena.sleeper().start();
    for (own, access) in [(true, "rw"), (true, "ro"), (false, "rw"), (false, "ro")] {
        let mut case = arena.sleeper();
        case.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", access]);
        if own {
            case.new_namespace("cgroup");
        }
        let live = case.start();
        let agents = live.sh("find /sys/fs/cgroup -name release_agent");
        assert_eq!(agents, "", "own namespace: {own}, {access}");
        let all = live.sh("find /sys/fs/cgroup -name cgroup.procs | wc -l");
        let hierarchies = arena.engine.hierarchies().unwrap().layout();
        // Beside v1, the v2 hierarchy is not shown.
        let count = hierarchies.mounts.iter().filter(|mount| !mount.is_v2()).count().max(1);
        assert_eq!(all, count.to_string(), "more than one cgroup in each hierarchy");
        let table = mountinfo::parse(&live.proc("mountinfo"));
        for entry in table.iter().filter(|entry| entry.kind.starts_with("cgroup")) {
            assert_eq!(entry.has("rw"), access == "rw", "{entry:?}");
            assert!(!own || entry.root == "/" || entry.root.ends_with(&case.id), "{entry:?}");
        }
        live.delete();
    }
    neighbour.delete();
}

/// CVE-2024-0132, CVE-2025-23266: a hook on the host has the environment that the config lists for
/// it, the bundle as its directory and the host's namespaces. Seen red without `env_clear` in `hooks::run_one`.
fn hooks_get_what_the_config_says_and_no_more(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["process"]["env"] = json!(["LD_PRELOAD=/evil.so", "PATH=/evil", "SECRET=1"]);
    let told = arena.dir().join("told");
    let script = format!(
        "{{ cat /proc/self/environ | tr '\\0' '\\n' | grep -v ^PWD= | sort; pwd; \
         readlink /proc/$$/ns/mnt /proc/$$/ns/net; }} > {} 2>&1",
        told.display()
    );
    case.config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh",
        "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin", "ONLY=this"] }] });
    case.create().unwrap().delete();
    let link = |name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let wanted = format!(
        "ONLY=this\nPATH=/usr/bin:/bin\n{}\n{}\n{}\n",
        case.bundle().display(),
        link("mnt").display(),
        link("net").display(),
    );
    assert_eq!(fs::read_to_string(&told).unwrap(), wanted);
}
