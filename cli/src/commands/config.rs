//! `boathook config check|print`.

use std::path::Path;

use boathook_hooks::{Config, config};

use crate::args::ConfigCommand;
use crate::output::{Failure, print};

pub(crate) fn run(file: Option<&Path>, command: &ConfigCommand) -> Result<(), Failure> {
    let config = Config::load(file)?;
    let (path, _) = config::path(file);
    match command {
        ConfigCommand::Check => {
            let there = if path.exists() { "is fine" } else { "is not there; defaults hold" };
            print(&format!("{} {there}\n", path.display()))
        }
        ConfigCommand::Print => print(&config.to_toml()),
    }
}
