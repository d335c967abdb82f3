//! What a tier did, and what it left out and why.

use std::fmt;
use std::time::Duration;

use crate::libtest::{Counts, Report};

/// The sum over the programs of one tier.
pub(crate) struct Tier {
    pub(crate) name: &'static str,
    pub(crate) counts: Counts,
    programs: usize,
    time: Duration,
    left_out: Vec<String>,
    problems: Vec<String>,
}

impl Tier {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            counts: Counts::default(),
            programs: 0,
            time: Duration::ZERO,
            left_out: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Adds one program that was run.
    pub(crate) fn add(
        &mut self,
        program: &str,
        report: Report,
        time: Duration,
        problem: Option<String>,
    ) {
        self.programs += 1;
        self.time += time;
        self.left_out.extend(report.counts.ignored.iter().map(|i| format!("{program}: {i}")));
        self.left_out.extend(report.left_out.iter().map(|l| format!("{program}: {l}")));
        self.counts.add(report.counts);
        self.problems.extend(problem.map(|p| format!("{program}: {p}")));
    }

    /// Why this tier is not green, if it is not. A strict caller (CI) accepts
    /// nothing that was left out.
    pub(crate) fn problem(&self, strict: bool) -> Option<String> {
        if !self.problems.is_empty() {
            return Some(format!("{} tier: {}", self.name, self.problems.join("; ")));
        }
        (strict && !self.left_out.is_empty())
            .then(|| format!("{} tier: CI must leave nothing out, see the summary", self.name))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} tier: {} programs, {} tests passed, {} failed, {} s",
            self.name,
            self.programs,
            self.counts.passed,
            self.counts.failed,
            self.time.as_secs()
        )?;
        for line in &self.problems {
            writeln!(f, "  FAILED    {line}")?;
        }
        for line in &self.left_out {
            writeln!(f, "  left out  {line}")?;
        }
        if self.left_out.is_empty() {
            writeln!(f, "  left out: nothing")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(problem: Option<&str>, ignored: &[&str]) -> Tier {
        let mut report = Report::default();
        report.counts.ignored = ignored.iter().map(|&s| s.to_owned()).collect();
        let mut tier = Tier::new("root");
        tier.add("p", report, Duration::from_secs(1), problem.map(str::to_owned));
        tier
    }

    #[test]
    fn what_is_left_out_is_shown_and_fails_ci_only() {
        let tier = tier(None, &["a: no such kernel"]);
        assert!(tier.to_string().contains("left out  p: a: no such kernel"));
        assert_eq!(tier.problem(false), None);
        assert!(tier.problem(true).is_some());
    }

    #[test]
    fn a_problem_fails_everywhere_and_is_named() {
        let tier = tier(Some("failed: x"), &[]);
        assert!(tier.problem(false).is_some_and(|p| p.contains("p: failed: x")));
        assert!(tier.to_string().contains("FAILED    p: failed: x"));
    }
}
