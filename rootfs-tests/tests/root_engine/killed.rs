//! The process of the engine is killed: at every one of its system calls, with containers made,
//! half made, started and half removed. Afterwards the id can be cleaned up and used again, and
//! nothing else of it is left.
//!
//! The engine runs in a process of its own, this program as a payload, which is traced and stopped
//! at each call. Red, for instance, if the record is written after the cgroup is made, if a create
//! does not take over what is half made, or if init does not end with its engine.

use std::fs;
use std::io::{Error, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio as Stream};

use boathook_runtime::{Cancel, Create, CreateOptions, Engine, ErrorKind, Stdio, process, spec};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rootfs_tests::wait;
use serde_json::json;

use super::support::{Arena, Case, LIMIT, census, tests};

tests!(
    at_every_call_of_a_create,
    at_every_call_of_a_create_that_takes_over,
    at_every_call_of_a_start,
    at_every_call_of_an_exec,
    at_every_call_of_a_delete,
    hooks_end_with_their_engine,
    a_half_made_container_is_found_and_deleted,
    somebody_elses_cgroup_is_left_alone,
    a_create_is_ended_from_outside,
    a_remove_ends_the_maker_first,
);

/// What the payload does, in this order; it is traced from the last one on.
const STEPS: [&str; 4] = ["create", "start", "exec", "delete"];

/// The payload: does every step up to the one that is to be traced, then that one.
pub(crate) fn serve(arguments: &mut dyn Iterator<Item = String>) -> Result<(), Error> {
    let mut next = || arguments.next().unwrap_or_default();
    let (last, bundle, state, id) = (next(), next(), next(), next());
    let engine = Engine::new(Path::new(&state));
    // Asked once by every engine, and nothing is made by it.
    engine.hierarchies().map_err(Error::other)?;
    let spec = spec::load(Path::new(&bundle)).map_err(Error::other)?;
    let mut made = None;
    for step in STEPS {
        let traced = step == last;
        if traced {
            ptrace::traceme()?;
            raise(Signal::SIGSTOP)?;
        }
        match (step, &made) {
            ("create", _) => {
                let request = request(&id, Path::new(&bundle), &spec);
                made = Some(engine.create(request).map_err(Error::other)?);
            }
            ("start", Some(it)) => {
                it.container.start(&it.process, LIMIT).map_err(Error::other)?;
            }
            ("exec", Some(it)) if traced => {
                let process = json!({ "args": ["/bin/sleep", "1000000"], "cwd": "/",
                    "user": { "uid": 0, "gid": 0 } });
                let process = spec::process_from_json(process.to_string().as_bytes());
                let none = Stdio::Fds { stdin: None, stdout: None, stderr: None };
                let exec = it.container.exec(&process.map_err(Error::other)?, none, LIMIT);
                exec.map_err(Error::other)?.0.start(LIMIT).map_err(Error::other)?;
            }
            ("delete", Some(it)) => it.container.delete(LIMIT).map_err(Error::other)?,
            _ => {}
        }
        if traced {
            // Without the undo of values that are dropped: the shim keeps them.
            std::process::exit(0);
        }
    }
    Err(Error::other(format!("no step {last:?}")))
}

fn request<'a>(id: &'a str, bundle: &'a Path, spec: &'a oci_spec::runtime::Spec) -> Create<'a> {
    Create {
        id,
        bundle,
        spec,
        stdio: Stdio::Fds { stdin: None, stdout: None, stderr: None },
        options: CreateOptions::default(),
        deadline: LIMIT,
    }
}

/// Starts the payload.
fn engine(case: &Case<'_>, last: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--payload", "engine", last]);
    command.arg(case.bundle()).arg(case.arena.state()).arg(&case.id);
    // Its complaints would come between the harness's lines; the exit code tells.
    command.stdin(Stream::null()).stderr(Stream::null()).spawn().unwrap()
}

/// How the payload ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Killed,
    /// By itself, with this exit code and after so many calls.
    Exited(i32, usize),
}

