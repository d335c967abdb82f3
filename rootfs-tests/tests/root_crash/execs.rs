//! A thousand execs, and the container's end in the midst of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted, TaskExit};
use containerd_shim_protos::shim::event::Envelope;
use protobuf::Message;
use rootfs_tests::census::{descriptors, listing, settled_descriptors};
use rootfs_tests::error::{Error, Result};
use rootfs_tests::shimrpc::{Shim, Sink};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq};

use crate::rig::{Rig, SIGKILL, SLEEP, id};
use crate::stage::Alone;

pub(crate) const ALONE: &[Alone] =
    &[("a_thousand_execs_and_the_end", a_thousand_execs_and_the_end)];

const EXECS: usize = 1000;
/// So many have ended when the container is killed.
const BEFORE_THE_END: usize = 700;
const CALLERS: usize = 4;

/// Red if the exit of an exec is told after its container's, twice or never, or if one leaves a
/// process, a descriptor or a thread.
fn a_thousand_execs_and_the_end(rig: &Rig) -> Result<()> {
    let bundle = rig.bundle("execs", &SLEEP)?;
    let id = id(&bundle);
    let shim = rig.shim(&bundle)?;
    let sink = Sink::listen(&shim.launch().ttrpc)?;
    let mut task = shim.connect()?;
    let server = task.connect(id)?.shim_pid;
    // What is opened once stays open.
    task.create(id, &bundle.dir)?;
    task.delete(id, "")?;
    sink.until("/tasks/delete", PATIENCE)?;
    let before = settled_descriptors(server)?;
    task.create(id, &bundle.dir)?;
    task.start(id, "")?;
    let wait = task.wait(id, "")?;
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| -> Result<()> {
        let callers: Vec<_> =
            (0..CALLERS).map(|_| scope.spawn(|| call(&shim, id, &next, &done))).collect();
        for caller in callers {
            caller.join().map_err(|_| Error::check("a caller panicked"))??;
        }
        Ok(())
    })?;
    ensure_eq!(task.ended(&wait)?, 137, "status of the container");
    task.delete(id, "")?;
    check_order(&sink.until("/tasks/delete", PATIENCE)?, id)?;
    drop(task);
    nothing_grew(server, &before)?;
    shim.end()
}

/// Runs execs until all have been tried. After the container's end they are refused.
fn call(shim: &Shim, id: &str, next: &AtomicUsize, done: &AtomicUsize) -> Result<()> {
    let mut task = shim.connect()?;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= EXECS {
            return Ok(());
        }
        let exec = format!("e{number}");
        let result = (|| {
            task.exec(id, &exec, &["true"])?;
            let wait = task.wait(id, &exec)?;
            task.start(id, &exec)?;
            let status = task.ended(&wait)?;
            ensure!([0, 137].contains(&status), "status {status} of {exec}");
            task.delete(id, &exec).map(drop)
        })();
        match result {
            Ok(()) if done.fetch_add(1, Ordering::Relaxed) + 1 == BEFORE_THE_END => {
                task.kill(id, "", SIGKILL, false)?;
            }
            Ok(()) => {}
            // Its container was gone, or went.
            Err(error) if ended(&error) && done.load(Ordering::Relaxed) >= BEFORE_THE_END => {}
            Err(error) => return Err(Error::check(format!("{exec}: {error}"))),
        }
    }
}

fn ended(error: &Error) -> bool {
    error.code().is_some_and(|code| ["FailedPrecondition", "NotFound"].contains(&code))
}

/// What is known of an exec from the events so far.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Phase {
    Added,
    Started,
    Ended,
}

fn check_order(events: &[Envelope], id: &str) -> Result<()> {
    let mut execs: HashMap<String, Phase> = HashMap::new();
    let mut over = false;
    for event in events {
        let value = &event.event.value;
        let (exec, from, to) = match event.topic.as_str() {
            "/tasks/exec-added" => (parse::<TaskExecAdded>(value)?.exec_id, None, Phase::Added),
            "/tasks/exec-started" => {
                (parse::<TaskExecStarted>(value)?.exec_id, Some(Phase::Added), Phase::Started)
            }
            "/tasks/exit" => {
                let exit = parse::<TaskExit>(value)?;
                if exit.id == id {
                    let running: Vec<_> =
                        execs.iter().filter(|(_, it)| **it == Phase::Started).collect();
                    ensure!(running.is_empty(), "told to run after the container: {running:?}");
                    ensure!(!over, "the container's exit is told twice");
                    over = true;
                    continue;
                }
                (exit.id, Some(Phase::Started), Phase::Ended)
            }
            _ => continue,
        };
        ensure!(!over, "{} of {exec} after the container's exit", event.topic);
        ensure_eq!(execs.insert(exec.clone(), to), from, "before {} of {exec}", event.topic);
    }
    ensure!(over, "the container's exit is not told");
    let whole = execs.values().filter(|it| **it == Phase::Ended).count();
    ensure!(whole >= BEFORE_THE_END, "{whole} execs are told from beginning to end");
    Ok(())
}

fn parse<M: Message>(value: &[u8]) -> Result<M> {
    M::parse_from_bytes(value).map_err(|error| Error::check(format!("an event: {error}")))
}

/// Descriptors by what they are, threads and children are what they were.
fn nothing_grew(server: u32, before: &BTreeMap<String, usize>) -> Result<()> {
    let task = format!("/proc/{server}/task");
    let mut now = String::new();
    wait::until("the server as it was", PATIENCE, || {
        let open = descriptors(server)?;
        // Of its two connections one, that of the calls, has gone meanwhile.
        let grown = open.iter().any(|(name, count)| before.get(name).is_none_or(|it| count > it));
        let threads = fs::read_dir(&task).map_or(0, Iterator::count);
        let children = fs::read_to_string(format!("{task}/{server}/children")).unwrap_or_default();
        now = format!("threads {threads}, children {children:?}, {}", listing(&open));
        Ok((!grown && threads == 1 && children.is_empty()).then_some(()))
    })
    .map_err(|error| Error::check(format!("{error}; before {}; {now}", listing(before))))
}
