//! `cargo xtask fuzz`: builds the targets of `fuzz/` once and runs each for a
//! while, as many at a time as there are CPUs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::apt;
use crate::args::Fuzzing;
use crate::binaries::target_dir;
use crate::error::Error;
use crate::process::{self, Ended, cargo, workspace};
use crate::tools::Tool;

/// In the version that the targets are built with.
const CARGO_FUZZ: Tool =
    Tool { package: "cargo-fuzz", version: "0.13.2", program: "cargo-fuzz", release: false };
/// The sanitizers are switched on by flags that only this compiler has.
const TOOLCHAIN: &str = "nightly";
/// Time for one input, in seconds; the slowest takes milliseconds.
const INPUT_LIMIT: u32 = 20;
/// Time on top of the asked-for seconds, for reading the corpus and ending.
const GRACE: Duration = Duration::from_secs(120);
/// Lines of a failed target that are shown.
const TAIL: usize = 60;

/// Builds and runs what is asked for.
///
/// # Errors
/// A target that does not exist, does not build, or found something.
pub(crate) fn run(wanted: &Fuzzing) -> Result<(), Error> {
    let targets = chosen(names()?, wanted.target.as_deref())?;
    apt::ensure(apt::BUILD)?;
    apt::ensure(apt::FUZZ)?;
    toolchain()?;
    build()?;
    match (&wanted.input, &targets[..]) {
        (Some(input), [target]) => repeat(target, input),
        _ => all(&targets, wanted.seconds),
    }
}

/// The format of the targets, which are no part of the workspace.
pub(crate) fn format() -> Result<(), Error> {
    process::run(cargo(&["fmt", "--check"]).current_dir(dir()))
}

/// Clippy on the targets. What they use of the crates is there with the flag that `cargo fuzz`
/// gives, and the compiler of everything else is good enough to check it.
pub(crate) fn lint() -> Result<(), Error> {
    let mut command = cargo(&["clippy", "--locked", "--all-targets", "--target-dir"]);
    command.arg(target_dir().join("fuzz-lint")).args(["--", "-D", "warnings"]);
    process::run(command.current_dir(dir()).env("RUSTFLAGS", "--cfg fuzzing"))
}

fn dir() -> PathBuf {
    workspace().join("fuzz")
}

/// The targets in the order of the manifest.
fn names() -> Result<Vec<String>, Error> {
    let mut command = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let json = process::capture(command.current_dir(dir()))?;
    let metadata: serde_json::Value = serde_json::from_str(&json)
        .map_err(|e| Error::failed(format!("`{}`: {e}", process::shown(&command))))?;
    let targets = metadata["packages"][0]["targets"].as_array().cloned().unwrap_or_default();
    let programs = targets.iter().filter(|target| target["kind"][0] == "bin");
    Ok(programs.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}

fn chosen(names: Vec<String>, wanted: Option<&str>) -> Result<Vec<String>, Error> {
    let Some(wanted) = wanted else { return Ok(names) };
    if names.iter().any(|name| name == wanted) {
        return Ok(vec![wanted.to_owned()]);
    }
    let there = names.join(", ");
    Err(Error::Usage(format!("fuzz: there is no target {wanted:?}; there are {there}")))
}

/// Makes sure that there is a nightly compiler.
fn toolchain() -> Result<(), Error> {
    if !process::in_path("rustup") {
        let problem = "fuzzing needs a nightly compiler, and there is no rustup to run it with";
        return Err(Error::failed(problem));
    }
    if process::capture(&mut nightly("rustc".as_ref(), &["--version"])).is_ok() {
        return Ok(());
    }
    println!("missing: the {TOOLCHAIN} toolchain; fetching it through rustup");
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", TOOLCHAIN, "--profile", "minimal"]);
    process::run(&mut install)
}

/// `program` with the nightly compiler behind it, whatever started us.
fn nightly(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN]).arg(program).args(args).current_dir(workspace());
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_TARGET_DIR"] {
        command.env_remove(name);
    }
    command
}

fn build() -> Result<(), Error> {
    let tool = CARGO_FUZZ.get()?;
    let mut command = nightly(&tool, &["build", "--fuzz-dir", "fuzz", "--target", &triple()]);
    process::run(command.arg("--target-dir").arg(built()))
}

