//! Everything around the table, under the test's control.

use super::*;

/// The world; every check that must hold at all times is in [`World::watch`].
#[derive(Default)]
pub(super) struct World {
    pub(super) table: Table,
    pub(super) events: Vec<Event>,
    pub(super) stopped: bool,
    pub(super) last_signal: Option<i32>,
    pub(super) thawed: bool,
    pub(super) swept: bool,
    /// Creates that were asked to end.
    pub(super) aborted: Vec<ContainerNo>,
    pub(super) private_pidns: bool,
    /// What the kernel says about pids in the container.
    pub(super) pids: Vec<u32>,
    next_token: u64,
    answers: BTreeMap<Token, Result<Answer>>,
    pub(super) cancelled: BTreeSet<Token>,
    /// Effects asked for and not finished.
    pub(super) effects: Vec<Action>,
    barriers: Vec<Timer>,
    orphans: Vec<Timer>,
    /// The daemon has removed the bundles.
    pub(super) bundles_gone: bool,
    /// Processes that exist, with whether they got a SIGKILL.
    pub(super) alive: BTreeMap<ProcessNo, bool>,
    /// Which process an id means now.
    names: BTreeMap<Target, ProcessNo>,
    inits: BTreeMap<ContainerNo, ProcessNo>,
    pub(super) now: Duration,
    /// Clocks of stops, with the time at which they ring.
    pub(super) clocks: Vec<(Timer, Duration)>,
    /// What was written down.
    pub(super) notes: Vec<What>,
    pub(super) hooks_ended: bool,
    /// Policies that containers of these ids have.
    pub(super) policies: BTreeMap<String, Policy>,
}

impl World {
    pub(super) fn new() -> Self {
        let (table, _) = Table::new();
        Self { table, private_pidns: true, ..Self::default() }
    }

