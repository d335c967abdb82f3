//! What a process costs in memory, as the kernel accounts for it.

use std::fs;

use crate::error::{Context, Error, Result};

/// Memory and threads of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Proportional set size in KiB: its own pages, and its share of the shared ones.
    pub pss_kib: u64,
    /// Pages nobody else has and that cannot be dropped, in KiB.
    pub private_dirty_kib: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// Reads `smaps_rollup` (kernel 4.14) and `status`.
    ///
    /// # Errors
    /// The process is gone, or this process may not look at it.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).during(|| format!("read {path}"))
        };
        Self::parse(&read("smaps_rollup")?, &read("status")?)
    }

    fn parse(rollup: &str, status: &str) -> Result<Self> {
        Ok(Self {
            pss_kib: field(rollup, "Pss")?,
            private_dirty_kib: field(rollup, "Private_Dirty")?,
            threads: field(status, "Threads")?,
        })
    }
}

fn field(text: &str, name: &str) -> Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Error::Format {
            what: "the kernel's account of a process".into(),
            why: format!("no number for {name}"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLLUP: &str = "5581e000-7ffd9 ---p 00000000 00:00 0 [rollup]\nRss: 1492 kB\n\
        Pss:   588 kB\nPss_Dirty: 150 kB\nPrivate_Clean: 20 kB\nPrivate_Dirty:  140 kB\n";

    #[test]
    fn the_right_lines_are_taken() {
        let usage = Usage::parse(ROLLUP, "Name:\tshim\nThreads:\t1\n").unwrap();
        assert_eq!(usage, Usage { pss_kib: 588, private_dirty_kib: 140, threads: 1 });
    }

    #[test]
    fn a_missing_line_is_named() {
        let error = Usage::parse(ROLLUP, "Name:\tshim\n").unwrap_err().to_string();
        assert!(error.contains("Threads"), "{error}");
    }

    #[test]
    fn this_process_has_memory_and_a_thread() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.pss_kib > 0 && usage.threads > 0, "{usage:?}");
    }
}
