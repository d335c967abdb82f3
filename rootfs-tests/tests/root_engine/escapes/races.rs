//! Somebody swaps paths while the engine uses them.
//!
//! A race takes time and little of the machine, so all are run at once, each in a run of this
//! program of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{Arena, Case, census, mountinfo, tests};

tests!(
    mount_points_of_a_shared_volume,
    missing_mount_points_of_a_shared_volume,
    masked_and_read_only_paths,
    masks_with_a_null_device_that_changes,
    devices_and_their_directory,
    the_console_and_its_directory,
);

/// What the rest of this program sees of them.
pub(crate) const ALL: &[(&str, crate::support::harness::Test)] = &[("all_at_once", all_at_once)];

/// Set for a run of this program that is to run one race.
const VARIABLE: &str = "ROOT_ENGINE_RACE";

/// How long each race is run; a runtime that can lose one does so in a fraction of it.
const RACE: Duration = Duration::from_secs(10);

/// Whether this run is one of a race.
pub(crate) fn wanted() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Red if one of them is.
fn all_at_once(_: &Arena) {
    let program = std::env::current_exe().unwrap();
    let race = |(name, _): &(&'static str, _)| {
        let mut command = Command::new(&program);
        command.args([&format!("escapes::races::{name}"), "--exact"]).env(VARIABLE, "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        (*name, command.spawn().unwrap())
    };
    let races: Vec<_> = TESTS.iter().map(race).collect();
    let ended = races.into_iter().map(|(name, race)| (name, race.wait_with_output().unwrap()));
    // All are waited for before anything is said of one.
    for (name, output) in ended.collect::<Vec<_>>() {
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{name}:\n{text}");
    }
}

/// Runs `round` again and again while another thread exchanges the two names as fast as it can.
/// Returns how often each happened, and that both did is checked here.
fn while_swapping(one: &Path, other: &Path, mut round: impl FnMut()) {
    let stop = AtomicBool::new(false);
    let swaps = AtomicU64::new(0);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let end = Instant::now() + RACE;
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while Instant::now() < end {
                round();
                rounds += 1;
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    let swaps = swaps.into_inner();
    assert!(rounds >= 5 && swaps > 10 * rounds, "{rounds} rounds and {swaps} swaps");
}

/// A directory of the host with a file in it, which nobody may change.
fn precious(arena: &Arena) -> std::path::PathBuf {
    let dir = arena.make_dir("precious");
    fs::write(dir.join("file"), "precious").unwrap();
    dir
}

#[track_caller]
fn assert_untouched(dir: &Path) {
    assert_eq!(census::entries(dir), ["file"]);
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "precious");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(dir.to_str().unwrap()), "mounted over on the host");
}

/// A volume that two containers share, with a directory and a link of swapping names in it.
fn volume(arena: &Arena, target: &Path) -> std::path::PathBuf {
    let volume = arena.make_dir("volume");
    fs::create_dir(volume.join("dir")).unwrap();
    symlink(target, volume.join("link")).unwrap();
    volume
}

/// CVE-2021-30465: a mount point is resolved once, to a descriptor, within the root. Seen red with
/// the target looked up a second time by name in `attach::attach_at`: the source was mounted outside
/// of the root.
fn mount_points_of_a_shared_volume(arena: &Arena) {
    let target = precious(arena);
    let volume = volume(arena, &target);
    let source = arena.make_dir("source");
    fs::write(source.join("mark"), "").unwrap();
    let mut case = arena.sleeper();
    case.bind(&volume, "/vol", &["rbind"]);
    case.bind(&source, "/vol/dir", &["rbind"]);
    // Where the link leads inside, there is a directory, too.
    fs::create_dir_all(case.file(target.to_str().unwrap())).unwrap();
    let (dir, link) = (volume.join("dir"), volume.join("link"));
    let inside = target.to_str().unwrap();
    while_swapping(&dir, &link, || {
        match case.create() {
            Ok(live) => {
                let table = mountinfo::parse(&live.proc("mountinfo"));
                let places: Vec<&str> = table
                    .iter()
                    .filter(|entry| entry.root.ends_with("/source"))
                    .map(|entry| entry.point.as_str())
                    .collect();
                let fine = ["/vol/dir", "/vol/link", inside];
                assert!(places.len() == 1 && fine.contains(&places[0]), "{places:?}");
                live.delete();
            }
            // To lose is to be refused.
            Err(error) => assert!(error.to_string().contains("/vol/dir"), "{error}"),
        }
        assert_untouched(&target);
    });
}

/// CVE-2024-45310: what is missing is made one name at a time in an open directory. Seen red with
/// mkdirat(2) of the whole path in `paths::make`: directories appeared in the host's.
fn missing_mount_points_of_a_shared_volume(arena: &Arena) {
    let target = precious(arena);
    let volume = volume(arena, &target);
    let mut case = arena.sleeper();
    case.bind(&volume, "/vol", &["rbind"]);
    case.bind(&arena.make_dir("source"), "/vol/dir/new/deep", &["rbind"]);
    case.bind(&target.join("file"), "/vol/dir/other/name", &["rbind", "ro"]);
    let (dir, link) = (volume.join("dir"), volume.join("link"));
    while_swapping(&dir, &link, || {
        if let Ok(live) = case.create() {
            live.delete();
        }
        assert_untouched(&target);
        for made in [&dir, &link] {
            if fs::symlink_metadata(made).is_ok_and(|found| found.is_dir()) {
                let _ = fs::remove_dir_all(made.join("new"));
                let _ = fs::remove_dir_all(made.join("other"));
            }
        }
        let _ = fs::remove_dir_all(case.file(target.to_str().unwrap()));
    });
}