/// Runs the payload and kills it before its `n`-th call of the last step, if there are so many.
#[expect(clippy::zombie_processes, reason = "the tracer waits for it, by its pid")]
fn killed_at(case: &Case<'_>, last: &str, n: usize) -> End {
    let child = engine(case, last);
    let pid = Pid::from_raw(child.id() as i32);
    let options = ptrace::Options::PTRACE_O_EXITKILL | ptrace::Options::PTRACE_O_TRACESYSGOOD;
    let mut calls = 0;
    let mut inside = false;
    loop {
        let mut pass_on = None;
        match waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => ptrace::setoptions(pid, options).unwrap(),
            WaitStatus::Stopped(_, signal) => pass_on = Some(signal),
            WaitStatus::PtraceSyscall(_) => {
                inside = !inside;
                calls += usize::from(inside);
                if inside && calls == n {
                    kill(pid, Signal::SIGKILL).unwrap();
                    let ended = waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
                    assert!(matches!(ended, WaitStatus::Signaled(..)), "{ended:?}");
                    return End::Killed;
                }
            }
            WaitStatus::Exited(_, code) => return End::Exited(code, calls),
            other => panic!("{other:?}"),
        }
        ptrace::syscall(pid, pass_on).unwrap();
    }
}

/// Kills the engine at each of its calls in this step. Every second time the same id is created
/// first thing, the other times it is removed.
fn at_every_call(case: &Case<'_>, last: &str, least: usize) {
    for n in 1.. {
        let end = killed_at(case, last, n);
        let told = format!("killed before call {n} of {last}");
        if n % 2 == 0 {
            take_over(case, &told);
        }
        case.arena.engine.remove(&case.id, LIMIT).unwrap_or_else(|e| panic!("{told}: {e}"));
        nothing_left(case, &told);
        if let End::Exited(code, calls) = end {
            assert_eq!(code, 0, "the engine failed by itself");
            assert!(calls > least, "only {calls} calls were seen");
            break;
        }
    }
    case.start().delete();
}

/// Leaves a container as half made as can be: all but its last record is there. Returns the call
/// before which its maker was killed.
fn half_made(case: &Case<'_>) -> usize {
    let End::Exited(0, calls) = killed_at(case, "create", usize::MAX) else { panic!("no create") };
    let found = (1..calls).rev().find(|n| {
        case.arena.engine.remove(&case.id, LIMIT).unwrap();
        assert_eq!(killed_at(case, "create", *n), End::Killed);
        record(case).is_some_and(|text| text.contains("\"making\""))
    });
    found.expect("a record of something half made")
}

fn record(case: &Case<'_>) -> Option<String> {
    fs::read_to_string(case.arena.state().join(&case.id).join("state.json")).ok()
}

