//! `boathook`: the command line of the engine.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod exit;
mod output;
mod records;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return exit::usage(&error),
    };
    let result = match args.command {
        Command::Plan(plan) => commands::plan::run(&plan),
        Command::Check { json } => commands::check::run(json),
        Command::Config { config, command } => commands::config::run(config.as_deref(), &command),
        Command::Lifecycle(lifecycle) => commands::lifecycle::run(&lifecycle),
        Command::Events(events) => commands::events::run(&events),
        Command::Layer(layer) => commands::layer::run(&layer),
        Command::Image(image) => commands::image::run(&image),
        Command::Unpackd(unpackd) => commands::unpackd::run(&unpackd),
    };
    exit::of(result)
}
