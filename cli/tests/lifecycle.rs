//! `boathook lifecycle` and `boathook events` as a person or a script uses
//! them, on records as shims leave them.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

fn command(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boathook"));
    command.args(args).arg("--root").arg(root);
    command
}

/// Exit code, standard output, standard error.
fn boathook(root: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = command(root, args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A container whose preStop hook has failed, with this much that happened.
fn record(id: &str, entries: usize) -> Value {
    let all = [
        json!({ "at": 1_000, "what": "started" }),
        json!({ "at": 3_000, "what": "stopping", "cause": "SIGQUIT was sent" }),
        json!({ "at": 3_000, "what": "hookStarted", "hook": "preStop" }),
        json!({ "at": 4_500, "what": "hookFailed", "hook": "preStop", "message": "no luck" }),
        json!({ "at": 4_500, "what": "signalled", "signal": 3 }),
        json!({ "at": 5_000, "what": "exited", "status": 7 }),
    ];
    let state = if entries == all.len() { "done" } else { "hook" };
    json!({
        "id": id,
        "policy": {
            "preStop": { "exec": { "command": ["bye", "<now>"] } },
            "grace": 20,
            "signal": 3,
            "origin": "annotations",
            "container": id,
        },
        "state": state,
        "history": all[..entries],
    })
}

/// As a shim writes it.
fn write(root: &Path, namespace: &str, record: &Value) {
    let dir = root.join(namespace).join(record["id"].as_str().unwrap());
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(".new"), record.to_string()).unwrap();
    fs::rename(dir.join(".new"), dir.join("lifecycle.json")).unwrap();
}

/// Red when one of the three forms leaves out what is configured, what
/// happened, or how it ended.
#[test]
fn one_container_as_text_json_and_picture() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "ns", &record("c1", 6));
    let (code, text, _) = boathook(root, &["lifecycle", "c1"]);
    assert_eq!(code, Some(0));
    for line in [
        "container  c1\n",
        "from       annotations of boathook.dev\n",
        "postStart  none\n",
        "preStop    exec bye <now>\n",
        "stop       SIGQUIT, grace period 20 s\n",
        "now        the container has ended\n",
        "+   3.500 s  FailedPreStopHook: no luck\n",
        "+   4.000 s  exited with 7\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let (_, json, _) = boathook(root, &["lifecycle", "--json", "c1"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["namespace"], "ns");
    assert_eq!(json["history"], record("c1", 6)["history"]);
    let (_, svg, _) = boathook(root, &["lifecycle", "--svg", "c1"]);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    for part in ["c1: grace period 20 s", "preStop", "SIGQUIT"] {
        assert!(svg.contains(part), "{part:?} is not in {svg}");
    }
    assert_eq!(boathook(root, &["lifecycle", "--svg", "--json", "c1"]).0, Some(2));
}

/// Red when somebody else's container is shown, or one is guessed.
#[test]
fn a_container_that_is_not_there_or_twice() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "one", &record("c1", 6));
    write(root, "two", &record("c1", 3));
    let (code, out, err) = boathook(root, &["lifecycle", "c2"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("\"c2\""), "{err}");
    let (code, _, err) = boathook(root, &["lifecycle", "c1"]);
    assert!(code == Some(1) && err.contains("one, two"), "{err}");
    let (_, text, _) = boathook(root, &["lifecycle", "-n", "two", "c1"]);
    assert!(text.contains("the preStop hook runs"), "{text}");
    // Files of somebody else are said to be so.
    fs::write(root.join("one/c1/lifecycle.json"), "{").unwrap();
    let (code, _, err) = boathook(root, &["events", "-n", "one"]);
    assert!(code == Some(1) && err.contains("one/c1/lifecycle.json"), "{err}");
}

/// Red when the order of time is lost among containers, or the filter.
#[test]
fn events_of_all_and_of_one() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "ns", &record("c1", 6));
    write(root, "ns", &record("c2", 3));
    let (code, text, _) = boathook(root, &["events"]);
    assert_eq!((code, text.lines().count()), (Some(0), 9));
    let times: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(times.is_sorted(), "{text}");
    let (_, text, _) = boathook(root, &["events", "--container", "c2"]);
    assert_eq!(text.lines().count(), 3);
    assert!(text.lines().all(|line| line.contains("  ns/c2  ")), "{text}");
    let (_, text, _) = boathook(root, &["events", "--json", "--container", "c1"]);
    let events: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let expected = json!({
        "at": 4_500, "what": "hookFailed", "hook": "preStop", "message": "no luck",
        "reason": "FailedPreStopHook", "container": "c1", "namespace": "ns",
    });
    assert_eq!(events[3], expected);
}

/// Red when something that happens while somebody watches is not told, is told
/// twice, or of another container.
#[test]
fn events_are_followed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    write(root, "ns", &record("c1", 2));
    let args = ["events", "--follow", "--json", "--container", "c1"];
    let mut child = command(root, &args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        event["what"].as_str().unwrap().to_owned()
    };
    assert_eq!([next(), next()], ["started", "stopping"]);
    write(root, "ns", &record("c2", 6));
    write(root, "ns", &record("c1", 4));
    assert_eq!([next(), next()], ["hookStarted", "hookFailed"]);
    write(root, "ns", &record("c1", 6));
    assert_eq!([next(), next()], ["signalled", "exited"]);
    // The first of a namespace of its own.
    write(root, "other", &record("c1", 1));
    assert_eq!(next(), "started");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines.next().is_none_or(|line| line.is_err()), "more than happened was told");
}
