//! Medians, percentiles and the bars they are held against.

use std::time::Duration;

/// Measured times, in milliseconds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e3);
    }

    /// The middle value, in milliseconds.
    pub(crate) fn median(&self) -> f64 {
        self.rank(0.5)
    }

    /// Nine in ten are not above it, in milliseconds.
    pub(crate) fn p90(&self) -> f64 {
        self.rank(0.9)
    }

    /// The nearest-rank percentile: a value that was measured, never a mean of two.
    fn rank(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let index = (share * sorted.len() as f64).ceil().max(1.0) as usize - 1;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }
}

/// What a figure must not exceed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    /// A share of the other's figure.
    Share(f64),
    /// A figure of its own, in the row's unit.
    Value(f64),
    /// Nothing was promised; the figure is there to be seen.
    None,
}

impl Bar {
    /// Whether `ours` is within the bar; `None` where there is no bar.
    pub(crate) fn holds(self, theirs: f64, ours: f64) -> Option<bool> {
        match self {
            Self::Share(share) => Some(ours <= share * theirs),
            Self::Value(value) => Some(ours <= value),
            Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::default();
        for value in values {
            samples.push(Duration::from_millis(value));
        }
        samples
    }

    #[test]
    fn percentiles_are_measured_values_in_any_order() {
        let all = samples((1..=10).rev());
        assert_eq!(all.median(), 5.0);
        assert_eq!(all.p90(), 9.0);
        assert_eq!(samples([7]).p90(), 7.0);
        assert!(samples([]).median().is_nan());
    }

    #[test]
    fn bars_compare_shares_and_values() {
        assert_eq!(Bar::Share(0.35).holds(100.0, 35.0), Some(true));
        assert_eq!(Bar::Share(0.35).holds(100.0, 35.1), Some(false));
        assert_eq!(Bar::Value(2.0).holds(12.0, 3.0), Some(false));
        assert_eq!(Bar::None.holds(1.0, 2.0), None);
        assert_eq!(Bar::Share(0.35).holds(f64::NAN, 1.0), Some(false));
    }
}
