//! Results of effects.

use super::container::{Container, Delete, Freeze, State};
use super::{
    Action, Actions, Answer, ContainerNo, Event, Exit, Failure, Outcome, ProcessNo, Result, Table,
    Target, Token,
};

const SIGKILL: i32 = 9;
/// What Wait says about an exec that could not be started.
const NEVER_RAN: Exit = Exit { status: 255, at: None };

impl Table {
    pub(super) fn finished(&mut self, outcome: Outcome, actions: &mut Actions) {
        match outcome {
            Outcome::Created(no, result) => self.created(no, result, actions),
            Outcome::Registered(no, result) => self.registered(no, result, actions),
            Outcome::Started(no, result) => match self.owner(no) {
                Some(container) => container.started(no, result, actions),
                // Its container was removed in the meantime.
                None => actions.push(Action::Forget(no)),
            },
            Outcome::Paused(no, result) => {
                if let Some(container) = self.by_no(no) {
                    container.paused(result, actions);
                }
            }
            Outcome::Resumed(no, result) => {
                if let Some(container) = self.by_no(no) {
                    container.resumed(result, actions);
                }
            }
            Outcome::Pids(no, token, pids) => self.pids(no, token, pids, actions),
            Outcome::Drained(no) => self.drained(no, actions),
            Outcome::Bundle(no, there) => self.bundle_checked(no, there, actions),
            Outcome::HookEnded(no, hook, end) => self.hook_ended(no, hook, end, actions),
            Outcome::Deleted(no, result) => self.deleted(no, result, actions),
            Outcome::Answered(token, result) => actions.push(Action::Reply(token, result)),
        }
    }

    fn created(&mut self, no: ContainerNo, result: Result<(u32, bool)>, actions: &mut Actions) {
        let Some(container) = self.by_no(no) else { return };
        let State::Preparing(call) = container.init.state else { return };
        match result {
            Ok((pid, private_pidns)) => {
                container.init.pid = pid;
                container.init.state = State::Created { spent: false };
                container.private_pidns = private_pidns;
                actions.push(Action::Publish(Event::Create {
                    id: container.id.clone(),
                    bundle: container.bundle.clone(),
                    rootfs: std::mem::take(&mut container.rootfs),
                    stdio: container.init.stdio.clone(),
                    pid,
                }));
                actions.push(Action::Reply(call, Ok(Answer::Pid(pid))));
                if container.delete != Delete::No {
                    actions.push(Action::Signal(container.init.no, SIGKILL, None));
                }
            }
            Err(failure) => {
                let id = container.id.clone();
                actions.push(Action::Forget(container.init.no));
                actions.push(Action::Reply(call, Err(failure)));
                if let Some(container) = self.containers.remove(&id) {
                    let gone = Failure::not_found(format!("container {id:?} was not created"));
                    for token in container.delete.tokens() {
                        actions.push(Action::Reply(token, Err(gone.clone())));
                    }
                }
                self.emptied(actions);
            }
        }
    }

    fn registered(&mut self, no: ProcessNo, result: Result<()>, actions: &mut Actions) {
        let Some(container) = self.owner(no) else { return };
        let Some(exec_id) = container.exec_id(no).map(str::to_owned) else { return };
        let Some(process) = container.process_mut(no) else { return };
        let State::Preparing(call) = process.state else { return };
        match result {
            Ok(()) => {
                process.state = State::Created { spent: false };
                let id = container.id.clone();
                actions.push(Action::Publish(Event::ExecAdded { id, exec_id }));
                actions.push(Action::Reply(call, Ok(Answer::Done)));
            }
            Err(failure) => {
                let waiters = std::mem::take(&mut process.waiters);
                container.execs.remove(&exec_id);
                actions.push(Action::Reply(call, Err(failure.clone())));
                actions.extend(waiters.into_iter().map(|t| Action::Reply(t, Err(failure.clone()))));
            }
        }
    }

