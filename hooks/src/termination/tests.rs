//! The machine against random worlds with a clock of their own.

use proptest::prelude::*;

use super::*;

const STOP: Input = Input::Stop { hook: true, spent: Duration::ZERO };
const NO_HOOK: Input = Input::Stop { hook: false, spent: Duration::ZERO };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Feeds inputs with their times; the actions of the last one.
fn run(grace: u64, inputs: &[(Input, u64)]) -> (Machine, Vec<Action>) {
    let start = (Machine::new(secs(grace)), Vec::new());
    inputs.iter().fold(start, |(machine, _), (input, at)| machine.apply(*input, millis(*at)))
}

#[test]
fn hook_signal_kill() {
    let (_, actions) = run(30, &[(STOP, 0)]);
    assert_eq!(actions, [Action::RunHook, Action::Arm(1, secs(30))]);
    let (_, actions) = run(30, &[(STOP, 0), (Input::HookEnded, 12_900)]);
    assert_eq!(actions, [Action::Signal, Action::Arm(2, secs(18))]);
    let script = [(STOP, 0), (Input::HookEnded, 12_900), (Input::Elapsed(2), 30_900)];
    let (machine, actions) = run(30, &script);
    assert_eq!(actions, [Action::GraceOver, Action::KillAll, Action::Arm(3, KILL_AGAIN)]);
    assert_eq!(machine.state(), State::Kill);
}

#[test]
fn grace_of_nothing_one_two_and_thirty() {
    for (grace, hook) in [(0, None), (1, Some(1)), (2, Some(2)), (30, Some(30))] {
        let (_, actions) = run(grace, &[(STOP, 0)]);
        match hook {
            None => assert_eq!(actions, [Action::Signal, Action::Arm(1, MIN_GRACE)]),
            Some(limit) => {
                assert_eq!(actions, [Action::RunHook, Action::Arm(1, secs(limit))]);
                let over = [(STOP, 0), (Input::Elapsed(1), limit * 1000)];
                let (_, actions) = run(grace, &over);
                assert_eq!(actions, [Action::Signal, Action::Arm(2, MIN_GRACE)]);
            }
        }
        let (_, actions) = run(grace, &[(NO_HOOK, 0)]);
        assert_eq!(actions, [Action::Signal, Action::Arm(1, secs(grace).max(MIN_GRACE))]);
    }
}

/// The kubelet's figure and no constant of ours (minimumGracePeriodInSeconds in
/// pkg/kubelet/kuberuntime/kuberuntime_manager.go).
#[test]
fn the_program_has_two_seconds_however_little_is_left() {
    let two = Duration::from_millis(2000);
    for (grace, took) in [(0, 0), (1, 1000), (2, 1999), (30, 29_999), (30, 30_000)] {
        let stopped =
            if grace == 0 { vec![(STOP, 0)] } else { vec![(STOP, 0), (Input::HookEnded, took)] };
        let (machine, actions) = run(grace, &stopped);
        let Some(Action::Arm(clock, left)) = actions.last().copied() else {
            panic!("no clock after {took} of {grace} s: {actions:?}")
        };
        // 1.999 s of two cost one of them, 29.999 of thirty 29.
        assert_eq!((actions.first(), left), (Some(&Action::Signal), two), "{took} of {grace} s");
        let at = millis(took);
        let early = at + two - millis(1);
        let (machine, actions) = machine.apply(Input::Elapsed(clock), early);
        assert!(!actions.contains(&Action::KillAll), "killed after {early:?}");
        let Some(Action::Arm(clock, _)) = actions.last().copied() else { panic!("{actions:?}") };
        let (_, actions) = machine.apply(Input::Elapsed(clock), at + two);
        assert!(actions.contains(&Action::KillAll), "{took} of {grace} s: {actions:?}");
    }
}

#[test]
fn what_somebody_else_spent_counts() {
    let spent = Input::Stop { hook: false, spent: millis(4900) };
    let (_, actions) = run(10, &[(spent, 20_000)]);
    assert_eq!(actions, [Action::Signal, Action::Arm(1, secs(6))]);
}

#[test]
fn a_kill_without_effect_is_repeated() {
    let (machine, _) = run(1, &[(NO_HOOK, 0), (Input::Elapsed(1), 2000)]);
    let (machine, actions) = machine.apply(Input::Elapsed(2), secs(12));
    assert_eq!(actions, [Action::KillAll, Action::Arm(3, KILL_AGAIN)]);
    let (_, actions) = machine.apply(Input::Exited, secs(13));
    assert_eq!(actions, [Action::Ended]);
}

/// One thing that a world may do next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Wait(u16),
    Stop(bool),
    Kill,
    HookEnds,
    StaleClock(u32),
    ProgramEnds,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u16..4000).prop_map(Step::Wait),
        2 => any::<bool>().prop_map(Step::Stop),
        1 => Just(Step::Kill),
        2 => Just(Step::HookEnds),
        1 => (0_u32..6).prop_map(Step::StaleClock),
        1 => Just(Step::ProgramEnds),
    ]
}