fn built() -> PathBuf {
    target_dir().join("fuzz")
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// The program of a target, with what every run of it needs.
fn program(target: &str) -> Command {
    let mut command = Command::new(built().join(triple()).join("release").join(target));
    command.current_dir(workspace());
    command.args([format!("-timeout={INPUT_LIMIT}"), "-rss_limit_mb=1024".to_owned()]);
    command
}

fn repeat(target: &str, input: &Path) -> Result<(), Error> {
    let here = std::env::current_dir().unwrap_or_default();
    process::run(program(target).arg(here.join(input)))
}

/// What one target's run came to.
struct Outcome {
    /// One line for people.
    line: String,
    /// Whether it found nothing.
    fine: bool,
}

fn all(targets: &[String], seconds: u64) -> Result<(), Error> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    println!("{} targets, {seconds} s each, {workers} at a time", targets.len());
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    let failure = thread::scope(|scope| {
        let work = || -> Result<(), Error> {
            while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = one(target, seconds)?;
                println!("{}", outcome.line);
                outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
            }
            Ok(())
        };
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().find_map(|worker| match worker.join() {
            Ok(result) => result.err(),
            Err(_) => Some(Error::failed("a thread of the fuzz step panicked")),
        })
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    match outcomes.iter().filter(|outcome| !outcome.fine).count() {
        0 => Ok(()),
        n => Err(Error::failed(format!("{n} of {} fuzz targets found something", outcomes.len()))),
    }
}

/// Runs one target and says what came of it.
fn one(target: &str, seconds: u64) -> Result<Outcome, Error> {
    let corpus = built().join("corpus").join(target);
    let artifacts = dir().join("artifacts").join(target);
    for directory in [&corpus, &artifacts] {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::failed(format!("{}: {e}", directory.display())))?;
    }
    let mut command = program(target);
    command.arg(format!("-max_total_time={seconds}")).arg("-print_final_stats=1");
    if std::env::var_os("CI").is_some_and(|v| v == "true") {
        // The same inputs for the same tree: a change is judged by itself, not by luck. Runs by
        // hand go elsewhere every time.
        command.arg("-seed=1");
    }
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let words = dir().join("dictionaries").join(format!("{target}.dict"));
    if words.is_file() {
        command.arg(format!("-dict={}", words.display()));
    }
    // What is new goes into the first directory.
    command.arg(&corpus).arg(dir().join("seeds").join(target));
    let mut lines = Vec::new();
    let limit = Duration::from_secs(seconds) + GRACE;
    let ended = process::watch(&mut command, limit, |line| lines.push(line.to_owned()))?;
    Ok(outcome(target, &ended, &lines))
}

/// A target is fine when it ended by itself, with 0, *and* says how many inputs
/// it ran: one that ends early with 0 has not fuzzed.
fn outcome(target: &str, ended: &Ended, lines: &[String]) -> Outcome {
    let after = |start: &str| lines.iter().rev().find_map(|line| line.split_once(start));
    let runs = after("stat::number_of_executed_units:")
        .and_then(|(_, number)| number.trim().parse::<u64>().ok())
        .unwrap_or(0);
    if matches!(ended, Ended::Exited(status) if status.success()) && runs > 0 {
        let line = format!("fuzz: {target}: {runs} inputs, nothing found");
        return Outcome { line, fine: true };
    }
    let how = match ended {
        Ended::Exited(status) => format!("ended with {status} after {runs} inputs"),
        Ended::Overdue => "did not end in time and was killed".to_owned(),
    };
    let mut line = format!("fuzz: {target}: {how}\n");
    for text in lines.iter().skip(lines.len().saturating_sub(TAIL)) {
        let _ = writeln!(line, "  {text}");
    }
    if let Some((_, path)) = after("Test unit written to ") {
        let _ = writeln!(line, "fuzz: {target}: the input is {path}; to repeat it:");
        let _ = writeln!(line, "  cargo xtask fuzz --target {target} --input {path}");
    }
    Outcome { line, fine: false }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn exited(raw: i32) -> Ended {
        Ended::Exited(ExitStatus::from_raw(raw))
    }

    #[test]
    fn only_inputs_that_ran_to_a_good_end_count() {
        let ran = lines("stat::number_of_executed_units: 123\nDone");
        assert!(outcome("t", &exited(0), &ran).fine);
        assert!(outcome("t", &exited(0), &ran).line.contains("123 inputs"));
        for (ended, lines) in [
            (exited(0), lines("")),
            (exited(0), lines("stat::number_of_executed_units: 0")),
            (exited(77 << 8), ran.clone()),
            (exited(9), ran.clone()),
            (Ended::Overdue, ran),
        ] {
            assert!(!outcome("t", &ended, &lines).fine);
        }
    }

    #[test]
    fn a_find_says_how_to_repeat_it() {
        let text = "panicked at x\nartifact_prefix='/w/'; Test unit written to /w/crash-1";
        let line = outcome("init", &exited(77 << 8), &lines(text)).line;
        assert!(line.contains("panicked at x"), "{line}");
        assert!(line.ends_with("  cargo xtask fuzz --target init --input /w/crash-1\n"), "{line}");
    }

    #[test]
    fn an_unknown_target_is_told_which_there_are() {
        let names = || vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(chosen(names(), None).unwrap(), names());
        assert_eq!(chosen(names(), Some("b")).unwrap(), ["b"]);
        let error = chosen(names(), Some("c")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("\"c\"; there are a, b"), "{error}");
    }
}
