//! The state of one pod: what exists, who waits for what, what to do next.
//!
//! [`Table::apply`] is a pure function of the table and one input: it has no
//! clock, no descriptor and nothing to await. Calls, exits, timers and the
//! results of effects come in; answers, events and new effects go out, and
//! the driver does them in the order given. Rules the tests hold it to:
//!
//! - a call is answered once, unless its caller left first;
//! - a process has one exit event at the most, and it follows its start event;
//! - the exits of execs come before the exit of their init, the container's
//!   delete event comes last;
//! - a state change is visible before the call or event that tells of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::failure::{Failure, Result};

mod calls;
mod container;
mod describe;
mod exits;
mod life;
mod results;
#[cfg(test)]
mod tests;
mod types;

pub use types::*;

use container::{Container, Delete, Process, State};

/// A server that looks after nothing for this long ends: its `start` may have
/// been forgotten, or nobody sends Shutdown.
pub const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// How long init's exit may wait for the exits of execs that were killed with
/// it. Only a process stuck in the kernel takes longer.
pub const BARRIER_LIMIT: Duration = Duration::from_secs(5);

/// How often an ended container that nobody deletes is looked at. When the
/// daemon has cleaned up behind this server's back (it takes a server that it
/// cannot reach for dead), the bundle is gone and no call will ever come.
pub const ORPHAN_INTERVAL: Duration = Duration::from_secs(60);

/// Ended execs kept per container for callers that have not deleted them.
/// Probes that time out never do; the oldest go first.
pub const MAX_ENDED_EXECS: usize = 64;

/// The state of one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    containers: BTreeMap<String, Container>,
    next_container: u32,
    next_process: u32,
    /// Somebody asked for the end; it comes with the last container's.
    shutdown: bool,
    stopped: bool,
    idle_generation: u64,
    /// The time, since some moment; only stops depend on it.
    now: Duration,
}

/// The actions of one input, in the order in which they are to be done.
type Actions = Vec<Action>;

impl Table {
    /// An empty table, and the clock that ends a server nobody ever used.
    pub fn new() -> (Self, Vec<Action>) {
        (Self::default(), vec![Action::Arm(Timer::Idle(0), IDLE_LIMIT)])
    }

    /// Says how late it is, since a moment that stays the same.
    pub fn set_time(&mut self, now: Duration) {
        self.now = now;
        for life in self.containers.values_mut().filter_map(|c| c.life.as_mut()) {
            life.now = now;
        }
    }

    /// Takes one input, returns what is to be done about it.
    pub fn apply(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Call(token, command) => self.call(token, command, &mut actions),
            Input::Cancelled(token) => self.cancelled(token),
            Input::Exited(no, exit) => self.exited(no, exit, &mut actions),
            Input::OutOfMemory(no) => {
                // After init's exit it would only confuse.
                if let Some(container) = self.by_no(no).filter(|c| c.ready() && !c.exit_told()) {
                    actions.push(Action::Publish(Event::Oom(container.id.clone())));
                }
            }
            Input::Policy(no, policy) => self.policy(no, policy),
            Input::Finished(outcome) => self.finished(outcome, &mut actions),
            Input::Elapsed(Timer::Idle(generation)) => {
                if self.containers.is_empty() && generation == self.idle_generation {
                    self.stop(&mut actions);
                }
            }
            Input::Elapsed(Timer::Barrier(no)) => self.barrier_over(no, &mut actions),
            Input::Elapsed(Timer::Orphan(no)) => self.orphan(no, &mut actions),
            Input::Elapsed(Timer::Stop(no, clock)) => self.stop_clock(no, clock, &mut actions),
            Input::Terminate => self.stop(&mut actions),
        }
        actions
    }

    /// Containers known, whatever their state.
    pub fn len(&self) -> usize {
        self.containers.len()
    }

    /// No container is known.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    fn stop(&mut self, actions: &mut Actions) {
        if !std::mem::replace(&mut self.stopped, true) {
            actions.push(Action::Stop);
        }
    }

    /// The last record is gone: end now if that was asked for, else in a while.
    fn emptied(&mut self, actions: &mut Actions) {
        if !self.containers.is_empty() {
            return;
        }
        if self.shutdown {
            self.stop(actions);
        } else {
            self.idle_generation += 1;
            actions.push(Action::Arm(Timer::Idle(self.idle_generation), IDLE_LIMIT));
        }
    }

    fn new_process(&mut self, stdio: Stdio, call: Token) -> Process {
        self.next_process += 1;
        Process::new(ProcessNo(self.next_process), stdio, call)
    }

    fn by_no(&mut self, no: ContainerNo) -> Option<&mut Container> {
        self.containers.values_mut().find(|c| c.no == no)
    }

    fn owner(&mut self, no: ProcessNo) -> Option<&mut Container> {
        self.containers.values_mut().find(|c| c.process(no).is_some())
    }

    /// The container a caller names, once its Create is done.
    fn ready(&mut self, id: &str) -> Result<&mut Container> {
        match self.containers.get_mut(id) {
            Some(container) if container.ready() => Ok(container),
            Some(_) => Err(Failure::not_found(format!("container {id:?} is still being created"))),
            None => Err(Failure::not_found(format!("container {id:?} does not exist"))),
        }
    }
}

/// The process a caller names.
fn process<'a>(container: &'a mut Container, exec: Option<&str>) -> Result<&'a mut Process> {
    let Some(exec) = exec else { return Ok(&mut container.init) };
    let id = &container.id;
    container
        .execs
        .get_mut(exec)
        .ok_or_else(|| Failure::not_found(format!("container {id:?} has no process {exec:?}")))
}

/// Nothing can be done to a container whose init is gone or about to be killed.
fn must_live(container: &Container, doing: &str) -> Result<()> {
    let problem = match (&container.init.state, &container.delete) {
        (State::Ended(_), _) => "stopped",
        (_, Delete::Wanted(_) | Delete::Running(_)) => "being deleted",
        (_, Delete::No) => return Ok(()),
    };
    Err(Failure::wrong_state(format!("cannot {doing}: container {:?} is {problem}", container.id)))
}
