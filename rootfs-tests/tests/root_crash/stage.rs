//! The two kinds of tests: with a shim alone, and with a daemon.

use libtest_mimic::{Failed, Trial};
use rootfs_tests::census::Census;
use rootfs_tests::error::Result;
use rootfs_tests::host;
use rootfs_tests::packages::Release;
use rootfs_tests::suite::{Entry, Runtime, Scenario};

use crate::rig::Rig;

/// A test of a shim without a daemon.
pub(crate) type Alone = (&'static str, fn(&Rig) -> Result<()>);

/// A test with a daemon, with each of these shims: where the stock one is known to fail it is no
/// witness.
pub(crate) type Played = (&'static str, Scenario, &'static [Runtime]);

/// What differs between releases is what they do after a crash.
const RELEASES: [Release; 3] = [Release::Bookworm, Release::Trixie, Release::Sid];

pub(crate) fn entry((name, scenario, runtimes): Played) -> Entry {
    Entry { name, scenario, releases: &RELEASES, runtimes }
}

pub(crate) fn trial((name, test): Alone) -> Trial {
    Trial::test(format!("shim::{name}"), move || play(test).map_err(Failed::from))
}

/// Runs it between two censuses of the whole machine.
fn play(test: fn(&Rig) -> Result<()>) -> Result<()> {
    host::need_root()?;
    host::exclusive()?;
    let before = Census::take()?;
    let rig = Rig::new()?;
    test(&rig).inspect_err(|_| rig.sweep())?;
    drop(rig);
    before.assert_same()
}
