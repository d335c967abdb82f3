//! New file systems, the root, and what covers it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use boathook_runtime::ErrorKind;
use boathook_runtime::cgroup::Mode;
use serde_json::json;

use super::support::mountinfo::{self, Entry};
use super::support::{Arena, Case, Live, tests};

tests!(
    the_default_mounts_with_their_options,
    nothing_of_the_hosts_table_is_left,
    a_root_may_be_a_directory,
    a_root_that_is_not_there_is_named,
    mount_points_are_made_where_missing,
    a_later_mount_covers_an_earlier_one,
    a_link_of_the_image_leads_within_the_image,
    a_read_only_tmpfs_takes_mount_points_first,
    a_tmpfs_keeps_the_mode_that_it_covers,
    a_read_only_root,
    a_read_only_root_still_gets_its_working_directory,
    the_roots_propagation,
    masked_paths_show_nothing,
    masks_of_what_is_not_there_are_left_out,
    read_only_paths_cannot_be_written,
    every_hierarchy_is_shown_from_the_container_down,
    a_wrong_file_system_names_type_and_place,
    what_is_no_directory_cannot_be_covered_by_one,
);

/// The mount table that a container's first process sees.
fn table(live: &Live) -> Vec<Entry> {
    mountinfo::parse(&live.proc("mountinfo"))
}

/// Red if a mount is missing, or loses an option on its way through the new mount calls.
fn the_default_mounts_with_their_options(arena: &Arena) {
    let live = arena.sleeper().start();
    let table = table(&live);
    let want: [(&str, &str, &[&str], &[&str]); 7] = [
        ("/proc", "proc", &["rw", "nosuid", "nodev", "noexec"], &[]),
        ("/dev", "tmpfs", &["rw", "nosuid"], &["size=65536k", "mode=755"]),
        ("/dev/pts", "devpts", &["rw", "nosuid", "noexec"], &["gid=5", "mode=620", "ptmxmode=666"]),
        ("/dev/shm", "tmpfs", &["rw", "nosuid", "nodev", "noexec"], &["size=65536k"]),
        ("/dev/mqueue", "mqueue", &["rw", "nosuid", "nodev", "noexec"], &[]),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"], &[]),
        ("/run", "tmpfs", &["rw", "nosuid"], &["mode=755"]),
    ];
    for (point, kind, options, superblock) in want {
        let found = mountinfo::at(&table, point);
        assert_eq!(found.kind, kind, "{point}");
        for option in options {
            assert!(found.has(option), "{point} lacks {option}: {found:?}");
        }
        for option in superblock {
            let there = found.superblock.iter().any(|it| it == option);
            assert!(there, "{point} lacks {option}: {found:?}");
        }
    }
    for point in ["/dev", "/run"] {
        let found = mountinfo::at(&table, point);
        assert!(!found.has("relatime") && !found.has("noatime"), "strictatime: {found:?}");
    }
    assert_eq!(mode(&live, "/dev/shm"), 0o1777);
    assert_eq!(mountinfo::at(&table, "/dev/shm").source, "shm");
    live.delete();
}

fn mode(live: &Live, path: &str) -> u32 {
    fs::metadata(live.inside(path)).unwrap().mode() & 0o7777
}

/// Red if the old root stays mounted, or anything that nobody asked for is.
fn nothing_of_the_hosts_table_is_left(arena: &Arena) {
    let case = arena.sleeper();
    let live = case.start();
    let mut asked: Vec<String> = vec!["/".to_owned()];
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    asked.extend(case.config["mounts"].as_array().unwrap().iter().map(|m| text(&m["destination"])));
    for covered in ["maskedPaths", "readonlyPaths"] {
        let paths = case.config["linux"][covered].as_array().unwrap().iter().map(text);
        // Those that this kernel does not have are not covered.
        asked.extend(paths.filter(|path| Path::new(path).exists()));
    }
    let mut found: Vec<String> = table(&live).into_iter().map(|entry| entry.point).collect();
    asked.sort();
    found.sort();
    assert_eq!(found, asked);
    live.delete();
}