/// The daemon would have deleted a container that was completed; a half-made one makes way.
fn take_over(case: &Case<'_>, told: &str) {
    if record(case).is_some_and(|text| !text.contains("\"making\"")) {
        let error = case.create().map(|live| live.delete()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{told}: {error}");
        case.arena.engine.remove(&case.id, LIMIT).unwrap();
    }
    case.create().unwrap_or_else(|error| panic!("{told}: {error}")).delete();
}

#[track_caller]
fn nothing_left(case: &Case<'_>, told: &str) {
    assert_eq!(census::cgroups(&case.id), [""; 0], "{told}");
    assert!(!case.arena.state().exists(), "{told}: {:?}", census::entries(&case.arena.state()));
    wait::until("the end of every process", LIMIT, || {
        process::reap_orphans();
        Ok(census::descendants().is_empty().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{told}: {error}: {:?}", census::descendants()));
}

/// A container whose start takes its time over nothing.
fn small(arena: &Arena) -> Case<'_> {
    let case = arena.sleeper();
    case.save();
    case
}

fn at_every_call_of_a_create(arena: &Arena) {
    at_every_call(&small(arena), "create", 80);
}

/// The engine that takes over what is half made is killed too.
fn at_every_call_of_a_create_that_takes_over(arena: &Arena) {
    let case = small(arena);
    let late = half_made(&case);
    // Every call of the beginning; what follows is as in the test above.
    for n in 1..80 {
        assert_eq!(killed_at(&case, "create", n), End::Killed);
        case.arena.engine.remove(&case.id, LIMIT).unwrap();
        nothing_left(&case, &format!("killed before call {n} of a second create"));
        assert_eq!(killed_at(&case, "create", late), End::Killed);
    }
    case.start().delete();
}

fn at_every_call_of_a_start(arena: &Arena) {
    at_every_call(&small(arena), "start", 3);
}

fn at_every_call_of_an_exec(arena: &Arena) {
    at_every_call(&small(arena), "exec", 20);
}

fn at_every_call_of_a_delete(arena: &Arena) {
    at_every_call(&small(arena), "delete", 20);
}

/// A hook that says where it is and waits to be told to go on.
fn blocking(arena: &Arena, case: &mut Case<'_>, stage: &str) -> Fifos {
    let fifos = Fifos::new(arena, stage);
    let script = format!("echo here > {}; read x < {}", fifos.said, fifos.go);
    case.config["hooks"] = json!({ stage: [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    case.save();
    fifos
}

struct Fifos {
    said: String,
    go: String,
}

impl Fifos {
    fn new(arena: &Arena, stage: &str) -> Self {
        let [said, go] = ["said", "go"].map(|name| {
            let path = arena.dir().join(format!("{stage}.{name}"));
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            path.display().to_string()
        });
        Self { said, go }
    }

    /// Returns when the hook runs.
    fn reached(&self) {
        let mut text = String::new();
        fs::File::open(&self.said).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "here\n");
    }

    fn go_on(&self) {
        fs::File::options().write(true).open(&self.go).unwrap().write_all(b"go\n").unwrap();
    }
}

/// Red if a hook of the host goes on beside the clean-up of its container, or beside a second
/// create of it.
fn hooks_end_with_their_engine(arena: &Arena) {
    let stages = [("createRuntime", "create"), ("poststart", "start"), ("poststop", "delete")];
    for (stage, last) in stages {
        let mut case = arena.sleeper();
        let fifos = blocking(arena, &mut case, stage);
        let mut child = engine(&case, last);
        let pid = Pid::from_raw(child.id() as i32);
        // The traced step begins with a stop.
        let stopped = waitpid(pid, None).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGSTOP)), "{stopped:?}");
        ptrace::detach(pid, None).unwrap();
        fifos.reached();
        child.kill().unwrap();
        child.wait().unwrap();
        // Not before the hook is gone: nothing else here would end it.
        nothing_runs_but(&case, stage);
        case.config["hooks"] = json!({});
        case.save();
        if stage == "poststop" {
            // It is run again, because nobody knows how far it had come.
            let engine = arena.engine.clone();
            let id = case.id.clone();
            let removing = std::thread::spawn(move || engine.remove(&id, LIMIT));
            fifos.reached();
            fifos.go_on();
            removing.join().unwrap().unwrap();
        }
        arena.engine.remove(&case.id, LIMIT).unwrap();
        nothing_left(&case, stage);
        case.start().delete();
    }
}

fn nothing_runs_but(case: &Case<'_>, stage: &str) {
    let hooks = || {
        process::reap_orphans();
        let all = census::descendants();
        all.into_iter().filter(|it| it.contains("(sh)")).collect::<Vec<_>>()
    };
    wait::until("the end of the hook", LIMIT, || Ok(hooks().is_empty().then_some(())))
        .unwrap_or_else(|error| panic!("{stage} of {}: {error}: {:?}", case.id, hooks()));
}

/// Red if `open` takes a half-made container for nothing, or its delete leaves it.
fn a_half_made_container_is_found_and_deleted(arena: &Arena) {
    let case = small(arena);
    half_made(&case);
    let found = arena.engine.open(&case.id).unwrap();
    assert_eq!(found.pid(), 0);
    assert_eq!(found.signal(libc::SIGTERM).unwrap_err().kind(), ErrorKind::NotFound);
    found.delete(LIMIT).unwrap();
    nothing_left(&case, "deleted by its record");
    assert_eq!(arena.engine.open(&case.id).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Red if the clean-up of a create that was to be refused ends the container whose cgroup it named.
fn somebody_elses_cgroup_is_left_alone(arena: &Arena) {
    let first = arena.sleeper();
    let live = first.start();
    let mut second = arena.sleeper();
    second.config["linux"]["cgroupsPath"] = first.config["linux"]["cgroupsPath"].clone();
    second.save();
    let before = census::cgroups(&first.id);
    for n in 1.. {
        let end = killed_at(&second, "create", n);
        arena.engine.remove(&second.id, LIMIT).unwrap();
        assert_eq!(record(&second), None);
        assert_eq!(census::cgroups(&first.id), before, "call {n}");
        assert!(!live.process.ended(), "call {n}");
        if let End::Exited(code, calls) = end {
            assert_eq!(code, 99, "it was not refused");
            assert!(calls > 20, "only {calls} calls were seen");
            break;
        }
    }
    live.delete();
    second.start().delete();
}

/// Red if a create that nobody wants any more holds its id until its deadline.
fn a_create_is_ended_from_outside(arena: &Arena) {
    for stage in ["createRuntime", "createContainer"] {
        let mut case = arena.sleeper();
        let fifos = blocking(arena, &mut case, stage);
        let spec = spec::load(case.bundle()).unwrap();
        let cancel = Cancel::default();
        let (engine, id, bundle) = (&arena.engine, &case.id, case.bundle());
        std::thread::scope(|scope| {
            let (spec, cancel) = (&spec, &cancel);
            let making =
                scope.spawn(move || engine.create_unless(request(id, bundle, spec), cancel));
            fifos.reached();
            let refused = engine.open(id).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::WrongState, "{stage}: {refused}");
            let second = engine.create(request(id, bundle, spec)).unwrap_err();
            assert_eq!(second.kind(), ErrorKind::AlreadyExists, "{stage}: {second}");
            cancel.cancel();
            let error = making.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongState, "{stage}: {error}");
            assert!(error.to_string().contains("deleted"), "{stage}: {error}");
        });
        nothing_left(&case, stage);
        // One that was cancelled before it began does not begin to run anything.
        let error = engine.create_unless(request(id, bundle, &spec), &cancel).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongState, "{stage}: {error}");
        nothing_left(&case, stage);
    }
}

/// Red if a removal takes the ground away under a create that goes on, or waits for it for ever.
fn a_remove_ends_the_maker_first(arena: &Arena) {
    let mut case = arena.sleeper();
    let fifos = blocking(arena, &mut case, "createRuntime");
    let mut child = engine(&case, "create");
    let pid = Pid::from_raw(child.id() as i32);
    waitpid(pid, None).unwrap();
    ptrace::detach(pid, None).unwrap();
    fifos.reached();
    arena.engine.remove(&case.id, LIMIT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(99), "the create has not failed");
    nothing_left(&case, "removed while it was made");
    // A maker that stands still keeps its id: what it does later must not hit another container.
    let mut child = engine(&case, "create");
    let pid = Pid::from_raw(child.id() as i32);
    waitpid(pid, None).unwrap();
    ptrace::detach(pid, None).unwrap();
    fifos.reached();
    kill(pid, Signal::SIGSTOP).unwrap();
    let error = arena.engine.remove(&case.id, std::time::Duration::from_millis(100)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("still being created"), "{error}");
    kill(pid, Signal::SIGCONT).unwrap();
    arena.engine.remove(&case.id, LIMIT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(99), "the create has not failed");
    nothing_left(&case, "removed after it went on");
}