/// CVE-2025-31133, the racing form: the object that masks is never looked up in the container, and
/// what is masked is covered where it was found.
fn masked_and_read_only_paths(arena: &Arena) {
    let target = precious(arena);
    let mut case = arena.sh("true");
    let dir = case.file("/work");
    fs::create_dir_all(dir.join("dir")).unwrap();
    fs::write(dir.join("dir/secret"), "secret").unwrap();
    symlink(&target, dir.join("link")).unwrap();
    case.config["linux"]["maskedPaths"] = serde_json::json!(["/work/dir/secret", "/work/dir/file"]);
    case.config["linux"]["readonlyPaths"] = serde_json::json!(["/work/dir"]);
    while_swapping(&dir.join("dir"), &dir.join("link"), || {
        if let Ok(live) = case.create() {
            let table = mountinfo::parse(&live.proc("mountinfo"));
            for entry in table.iter().filter(|entry| entry.root == "/null") {
                assert!(entry.point.starts_with("/work/") || entry.point.starts_with("/proc/"));
            }
            live.delete();
        }
        assert_untouched(&target);
    });
}

/// CVE-2026-41579, the racing form: nodes are made in a directory that is held open.
fn devices_and_their_directory(arena: &Arena) {
    let target = precious(arena);
    let mut case: Case<'_> = arena.case(&["/bin/busybox", "true"]);
    let mounts = case.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    // Overlayfs cannot exchange a directory of its lower layer.
    let plain = case.bundle().join("plain");
    fs::create_dir_all(plain.join("bin")).unwrap();
    fs::create_dir_all(plain.join("dev")).unwrap();
    fs::copy(arena.image().join("bin/busybox"), plain.join("bin/busybox")).unwrap();
    case.config["root"]["path"] = serde_json::json!("plain");
    let (dev, link) = (plain.join("dev"), plain.join("link"));
    symlink(&target, &link).unwrap();
    while_swapping(&dev, &link, || {
        if let Ok(live) = case.create() {
            live.delete();
        }
        assert_untouched(&target);
    });
}

/// CVE-2025-31133 with the null device itself in motion: what masks is a copy of the host's own.
/// Seen red with the tree in `Covers::mask` replaced by a clone of what /dev/null is below the root.
fn masks_with_a_null_device_that_changes(arena: &Arena) {
    let target = precious(arena);
    let dev = arena.make_dir("dev");
    make_node(&dev.join("null"), (1, 3));
    symlink(target.join("file"), dev.join("link")).unwrap();
    let mut case = arena.sleeper();
    fs::write(case.file("/etc/secret"), "secret").unwrap();
    also_inside(&case, &target);
    case.without_mount("/dev");
    case.bind(&dev, "/dev", &["rbind", "dev"]);
    case.config["mounts"].as_array_mut().unwrap().rotate_right(1);
    case.config["linux"]["maskedPaths"] = serde_json::json!(["/etc/secret", "/proc/interrupts"]);
    let null = fs::metadata("/dev/null").unwrap().rdev();
    while_swapping(&dev.join("null"), &dev.join("link"), || {
        if let Ok(live) = case.create() {
            for path in ["/etc/secret", "/proc/interrupts"] {
                assert_eq!(fs::metadata(live.inside(path)).unwrap().rdev(), null, "{path}");
            }
            live.delete();
        }
        assert_untouched(&target);
    });
}

/// CVE-2025-52565, the racing form: the terminal is the one that was made, whatever /dev/pts and
/// /dev/console are meanwhile, and it is mounted nowhere else. Red if the slave is opened by its
/// name, or the console's place is looked up twice.
fn the_console_and_its_directory(arena: &Arena) {
    let target = precious(arena);
    let dev = arena.make_dir("dev");
    for (dir, link) in [("pts", "pts.link"), ("shm", "shm.link")] {
        fs::create_dir(dev.join(dir)).unwrap();
        symlink(&target, dev.join(link)).unwrap();
    }
    fs::write(dev.join("console"), "").unwrap();
    symlink(target.join("file"), dev.join("console.link")).unwrap();
    let mut case = arena.sleeper();
    case.without_mount("/dev");
    case.bind(&dev, "/dev", &["rbind", "dev"]);
    case.config["mounts"].as_array_mut().unwrap().rotate_right(1);
    case.config["process"]["terminal"] = serde_json::json!(true);
    also_inside(&case, &target);
    for name in ["pts", "console"] {
        while_swapping(&dev.join(name), &dev.join(format!("{name}.link")), || {
            if let Ok(live) = case.create_with(boathook_runtime::Stdio::Terminal) {
                let tty = fs::metadata(format!("/proc/{}/fd/0", live.process.pid())).unwrap();
                let major = rustix::fs::major(tty.rdev());
                assert!((136..144).contains(&major), "the terminal has major number {major}");
                let table = mountinfo::parse(&live.proc("mountinfo"));
                let console = |it: &&mountinfo::Entry| it.kind == "devpts" && it.root != "/";
                for entry in table.iter().filter(console) {
                    assert!(entry.point.starts_with("/dev/console"), "{entry:?}");
                }
                live.delete();
            }
            assert_untouched(&target);
        });
    }
}

/// Where the links lead inside, there is the same, so that to follow one does not simply fail.
fn also_inside(case: &Case<'_>, target: &Path) {
    let inside = case.file(target.to_str().unwrap());
    fs::create_dir_all(&inside).unwrap();
    fs::write(inside.join("file"), "inside").unwrap();
}

fn make_node(path: &Path, (major, minor): (u64, u64)) {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let mode = Mode::from_bits_truncate(0o666);
    mknod(path, SFlag::S_IFCHR, mode, makedev(major, minor)).unwrap();
}
