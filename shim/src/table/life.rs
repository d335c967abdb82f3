//! Hooks and the stop of containers that have a policy. Those that have none
//! never come here.

use std::time::Duration;

use boathook_hooks::record::{Hook, What};
use boathook_hooks::termination::{self, Machine, State as Stop};
use boathook_hooks::{Handler, Order, Origin, Policy, signal};

use super::container::{Container, State};
use super::{Action, Actions, ContainerNo, Failure, HookEnd, Note, ProcessNo, Table, Timer};

/// After a hook that the kubelet ran itself, its stop signal follows at once.
/// One that comes later belongs to another stop.
const KUBELET_FOLLOWS: Duration = Duration::from_secs(10);

/// What a container with a policy has to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    policy: Box<Policy>,
    machine: Machine,
    /// The time, since some moment.
    pub(super) now: Duration,
    /// What the container's program gets, once a stop has begun.
    signal: i32,
    /// Every process gets it.
    all: bool,
    /// Init waits for the postStart hook.
    pub(super) held: bool,
    /// A stop signal that came while the program was being executed.
    pending: Option<(i32, bool)>,
    seen: Option<Seen>,
}

/// An exec that runs the same as the preStop hook: the kubelet at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    no: ProcessNo,
    started: Duration,
    ended: Option<Duration>,
}

/// The part of an OCI process that tells what it runs.
#[derive(serde::Deserialize)]
struct Arguments {
    args: Vec<String>,
}

impl Life {
    pub(super) fn new(policy: Box<Policy>, now: Duration) -> Self {
        let machine = Machine::new(policy.grace());
        let signal = policy.signal.unwrap_or(signal::TERM);
        Self { policy, machine, now, signal, all: false, held: false, pending: None, seen: None }
    }

    /// Init has to wait for the postStart hook.
    pub(super) fn holds_init(&self) -> bool {
        self.policy.post_start.is_some() && self.policy.order == Order::BeforeEntrypoint
    }

    /// Whether the kubelet's part has been done by itself, and since when.
    fn done_by_kubelet(&self) -> Option<Duration> {
        let (seen, now) = (self.seen?, self.now);
        let fresh = seen.ended.is_none_or(|ended| now.saturating_sub(ended) <= KUBELET_FOLLOWS);
        fresh.then(|| now.saturating_sub(seen.started))
    }

    /// Looks whether an exec is the kubelet's own run of the hook.
    pub(super) fn watch_exec(&mut self, no: ProcessNo, json: &[u8]) {
        let Some(Handler::Exec(exec)) = &self.policy.pre_stop else { return };
        if self.policy.origin != Origin::Kubelet {
            return;
        }
        let given: Option<Arguments> = serde_json::from_slice(json).ok();
        if given.is_some_and(|given| given.args == exec.command) {
            self.seen = Some(Seen { no, started: self.now, ended: None });
        }
    }

    pub(super) fn exec_ended(&mut self, no: ProcessNo) {
        let now = self.now;
        if let Some(seen) = self.seen.as_mut().filter(|seen| seen.no == no) {
            seen.ended = Some(now);
        }
    }
}

impl Table {
    /// The container's annotations have been read, and it has a policy.
    pub(super) fn policy(&mut self, no: ContainerNo, policy: Box<Policy>) {
        let now = self.now;
        if let Some(container) = self.by_no(no) {
            container.life = Some(Life::new(policy, now));
        }
    }

    pub(super) fn stop_clock(&mut self, no: ContainerNo, clock: u32, actions: &mut Actions) {
        if let Some(container) = self.by_no(no) {
            container.stop_step(termination::Input::Elapsed(clock), actions);
        }
    }

    /// A hook has ended. Its container may have ended before.
    pub(super) fn hook_ended(
        &mut self,
        no: ContainerNo,
        hook: Hook,
        end: HookEnd,
        actions: &mut Actions,
    ) {
        let Some(container) = self.by_no(no) else { return };
        let Some(life) = &mut container.life else { return };
        let held = std::mem::replace(&mut life.held, false) && hook == Hook::PostStart;
        let failed = match end {
            HookEnd::Succeeded => None,
            HookEnd::WithoutTls(message) => {
                container.note(What::HttpFallback { hook, message }, actions);
                None
            }
            HookEnd::Failed(message) => Some(message),
        };
        let what = match &failed {
            None => What::HookSucceeded { hook },
            Some(message) => What::HookFailed { hook, message: message.clone() },
        };
        container.note(what, actions);
        match (hook, failed) {
            (Hook::PreStop, _) => container.stop_step(termination::Input::HookEnded, actions),
            (Hook::PostStart, None) if held => actions.push(Action::Start(container.init.no)),
            (Hook::PostStart, Some(message)) if held => {
                let failure = Failure::wrong_state(format!("PostStart hook failed: {message}"));
                container.started(container.init.no, Err(failure), actions);
            }
            (Hook::PostStart, Some(_)) => {
                container.begin_stop(hook.failed_reason().to_owned(), actions);
            }
            (Hook::PostStart, None) => {}
        }
    }
}

