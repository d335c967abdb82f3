//! `boathook plan` as a person or a script uses it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn boathook(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boathook")).args(args).output().unwrap()
}

fn bundle(dir: &Path, config: &Value) {
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

fn config() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/true"], "cwd": "/" },
        "root": { "path": "rootfs" },
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] }
    })
}

/// Red when the plan is not what the engine sends to init: text and JSON come
/// from the same encoded steps.
#[test]
fn a_plan_is_printed_as_text_and_as_json() {
    let dir = tempfile::tempdir().unwrap();
    bundle(dir.path(), &config());
    let path = dir.path().to_str().unwrap();

    let text = boathook(&["plan", "--id", "c1", path]);
    assert!(text.status.success(), "{text:?}");
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("clone with new mount pid\n"), "{text}");
    assert!(text.contains(&format!("root file system {path}/rootfs")), "{text}");

    let output = boathook(&["plan", "--json", "--id", "c1", path]);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = plan["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["step"], "Exec");
    assert_eq!(steps.len(), text.lines().filter(|l| l.starts_with("   ")).count());
}

/// Red when a wrong bundle ends in anything but exit code 1 and one line that
/// names the field.
#[test]
fn errors_name_the_field_and_exit_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let missing = boathook(&["plan", path]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("config.json"));

    let mut wrong = config();
    wrong["process"]["user"]["uid"] = json!("root");
    bundle(dir.path(), &wrong);
    let output = boathook(&["plan", "--id", "c1", path]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("boathook: config.json: process.user.uid: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
}

/// Red when a wrong command line looks like a failed command.
#[test]
fn a_wrong_command_line_exits_with_two() {
    assert_eq!(boathook(&["plan"]).status.code(), Some(2));
    assert_eq!(boathook(&["nonsense"]).status.code(), Some(2));
    assert_eq!(boathook(&["--version"]).status.code(), Some(0));
}