    /// Makes a call and returns without waiting.
    pub(super) fn call(&mut self, command: Command) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        let named = match &command {
            Command::Create(r) => Some(target(&r.id, None)),
            Command::Exec(r) => Some(target(&r.id, Some(&r.exec_id))),
            _ => None,
        };
        let before = self.effects.len();
        self.feed(Input::Call(token, command));
        for effect in &self.effects[before..] {
            let no = match effect {
                Action::Create(container, no, _) => {
                    self.inits.insert(*container, *no);
                    *no
                }
                Action::Register(no, _) => *no,
                _ => continue,
            };
            if let Some(name) = &named {
                self.names.insert(name.clone(), no);
            }
        }
        token
    }

    /// Makes a call, finishes all effects, returns the answer.
    pub(super) fn ask(&mut self, command: Command) -> Result<Answer> {
        let token = self.call(command);
        self.finish_all();
        self.answers.get(&token).cloned().unwrap_or_else(|| panic!("no answer to {token:?}"))
    }

    pub(super) fn answer(&self, token: Token) -> Option<&Result<Answer>> {
        self.answers.get(&token)
    }

    pub(super) fn unanswered(&self) -> Vec<Token> {
        let all = (1..=self.next_token).map(Token);
        all.filter(|t| !self.answers.contains_key(t) && !self.cancelled.contains(t)).collect()
    }

    pub(super) fn status(&mut self, id: &str, exec: Option<&str>) -> Option<Status> {
        match self.ask(Command::State(target(id, exec))) {
            Ok(Answer::State(state)) => Some(state.status),
            _ => None,
        }
    }

    pub(super) fn topics(&self) -> Vec<&'static str> {
        self.events.iter().map(topic).collect()
    }

    pub(super) fn feed(&mut self, input: Input) {
        if let Input::Cancelled(token) = &input {
            self.cancelled.insert(*token);
        }
        self.table.set_time(self.now);
        for action in self.table.apply(input) {
            self.watch(action);
        }
    }

    fn watch(&mut self, action: Action) {
        match action {
            Action::Reply(token, answer) => {
                self.check_wait(&answer);
                let before = self.answers.insert(token, answer);
                assert_eq!(before, None, "{token:?} was answered twice");
            }
            Action::Publish(event) => self.events.push(event),
            Action::Signal(no, signal, token) => {
                self.last_signal = Some(signal);
                if signal == 9
                    && let Some(killed) = self.alive.get_mut(&no)
                {
                    *killed = true;
                }
                if let Some(token) = token {
                    self.effects.push(Action::Signal(no, signal, Some(token)));
                }
            }
            Action::SignalAll(_, signal, None) => self.last_signal = Some(signal),
            Action::SignalAll(no, 9, token) => {
                if let Some(killed) = self.inits.get(&no).and_then(|no| self.alive.get_mut(no)) {
                    *killed = true;
                }
                self.effects.push(Action::SignalAll(no, 9, token));
            }
            Action::Thaw(_) => self.thawed = true,
            Action::KillRest(no) => {
                self.swept = true;
                if let Some(killed) = self.inits.get(&no).and_then(|no| self.alive.get_mut(no)) {
                    *killed = true;
                }
            }
            Action::AbortCreate(no) => self.aborted.push(no),
            Action::Arm(timer @ Timer::Barrier(_), _) => self.barriers.push(timer),
            Action::Arm(timer @ Timer::Orphan(_), _) => self.orphans.push(timer),
            Action::Stop => {
                assert!(!self.stopped, "stopped twice");
                self.stopped = true;
            }
            Action::Arm(timer @ Timer::Stop(..), after) => {
                self.clocks.push((timer, self.now + after))
            }
            Action::Note(_, note) => self.notes.push(note.what),
            Action::EndHooks(_) => self.hooks_ended = true,
            Action::Arm(..)
            | Action::EndIo(_)
            | Action::Record(..)
            | Action::CloseStdin(_)
            | Action::Forget(_) => {}
            effect => self.effects.push(effect),
        }
    }

    /// A caller that has learned of an exit must find the process stopped.
    fn check_wait(&mut self, answer: &Result<Answer>) {
        let Ok(Answer::Exit(exit)) = answer else { return };
        let mut table = self.table.clone();
        let shown = self.names.keys().any(|name| {
            let replies = table.apply(Input::Call(Token(u64::MAX), Command::State(name.clone())));
            replies.iter().any(|r| {
                matches!(r, Action::Reply(_, Ok(Answer::State(s)))
                    if s.exit == Some(*exit) && s.status == Status::Stopped)
            })
        });
        assert!(shown || exit.status == 137, "Wait told of {exit:?} before State did");
    }

    pub(super) fn elapse_barriers(&mut self) {
        for timer in std::mem::take(&mut self.barriers) {
            self.feed(Input::Elapsed(timer));
        }
    }

    pub(super) fn elapse_orphans(&mut self) {
        for timer in std::mem::take(&mut self.orphans) {
            self.feed(Input::Elapsed(timer));
        }
    }

    pub(super) fn finish_all(&mut self) {
        while !self.effects.is_empty() {
            self.finish(0, true);
        }
    }

    pub(super) fn fail_all(&mut self) {
        while !self.effects.is_empty() {
            self.finish(0, false);
        }
    }

    /// Ends one effect. Its process comes to life where that is its meaning.
    pub(super) fn finish(&mut self, index: usize, good: bool) {
        let failure = || Failure::new(ErrorKind::Internal, "the world said no");
        let done = if good { Ok(()) } else { Err(failure()) };
        let mut policy = None;
        let outcome = match self.effects.remove(index) {
            Action::Create(no, init, request) => {
                if good {
                    self.alive.insert(init, false);
                    policy = self.policies.get(&request.id).map(|p| (no, Box::new(p.clone())));
                }
                Outcome::Created(no, done.map(|()| (1000 + init.0, self.private_pidns)))
            }
            Action::Register(no, _) => Outcome::Registered(no, done),
            Action::Start(no) => Outcome::Started(no, done.map(|()| 1000 + no.0)),
            Action::StartExec(_, no, ..) => {
                if good {
                    self.alive.insert(no, false);
                }
                Outcome::Started(no, done.map(|()| 1000 + no.0))
            }
            Action::Pause(no) => Outcome::Paused(no, done),
            Action::Resume(no) => Outcome::Resumed(no, done),
            Action::Pids(no, token) => Outcome::Pids(no, token, self.pids.clone()),
            Action::Drain(no) => Outcome::Drained(no),
            Action::CheckBundle(no) => Outcome::Bundle(no, !self.bundles_gone),
            Action::RunHook(no, hook) => Outcome::HookEnded(
                no,
                hook,
                if good { HookEnd::Succeeded } else { HookEnd::Failed("no".into()) },
            ),
            Action::Delete(no) => Outcome::Deleted(no, done),
            Action::Signal(_, _, Some(token))
            | Action::SignalAll(_, _, Some(token))
            | Action::Stats(_, token)
            | Action::Update(_, _, token)
            | Action::Resize(_, _, _, token) => {
                Outcome::Answered(token, done.map(|()| Answer::Done))
            }
            other => panic!("{other:?} is not an effect that finishes"),
        };
        self.feed(Input::Finished(outcome));
        if let Some((no, policy)) = policy {
            self.feed(Input::Policy(no, policy));
        }
    }

    /// Lets time go by, and the clocks of stops ring on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.clocks.sort_by_key(|(_, at)| *at);
            match self.clocks.first().copied() {
                Some((timer, at)) if at <= end => {
                    self.clocks.remove(0);
                    self.now = self.now.max(at);
                    self.feed(Input::Elapsed(timer));
                }
                _ => break,
            }
        }
        self.now = end;
    }

    /// Lets a process end, if the id means one that lives.
    pub(super) fn feed_exit(&mut self, id: &str, exec: Option<&str>, status: u32) {
        if let Some(no) = self.names.get(&target(id, exec)).copied() {
            self.exit_no(no, status);
        }
    }

    pub(super) fn exit_no(&mut self, no: ProcessNo, status: u32) {
        if self.alive.remove(&no).is_some() {
            self.feed(Input::Exited(no, exit(status)));
        }
    }

    pub(super) fn end(&mut self, id: &str, exec: Option<&str>, status: u32) {
        self.feed_exit(id, exec, status);
        self.finish_all();
    }

    /// Ends every process that got a SIGKILL.
    pub(super) fn reap_killed(&mut self) {
        let killed: Vec<_> = self.alive.iter().filter(|(_, k)| **k).map(|(no, _)| *no).collect();
        for no in killed {
            self.exit_no(no, 137);
        }
    }
}

pub(super) fn topic(event: &Event) -> &'static str {
    match event {
        Event::Create { .. } => "create",
        Event::Start { .. } => "start",
        Event::ExecAdded { .. } => "exec-added",
        Event::ExecStarted { .. } => "exec-started",
        Event::Exit { .. } => "exit",
        Event::Delete { .. } => "delete",
        Event::Paused(_) => "paused",
        Event::Resumed(_) => "resumed",
        Event::Oom(_) => "oom",
        Event::Lifecycle { topic, .. } => topic,
    }
}