impl Container {
    /// Init's program runs.
    pub(super) fn life_begins(&mut self, actions: &mut Actions) {
        let Some(life) = &mut self.life else { return };
        let after = life.policy.post_start.is_some() && !life.holds_init();
        let pending = life.pending.take();
        self.note(What::Started, actions);
        if after {
            self.run_hook(Hook::PostStart, actions);
        }
        if let Some((number, all)) = pending {
            self.takes_signal(number, all, actions);
        }
    }

    /// Init has ended while it was being started; a hook it waits for has
    /// nobody to work for.
    pub(super) fn life_cut_short(&self, no: ProcessNo, actions: &mut Actions) {
        if self.init.no == no && self.life.as_ref().is_some_and(|life| life.held) {
            actions.push(Action::EndHooks(self.no));
        }
    }

    /// Init's exit is known.
    pub(super) fn life_ends(&mut self, status: u32, actions: &mut Actions) {
        if self.life.is_some() {
            self.stop_step(termination::Input::Exited, actions);
            self.note(What::Exited { status }, actions);
            actions.push(Action::EndHooks(self.no));
        }
    }

    pub(super) fn run_hook(&mut self, hook: Hook, actions: &mut Actions) {
        self.note(What::HookStarted { hook }, actions);
        actions.push(Action::RunHook(self.no, hook));
    }

    /// A signal for init came in. True when the stop has taken it.
    pub(super) fn takes_signal(&mut self, number: i32, all: bool, actions: &mut Actions) -> bool {
        let Some(life) = &mut self.life else { return false };
        match self.init.state {
            State::Running => {}
            State::Starting { .. } if !life.held && life.policy.stops(number) => {
                life.pending = Some((number, all));
                return true;
            }
            _ => return false,
        }
        let state = life.machine.state();
        if number == signal::KILL {
            self.stop_step(termination::Input::Kill, actions);
            if !matches!(state, Stop::Kill | Stop::Done) {
                self.note(What::Killed { cause: "SIGKILL was sent".to_owned() }, actions);
            }
            return false;
        }
        if !life.policy.stops(number) {
            return false;
        }
        match state {
            Stop::Idle => {
                (life.signal, life.all) = (number, all);
                self.begin_stop(format!("{} was sent", signal::name(number)), actions);
                true
            }
            // It is on its way already.
            Stop::Hook => true,
            Stop::Term | Stop::Kill | Stop::Done => false,
        }
    }

    fn begin_stop(&mut self, cause: String, actions: &mut Actions) {
        let running = matches!(self.init.state, State::Running);
        let Some(life) = self.life.as_ref().filter(|_| running) else { return };
        if life.machine.state() != Stop::Idle {
            return;
        }
        let done = life.done_by_kubelet();
        let hook = life.policy.pre_stop.is_some() && done.is_none();
        self.note(What::Stopping { cause }, actions);
        let spent = done.unwrap_or_default();
        self.stop_step(termination::Input::Stop { hook, spent }, actions);
    }

    /// Moves the stop on and does what it says.
    fn stop_step(&mut self, input: termination::Input, actions: &mut Actions) {
        let Some(life) = &mut self.life else { return };
        let before = life.machine.state();
        let (machine, steps) = life.machine.apply(input, life.now);
        life.machine = machine;
        let (number, all) = (life.signal, life.all);
        for step in steps {
            match step {
                termination::Action::RunHook => self.run_hook(Hook::PreStop, actions),
                termination::Action::Signal => {
                    self.note(What::Signalled { signal: number }, actions);
                    actions.push(match all {
                        true => Action::SignalAll(self.no, number, None),
                        false => Action::Signal(self.init.no, number, None),
                    });
                }
                termination::Action::GraceOver => self.note(What::GraceExpired, actions),
                termination::Action::KillAll => {
                    if before != Stop::Kill {
                        let cause = "the grace period is over".to_owned();
                        self.note(What::Killed { cause }, actions);
                    }
                    actions.push(Action::KillRest(self.no));
                }
                termination::Action::Arm(clock, after) => {
                    actions.push(Action::Arm(Timer::Stop(self.no, clock), after));
                }
                termination::Action::Ended => {}
            }
        }
    }

    /// Writes down and tells of what happened.
    fn note(&self, what: What, actions: &mut Actions) {
        let Some(life) = &self.life else { return };
        let left = life.machine.until().map(|until| until.saturating_sub(life.now));
        let note = Note { what, state: life.machine.state(), left };
        actions.push(Action::Note(self.no, Box::new(note)));
    }
}
