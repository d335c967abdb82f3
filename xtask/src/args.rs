//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::vm::{CgroupMode, Suite, Wanted, Work};

/// Shown by `cargo xtask help` and after a wrong command line.
pub(crate) const USAGE: &str = "\
usage: cargo xtask <command>

  demo                          a pod on boathook under a private containerd, step by step,
                                with the cost of each step on the runc shim beside it
  test [--unit|--root] [NAME]   unit tier and root tier; NAME keeps the tests (or the test
                                files) with NAME in their names
  bench [--rounds N] [--only NAME]
                                measures boathook against the runc shim and writes
                                docs/benchmarks.md
  fuzz [--seconds N] [--target NAME] [--input FILE]
                                feeds what boathook reads from others with broken input, each
                                target for N seconds (60); FILE repeats one input of NAME
  vm [--suite S | --all] [--cgroup M] [--minutes N] [--append ARGS]
     [NAME | --shell | -- COMMAND...]
                                boots a Debian node (S: bookworm, trixie, sid; M: v1, hybrid, v2;
                                ARGS for its kernel) and runs the vm tier there, the tests with
                                NAME in their names, a command, or a shell; KVM where a guest
                                boots under it
  ci                            format, lints, dependencies, docs, all test tiers, then fuzz
  deny                          licences, sources and bans of the dependencies

demo, test --root, bench, vm and ci need root, and install what they need through apt.";

/// One parsed command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Test(Selection),
    /// Arguments go to the demo program as they are.
    Demo(Vec<String>),
    /// Arguments go to the bench program as they are.
    Bench(Vec<String>),
    Fuzz(Fuzzing),
    Vm(Wanted),
    Ci,
    Deny,
}

/// What to fuzz.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fuzzing {
    /// For how long each target runs.
    pub(crate) seconds: u64,
    /// One target only.
    pub(crate) target: Option<String>,
    /// One input only, of that target.
    pub(crate) input: Option<PathBuf>,
}

impl Default for Fuzzing {
    fn default() -> Self {
        Self { seconds: 60, target: None, input: None }
    }
}

/// Which tests to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) unit: bool,
    pub(crate) root: bool,
    pub(crate) name: Option<String>,
}

impl Selection {
    pub(crate) fn everything() -> Self {
        Self { unit: true, root: true, name: None }
    }
}

pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Command, Error> {
    let args: Vec<String> = args.collect();
    let Some((command, rest)) = args.split_first() else {
        return Err(usage("no command given"));
    };
    match command.as_str() {
        "help" | "--help" | "-h" => Ok(Command::Help),
        "test" => selection(rest).map(Command::Test),
        "demo" => Ok(Command::Demo(rest.to_vec())),
        "bench" => Ok(Command::Bench(rest.to_vec())),
        "fuzz" => fuzzing(rest).map(Command::Fuzz),
        "vm" => vm(rest).map(Command::Vm),
        "ci" => nothing_after("ci", rest, Command::Ci),
        "deny" => nothing_after("deny", rest, Command::Deny),
        other => Err(usage(&format!("unknown command {other:?}"))),
    }
}

fn vm(rest: &[String]) -> Result<Wanted, Error> {
    let Wanted { mut suites, mut cgroup, mut work, mut limit, mut append } = Wanted::default();
    let mut rest = rest.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().map(String::as_str).unwrap_or_default();
        match arg.as_str() {
            "--all" => suites = Suite::ALL.to_vec(),
            "--suite" => suites = vec![known("--suite", value(), Suite::parse)?],
            "--cgroup" => cgroup = known("--cgroup", value(), CgroupMode::parse)?,
            "--minutes" => {
                let minutes: u64 = known("--minutes", value(), |text| text.parse().ok())?;
                limit = Duration::from_secs(60 * minutes);
            }
            "--append" => append = Some(known("--append", value(), |text| Some(text.to_owned()))?),
            "--shell" => work = Work::Shell,
            "--" => {
                work = Work::Command(rest.by_ref().cloned().collect());
                if work == Work::Command(Vec::new()) {
                    return Err(usage("vm: no command after --"));
                }
            }
            flag if flag.starts_with('-') => {
                return Err(usage(&format!("vm: unknown option {flag:?}")));
            }
            name if work == Work::Tests(None) => work = Work::Tests(Some(name.to_owned())),
            more => return Err(usage(&format!("vm: what is {more:?}?"))),
        }
    }
    Ok(Wanted { suites, cgroup, work, limit, append })
}

fn known<T>(option: &str, text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
    parse(text).ok_or_else(|| usage(&format!("vm: {option}: {text:?} is none that is known")))
}

