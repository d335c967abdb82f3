//! Hooks, run: an exec in the container, a request by a helper, a sleep. None
//! of them holds a thread while it lasts.
//!
//! What happens to a container with a policy is written down here, and told
//! on containerd's bus, in the same breath.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boathook_hooks::handler::{ExecAction, HttpGetAction, resolve_port};
use boathook_hooks::http::{Report, Request};
use boathook_hooks::journal;
use boathook_hooks::message::{self, Reason, Whose};
use boathook_hooks::record::{self, Hook, Record};
use boathook_hooks::{Config, Handler, Policy};
use boathook_runtime::helper::Helper;
use boathook_runtime::{Process, Stdio, spec};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Effects, Live, START_LIMIT};
use crate::events::lifecycle;
use crate::failure::{self, ErrorKind, Failure};
use crate::stop_signal::Question;
use crate::table::{ContainerNo, HookEnd, Input, Note, Outcome};
use crate::watch::{Watched, ready, watch};

mod lost;
pub(crate) use lost::Lost;

/// The argument that makes this program the helper of an httpGet hook.
pub(crate) const HELPER: &str = "http-hook";
/// How long putting the hook's process into the container may take.
const EXEC_LIMIT: Duration = Duration::from_secs(30);
/// What is kept of each stream of a hook; the rest is read and dropped.
const OUTPUT_MAX: usize = 4096;
/// What a helper may report.
const REPORT_MAX: usize = 256 << 10;
/// A helper that something ended is started again, so often in all.
const HELPER_TRIES: u32 = 3;
/// How long a helper may stay when its container has ended: the answer may be
/// on its way, the container's end being what was asked for.
const AFTER_END: Duration = Duration::from_secs(2);
/// Texts of the kubelet and of Go for a hook that its container's end cut short.
const SLEEP_CUT: &str = "container terminated before sleep hook finished";
const CUT: &str = "context canceled";

/// A container with a policy.
#[derive(Debug)]
pub(super) struct Life {
    record: Record,
    /// The container's state directory; none once it is being removed.
    dir: Option<PathBuf>,
    /// Dropped to tell a running hook that its container has ended.
    running: HashMap<Hook, oneshot::Sender<()>>,
}

/// Reads the policy of a container from its annotations.
pub(super) fn policy(
    id: &str,
    annotations: Option<&HashMap<String, String>>,
) -> failure::Result<Option<Box<Policy>>> {
    let Some(annotations) = annotations else { return Ok(None) };
    Policy::read(id, annotations, || Config::load(None))
        .map(|policy| policy.map(Box::new))
        .map_err(|e| Failure::invalid(e.to_string()))
}

/// A policy of which the stop signal may have to come from the daemon.
pub(super) struct Unsettled {
    policy: Box<Policy>,
    question: Option<failure::Result<Question>>,
}

impl Unsettled {
    /// Asks the daemon, in case it has to.
    pub(super) fn new(policy: Box<Policy>, (daemon, namespace): (&str, &str), id: &str) -> Self {
        let question = policy.signal.is_none().then(|| Question::ask(daemon, namespace, id));
        Self { policy, question }
    }

    /// The policy with what the daemon says.
    pub(super) fn settle(self) -> Box<Policy> {
        let Self { mut policy, question } = self;
        if let Some(question) = question {
            let told = question.and_then(Question::answer).inspect_err(|failure| {
                crate::warning!("stop signal of {}: {failure}", policy.container);
            });
            policy.settle_signal(told.ok());
        }
        policy
    }
}

impl Life {
    /// A container to which nothing has happened. `dir` is its state directory.
    pub(super) fn new(id: &str, policy: Policy, dir: PathBuf) -> failure::Result<Self> {
        let life = Self::of(Record::new(id, policy), dir);
        life.write()?;
        Ok(life)
    }

    fn of(record: Record, dir: PathBuf) -> Self {
        Self { record, dir: Some(dir), running: HashMap::new() }
    }

    /// The container is not to be after all.
    pub(super) fn remove(&self) {
        if let Some(dir) = &self.dir {
            remove_record(dir);
        }
    }

    fn write(&self) -> failure::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let json = serde_json::to_vec(&self.record)
            .map_err(|e| Failure::new(ErrorKind::Internal, format!("encode a record: {e}")))?;
        crate::bundle::replace(dir, record::FILE, &json)
    }
}

/// Removes the record from a container's state directory.
fn remove_record(dir: &Path) {
    let _ = std::fs::remove_file(dir.join(record::FILE));
}

