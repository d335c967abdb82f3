//! The OCI engine: a config.json becomes a checked [`plan`], [`exec`] carries
//! out the parent's side of it, and a tiny init performs the container's side.
//!
//! ```text
//! spec ─> plan ─> exec ══ clone ══> init (crate boathook-init)
//!                  │ cgroup           │ mounts, devices, ids
//!                  └─ Process <───────┘ "ready", then execve at start
//! ```
//!
//! Synchronous, and no thread is ever made: callers that must not wait call it
//! from a thread of their own.

mod bare;
mod cancel;
pub mod cgroup;
mod channel;
pub mod check;
pub mod console;
pub mod container;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod exec;
pub mod helper;
pub mod hooks;
pub mod idmap;
mod image;
mod netdev;
pub mod plan;
pub mod process;
mod report;
pub mod resctrl;
pub mod seccomp;
pub mod spec;
pub mod state;
#[allow(unsafe_code, reason = "the one place for system calls that no crate wraps")]
mod sys;

pub use cancel::Cancel;
pub use container::Container;
pub use engine::{Create, CreateOptions, Created, Engine};
pub use error::{Error, ErrorKind, Result};
pub use exec::Stdio;
pub use plan::Plan;
pub use process::{ExitStatus, Process};
