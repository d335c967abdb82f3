//! Memory of a shim whose container does nothing.

use rootfs_tests::Result;
use rootfs_tests::memory::Usage;

use crate::report::{Figure, Row};
use crate::rig::{Rig, Which};
use crate::scenarios::{end_sleeper, one_exec, sleeper};
use crate::stats::Bar;

/// So many shims of one kind run at once, because they share pages, as on a node. The second is
/// looked at: the first bears what is only mapped once.
const INSTANCES: usize = 3;
/// What each has done before, so that the figure is not that of a process fresh from its start.
const EXECS: usize = 10;
const CALLS: usize = 100;

pub(crate) fn run(rig: &Rig) -> Result<Vec<Row>> {
    let stock = second_of_three(rig, Which::Stock)?;
    let ours = second_of_three(rig, Which::Ours)?;
    let row = |name: &str, unit, bar, of: fn(&Usage) -> f64| Row {
        name: name.to_owned(),
        spacing: "",
        unit,
        stock: Figure::from(of(&stock)),
        ours: Figure::from(of(&ours)),
        bar: Bar::Value(bar),
    };
    Ok(vec![
        row("idle: proportional set size", "MiB", 1.5, |usage| usage.pss_kib as f64 / 1024.0),
        row("idle: private dirty", "MiB", 0.5, |usage| usage.private_dirty_kib as f64 / 1024.0),
        row("idle: threads", "", 2.0, |usage| usage.threads as f64),
    ])
}

fn second_of_three(rig: &Rig, which: Which) -> Result<Usage> {
    let mut all = Vec::new();
    for _ in 0..INSTANCES {
        all.push(sleeper(rig, which)?);
    }
    let mut usages = Vec::new();
    for (served, container) in &mut all {
        for number in 0..EXECS {
            one_exec(served, &container.id, &format!("e{number}"))?;
        }
        for _ in 0..CALLS {
            served.task.state(&container.id, "")?;
        }
        let pid = served.task.connect(&container.id)?.shim_pid;
        usages.push(Usage::of(pid)?);
    }
    all.into_iter().try_for_each(end_sleeper)?;
    Ok(usages[1])
}
