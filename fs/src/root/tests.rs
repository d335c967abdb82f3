use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nix::fcntl::{RenameFlags, renameat2};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::ErrorKind;

/// `outer/root` is the root; `outer/canary` must never change.
struct Place {
    outer: TempDir,
    root: Root,
}

impl Place {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir(outer.path().join("root")).unwrap();
        std::fs::create_dir(outer.path().join("canary")).unwrap();
        let root = Root::open(&outer.path().join("root")).unwrap();
        Self { outer, root }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.outer.path().join("root").join(path)
    }

    fn canary(&self) -> PathBuf {
        self.outer.path().join("canary")
    }

    /// Where a descriptor is, as a path below the root; fails when it is elsewhere.
    fn spot(&self, fd: &OwnedFd) -> PathBuf {
        let name = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        let base = self.outer.path().join("root").canonicalize().unwrap();
        name.strip_prefix(&base)
            .unwrap_or_else(|_| panic!("{} is outside of {}", name.display(), base.display()))
            .to_owned()
    }

    fn assert_untouched(&self) {
        let names = |dir: &Path| -> BTreeSet<OsString> {
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect()
        };
        assert_eq!(names(&self.canary()), BTreeSet::new(), "the canary was written to");
        let outer = ["canary", "root"].map(OsString::from).into();
        assert_eq!(names(self.outer.path()), outer, "something escaped");
    }
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}

#[test]
fn links_and_dots_stay_inside() {
    let p = Place::new();
    std::fs::create_dir_all(p.inside("a/b")).unwrap();
    for (name, target) in
        [("up", "../../.."), ("abs", "/a"), ("deep", "a/b/../../../../a/b"), ("out", "/canary")]
    {
        symlink(target, p.inside(name)).unwrap();
    }
    for (path, spot) in [
        ("", ""),
        ("/", ""),
        ("..", ""),
        ("up", ""),
        ("up/a", "a"),
        ("abs/b", "a/b"),
        ("deep", "a/b"),
        ("a/b/../../../../../a", "a"),
    ] {
        assert_eq!(p.spot(&p.root.resolve(Path::new(path)).unwrap()), Path::new(spot), "{path}");
    }
    let e = p.root.resolve(Path::new("out")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert_eq!(e.to_string(), "openat2(out, OFlag(O_PATH), in root): No such file or directory");
}

#[test]
fn no_symlinks_means_none() {
    let p = Place::new();
    std::fs::create_dir(p.inside("real")).unwrap();
    symlink("real", p.inside("proc")).unwrap();
    assert_eq!(
        p.root.resolve_no_symlinks(Path::new("real")).map(|f| p.spot(&f)).unwrap(),
        Path::new("real")
    );
    let e = p.root.resolve_no_symlinks(Path::new("proc")).unwrap_err();
    assert_eq!((e.kind(), e.raw_os_error()), (ErrorKind::Invalid, Some(libc::ELOOP)));
}

#[test]
fn magic_links_are_refused() {
    let proc = Root::open(Path::new("/proc")).unwrap();
    for path in ["self/exe", "self/root/etc", "self/cwd", "self/fd/0"] {
        let e = proc.resolve(Path::new(path)).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ELOOP), "{path}: {e}");
    }
}

