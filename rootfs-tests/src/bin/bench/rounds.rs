//! Taking turns: every round measures both shims, the first one alternating.

use std::thread;
use std::time::{Duration, Instant};

use rootfs_tests::{Error, Result};

use crate::report::Row;
use crate::rig::Which;
use crate::stats::{Bar, Samples};

/// How measurements follow each other.
///
/// A machine that starts a container now and then behaves differently from one that starts them
/// without a pause: caches are cold, and the kernel's grace periods are not under way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spacing {
    BackToBack,
    Apart,
}

impl Spacing {
    pub(crate) const BOTH: [Self; 2] = [Self::BackToBack, Self::Apart];
    const GAP: Duration = Duration::from_millis(200);
    /// Rounds before the first that counts.
    pub(crate) const WARM_UP: usize = 3;

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::BackToBack => "back to back",
            Self::Apart => "200 ms apart",
        }
    }

    /// The pause is what is being measured under, not a wait for anything.
    pub(crate) fn pause(self) {
        if self == Self::Apart {
            thread::sleep(Self::GAP);
        }
    }
}

/// Times of the parts of one measurement; the row is their sum.
pub(crate) type Laps = Vec<(&'static str, Duration)>;

/// What is measured, and against what.
pub(crate) struct Match<'a> {
    pub(crate) name: &'a str,
    /// What ours is held against.
    pub(crate) other: Which,
    /// For the sum of the parts.
    pub(crate) bar: Bar,
    /// For parts of their own name.
    pub(crate) part_bars: &'a [(&'static str, Bar)],
    pub(crate) spacing: Spacing,
    pub(crate) rounds: usize,
}

/// Measures all rounds on both and makes a row of them, and one of each part.
pub(crate) fn measure(
    what: &Match<'_>,
    mut once: impl FnMut(Which) -> Result<Laps>,
) -> Result<Vec<Row>> {
    let mut theirs = Side::default();
    let mut ours = Side::default();
    for round in 0..what.rounds + Spacing::WARM_UP {
        let order = [what.other, Which::Ours];
        let turn = round % 2;
        for which in [order[turn], order[1 - turn]] {
            what.spacing.pause();
            let failed = |e| Error::check(format!("{} with {}: {e}", what.name, which.title()));
            let laps = once(which).map_err(failed)?;
            if round >= Spacing::WARM_UP {
                let side = if which == Which::Ours { &mut ours } else { &mut theirs };
                side.add(&laps);
            }
        }
    }
    Ok(rows(what, &theirs, &ours))
}

fn rows(what: &Match<'_>, theirs: &Side, ours: &Side) -> Vec<Row> {
    let row = |name: String, bar, theirs: &Samples, ours: &Samples| Row {
        name,
        beside: what.other.title(),
        spacing: what.spacing.text(),
        unit: "ms",
        theirs: theirs.into(),
        ours: ours.into(),
        bar,
    };
    let mut rows = vec![row(what.name.to_owned(), what.bar, &theirs.sum, &ours.sum)];
    if ours.parts.len() > 1 {
        let bar_of = |part: &str| {
            what.part_bars.iter().find(|(name, _)| *name == part).map_or(Bar::None, |(_, bar)| *bar)
        };
        let parts = theirs.parts.iter().zip(&ours.parts);
        rows.extend(parts.map(|((part, t), (_, o))| row(format!("… {part}"), bar_of(part), t, o)));
    }
    rows
}

#[derive(Default)]
struct Side {
    sum: Samples,
    parts: Vec<(&'static str, Samples)>,
}

impl Side {
    fn add(&mut self, laps: &Laps) {
        self.sum.push(laps.iter().map(|(_, time)| *time).sum());
        for (name, time) in laps {
            match self.parts.iter_mut().find(|(known, _)| known == name) {
                Some((_, samples)) => samples.push(*time),
                None => {
                    let mut samples = Samples::default();
                    samples.push(*time);
                    self.parts.push((name, samples));
                }
            }
        }
    }
}

/// Does something and notes the time under `name`.
pub(crate) fn lap<T>(
    laps: &mut Laps,
    name: &'static str,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    let value = work()?;
    laps.push((name, start.elapsed()));
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn match_of(rounds: usize) -> Match<'static> {
        let spacing = Spacing::BackToBack;
        let bar = Bar::Share(0.5);
        Match { name: "x", other: Which::Stock, bar, part_bars: &[], spacing, rounds }
    }

    #[test]
    fn both_are_measured_equally_often_and_each_goes_first_half_of_the_time() {
        let mut order = Vec::new();
        let what = Match { part_bars: &[("b", Bar::Share(0.2))], ..match_of(4) };
        let rows = measure(&what, |which| {
            order.push(which);
            let time = if which == Which::Ours { 1 } else { 4 };
            Ok(vec![("a", Duration::from_millis(time)), ("b", Duration::from_millis(time))])
        })
        .unwrap();
        let firsts: Vec<_> = order.iter().step_by(2).collect();
        assert_eq!(order.len(), 2 * (4 + Spacing::WARM_UP));
        assert_eq!(firsts.iter().filter(|w| ***w == Which::Ours).count(), firsts.len() / 2);
        let names: Vec<&str> = rows.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["x", "… a", "… b"]);
        assert_eq!((rows[0].theirs.median, rows[0].ours.median), (8.0, 2.0));
        assert_eq!([0, 1, 2].map(|n: usize| rows[n].missed()), [false, false, true]);
    }

    #[test]
    fn an_error_ends_the_measurement() {
        let failed = measure(&match_of(1), |_| Err(rootfs_tests::Error::check("no")));
        assert!(failed.is_err());
    }
}