/// Moves the record of a container that goes away from its state directory to
/// the journal.
pub(crate) fn retire_record(dir: &Path) -> failure::Result<()> {
    let record = read_record(dir);
    let added = record.and_then(|record| {
        let names = dir.parent().and_then(|namespace| Some((namespace.parent()?, namespace)));
        let (Some(record), Some((root, namespace))) = (record, names) else { return Ok(()) };
        let name = namespace.file_name().unwrap_or_default().to_string_lossy();
        journal::add(root, &name, &record).map_err(|e| Failure::sys("write the journal", e))
    });
    remove_record(dir);
    added
}

fn read_record(dir: &Path) -> failure::Result<Option<Record>> {
    match std::fs::read(dir.join(record::FILE)) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|e| Failure::invalid(format!("lifecycle record: {e}"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::sys("read the lifecycle record", e)),
    }
}

/// Whether there is a record in a container's state directory.
pub(crate) fn has_record(dir: &Path) -> bool {
    dir.join(record::FILE).exists()
}

impl Effects {
    /// The directory goes away; from now on nothing is written there.
    pub(super) fn close_life(&mut self, no: ContainerNo) -> Option<PathBuf> {
        self.lives.get_mut(&no).and_then(|life| life.dir.take())
    }

    /// Writes down what happened and tells of it.
    pub(super) fn note(&mut self, no: ContainerNo, note: Note) {
        let Some(life) = self.lives.get_mut(&no) else { return };
        let Note { what, state, left } = note;
        life.record.state = state;
        let until = left.and_then(|left| SystemTime::now().checked_add(left));
        life.record.until = until.map(record::millis);
        if let Some(event) = lifecycle::event(&life.record, &what) {
            self.publisher.publish(&event);
        }
        life.record.add(what);
        if let Err(failure) = life.write() {
            crate::warning!("record of {}: {failure}", life.record.id);
        }
    }

    /// The container has ended; its hooks have nothing more to wait for.
    pub(super) fn end_hooks(&mut self, no: ContainerNo) {
        if let Some(life) = self.lives.get_mut(&no) {
            life.running.clear();
        }
    }

    pub(super) fn run_hook(&mut self, no: ContainerNo, hook: Hook) {
        let inbox = self.inbox.clone();
        let done = move |end| inbox.input(Input::Finished(Outcome::HookEnded(no, hook, end)));
        let Some(life) = self.lives.get_mut(&no) else { return };
        let policy = &life.record.policy;
        let handler = match hook {
            Hook::PostStart => policy.post_start.clone(),
            Hook::PreStop => policy.pre_stop.clone(),
        };
        let Some(handler) = handler else { return done(HookEnd::Succeeded) };
        let policy = policy.clone();
        let (guard, ended) = oneshot::channel();
        life.running.insert(hook, guard);
        let live = self.live(no);
        tokio::spawn(async move {
            let result = match live {
                Ok(live) => run(&handler, &policy, live, ended).await,
                Err(failure) => Err(Reason::Problem(failure.to_string())),
            };
            done(result.unwrap_or_else(|reason| {
                let whose = Whose { container: &policy.container, pod: &policy.pod };
                HookEnd::Failed(message::failure(&handler, whose, &reason))
            }));
        });
    }
}

async fn run(
    handler: &Handler,
    policy: &Policy,
    live: Arc<Live>,
    ended: oneshot::Receiver<()>,
) -> Result<HookEnd, Reason> {
    match handler {
        Handler::Exec(exec) => run_exec(exec, live).await,
        Handler::HttpGet(get) => {
            let request = request(get, policy).map_err(Reason::Problem)?;
            run_request(&request, live, ended).await.map_err(Reason::Problem)
        }
        Handler::Sleep(action) => {
            let seconds = u64::try_from(action.seconds).unwrap_or(0);
            match timeout(Duration::from_secs(seconds), ended).await {
                // Nothing is ever sent; the sender goes with the container.
                Ok(_) => Err(Reason::Problem(SLEEP_CUT.to_owned())),
                Err(_) => Ok(HookEnd::Succeeded),
            }
        }
        Handler::TcpSocket(_) => Err(Reason::Problem(String::new())),
    }
}

fn problem(error: impl std::fmt::Display) -> Reason {
    Reason::Problem(error.to_string())
}

