//! What the table asks for, done: calls into the engine and the file system,
//! streams, timers, events.
//!
//! Whatever may take longer than a few microseconds runs on a small pool of
//! threads that end when idle, and its result comes back through the inbox.
//! Every descriptor of a container or a process is owned by its record here,
//! under the number the table knows it by.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use boathook_runtime::{Cancel, Engine, Process, spec};
use oci_spec::runtime::Process as ProcessSpec;
use tokio::task::spawn_blocking;

use crate::bundle::Record;
use crate::driver::Inbox;
use crate::events::Publisher;
use crate::failure::{self, Failure};
use crate::io::Streams;
use crate::socket::SocketFile;
use crate::table::{Action, Answer, ContainerNo, Exit, Input, Outcome, ProcessNo, Timer, Token};

mod create;
mod delete;
mod exec;
pub(crate) mod hooks;

use create::NewContainer;
use exec::NewProcess;

/// State directory of the engine where the options name none.
pub const DEFAULT_ROOT: &str = "/run/boathook";

/// How long the program of a started process may take to be executed.
const START_LIMIT: Duration = Duration::from_secs(30);
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A finished effect that hands something over.
#[derive(Debug)]
pub(crate) enum Delivery {
    Created(ContainerNo, ProcessNo, failure::Result<Box<NewContainer>>),
    Started(ContainerNo, ProcessNo, failure::Result<Box<NewProcess>>),
    Deleted(ContainerNo, failure::Result<()>),
    /// An engine has got ready for more containers, as far as it can.
    Prepared,
}

/// A container as the engine knows it, and what belongs to it.
#[derive(Debug)]
pub(crate) struct Live {
    container: boathook_runtime::Container,
    bundle: PathBuf,
    /// containerd's namespace.
    namespace: Arc<str>,
    /// Owner of the stdio pipes on the host.
    owner: (u32, u32),
}

impl Live {
    /// One whose server is lost; nothing but hooks will run in it.
    fn lost(container: boathook_runtime::Container, bundle: &Path) -> Self {
        Self { container, bundle: bundle.to_owned(), namespace: "".into(), owner: (0, 0) }
    }
}

/// What is kept for one process.
#[derive(Debug)]
struct LiveProcess {
    container: Option<ContainerNo>,
    process: Option<Arc<Process>>,
    /// A registered exec before its start.
    spec: Option<Box<ProcessSpec>>,
    console: Option<OwnedFd>,
    streams: Option<Streams>,
    /// CloseIO came before there were streams.
    stdin_closed: bool,
}

/// Everything the driver can set in motion.
#[derive(Debug)]
pub(crate) struct Effects {
    inbox: Inbox,
    publisher: Publisher,
    namespace: Arc<str>,
    /// The daemon's gRPC socket.
    daemon: Arc<str>,
    socket: SocketFile,
    engines: HashMap<PathBuf, Engine>,
    creating: HashMap<ContainerNo, Cancel>,
    containers: HashMap<ContainerNo, Arc<Live>>,
    records: HashMap<ContainerNo, Record>,
    processes: HashMap<ProcessNo, LiveProcess>,
    ready: VecDeque<Input>,
    /// Whether a container was made since the engines were last asked to get ready for more.
    unprepared: bool,
    /// Containers with a policy.
    lives: HashMap<ContainerNo, hooks::Life>,
}

impl Effects {
    pub(crate) fn new(
        inbox: Inbox,
        publisher: Publisher,
        (namespace, daemon): (String, String),
        socket: SocketFile,
    ) -> Self {
        Self {
            inbox,
            publisher,
            namespace: namespace.into(),
            daemon: daemon.into(),
            socket,
            engines: HashMap::new(),
            creating: HashMap::new(),
            containers: HashMap::new(),
            records: HashMap::new(),
            processes: HashMap::new(),
            ready: VecDeque::new(),
            unprepared: false,
            lives: HashMap::new(),
        }
    }

    /// The next result of an effect that was done at once.
    pub(crate) fn ready(&mut self) -> Option<Input> {
        self.ready.pop_front()
    }

    /// Takes the socket's name away: no new client finds this server.
    pub(crate) fn withdraw(&self) {
        self.socket.remove();
    }

    /// Ends the event queue.
    pub(crate) async fn finish(self, limit: Duration) {
        let Self { publisher, containers, processes, .. } = self;
        publisher.finish(limit).await;
        // A dropped process would be killed and waited for. When the server is
        // told to end, what runs keeps running for `delete` to deal with.
        std::mem::forget((containers, processes));
    }

    /// Reaps what was left to this process, the subreaper, by containers.
    pub(crate) fn reap_orphans(&self) {
        boathook_runtime::process::reap_orphans();
    }

