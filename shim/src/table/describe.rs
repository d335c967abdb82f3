//! The table in words, for whoever looks into a server that does not go on.

use super::Table;
use super::container::{Container, Process};

impl Table {
    /// A line about the server, then one for each container, and below it one
    /// for each of its processes.
    pub fn describe(&self) -> Vec<String> {
        let Self { containers, shutdown, stopped, .. } = self;
        let count = containers.len();
        let mut lines = vec![format!("{count} containers, shutdown {shutdown}, stopped {stopped}")];
        for container in containers.values() {
            let Container { id, no, freeze, delete, barrier, .. } = container;
            lines.push(format!(
                "container {id:?}: number {}, {freeze:?}, delete {delete:?}, exit held back {barrier}",
                no.0
            ));
            lines.push(process(id, None, &container.init));
            lines.extend(container.execs.iter().map(|(exec, p)| process(id, Some(exec), p)));
        }
        lines
    }
}

fn process(container: &str, exec: Option<&str>, process: &Process) -> String {
    let Process { no, pid, state, waiters, deletes, .. } = process;
    let (number, waiters, deletes) = (no.0, waiters.len(), deletes.len());
    let what = exec.map_or_else(|| "init".to_owned(), |exec| format!("exec {exec:?}"));
    format!(
        "{what} of {container:?}: number {number}, pid {pid}, {state:?}, {waiters} calls of Wait, \
         {deletes} of Delete"
    )
}
