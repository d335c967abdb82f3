//! The records of the table: containers and their processes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use boathook_fs::rootfs::MountSpec;

use super::life::Life;
use super::types::{ContainerNo, Exit, ProcessNo, StateAnswer, Status, Stdio, Target, Token};

/// A container and its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) no: ContainerNo,
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    /// Kept from Create until its event is published.
    pub(super) rootfs: Vec<MountSpec>,
    pub(super) init: Process,
    pub(super) execs: BTreeMap<String, Process>,
    pub(super) freeze: Freeze,
    /// The kernel kills every process of a private pid namespace with init.
    pub(super) private_pidns: bool,
    /// Init has ended and its exit is held back until the execs' are out.
    pub(super) barrier: bool,
    pub(super) delete: Delete,
    /// A clock runs after which the ended container is looked at.
    pub(super) looked_after: bool,
    /// Counts ended execs, to know which one is the oldest.
    pub(super) exits_seen: u64,
    /// Hooks and stop, where there is a policy.
    pub(super) life: Option<Life>,
}

/// The freezer, as the callers of Pause and Resume see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freeze {
    Thawed,
    Pausing(Token),
    Paused,
    Resuming(Token),
}

/// Where a Delete of the container stands; all callers share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delete {
    /// Nobody asked.
    No,
    /// Asked for; waits until init is gone and its exit is out.
    Wanted(Vec<Token>),
    /// The effect runs.
    Running(Vec<Token>),
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) no: ProcessNo,
    /// 0 until it is known.
    pub(super) pid: u32,
    pub(super) stdio: Stdio,
    pub(super) state: State,
    /// Calls of Wait.
    pub(super) waiters: Vec<Token>,
    /// Calls of Delete for an exec whose output is still being copied.
    pub(super) deletes: Vec<Token>,
    /// Position among the ended execs of the container.
    pub(super) exit_order: u64,
}

/// What a process is doing.
///
/// ```text
/// init:  Preparing ─► Created ─► Starting ─► Running ─► Ended
///                        │ ▲         │ failed             ▲
///                        │ └─────────┘ (spent)            │
///                        └────────── killed ──────────────┘
/// exec:  Preparing ─► Created ─► Starting ─► Running ─► Ended
///                                    └─ failed ───────────┘ (no event)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Init: being made. Exec: its JSON is being checked.
    Preparing(Token),
    /// Ready to start; `spent` when a start was tried and failed.
    Created { spent: bool },
    /// Being started. An exit that arrives before the start is known waits here.
    Starting { call: Token, early: Option<Exit> },
    /// Running.
    Running,
    /// Gone.
    Ended(Exit),
}

impl State {
    pub(super) fn exit(&self) -> Option<Exit> {
        match self {
            Self::Ended(exit) => Some(*exit),
            _ => None,
        }
    }
}

impl Process {
    pub(super) fn new(no: ProcessNo, stdio: Stdio, call: Token) -> Self {
        Self {
            no,
            pid: 0,
            stdio,
            state: State::Preparing(call),
            waiters: Vec::new(),
            deletes: Vec::new(),
            exit_order: 0,
        }
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.state.exit()
    }

    /// It runs, or may turn out to.
    pub(super) fn alive(&self) -> bool {
        matches!(self.state, State::Starting { .. } | State::Running)
    }

    fn status(&self) -> Status {
        match self.state {
            State::Preparing(_) | State::Created { .. } | State::Starting { .. } => Status::Created,
            State::Running => Status::Running,
            State::Ended(_) => Status::Stopped,
        }
    }
}

impl Container {
    pub(super) fn process(&self, no: ProcessNo) -> Option<&Process> {
        std::iter::once(&self.init).chain(self.execs.values()).find(|p| p.no == no)
    }

    pub(super) fn process_mut(&mut self, no: ProcessNo) -> Option<&mut Process> {
        std::iter::once(&mut self.init).chain(self.execs.values_mut()).find(|p| p.no == no)
    }

    pub(super) fn exec_id(&self, no: ProcessNo) -> Option<&str> {
        self.execs.iter().find(|(_, p)| p.no == no).map(|(id, _)| id.as_str())
    }

    pub(super) fn target(&self, no: ProcessNo) -> Target {
        Target { id: self.id.clone(), exec: self.exec_id(no).map(str::to_owned) }
    }

    /// The container exists for callers: its Create has been answered.
    pub(super) fn ready(&self) -> bool {
        !matches!(self.init.state, State::Preparing(_))
    }

    /// The exit of init is known to callers.
    pub(super) fn exit_told(&self) -> bool {
        self.init.exit().is_some() && !self.barrier
    }

    pub(super) fn frozen(&self) -> bool {
        self.freeze != Freeze::Thawed
    }

    pub(super) fn execs_alive(&self) -> bool {
        self.execs.values().any(Process::alive)
    }

    /// The answer to State for one of its processes.
    pub(super) fn state_of(&self, process: &Process) -> StateAnswer {
        let exit = process.exit();
        let status = match self.freeze {
            // A frozen container freezes its execs too, whatever they did.
            Freeze::Paused | Freeze::Resuming(_) if exit.is_none() => Status::Paused,
            Freeze::Pausing(_) if exit.is_none() => Status::Pausing,
            _ => process.status(),
        };
        StateAnswer {
            target: self.target(process.no),
            bundle: self.bundle.clone(),
            pid: process.pid,
            status,
            stdio: process.stdio.clone(),
            exit,
        }
    }
}