fn selection(rest: &[String]) -> Result<Selection, Error> {
    let (mut unit, mut root, mut name) = (false, false, None);
    for arg in rest {
        match arg.as_str() {
            "--unit" => unit = true,
            "--root" => root = true,
            flag if flag.starts_with('-') => {
                return Err(usage(&format!("test: unknown option {flag:?}")));
            }
            text if name.is_none() => name = Some(text.to_owned()),
            text => {
                return Err(usage(&format!("test: one NAME at most, {text:?} is one too many")));
            }
        }
    }
    if !unit && !root {
        (unit, root) = (true, true);
    }
    Ok(Selection { unit, root, name })
}

fn fuzzing(rest: &[String]) -> Result<Fuzzing, Error> {
    let mut wanted = Fuzzing::default();
    let mut rest = rest.iter();
    while let Some(option) = rest.next() {
        let mut value =
            || rest.next().ok_or_else(|| usage(&format!("fuzz: {option} needs a value")));
        match option.as_str() {
            "--seconds" => {
                let text = value()?;
                wanted.seconds = text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                    usage(&format!("fuzz: --seconds {text:?} is not a positive number"))
                })?;
            }
            "--target" => wanted.target = Some(value()?.clone()),
            "--input" => wanted.input = Some(value()?.into()),
            other => return Err(usage(&format!("fuzz: unknown option {other:?}"))),
        }
    }
    if wanted.input.is_some() && wanted.target.is_none() {
        return Err(usage("fuzz: --input needs the --target that it is for"));
    }
    Ok(wanted)
}

fn nothing_after(name: &str, rest: &[String], command: Command) -> Result<Command, Error> {
    match rest.first() {
        None => Ok(command),
        Some(extra) => Err(usage(&format!("{name}: takes no arguments, got {extra:?}"))),
    }
}

fn usage(problem: &str) -> Error {
    Error::Usage(format!("{problem}\n\n{USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, Error> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn test_without_a_tier_means_both() {
        assert_eq!(parsed("test").unwrap(), Command::Test(Selection::everything()));
    }

    #[test]
    fn one_tier_excludes_the_other_and_keeps_the_name() {
        let want = Selection { unit: false, root: true, name: Some("ctr".into()) };
        assert_eq!(parsed("test --root ctr").unwrap(), Command::Test(want));
    }

    #[test]
    fn fuzz_without_options_is_what_ci_runs() {
        assert_eq!(parsed("fuzz").unwrap(), Command::Fuzz(Fuzzing::default()));
        let want = Fuzzing { seconds: 5, target: Some("init".into()), input: None };
        assert_eq!(parsed("fuzz --target init --seconds 5").unwrap(), Command::Fuzz(want));
    }

    #[test]
    fn wrong_lines_name_the_word_that_is_wrong() {
        for (line, word) in [
            ("tset", "\"tset\""),
            ("test --roots", "\"--roots\""),
            ("test a b", "\"b\""),
            ("ci now", "\"now\""),
            ("fuzz --seconds 0", "\"0\""),
            ("fuzz --seconds", "--seconds"),
            ("fuzz --input x", "--target"),
            ("fuzz now", "\"now\""),
        ] {
            let error = parsed(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(word), "{line}: {error}");
        }
    }

    fn vm_of(args: &[&str]) -> Result<Wanted, Error> {
        vm(&args.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_node_is_trixie_with_v2_unless_told_otherwise() {
        let wanted = vm_of(&[]).unwrap();
        assert_eq!((wanted.suites, wanted.cgroup), (vec![Suite::Trixie], CgroupMode::V2));
        assert_eq!(wanted.work, Work::Tests(None));
        let wanted = vm_of(&["--suite", "sid", "--minutes", "3", "cgroup"]).unwrap();
        assert_eq!((wanted.suites, wanted.limit), (vec![Suite::Sid], Duration::from_secs(180)));
        assert_eq!(wanted.work, Work::Tests(Some("cgroup".into())));
        let wanted = vm_of(&["--append", "quiet init=/x"]).unwrap();
        assert_eq!(wanted.append.as_deref(), Some("quiet init=/x"));
        let wanted = vm_of(&["--all", "--cgroup", "v1", "--", "ls", "--all"]).unwrap();
        assert_eq!(wanted.suites.len(), 3);
        assert_eq!(wanted.work, Work::Command(vec!["ls".into(), "--all".into()]));
    }

    #[test]
    fn what_vm_does_not_know_is_named() {
        for (args, told) in [
            (&["--suite", "woody"][..], "woody"),
            (&["--cgroup", "v3"], "v3"),
            (&["--minutes", "long"], "long"),
            (&["--suite"], "--suite"),
            (&["--fast"], "--fast"),
            (&["--"], "no command"),
            (&["a", "b"], "\"b\""),
        ] {
            let text = vm_of(args).unwrap_err().to_string();
            assert!(text.contains(told), "{text}");
        }
    }
}
