//! The shim as a library, so that tests can drive its parts.
//!
//! ```text
//! program ── start ── socket, dialect, bundle      service ── driver ── table (pure)
//!         ├─ cleanup (the delete command)                       │
//!         ├─ info                                            effects ── engine, io, events
//!         └─ server ── connections, service, driver
//! ```
#![forbid(unsafe_code)]

pub mod args;
pub mod bundle;
pub mod cleanup;
pub mod connections;
pub mod dialect;
pub mod driver;
pub mod effects;
pub mod events;
pub mod failure;
mod grpc;
pub mod info;
pub mod io;
pub mod log;
pub mod options;
pub mod program;
pub mod proto;
mod reaper;
pub mod server;
pub mod service;
pub mod socket;
pub mod start;
pub mod stats;
pub mod status;
mod stop_signal;
pub mod table;
pub mod watch;
