//! What users are told to type, typed.

use crate::support::{Record, record};
use rootfs_tests::command::Run;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::packages::Release;
use rootfs_tests::suite::Scene;
use rootfs_tests::{ensure, ensure_eq, workspace};
use std::fs;

/// The image that everybody has.
const USUAL: &str = "docker.io/library/busybox:latest";

/// The lines of the first block of a document that has this in it.
fn block(document: &str, part: &str) -> Result<String> {
    let path = workspace::root().join(document);
    let text = fs::read_to_string(&path).during(|| format!("read {}", path.display()))?;
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let found = blocks.into_iter().find(|block| block.contains(part)).map(str::to_owned);
    found.ok_or_else(|| Error::check(format!("no block with {part:?} in {document}")))
}

/// Five lines, as they stand there: the hook has its two seconds, and the program ends in order. Seen
/// red without the name `self`.
pub(crate) fn five_lines(scene: &mut Scene<'_>) -> Result<()> {
    // Both documents have them, and a run takes seconds.
    let document = match scene.daemon.packages().release {
        Release::Bookworm => "docs/lifecycle.md",
        Release::Trixie | Release::Sid => "README.md",
    };
    let lines = block(document, "pre-stop.boathook.dev")?;
    scene.ctr.ok(&["image", "tag", "--force", BUSYBOX, USUAL])?;
    let [ctr, cli] = [scene.daemon.packages().ctr(), workspace::cli()?]
        .map(|path| path.parent().map(|dir| dir.display().to_string()).unwrap_or_default());
    // The namespace and the socket are the only thing that differs from a user's.
    let said = Run::new("/bin/sh")
        .args(["-euc", &lines])
        .env("PATH", format!("{ctr}:{cli}:/usr/bin:/bin"))
        .env("CONTAINERD_ADDRESS", scene.daemon.socket())
        .env("CONTAINERD_NAMESPACE", scene.ctr.namespace())
        .ok()?
        .text();
    if lines.contains("boathook lifecycle web") {
        for part in
            ["preStop    exec sh -c echo bye; sleep 2", "stop       SIGTERM, grace period 10 s"]
        {
            ensure!(said.contains(part), "{part:?} is not in\n{said}");
        }
    }
    scene.stopped("web")?;
    let record: Record = record(scene.ctr.namespace(), "web")?;
    let expected = [
        "started",
        "stopping",
        "hookStarted:preStop",
        "hookSucceeded:preStop",
        "signalled",
        "exited",
    ];
    ensure_eq!(record.names(), expected, "the record");
    let hook = record.between("hookStarted:preStop", "hookSucceeded:preStop")?;
    ensure!(hook >= 1_990, "the hook took {hook} ms");
    ensure_eq!(scene.delete("web")?, 0, "exit code");
    scene.ctr.ok(&["image", "rm", USUAL]).map(drop)
}
