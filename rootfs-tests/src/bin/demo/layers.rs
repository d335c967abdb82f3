//! The same image, unpacked for a newer containerd by `boathook unpackd`.

use rootfs_tests::containerd::{BOATHOOK, Daemon};
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::packages::Release;
use rootfs_tests::unpackd::Unpackd;
use rootfs_tests::{Error, Result, ensure};

/// The oldest release that asks others for layers.
pub(crate) const RELEASE: Release = Release::Trixie;

/// Imports the image into a daemon that has its layers from unpackd, and runs a container of it.
pub(crate) fn show() -> Result<()> {
    let daemon = Daemon::with_differ(RELEASE)?;
    let mut unpackd = Unpackd::start(&daemon)?;
    let outcome = run(&daemon, &unpackd).map_err(|error| {
        Error::check(format!("{error}\n{}\n{}", unpackd.log(), daemon.log_tail()))
    });
    let ended = unpackd.end().and(daemon.end());
    outcome?;
    ended
}

fn run(daemon: &Daemon, unpackd: &Unpackd) -> Result<()> {
    daemon.import(daemon.name())?;
    ensure!(unpackd.applied() > 0, "unpackd was not asked for a layer");
    let ctr = daemon.ctr(daemon.name());
    ctr.ok(&["run", "--rm", "--runtime", BOATHOOK, BUSYBOX, "layers", "true"])?;
    println!(
        "\ncontainerd 1.7 had the image's layer unpacked by `boathook unpackd`, and a container of it has run on boathook."
    );
    Ok(())
}
