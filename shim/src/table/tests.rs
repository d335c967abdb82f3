//! The table against worlds that answer its effects in any order.
//!
//! `World` plays everything around the table: it keeps the effects that were
//! asked for, finishes them when a random script says so, lets processes end,
//! and watches every answer and every event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use boathook_hooks::Policy;
use boathook_hooks::record::{Hook, What};
use proptest::prelude::*;

use super::*;
use crate::failure::ErrorKind;

mod scripts;
mod stops;
mod world;

use world::World;

fn target(id: &str, exec: Option<&str>) -> Target {
    Target { id: id.into(), exec: exec.map(str::to_owned) }
}

fn create(id: &str) -> Command {
    Command::Create(Box::new(CreateRequest { id: id.into(), ..CreateRequest::default() }))
}

fn exec(id: &str, exec_id: &str) -> Command {
    let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
    Command::Exec(Box::new(ExecRequest { id, exec_id, stdio: Stdio::default(), spec: vec![] }))
}

fn kill(id: &str, exec: Option<&str>, signal: i32) -> Command {
    Command::Kill { target: target(id, exec), signal, all: false }
}

fn exit(status: u32) -> Exit {
    Exit { status, at: Some(UNIX_EPOCH + Duration::from_secs(1000 + u64::from(status))) }
}

/// A world with the container `c`, running.
fn running() -> World {
    let mut world = World::new();
    assert!(world.ask(create("c")).is_ok());
    assert!(world.ask(Command::Start(target("c", None))).is_ok());
    world
}

#[test]
fn one_container_from_create_to_shutdown() {
    let mut world = running();
    let wait = world.call(Command::Wait(target("c", None)));
    assert_eq!(world.status("c", None), Some(Status::Running));
    world.end("c", None, 3);
    assert_eq!(world.answer(wait), Some(&Ok(Answer::Exit(exit(3)))));
    assert_eq!(world.status("c", None), Some(Status::Stopped));
    let deleted = world.ask(Command::Delete(target("c", None)));
    assert!(matches!(deleted, Ok(Answer::Deleted { exit: Some(e), .. }) if e == exit(3)));
    assert!(!world.stopped);
    assert!(world.ask(Command::Shutdown).is_ok());
    assert!(world.stopped);
    assert_eq!(world.topics(), ["create", "start", "exit", "delete"]);
}

#[test]
fn shutdown_before_the_last_delete_is_remembered() {
    let mut world = running();
    assert!(world.ask(Command::Shutdown).is_ok());
    assert!(!world.stopped, "it still has a container");
    world.end("c", None, 0);
    assert!(world.ask(Command::Delete(target("c", None))).is_ok());
    assert!(world.stopped);
    assert_eq!(world.ask(create("d")).unwrap_err().kind(), ErrorKind::WrongState);
}

#[test]
fn an_unused_server_ends_and_a_used_one_does_not() {
    let (mut table, actions) = Table::new();
    assert_eq!(actions, [Action::Arm(Timer::Idle(0), IDLE_LIMIT)]);
    assert_eq!(table.apply(Input::Elapsed(Timer::Idle(0))), [Action::Stop]);

    let mut world = World::new();
    assert!(world.ask(create("c")).is_ok());
    world.feed(Input::Elapsed(Timer::Idle(0)));
    assert!(!world.stopped);
}