    /// Has the engines get ready for more containers, in a moment in which nothing is to be done;
    /// tells whether something was begun. Pods of one container that ends soon never come here.
    pub(crate) fn prepare(&mut self) -> bool {
        if !std::mem::take(&mut self.unprepared) {
            return false;
        }
        let engines = self.engines.values().filter(|engine| !engine.is_prepared());
        let engines: Vec<Engine> = engines.cloned().collect();
        if engines.is_empty() {
            return false;
        }
        let inbox = self.inbox.clone();
        spawn_blocking(move || {
            for engine in engines {
                if let Err(error) = engine.prepare() {
                    crate::debug!("containers begin with the host's mounts: {error}");
                }
            }
            inbox.deliver(Delivery::Prepared);
        });
        true
    }

    /// Begins one action. Replies and the end are the driver's.
    pub(crate) fn start(&mut self, action: Action) {
        match action {
            Action::Publish(event) => self.publisher.publish(&event),
            Action::Create(no, init, request) => self.create(no, init, request),
            Action::AbortCreate(no) => {
                if let Some(cancel) = self.creating.get(&no) {
                    cancel.cancel();
                }
            }
            Action::Start(no) => self.start_init(no),
            Action::Register(no, json) => self.register(no, &json),
            Action::StartExec(container, no, exec_id, stdio) => {
                self.start_exec(container, no, exec_id, stdio);
            }
            Action::Signal(no, signal, token) => self.signal(no, signal, token),
            Action::SignalAll(no, signal, token) => self.signal_all(no, signal, token),
            Action::KillRest(no) => self.quietly(no, |live| live.container.kill_all(KILL_LIMIT)),
            Action::Thaw(no) => self.quietly(no, |live| live.container.resume()),
            Action::Pause(no) => self.in_pool(no, move |live| {
                let done = live.and_then(|live| Ok(live.container.pause(FREEZE_LIMIT)?));
                Outcome::Paused(no, done)
            }),
            Action::Resume(no) => self.in_pool(no, move |live| {
                Outcome::Resumed(no, live.and_then(|live| Ok(live.container.resume()?)))
            }),
            Action::Pids(no, token) => self.in_pool(no, move |live| {
                // A cgroup that is gone has no pids; the table adds init.
                let pids = live.and_then(|live| Ok(live.container.pids()?)).unwrap_or_default();
                let pids = pids.into_iter().filter_map(|pid| u32::try_from(pid).ok());
                Outcome::Pids(no, token, pids.collect())
            }),
            Action::Stats(no, token) => self.in_pool(no, move |live| {
                let stats = live.and_then(|live| crate::stats::answer(&live.container.stats()?));
                Outcome::Answered(token, stats)
            }),
            Action::Update(no, json, token) => self.in_pool(no, move |live| {
                let done = live.and_then(|live| {
                    let resources = spec::resources_from_json(&json)?;
                    live.container.update(&resources)?;
                    Ok(Answer::Done)
                });
                Outcome::Answered(token, done)
            }),
            Action::Resize(no, width, height, token) => self.resize(no, (width, height), token),
            Action::CloseStdin(no) => self.close_stdin(no),
            Action::EndIo(no) => self.end_io(no),
            Action::Drain(no) => self.drain(no),
            Action::Record(no, exit) => self.record_exit(no, exit),
            Action::CheckBundle(no) => {
                let there = self.containers.get(&no).is_some_and(|live| live.bundle.exists());
                self.ready.push_back(Input::Finished(Outcome::Bundle(no, there)));
            }
            Action::RunHook(no, hook) => self.run_hook(no, hook),
            Action::EndHooks(no) => self.end_hooks(no),
            Action::Note(no, note) => self.note(no, *note),
            Action::Delete(no) => self.delete(no),
            Action::Forget(no) => drop(self.processes.remove(&no)),
            Action::Arm(timer, after) => self.arm(timer, after),
            Action::Reply(..) | Action::Stop => {}
        }
    }

    /// Takes what a finished effect brings, and tells the table what came of it.
    pub(crate) fn absorb(&mut self, delivery: Delivery) -> Option<Input> {
        if let Delivery::Created(no, ..) = &delivery {
            self.creating.remove(no);
        }
        let outcome = match delivery {
            Delivery::Created(no, init, Ok(new)) => return self.adopt_container(no, init, *new),
            Delivery::Created(no, _, Err(failure)) => Outcome::Created(no, Err(failure)),
            Delivery::Started(no, process, Ok(new)) => return self.adopt_exec(no, process, *new),
            Delivery::Started(_, process, Err(failure)) => Outcome::Started(process, Err(failure)),
            Delivery::Deleted(no, result) => {
                if result.is_ok() {
                    self.containers.remove(&no);
                    self.records.remove(&no);
                    self.lives.remove(&no);
                }
                Outcome::Deleted(no, result)
            }
            Delivery::Prepared => return None,
        };
        Some(Input::Finished(outcome))
    }

    fn engine(&mut self, root: Option<&Path>) -> (PathBuf, Engine) {
        let root = root.unwrap_or(Path::new(DEFAULT_ROOT)).join(&*self.namespace);
        let engine = self.engines.entry(root.clone()).or_insert_with(|| Engine::new(&root));
        (root.clone(), engine.clone())
    }

