//! Calls: what each may do in which state.

use boathook_hooks::record::Hook;

use super::container::{Container, Delete, Freeze, State};
use super::{
    Action, Actions, Answer, Command, ContainerNo, CreateRequest, ExecRequest, Failure, Result,
    Table, Target, Token, must_live, process,
};
use crate::failure::ErrorKind;

const SIGKILL: i32 = 9;
/// The highest signal number of Linux (signal(7)).
const MAX_SIGNAL: i32 = 64;

impl Table {
    pub(super) fn call(&mut self, token: Token, command: Command, actions: &mut Actions) {
        let result = match command {
            Command::Create(request) => self.create(token, request, actions),
            Command::Start(target) => self.start(token, &target, actions),
            Command::State(target) => self.state(token, &target, actions),
            Command::Wait(target) => self.wait(token, &target, actions),
            Command::Delete(target) => self.delete(token, &target, actions),
            Command::Kill { target, signal, all } => {
                self.kill(token, &target, signal, all, actions)
            }
            Command::Exec(request) => self.exec(token, *request, actions),
            Command::Pids(id) => self.ready(&id).map(|c| actions.push(Action::Pids(c.no, token))),
            Command::Stats(id) => self.ready(&id).map(|c| actions.push(Action::Stats(c.no, token))),
            Command::Pause(id) => self.pause(token, &id, actions),
            Command::Resume(id) => self.resume(token, &id, actions),
            Command::Resize { target, width, height } => {
                self.resize(token, &target, (width, height), actions)
            }
            Command::CloseStdin { target, close } => {
                self.close_stdin(token, &target, close, actions)
            }
            Command::Update { id, resources } => self.update(token, &id, resources, actions),
            Command::Connect(id) => {
                let pid = self.containers.get(&id).map_or(0, |c| c.init.pid);
                reply(actions, token, Answer::Pid(pid))
            }
            Command::Shutdown => {
                self.shutdown = true;
                if self.containers.is_empty() {
                    self.stop(actions);
                }
                reply(actions, token, Answer::Done)
            }
        };
        if let Err(failure) = result {
            actions.push(Action::Reply(token, Err(failure)));
        }
    }

    fn create(
        &mut self,
        token: Token,
        request: Box<CreateRequest>,
        actions: &mut Actions,
    ) -> Result<()> {
        if self.stopped {
            return Err(Failure::wrong_state("this shim is shutting down"));
        }
        if self.containers.contains_key(&request.id) {
            return Err(Failure::new(
                ErrorKind::AlreadyExists,
                format!("container {:?} exists", request.id),
            ));
        }
        self.next_container += 1;
        let no = ContainerNo(self.next_container);
        let init = self.new_process(request.stdio.clone(), token);
        actions.push(Action::Create(no, init.no, request.clone()));
        let container = Container {
            no,
            id: request.id.clone(),
            bundle: request.bundle,
            rootfs: request.rootfs,
            init,
            execs: Default::default(),
            freeze: Freeze::Thawed,
            private_pidns: false,
            barrier: false,
            delete: Delete::No,
            looked_after: false,
            exits_seen: 0,
            life: None,
        };
        // Any armed idle clock belongs to an older generation from here on.
        self.idle_generation += 1;
        self.containers.insert(request.id, container);
        Ok(())
    }

    fn exec(&mut self, token: Token, request: ExecRequest, actions: &mut Actions) -> Result<()> {
        let container = self.ready(&request.id)?;
        must_live(container, "exec")?;
        must_be_thawed(container, "exec")?;
        if container.execs.contains_key(&request.exec_id) {
            return Err(Failure::new(
                ErrorKind::AlreadyExists,
                format!("container {:?} has a process {:?} already", request.id, request.exec_id),
            ));
        }
        let process = self.new_process(request.stdio, token);
        if let Some(container) = self.containers.get_mut(&request.id) {
            if let Some(life) = &mut container.life {
                life.watch_exec(process.no, &request.spec);
            }
            actions.push(Action::Register(process.no, request.spec));
            container.execs.insert(request.exec_id, process);
        }
        Ok(())
    }

