//! `boathook check` on this host, and on hosts made poorer.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;

const BOATHOOK: &str = env!("CARGO_BIN_EXE_boathook");

/// The answer with the exit code that belongs to it.
fn answer(output: &Output) -> (Value, bool) {
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let can_run = answer["canRunPods"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(!can_run)), "{output:?}");
    (answer, can_run)
}

fn state<'a>(answer: &'a Value, name: &str) -> &'a str {
    let findings = answer["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("{name} in {answer:#}"))["state"].as_str().unwrap()
}

/// The directories of all cgroups.
fn cgroups() -> Vec<String> {
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", "boathook-check-*"]).output();
    String::from_utf8(found.unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Red when something that containers are made of every day here is said to be missing, or when
/// the cgroup that was tried is left.
#[test]
fn this_host_can_run_pods_and_is_left_as_it_was() {
    let output = Command::new(BOATHOOK).args(["check", "--json"]).output().unwrap();
    let (answer, can_run) = answer(&output);
    assert!(can_run, "{answer:#}");
    for name in ["making cgroups", "mount", "network", "openat2", "overlay", "seccomp"] {
        assert_eq!(state(&answer, name), "used", "{name}");
    }
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let expected =
        if apparmor.is_ok_and(|text| text.starts_with('Y')) { "used" } else { "lacking" };
    assert_eq!(state(&answer, "AppArmor"), expected);
    assert_eq!(cgroups(), [""; 0]);

    let table = Command::new(BOATHOOK).arg("check").output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    let lines = answer["findings"].as_array().unwrap().len() + 2;
    assert_eq!(table.lines().count(), lines, "{table}");
    assert!(table.ends_with("\npods can run\n"), "{table}");
}

/// Red when somebody without privileges is told that pods can run.
#[test]
fn without_privileges_no_pod_can_run() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    // Where anybody can get at it.
    let program = dir.path().join("boathook");
    fs::copy(BOATHOOK, &program).unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), everybody).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .args(["check", "--json"])
        .output()
        .unwrap();
    let (answer, can_run) = answer(&output);
    assert!(!can_run, "{answer:#}");
    assert_eq!(state(&answer, "privileges"), "missing");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("missing: privileges"), "{error}");
}

/// Red when cgroups are said to be there because the kernel has them, or a part of the answer
/// fails the whole.
#[test]
fn what_is_covered_or_read_only_is_missed() {
    let covered = "mount -t tmpfs tmpfs /sys/fs/cgroup && exec \"$0\" check --json";
    let read_only = "for m in $(awk '$5 ~ \"^/sys/fs/cgroup\" {print $5}' /proc/self/mountinfo); \
                     do mount -o remount,bind,ro \"$m\" || exit 9; done; exec \"$0\" check --json";
    for (script, missing) in [(covered, "hierarchies"), (read_only, "making cgroups")] {
        let mut command = Command::new("unshare");
        let output = command.args(["-m", "sh", "-c", script, BOATHOOK]).output().unwrap();
        let (answer, can_run) = answer(&output);
        assert!(!can_run, "{answer:#}");
        assert_eq!(state(&answer, missing), "missing", "{answer:#}");
        assert_eq!(state(&answer, "mount"), "used");
    }
    assert_eq!(cgroups(), [""; 0]);
}