/// Red if only mount points can be roots, or a relative path counts from somewhere else than the
/// bundle.
fn a_root_may_be_a_directory(arena: &Arena) {
    let mut case = arena.case(&["/bin/busybox", "ls", "/"]);
    let plain = case.bundle().join("plain");
    fs::create_dir_all(plain.join("bin")).unwrap();
    fs::copy(arena.image().join("bin/busybox"), plain.join("bin/busybox")).unwrap();
    for path in ["plain", plain.to_str().unwrap()] {
        case.config["root"]["path"] = json!(path);
        let text = case.run().text().to_owned();
        assert_eq!(text, "bin\ndev\nproc\nrun\nsys");
    }
}

/// Red if the message does not tell which field holds which wrong path.
fn a_root_that_is_not_there_is_named(arena: &Arena) {
    let mut case = arena.sleeper();
    for path in ["nowhere", "/nowhere/at/all", "config.json/x"] {
        case.config["root"]["path"] = json!(path);
        let error = case.refused();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(text.starts_with("root.path: ") && text.contains(path), "{text}");
    }
    case.config["root"]["path"] = json!("config.json");
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().starts_with("root.path: "), "{error}");
}

/// Red if a missing mount point is an error, is made of the wrong kind, or of another mode or
/// owner than runc's.
fn mount_points_are_made_where_missing(arena: &Arena) {
    let mut case = arena.sleeper();
    let file = arena.dir().join("file");
    fs::write(&file, "content").unwrap();
    case.mount("/a/b/c", "tmpfs", "tmpfs", &["mode=700"]);
    case.bind(&file, "/new/dir/name", &["bind"]);
    case.bind(&file, "/run/inner/name", &["bind"]);
    case.bind(arena.dir(), "/x/../y", &["bind"]);
    let live = case.start();
    assert_eq!(fs::read_to_string(live.inside("/new/dir/name")).unwrap(), "content");
    assert_eq!(fs::read_to_string(live.inside("/run/inner/name")).unwrap(), "content");
    assert!(live.inside("/y/file").exists());
    assert!(!live.inside("/x").exists(), "made on the way to ..");
    for made in ["/a", "/a/b", "/new/dir", "/run/inner"] {
        let found = fs::metadata(live.inside(made)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o755, 0, 0), "{made}");
    }
    live.delete();
    let left = fs::metadata(case.file("/new/dir/name")).unwrap();
    assert!(left.is_file() && left.len() == 0, "{left:?}");
}

/// Red if mounts are done in another order than the config's.
fn a_later_mount_covers_an_earlier_one(arena: &Arena) {
    let mut case = arena.sleeper();
    let [one, two] = ["one", "two"].map(|name| {
        let dir = arena.make_dir(name);
        fs::write(dir.join("who"), name).unwrap();
        dir
    });
    case.bind(&one, "/mnt", &["bind"]);
    case.bind(&two, "/mnt", &["bind"]);
    let live = case.start();
    assert_eq!(fs::read_to_string(live.inside("/mnt/who")).unwrap(), "two");
    live.delete();
}

