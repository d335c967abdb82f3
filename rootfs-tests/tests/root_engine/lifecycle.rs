//! create, start, kill, pause, delete: the states of a container, and what each call does in each.

use std::io::Write;
use std::time::{Duration, Instant};

use boathook_runtime::cgroup::FrozenState;
use boathook_runtime::{Engine, ErrorKind};
use rootfs_tests::wait;
use serde_json::json;

use super::support::live::{proc_link, status, wait_for};
use super::support::{Arena, LIMIT, census, tests};

tests!(
    runs_a_program_to_its_end,
    input_reaches_the_program_and_ends,
    an_exit_code_is_the_programs_own,
    a_signal_is_128_plus_its_number,
    nothing_runs_before_the_start,
    a_created_container_ends_by_a_signal,
    a_container_is_started_once,
    an_ended_container_is_not_started,
    an_id_is_taken_until_its_container_is_deleted,
    deleted_while_created,
    deleted_while_running,
    deleted_while_frozen,
    deleted_twice,
    the_first_process_takes_all_with_it,
    without_a_pid_namespace_delete_ends_the_rest,
    a_signal_to_all_reaches_all,
    paused_and_resumed,
    no_exec_into_a_paused_container,
    another_engine_finds_the_container,
    a_record_of_a_reused_pid_is_nobody,
);

/// Red if output, error output or exit code of a first process are lost.
fn runs_a_program_to_its_end(arena: &Arena) {
    let outcome = arena.sh("echo out; echo err >&2; exit 7").run();
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (7, "out\n", "err\n"));
}

/// Red if the engine keeps an end of the input open, so that it never ends.
fn input_reaches_the_program_and_ends(arena: &Arena) {
    let mut live = arena.case(&["/bin/cat"]).start();
    let stdin = live.streams.as_mut().unwrap().stdin.take().unwrap();
    std::fs::File::from(stdin).write_all(b"through\n").unwrap();
    assert_eq!(live.finish().text(), "through");
}

/// Red if codes are cut to seven bits or replaced by init's own.
fn an_exit_code_is_the_programs_own(arena: &Arena) {
    for code in [0, 1, 126, 127, 128, 255] {
        assert_eq!(arena.sh(&format!("exit {code}")).run().code, code);
    }
}

/// Red if an end by signal is told as an exit code of the signal's bare number. Real-time signals
/// have numbers that `Signal` types of libraries do not know.
fn a_signal_is_128_plus_its_number(arena: &Arena) {
    let live = arena.sleeper().start();
    live.container.signal(libc::SIGKILL).unwrap();
    assert_eq!(live.wait(), 137);
    live.delete();

    let live = arena.sleeper().start();
    for signal in [1, 15, 34, 64] {
        let (process, _streams) = live.exec_json(&live.process_spec(&["sleep", "1000"])).unwrap();
        process.start(LIMIT).unwrap();
        process.signal(signal).unwrap();
        assert_eq!(wait_for(&process), 128 + signal as u32);
    }
    live.delete();
}

/// Red if the program runs at create: what it writes would be there.
fn nothing_runs_before_the_start(arena: &Arena) {
    let case = arena.sh("touch /ran");
    let live = case.create().unwrap();
    assert!(live.proc("cmdline").starts_with("boathook-init\0"), "who waits for the start");
    assert!(!case.file("/ran").exists());
    live.start();
    assert_eq!(live.finish().code, 0);
    assert!(case.file("/ran").exists());
}

/// Red if pid 1 of a namespace ignores what has a default action only, as the kernel has it for a
/// process without handlers, or if the program runs in spite of the signal.
fn a_created_container_ends_by_a_signal(arena: &Arena) {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGKILL] {
        let case = arena.sh("touch /ran");
        let live = case.create().unwrap();
        live.container.signal(signal).unwrap();
        assert_eq!(live.wait(), 128 + signal as u32);
        let error = live.process.start(LIMIT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
        assert_eq!(error.to_string(), "cannot start a container that has stopped");
        live.delete();
        assert!(!case.file("/ran").exists());
    }
}

