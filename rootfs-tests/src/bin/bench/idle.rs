//! Memory of a shim whose containers do nothing.

use rootfs_tests::Result;
use rootfs_tests::memory::Usage;

use crate::pod::Pod;
use crate::report::{Figure, Row};
use crate::rig::{Rig, Which};
use crate::stats::Bar;

/// So many shims of one kind run at once, because they share pages, as on a node. The second is
/// looked at: the first bears what is only mapped once.
const INSTANCES: usize = 3;
pub(crate) fn run(rig: &Rig) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (members, bars) in [(1, [1.5, 0.5, 2.0].map(Bar::Value)), (10, [Bar::None; 3])] {
        let stock = second_of_three(rig, Which::Stock, members)?;
        let ours = second_of_three(rig, Which::Ours, members)?;
        let what =
            if members == 1 { "1 container".into() } else { format!("{members} containers") };
        let row = |name: &str, unit, bar, of: fn(&Usage) -> f64| Row {
            name: format!("idle, {what}: {name}"),
            beside: Which::Stock.title(),
            spacing: "",
            unit,
            theirs: Figure::from(of(&stock)),
            ours: Figure::from(of(&ours)),
            bar,
        };
        rows.extend([
            row("proportional set size", "MiB", bars[0], |usage| usage.pss_kib as f64 / 1024.0),
            row("private dirty", "MiB", bars[1], |usage| usage.private_dirty_kib as f64 / 1024.0),
            row("threads", "", bars[2], |usage| usage.threads as f64),
        ]);
    }
    Ok(rows)
}

fn second_of_three(rig: &Rig, which: Which, members: usize) -> Result<Usage> {
    let mut all = Vec::new();
    for _ in 0..INSTANCES {
        all.push(Pod::start(rig, which, members)?);
    }
    let mut usages = Vec::new();
    for pod in &mut all {
        pod.use_it()?;
        usages.push(pod.usage()?);
    }
    all.into_iter().try_for_each(Pod::end)?;
    Ok(usages[1])
}
