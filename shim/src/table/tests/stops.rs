//! Containers with a policy: hooks, stops, and what they let through.

use boathook_hooks::{Handler, Order};

use super::*;

/// Both hooks, ten seconds of grace, SIGTERM.
pub(super) fn policy(before_entrypoint: bool) -> Policy {
    let sleep = Handler::parse(r#"{"sleep":{"seconds":1}}"#, 30).ok();
    let order = if before_entrypoint { Order::BeforeEntrypoint } else { Order::AfterStart };
    let (post_start, pre_stop) = (sleep.clone(), sleep);
    Policy { post_start, order, pre_stop, grace: 10, signal: Some(15), ..Policy::default() }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A world with the container `c`, created.
fn created(policy: Policy) -> World {
    let mut world = World::new();
    world.policies.insert("c".into(), policy);
    assert!(world.ask(create("c")).is_ok());
    world
}

/// The same, running, its postStart hook done.
fn running_with(policy: Policy) -> World {
    let mut world = created(policy);
    assert!(world.ask(Command::Start(target("c", None))).is_ok());
    world.notes.clear();
    world
}

/// The effects of hooks that have not finished.
fn hooks(world: &World) -> Vec<Hook> {
    let running = world.effects.iter().filter_map(|e| match e {
        Action::RunHook(_, hook) => Some(*hook),
        _ => None,
    });
    running.collect()
}

fn finish_hook(world: &mut World, good: bool) {
    let at = world.effects.iter().position(|e| matches!(e, Action::RunHook(..)));
    world.finish(at.unwrap(), good);
}

#[test]
fn without_a_policy_every_signal_passes_and_no_clock_starts() {
    let mut world = running();
    for signal in [15, 1, 2] {
        assert_eq!(world.ask(kill("c", None, signal)), Ok(Answer::Done));
        assert_eq!(world.last_signal, Some(signal));
    }
    assert_eq!((world.clocks.len(), world.notes.len()), (0, 0));
}

#[test]
fn the_signal_waits_for_the_hook_and_others_pass() {
    let mut world = running_with(policy(false));
    let token = world.call(kill("c", None, 15));
    assert_eq!(world.answer(token), Some(&Ok(Answer::Done)), "the caller does not wait");
    assert_eq!((hooks(&world), world.last_signal), (vec![Hook::PreStop], None));
    // A second one changes nothing; another signal is not the machine's affair.
    assert!(world.answer(world.unanswered().first().copied().unwrap_or(token)).is_some());
    world.call(kill("c", None, 15));
    assert_eq!((hooks(&world).len(), world.last_signal), (1, None));
    world.call(kill("c", None, 1));
    assert_eq!(world.last_signal, Some(1));
    world.pass(secs(3));
    finish_hook(&mut world, true);
    assert_eq!(world.last_signal, Some(15));
    assert!(!world.swept);
    world.pass(secs(7));
    assert!(world.swept, "seven of ten seconds were left");
    world.reap_killed();
    let names: Vec<_> = world.notes.iter().map(|what| format!("{what:?}")).collect();
    let begins = |at: usize, what: &str| assert!(names[at].starts_with(what), "{names:#?}");
    for (at, what) in [
        "Stopping",
        "HookStarted",
        "HookSucceeded",
        "Signalled",
        "GraceExpired",
        "Killed",
        "Exited",
    ]
    .iter()
    .enumerate()
    {
        begins(at, what);
    }
    assert_eq!(world.topics(), ["create", "start", "exit"]);
}

#[test]
fn the_end_of_the_container_ends_the_stop() {
    let mut world = running_with(policy(false));
    world.call(kill("c", None, 15));
    world.feed_exit("c", None, 0);
    assert!(world.hooks_ended);
    world.pass(secs(100));
    assert!(!world.swept && world.last_signal.is_none());
    finish_hook(&mut world, false);
    assert!(matches!(world.notes.last(), Some(What::HookFailed { .. })), "a late failure is told");
    assert_eq!(world.last_signal, None);
}

#[test]
fn sigkill_does_not_wait() {
    let mut world = running_with(policy(false));
    world.call(kill("c", None, 15));
    world.call(kill("c", None, 9));
    assert_eq!(world.last_signal, Some(9));
    finish_hook(&mut world, true);
    assert_eq!(world.last_signal, Some(9), "nothing but SIGKILL is sent after SIGKILL");
}

#[test]
fn a_failed_post_start_hook_stops_the_container_with_its_pre_stop_hook() {
    let mut world = created(policy(false));
    let start = world.call(Command::Start(target("c", None)));
    world.finish(0, true);
    assert!(matches!(world.answer(start), Some(Ok(Answer::Pid(_)))), "started all the same");
    assert_eq!(hooks(&world), [Hook::PostStart]);
    finish_hook(&mut world, false);
    assert_eq!(hooks(&world), [Hook::PreStop]);
    finish_hook(&mut world, true);
    assert_eq!(world.last_signal, Some(15));
}

#[test]
fn before_the_entrypoint_means_before() {
    let mut world = created(policy(true));
    let start = world.call(Command::Start(target("c", None)));
    assert_eq!(hooks(&world), [Hook::PostStart]);
    assert!(!world.effects.iter().any(|e| matches!(e, Action::Start(_))));
    finish_hook(&mut world, true);
    world.finish_all();
    assert!(matches!(world.answer(start), Some(Ok(Answer::Pid(_)))));
    assert_eq!(hooks(&world), [], "it runs once");
}

#[test]
fn a_failure_before_the_entrypoint_is_a_failed_start() {
    let mut world = created(policy(true));
    let start = world.call(Command::Start(target("c", None)));
    finish_hook(&mut world, false);
    let failure = world.answer(start).unwrap().as_ref().unwrap_err().to_string();
    assert!(failure.contains("PostStart hook failed"), "{failure}");
    world.reap_killed();
    assert!(world.ask(Command::Delete(target("c", None))).is_ok());
    assert_eq!(world.topics(), ["create", "exit", "delete"]);
}

#[test]
fn a_stop_before_the_entrypoint_is_a_kill() {
    let mut world = created(policy(true));
    world.call(Command::Start(target("c", None)));
    world.call(kill("c", None, 15));
    assert_eq!(world.last_signal, Some(9));
    assert!(world.hooks_ended);
}

#[test]
fn a_stop_that_comes_with_the_start_waits_for_it() {
    let mut world = created(policy(false));
    world.call(Command::Start(target("c", None)));
    let token = world.call(kill("c", None, 15));
    assert_eq!((world.answer(token), world.last_signal), (Some(&Ok(Answer::Done)), None));
    world.finish(0, true);
    assert_eq!(hooks(&world), [Hook::PostStart, Hook::PreStop]);
}

#[test]
fn an_init_that_dies_before_its_entrypoint_ends_the_hook() {
    let mut world = created(policy(true));
    let start = world.call(Command::Start(target("c", None)));
    world.feed_exit("c", None, 137);
    assert!(world.hooks_ended);
    finish_hook(&mut world, false);
    assert!(world.answer(start).is_some_and(Result::is_err));
    assert_eq!(world.topics(), ["create", "exit"]);
}

#[test]
fn what_the_kubelet_did_is_not_done_again() {
    let exec_hook = Handler::parse(r#"{"exec":{"command":["sync"]}}"#, 30).ok();
    let kubelet = Policy {
        post_start: None,
        pre_stop: exec_hook,
        origin: boathook_hooks::Origin::Kubelet,
        signal: None,
        ..policy(false)
    };
    let exec_of = |args: &str| {
        let spec = format!(r#"{{"args":[{args}],"cwd":"/"}}"#).into_bytes();
        let (id, exec_id) = ("c".to_owned(), "e".to_owned());
        Command::Exec(Box::new(ExecRequest { id, exec_id, stdio: Stdio::default(), spec }))
    };
    for (args, wait, runs) in
        [("\"sync\"", 1, false), ("\"sync\"", 11, true), ("\"true\"", 1, true)]
    {
        let mut world = running_with(kubelet.clone());
        assert!(world.ask(exec_of(args)).is_ok());
        assert!(world.ask(Command::Start(target("c", Some("e")))).is_ok());
        world.pass(secs(4));
        world.end("c", Some("e"), 0);
        world.pass(secs(wait));
        world.call(kill("c", None, 3));
        assert_eq!(hooks(&world).len(), usize::from(runs), "{args} {wait}");
        if !runs {
            assert_eq!(world.last_signal, Some(3), "the signal that came");
            world.pass(secs(4));
            assert!(!world.swept);
            world.pass(secs(1));
            assert!(world.swept, "five of ten seconds were the kubelet's");
        }
    }
}
