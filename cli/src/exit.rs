//! Exit codes, which scripts rely on:
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed; the reason is on standard error |
//! | 2 | the command line is wrong |

use std::io::Write;
use std::process::ExitCode;

/// The exit code of a command's result; an error goes to standard error.
pub(crate) fn of(result: Result<(), crate::output::Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "boathook: {error}");
            match error {
                crate::output::Failure::Usage(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Help and version are no failures; anything else is a wrong command line.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}