#[test]
fn directories_are_made_where_links_lead() {
    let p = Place::new();
    symlink("/data/v1", p.inside("dangling")).unwrap();
    symlink("../../x", p.inside("rel")).unwrap();
    std::fs::create_dir(p.inside("s")).unwrap();
    symlink("/data/v2", p.inside("s/abs")).unwrap();
    symlink("v3", p.inside("s/rel")).unwrap();
    symlink("loop2", p.inside("loop1")).unwrap();
    symlink("loop1", p.inside("loop2")).unwrap();
    std::fs::write(p.inside("file"), "").unwrap();
    for (path, spot) in [
        ("n/e/w", "n/e/w"),
        ("dangling/sub", "data/v1/sub"),
        ("rel/y", "x/y"),
        ("s/abs/z", "data/v2/z"),
        ("s/rel/z", "s/v3/z"),
        ("n/../m/./o//", "m/o"),
        ("p/q/../../r", "r"),
        ("/abs", "abs"),
    ] {
        let fd = p.root.create_dir_all(Path::new(path), mode(0o755)).unwrap();
        assert_eq!(p.spot(&fd), Path::new(spot), "{path}");
        assert!(p.inside(spot).is_dir(), "{path}");
    }
    for (path, errno) in [
        ("loop1/x", libc::ELOOP),
        ("file/x", libc::ENOTDIR),
        ("file", libc::ENOTDIR),
        ("new/../file", libc::ENOTDIR),
    ] {
        let e = p.root.create_dir_all(Path::new(path), mode(0o755)).unwrap_err();
        assert_eq!((e.kind(), e.raw_os_error()), (ErrorKind::Invalid, Some(errno)), "{path}: {e}");
    }
    p.assert_untouched();
}

#[test]
fn links_are_counted_over_the_whole_path() {
    let p = Place::new();
    let links: Vec<_> = (0..=LINKS_MAX).map(|i| format!("l{i}")).collect();
    for (i, link) in links.iter().enumerate() {
        symlink(format!("dir{i}"), p.inside(link)).unwrap();
    }
    let path = |n: usize| links[..n].join("/../");
    p.root.create_dir_all(Path::new(&path(LINKS_MAX)), mode(0o755)).unwrap();
    (0..LINKS_MAX).for_each(|i| std::fs::remove_dir(p.inside(&format!("dir{i}"))).unwrap());
    let e = p.root.create_dir_all(Path::new(&path(LINKS_MAX + 1)), mode(0o755)).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::ELOOP), "{e}");
    p.assert_untouched();
}

#[test]
fn files_are_made_once_and_nothing_is_opened() {
    let p = Place::new();
    symlink("/etc/real.conf", p.inside("link.conf")).unwrap();
    nix::unistd::mkfifo(&p.inside("fifo"), mode(0o600)).unwrap();
    for (path, spot) in [("a/b/c", "a/b/c"), ("link.conf", "etc/real.conf"), ("fifo", "fifo")] {
        let fd = p.root.create_file(Path::new(path), mode(0o640)).unwrap();
        assert_eq!(p.spot(&fd), Path::new(spot), "{path}");
    }
    assert_eq!(std::fs::metadata(p.inside("a/b/c")).unwrap().mode() & 0o7777, 0o640);
    std::fs::write(p.inside("a/b/c"), "kept").unwrap();
    p.root.create_file(Path::new("a/b/c"), mode(0o600)).unwrap();
    assert_eq!(std::fs::read(p.inside("a/b/c")).unwrap(), b"kept");
    let e = p.root.create_file(Path::new("a/b/c/d"), mode(0o600)).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::ENOTDIR));
    p.assert_untouched();
}

#[test]
fn opening_never_creates() {
    let p = Place::new();
    std::fs::write(p.inside("f"), "x").unwrap();
    for flags in [OFlag::O_CREAT | OFlag::O_WRONLY, OFlag::O_TMPFILE | OFlag::O_RDWR] {
        let e = p.root.open_file(Path::new("f"), flags).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
    }
    for flags in [OFlag::O_RDONLY, OFlag::O_RDWR, OFlag::O_PATH, OFlag::O_PATH | OFlag::O_NOFOLLOW]
    {
        p.root.open_file(Path::new("f"), flags).unwrap();
    }
    p.root.open_file(Path::new("."), OFlag::O_DIRECTORY).unwrap();
    let e = p.root.open_file(Path::new("g"), OFlag::O_WRONLY).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

#[derive(Debug, Clone)]
enum Entry {
    Dir(String),
    File(String),
    Link(String, String),
}

/// Few names, so that paths, links and entries meet often.
fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "..", "."]), 1..6)
        .prop_map(|names| names.join("/"))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let target = prop_oneof![
        3 => any_path(),
        2 => any_path().prop_map(|p| format!("/{p}")),
        1 => Just("CANARY".to_owned()),
        1 => Just("../../canary/x".to_owned()),
        1 => Just("../canary".to_owned()),
        1 => Just("/proc/self/cwd".to_owned()),
    ];
    prop_oneof![
        2 => any_path().prop_map(Entry::Dir),
        1 => any_path().prop_map(Entry::File),
        4 => (any_path(), target).prop_map(|(at, to)| Entry::Link(at, to)),
    ]
}

