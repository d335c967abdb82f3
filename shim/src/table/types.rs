//! What goes into the table and what comes out of it: plain data.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use boathook_fs::rootfs::MountSpec;
use boathook_hooks::Policy;
use boathook_hooks::record::{Hook, What};
use boathook_hooks::termination;

use crate::failure::Failure;
use crate::options::Options;

/// One call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// A container, numbered anew each time an id is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerNo(pub u32);

/// A process (init or exec), numbered anew each time an id is used. A late
/// result for an exec that is gone can so never reach its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessNo(pub u32);

/// The process a call is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The container's id.
    pub id: String,
    /// The exec's id; none for the container's init.
    pub exec: Option<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// 0 to 255; 128 + n after signal n; 255 when nobody knows.
    pub status: u32,
    /// When it was reaped; none for an exec that never ran.
    pub at: Option<SystemTime>,
}

/// Paths of the standard streams as the caller gave them; empty means none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    /// A fifo the container reads from.
    pub stdin: String,
    /// A fifo, a file or a program the container's output goes to.
    pub stdout: String,
    /// The same for errors; unused with a terminal.
    pub stderr: String,
    /// The process gets a terminal, and the streams are copied to and from it.
    pub terminal: bool,
}

/// A decoded Create call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateRequest {
    /// The container's id.
    pub id: String,
    /// Directory with config.json and rootfs.
    pub bundle: PathBuf,
    /// Mounts to stack on `bundle/rootfs`, the first one first.
    pub rootfs: Vec<MountSpec>,
    /// Standard streams of init.
    pub stdio: Stdio,
    /// Options of this task, with the group's in the empty places.
    pub options: Options,
}

/// A decoded Exec call.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container's id.
    pub id: String,
    /// The new process's id.
    pub exec_id: String,
    /// Standard streams of the process.
    pub stdio: Stdio,
    /// The process as OCI JSON.
    pub spec: Vec<u8>,
}

/// Without the process: its environment has secrets, and calls are logged.
impl fmt::Debug for ExecRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecRequest")
            .field("id", &self.id)
            .field("exec_id", &self.exec_id)
            .field("stdio", &self.stdio)
            .finish_non_exhaustive()
    }
}

/// A decoded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a container, its init held back.
    Create(Box<CreateRequest>),
    /// Let init go, or run an exec.
    Start(Target),
    /// What is known about a process.
    State(Target),
    /// Answer when the process has ended.
    Wait(Target),
    /// Forget an ended process; for init, remove the container.
    Delete(Target),
    /// Send a signal to one process or, with `all`, to all of the container.
    Kill {
        /// The process.
        target: Target,
        /// Signal number.
        signal: i32,
        /// Every process in the container.
        all: bool,
    },
    /// Register a process to be run by Start.
    Exec(Box<ExecRequest>),
    /// Pids in the container.
    Pids(String),
    /// Freeze.
    Pause(String),
    /// Thaw.
    Resume(String),
    /// New size of a terminal.
    Resize {
        /// The process.
        target: Target,
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// No more input will come for the process, if `close` is set.
    CloseStdin {
        /// The process.
        target: Target,
        /// False asks for nothing.
        close: bool,
    },
    /// New limits.
    Update {
        /// The container's id.
        id: String,
        /// `LinuxResources` as JSON.
        resources: Vec<u8>,
    },
    /// What the container's cgroup used.
    Stats(String),
    /// Liveness probe; answers for unknown ids too.
    Connect(String),
    /// End the server once no container is left.
    Shutdown,
}

/// The status words of `containerd.v1.types.Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Made, not let go.
    Created,
    /// Running.
    Running,
    /// Ended.
    Stopped,
    /// Frozen.
    Paused,
    /// Being frozen.
    Pausing,
}

/// The answer to State.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateAnswer {
    /// The process asked about.
    pub target: Target,
    /// The container's bundle.
    pub bundle: PathBuf,
    /// 0 before it is known.
    pub pid: u32,
    /// What it is doing.
    pub status: Status,
    /// Streams as given.
    pub stdio: Stdio,
    /// Once it ended.
    pub exit: Option<Exit>,
}

/// A successful answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// Create, Start, Connect: a pid, 0 for none.
    Pid(u32),
    /// State.
    State(Box<StateAnswer>),
    /// Wait.
    Exit(Exit),
    /// Delete.
    Deleted {
        /// Its pid, 0 if it never ran.
        pid: u32,
        /// How it ended, if it ever ran.
        exit: Option<Exit>,
    },
    /// Pids, each with the exec it belongs to.
    Pids(Vec<(u32, Option<String>)>),
    /// Stats: an encoded metrics message and its type URL.
    Stats {
        /// Full name of the message.
        type_url: &'static str,
        /// The message.
        value: Vec<u8>,
    },
}

/// What is published on containerd's event bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// `/tasks/create`
    Create {
        /// The container's id.
        id: String,
        /// Its bundle.
        bundle: PathBuf,
        /// Its root mounts.
        rootfs: Vec<MountSpec>,
        /// Init's streams.
        stdio: Stdio,
        /// Init.
        pid: u32,
    },
    /// `/tasks/start`
    Start {
        /// The container's id.
        id: String,
        /// Init.
        pid: u32,
    },
    /// `/tasks/exec-added`
    ExecAdded {
        /// The container's id.
        id: String,
        /// The exec's id.
        exec_id: String,
    },
    /// `/tasks/exec-started`
    ExecStarted {
        /// The container's id.
        id: String,
        /// The exec's id.
        exec_id: String,
        /// Its process.
        pid: u32,
    },
    /// `/tasks/exit`
    Exit {
        /// The process that ended.
        target: Target,
        /// Its pid.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// `/tasks/delete`
    Delete {
        /// The container's id.
        id: String,
        /// Init.
        pid: u32,
        /// How init ended.
        exit: Exit,
    },
    /// `/tasks/paused`
    Paused(String),
    /// `/tasks/resumed`
    Resumed(String),
    /// `/tasks/oom`
    Oom(String),
    /// Something about hooks and stops; not said by the table itself.
    Lifecycle {
        /// The container's id.
        id: String,
        /// Never below `/tasks/`.
        topic: &'static str,
        /// What there is to say.
        labels: Vec<(String, String)>,
    },
}

