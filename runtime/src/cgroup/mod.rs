//! Control groups, by directory descriptor: v1, hybrid and v2 as siblings.

pub mod stats;

pub use stats::Stats;
