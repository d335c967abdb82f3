//! The stop of a container: a pure function of state, input and time.
//!
//! ```text
//!            stop                hook ended, or its time over
//!   Idle ───────────▶ Hook ──────────────────────────────────▶ Term
//!     │ stop, no hook (or no grace)                             ▲ │
//!     └──────────────────────────────────────────────────────────┘ │ grace over
//!   any ── kill ──▶ Kill ◀──────────────────────────────────────────┘
//!   any ── exited ─▶ Done
//! ```
//! The arithmetic is the kubelet's (killContainer in
//! pkg/kubelet/kuberuntime/kuberuntime_container.go): one clock from the stop
//! signal on; the time the hook took is subtracted in whole seconds, so that
//! 0.9 s cost nothing; what is left is never less than two seconds; without
//! grace there is no hook, which at the end of a whole pod does not occur
//! ([`crate::Policy::grace`]). So the processes get SIGKILL at the latest two
//! seconds after the grace period.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the program has after the signal, however long the hook took.
pub const MIN_GRACE: Duration = Duration::from_secs(2);
/// How long a kill may be without effect before it is tried again: a process
/// stuck in the kernel, or one that was forked past the first.
pub const KILL_AGAIN: Duration = Duration::from_secs(10);

/// Where a stop stands. Times count from the same unknown moment as `now`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nobody asked.
    #[default]
    Idle,
    /// The preStop hook runs.
    Hook,
    /// The program has the signal.
    Term,
    /// SIGKILL was sent.
    Kill,
    /// The container has ended.
    Done,
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The stop signal came in.
    Stop {
        /// There is a hook to be run.
        hook: bool,
        /// Part of the grace period that is over already, because somebody
        /// else ran the hook.
        spent: Duration,
    },
    /// SIGKILL came in; whoever sent it has delivered it.
    Kill,
    /// The preStop hook ended, whatever came of it.
    HookEnded,
    /// The clock with this number ran out.
    Elapsed(u32),
    /// The container's first process is gone.
    Exited,
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run the preStop hook; report its end.
    RunHook,
    /// Send the stop signal.
    Signal,
    /// The grace period is over and the container is still there.
    GraceOver,
    /// Kill every process of the container.
    KillAll,
    /// Report [`Input::Elapsed`] with this number after this time.
    Arm(u32, Duration),
    /// The stop is over; said once.
    Ended,
}

/// The machine of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    state: State,
    grace: Duration,
    /// When the stop began.
    began: Duration,
    /// When the present state has to be over.
    until: Duration,
    /// Number of the clock that counts; older ones are ignored.
    clock: u32,
}

impl Machine {
    /// A machine that waits for a stop.
    pub fn new(grace: Duration) -> Self {
        let zero = Duration::ZERO;
        Self { state: State::Idle, grace, began: zero, until: zero, clock: 0 }
    }

    /// Where the stop stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the present state will be over at the latest, if there is a limit.
    pub fn until(&self) -> Option<Duration> {
        matches!(self.state, State::Hook | State::Term).then_some(self.until)
    }

    /// What follows from `input` at the time `now`.
    #[must_use]
    pub fn apply(self, input: Input, now: Duration) -> (Self, Vec<Action>) {
        match (self.state, input) {
            (State::Done, _) => (self, Vec::new()),
            (_, Input::Exited) => (self.entered(State::Done), vec![Action::Ended]),
            (State::Kill, Input::Elapsed(clock)) if clock == self.clock => {
                self.killing(now, Vec::new())
            }
            (State::Kill, _) => (self, Vec::new()),
            // The processes get it from whoever sent it. Should one be left,
            // the clock sees to it.
            (_, Input::Kill) => {
                let machine = self.entered(State::Kill);
                machine.armed(now, KILL_AGAIN, Vec::new())
            }
            (State::Idle, Input::Stop { hook, spent }) => {
                let began = Self { began: now.saturating_sub(spent), ..self };
                let left = self.grace.saturating_sub(spent);
                if hook && !left.is_zero() {
                    began.entered(State::Hook).armed(now, left, vec![Action::RunHook])
                } else {
                    began.terminating(now)
                }
            }
            (State::Hook, Input::HookEnded) => self.terminating(now),
            (State::Hook | State::Term, Input::Elapsed(clock)) if clock == self.clock => {
                if now < self.until {
                    // A clock that is early counts as none.
                    let left = self.until - now;
                    return self.armed(now, left, Vec::new());
                }
                match self.state {
                    State::Hook => self.terminating(now),
                    _ => self.killing(now, vec![Action::GraceOver]),
                }
            }
            _ => (self, Vec::new()),
        }
    }

    fn entered(self, state: State) -> Self {
        Self { state, ..self }
    }

    /// Sends the signal, with what is left of the grace period.
    fn terminating(self, now: Duration) -> (Self, Vec<Action>) {
        let spent = Duration::from_secs(now.saturating_sub(self.began).as_secs());
        let left = self.grace.saturating_sub(spent).max(MIN_GRACE);
        self.entered(State::Term).armed(now, left, vec![Action::Signal])
    }

    fn killing(self, now: Duration, mut actions: Vec<Action>) -> (Self, Vec<Action>) {
        actions.push(Action::KillAll);
        self.entered(State::Kill).armed(now, KILL_AGAIN, actions)
    }

    fn armed(
        self,
        now: Duration,
        after: Duration,
        mut actions: Vec<Action>,
    ) -> (Self, Vec<Action>) {
        let clock = self.clock.wrapping_add(1);
        actions.push(Action::Arm(clock, after));
        (Self { clock, until: now.saturating_add(after), ..self }, actions)
    }
}

#[cfg(test)]
mod tests;