/// A clock the driver runs for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The server has had nothing to look after since this generation began.
    Idle(u64),
    /// Execs should have followed their container's init by now.
    Barrier(ContainerNo),
    /// The container ended a while ago and nobody has deleted it.
    Orphan(ContainerNo),
    /// The stop of the container has to move on; the number names the clock.
    Stop(ContainerNo, u32),
}

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookEnd {
    /// It did what it was to do.
    Succeeded,
    /// It did, over http in place of https; the text says so.
    WithoutTls(String),
    /// It did not; the text says why.
    Failed(String),
}

/// Something to be written down and told about a container with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What happened.
    pub what: What,
    /// Where the stop stands now.
    pub state: termination::State,
    /// How long it may stand there.
    pub left: Option<Duration>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A call came in.
    Call(Token, Command),
    /// Its caller is gone; no answer is wanted.
    Cancelled(Token),
    /// A process was reaped.
    Exited(ProcessNo, Exit),
    /// Processes of the container ran out of memory and some were killed.
    OutOfMemory(ContainerNo),
    /// A container that has just been created has hooks or a way of stopping.
    Policy(ContainerNo, Box<Policy>),
    /// An effect has finished.
    Finished(Outcome),
    /// A clock ran out.
    Elapsed(Timer),
    /// SIGTERM: end, whatever is left.
    Terminate,
}

/// How an effect ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// [`Action::Create`]: init's pid, and whether it has a pid namespace of its own.
    Created(ContainerNo, Result<(u32, bool), Failure>),
    /// [`Action::Register`].
    Registered(ProcessNo, Result<(), Failure>),
    /// [`Action::Start`] and [`Action::StartExec`]: the pid.
    Started(ProcessNo, Result<u32, Failure>),
    /// [`Action::Pause`].
    Paused(ContainerNo, Result<(), Failure>),
    /// [`Action::Resume`].
    Resumed(ContainerNo, Result<(), Failure>),
    /// [`Action::Pids`].
    Pids(ContainerNo, Token, Vec<u32>),
    /// [`Action::Drain`]: the streams of an exec have been copied and closed.
    Drained(ProcessNo),
    /// [`Action::CheckBundle`]: whether it is still there.
    Bundle(ContainerNo, bool),
    /// [`Action::RunHook`].
    HookEnded(ContainerNo, Hook, HookEnd),
    /// [`Action::Delete`].
    Deleted(ContainerNo, Result<(), Failure>),
    /// Any effect that answers one call and changes nothing here.
    Answered(Token, Result<Answer, Failure>),
}

/// Something to do. Actions of one input are done in the order given.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Answer a call.
    Reply(Token, Result<Answer, Failure>),
    /// Queue an event.
    Publish(Event),
    /// Mount the rootfs, make the container, connect its streams.
    Create(ContainerNo, ProcessNo, Box<CreateRequest>),
    /// End a running [`Action::Create`] early: it fails and undoes itself, unless
    /// it has just succeeded.
    AbortCreate(ContainerNo),
    /// Let init go.
    Start(ProcessNo),
    /// Check an exec's JSON and keep it for its start.
    Register(ProcessNo, Vec<u8>),
    /// Run a registered exec; its id is for whoever takes its output.
    StartExec(ContainerNo, ProcessNo, String, Stdio),
    /// Send a signal to one process; the token, if any, wants the result.
    Signal(ProcessNo, i32, Option<Token>),
    /// Send a signal to every process of the container.
    SignalAll(ContainerNo, i32, Option<Token>),
    /// Init is gone: kill what is left of the container.
    KillRest(ContainerNo),
    /// Freeze.
    Pause(ContainerNo),
    /// Thaw.
    Resume(ContainerNo),
    /// Thaw so that a signal or an end can take effect; nobody waits for it.
    Thaw(ContainerNo),
    /// Read the container's pids.
    Pids(ContainerNo, Token),
    /// Read the container's usage.
    Stats(ContainerNo, Token),
    /// Set limits.
    Update(ContainerNo, Vec<u8>, Token),
    /// Set a terminal's size.
    Resize(ProcessNo, u16, u16, Token),
    /// Drop the writer held on the stdin fifo.
    CloseStdin(ProcessNo),
    /// The process has ended: what it wrote is copied, then its streams close.
    EndIo(ProcessNo),
    /// The ended process is being forgotten: report when its output is through.
    Drain(ProcessNo),
    /// Write init's exit status down for `delete`.
    Record(ContainerNo, Exit),
    /// See whether the container's bundle still exists.
    CheckBundle(ContainerNo),
    /// Run a hook.
    RunHook(ContainerNo, Hook),
    /// The container has ended: its hooks have nothing to wait for.
    EndHooks(ContainerNo),
    /// Write down and tell of what happened to hooks and stop.
    Note(ContainerNo, Box<Note>),
    /// Remove the container.
    Delete(ContainerNo),
    /// Drop every descriptor kept for the process.
    Forget(ProcessNo),
    /// Run a clock.
    Arm(Timer, Duration),
    /// Take the socket's name away and end the server.
    Stop,
}