/// What a machine did to its container, with the times.
#[derive(Debug, Default)]
struct World {
    now: Duration,
    clocks: Vec<(u32, Duration)>,
    stopped_at: Option<Duration>,
    hook_running: bool,
    hook_ran: bool,
    signalled: Option<Duration>,
    killed: Option<Duration>,
    exits: u32,
    gone: bool,
}

/// How late a stop's clocks are in these worlds at most. It has two, of the hook's time and of the
/// program's, and each may have half of it.
const TICK: Duration = Duration::from_millis(100);

impl World {
    fn feed(&mut self, machine: &mut Machine, input: Input) {
        let before = *machine;
        let (next, actions) = machine.apply(input, self.now);
        *machine = next;
        if before.state() == State::Done {
            assert!(actions.is_empty() && next == before, "{input:?} after the end: {actions:?}");
        }
        for action in actions {
            self.act(&before, input, action);
        }
    }

    fn act(&mut self, before: &Machine, input: Input, action: Action) {
        match action {
            Action::RunHook => {
                assert!(!self.hook_ran, "the hook ran twice");
                (self.hook_ran, self.hook_running) = (true, true);
            }
            Action::Signal => {
                assert_eq!(self.signalled, None, "signalled twice");
                let hook_over = !self.hook_running || self.now >= before.until;
                assert!(hook_over, "{input:?} sent the signal while the hook had time");
                assert_eq!(self.killed, None, "a signal after the kill");
                self.signalled = Some(self.now);
            }
            Action::GraceOver => {
                let since = self.now - self.signalled.expect("grace over without a signal");
                assert!(since >= MIN_GRACE, "only {since:?} between signal and kill");
            }
            Action::KillAll => self.killed = self.killed.or(Some(self.now)),
            Action::Arm(clock, after) => self.clocks.push((clock, self.now + after)),
            Action::Ended => self.exits += 1,
        }
    }

    /// Lets time go by; clocks on the way ring, each so late.
    fn pass(&mut self, machine: &mut Machine, time: Duration, late: Duration) {
        let end = self.now + time;
        loop {
            self.clocks.sort_by_key(|(_, at)| *at);
            match self.clocks.first().copied() {
                Some((clock, at)) if at + late <= end => {
                    self.clocks.remove(0);
                    self.now = self.now.max(at + late);
                    self.feed(machine, Input::Elapsed(clock));
                    self.die_if_killed(machine);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn die_if_killed(&mut self, machine: &mut Machine) {
        if self.killed.is_some() && !self.gone {
            self.gone = true;
            self.feed(machine, Input::Exited);
        }
    }

    fn play(&mut self, machine: &mut Machine, step: Step, late: Duration) {
        match step {
            Step::Wait(time) => self.pass(machine, millis(time.into()), late),
            Step::Stop(hook) => {
                if machine.state() == State::Idle {
                    self.stopped_at = Some(self.now);
                }
                self.feed(machine, Input::Stop { hook, spent: Duration::ZERO });
            }
            Step::Kill if !self.gone => {
                self.stopped_at = self.stopped_at.or(Some(self.now));
                self.feed(machine, Input::Kill);
                assert_eq!(machine.state(), State::Kill, "SIGKILL did not win");
                // Whoever sent it has killed the process.
                self.killed = self.killed.or(Some(self.now));
                self.die_if_killed(machine);
            }
            Step::HookEnds if self.hook_running => {
                self.hook_running = false;
                self.feed(machine, Input::HookEnded);
            }
            Step::StaleClock(clock) => {
                // One that has not been armed, or has rung: unknown to the world.
                if !self.clocks.iter().any(|(known, _)| *known == clock) {
                    self.feed(machine, Input::Elapsed(clock));
                }
            }
            Step::ProgramEnds if !self.gone => {
                self.gone = true;
                self.feed(machine, Input::Exited);
            }
            Step::Kill | Step::HookEnds | Step::ProgramEnds => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Seen red with: the signal sent together with the hook's start; SIGKILL ignored during the hook;
    /// a stop after the end that reports it again, or sends a signal; a grace period that is longer by
    /// a tick.
    #[test]
    fn every_stop_ends_in_time_and_in_order(
        grace in prop_oneof![Just(0), Just(1), Just(2), Just(30), 0_u64..40],
        late in 0..=TICK.as_millis() as u64 / 2,
        script in proptest::collection::vec(step(), 0..60),
    ) {
        let late = millis(late);
        let mut machine = Machine::new(secs(grace));
        let mut world = World::default();
        for step in script {
            world.play(&mut machine, step, late);
        }
        let limit = secs(grace) + MIN_GRACE + TICK;
        if let Some(stopped) = world.stopped_at {
            let left = (stopped + limit).saturating_sub(world.now);
            world.pass(&mut machine, left, late);
            prop_assert!(world.gone, "still there {limit:?} after the stop: {machine:?} {world:?}");
        }
        if world.gone {
            prop_assert_eq!(machine.state(), State::Done);
            prop_assert_eq!(world.exits, 1);
            world.pass(&mut machine, secs(100), late);
            prop_assert_eq!(world.exits, 1);
        } else {
            prop_assert_eq!(machine.state(), State::Idle);
        }
    }
}
