//! Memory of a shim whose containers do nothing.

use std::time::Duration;

use rootfs_tests::Result;
use rootfs_tests::memory::Usage;

use crate::pod::Pod;
use crate::report::{Figure, Row};
use crate::rig::{Rig, Which};
use crate::stats::Bar;

/// So many shims of one kind run at once, because they share pages, as on a node. The second is
/// looked at: the first bears what is only mapped once.
const INSTANCES: usize = 3;
/// Nobody calls a shim for this long before it counts as idle.
const QUIET: Duration = Duration::from_secs(5);

/// What one shim costs: right after calls, and when nobody has called for a while.
struct Costs {
    used: Usage,
    idle: Usage,
}

pub(crate) fn run(rig: &Rig) -> Result<Vec<Row>> {
    const NO_BARS: [Bar; 3] = [Bar::None; 3];
    let mut rows = Vec::new();
    for (members, bars) in [(1, [1.5, 0.5, 2.0].map(Bar::Value)), (10, NO_BARS)] {
        let stock = second_of_three(rig, Which::Stock, members)?;
        let ours = second_of_three(rig, Which::Ours, members)?;
        let what =
            if members == 1 { "1 container".into() } else { format!("{members} containers") };
        rows.extend(figures(&format!("idle, {what}"), bars, [&stock.idle, &ours.idle]));
        let after = format!("right after calls, {what}");
        rows.extend(figures(&after, NO_BARS, [&stock.used, &ours.used]));
    }
    Ok(rows)
}

fn figures(what: &str, bars: [Bar; 3], [stock, ours]: [&Usage; 2]) -> [Row; 3] {
    let row = |name: &str, unit, bar, of: fn(&Usage) -> f64| Row {
        name: format!("{what}: {name}"),
        beside: Which::Stock.title(),
        spacing: "",
        unit,
        theirs: Figure::from(of(stock)),
        ours: Figure::from(of(ours)),
        bar,
    };
    let [set, dirty, threads] = bars;
    [
        row("proportional set size", "MiB", set, |usage| usage.pss_kib as f64 / 1024.0),
        row("private dirty", "MiB", dirty, |usage| usage.private_dirty_kib as f64 / 1024.0),
        row("threads", "", threads, |usage| usage.threads as f64),
    ]
}

fn second_of_three(rig: &Rig, which: Which, members: usize) -> Result<Costs> {
    let mut all = Vec::new();
    for _ in 0..INSTANCES {
        all.push(Pod::start(rig, which, members)?);
    }
    for pod in &mut all {
        pod.use_it()?;
    }
    let pid = all[1].shim()?;
    let used = Usage::of(pid)?;
    std::thread::sleep(QUIET);
    let idle = Usage::of(pid)?;
    all.into_iter().try_for_each(Pod::end)?;
    Ok(Costs { used, idle })
}
