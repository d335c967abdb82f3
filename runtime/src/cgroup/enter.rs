//! The calling process moving into a cgroup, as a server does that is to be
//! accounted for in a place of its own.

use super::group::{At, Cgroup};
use crate::error::Result;

impl Cgroup {
    /// Moves the calling process into this cgroup, in each hierarchy that has it.
    ///
    /// The process must have one thread: on v1 the calling thread alone is
    /// moved. On v2 the move waits for an RCU grace period, some 10 ms.
    ///
    /// # Errors
    /// The kernel's refusal, with the hierarchy's file; the process may have
    /// been moved in some of the hierarchies by then.
    pub fn enter(&self) -> Result<()> {
        for directory in self.directories() {
            let name = if directory.is_v2 { "cgroup.procs" } else { "tasks" };
            let at = At { root: directory.root, path: directory.path };
            at.write(name, "0").map_err(|errno| {
                let hierarchy = directory.mount_point.display();
                at.error("entering", name, errno).context(format!("{hierarchy}"))
            })?;
        }
        Ok(())
    }
}
