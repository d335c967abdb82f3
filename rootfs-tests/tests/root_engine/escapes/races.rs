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

use crate::support::arena::UNPREPARED;
use crate::support::{Arena, Case, census, mountinfo, tests};

tests!(
    mount_points_of_a_shared_volume,
    missing_mount_points_of_a_shared_volume,
    masked_and_read_only_paths,
    masks_with_a_null_device_that_changes,
    devices_and_their_directory,
    the_terminals_directory,
    the_console,
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

/// Red if one of them is. As in the first container of a shim, the host's mounts are there until the
/// root is changed: without them there is less to reach.
fn all_at_once(_: &Arena) {
    let program = std::env::current_exe().unwrap();
    let race = |(name, _): &(&'static str, _)| {
        let mut command = Command::new(&program);
        command.args([&format!("escapes::races::{name}"), "--exact"]);
        command.envs([(VARIABLE, "1"), (UNPREPARED, "1")]);
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

/// Runs `round` again and again while another thread exchanges the two names as fast as it can; in
/// the end they are what they were.
/// Checks that both happened often, and that some rounds made a container: refusing all is no feat.
fn while_swapping(one: &Path, other: &Path, mut round: impl FnMut() -> bool) {
    let stop = AtomicBool::new(false);
    let swaps = AtomicU64::new(0);
    let (mut rounds, mut made) = (0, 0);
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
                made += u64::from(round());
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
    assert!(made > 0, "none of {rounds} rounds made a container");
    if swaps % 2 == 1 {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    }
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
        let made = match case.create() {
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
                true
            }
            // To lose is to be refused.
            Err(error) => {
                assert!(error.to_string().contains("/vol/dir"), "{error}");
                false
            }
        };
        assert_untouched(&target);
        made
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
        let made = case.create().map(|live| {
            live.delete();
        });
        assert_untouched(&target);
        for made in [&dir, &link] {
            if fs::symlink_metadata(made).is_ok_and(|found| found.is_dir()) {
                let _ = fs::remove_dir_all(made.join("new"));
                let _ = fs::remove_dir_all(made.join("other"));
            }
        }
        let _ = fs::remove_dir_all(case.file(target.to_str().unwrap()));
        made.is_ok()
    });
}

/// CVE-2025-31133, the racing form: what is covered is what was found. All that is masked is a
/// directory by the one name and a file by the other, and neither can be mounted on the other. Seen
/// red with a second look for the target in `Covers::mask`: there it was the other.
fn masked_and_read_only_paths(arena: &Arena) {
    let target = precious(arena);
    let mut case = arena.sh("true");
    let work = case.file("/work");
    let paths: Vec<_> = (0..8).map(|number| format!("/work/dir/{number}")).collect();
    fs::create_dir_all(work.join("other")).unwrap();
    for path in &paths {
        fs::create_dir_all(case.file(path)).unwrap();
        fs::write(case.file(&path.replace("dir", "other")), "secret").unwrap();
    }
    symlink("other", work.join("link")).unwrap();
    case.config["linux"]["maskedPaths"] = serde_json::json!(paths);
    case.config["linux"]["readonlyPaths"] = serde_json::json!(["/work/dir"]);
    while_swapping(&work.join("dir"), &work.join("link"), || {
        let live = case.create().unwrap();
        let table = mountinfo::parse(&live.proc("mountinfo"));
        let below = |entry: &&mountinfo::Entry| entry.point.starts_with("/work/");
        assert_eq!(table.iter().filter(below).count(), paths.len() + 1, "{table:#?}");
        live.delete();
        assert_untouched(&target);
        true
    });
}

/// CVE-2026-41579, the racing form: nodes are made in a directory that is held open. Seen red with
/// paths looked up from the root's descriptor without any of the rules of `paths::rules`: the nodes
/// were the host's.
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
        let made = case.create().map(|live| {
            live.delete();
        });
        assert_untouched(&target);
        made.is_ok()
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
        let made = case.create().map(|live| {
            for path in ["/etc/secret", "/proc/interrupts"] {
                assert_eq!(fs::metadata(live.inside(path)).unwrap().rdev(), null, "{path}");
            }
            live.delete();
        });
        assert_untouched(&target);
        made.is_ok()
    });
}

/// CVE-2025-52565, the racing form: the terminal is the one that was made, whatever /dev/pts is
/// meanwhile. Red if the slave is opened by its name.
fn the_terminals_directory(arena: &Arena) {
    terminals_while_swapping(arena, "pts");
}

/// The same with /dev/console: the terminal is mounted there and nowhere else. Seen red with links
/// followed on the way to it: it was mounted where they led.
fn the_console(arena: &Arena) {
    terminals_while_swapping(arena, "console");
}

/// Makes containers with terminals while a name in their /dev changes places with a link.
fn terminals_while_swapping(arena: &Arena, name: &str) {
    let target = precious(arena);
    let dev = arena.make_dir("dev");
    for dir in ["pts", "shm"] {
        fs::create_dir(dev.join(dir)).unwrap();
    }
    fs::write(dev.join("console"), "").unwrap();
    let leads_to = if name == "pts" { target.clone() } else { target.join("file") };
    let link = dev.join("link");
    symlink(leads_to, &link).unwrap();
    let mut case = arena.sleeper();
    case.without_mount("/dev");
    case.bind(&dev, "/dev", &["rbind", "dev"]);
    case.config["mounts"].as_array_mut().unwrap().rotate_right(1);
    case.config["process"]["terminal"] = serde_json::json!(true);
    also_inside(&case, &target);
    while_swapping(&dev.join(name), &link, || {
        let made = case.create_with(boathook_runtime::Stdio::Terminal).map(|live| {
            let tty = fs::metadata(format!("/proc/{}/fd/0", live.process.pid())).unwrap();
            let major = rustix::fs::major(tty.rdev());
            assert!((136..144).contains(&major), "the terminal has major number {major}");
            let table = mountinfo::parse(&live.proc("mountinfo"));
            let terminals = table.iter().filter(|it| it.kind == "devpts" && it.root != "/");
            let places: Vec<_> = terminals.map(|entry| entry.point.as_str()).collect();
            // The mount goes along when its place changes its name.
            assert!(matches!(places[..], ["/dev/console" | "/dev/link"]), "{places:?}");
            live.delete();
        });
        assert_untouched(&target);
        made.is_ok()
    });
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
