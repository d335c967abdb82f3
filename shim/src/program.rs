//! The program: one of four actions, an exit code, one line when it fails.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use boathook_hooks::http::helper;
use boathook_runtime::daemon;

use crate::args::{self, Action};
use crate::effects::hooks::HELPER;
use crate::failure::Result;
use crate::start::{Role, start};
use crate::{cleanup, info, server};

/// Runs the program with the arguments after its name. Exit code 0, or 1 with
/// the reason on stderr: the daemon shows it to the user.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match act(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "containerd-shim-boathook-v2: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn act(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    daemon::close_inherited();
    let mut args = args.into_iter().peekable();
    if args.peek().is_some_and(|first| first == HELPER) {
        return helper::run().map_err(|e| crate::failure::Failure::sys("report", e));
    }
    let (action, flags) = args::parse(args)?;
    match action {
        Action::Start => match start(&flags).map_err(|e| e.context("start"))? {
            Role::Command => Ok(()),
            Role::Server(setup) => server::run(*setup),
        },
        Action::Delete => cleanup::delete(&flags).map_err(|e| e.context("delete")),
        Action::Info => info::info().map_err(|e| e.context("info")),
        Action::Version => version(),
    }
}

fn version() -> Result<()> {
    let line = concat!("containerd-shim-boathook-v2 ", env!("CARGO_PKG_VERSION"), "\n");
    let written = std::io::stdout().write_all(line.as_bytes());
    written.map_err(|e| crate::failure::Failure::sys("write stdout", e))
}
