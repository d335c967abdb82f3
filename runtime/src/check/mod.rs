//! What this host offers, found out by trying: what the engine will use of it, what it does
//! where something is missing, and whether containers can run at all.
//!
//! Versions are not looked at: distributions backport, and filters of an outer container take
//! away. What is made for a try is taken away again: a cgroup, short-lived processes, mounts
//! that are attached nowhere.

mod cgroups;
mod filesystems;
mod kernel;
mod namespaces;
mod security;

use serde::Serialize;

use crate::Engine;

/// What a finding means for containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there and will be used.
    Used,
    /// It is not there; something else does its work.
    Fallback,
    /// It is not there, and containers that ask for it are refused.
    Lacking,
    /// It is not there, and without it no container runs.
    Missing,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to: `cgroups`, `kernel`, `namespaces`, `file systems`, `security`.
    pub area: &'static str,
    /// What was asked for.
    pub name: String,
    /// What the answer means.
    pub state: State,
    /// What is used, what happens instead, or why it cannot be had.
    pub text: String,
}

/// Asks all questions. Takes some ten milliseconds, and makes processes and a cgroup meanwhile.
#[must_use]
pub fn host(engine: &Engine) -> Vec<Finding> {
    let mut found = Vec::new();
    security::privileges(&mut Area::new("security", &mut found));
    cgroups::look(engine, &mut Area::new("cgroups", &mut found));
    kernel::look(engine, &mut Area::new("kernel", &mut found));
    namespaces::look(engine, &mut Area::new("namespaces", &mut found));
    filesystems::look(engine, &mut Area::new("file systems", &mut found));
    security::look(&mut Area::new("security", &mut found));
    found
}

/// Whether containers, and so pods, can run on a host with these findings.
#[must_use]
pub fn can_run(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Missing)
}

/// Where the findings of one area go.
struct Area<'a> {
    area: &'static str,
    found: &'a mut Vec<Finding>,
}

impl<'a> Area<'a> {
    fn new(area: &'static str, found: &'a mut Vec<Finding>) -> Self {
        Self { area, found }
    }

    fn add(&mut self, name: impl Into<String>, state: State, text: impl Into<String>) {
        let (name, text) = (name.into(), text.into());
        self.found.push(Finding { area: self.area, name, state, text });
    }

    /// A fact that is neither good nor bad.
    fn is(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.add(name, State::Used, text);
    }

    /// Without it no container runs.
    fn needs<T>(
        &mut self,
        name: &str,
        answer: Result<T, impl std::fmt::Display>,
        use_: &str,
    ) -> Option<T> {
        match answer {
            Ok(value) => {
                self.add(name, State::Used, use_);
                Some(value)
            }
            Err(why) => {
                self.add(name, State::Missing, why.to_string());
                None
            }
        }
    }

    /// Something else does its work.
    fn prefers(&mut self, name: &str, there: bool, use_: &str, instead: &str) {
        match there {
            true => self.add(name, State::Used, use_),
            false => self.add(name, State::Fallback, instead),
        }
    }

    /// Containers that ask for it are refused.
    fn offers(&mut self, name: impl Into<String>, there: bool, use_: &str, refused: &str) {
        match there {
            true => self.add(name, State::Used, use_),
            false => self.add(name, State::Lacking, refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_keeps_containers_from_running() {
        let mut found = Vec::new();
        let mut area = Area::new("kernel", &mut found);
        area.is("a", "1");
        area.prefers("b", false, "fast", "slow");
        area.offers("c", false, "there", "refused");
        assert_eq!(area.needs("d", Ok::<_, String>(7), "there"), Some(7));
        assert!(can_run(&found));
        let states: Vec<_> = found.iter().map(|finding| finding.state).collect();
        assert_eq!(states, [State::Used, State::Fallback, State::Lacking, State::Used]);
        let mut area = Area::new("kernel", &mut found);
        assert_eq!(area.needs("e", Err::<(), _>("no such call"), "there"), None);
        assert!(!can_run(&found));
        assert_eq!(found[4].text, "no such call");
    }
}
