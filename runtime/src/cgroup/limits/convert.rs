//! v1 values as v2 wants them; pure arithmetic.

/// `cpu.weight` for OCI's `cpu.shares` (2–262144), by the curve that runc 1.3.2,
/// crun 1.23 and youki share: log-quadratic through (2, 1), (1024, 100),
/// (262144, 10000). 0 means "unset" and gives `None`.
pub(crate) fn cpu_weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            // Exact: shares is below 2^18.
            #[allow(clippy::cast_precision_loss, reason = "below 2^18")]
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1–10000")]
            let weight = 10f64.powf(exponent).ceil() as u64;
            Some(weight)
        }
    }
}

/// `io.weight` (1–10000) for OCI's `blockIO.weight` (10–1000).
pub(crate) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

/// `memory.swap.max` for OCI's `memory.swap`, which counts memory plus swap.
/// Both are checked before: −1 is "no limit", a swap without a limit is refused.
pub(crate) fn swap_max(swap: i64, limit: i64) -> i64 {
    if swap < 0 { -1 } else { swap - limit }
}

/// A byte count as v2 writes it: −1 is `max`.
pub(crate) fn max_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_curve() {
        let table = [
            (2, 1),
            (102, 17),
            (256, 35),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (10240, 639),
            (262_144, 10_000),
            (u64::MAX, 10_000),
            (1, 1),
        ];
        for (shares, weight) in table {
            assert_eq!(cpu_weight(shares), Some(weight), "{shares}");
        }
        assert_eq!(cpu_weight(0), None);
    }

    #[test]
    fn shares_never_fall_with_rising_input_and_stay_in_range() {
        let mut last = 0;
        for shares in 1..=262_144 {
            let weight = cpu_weight(shares).unwrap();
            assert!((1..=10_000).contains(&weight) && weight >= last, "{shares}: {weight}");
            last = weight;
        }
    }

    #[test]
    fn block_weight_ends_map_to_ends() {
        assert_eq!((io_weight(10), io_weight(500), io_weight(1000)), (1, 4950, 10_000));
    }

    #[test]
    fn swap_is_what_exceeds_memory() {
        assert_eq!(swap_max(300, 100), 200);
        assert_eq!(swap_max(100, 100), 0);
        assert_eq!(swap_max(-1, 100), -1);
        assert_eq!((max_or(-1), max_or(0), max_or(7)), ("max".into(), "0".into(), "7".into()));
    }
}