    fn start(&mut self, token: Token, target: &Target, actions: &mut Actions) -> Result<()> {
        let container = self.ready(&target.id)?;
        must_live(container, "start")?;
        must_be_thawed(container, "start")?;
        let no = container.no;
        let process = process(container, target.exec.as_deref())?;
        match process.state {
            State::Created { spent: false } => {}
            State::Created { spent: true } => {
                return Err(Failure::wrong_state("cannot start: an earlier start failed"));
            }
            State::Preparing(_) => return Err(Failure::wrong_state("cannot start: not ready yet")),
            State::Starting { .. } | State::Running => {
                return Err(Failure::wrong_state("cannot start: the process is already running"));
            }
            State::Ended(_) => {
                return Err(Failure::wrong_state("cannot start: the process has already ended"));
            }
        }
        process.state = State::Starting { call: token, early: None };
        if target.exec.is_none()
            && let Some(life) = container.life.as_mut().filter(|life| life.holds_init())
        {
            life.held = true;
            container.run_hook(Hook::PostStart, actions);
            return Ok(());
        }
        let process = super::process(container, target.exec.as_deref())?;
        actions.push(match &target.exec {
            None => Action::Start(process.no),
            Some(id) => Action::StartExec(no, process.no, id.clone(), process.stdio.clone()),
        });
        Ok(())
    }

    fn state(&mut self, token: Token, target: &Target, actions: &mut Actions) -> Result<()> {
        let container = self.ready(&target.id)?;
        let no = process(container, target.exec.as_deref())?.no;
        match container.process(no) {
            Some(process) => {
                let answer = container.state_of(process);
                reply(actions, token, Answer::State(Box::new(answer)))
            }
            None => Err(Failure::not_found("the process is gone")),
        }
    }

    fn wait(&mut self, token: Token, target: &Target, actions: &mut Actions) -> Result<()> {
        let container = self.ready(&target.id)?;
        let held_back = container.barrier && target.exec.is_none();
        let process = process(container, target.exec.as_deref())?;
        match process.state {
            State::Ended(exit) if !held_back => reply(actions, token, Answer::Exit(exit)),
            _ => {
                process.waiters.push(token);
                Ok(())
            }
        }
    }

    fn delete(&mut self, token: Token, target: &Target, actions: &mut Actions) -> Result<()> {
        match &target.exec {
            Some(exec) => self.delete_exec(token, &target.id, exec, actions),
            None => self.delete_container(token, &target.id, actions),
        }
    }

    fn delete_exec(
        &mut self,
        token: Token,
        id: &str,
        exec: &str,
        actions: &mut Actions,
    ) -> Result<()> {
        let container = self.ready(id)?;
        let process = process(container, Some(exec))?;
        match process.state {
            State::Starting { .. } | State::Running | State::Preparing(_) => {
                Err(Failure::wrong_state(format!("cannot delete: process {exec:?} is running")))
            }
            State::Created { .. } => {
                let gone = Failure::not_found(format!("process {exec:?} was never started"));
                for waiter in std::mem::take(&mut process.waiters) {
                    actions.push(Action::Reply(waiter, Err(gone.clone())));
                }
                actions.push(Action::Forget(process.no));
                container.execs.remove(exec);
                reply(actions, token, Answer::Deleted { pid: 0, exit: None })
            }
            State::Ended(_) => {
                process.deletes.push(token);
                if process.deletes.len() == 1 {
                    actions.push(Action::Drain(process.no));
                }
                Ok(())
            }
        }
    }

    /// Deleting the container of a Create that is still running, or whose
    /// caller gave up on it, is how containerd cleans up: the Create is ended,
    /// and the answer waits for that. A container that was never started is
    /// killed first.
    fn delete_container(&mut self, token: Token, id: &str, actions: &mut Actions) -> Result<()> {
        let Some(container) = self.containers.get_mut(id) else {
            return Err(Failure::not_found(format!("container {id:?} does not exist")));
        };
        let first = match container.init.state {
            State::Starting { .. } | State::Running => {
                return Err(Failure::wrong_state(format!(
                    "cannot delete: container {id:?} is running"
                )));
            }
            State::Created { .. } => Some(Action::Signal(container.init.no, SIGKILL, None)),
            State::Preparing(_) => Some(Action::AbortCreate(container.no)),
            State::Ended(_) => None,
        };
        match &mut container.delete {
            Delete::Wanted(tokens) | Delete::Running(tokens) => tokens.push(token),
            Delete::No => {
                container.delete = Delete::Wanted(vec![token]);
                actions.extend(first);
                container.delete_if_due(actions);
            }
        }
        Ok(())
    }

