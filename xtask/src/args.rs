//! The command line.

use std::path::PathBuf;

use crate::error::Error;

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
  ci                            format, lints, dependencies, docs, both test tiers, then fuzz
  deny                          licences, sources and bans of the dependencies

demo, test --root, bench and ci need root, and install what they need through apt.";

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
        "ci" => nothing_after("ci", rest, Command::Ci),
        "deny" => nothing_after("deny", rest, Command::Deny),
        other => Err(usage(&format!("unknown command {other:?}"))),
    }
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
}
