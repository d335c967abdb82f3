//! A pod of containers that sleep, in one shim.

use rootfs_tests::Result;
use rootfs_tests::memory::Usage;

use crate::rig::{Container, Rig, Served, Which};
use crate::tasks::{SLEEP, begin_sleep, end_sleep, one_exec};

/// What a shim has done before its memory is looked at, so that the figure is not that of a
/// process fresh from its start.
const EXECS: usize = 10;
const CALLS: usize = 100;

/// A shim and its containers.
pub(crate) struct Pod {
    served: Served,
    containers: Vec<Container>,
}

impl Pod {
    /// Starts a pod of so many containers.
    pub(crate) fn start(rig: &Rig, which: Which, members: usize) -> Result<Self> {
        let group = rig.name("pod");
        let first = rig.member(which, &SLEEP, Some(&group))?;
        let mut served = rig.serve(which, &first)?;
        begin_sleep(&mut served, &first)?;
        let mut containers = vec![first];
        while containers.len() < members {
            let container = rig.member(which, &SLEEP, Some(&group))?;
            begin_sleep(&mut served, &container)?;
            containers.push(container);
        }
        Ok(Self { served, containers })
    }

    /// Execs and calls, as a node makes them in the first minutes of a pod.
    pub(crate) fn use_it(&mut self) -> Result<()> {
        for container in &self.containers {
            for number in 0..EXECS {
                one_exec(&mut self.served, &container.id, &format!("e{number}"))?;
            }
            for _ in 0..CALLS {
                self.served.task.state(&container.id, "")?;
            }
        }
        Ok(())
    }

    /// What its shim costs now.
    pub(crate) fn usage(&mut self) -> Result<Usage> {
        let first = self.containers.first().map(|c| c.id.clone()).unwrap_or_default();
        Usage::of(self.served.task.connect(&first)?.shim_pid)
    }

    /// Ends its containers, and the shim.
    pub(crate) fn end(mut self) -> Result<()> {
        for container in self.containers {
            end_sleep(&mut self.served, container)?;
        }
        self.served.shim.end()
    }
}