#[test]
fn wrong_states_have_their_errors() {
    use ErrorKind::{AlreadyExists, InvalidInput, NotFound, WrongState};
    let mut world = World::new();
    let all: [(Command, ErrorKind); 11] = [
        (Command::Start(target("c", None)), NotFound),
        (Command::State(target("c", None)), NotFound),
        (Command::Wait(target("c", None)), NotFound),
        (Command::Delete(target("c", None)), NotFound),
        (kill("c", None, 9), NotFound),
        (exec("c", "e"), NotFound),
        (Command::Pids("c".into()), NotFound),
        (Command::Pause("c".into()), NotFound),
        (Command::Resume("c".into()), NotFound),
        (Command::Stats("c".into()), NotFound),
        (Command::CloseStdin { target: target("c", None), close: true }, NotFound),
    ];
    for (command, kind) in all {
        assert_eq!(world.ask(command.clone()).unwrap_err().kind(), kind, "{command:?}");
    }
    assert_eq!(world.ask(Command::Connect("c".into())), Ok(Answer::Pid(0)));
    assert!(world.ask(create("c")).is_ok());
    assert!(world.ask(exec("c", "e")).is_ok());
    for (command, kind) in [
        (create("c"), AlreadyExists),
        (exec("c", "e"), AlreadyExists),
        (Command::Pause("c".into()), WrongState),
        (kill("c", Some("e"), 9), WrongState),
        (kill("c", None, 65), InvalidInput),
        (kill("c", None, -1), InvalidInput),
        (Command::State(target("c", Some("f"))), NotFound),
    ] {
        assert_eq!(world.ask(command.clone()).unwrap_err().kind(), kind, "{command:?}");
    }
    assert!(world.ask(Command::Start(target("c", None))).is_ok());
    for (command, kind) in [
        (Command::Start(target("c", None)), WrongState),
        (Command::Delete(target("c", None)), WrongState),
        (Command::Resume("c".into()), WrongState),
    ] {
        assert_eq!(world.ask(command.clone()).unwrap_err().kind(), kind, "{command:?}");
    }
    assert!(world.ask(Command::Pause("c".into())).is_ok());
    for (command, kind) in [
        (Command::Pause("c".into()), WrongState),
        (exec("c", "g"), WrongState),
        (Command::Start(target("c", Some("e"))), WrongState),
    ] {
        assert_eq!(world.ask(command.clone()).unwrap_err().kind(), kind, "{command:?}");
    }
    world.end("c", None, 137);
    for (command, kind) in [
        (kill("c", None, 15), NotFound),
        (Command::Start(target("c", None)), WrongState),
        (Command::Start(target("c", Some("e"))), WrongState),
        (exec("c", "h"), WrongState),
        (Command::Pause("c".into()), WrongState),
        (Command::Resume("c".into()), WrongState),
        (Command::Update { id: "c".into(), resources: vec![] }, NotFound),
    ] {
        assert_eq!(world.ask(command.clone()).unwrap_err().kind(), kind, "{command:?}");
    }
}

#[test]
fn an_exit_that_overtakes_its_start_is_told_after_it() {
    let mut world = World::new();
    assert!(world.ask(create("c")).is_ok());
    let start = world.call(Command::Start(target("c", None)));
    world.feed_exit("c", None, 0);
    assert_eq!(world.topics(), ["create"]);
    world.finish_all();
    assert!(matches!(world.answer(start), Some(Ok(Answer::Pid(_)))));
    assert_eq!(world.topics(), ["create", "start", "exit"]);
}

#[test]
fn execs_end_before_their_init() {
    let mut world = running();
    assert!(world.ask(exec("c", "e")).is_ok());
    assert!(world.ask(Command::Start(target("c", Some("e")))).is_ok());
    let wait = world.call(Command::Wait(target("c", None)));
    world.end("c", None, 0);
    assert_eq!(world.answer(wait), None, "init's exit overtook the exec's");
    assert_eq!(world.status("c", None), Some(Status::Stopped));
    world.end("c", Some("e"), 137);
    assert_eq!(world.answer(wait), Some(&Ok(Answer::Exit(exit(0)))));
    let tail = &world.events[world.events.len() - 2..];
    assert!(matches!(&tail[0], Event::Exit { target, .. } if target.exec.is_some()));
    assert!(matches!(&tail[1], Event::Exit { target, .. } if target.exec.is_none()));
}

#[test]
fn a_stuck_exec_does_not_hold_init_for_ever() {
    let mut world = running();
    assert!(world.ask(exec("c", "e")).is_ok());
    assert!(world.ask(Command::Start(target("c", Some("e")))).is_ok());
    let exec_wait = world.call(Command::Wait(target("c", Some("e"))));
    world.end("c", None, 0);
    let delete = world.call(Command::Delete(target("c", None)));
    world.finish_all();
    assert_eq!(world.answer(delete), None);
    world.elapse_barriers();
    world.finish_all();
    assert!(matches!(world.answer(delete), Some(Ok(Answer::Deleted { .. }))));
    assert!(matches!(world.answer(exec_wait), Some(Ok(Answer::Exit(e))) if e.status == 137));
}