/// Red if a symbolic link of the image is followed on the host, or not at all. Absolute, relative
/// and climbing links all end inside the root.
fn a_link_of_the_image_leads_within_the_image(arena: &Arena) {
    let mut case = arena.sleeper();
    let source = arena.make_dir("source");
    fs::write(source.join("here"), "").unwrap();
    let outside = arena.make_dir("outside");
    fs::create_dir(case.file("/inside")).unwrap();
    for (name, target) in [
        ("abs", "/inside".to_owned()),
        ("climb", "../../../../../../inside".to_owned()),
        ("host", outside.display().to_string()),
    ] {
        symlink(target, case.file(name)).unwrap();
    }
    case.bind(&source, "/abs", &["bind"]);
    case.bind(&source, "/climb/deeper", &["bind"]);
    // The host's path does not exist in the image: a dangling link is not followed.
    case.bind(&source, "/host", &["bind"]);
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("mount at \"/host\": "), "{error}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    case.config["mounts"].as_array_mut().unwrap().pop();
    let live = case.start();
    assert!(live.inside("/inside/here").exists());
    assert!(live.inside("/inside/deeper/here").exists());
    live.delete();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// Red if `ro` is set before what lies below is made, or never.
fn a_read_only_tmpfs_takes_mount_points_first(arena: &Arena) {
    let mut case = arena.sleeper();
    case.mount("/cover", "tmpfs", "tmpfs", &["ro", "mode=755"]);
    case.bind(&arena.make_dir("below"), "/cover/below", &["bind"]);
    let live = case.start();
    let script = "touch /cover/x && exit 1; touch /cover/below/x && ls /cover";
    assert_eq!(live.sh(script), "below");
    assert!(mountinfo::at(&table(&live), "/cover").has("ro"));
    live.delete();
}

/// Red if a tmpfs without a mode of its own opens or closes a directory to users: an image's
/// /tmp is 1777.
fn a_tmpfs_keeps_the_mode_that_it_covers(arena: &Arena) {
    let mut case = arena.sleeper();
    fs::create_dir(case.file("/private")).unwrap();
    fs::set_permissions(case.file("/private"), fs::Permissions::from_mode(0o710)).unwrap();
    case.mount("/tmp", "tmpfs", "tmpfs", &[]);
    case.mount("/private", "tmpfs", "tmpfs", &["size=1m"]);
    case.mount("/home", "tmpfs", "tmpfs", &["mode=0711"]);
    case.mount("/made/new", "tmpfs", "tmpfs", &[]);
    let live = case.start();
    for (path, want) in
        [("/tmp", 0o1777), ("/private", 0o710), ("/home", 0o711), ("/made/new", 0o1777)]
    {
        assert_eq!(mode(&live, path), want, "{path}");
    }
    live.delete();
}

/// Red if the root can be written to, or what is mounted on it cannot.
fn a_read_only_root(arena: &Arena) {
    let mut case = arena
        .sh("touch /x 2>&1; touch /home/boat/x 2>&1; touch /run/x /dev/shm/x && echo rest; \
         mount -o remount,rw / 2>&1");
    case.config["root"]["readonly"] = json!(true);
    let outcome = case.run();
    let lines: Vec<&str> = outcome.out.lines().collect();
    assert!(lines[0].ends_with("Read-only file system"), "{lines:?}");
    assert!(lines[1].ends_with("Read-only file system"), "{lines:?}");
    assert_eq!(lines[2], "rest");
    assert!(!case.file("/x").exists());
}

/// Red if a missing working directory is made only after the root was sealed: `docker run
/// --read-only -w /new` is as old as both options.
fn a_read_only_root_still_gets_its_working_directory(arena: &Arena) {
    let mut case = arena.case(&["pwd"]);
    case.config["root"]["readonly"] = json!(true);
    case.config["process"]["cwd"] = json!("/new/work");
    assert_eq!(case.run().text(), "/new/work");
}

/// Red if `rootfsPropagation` is lost; the default receives and never sends.
fn the_roots_propagation(arena: &Arena) {
    let root = |name: Option<&str>| {
        let mut case = arena.sleeper();
        if let Some(name) = name {
            case.config["linux"]["rootfsPropagation"] = json!(name);
        }
        let live = case.start();
        let found = mountinfo::at(&table(&live), "/").clone();
        live.delete();
        found
    };
    for name in [None, Some("private"), Some("rslave")] {
        assert!(!root(name).is("shared"), "{name:?}");
    }
    assert!(root(Some("shared")).is("shared"));
    assert!(root(Some("unbindable")).is("unbindable"));
}

fn masks(case: &mut Case<'_>, paths: &[&str]) {
    case.config["linux"]["maskedPaths"] = json!(paths);
}

/// Red if a mask can be read through, written through or lifted by the container's root.
fn masked_paths_show_nothing(arena: &Arena) {
    let mut case = arena.sh(
        "cat /etc/passwd /proc/kcore /proc/keys | wc -c; ls -A /home /sys/firmware | wc -l; \
         touch /home/x 2>/dev/null && echo writable; echo x > /etc/passwd; \
         umount /home 2>/dev/null && echo lifted; mount -o remount,rw /home 2>/dev/null; exit 0",
    );
    masks(&mut case, &["/etc/passwd", "/home", "/proc/kcore", "/proc/keys", "/sys/firmware"]);
    let names: Vec<String> = case.config["process"]["capabilities"]["bounding"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push("CAP_DAC_READ_SEARCH");
    case.capabilities(&names);
    let outcome = case.run();
    // Two lines of `ls` name the directories, one is between them.
    assert_eq!(outcome.text().replace(' ', ""), "0\n3");
    assert!(fs::read_to_string(arena.image().join("etc/passwd")).unwrap().starts_with("root"));
    assert!(!case.bundle().join("upper/etc/passwd").exists(), "the mask was written through");
}

/// Red if a kernel without one of the usual paths cannot run containers.
fn masks_of_what_is_not_there_are_left_out(arena: &Arena) {
    let mut case = arena.case(&["ls", "-A", "/home"]);
    let paths = ["/proc/no-such", "/etc/passwd/below", "/no/such/dir", "/home"];
    masks(&mut case, &paths);
    case.config["linux"]["readonlyPaths"] = json!(["/proc/nor-this", "/etc/passwd/x", "/no/dir"]);
    assert_eq!(case.run().text(), "");
    assert!(!case.file("/no").exists());
}

/// Red if a read-only path can be written to, or loses what its mount forbids.
fn read_only_paths_cannot_be_written(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["linux"]["readonlyPaths"] = json!(["/proc/sys", "/etc", "/bin/busybox"]);
    let live = case.start();
    let script = "for file in /proc/sys/kernel/hostname /etc/new /bin/busybox; do \
                  (echo x > $file) 2>/dev/null && echo $file; done; exit 0";
    assert_eq!(live.sh(script), "");
    let table = table(&live);
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mountinfo::at(&table, "/proc/sys").has(option), "{option}");
    }
    assert!(mountinfo::at(&table, "/proc").has("rw"), "the whole of it became read-only");
    live.delete();
}

