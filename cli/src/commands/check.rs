//! `boathook check`.

use std::fmt::Write;
use std::path::Path;

use boathook_runtime::Engine;
use boathook_runtime::check::{self, Finding, State};
use serde_json::json;

use crate::output::{Failure, print};

pub(crate) fn run(json: bool) -> Result<(), Failure> {
    // Nothing is recorded for a check, so any state root will do.
    let findings = check::host(&Engine::new(Path::new("/run/boathook")));
    let can_run = check::can_run(&findings);
    print(&match json {
        true => format!("{:#}\n", json!({ "canRunPods": can_run, "findings": findings })),
        false => table(&findings),
    })?;
    if can_run {
        return Ok(());
    }
    let missing = findings.iter().filter(|finding| finding.state == State::Missing);
    let names: Vec<_> = missing.map(|finding| finding.name.as_str()).collect();
    Err(Failure::Text(format!("no pod can run on this host; missing: {}", names.join(", "))))
}

fn table(findings: &[Finding]) -> String {
    let width = |text: fn(&Finding) -> usize| findings.iter().map(text).max().unwrap_or(0);
    let (areas, names) = (width(|f| f.area.len()), width(|f| f.name.chars().count()));
    let mut out = String::new();
    for finding in findings {
        let (area, name, text) = (finding.area, &finding.name, &finding.text);
        let state = match finding.state {
            State::Used => "yes",
            State::Fallback => "fallback",
            State::Lacking => "no",
            State::Missing => "MISSING",
        };
        let line = format!("{area:areas$}  {name:names$}  {state:8}  {text}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let verdict = if check::can_run(findings) { "pods can run" } else { "no pod can run" };
    let _ = writeln!(out, "\n{verdict}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(area: &'static str, name: &str, state: State) -> Finding {
        Finding { area, name: name.to_owned(), state, text: "so".to_owned() }
    }

    #[test]
    fn a_table_has_a_line_for_each_and_ends_with_the_verdict() {
        let mut findings =
            vec![finding("a", "longer", State::Used), finding("bcd", "x", State::Fallback)];
        let expected = "a    longer  yes       so\nbcd  x       fallback  so\n\npods can run\n";
        assert_eq!(table(&findings), expected);
        findings.push(finding("a", "y", State::Missing));
        let text = table(&findings);
        assert!(text.ends_with("a    y       MISSING   so\n\nno pod can run\n"), "{text}");
    }
}