    /// Adds what the kernel does not say: which exec a pid belongs to, and the
    /// init process, which counts until Delete even when it is gone (the
    /// daemon takes a task without processes for a leaked shim after a restart).
    fn pids(&mut self, no: ContainerNo, token: Token, pids: Vec<u32>, actions: &mut Actions) {
        let Some(container) = self.by_no(no) else {
            let gone = Failure::not_found("the container is gone");
            actions.push(Action::Reply(token, Err(gone)));
            return;
        };
        let init = container.init.pid;
        let rest = pids.into_iter().filter(|pid| *pid != init);
        let exec_of = |pid: u32| {
            let live = container.execs.iter().find(|(_, p)| p.pid == pid && p.exit().is_none());
            live.map(|(id, _)| id.clone())
        };
        let list = std::iter::once((init, None)).chain(rest.map(|pid| (pid, exec_of(pid))));
        let list = list.collect();
        actions.push(Action::Reply(token, Ok(Answer::Pids(list))));
    }

    fn drained(&mut self, no: ProcessNo, actions: &mut Actions) {
        let Some(container) = self.owner(no) else { return };
        let Some(exec_id) = container.exec_id(no).map(str::to_owned) else { return };
        if let Some(process) = container.execs.remove(&exec_id) {
            actions.push(Action::Forget(no));
            let answer = Answer::Deleted { pid: process.pid, exit: process.exit() };
            for token in process.deletes {
                actions.push(Action::Reply(token, Ok(answer.clone())));
            }
        }
    }

    fn deleted(&mut self, no: ContainerNo, result: Result<()>, actions: &mut Actions) {
        let Some(container) = self.by_no(no) else { return };
        let State::Ended(exit) = container.init.state else { return };
        let tokens = std::mem::replace(&mut container.delete, Delete::No).tokens();
        if let Err(failure) = result {
            // The record stays, so that the next Delete goes on from there.
            container.look_after(actions);
            actions.extend(tokens.into_iter().map(|t| Action::Reply(t, Err(failure.clone()))));
            return;
        }
        let (id, pid) = (container.id.clone(), container.init.pid);
        if let Some(container) = self.containers.remove(&id) {
            container.close(exit, actions);
        }
        actions.push(Action::Publish(Event::Delete { id, pid, exit }));
        if tokens.is_empty() && self.containers.is_empty() {
            // Those who asked are gone, and a daemon that was restarted meanwhile
            // never asks for the end of what it finds deleted.
            self.shutdown = true;
        }
        // Before the answers: a caller that starts a new shim after the answer
        // must not find the name of one that is about to end.
        self.emptied(actions);
        let answer = Answer::Deleted { pid, exit: Some(exit) };
        actions.extend(tokens.into_iter().map(|t| Action::Reply(t, Ok(answer.clone()))));
    }

    /// The caller is gone: nobody waits with this token any more. Whatever it
    /// set in motion goes on, and a late answer to it goes nowhere.
    pub(super) fn cancelled(&mut self, token: Token) {
        for container in self.containers.values_mut() {
            let processes =
                std::iter::once(&mut container.init).chain(container.execs.values_mut());
            for process in processes {
                process.waiters.retain(|t| *t != token);
            }
            if let Delete::Wanted(tokens) | Delete::Running(tokens) = &mut container.delete {
                tokens.retain(|t| *t != token);
            }
        }
    }
}