/// Runs a program in the container, as its own process: its limits, user,
/// rights and environment. It ends by itself or with the container.
async fn run_exec(exec: &ExecAction, live: Arc<Live>) -> Result<HookEnd, Reason> {
    let command = exec.command.clone();
    let launched = spawn_blocking(move || launch(&live, command)).await;
    let (process, stdout, stderr) = launched.map_err(problem)?.map_err(problem)?;
    let pidfd = process.pidfd().try_clone_to_owned().map_err(problem)?;
    let mut kept = [Kept::new(stdout, OUTPUT_MAX), Kept::new(stderr, OUTPUT_MAX)];
    collect(pidfd, &mut kept).await.map_err(problem)?;
    let status = process.reap().map_err(problem)?;
    boathook_runtime::process::reap_orphans();
    let [stdout, stderr] = kept.map(|kept| kept.bytes);
    match status.map(|status| status.code) {
        Some(0) => Ok(HookEnd::Succeeded),
        Some(code) => Err(Reason::Exit { code, stdout, stderr }),
        None => Err(Reason::Problem("its end was not seen".to_owned())),
    }
}

/// Starts the hook's process. Its template is read again from the bundle,
/// where containerd keeps it: nobody has to remember it for the life of a pod.
fn launch(live: &Live, command: Vec<String>) -> failure::Result<(Process, OwnedFd, OwnedFd)> {
    let (stdout, to_stdout) = pipe()?;
    let (stderr, to_stderr) = pipe()?;
    let stdio = Stdio::Fds { stdin: None, stdout: Some(to_stdout), stderr: Some(to_stderr) };
    let process = begin(&live.container, &live.bundle, command, stdio)?;
    Ok((process, stdout, stderr))
}

fn begin(
    container: &boathook_runtime::Container,
    bundle: &Path,
    command: Vec<String>,
    stdio: Stdio,
) -> failure::Result<Process> {
    let mut spec = spec::load(bundle)?
        .process()
        .clone()
        .ok_or_else(|| Failure::invalid("config.json has no process"))?;
    spec.set_args(Some(command));
    spec.set_terminal(Some(false));
    let (process, _) = container.exec(&spec, stdio, EXEC_LIMIT)?;
    process.start(START_LIMIT)?;
    Ok(process)
}

/// A pipe of which the end to read from does not block.
fn pipe() -> failure::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Failure::sys("pipe2", e))?;
    rustix::io::ioctl_fionbio(&read, true).map_err(|e| Failure::sys("FIONBIO", e))?;
    Ok((read, write))
}

/// The beginning of what comes out of a pipe.
struct Kept {
    pipe: Option<OwnedFd>,
    bytes: Vec<u8>,
    max: usize,
}

impl Kept {
    fn new(pipe: OwnedFd, max: usize) -> Self {
        Self { pipe: Some(pipe), bytes: Vec::new(), max }
    }
}

/// Reads until the process behind `pidfd` has ended, and then what is there
/// already: a child of it may hold the other end for ever, and is not waited
/// for.
async fn collect(pidfd: OwnedFd, kept: &mut [Kept]) -> failure::Result<()> {
    let pidfd = watch(pidfd, Interest::READABLE)?;
    let mut open: Vec<(usize, Watched)> = Vec::new();
    for (index, kept) in kept.iter_mut().enumerate() {
        if let Some(pipe) = kept.pipe.take() {
            open.push((index, watch(pipe, Interest::READABLE)?));
        }
    }
    while !open.is_empty() {
        let at = tokio::select! {
            () = ready(&pidfd, Interest::READABLE) => break,
            at = any_ready(&open) => at,
        };
        let (index, pipe) = &open[at];
        if read(pipe, &mut kept[*index]) {
            open.swap_remove(at);
        }
    }
    ready(&pidfd, Interest::READABLE).await;
    for (index, pipe) in &open {
        read(pipe, &mut kept[*index]);
    }
    Ok(())
}

/// The place of a pipe that can be read.
async fn any_ready(open: &[(usize, Watched)]) -> usize {
    match open {
        [(_, one), (_, other), ..] => tokio::select! {
            () = ready(one, Interest::READABLE) => 0,
            () = ready(other, Interest::READABLE) => 1,
        },
        [(_, one)] => {
            ready(one, Interest::READABLE).await;
            0
        }
        [] => std::future::pending().await,
    }
}