/// Builds the hostile tree with plain names only, so that building it cannot escape itself.
fn build(p: &Place, entries: &[Entry]) {
    let plain = |path: &str| -> PathBuf {
        let names = path.split('/').filter(|n| *n != ".." && *n != ".");
        p.inside(&names.collect::<Vec<_>>().join("/"))
    };
    let in_real_dir = |path: &Path| {
        let base = p.inside("");
        path.ancestors()
            .skip(1)
            .take_while(|a| a.starts_with(&base))
            .all(|a| std::fs::symlink_metadata(a).is_ok_and(|m| m.is_dir()))
    };
    for entry in entries {
        // What cannot be made (a parent is missing, the name is taken) is left out.
        match entry {
            Entry::Dir(at) if in_real_dir(&plain(at)) => drop(std::fs::create_dir(plain(at))),
            Entry::File(at) if in_real_dir(&plain(at)) && !plain(at).exists() => {
                drop(std::fs::File::create_new(plain(at)));
            }
            Entry::Link(at, to) if in_real_dir(&plain(at)) => {
                let to = to.replace("CANARY", p.canary().to_str().unwrap());
                drop(symlink(to, plain(at)));
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn hostile_trees_never_lead_out(
        entries in prop::collection::vec(any_entry(), 0..12),
        paths in prop::collection::vec(any_path(), 1..4),
    ) {
        let p = Place::new();
        build(&p, &entries);
        for path in &paths {
            let path = Path::new(path);
            if let Ok(fd) = p.root.resolve(path) {
                p.spot(&fd);
            }
            if let Ok(fd) = p.root.open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
                p.spot(&fd);
            }
            if let Ok(fd) = p.root.create_dir_all(path, mode(0o755)) {
                // What was made is what the path leads to from now on.
                prop_assert_eq!(p.spot(&fd), p.spot(&p.root.resolve(path).unwrap()));
            }
            let file = path.join("f");
            if let Ok(fd) = p.root.create_file(&file, mode(0o644)) {
                prop_assert_eq!(p.spot(&fd), p.spot(&p.root.resolve(&file).unwrap()));
            }
        }
        p.assert_untouched();
    }
}

/// Swaps the directory `a` and the link `b` until told to stop; reports the first swap.
fn swap(root: PathBuf, stop: &AtomicBool, running: &Sender<()>) {
    let dir = std::fs::File::open(root).unwrap();
    while !stop.load(Ordering::Relaxed) {
        renameat2(&dir, "a", &dir, "b", RenameFlags::RENAME_EXCHANGE).unwrap();
        let _ = running.send(());
    }
}

#[test]
fn a_racer_cannot_lead_anything_out() {
    let p = Place::new();
    std::fs::create_dir(p.inside("a")).unwrap();
    symlink("../canary", p.inside("b")).unwrap();
    // The bait works: whoever joins strings and trusts them writes into the canary.
    std::fs::create_dir_all(p.inside("b/escaped")).unwrap();
    std::fs::remove_dir(p.canary().join("escaped")).unwrap();

    let stop = AtomicBool::new(false);
    let (running, is_running) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| swap(p.inside(""), &stop, &running));
        let started = is_running.recv_timeout(Duration::from_secs(30));
        let mut made = 0;
        for i in 0..500 {
            let dir = format!("a/{i}/x/y");
            let file = format!("a/{i}/f");
            made += usize::from(p.root.create_dir_all(Path::new(&dir), mode(0o755)).is_ok());
            made += usize::from(p.root.create_file(Path::new(&file), mode(0o644)).is_ok());
        }
        stop.store(true, Ordering::Relaxed);
        started.expect("the racer never ran");
        assert!(made > 0, "nothing was ever made, so nothing was tested");
    });
    p.assert_untouched();
}