impl Container {
    pub(super) fn started(&mut self, no: ProcessNo, result: Result<u32>, actions: &mut Actions) {
        let exec_id = self.exec_id(no).map(str::to_owned);
        let is_init = exec_id.is_none();
        let id = self.id.clone();
        let Some(process) = self.process_mut(no) else { return };
        let State::Starting { call, early } = process.state else { return };
        match (result, exec_id) {
            (Ok(pid), exec_id) => {
                process.pid = pid;
                process.state = State::Running;
                actions.push(Action::Publish(match exec_id {
                    None => Event::Start { id, pid },
                    Some(exec_id) => Event::ExecStarted { id, exec_id, pid },
                }));
                actions.push(Action::Reply(call, Ok(Answer::Pid(pid))));
                if is_init {
                    self.life_begins(actions);
                }
                if let Some(exit) = early {
                    self.ended(no, exit, actions);
                }
            }
            (Err(failure), None) => {
                process.state = State::Created { spent: true };
                actions.push(Action::Reply(call, Err(failure)));
                match early {
                    Some(exit) => self.ended(no, exit, actions),
                    // Whatever is left of it must not stay behind.
                    None => actions.push(Action::Signal(no, SIGKILL, None)),
                }
            }
            (Err(failure), Some(_)) => {
                process.state = State::Ended(NEVER_RAN);
                let waiters = std::mem::take(&mut process.waiters);
                actions.push(Action::Reply(call, Err(failure)));
                let answer = Ok(Answer::Exit(NEVER_RAN));
                actions.extend(waiters.into_iter().map(|t| Action::Reply(t, answer.clone())));
                actions.push(Action::EndIo(no));
                self.exec_settled(actions);
            }
        }
    }

    fn paused(&mut self, result: Result<()>, actions: &mut Actions) {
        let Freeze::Pausing(call) = self.freeze else { return };
        let ended = self.init.exit().is_some();
        let result = match result {
            Ok(()) if ended => Err(Failure::wrong_state("the container has stopped")),
            result => result,
        };
        self.freeze = if result.is_ok() { Freeze::Paused } else { Freeze::Thawed };
        if result.is_ok() {
            actions.push(Action::Publish(Event::Paused(self.id.clone())));
        }
        if ended {
            actions.push(Action::Thaw(self.no));
        }
        actions.push(Action::Reply(call, result.map(|()| Answer::Done)));
    }

    fn resumed(&mut self, result: Result<()>, actions: &mut Actions) {
        let Freeze::Resuming(call) = self.freeze else { return };
        let ended = self.init.exit().is_some();
        self.freeze = if result.is_ok() || ended { Freeze::Thawed } else { Freeze::Paused };
        if result.is_ok() && !ended {
            actions.push(Action::Publish(Event::Resumed(self.id.clone())));
        }
        actions.push(Action::Reply(call, result.map(|()| Answer::Done)));
    }

    /// The container is gone, and its execs with it. One that was not reaped
    /// in time counts as killed together with init. A Pause or Resume that is
    /// still under way comes back to nobody, so it is answered here.
    fn close(self, init_exit: Exit, actions: &mut Actions) {
        actions.push(Action::Forget(self.init.no));
        if let Freeze::Pausing(call) | Freeze::Resuming(call) = self.freeze {
            let stopped = Failure::wrong_state("the container has stopped");
            actions.push(Action::Reply(call, Err(stopped)));
        }
        let killed = Exit { status: 128 + SIGKILL.unsigned_abs(), at: init_exit.at };
        for (exec_id, process) in self.execs {
            actions.push(Action::Forget(process.no));
            let gone =
                Failure::not_found(format!("process {exec_id:?} is gone with its container"));
            let mut wait_answer = Err(gone.clone());
            match process.state {
                State::Running => {
                    let target = Target { id: self.id.clone(), exec: Some(exec_id) };
                    let event = Event::Exit { target, pid: process.pid, exit: killed };
                    actions.push(Action::Publish(event));
                    wait_answer = Ok(Answer::Exit(killed));
                }
                State::Preparing(call) | State::Starting { call, .. } => {
                    actions.push(Action::Reply(call, Err(gone)));
                }
                State::Created { .. } | State::Ended(_) => {}
            }
            let waiters = process.waiters.into_iter();
            actions.extend(waiters.map(|t| Action::Reply(t, wait_answer.clone())));
            let answer = Answer::Deleted { pid: process.pid, exit: process.state.exit() };
            let deletes = process.deletes.into_iter();
            actions.extend(deletes.map(|t| Action::Reply(t, Ok(answer.clone()))));
        }
    }
}

impl Delete {
    pub(super) fn tokens(self) -> Vec<Token> {
        match self {
            Self::No => Vec::new(),
            Self::Wanted(tokens) | Self::Running(tokens) => tokens,
        }
    }
}
