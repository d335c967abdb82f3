//! `cargo xtask`: demo, test, bench and everything CI asks for.
//!
//! A thin driver on purpose: it installs what a step needs, builds, runs and
//! reports. What is being shown or tested lives in the crates themselves.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program talks to the person who started it"
)]

mod apt;
mod args;
mod binaries;
mod ci;
mod deny;
mod error;
mod fuzz;
mod helper;
mod libtest;
mod process;
mod summary;
mod tiers;
mod tools;
mod vm;

use std::process::ExitCode;

use args::Command;
use error::Error;

fn main() -> ExitCode {
    match args::parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo xtask: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Help => {
            println!("{}", args::USAGE);
            Ok(())
        }
        Command::Test(selection) => tiers::test(&selection),
        Command::Demo(rest) => helper::demo(&rest),
        Command::Bench(rest) => helper::bench(&rest),
        Command::Fuzz(wanted) => fuzz::run(&wanted),
        Command::Vm(wanted) => vm::run(&wanted),
        Command::Ci => ci::run(),
        Command::Deny => deny::run(),
    }
}
