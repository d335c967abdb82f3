//! What the tests share: the harness with its census, containers to play with, and the payload.

pub(crate) mod arena;
pub(crate) mod case;
pub(crate) mod census;
pub(crate) mod harness;
pub(crate) mod hostmount;
pub(crate) mod live;
pub(crate) mod mountinfo;
pub(crate) mod payload;
pub(crate) mod spy;
pub(crate) mod streams;
#[allow(unsafe_code, reason = "system calls that no crate wraps")]
pub(crate) mod sys;

use std::time::Duration;

pub(crate) use arena::Arena;
pub(crate) use case::Case;
pub(crate) use harness::tests;
pub(crate) use live::Live;

/// How long anything may take on a slow and busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
