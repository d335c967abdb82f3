//! Layers on a real file system: the same tree as GNU tar makes, and nothing
//! outside of it whatever a layer says.

// The whole file is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod everything;
mod hostile;
mod lists;
mod oracle;
mod snapshot;
mod tarball;
mod whiteouts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use boathook_fs::Result;
use boathook_fs::layer::{self, Expected, Format, Options, Report, Sync};
use tarball::Tarball;

/// A directory with a canary beside the place where layers go.
struct Yard {
    dir: tempfile::TempDir,
}

impl Yard {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("layers")).unwrap();
        std::fs::create_dir(dir.path().join("canary")).unwrap();
        std::fs::write(dir.path().join("canary/file"), "untouched").unwrap();
        Self { dir }
    }

    fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    fn layers(&self) -> PathBuf {
        self.dir.path().join("layers")
    }

    /// Applies and looks at what is beside it afterwards: the layer alone when
    /// it went well, nothing when not, and the canary as it was.
    fn apply(&self, tarball: Tarball) -> Result<(PathBuf, Report)> {
        self.apply_bytes(&tarball.bytes(), &quick())
    }

    fn apply_bytes(&self, blob: &[u8], options: &Options) -> Result<(PathBuf, Report)> {
        let before = snapshot::of(&self.canary());
        let _ = std::fs::remove_dir_all(self.layers().join("l"));
        let target = self.layers().join("l");
        let apply = |options: &Options| {
            layer::apply(blob, Format::Unknown, Expected::default(), &target, options)
        };
        // By one thread and by several: the same tree, or the same refusal.
        let alone = apply(options).map(|report| (snapshot::of(&target), report.found));
        let _ = std::fs::remove_dir_all(&target);
        let result = apply(&Options { threads: true, ..options.clone() });
        match (&alone, &result) {
            (Ok((tree, found)), Ok(report)) => {
                assert_eq!(*found, report.found);
                assert_eq!(timeless(tree), timeless(&snapshot::of(&target)));
            }
            (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
            _ => panic!("{alone:?}, {result:?}"),
        }
        assert_eq!(snapshot::of(&self.canary()), before, "the canary was touched");
        let there = std::fs::read_dir(self.layers()).unwrap().count();
        assert_eq!(there, usize::from(result.is_ok()), "{result:?}");
        result.map(|report| (target, report))
    }
}

/// Without times, which whiteouts and directories that no entry speaks of have from the clock.
fn timeless(tree: &BTreeMap<PathBuf, snapshot::Item>) -> BTreeMap<PathBuf, snapshot::Item> {
    let mut tree = tree.clone();
    tree.values_mut().for_each(|item| item.modified = (0, 0));
    tree
}

/// No test needs its files on disk.
fn quick() -> Options {
    Options { sync: Sync::None, ..Options::default() }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}
