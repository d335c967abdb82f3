//! Crashes and restarts: the shim, the daemon or both are killed or stopped at a chosen point, and
//! what is left, what lives on and what is told is looked at.
//!
//! A chosen point is one where a hook of the container says that it is there and waits to be told
//! to go on ([`gate`]), so nothing here depends on how fast the machine is. What the engine leaves
//! when it is killed between any two of its system calls is in the suite `root_engine`.

mod exec_call;
mod execs;
mod faults;
mod gate;
mod kill_call;
mod killed;
mod pods;
mod restarts;
mod rig;
mod stage;
mod timeouts;

use std::process::ExitCode;

use rootfs_tests::suite::{self, Entry};

fn main() -> ExitCode {
    let alone = [killed::ALONE, timeouts::ALONE, execs::ALONE, faults::ALONE].concat();
    let played = [restarts::PLAYED, kill_call::PLAYED, exec_call::PLAYED, pods::PLAYED].concat();
    let entries: Vec<Entry> = played.into_iter().map(stage::entry).collect();
    suite::main(alone.into_iter().map(stage::trial).collect(), &entries)
}
