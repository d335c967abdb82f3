//! What is measured.

use rootfs_tests::containerd::{BOATHOOK, Daemon, RUNC};
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::packages::Release;
use rootfs_tests::{Result, ensure_eq};

use crate::idle;
use crate::report::Row;
use crate::rig::{Container, Rig, Served, Which};
use crate::rounds::{Laps, Spacing, lap, measure};
use crate::stats::Bar;

/// One measurement that can be asked for by name.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Rig) -> Result<Vec<Row>>,
}

/// In the order of the table.
pub(crate) const ALL: &[Scenario] = &[
    Scenario { name: "task", what: "Create, Start, Wait, Delete over one connection", run: task },
    Scenario { name: "start", what: "the shim itself, until it answers", run: start },
    Scenario { name: "exec", what: "a process in a running container", run: exec },
    Scenario { name: "ctr", what: "ctr run --rm under containerd", run: ctr },
    Scenario { name: "idle", what: "memory while the container sleeps", run: idle::run },
];

/// One of each kind, on the stock shim and on ours.
struct Pair<T> {
    stock: T,
    ours: T,
}

impl<T> Pair<T> {
    fn make(mut of: impl FnMut(Which) -> Result<T>) -> Result<Self> {
        Ok(Self { stock: of(Which::Stock)?, ours: of(Which::Ours)? })
    }

    fn get(&mut self, which: Which) -> &mut T {
        match which {
            Which::Stock => &mut self.stock,
            Which::Ours => &mut self.ours,
        }
    }

    fn each(self, mut work: impl FnMut(T) -> Result<()>) -> Result<()> {
        work(self.stock)?;
        work(self.ours)
    }
}

/// Both shims serve all rounds, beside a container that sleeps: as in one pod, whose pause
/// container keeps the shim there.
fn task(rig: &Rig) -> Result<Vec<Row>> {
    let mut pods = Pair::make(|which| sleeper(rig, which))?;
    let mut rows = Vec::new();
    for spacing in Spacing::BOTH {
        let name = "Create+Start+Wait+Delete";
        rows.extend(measure(name, Bar::Share(0.35), spacing, rig.rounds, |which| {
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

fn one_task(served: &mut Served, container: &Container) -> Result<Laps> {
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
fn start(rig: &Rig) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for spacing in Spacing::BOTH {
        let name = "start of the shim, to its first answer";
        rows.extend(measure(name, Bar::None, spacing, rig.rounds, |which| {
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

fn exec(rig: &Rig) -> Result<Vec<Row>> {
    let mut pods = Pair::make(|which| sleeper(rig, which))?;
    let mut number = 0;
    let mut rows = Vec::new();
    for spacing in Spacing::BOTH {
        let name = "exec: Exec+Start+Wait+Delete";
        rows.extend(measure(name, Bar::Share(0.4), spacing, rig.rounds, |which| {
            number += 1;
            let (served, container) = pods.get(which);
            one_exec(served, &container.id, &format!("e{number}"))
        })?);
    }
    pods.each(end_sleeper)?;
    Ok(rows)
}

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

/// A shim with one container that sleeps.
pub(crate) fn sleeper(rig: &Rig, which: Which) -> Result<(Served, Container)> {
    let container = rig.container(which, &["sleep", "1000000"])?;
    let mut served = rig.serve(which, &container)?;
    served.create(&container)?;
    served.task.start(&container.id, "")?;
    Ok((served, container))
}

/// Ends what [`sleeper`] began.
pub(crate) fn end_sleeper((mut served, container): (Served, Container)) -> Result<()> {
    const SIGKILL: u32 = 9;
    let id = container.id.as_str();
    let pending = served.task.wait(id, "")?;
    served.task.kill(id, "", SIGKILL, false)?;
    served.task.ended(&pending)?;
    served.task.delete(id, "")?;
    served.shim.end()?;
    container.remove()
}

fn ctr(rig: &Rig) -> Result<Vec<Row>> {
    const NAMESPACE: &str = "bench";
    let daemon = Daemon::start(Release::Bookworm)?;
    daemon.import(NAMESPACE)?;
    let ctr = daemon.ctr(NAMESPACE);
    let mut number = 0;
    let mut rows = Vec::new();
    for spacing in Spacing::BOTH {
        let measured = measure("ctr run --rm", Bar::Share(0.6), spacing, rig.rounds, |which| {
            number += 1;
            let id = format!("boathook-bench-ctr-{number}");
            let cgroup = format!("/{id}");
            let runtime = if which == Which::Stock { RUNC } else { BOATHOOK };
            let args = [
                "run",
                "--rm",
                "--runtime",
                runtime,
                "--cgroup",
                &cgroup,
                BUSYBOX,
                &id,
                "/bin/true",
            ];
            let mut laps = Laps::new();
            lap(&mut laps, "run", || ctr.ok(&args))?;
            Ok(laps)
        });
        // The daemon's own words are lost when its directory goes.
        rows.extend(measured.map_err(|error| {
            rootfs_tests::Error::check(format!("{error}\n{}", daemon.log_tail()))
        })?);
    }
    daemon.end()?;
    Ok(rows)
}