#[test]
fn deletes_of_one_container_share_one_answer() {
    let mut world = running();
    world.end("c", None, 1);
    let tokens = [(); 3].map(|()| world.call(Command::Delete(target("c", None))));
    world.finish_all();
    for token in tokens {
        assert!(matches!(world.answer(token), Some(Ok(Answer::Deleted { .. }))));
    }
    let again = world.ask(Command::Delete(target("c", None)));
    assert_eq!(again.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.topics().iter().filter(|t| **t == "delete").count(), 1);
}

#[test]
fn a_failed_delete_can_be_repeated() {
    let mut world = running();
    world.end("c", None, 1);
    let delete = world.call(Command::Delete(target("c", None)));
    world.fail_all();
    assert!(matches!(world.answer(delete), Some(Err(_))));
    assert!(world.ask(Command::Delete(target("c", None))).is_ok());
}

#[test]
fn a_delete_that_nobody_waits_for_any_more_ends_the_server() {
    for another in [false, true] {
        let mut world = running();
        if another {
            assert!(world.ask(create("d")).is_ok());
        }
        world.end("c", None, 0);
        let delete = world.call(Command::Delete(target("c", None)));
        world.feed(Input::Cancelled(delete));
        world.finish_all();
        assert_eq!(world.answer(delete), None);
        assert_eq!(world.topics().last(), Some(&"delete"));
        assert_eq!(world.stopped, !another, "only with its last container");
    }
}

#[test]
fn a_pause_that_the_delete_overtakes_is_answered() {
    let mut world = running();
    let pause = world.call(Command::Pause("c".into()));
    world.end("c", None, 0);
    let delete = world.call(Command::Delete(target("c", None)));
    let removal = world.effects.iter().position(|e| matches!(e, Action::Delete(_)));
    world.finish(removal.unwrap(), true);
    assert!(matches!(world.answer(delete), Some(Ok(Answer::Deleted { .. }))));
    let failure = world.answer(pause).unwrap().as_ref().unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::WrongState);
    world.finish_all();
}

#[test]
fn delete_during_create_ends_it_waits_and_kills() {
    let mut world = World::new();
    let create = world.call(create("c"));
    let delete = world.call(Command::Delete(target("c", None)));
    assert_eq!(world.aborted.len(), 1);
    // It had just succeeded.
    world.finish_all();
    assert!(matches!(world.answer(create), Some(Ok(Answer::Pid(_)))));
    assert_eq!(world.answer(delete), None);
    assert_eq!(
        world.ask(Command::Start(target("c", None))).unwrap_err().kind(),
        ErrorKind::WrongState
    );
    world.reap_killed();
    world.finish_all();
    assert!(matches!(world.answer(delete), Some(Ok(Answer::Deleted { .. }))));
    assert_eq!(world.topics(), ["create", "exit", "delete"]);
}

