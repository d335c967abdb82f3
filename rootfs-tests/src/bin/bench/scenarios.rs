//! What is measured, in the order of the table.

use rootfs_tests::Result;

use crate::report::Row;
use crate::rig::Rig;
use crate::{daemon, density, idle, layers, tasks};

/// One measurement that can be asked for by name.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Rig) -> Result<Vec<Row>>,
}

const fn scenario(
    name: &'static str,
    what: &'static str,
    run: fn(&Rig) -> Result<Vec<Row>>,
) -> Scenario {
    Scenario { name, what, run }
}

/// In the order of the table.
pub(crate) const ALL: &[Scenario] = &[
    scenario("task", "Create, Start, Wait, Delete over one connection", tasks::task),
    scenario("start", "the shim itself, until it answers", tasks::start),
    scenario("exec", "a process in a running container", tasks::exec),
    scenario("ctr", "ctr run --rm under containerd", daemon::ctr),
    scenario("cri", "a pod by CRI, step by step", daemon::cri),
    scenario("crowd", "twenty pods at once", daemon::crowd),
    scenario("density", "a start beside many containers and mounts", density::run),
    scenario("idle", "memory while the containers sleep", idle::run),
    scenario("layers", "layers of images, against containerd's differ and GNU tar", layers::run),
];
