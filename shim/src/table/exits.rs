//! Exits: their order, what follows from them, and the removal at the end.

use super::container::{Container, Delete, Freeze, State};
use super::{
    Action, Actions, Answer, BARRIER_LIMIT, ContainerNo, Event, Exit, MAX_ENDED_EXECS,
    ORPHAN_INTERVAL, ProcessNo, Table, Timer,
};

impl Table {
    /// A process was reaped. One that is still being started keeps its exit
    /// until the start is known, so that the events have their order.
    pub(super) fn exited(&mut self, no: ProcessNo, exit: Exit, actions: &mut Actions) {
        let Some(container) = self.owner(no) else { return };
        let Some(process) = container.process_mut(no) else { return };
        match &mut process.state {
            State::Starting { early, .. } => {
                *early = Some(exit);
                container.life_cut_short(no, actions);
            }
            // The failed start of an exec has ended it already.
            State::Ended(_) => {}
            State::Preparing(_) | State::Created { .. } | State::Running => {
                container.ended(no, exit, actions);
            }
        }
    }

    pub(super) fn barrier_over(&mut self, no: ContainerNo, actions: &mut Actions) {
        if let Some(container) = self.by_no(no) {
            container.release_init(actions);
        }
    }
}

impl Table {
    pub(super) fn orphan(&mut self, no: ContainerNo, actions: &mut Actions) {
        if let Some(container) = self.by_no(no) {
            container.looked_after = false;
            actions.push(Action::CheckBundle(no));
        }
    }

    /// A container without a bundle is one that the daemon has forgotten: it
    /// is removed as if somebody had asked for it.
    pub(super) fn bundle_checked(&mut self, no: ContainerNo, there: bool, actions: &mut Actions) {
        match self.by_no(no) {
            Some(container) if !there && container.delete == Delete::No => {
                container.delete = Delete::Wanted(Vec::new());
                container.delete_if_due(actions);
            }
            Some(container) => container.look_after(actions),
            None => {}
        }
    }
}

impl Container {
    /// Looks again at an ended container after a while.
    pub(super) fn look_after(&mut self, actions: &mut Actions) {
        if !std::mem::replace(&mut self.looked_after, true) {
            actions.push(Action::Arm(Timer::Orphan(self.no), ORPHAN_INTERVAL));
        }
    }

    /// Records the end of a process and tells of it when its turn has come.
    pub(super) fn ended(&mut self, no: ProcessNo, exit: Exit, actions: &mut Actions) {
        let is_init = self.init.no == no;
        if let Some(process) = self.process_mut(no) {
            process.state = State::Ended(exit);
        }
        if is_init {
            self.init_ended(exit, actions);
        } else {
            self.exec_ended(no, exit, actions);
        }
    }

    fn init_ended(&mut self, exit: Exit, actions: &mut Actions) {
        actions.push(Action::Record(self.no, exit));
        self.life_ends(exit.status, actions);
        actions.push(Action::EndIo(self.init.no));
        if self.frozen() {
            actions.push(Action::Thaw(self.no));
        }
        if let Freeze::Paused = self.freeze {
            self.freeze = Freeze::Thawed;
        }
        if !self.private_pidns {
            actions.push(Action::KillRest(self.no));
        }
        self.barrier = true;
        if self.execs_alive() {
            actions.push(Action::Arm(Timer::Barrier(self.no), BARRIER_LIMIT));
        } else {
            self.release_init(actions);
        }
    }

    fn exec_ended(&mut self, no: ProcessNo, exit: Exit, actions: &mut Actions) {
        actions.push(Action::EndIo(no));
        self.tell(no, exit, actions);
        if let Some(life) = &mut self.life {
            life.exec_ended(no);
        }
        self.exits_seen += 1;
        let order = self.exits_seen;
        if let Some(process) = self.process_mut(no) {
            process.exit_order = order;
        }
        self.forget_oldest(actions);
        self.exec_settled(actions);
    }

    /// An exec has stopped being alive; it may have been the last one that
    /// init's exit was waiting for.
    pub(super) fn exec_settled(&mut self, actions: &mut Actions) {
        if self.barrier && !self.execs_alive() {
            self.release_init(actions);
        }
    }

    /// Init's exit may be told now.
    fn release_init(&mut self, actions: &mut Actions) {
        let State::Ended(exit) = self.init.state else { return };
        if std::mem::replace(&mut self.barrier, false) {
            self.tell(self.init.no, exit, actions);
            self.look_after(actions);
            self.delete_if_due(actions);
        }
    }

    fn tell(&mut self, no: ProcessNo, exit: Exit, actions: &mut Actions) {
        let target = self.target(no);
        if let Some(process) = self.process_mut(no) {
            let pid = process.pid;
            actions.push(Action::Publish(Event::Exit { target, pid, exit }));
            let waiters = std::mem::take(&mut process.waiters);
            actions.extend(waiters.into_iter().map(|t| Action::Reply(t, Ok(Answer::Exit(exit)))));
        }
    }

    /// Callers that gave up on an exec never delete it.
    fn forget_oldest(&mut self, actions: &mut Actions) {
        let idle = |p: &super::Process| p.exit().is_some() && p.deletes.is_empty();
        while self.execs.values().filter(|p| idle(p)).count() > MAX_ENDED_EXECS {
            let oldest =
                self.execs.iter().filter(|(_, p)| idle(p)).min_by_key(|(_, p)| p.exit_order);
            let Some((id, no)) = oldest.map(|(id, p)| (id.clone(), p.no)) else { return };
            self.execs.remove(&id);
            actions.push(Action::Forget(no));
        }
    }

    /// Starts the removal if it is wanted and nothing has to happen before it.
    pub(super) fn delete_if_due(&mut self, actions: &mut Actions) {
        if let (true, Delete::Wanted(tokens)) = (self.exit_told(), &mut self.delete) {
            self.delete = Delete::Running(std::mem::take(tokens));
            actions.push(Action::Delete(self.no));
        }
    }
}
