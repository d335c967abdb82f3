//! A pod of containers that sleep, in one shim.

use rootfs_tests::Result;

use crate::rig::{Container, Rig, Served, Which};
use crate::tasks::{SLEEP, begin_sleep, one_exec, stop_sleep};

/// What a shim has done before its memory is looked at, so that the figure is not that of a
/// process fresh from its start.
const EXECS: usize = 10;
const CALLS: usize = 100;

/// A shim and its containers; dropped before its end, it leaves no process behind.
pub(crate) struct Pod {
    served: Served,
    /// Those that run, the first one first.
    running: Vec<Container>,
    ended: Vec<Container>,
}

impl Pod {
    /// Starts a pod of so many containers.
    pub(crate) fn start(rig: &Rig, which: Which, members: usize) -> Result<Self> {
        let group = rig.name("pod");
        let first = rig.member(which, &SLEEP, Some(&group))?;
        let served = rig.serve(which, &first)?;
        let mut pod = Self { served, running: Vec::new(), ended: Vec::new() };
        pod.begin(first)?;
        while pod.running.len() < members {
            pod.begin(rig.member(which, &SLEEP, Some(&group))?)?;
        }
        Ok(pod)
    }

    fn begin(&mut self, container: Container) -> Result<()> {
        begin_sleep(&mut self.served, &container)?;
        self.running.push(container);
        Ok(())
    }

    /// Execs and calls, as a node makes them in the first minutes of a pod.
    pub(crate) fn use_it(&mut self) -> Result<()> {
        for container in &self.running {
            for number in 0..EXECS {
                one_exec(&mut self.served, &container.id, &format!("e{number}"))?;
            }
            for _ in 0..CALLS {
                self.served.task.state(&container.id, "")?;
            }
        }
        Ok(())
    }

    /// The process id of its shim.
    pub(crate) fn shim(&mut self) -> Result<u32> {
        let first = self.running.first().map(|c| c.id.clone()).unwrap_or_default();
        Ok(self.served.task.connect(&first)?.shim_pid)
    }

    /// Ends its containers, and the shim.
    pub(crate) fn end(mut self) -> Result<()> {
        self.stop()?;
        self.served.shim.end()?;
        // Not before: the shim's `delete` works in the first one's directory.
        std::mem::take(&mut self.ended).into_iter().try_for_each(Container::remove)
    }

    fn stop(&mut self) -> Result<()> {
        while let Some(container) = self.running.pop() {
            stop_sleep(&mut self.served, &container)?;
            self.ended.push(container);
        }
        Ok(())
    }
}

impl Drop for Pod {
    /// Best effort for a bench that failed half-way; the shim ends with its last handle.
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
