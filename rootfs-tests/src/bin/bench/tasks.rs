//! The calls that containerd makes, over one connection to a shim.

use rootfs_tests::{Result, ensure_eq};

use crate::report::Row;
use crate::rig::{Container, Rig, Served, Which};
use crate::rounds::{Laps, Match, Spacing, lap, measure};
use crate::stats::Bar;

/// One of each kind, on the other shim and on ours.
struct Pair<T> {
    theirs: T,
    ours: T,
}

impl<T> Pair<T> {
    fn make(other: Which, mut of: impl FnMut(Which) -> Result<T>) -> Result<Self> {
        Ok(Self { theirs: of(other)?, ours: of(Which::Ours)? })
    }

    fn get(&mut self, which: Which) -> &mut T {
        if which == Which::Ours { &mut self.ours } else { &mut self.theirs }
    }

    fn each(self, mut work: impl FnMut(T) -> Result<()>) -> Result<()> {
        work(self.theirs)?;
        work(self.ours)
    }
}

/// All shims that are there, the stock one first.
fn others(rig: &Rig) -> impl Iterator<Item = Which> {
    let rust = rig.rust_shim.as_ref().map(|_| Which::Rust);
    [Which::Stock, Which::Crun].into_iter().chain(rust)
}

/// A bar was promised beside the stock shim only.
fn bar(other: Which, share: f64) -> Bar {
    if other == Which::Stock { Bar::Share(share) } else { Bar::None }
}

/// Both shims serve all rounds, beside a container that sleeps: as in one pod, whose pause
/// container keeps the shim there.
pub(crate) fn task(rig: &Rig) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for other in others(rig) {
        match beside(rig, other) {
            Ok(measured) => rows.extend(measured),
            // Its faults are not ours: it has been seen to leave calls without an answer.
            Err(error) if other == Which::Rust => rig.left_out(&error)?,
            Err(error) => return Err(error),
        }
    }
    Ok(rows)
}

fn beside(rig: &Rig, other: Which) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut pods = Pair::make(other, |which| sleeper(rig, which))?;
    for spacing in Spacing::BOTH {
        let name = "Create+Start+Wait+Delete";
        let bar = bar(other, 0.35);
        let what = Match { name, other, bar, part_bars: &[], spacing, rounds: rig.rounds };
        rows.extend(measure(&what, |which| {
            let container = rig.container(which, &["/bin/true"])?;
            let (served, _) = pods.get(which);
            let laps = one_task(served, &container)?;
            container.remove()?;
            Ok(laps)
        })?);
    }
    pods.each(end_sleeper)?;
    Ok(rows)
}

/// The life of one container.
pub(crate) fn one_task(served: &mut Served, container: &Container) -> Result<Laps> {
    let id = container.id.as_str();
    let mut laps = Laps::new();
    lap(&mut laps, "Create", || served.create(container))?;
    let task = &mut served.task;
    lap(&mut laps, "Start", || task.start(id, ""))?;
    let status = lap(&mut laps, "Wait", || {
        let pending = task.wait(id, "")?;
        task.ended(&pending)
    })?;
    ensure_eq!(status, 0, "exit status of {id}");
    lap(&mut laps, "Delete", || task.delete(id, ""))?;
    Ok(laps)
}

/// From the execution of the binary to the first answer of the server behind it.
pub(crate) fn start(rig: &Rig) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for spacing in Spacing::BOTH {
        let name = "start of the shim, to its first answer";
        let (other, rounds) = (Which::Stock, rig.rounds);
        let what = Match { name, other, bar: Bar::None, part_bars: &[], spacing, rounds };
        rows.extend(measure(&what, |which| {
            let container = rig.container(which, &["/bin/true"])?;
            let mut laps = Laps::new();
            let mut served = lap(&mut laps, name, || {
                let mut served = rig.serve(which, &container)?;
                served.task.connect(&container.id)?;
                Ok(served)
            })?;
            // The stock shim's clean-up fails for a container that never was.
            one_task(&mut served, &container)?;
            served.shim.end()?;
            container.remove()?;
            Ok(laps)
        })?);
    }
    Ok(rows)
}

pub(crate) fn exec(rig: &Rig) -> Result<Vec<Row>> {
    let mut number = 0;
    let mut rows = Vec::new();
    for other in [Which::Stock, Which::Crun] {
        let mut pods = Pair::make(other, |which| sleeper(rig, which))?;
        for spacing in Spacing::BOTH {
            let name = "exec: Exec+Start+Wait+Delete";
            let bar = bar(other, 0.4);
            let what = Match { name, other, bar, part_bars: &[], spacing, rounds: rig.rounds };
            rows.extend(measure(&what, |which| {
                number += 1;
                let (served, container) = pods.get(which);
                one_exec(served, &container.id, &format!("e{number}"))
            })?);
        }
        pods.each(end_sleeper)?;
    }
    Ok(rows)
}

/// The life of one process in a running container.
pub(crate) fn one_exec(served: &mut Served, id: &str, exec: &str) -> Result<Laps> {
    let task = &mut served.task;
    let mut laps = Laps::new();
    lap(&mut laps, "Exec", || task.exec(id, exec, &["/bin/true"]))?;
    lap(&mut laps, "Start", || task.start(id, exec))?;
    let status = lap(&mut laps, "Wait", || {
        let pending = task.wait(id, exec)?;
        task.ended(&pending)
    })?;
    ensure_eq!(status, 0, "exit status of exec {exec}");
    lap(&mut laps, "Delete", || task.delete(id, exec))?;
    Ok(laps)
}

/// A container that sleeps does this.
pub(crate) const SLEEP: [&str; 2] = ["sleep", "1000000"];

/// A shim with one container that sleeps.
pub(crate) fn sleeper(rig: &Rig, which: Which) -> Result<(Served, Container)> {
    let container = rig.container(which, &SLEEP)?;
    let mut served = rig.serve(which, &container)?;
    begin_sleep(&mut served, &container)?;
    Ok((served, container))
}

/// Creates and starts a container in a shim that serves.
pub(crate) fn begin_sleep(served: &mut Served, container: &Container) -> Result<()> {
    served.create(container)?;
    served.task.start(&container.id, "").map(drop)
}

/// Ends what [`sleeper`] began. The shim's `delete` works in the container's directory.
pub(crate) fn end_sleeper((mut served, container): (Served, Container)) -> Result<()> {
    stop_sleep(&mut served, &container)?;
    served.shim.end()?;
    container.remove()
}

/// Ends what [`begin_sleep`] began, but for its directory.
pub(crate) fn stop_sleep(served: &mut Served, container: &Container) -> Result<()> {
    const SIGKILL: u32 = 9;
    let id = container.id.as_str();
    let pending = served.task.wait(id, "")?;
    served.task.kill(id, "", SIGKILL, false)?;
    served.task.ended(&pending)?;
    served.task.delete(id, "").map(drop)
}