/// Red if a hierarchy is missing, shows the host's tree, or can be written to; with a cgroup
/// namespace and without.
fn every_hierarchy_is_shown_from_the_container_down(arena: &Arena) {
    for own in [true, false] {
        let mut case = arena.sleeper();
        case.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
        case.config["linux"]["resources"]["memory"] = json!({ "limit": 33_554_432 });
        if own {
            case.new_namespace("cgroup");
        }
        let live = case.start();
        let v2 = live.container.cgroup().mode() == Mode::V2;
        let file = if v2 { "memory.max" } else { "memory/memory.limit_in_bytes" };
        let limit = live.sh(&format!("cat /sys/fs/cgroup/{file}"));
        assert_eq!(limit, "33554432", "own namespace: {own}");
        let hierarchies = arena.engine.hierarchies().unwrap().layout();
        let table = table(&live);
        for mount in hierarchies.mounts.iter().filter(|mount| v2 || !mount.is_v2()) {
            let (point, kind) = match v2 {
                true => ("/sys/fs/cgroup".to_owned(), "cgroup2"),
                false => {
                    let name = mount.mount_point.file_name().unwrap().to_str().unwrap();
                    (format!("/sys/fs/cgroup/{name}"), "cgroup")
                }
            };
            let found = mountinfo::at(&table, &point);
            assert!(found.kind == kind && found.has("ro") && found.has("noexec"), "{found:?}");
            let pids = live.sh(&format!("cat {point}/cgroup.procs"));
            assert!(pids.lines().any(|pid| pid == "1"), "{point}: {pids}");
        }
        assert!(mountinfo::at(&table, "/sys/fs/cgroup").has("ro"));
        let pids = if v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
        let script = format!(
            "mkdir {pids}/x 2>/dev/null && echo made; \
             mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; \
             ls {pids} | grep -c bhe; exit 0"
        );
        assert_eq!(live.sh(&script), "0");
        live.delete();
    }
}

/// Red if the message leaves the reader with an errno and no place to look at.
fn a_wrong_file_system_names_type_and_place(arena: &Arena) {
    for (kind, options) in
        [("nosuchfs", &[][..]), ("tmpfs", &["size=much"]), ("tmpfs", &["no_such_option=1"])]
    {
        let mut case = arena.sleeper();
        case.mount("/wrong/place", kind, "none", options);
        let error = case.refused();
        let text = error.to_string();
        assert!(text.contains(kind) && text.contains("/wrong/place"), "{text}");
        assert!(options.iter().all(|option| text.contains(option)), "{text}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
    }
}

/// Red if a directory lands on a file, or the message does not name the place.
fn what_is_no_directory_cannot_be_covered_by_one(arena: &Arena) {
    let mut case = arena.sleeper();
    case.bind(&arena.make_dir("dir"), "/etc/passwd", &["bind"]);
    let error = case.refused();
    assert!(error.to_string().contains("/etc/passwd"), "{error}");
    assert!(error.to_string().contains("not a directory"), "{error}");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}
