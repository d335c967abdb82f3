//! The lines of the comparison.

use rootfs_tests::memory::Usage;
use std::time::Duration;

/// Prints one line per step and keeps the sums.
pub(crate) struct Table {
    ours: Duration,
    stock: Duration,
}

impl Table {
    /// Prints the head.
    pub(crate) fn new() -> Self {
        println!("\n  {:<44} {:>9} {:>10}", "", "boathook", "runc shim");
        Self { ours: Duration::ZERO, stock: Duration::ZERO }
    }

    /// One step and what came of it on boathook.
    pub(crate) fn line(&mut self, name: &str, ours: Duration, stock: Duration, seen: &str) {
        self.ours += ours;
        self.stock += stock;
        println!("  {name:<44} {} {}   {seen}", cell(ours, 9), cell(stock, 10));
    }

    /// The sums.
    pub(crate) fn total(&self) {
        let share = self.ours.as_secs_f64() / self.stock.as_secs_f64();
        println!(
            "  {:<44} {} {}   {share:.2} of the time",
            "all of it",
            cell(self.ours, 9),
            cell(self.stock, 10)
        );
    }

    /// What the two shims cost while their pods did nothing.
    pub(crate) fn memory(&self, ours: Usage, stock: Usage) {
        let mib = |usage: Usage| usage.pss_kib as f64 / 1024.0;
        println!(
            "  {:<44} {:>9.1} {:>10.1}   {} threads beside {}",
            "memory of the pod's shim (PSS, MiB)",
            mib(ours),
            mib(stock),
            ours.threads,
            stock.threads
        );
    }
}

fn cell(time: Duration, width: usize) -> String {
    format!("{:>width$.1}", time.as_secs_f64() * 1e3)
}
