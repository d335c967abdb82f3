//! The crates point one way. A new edge between ours has to be written down
//! here first, where somebody sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Which of our crates may depend on which.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("boathook-fs", &[]),
    ("boathook-hooks", &[]),
    ("boathook-init", &[]),
    ("boathook-runtime", &["boathook-fs", "boathook-init"]),
    ("boathook-shim", &["boathook-fs", "boathook-hooks", "boathook-runtime"]),
    ("boathook-image", &["boathook-fs"]),
    ("boathook-cli", &["boathook-fs", "boathook-hooks", "boathook-image", "boathook-runtime"]),
    ("xtask", &[]),
    ("boathook-fuzz", &["boathook-fs", "boathook-init", "boathook-runtime"]),
    (
        "rootfs-tests",
        &[
            "boathook-cli",
            "boathook-fs",
            "boathook-hooks",
            "boathook-init",
            "boathook-runtime",
            "boathook-shim",
        ],
    ),
];

/// The packages of the workspace and of the fuzz targets, which have one of their own.
fn packages() -> Vec<Value> {
    ["../Cargo.toml", "../fuzz/Cargo.toml"].into_iter().flat_map(packages_of).collect()
}

fn packages_of(manifest: &str) -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .args(["--manifest-path", manifest])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().expect("packages").clone()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().expect("a name")
}

/// Red when a crate depends on one that it must not know, in any way: normal,
/// for tests, or for its build.
#[test]
fn crates_point_one_way() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().map(name).collect();
    let known: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, known, "the workspace and the table above name other crates");
    for package in &packages {
        let (_, allowed) = ALLOWED.iter().find(|(known, _)| *known == name(package)).unwrap();
        for dependency in package["dependencies"].as_array().expect("dependencies").iter().map(name)
        {
            let fine = !ours.contains(dependency) || allowed.contains(&dependency);
            assert!(fine, "{} must not depend on {dependency}", name(package));
        }
    }
}

/// Red when the engine or what lies below it pulls in an async runtime. The command line has one
/// for the server that it can be.
#[test]
fn only_servers_know_tokio() {
    let servers = ["boathook-shim", "boathook-cli", "rootfs-tests"];
    for package in packages().iter().filter(|p| !servers.contains(&name(p))) {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let tokio = dependencies.iter().any(|d| matches!(name(d), "tokio" | "ttrpc" | "tonic"));
        assert!(!tokio, "{} must stay synchronous", name(package));
    }
}
