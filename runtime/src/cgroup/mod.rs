//! Control groups, by directory descriptor.
//!
//! ```text
//! probe      hierarchy, layout     which hierarchies a host has, asked once
//! plan       plan, path, limits,   config.json → ordered writes; pure
//!            devices
//! execute    create, apply         mkdir, limits; undone on any error
//! join       create::Join, birth   before the clone: descriptors for the child
//! live       update, freezer,      a running container
//!            kill, oom, stats
//! end        kill, delete          nobody left, nothing left
//! ```
//!
//! v1, hybrid and v2 are siblings: [`Layout::mode`] picks, `limits` and
//! `stats` have a module for each, and `v1`/`v2` hold what only one needs.
//!
//! No container's process id is ever written to `cgroup.procs`: that write waits for an RCU
//! grace period (8–10 ms). A child writes `0` to v1 `tasks` files while it has
//! one thread, which takes microseconds (kernel commit 9a3284fad42f, 5.5), or
//! is born in its v2 cgroup by `CLONE_INTO_CGROUP` (5.7); see [`Join`].

mod apply;
mod birth;
mod controller;
mod create;
mod delete;
mod devices;
mod enter;
mod file;
mod freezer;
mod group;
mod hierarchy;
mod kill;
mod layout;
mod limits;
mod oom;
mod path;
mod plan;
mod procs;
pub mod stats;
mod update;
mod v1;
mod v2;

#[cfg(test)]
mod recorded;

pub use controller::{Controller, Controllers};
pub use create::Join;
pub use devices::{Access, DeviceKind, DeviceMatch, DeviceProgram, DeviceRule};
pub use freezer::FrozenState;
pub use group::{Cgroup, CgroupDirectory, CgroupMember, CgroupRecord};
pub use hierarchy::Hierarchies;
pub use layout::{HierarchyMount, Kind, Layout, Mode};
pub use limits::Write;
pub use oom::{OomEvent, OomWatch};
pub use path::{Base, Location};
pub use plan::{CgroupPlan, Driver};
pub use stats::Stats;
