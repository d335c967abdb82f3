//! Random scripts: any calls, effects that end in any order and any way, and
//! processes that die at any moment. Afterwards everything is brought to its
//! end, and the whole history is checked.

use super::*;

/// One step of a script; the numbers choose among what there is.
type Step = (u8, u8, u8);

fn command(kind: u8, id: &str, exec_id: Option<&str>) -> Command {
    let whom = target(id, exec_id);
    let id = id.to_owned();
    match kind % 17 {
        0 | 1 => create(&id),
        2 | 3 => Command::Start(whom),
        4 => Command::State(whom),
        5 | 6 => Command::Wait(whom),
        7 => Command::Delete(whom),
        8 => {
            let signal = if kind.is_multiple_of(2) { 9 } else { 15 };
            Command::Kill { target: whom, signal, all: kind > 128 }
        }
        9 | 10 => exec(&id, exec_id.unwrap_or("e0")),
        11 => Command::Pids(id),
        12 => Command::Pause(id),
        13 => Command::Resume(id),
        14 => Command::Resize { target: whom, width: 80, height: 25 },
        15 => Command::Stats(id),
        _ => Command::Update { id, resources: vec![] },
    }
}

fn play(world: &mut World, (kind, a, b): Step) {
    let ids = ["c0", "c1"];
    let execs = [None, None, Some("e0"), Some("e1")];
    match kind % 8 {
        0..=3 => {
            let id = ids[usize::from(a) % ids.len()];
            world.call(command(b, id, execs[usize::from(a / 2) % execs.len()]));
        }
        4 | 5 if !world.effects.is_empty() => {
            let index = usize::from(a) % world.effects.len();
            world.finish(index, !b.is_multiple_of(5));
        }
        6 if !world.alive.is_empty() => {
            let index = usize::from(a) % world.alive.len();
            let no = world.alive.keys().nth(index).copied();
            world.exit_no(no.unwrap(), u32::from(b));
        }
        7 if b.is_multiple_of(7) => world.pass(Duration::from_millis(u64::from(a) * 50)),
        7 if b.is_multiple_of(4) => {
            let open = world.unanswered();
            if let Some(token) = open.get(usize::from(a) % open.len().max(1)) {
                world.feed(Input::Cancelled(*token));
            }
        }
        7 if b.is_multiple_of(5) => {
            let container = ContainerNo(1 + u32::from(a) % 6);
            world.feed(Input::OutOfMemory(container));
        }
        7 if b.is_multiple_of(3) => {
            world.bundles_gone = a.is_multiple_of(4);
            world.elapse_orphans();
        }
        _ => world.reap_killed(),
    }
}

/// Ends every container by the calls a daemon would make.
fn wind_up(world: &mut World) {
    for id in ["c0", "c1"] {
        world.finish_all();
        world.call(Command::Kill { target: target(id, None), signal: 9, all: true });
        world.finish_all();
        let all: Vec<_> = world.alive.keys().copied().collect();
        for no in all {
            world.exit_no(no, 137);
        }
        world.finish_all();
        world.call(Command::Delete(target(id, None)));
        world.finish_all();
        world.reap_killed();
        world.finish_all();
    }
    world.call(Command::Shutdown);
}

/// Splits the history into the lives of containers and checks each.
fn check_history(events: &[Event]) {
    for id in ["c0", "c1"] {
        let own: Vec<_> = events.iter().filter(|e| container_of(e) == id).collect();
        for life in own.split_inclusive(|e| matches!(e, Event::Delete { .. })) {
            check_life(life);
        }
    }
}

fn check_life(life: &[&Event]) {
    assert_eq!(world::topic(life[0]), "create", "{life:#?}");
    assert_eq!(world::topic(life[life.len() - 1]), "delete", "{life:#?}");
    let count = |what: &str| life.iter().filter(|e| world::topic(e) == what).count();
    assert_eq!((count("create"), count("delete")), (1, 1), "{life:#?}");
    assert!(count("start") <= 1, "{life:#?}");
    let init_exits =
        positions(life, |e| matches!(e, Event::Exit { target, .. } if target.exec.is_none()));
    assert_eq!(init_exits.len(), 1, "{life:#?}");
    let ooms = positions(life, |e| matches!(e, Event::Oom(_)));
    assert!(ooms.iter().all(|o| *o < init_exits[0]), "{life:#?}");
    let starts = positions(life, |e| matches!(e, Event::Start { .. }));
    assert!(starts.iter().all(|s| *s < init_exits[0]), "{life:#?}");
    let exec_exits =
        positions(life, |e| matches!(e, Event::Exit { target, .. } if target.exec.is_some()));
    assert!(exec_exits.iter().all(|e| *e < init_exits[0]), "{life:#?}");
    for exec in ["e0", "e1"] {
        let mut last = "exec-gone";
        for event in life.iter().filter(|e| exec_of(e) == Some(exec)) {
            let now = world::topic(event);
            let fits = match now {
                "exec-added" => last != "exec-started",
                "exec-started" => last == "exec-added",
                _ => last == "exec-started",
            };
            assert!(fits, "{now} after {last}: {life:#?}");
            last = now;
        }
        assert_ne!(last, "exec-started", "no exit of {exec}: {life:#?}");
    }
}

fn positions(life: &[&Event], wanted: impl Fn(&Event) -> bool) -> Vec<usize> {
    life.iter().enumerate().filter(|(_, e)| wanted(e)).map(|(n, _)| n).collect()
}

fn container_of(event: &Event) -> &str {
    match event {
        Event::Create { id, .. }
        | Event::Start { id, .. }
        | Event::ExecAdded { id, .. }
        | Event::ExecStarted { id, .. }
        | Event::Delete { id, .. }
        | Event::Lifecycle { id, .. }
        | Event::Paused(id)
        | Event::Resumed(id)
        | Event::Oom(id) => id,
        Event::Exit { target, .. } => &target.id,
    }
}

fn exec_of(event: &Event) -> Option<&str> {
    match event {
        Event::ExecAdded { exec_id, .. } | Event::ExecStarted { exec_id, .. } => Some(exec_id),
        Event::Exit { target, .. } => target.exec.as_deref(),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn any_script_ends_with_every_call_answered_and_every_event_in_order(
        private_pidns: bool,
        before_entrypoint: bool,
        script in proptest::collection::vec(any::<Step>(), 0..120),
    ) {
        let mut world = World::new();
        world.private_pidns = private_pidns;
        // One container with a policy, one without.
        world.policies.insert("c1".into(), stops::policy(before_entrypoint));
        for step in script {
            play(&mut world, step);
        }
        wind_up(&mut world);
        prop_assert!(world.table.is_empty(), "left: {:#?}", world.table);
        prop_assert!(world.stopped);
        prop_assert_eq!(world.unanswered(), vec![]);
        check_history(&world.events);
    }
}