/// Red if a second start does anything but say so.
fn a_container_is_started_once(arena: &Arena) {
    let live = arena.sleeper().start();
    let error = live.process.start(LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    assert!(!live.process.ended());
    live.delete();
}

/// Red if calls on an ended container touch whoever has its pid now, or claim success.
fn an_ended_container_is_not_started(arena: &Arena) {
    let live = arena.sh("exit 3").start();
    assert_eq!(live.wait(), 3);
    assert_eq!(live.process.reap().unwrap().unwrap().code, 3, "asked twice");
    assert_eq!(live.process.start(LIMIT).unwrap_err().kind(), ErrorKind::WrongState);
    assert_eq!(live.container.signal(15).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(live.process.signal(15).unwrap_err().kind(), ErrorKind::NotFound);
    let error = live.exec_json(&live.process_spec(&["true"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    assert!(error.to_string().contains("is not running"), "{error}");
    live.delete();
}

/// Red if a second container of an id disturbs the first, or if the id stays taken.
fn an_id_is_taken_until_its_container_is_deleted(arena: &Arena) {
    let case = arena.sleeper();
    let first = case.start();
    let cgroups = census::cgroups(&case.id);
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(error.to_string().contains(&case.id), "{error}");
    assert_eq!(census::cgroups(&case.id), cgroups);
    assert!(!first.process.ended());
    first.delete();
    case.start().delete();
}

/// Red if a container that never ran leaves its init, cgroups or record.
fn deleted_while_created(arena: &Arena) {
    let live = arena.sleeper().create().unwrap();
    live.delete();
}

/// Red if processes outlive their container, those that forked away included.
fn deleted_while_running(arena: &Arena) {
    let mut live = arena.sh("sleep 1000 & (sleep 1001 &) & echo on; wait").start();
    assert_eq!(live.line(), "on");
    live.delete();
}

/// Red if SIGKILL is sent but the group is left frozen, where it never arrives.
fn deleted_while_frozen(arena: &Arena) {
    let mut live = arena.sh("sleep 1000 & echo on; wait").start();
    live.line();
    live.container.pause(LIMIT).unwrap();
    live.delete();
}

/// Red if what is gone already is an error of delete.
fn deleted_twice(arena: &Arena) {
    let live = arena.sleeper().start();
    live.container.delete(LIMIT).unwrap();
    live.container.delete(LIMIT).unwrap();
    let gone = arena.engine.open(live.container.id()).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    live.delete();
}

/// Red if the pid namespace does not end with its first process, or `has_private_pidns` lies.
fn the_first_process_takes_all_with_it(arena: &Arena) {
    let mut live = arena.sh("sleep 1000 & echo on; wait").start();
    assert!(live.container.has_private_pidns());
    live.line();
    assert_eq!(live.container.pids().unwrap().len(), 2);
    live.container.signal(libc::SIGKILL).unwrap();
    assert_eq!(live.wait(), 137);
    wait::until("the end of the namespace", LIMIT, || {
        Ok(live.container.pids().unwrap_or_default().is_empty().then_some(()))
    })
    .unwrap();
    live.delete();
}

/// Red if processes that the first one left behind in the host's pid namespace survive a delete,
/// or if one of them is taken for a child of the engine's and its exit status lost.
fn without_a_pid_namespace_delete_ends_the_rest(arena: &Arena) {
    let mut case = arena.sh("sleep 1000 & sleep 1000 & echo on; exit 4");
    case.namespace("pid", None);
    let mut live = case.start();
    assert!(!live.container.has_private_pidns());
    live.line();
    assert_eq!(live.wait(), 4);
    assert_eq!(live.container.pids().unwrap().len(), 2);
    live.delete();
}

/// Red if only the first process gets the signal, or processes of other containers do.
fn a_signal_to_all_reaches_all(arena: &Arena) {
    let script = "trap 'got=1' TERM; (trap 'echo child; exit' TERM; echo on; \
                  while :; do sleep 0.01; done) & \
                  while [ -z \"$got\" ]; do sleep 0.01; done; wait; exit 21";
    let bystander = arena.sleeper().start();
    let mut live = arena.sh(script).start();
    live.line();
    live.container.signal_all(libc::SIGTERM).unwrap();
    assert_eq!(live.line(), "child");
    assert_eq!(live.wait(), 21);
    assert!(!bystander.process.ended());
    live.delete();
    bystander.delete();
}

/// Red if pause returns before everything stands still, or resume forgets somebody.
fn paused_and_resumed(arena: &Arena) {
    let mut live = arena.sh("echo on; while read -r line; do echo \"$line\"; done").start();
    live.line();
    live.container.pause(LIMIT).unwrap();
    assert_eq!(live.container.cgroup().frozen_state().unwrap(), FrozenState::Frozen);
    let stdin = live.streams.as_mut().unwrap().stdin.take().unwrap();
    let mut stdin = std::fs::File::from(stdin);
    stdin.write_all(b"while paused\n").unwrap();
    live.container.signal_all(libc::SIGCONT).unwrap();
    let unread = rustix::io::ioctl_fionread(&stdin).unwrap();
    assert_eq!(unread, 13, "somebody read it");
    live.container.resume().unwrap();
    assert_eq!(live.line(), "while paused");
    live.container.resume().unwrap();
    drop(stdin);
    assert_eq!(live.finish().code, 0);
}

/// Red if an exec enters a frozen group: it would freeze half-way, and the caller would wait for
/// its deadline and then for the dead.
fn no_exec_into_a_paused_container(arena: &Arena) {
    let live = arena.sleeper().start();
    live.container.pause(LIMIT).unwrap();
    let begin = Instant::now();
    let error = live.exec_json(&live.process_spec(&["true"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    assert!(error.to_string().contains("paused"), "{error}");
    assert!(begin.elapsed() < LIMIT / 2, "it was tried: {:?}", begin.elapsed());
    live.container.resume().unwrap();
    assert_eq!(live.run(&["true"]).code, 0);
    live.delete();
}

/// Red if the record lacks what a second engine needs to go on: the process, its namespaces, its
/// cgroup, what delete has to remove.
fn another_engine_finds_the_container(arena: &Arena) {
    let live = arena.sleeper().start();
    let other = Engine::new(&arena.state());
    let found = other.open(live.container.id()).unwrap();
    assert_eq!(found.pid(), live.process.pid());
    assert_eq!(found.bundle(), live.container.bundle());
    assert!(found.has_private_pidns());
    assert_eq!(found.pids().unwrap(), [live.process.pid()]);
    let spec = live.process_spec(&["readlink", "/proc/self/ns/pid"]);
    let inside = live.run_json(&spec);
    assert_eq!(inside.text(), proc_link(live.process.pid(), "ns/pid"));
    found.signal(libc::SIGKILL).unwrap();
    assert_eq!(live.wait(), 137);
    found.delete(LIMIT).unwrap();
    assert_eq!(other.open(live.container.id()).unwrap_err().kind(), ErrorKind::NotFound);
    live.delete();
}

/// Red if a pid is trusted without its start time: the record of a dead container may name a
/// process that has nothing to do with it. Here it names a bystander.
fn a_record_of_a_reused_pid_is_nobody(arena: &Arena) {
    let bystander = arena.sleeper().start();
    let live = arena.sleeper().start();
    let path = arena.state().join(live.container.id()).join("state.json");
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["pid"] = json!(bystander.process.pid());
    record["boathook"]["startTime"] = json!(1);
    std::fs::write(&path, record.to_string()).unwrap();
    let found = arena.engine.open(live.container.id()).unwrap();
    assert_eq!(found.signal(libc::SIGKILL).unwrap_err().kind(), ErrorKind::NotFound);
    found.delete(Duration::from_secs(10)).unwrap();
    assert!(!bystander.process.ended());
    assert!(status(bystander.process.pid(), "State").starts_with('S'));
    live.delete();
    bystander.delete();
}
