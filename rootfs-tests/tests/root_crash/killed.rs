//! The server is killed in the middle of a call, and the `delete` command finds what it left.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse, DeleteRequest};
use rootfs_tests::bundle::Bundle;
use rootfs_tests::census::Census;
use rootfs_tests::error::{Context, Result};
use rootfs_tests::shimrpc::{Sink, Task, create_request};
use rootfs_tests::wait::{self, Deadline, PATIENCE};
use rootfs_tests::{ensure, ensure_eq};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::json;

use crate::gate::{Gate, STAGES, no_hook_left};
use crate::rig::{
    Rig, SIGKILL, SLEEP, again, create_below, finish, id, kill_server, run_delete, send_create,
    send_start,
};
use crate::stage::Alone;

pub(crate) const ALONE: &[Alone] = &[
    ("killed_at_each_hook", killed_at_each_hook),
    ("killed_with_a_state_directory_of_its_own", killed_with_a_state_directory_of_its_own),
    ("a_group_ends_with_its_server", a_group_ends_with_its_server),
    ("events_wait_for_the_daemon", events_wait_for_the_daemon),
    ("output_waits_for_the_daemon", output_waits_for_the_daemon),
];

/// Red if what is half made at one of the points has no record, if a hook goes on without its
/// shim, or if the id stays taken.
fn killed_at_each_hook(rig: &Rig) -> Result<()> {
    for stage in STAGES {
        let mut bundle = rig.bundle(&stage.to_lowercase(), &SLEEP)?;
        let gate = Gate::new(stage, &bundle.rootfs(), &mut bundle.config)?;
        bundle.save()?;
        let before = Census::take()?;
        let shim = rig.shim(&bundle)?;
        let mut task = shim.connect()?;
        advance(&mut task, stage, &bundle)?;
        gate.reached()?;
        kill_server(&shim)?;
        if stage != "startContainer" {
            // That one is the container's own process and goes with it.
            no_hook_left()?;
        }
        // A hook that had not ended is run again: let it.
        gate.open()?;
        for _ in 0..2 {
            ensure_eq!(run_delete(&shim)?.exit_status, 137, "status after a crash in {stage}");
            before.assert_same()?;
        }
        again(rig, &bundle, &before)?;
    }
    Ok(())
}

/// Makes the calls up to the one that meets the gate.
fn advance(task: &mut Task, stage: &str, bundle: &Bundle) -> Result<()> {
    let id = id(bundle);
    if stage.starts_with("create") {
        let _unanswered = send_create(task, bundle)?;
        return Ok(());
    }
    task.create(id, &bundle.dir)?;
    if stage != "poststop" {
        let _unanswered = send_start(task, bundle)?;
        return Ok(());
    }
    task.start(id, "")?;
    let wait = task.wait(id, "")?;
    task.kill(id, "", SIGKILL, false)?;
    task.ended(&wait)?;
    let request = DeleteRequest { id: id.to_owned(), ..DeleteRequest::new() };
    let _unanswered = task.send("Delete", &request)?;
    Ok(())
}

/// Red if only a complete container is found in a state directory that the options name.
fn killed_with_a_state_directory_of_its_own(rig: &Rig) -> Result<()> {
    let mut bundle = rig.bundle("own", &SLEEP)?;
    let gate = Gate::new("createRuntime", &bundle.rootfs(), &mut bundle.config)?;
    bundle.save()?;
    let root = rig.dir().join("state");
    let before = Census::with(std::slice::from_ref(&root))?;
    let shim = rig.shim(&bundle)?;
    let mut task = shim.connect()?;
    std::thread::scope(|scope| {
        // Its answer is the end of the connection.
        let creating = scope.spawn(|| create_below(&mut task, &bundle, &root));
        let killed = gate.reached().and_then(|()| kill_server(&shim));
        let created = creating.join();
        ensure!(matches!(created, Ok(Err(_))), "the create: {created:?}");
        killed
    })?;
    run_delete(&shim)?;
    before.assert_same()?;
    again(rig, &bundle, &before)
}

/// Red if the container of a dead server whose `delete` nobody asks for runs on for ever.
fn a_group_ends_with_its_server(rig: &Rig) -> Result<()> {
    let before = Census::take()?;
    let mut bundles = Vec::new();
    for name in ["first", "second"] {
        let mut bundle = rig.bundle(name, &SLEEP)?;
        bundle.config["annotations"] = json!({ "io.kubernetes.cri.sandbox-id": "pod" });
        bundle.save()?;
        bundles.push(bundle);
    }
    let [first, second] = bundles.as_slice() else { unreachable!("two were made") };
    let (one, two) = (rig.shim(first)?, rig.shim(second)?);
    ensure_eq!(one.address(), two.address(), "the pod's one server");
    let mut task = one.connect()?;
    let mut pids = Vec::new();
    for bundle in [first, second] {
        pids.push(task.create(id(bundle), &bundle.dir)?);
        task.start(id(bundle), "")?;
    }
    kill_server(&one)?;
    ensure_eq!(run_delete(&one)?.exit_status, 137, "status of the first");
    for pid in pids {
        wait::gone(pid, PATIENCE)?;
    }
    ensure_eq!(run_delete(&two)?.exit_status, 137, "status of the second");
    before.assert_same()
}