    fn live(&self, no: ContainerNo) -> failure::Result<Arc<Live>> {
        let live = self.containers.get(&no).cloned();
        live.ok_or_else(|| Failure::not_found("the container is gone"))
    }

    fn process(&self, no: ProcessNo) -> failure::Result<Arc<Process>> {
        let process = self.processes.get(&no).and_then(|p| p.process.clone());
        process.ok_or_else(|| Failure::not_found("the process is gone"))
    }

    fn streams(&mut self, no: ProcessNo) -> Option<&mut Streams> {
        self.processes.get_mut(&no).and_then(|p| p.streams.as_mut())
    }

    /// Runs `work` in the pool and reports its outcome.
    fn in_pool(
        &self,
        no: ContainerNo,
        work: impl FnOnce(failure::Result<Arc<Live>>) -> Outcome + Send + 'static,
    ) {
        let (inbox, live) = (self.inbox.clone(), self.live(no));
        spawn_blocking(move || inbox.input(Input::Finished(work(live))));
    }

    /// Runs `work` in the pool; nobody waits for it.
    fn quietly(
        &self,
        no: ContainerNo,
        work: impl FnOnce(&Live) -> boathook_runtime::Result<()> + Send + 'static,
    ) {
        let Ok(live) = self.live(no) else { return };
        spawn_blocking(move || {
            if let Err(error) = work(&live) {
                crate::warning!("container {}: {error}", live.container.id());
            }
        });
    }

    fn start_init(&mut self, no: ProcessNo) {
        let (inbox, process) = (self.inbox.clone(), self.process(no));
        let container = self.processes.get(&no).and_then(|p| p.container);
        let live = container.ok_or_else(|| Failure::not_found("the container is gone"));
        let live = live.and_then(|no| self.live(no));
        spawn_blocking(move || {
            let started = process.and_then(|process| {
                live?.container.start(&process, START_LIMIT)?;
                Ok(pid(&process))
            });
            inbox.input(Input::Finished(Outcome::Started(no, started)));
        });
    }

    fn signal(&mut self, no: ProcessNo, signal: i32, token: Option<Token>) {
        let done = self.process(no).and_then(|process| Ok(process.signal(signal)?));
        self.answer(token, done);
    }

    fn signal_all(&self, no: ContainerNo, signal: i32, token: Option<Token>) {
        let Some(token) = token else {
            return self.quietly(no, move |live| live.container.signal_all(signal));
        };
        self.in_pool(no, move |live| {
            let done = live.and_then(|live| Ok(live.container.signal_all(signal)?));
            Outcome::Answered(token, done.map(|()| Answer::Done))
        });
    }

    fn resize(&mut self, no: ProcessNo, (width, height): (u16, u16), token: Token) {
        let console = self.processes.get(&no).and_then(|p| p.console.as_ref());
        let done = match console {
            Some(master) => {
                boathook_runtime::console::resize(master.as_fd(), width.into(), height.into())
                    .map_err(Into::into)
            }
            None => Ok(()),
        };
        self.answer(Some(token), done);
    }

    fn close_stdin(&mut self, no: ProcessNo) {
        if let Some(process) = self.processes.get_mut(&no) {
            process.stdin_closed = true;
            if let Some(streams) = &mut process.streams {
                streams.close_stdin();
            }
        }
    }

    /// From here on nothing of the process is needed but what it wrote.
    fn end_io(&mut self, no: ProcessNo) {
        if let Some(process) = self.processes.get_mut(&no) {
            process.console = None;
            if let Some(streams) = &mut process.streams {
                streams.process_ended();
            }
        }
    }

    fn drain(&mut self, no: ProcessNo) {
        let drained = self.streams(no).map(|streams| streams.drained());
        match drained {
            Some(drained) => {
                let inbox = self.inbox.clone();
                tokio::spawn(async move {
                    drained.await;
                    inbox.input(Input::Finished(Outcome::Drained(no)));
                });
            }
            None => self.ready.push_back(Input::Finished(Outcome::Drained(no))),
        }
    }

    fn record_exit(&mut self, no: ContainerNo, exit: Exit) {
        if let (Some(record), Some(live)) = (self.records.get_mut(&no), self.containers.get(&no)) {
            record.exit = Some(exit.into());
            if let Err(failure) = record.write(&live.bundle) {
                crate::warning!("exit status of {}: {failure}", live.container.id());
            }
        }
    }

    fn answer(&mut self, token: Option<Token>, done: failure::Result<()>) {
        if let Some(token) = token {
            let outcome = Outcome::Answered(token, done.map(|()| Answer::Done));
            self.ready.push_back(Input::Finished(outcome));
        }
    }

    fn arm(&self, timer: Timer, after: Duration) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            inbox.input(Input::Elapsed(timer));
        });
    }
}

impl LiveProcess {
    fn registered(spec: ProcessSpec) -> Self {
        Self {
            container: None,
            process: None,
            spec: Some(Box::new(spec)),
            console: None,
            streams: None,
            stdin_closed: false,
        }
    }
}

fn pid(process: &Process) -> u32 {
    u32::try_from(process.pid()).unwrap_or(0)
}
