//! Everything CI asks for, in the order that fails fastest.

use crate::apt;
use crate::args::{Fuzzing, Selection};
use crate::deny;
use crate::error::Error;
use crate::fuzz;
use crate::process::{self, cargo};
use crate::tiers;

const LINTS: &[&str] = &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];

pub(crate) fn run() -> Result<(), Error> {
    apt::require_root("ci", "it runs the root tier of the tests")?;
    apt::ensure(apt::BUILD)?;
    step("format", || process::run(&mut cargo(&["fmt", "--all", "--check"])))?;
    step("format of the fuzz targets", fuzz::format)?;
    step("lints", || process::run(&mut cargo(LINTS)))?;
    step("lints of the fuzz targets", fuzz::lint)?;
    step("dependencies", deny::run)?;
    step("documentation", documentation)?;
    step("tests", || tiers::test(&Selection::everything()))?;
    step("fuzz", || fuzz::run(&Fuzzing::default()))
}

fn documentation() -> Result<(), Error> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
    process::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn step(name: &str, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    println!("\n==== {name}");
    let start = std::time::Instant::now();
    work()?;
    println!("==== {name}: fine, {} s", start.elapsed().as_secs());
    Ok(())
}