#[test]
fn a_failed_create_leaves_nothing() {
    let mut world = World::new();
    let first = world.call(create("c"));
    let delete = world.call(Command::Delete(target("c", None)));
    world.fail_all();
    assert!(matches!(world.answer(first), Some(Err(_))));
    assert_eq!(world.answer(delete).unwrap().as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(world.table.is_empty() && world.events.is_empty());
    assert!(world.ask(create("c")).is_ok());
}

#[test]
fn a_failed_start_of_init_ends_in_an_exit_and_no_start() {
    let mut world = World::new();
    assert!(world.ask(create("c")).is_ok());
    let start = world.call(Command::Start(target("c", None)));
    let wait = world.call(Command::Wait(target("c", None)));
    world.fail_all();
    assert!(matches!(world.answer(start), Some(Err(_))));
    world.reap_killed();
    assert!(matches!(world.answer(wait), Some(Ok(Answer::Exit(_)))));
    assert_eq!(world.topics(), ["create", "exit"]);
}

#[test]
fn a_failed_start_of_an_exec_releases_its_waiters_without_an_event() {
    let mut world = running();
    assert!(world.ask(exec("c", "e")).is_ok());
    let wait = world.call(Command::Wait(target("c", Some("e"))));
    let start = world.call(Command::Start(target("c", Some("e"))));
    world.fail_all();
    assert!(matches!(world.answer(start), Some(Err(_))));
    assert!(matches!(world.answer(wait), Some(Ok(Answer::Exit(e))) if e.status == 255));
    assert_eq!(world.topics(), ["create", "start", "exec-added"]);
    assert!(world.ask(Command::Delete(target("c", Some("e")))).is_ok());
    assert!(world.ask(exec("c", "e")).is_ok(), "the id is free again");
}

#[test]
fn polite_signals_end_an_init_that_is_held_back() {
    let mut world = World::new();
    assert!(world.ask(create("c")).is_ok());
    assert!(world.ask(kill("c", None, 15)).is_ok());
    assert_eq!(world.last_signal, Some(9));
    assert!(world.ask(kill("c", None, 28)).is_ok());
    assert_eq!(world.last_signal, Some(28), "SIGWINCH ends nothing");
}

#[test]
fn sigkill_thaws_a_paused_container() {
    let mut world = running();
    assert!(world.ask(Command::Pause("c".into())).is_ok());
    assert_eq!(world.status("c", None), Some(Status::Paused));
    assert!(world.ask(kill("c", None, 15)).is_ok());
    assert!(!world.thawed);
    assert!(world.ask(kill("c", None, 9)).is_ok());
    assert!(world.thawed);
}

#[test]
fn a_shared_pid_namespace_is_swept_and_a_private_one_is_not() {
    for private in [true, false] {
        let mut world = World::new();
        world.private_pidns = private;
        assert!(world.ask(create("c")).is_ok());
        world.end("c", None, 0);
        assert_eq!(world.swept, !private);
    }
}

#[test]
fn pids_name_execs_and_keep_init_until_delete() {
    let mut world = running();
    assert!(world.ask(exec("c", "e")).is_ok());
    let Ok(Answer::Pid(exec_pid)) = world.ask(Command::Start(target("c", Some("e")))) else {
        panic!("no pid");
    };
    let Ok(Answer::Pid(init)) = world.ask(Command::Connect("c".into())) else { panic!("no pid") };
    world.pids = vec![exec_pid, 77, init];
    let list = world.ask(Command::Pids("c".into()));
    let expected = vec![(init, None), (exec_pid, Some("e".into())), (77, None)];
    assert_eq!(list, Ok(Answer::Pids(expected)));
    world.end("c", Some("e"), 0);
    world.end("c", None, 0);
    world.pids = vec![];
    assert_eq!(world.ask(Command::Pids("c".into())), Ok(Answer::Pids(vec![(init, None)])));
}

#[test]
fn forgotten_execs_are_bounded() {
    let mut world = running();
    for n in 0..MAX_ENDED_EXECS + 5 {
        let id = format!("e{n}");
        assert!(world.ask(exec("c", &id)).is_ok());
        assert!(world.ask(Command::Start(target("c", Some(&id)))).is_ok());
        world.end("c", Some(&id), 0);
    }
    assert_eq!(world.status("c", Some("e4")), None, "the oldest go first");
    assert_eq!(world.status("c", Some("e5")), Some(Status::Stopped));
}

#[test]
fn a_container_the_daemon_has_forgotten_goes_with_its_bundle() {
    let mut world = running();
    world.end("c", None, 0);
    world.elapse_orphans();
    world.finish_all();
    assert_eq!(world.status("c", None), Some(Status::Stopped), "the bundle is there");
    world.bundles_gone = true;
    world.elapse_orphans();
    world.finish_all();
    assert!(world.table.is_empty());
    assert_eq!(world.topics(), ["create", "start", "exit", "delete"]);
}

#[test]
fn a_waiter_that_left_is_not_answered() {
    let mut world = running();
    let wait = world.call(Command::Wait(target("c", None)));
    world.feed(Input::Cancelled(wait));
    world.end("c", None, 0);
    assert_eq!(world.answer(wait), None);
}
