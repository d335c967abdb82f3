//! The two test tiers: unit, and `root_*` with real daemons on a real kernel.
//!
//! The tier of a test program is its file name. Root programs run one after the
//! other, each with one thread: they look at the whole machine (mounts,
//! cgroups, processes) to prove that nothing is left behind.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::apt;
use crate::args::Selection;
use crate::binaries::{self, TestProgram};
use crate::error::Error;
use crate::libtest::{Counts, Report};
use crate::process::{self, Ended};
use crate::summary::Tier;
use crate::vm::tier::NODE;

/// Time for one program of the unit tier; a hang must not hold CI for ever.
const UNIT_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Time for one program of the root tier.
const ROOT_LIMIT: Duration = Duration::from_secs(25 * 60);

/// Runs the selected tiers and prints what ran and what did not.
pub(crate) fn test(selection: &Selection) -> Result<(), Error> {
    if selection.root {
        apt::require_root(
            if selection.unit { "test" } else { "test --root" },
            "the root tier makes namespaces, cgroups and mounts and starts its own containerd; \
             `cargo xtask test --unit` works without",
        )?;
    }
    apt::ensure(apt::BUILD)?;
    let programs = binaries::test_programs()?;
    let mut tiers = Vec::new();
    if selection.unit {
        tiers.push(unit(&programs, selection.name.as_deref())?);
    }
    if selection.root {
        tiers.push(root(&programs, selection.name.as_deref())?);
    }
    finish(&tiers, selection)
}

fn finish(tiers: &[Tier], selection: &Selection) -> Result<(), Error> {
    println!("\n== summary");
    for tier in tiers {
        print!("{tier}");
    }
    for (name, chosen) in [("unit", selection.unit), ("root", selection.root)] {
        if !chosen {
            println!("{name} tier: not asked for");
        }
    }
    let strict = std::env::var_os("CI").is_some_and(|v| v == "true");
    if let Some(problem) = tiers.iter().find_map(|t| t.problem(strict)) {
        return Err(Error::failed(problem));
    }
    if tiers.iter().all(|t| t.counts.passed == 0) {
        let name = selection.name.as_deref().unwrap_or_default();
        return Err(Error::failed(format!("no test has {name:?} in its name")));
    }
    Ok(())
}

fn unit(programs: &[TestProgram], name: Option<&str>) -> Result<Tier, Error> {
    let mut tier = Tier::new("unit");
    for program in programs.iter().filter(|p| !p.needs_root()) {
        let mut command = program.command();
        command.args(filter(program, name));
        run(&mut tier, &program.name, &mut command, UNIT_LIMIT)?;
    }
    let mut docs = process::cargo(&["test", "--quiet", "--workspace", "--doc", "--"]);
    docs.args(name);
    run(&mut tier, "documentation examples", &mut docs, UNIT_LIMIT)?;
    Ok(tier)
}

fn root(programs: &[TestProgram], name: Option<&str>) -> Result<Tier, Error> {
    apt::ensure(apt::ROOT)?;
    let release = binaries::release()?;
    let mut tier = Tier::new("root");
    for program in programs.iter().filter(|p| p.needs_root()) {
        let mut command = program.command();
        command.args(["--test-threads=1", "--show-output", "--skip", NODE]);
        command.args(filter(program, name));
        run(&mut tier, &program.name, release.announce(&mut command), ROOT_LIMIT)?;
    }
    Ok(tier)
}

/// A name that is part of the file's name asks for the whole file.
fn filter<'a>(program: &TestProgram, name: Option<&'a str>) -> Option<&'a str> {
    name.filter(|n| !program.target.contains(n))
}

fn run(tier: &mut Tier, name: &str, command: &mut Command, limit: Duration) -> Result<(), Error> {
    println!("\n== {} tier: {name}", tier.name);
    let start = Instant::now();
    let mut report = Report::default();
    let ended = process::watch(command, limit, |line| {
        if report.read(line) {
            println!("{line}");
        }
    })?;
    let problem = match ended {
        Ended::Overdue => Some(format!("killed after {} s without an end", limit.as_secs())),
        Ended::Exited(status) => verdict(&report.counts, status),
    };
    tier.add(name, report, start.elapsed(), problem);
    Ok(())
}

/// A program is fine when it exited with 0 *and* reported a result: one that
/// ends early with 0 has not run its tests.
fn verdict(counts: &Counts, status: std::process::ExitStatus) -> Option<String> {
    if counts.failed > 0 {
        return Some(format!("failed: {}", counts.failures.join(", ")));
    }
    if !status.success() {
        return Some(format!("ended with {status}"));
    }
    (counts.finished == 0).then(|| "ended without a test result".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn program(target: &str) -> TestProgram {
        TestProgram {
            name: target.into(),
            target: target.into(),
            package_dir: "/".into(),
            executable: "/bin/true".into(),
        }
    }

    #[test]
    fn a_file_name_selects_the_file_and_other_names_select_tests() {
        assert_eq!(filter(&program("root_ctr"), Some("ctr")), None);
        assert_eq!(filter(&program("root_ctr"), Some("pause")), Some("pause"));
        assert_eq!(filter(&program("root_ctr"), None), None);
    }

    #[test]
    fn only_a_reported_success_counts() {
        let good = Counts { passed: 1, finished: 1, ..Counts::default() };
        assert_eq!(verdict(&good, ExitStatus::from_raw(0)), None);
        assert!(verdict(&good, ExitStatus::from_raw(256)).is_some());
        assert!(verdict(&Counts::default(), ExitStatus::from_raw(0)).is_some());
    }

    #[test]
    fn a_program_that_dies_without_a_word_is_a_problem_of_its_tier() {
        let mut tier = Tier::new("unit");
        let mut command = Command::new("sh");
        command.args(["-c", "kill -9 $$"]);
        run(&mut tier, "dies", &mut command, Duration::from_secs(60)).unwrap();
        assert!(tier.problem(false).is_some_and(|p| p.contains("dies")));
    }
}
