//! Has the Debian releases ready that are named by the arguments, so that suites which run
//! where there is no network find them.
#![expect(clippy::print_stderr, reason = "this program talks to the person who started it")]

use rootfs_tests::packages::{Packages, Release};
use rootfs_tests::suite::RELEASES;
use rootfs_tests::{Error, Result};
use std::process::ExitCode;

fn main() -> ExitCode {
    let ready =
        std::env::args().skip(1).try_for_each(|name| Packages::get(known(&name)?).map(drop));
    match ready {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("packages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn known(name: &str) -> Result<Release> {
    let found = RELEASES.into_iter().find(|release| release.name() == name);
    found.ok_or_else(|| Error::check(format!("{name:?} is no release that suites know")))
}
