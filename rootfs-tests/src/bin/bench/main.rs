//! boathook beside the runc shim of Debian, in one run and alternating.
//!
//! `cargo xtask bench` builds the programs and starts this. It prints a table and, when everything
//! was measured, writes `docs/benchmarks.md`. A figure that misses its bar is reported as it is.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program talks to the person who started it"
)]

mod args;
mod daemon;
mod density;
mod document;
mod idle;
mod layers;
mod machine;
mod pod;
mod report;
mod rig;
mod rounds;
mod scenarios;
mod stats;
mod tasks;

use std::process::ExitCode;

use args::Options;
use report::Row;
use rig::Rig;
use rootfs_tests::census::Census;
use rootfs_tests::{Error, Result, host};

fn main() -> ExitCode {
    let options = match args::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("bench: {problem}");
            return ExitCode::from(2);
        }
    };
    match bench(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    host::need_root()?;
    host::exclusive()?;
    let rig = Rig::new(options.rounds)?;
    let before = Census::take()?;
    let load = machine::load();
    let mut rows: Vec<Row> = Vec::new();
    for scenario in scenarios::ALL.iter().filter(|s| options.wants(s.name)) {
        println!("measuring {}: {}", scenario.name, scenario.what);
        let measured = (scenario.run)(&rig)
            .map_err(|error| Error::check(format!("{}: {error}", scenario.name)))?;
        rows.extend(measured);
    }
    println!("\n{}", report::text(&rows));
    for why in rig.all_left_out() {
        println!("left out: {why}");
    }
    let missed = rows.iter().filter(|row| row.missed()).count();
    if missed > 0 {
        println!("{missed} of the figures miss their bars.");
    }
    if options.only.is_some() {
        println!("docs/benchmarks.md is left as it is: not everything was measured.");
    } else {
        document::write(&rig, &rows, &load)?;
    }
    before.assert_same()
}
