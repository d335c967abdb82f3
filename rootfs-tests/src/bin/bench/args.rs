//! The command line of the bench.

use crate::scenarios;

/// What to measure, and how often.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) only: Option<String>,
}

impl Options {
    /// Whether the scenario of this name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
    }
}

/// Reads `--rounds N` and `--only NAME`.
pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { rounds: 50, only: None };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => options.rounds = rounds(&value()?)?,
            "--only" => options.only = Some(known(value()?)?),
            _ => {
                return Err(format!(
                    "unknown option {arg:?}; known are --rounds N and --only NAME"
                ));
            }
        }
    }
    Ok(options)
}

fn rounds(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rounds @ 1..=10_000) => Ok(rounds),
        _ => Err(format!("--rounds: {text:?} is not a number from 1 to 10000")),
    }
}

fn known(name: String) -> Result<String, String> {
    let names: Vec<&str> = scenarios::ALL.iter().map(|s| s.name).collect();
    if names.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(format!("--only: {name:?} is none of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn without_options_everything_is_measured() {
        let options = parsed("").unwrap();
        assert!(scenarios::ALL.iter().all(|s| options.wants(s.name)));
    }

    #[test]
    fn one_scenario_excludes_the_others() {
        let options = parsed("--only exec --rounds 7").unwrap();
        assert_eq!(options.rounds, 7);
        assert!(options.wants("exec") && !options.wants("task"));
    }

    #[test]
    fn wrong_values_are_named() {
        for (line, word) in [
            ("--rounds", "--rounds"),
            ("--rounds 0", "\"0\""),
            ("--rounds many", "\"many\""),
            ("--only nothing", "\"nothing\""),
            ("--loud", "\"--loud\""),
        ] {
            let problem = parsed(line).unwrap_err();
            assert!(problem.contains(word), "{line}: {problem}");
        }
    }
}
