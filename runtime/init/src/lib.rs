//! The container-side program of boathook, and the one table of steps that it
//! shares with the engine.
//!
//! ```text
//! engine (host)                                  init (container)
//! ------------                                   ----------------
//! Step -> wire::Writer -> sealed memfd  ──fd──>  wire::Reader -> Step -> run
//! other descriptors     ──SCM_RIGHTS──>          slots
//!                       <──SEQPACKET──           report::Report
//! one byte: start       ──SEQPACKET──>           execve
//! ```
//!
//! The program is built without std and without libc, so that nothing of the
//! host runs in the container's address space but what is in this directory.
//! It never allocates: strings are borrowed from the mapped plan. It knows no
//! host path: whatever it needs of the host arrives as a descriptor.
#![cfg_attr(not(any(test, fuzzing)), no_std)]

pub mod consts;
pub mod report;
pub mod steps;
pub mod wire;

mod attach;
mod classic;
mod console;
mod copyup;
mod creds;
mod exec;
#[cfg(fuzzing)]
pub mod fake;
mod files;
mod mounts;
mod net;
mod open_files;
mod passwd;
mod paths;
pub mod run;
mod sched;
mod seccomp;
pub mod sys;

pub use report::Report;
pub use steps::Step;
pub use wire::{Ids, List, Malformed, Slot};
