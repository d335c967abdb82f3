//! `boathook config` as a person or a script uses it.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Exit code, standard output, standard error. `named` is `BOATHOOK_CONFIG`.
fn boathook(named: Option<&Path>, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boathook"));
    command.args(args).env_remove("BOATHOOK_CONFIG");
    command.envs(named.map(|path| ("BOATHOOK_CONFIG", path)));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Red when the flag does not win over the environment, or either is not read.
#[test]
fn the_flag_counts_before_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let (flag, variable) = (dir.path().join("flag.toml"), dir.path().join("variable.toml"));
    fs::write(&flag, "lifecycle = \"backstop\"\n").unwrap();
    fs::write(&variable, "# nothing but a comment\n").unwrap();
    let (backstop, annotations) = ("lifecycle = \"backstop\"\n", "lifecycle = \"annotations\"\n");
    let named = flag.to_str().unwrap();
    for (env, args, expected) in [
        (None, vec!["config", "print", "--config", named], backstop),
        (Some(flag.as_path()), vec!["config", "print"], backstop),
        (Some(variable.as_path()), vec!["config", "print", "--config", named], backstop),
        // What the file does not say is printed as well.
        (Some(variable.as_path()), vec!["config", "print"], annotations),
    ] {
        let printed = boathook(env, &args);
        assert_eq!(printed, (Some(0), expected.to_owned(), String::new()), "{env:?} {args:?}");
    }
    let checked = boathook(Some(&variable), &["config", "check", "--config", named]);
    assert_eq!(checked, (Some(0), format!("{named} is fine\n"), String::new()));
}

/// Red when something in the file is ignored in silence, or the message does
/// not say where it stands: file, line and key.
#[test]
fn what_cannot_be_used_is_refused_with_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("boathook.toml");
    for (text, parts) in [
        ("# one\nlifecylce = \"backstop\"\n", ["line 2", "unknown field `lifecylce`"]),
        ("lifecycle = \"annotations\"\n[pods]\n", ["line 2", "unknown field `pods`"]),
        ("\n\nlifecycle = \"never\"\n", ["line 3", "unknown variant `never`"]),
        ("lifecycle = \"annotations\"\nlifecycle = \"backstop\"\n", ["line 2", "lifecycle"]),
        ("lifecycle = \n", ["line 1", "lifecycle"]),
    ] {
        fs::write(&path, text).unwrap();
        for command in ["check", "print"] {
            let (code, out, err) = boathook(Some(&path), &["config", command]);
            assert_eq!((code, out.as_str()), (Some(1), ""), "{text:?}");
            for part in [path.to_str().unwrap()].iter().chain(&parts) {
                assert!(err.contains(part), "{part:?} is not in {err}");
            }
        }
    }
}

/// Red when a file that somebody named and that is not there counts as empty.
#[test]
fn a_file_that_was_named_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.toml");
    let (code, out, err) = boathook(Some(&path), &["config", "check"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains(path.to_str().unwrap()), "{err}");
    // An empty variable names none; then the usual file counts, or the defaults.
    let (code, out, _) = boathook(Some(Path::new("")), &["config", "check"]);
    if !Path::new("/etc/boathook/config.toml").exists() {
        let told = "/etc/boathook/config.toml is not there; defaults hold\n";
        assert_eq!((code, out.as_str()), (Some(0), told));
    }
}
