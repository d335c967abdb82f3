//! `boathook image` on whole images: good ones, hostile ones, and while it is killed.

// The whole file is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;
mod killed;
mod layout;
mod limits;
mod merged;
#[path = "../../../fs/tests/root_layer/snapshot.rs"]
mod snapshot;
#[path = "../../../fs/tests/root_layer/tarball.rs"]
mod tarball;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use layout::Layout;
use snapshot::Item;
use tarball::Tarball;

/// A directory with a canary beside the place where images are unpacked.
struct Yard {
    dir: tempfile::TempDir,
    before: BTreeMap<PathBuf, Item>,
}

impl Yard {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["canary/etc", "out"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("canary/etc/passwd"), "untouched").unwrap();
        let before = snapshot::of(&dir.path().join("canary"));
        Self { dir, before }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `$B` is the program, and the working directory is the yard.
    fn sh(&self, script: &str) -> Output {
        let boathook = env!("CARGO_BIN_EXE_boathook");
        let mut command = Command::new("sh");
        command.args(["-euc", script]).env("B", boathook).current_dir(self.dir.path());
        command.output().unwrap()
    }

    fn good(&self, script: &str) -> String {
        let output = self.sh(script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn bad(&self, script: &str) -> String {
        let output = self.sh(script);
        assert_eq!(output.status.code(), Some(1), "{script}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Unpacks `layout`, and looks at what is beside it afterwards: the image alone when it went
    /// well, nothing when not, and the canary as it was. The error's text when it did not go well.
    fn unpack(&self, layout: &Layout, flags: &str) -> Result<PathBuf, String> {
        for name in ["image", "out/i"] {
            let _ = fs::remove_dir_all(self.path(name));
        }
        layout.write(&self.path("image"));
        let output = self.sh(&format!("exec $B image unpack --sync none {flags} image out/i"));
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        assert_eq!(snapshot::of(&self.path("canary")), self.before, "the canary was touched");
        let there = fs::read_dir(self.path("out")).unwrap().count();
        assert_eq!(there, usize::from(output.status.success()), "{output:?}");
        match output.status.success() {
            true => Ok(self.path("out/i")),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }
}

/// Paths of a layer that was unpacked, the root left out.
fn paths(layer: &Path) -> Vec<String> {
    let all = snapshot::of(layer);
    all.keys().skip(1).map(|path| path.to_str().unwrap().to_owned()).collect()
}

/// Everything but the times, which directories without an entry have from the clock.
fn untimed(tree: &Path) -> BTreeMap<PathBuf, Item> {
    let mut all = snapshot::of(tree);
    all.values_mut().for_each(|item| item.modified = (0, 0));
    all
}

fn tarball() -> Tarball {
    Tarball::default()
}

/// What most images here begin with.
fn base() -> Tarball {
    tarball().dir("etc/", 0o755).dir("d/", 0o755).file("etc/passwd", "root\n")
}
