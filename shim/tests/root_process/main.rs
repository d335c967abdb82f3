//! The shim as the daemon meets it: a program that is executed, and a socket
//! that answers. No daemon is involved, so every line of the contract can be
//! broken on purpose. Needs root and fails without it.
//!
//! Containers run the shim's own binary, which is static, as their program:
//! `-v` prints a line and ends, `-info` reads its input to the end first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, which clippy does not know as such"
)]

mod contract;
mod delete;
mod info;
mod placement;
mod start;
mod support;
mod task;
