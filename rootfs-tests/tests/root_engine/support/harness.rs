//! Runs the tests one after the other, each between two censuses.

use std::process::{Command, ExitCode};
use std::rc::Rc;

use libtest_mimic::{Arguments, Failed, Trial};
use rootfs_tests::host;

use super::arena::{Arena, Ground};
use super::census::Census;

/// A test: panics, or everything is as it should be.
pub(crate) type Test = fn(&Arena);

/// The table of a module's tests.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const TESTS: &[(&str, $crate::support::harness::Test)] =
            &[$((stringify!($name), $name)),+];
    };
}
pub(crate) use tests;

/// Runs everything that the arguments ask for.
pub(crate) fn main(modules: &[(&str, &'static [(&'static str, Test)])]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A census counts what this process has: a second test would be in it. One thread also means
    // that tests run on the main thread, whose mount namespace is the private one.
    arguments.test_threads = Some(1);
    let listing = arguments.list;
    if !listing {
        host::need_root().expect("root");
    }
    let ground = if listing { None } else { Some(Ground::prepare()) };
    let mut trials = Vec::new();
    for (module, tests) in modules {
        for (name, test) in *tests {
            trials.push(Trial::test(format!("{module}::{name}"), move || play(*test)));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(ground);
    conclusion.exit_code()
}

fn play(test: Test) -> Result<(), Failed> {
    let ground = Ground::current();
    let before = Census::take(&ground);
    let arena = Arena::new(Rc::clone(&ground));
    test(&arena);
    arena.end();
    before.assert_same(&ground);
    Ok(())
}

/// Runs this program once more with `variables` set; red if a test of it is, or if there are not
/// more than `least`.
pub(crate) fn again(variables: &[&str], arguments: &[&str], least: usize) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments).envs(variables.iter().map(|name| (name, "1")));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = text.lines().filter(|line| line.ends_with(" ok")).count();
    assert!(output.status.success(), "{text}");
    assert!(passed > least, "only {passed} tests were run:\n{text}");
}
