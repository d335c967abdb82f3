//! `boathook layer` as a person or a script uses it, on archives of GNU tar.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn sh(dir: &Path, script: &str) -> Output {
    let boathook = env!("CARGO_BIN_EXE_boathook");
    Command::new("sh").arg("-c").arg(script).env("B", boathook).current_dir(dir).output().unwrap()
}

fn good(dir: &Path, script: &str) -> String {
    let output = sh(dir, script);
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn bad(dir: &Path, script: &str, code: i32) -> String {
    let output = sh(dir, script);
    assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A gzip layer in `l.tgz` with one file that everybody may write.
fn layer() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let make = "mkdir -p t/d && echo hello > t/d/f && chmod 666 t/d/f && chmod 777 t/d && \
                tar -C t --numeric-owner -cf l.tar . && gzip -c l.tar > l.tgz";
    good(dir.path(), make);
    dir
}

/// Red when the caller's umask gets into an image, or what is printed is not
/// what other tools say of the same bytes.
#[test]
fn root_a_layer_of_gzip_is_applied_whatever_the_umask() {
    let dir = layer();
    let at = dir.path();
    let sum = |file: &str| {
        let text = good(at, &format!("sha256sum {file}"));
        format!("sha256:{}", text.split(' ').next().unwrap())
    };
    let (digest, diff_id) = (sum("l.tgz"), sum("l.tar"));
    let size = fs::metadata(at.join("l.tgz")).unwrap().len();
    let checks = format!("--digest {digest} --size {size} --diff-id {diff_id}");
    let json = good(at, &format!("umask 077; $B layer apply --json {checks} l.tgz out"));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json["digest"].as_str(), json["diffId"].as_str()),
        (Some(&*digest), Some(&*diff_id))
    );
    assert_eq!((json["size"].as_u64(), json["entries"].as_u64()), (Some(size), Some(3)));
    for (path, mode) in [("out/d/f", 0o666), ("out/d", 0o777)] {
        assert_eq!(fs::metadata(at.join(path)).unwrap().mode() & 0o7777, mode, "{path}");
    }
    assert_eq!(fs::read_to_string(at.join("out/d/f")).unwrap(), "hello\n");
    assert_eq!(good(at, "$B layer diff-id l.tgz"), format!("{diff_id}\n"));
    assert!(good(at, &format!("$B layer verify {checks} l.tgz")).contains("entries   3\n"));
}

/// Red when a layer that is not what it should be becomes a directory.
#[test]
fn root_a_wrong_layer_is_told_and_leaves_nothing() {
    let dir = layer();
    let at = dir.path();
    let zeros = "0".repeat(64);
    for (script, code, wanted) in [
        (
            format!("$B layer apply --digest sha256:{zeros} l.tgz out"),
            1,
            "digest: expected sha256:00",
        ),
        (
            format!("$B layer apply --diff-id sha256:{zeros} l.tgz out"),
            1,
            "diff id: expected sha256:00",
        ),
        ("$B layer apply --size 7 l.tgz out".to_owned(), 1, "longer than its 7 bytes"),
        ("$B layer apply --max-entries 1 l.tgz out".to_owned(), 1, "the limit entries = 1"),
        ("head -c 100 l.tgz > cut; $B layer apply cut out".to_owned(), 1, "boathook: "),
        ("$B layer apply l.tgz t".to_owned(), 1, "target t: "),
        ("$B layer verify --media-type text/plain l.tgz".to_owned(), 2, "\"text/plain\""),
        ("$B layer apply --digest md5:0 l.tgz out".to_owned(), 1, "\"md5:0\""),
        ("$B layer diff-id nowhere".to_owned(), 1, "nowhere: "),
    ] {
        let text = bad(at, &script, code);
        assert!(text.contains(wanted), "{script}: {text}");
    }
    let mut names: Vec<_> = fs::read_dir(at)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["cut", "l.tar", "l.tgz", "t"]);
}
