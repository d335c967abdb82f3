//! Reads what a Rust test program prints: counts, failures, ignored tests,
//! and what a test itself says it left out.

/// A test that cannot do all of its work on this machine prints a line that
/// starts so; the summary repeats it, and CI does not accept it.
const LEFT_OUT: &str = "left out: ";

/// What one test program said, and which of its lines are worth showing.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) counts: Counts,
    /// What tests said they left out, and why.
    pub(crate) left_out: Vec<String>,
    in_successes: bool,
}

impl Report {
    /// Takes one line; true when people should see it. The captured output of
    /// tests that passed is read but not shown.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        self.counts.read(line);
        if let Some(what) = line.strip_prefix(LEFT_OUT) {
            self.left_out.push(what.to_owned());
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ if line.starts_with("test result: ") => self.in_successes = false,
            _ => {}
        }
        !self.in_successes && !line.is_empty()
    }
}

/// The sum of what one or more test programs reported.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Tests not run, with the reason their `#[ignore]` gives.
    pub(crate) ignored: Vec<String>,
    /// Names of failed tests.
    pub(crate) failures: Vec<String>,
    /// Programs that reached their `test result:` line.
    pub(crate) finished: usize,
}

impl Counts {
    /// Takes one line of a program's output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.finished += 1;
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            return;
        }
        let Some((name, outcome)) = line.strip_prefix("test ").and_then(|l| l.split_once(" ... "))
        else {
            return;
        };
        if outcome.starts_with("FAILED") {
            self.failures.push(name.trim_end().to_owned());
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "no reason given" } else { reason };
            self.ignored.push(format!("{}: {reason}", name.trim_end()));
        }
    }

    /// Adds what another program reported.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.finished += other.finished;
        self.ignored.extend(other.ignored);
        self.failures.extend(other.failures);
    }
}

fn number_before(text: &str, word: &str) -> usize {
    text.split_once(word)
        .and_then(|(head, _)| head.rsplit([' ', ';']).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_passed_tests_is_read_but_not_shown() {
        let mut report = Report::default();
        let shown: Vec<&str> = [
            "test a ... ok",
            "successes:",
            "---- a stdout ----",
            "left out: psi: this kernel has none",
            "failures:",
            "---- b stdout ----",
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ]
        .into_iter()
        .filter(|line| report.read(line))
        .collect();
        assert_eq!(shown.len(), 4, "{shown:?}");
        assert_eq!(report.left_out, ["psi: this kernel has none"]);
        assert_eq!(report.counts.passed, 1);
    }

    #[test]
    fn counts_failures_and_ignored_tests_with_reasons() {
        let mut counts = Counts::default();
        for line in [
            "running 4 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test a::d ... ignored, needs a kernel with x",
            "test a::e ... ignored",
            "a line of a test that says test result in the middle",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.1s",
        ] {
            counts.read(line);
        }
        assert_eq!(
            counts,
            Counts {
                passed: 12,
                failed: 1,
                ignored: vec!["a::d: needs a kernel with x".into(), "a::e: no reason given".into()],
                failures: vec!["a::c".into()],
                finished: 1,
            }
        );
    }
}