/// Red if an event is lost, doubled or out of order because nobody listened when it happened.
fn events_wait_for_the_daemon(rig: &Rig) -> Result<()> {
    let bundle = rig.bundle("events", &SLEEP)?;
    let shim = rig.shim(&bundle)?;
    let mut task = shim.connect()?;
    let id = id(&bundle);
    task.create(id, &bundle.dir)?;
    task.start(id, "")?;
    task.exec(id, "ex", &["true"])?;
    let wait = task.wait(id, "ex")?;
    task.start(id, "ex")?;
    task.ended(&wait)?;
    task.delete(id, "ex")?;
    finish(&mut task, &bundle)?;
    let sink = Sink::listen(&shim.launch().ttrpc)?;
    let events = sink.until("/tasks/delete", PATIENCE)?;
    let topics: Vec<&str> = events.iter().map(|event| event.topic.as_str()).collect();
    let expected = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/exit",
        "/tasks/delete",
    ];
    ensure_eq!(topics, expected, "events, sent after all had happened");
    shim.end()?;
    // The server's end would have been the last opportunity to send one twice.
    let more = sink.next(std::time::Duration::ZERO).ok().map(|event| event.topic);
    ensure_eq!(more, None, "an event after the last");
    Ok(())
}

/// Five times as much as a pipe holds, written while nobody has the fifo open but the shim. Red if
/// the container gets SIGPIPE, or a byte is lost.
fn output_waits_for_the_daemon(rig: &Rig) -> Result<()> {
    let script = "echo first; read word < /go; seq 1 60000; exit 3";
    let bundle = rig.bundle("output", &["sh", "-c", script])?;
    let (stdout, go) = (bundle.dir.join("stdout"), bundle.rootfs().join("go"));
    for path in [&stdout, &go] {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).during(|| "make a fifo")?;
    }
    let shim = rig.shim(&bundle)?;
    let mut task = shim.connect()?;
    let id = id(&bundle);
    let request = CreateTaskRequest {
        stdout: stdout.display().to_string(),
        ..create_request(id, &bundle.dir)
    };
    let open = || {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        File::options().read(true).custom_flags(flags).open(&stdout).during(|| "open the fifo")
    };
    let daemon = open()?;
    let created: CreateTaskResponse = task.call("Create", &request)?;
    task.start(id, "")?;
    let wait = task.wait(id, "")?;
    wait::readable(&daemon, "the first line", Deadline::after(PATIENCE))?;
    let mut first = [0; 6];
    (&daemon).read_exact(&mut first).during(|| "read the first line")?;
    drop(daemon);
    fs::write(&go, "go\n").during(|| "let the container go on")?;
    blocked_on_a_pipe(created.pid)?;
    let daemon = open()?;
    let mut found = Vec::new();
    let expected: String = (1..=60_000).map(|number| format!("{number}\n")).collect();
    let deadline = Deadline::after(PATIENCE);
    while found.len() < expected.len() {
        wait::readable(&daemon, "the whole output", deadline)?;
        let mut piece = [0; 1 << 16];
        let count = (&daemon).read(&mut piece).during(|| "read the output")?;
        ensure!(count > 0, "the output ends after {} bytes", found.len());
        found.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
    let wrong = found.iter().zip(expected.bytes()).position(|(one, other)| *one != other);
    ensure_eq!(wrong, None, "the first byte that differs");
    ensure_eq!(task.ended(&wait)?, 3, "exit status");
    task.delete(id, "")?;
    shim.end()
}

/// Waits until a process, or a child of it, cannot write any more.
fn blocked_on_a_pipe(pid: u32) -> Result<()> {
    let children = format!("/proc/{pid}/task/{pid}/children");
    wait::until("a full pipe", PATIENCE, || {
        let text = fs::read_to_string(&children).unwrap_or_default();
        let all = text.split_whitespace().filter_map(|it| it.parse().ok()).chain([pid]);
        let blocked = all.into_iter().any(|pid: u32| {
            let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
            // write(2) to standard output that does not return.
            call.starts_with("1 0x1 ")
        });
        Ok(blocked.then_some(()))
    })
}