    fn kill(
        &mut self,
        token: Token,
        target: &Target,
        signal: i32,
        all: bool,
        actions: &mut Actions,
    ) -> Result<()> {
        if !(1..=MAX_SIGNAL).contains(&signal) {
            return Err(Failure::invalid(format!("signal: {signal} is not a signal number")));
        }
        let container = self.ready(&target.id)?;
        let is_init = target.exec.is_none();
        if is_init && container.takes_signal(signal, all, actions) {
            return reply(actions, token, Answer::Done);
        }
        let frozen = container.frozen();
        let no = container.no;
        let held = container.life.as_ref().is_some_and(|life| life.held);
        let process = process(container, target.exec.as_deref())?;
        let signal = match process.state {
            State::Ended(_) => return Err(Failure::not_found("the process has already ended")),
            State::Created { .. } if is_init => held_back(signal),
            State::Starting { .. } if is_init && held => {
                actions.push(Action::EndHooks(no));
                held_back(signal)
            }
            State::Starting { .. } if is_init => signal,
            State::Running => signal,
            State::Preparing(_) | State::Created { .. } | State::Starting { .. } => {
                return Err(Failure::wrong_state("cannot kill: the process is not started"));
            }
        };
        actions.push(match all && is_init {
            true => Action::SignalAll(no, signal, Some(token)),
            false => Action::Signal(process.no, signal, Some(token)),
        });
        if signal == SIGKILL && frozen && is_init {
            // On cgroup v1 a frozen process does not even die.
            actions.push(Action::Thaw(no));
        }
        Ok(())
    }

    fn pause(&mut self, token: Token, id: &str, actions: &mut Actions) -> Result<()> {
        let container = self.ready(id)?;
        must_live(container, "pause")?;
        match (&container.init.state, container.freeze) {
            (State::Running, Freeze::Thawed) => {
                container.freeze = Freeze::Pausing(token);
                actions.push(Action::Pause(container.no));
                Ok(())
            }
            (State::Running, _) => {
                Err(Failure::wrong_state(format!("cannot pause: container {id:?} is paused")))
            }
            _ => {
                Err(Failure::wrong_state(format!("cannot pause: container {id:?} is not running")))
            }
        }
    }

    fn resume(&mut self, token: Token, id: &str, actions: &mut Actions) -> Result<()> {
        let container = self.ready(id)?;
        must_live(container, "resume")?;
        if container.freeze != Freeze::Paused {
            let text = format!("cannot resume: container {id:?} is not paused");
            return Err(Failure::wrong_state(text));
        }
        container.freeze = Freeze::Resuming(token);
        actions.push(Action::Resume(container.no));
        Ok(())
    }

    fn resize(
        &mut self,
        token: Token,
        target: &Target,
        (width, height): (u16, u16),
        actions: &mut Actions,
    ) -> Result<()> {
        let container = self.ready(&target.id)?;
        let process = process(container, target.exec.as_deref())?;
        if process.stdio.terminal && process.pid != 0 && process.exit().is_none() {
            actions.push(Action::Resize(process.no, width, height, token));
            return Ok(());
        }
        reply(actions, token, Answer::Done)
    }

    fn close_stdin(
        &mut self,
        token: Token,
        target: &Target,
        close: bool,
        actions: &mut Actions,
    ) -> Result<()> {
        let container = self.ready(&target.id)?;
        let process = process(container, target.exec.as_deref())?;
        if close {
            actions.push(Action::CloseStdin(process.no));
        }
        reply(actions, token, Answer::Done)
    }

    fn update(
        &mut self,
        token: Token,
        id: &str,
        resources: Vec<u8>,
        actions: &mut Actions,
    ) -> Result<()> {
        let container = self.ready(id)?;
        if container.init.exit().is_some() {
            return Err(Failure::not_found(format!("cannot update: container {id:?} is stopped")));
        }
        actions.push(Action::Update(container.no, resources, token));
        Ok(())
    }
}

/// A held-back init ignores the polite signals, as it is the init of a pid
/// namespace. runc's init leaves on them, and callers count on it: a container
/// that is told to go before it was started goes.
fn held_back(signal: i32) -> i32 {
    /// SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH:
    /// the default action is not to end.
    const HARMLESS: [i32; 8] = [17, 18, 19, 20, 21, 22, 23, 28];
    if HARMLESS.contains(&signal) { signal } else { SIGKILL }
}

fn must_be_thawed(container: &Container, doing: &str) -> Result<()> {
    if container.frozen() {
        let text = format!("cannot {doing}: container {:?} is paused", container.id);
        return Err(Failure::wrong_state(text));
    }
    Ok(())
}

fn reply(actions: &mut Actions, token: Token, answer: Answer) -> Result<()> {
    actions.push(Action::Reply(token, Ok(answer)));
    Ok(())
}
