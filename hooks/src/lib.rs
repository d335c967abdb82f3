//! Lifecycle hooks as Kubernetes knows them, and the machine that stops a
//! container.
//!
//! ```text
//! annotations ─┐
//!              ├─ source ─> Policy ─> termination (pure) ─> actions ─> whoever runs the container
//! config file ─┘             │
//!                            └─ handler ─> http (a helper process), exec, sleep
//! ```
//! Nothing here starts a thread or knows a container: the shim does what the
//! machine says and tells it what happened. Source of the semantics: the
//! kubelet of Kubernetes 1.36 (`pkg/kubelet/lifecycle`,
//! `pkg/kubelet/kuberuntime`) and the API's validation.
#![forbid(unsafe_code)]

pub mod config;
mod error;
pub mod handler;
pub mod http;
pub mod journal;
pub mod message;
pub mod record;
pub mod signal;
pub mod source;
pub mod termination;

pub use config::Config;
pub use error::{Error, Result};
pub use handler::Handler;
pub use record::Hook;
pub use source::{Order, Origin, Policy};
pub use termination::Machine;
