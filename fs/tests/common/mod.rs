//! A mount namespace of its own for each test that needs root.
//!
//! Namespaces belong to threads, so each test runs on a thread that left the host's. Whatever a
//! test forgets dies with its thread, and the host's table is looked at afterwards.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub(crate) mod sys;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) point: PathBuf,
    pub(crate) options: String,
    /// `shared:N`, `master:N`, `unbindable`, …
    pub(crate) propagation: String,
    pub(crate) fstype: String,
    pub(crate) source: String,
    pub(crate) super_options: String,
}

thread_local! {
    /// The directory of the test that runs on this thread.
    static BASE: OnceCell<PathBuf> = const { OnceCell::new() };
}

/// The mounts that the calling thread sees in its test's directory. Of those copied from the
/// host some vanish by themselves: removing a directory detaches what other namespaces have
/// mounted on it.
pub(crate) fn mounts() -> Vec<Entry> {
    let base = BASE.with(|base| base.get().unwrap().clone());
    let mut all = parse(&std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap());
    all.retain(|entry| entry.point.starts_with(&base));
    all
}

fn parse(table: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let (left, right) = line.split_once(" - ").unwrap();
        let left: Vec<_> = left.split(' ').collect();
        let right: Vec<_> = right.split(' ').collect();
        Entry {
            point: left[4]
                .replace("\\040", " ")
                .replace("\\012", "\n")
                .replace("\\134", "\\")
                .into(),
            options: left[5].to_owned(),
            propagation: left[6..].join(" "),
            fstype: right[0].to_owned(),
            source: right[1].to_owned(),
            super_options: right[2].to_owned(),
        }
    };
    table.lines().map(entry).collect()
}

/// The topmost mount on `point`.
pub(crate) fn mount_on(point: &Path) -> Entry {
    let found = mounts().into_iter().rev().find(|m| m.point == point);
    found.unwrap_or_else(|| panic!("nothing is mounted on {}", point.display()))
}

/// Runs `test` with an empty tmpfs, in a mount namespace that ends with it.
pub(crate) fn in_private_namespace<T: Send + 'static>(
    test: impl FnOnce(&Path) -> T + Send + 'static,
) -> T {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let thread = std::thread::spawn(move || {
        BASE.with(|base| base.set(path.clone()).unwrap());
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount_raw(None, Path::new("/"), None, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount_raw(Some("scratch"), &path, Some("tmpfs"), MsFlags::empty());
        test(&path)
    });
    let result = thread.join();
    let name = dir.path().to_str().unwrap();
    let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!host.contains(name), "mounts were left on the host:\n{host}");
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// `mount(2)` itself, so that the tests do not rest on what they test.
pub(crate) fn mount_raw(source: Option<&str>, on: &Path, fstype: Option<&str>, flags: MsFlags) {
    mount(source, on, fstype, flags, None::<&str>)
        .unwrap_or_else(|e| panic!("mount({source:?}, {}, {fstype:?}): {e}", on.display()));
}

/// Makes a directory and gives its path.
pub(crate) fn dir(path: PathBuf) -> PathBuf {
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Asserts that `action` leaves the table of mounts as it was.
pub(crate) fn leaves_no_mount<T>(action: impl FnOnce() -> T) -> T {
    let before = mounts();
    let result = action();
    assert_eq!(mounts(), before, "the table of mounts changed");
    result
}