/// Reads what is there, at most a pipe full; true at the end of it.
fn read(pipe: &Watched, kept: &mut Kept) -> bool {
    let mut buffer = [0; 4096];
    for _ in 0..32 {
        match rustix::io::read(pipe.get_ref().as_fd(), &mut buffer) {
            Ok(0) => return true,
            Ok(count) => {
                let room = kept.max - kept.bytes.len();
                kept.bytes.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
    false
}

fn request(get: &HttpGetAction, policy: &Policy) -> Result<Request, String> {
    Ok(Request {
        https: get.scheme.eq_ignore_ascii_case("https"),
        host: get.host.clone(),
        port: resolve_port(&get.port, &policy.ports)?,
        path: get.path.clone(),
        headers: get.http_headers.clone(),
    })
}

/// Has a helper make the request in the container's network. A helper that is
/// killed by whoever does not know better has not delivered, so another one
/// follows.
async fn run_request(
    request: &Request,
    live: Arc<Live>,
    mut ended: oneshot::Receiver<()>,
) -> Result<HookEnd, String> {
    for _ in 0..HELPER_TRIES {
        let (live, request) = (Arc::clone(&live), request.clone());
        let spawned = spawn_blocking(move || helper::spawn(&live.container, &request)).await;
        let started = spawned.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        match helper::report(started, &mut ended).await.map_err(|e| e.to_string())? {
            helper::End::Reported(Report::Answered) => return Ok(HookEnd::Succeeded),
            helper::End::Reported(Report::AnsweredWithoutTls(server)) => {
                return Ok(HookEnd::WithoutTls(format!(
                    "request to HTTPS lifecycle hook {server} got HTTP response, retry with HTTP succeeded"
                )));
            }
            helper::End::Reported(Report::Failed(text)) => return Err(text),
            helper::End::Cut => return Err(CUT.to_owned()),
            helper::End::Lost => {}
        }
    }
    Err(format!("the helper was killed {HELPER_TRIES} times"))
}

/// The process that makes a request: this program once more, under another
/// name, so that its memory is nobody's while no hook runs.
pub(crate) mod helper {
    use std::fs::File;
    use std::io::Write;
    use std::process::{Command, Stdio as Stream};

    use super::*;

    /// A running helper.
    pub(crate) struct Started {
        pub(crate) helper: Helper,
        stdout: OwnedFd,
        /// Its end is the helper's end.
        _stdin: std::process::ChildStdin,
    }

    /// How a helper ended.
    pub(super) enum End {
        Reported(Report),
        /// The container ended first.
        Cut,
        /// It was killed, or could not say anything.
        Lost,
    }

    /// Starts a helper in the network namespace of a container's first process.
    pub(crate) fn spawn(
        container: &boathook_runtime::Container,
        request: &Request,
    ) -> failure::Result<Started> {
        let network = File::open(format!("/proc/{}/ns/net", container.pid()))
            .map_err(|e| Failure::sys("open the container's network namespace", e))?;
        // A pid may have a new owner; then this one has ended.
        if container.ended() {
            return Err(Failure::wrong_state("the container has ended"));
        }
        let mut line = serde_json::to_vec(request)
            .map_err(|e| Failure::new(ErrorKind::Internal, format!("encode a request: {e}")))?;
        line.push(b'\n');
        let mut command = Command::new("/proc/self/exe");
        command.arg(HELPER).env_clear();
        command.stdin(Stream::piped()).stdout(Stream::piped()).stderr(network);
        let mut helper = Helper::spawn(&mut command)?;
        let missing = || Failure::new(ErrorKind::Internal, "a helper without streams");
        let mut stdin = helper.take_stdin().ok_or_else(missing)?;
        let stdout = OwnedFd::from(helper.take_stdout().ok_or_else(missing)?);
        rustix::io::ioctl_fionbio(&stdout, true).map_err(|e| Failure::sys("FIONBIO", e))?;
        stdin.write_all(&line).map_err(|e| Failure::sys("write a request", e))?;
        Ok(Started { helper, stdout, _stdin: stdin })
    }

    /// Waits for the helper's report.
    pub(super) async fn report(
        started: Started,
        ended: &mut oneshot::Receiver<()>,
    ) -> failure::Result<End> {
        let Started { mut helper, stdout, _stdin } = started;
        let pidfd = helper.pidfd().try_clone_to_owned();
        let pidfd = pidfd.map_err(|e| Failure::sys("duplicate a pidfd", e))?;
        let mut kept = [Kept::new(stdout, REPORT_MAX)];
        let mut over = false;
        {
            let done = collect(pidfd, &mut kept);
            tokio::pin!(done);
            tokio::select! {
                done = &mut done => done?,
                _ = ended => {
                    over = true;
                    if let Ok(done) = timeout(AFTER_END, &mut done).await {
                        done?;
                    }
                }
            }
        }
        if over && helper.reap()?.is_none() {
            // Dropping it kills it and waits for its end.
            spawn_blocking(move || drop(helper));
            return Ok(End::Cut);
        }
        let code = if over { Some(0) } else { helper.reap()? };
        let [kept] = kept;
        Ok(match (code, serde_json::from_slice(&kept.bytes)) {
            (Some(0), Ok(report)) => End::Reported(report),
            _ if over => End::Cut,
            _ => End::Lost,
        })
    }
}
