//! Cgroups on the real kernel. Needs root and fails without it.
//!
//! Every test works below a cgroup of its own, `/boathook-test-<pid>-<n>`, and
//! ends with a census: the directories there must be what they were.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not know as such")]

mod bpf;
mod create;
mod devices;
mod end;
mod limits;
mod live;
mod support;
