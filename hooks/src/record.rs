//! What happened to a container's hooks, written down: `lifecycle.json` in its
//! state directory. It outlives the process that runs the hooks, so that a
//! hook that was begun and not ended can be run again, and people can look.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::source::Policy;
use crate::termination::State;

/// The file's name in the state directory of a container.
pub const FILE: &str = "lifecycle.json";
/// Entries kept; hooks are few, signals may be sent all day.
const MAX_ENTRIES: usize = 64;

/// One of the two hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Hook {
    /// At the start.
    #[serde(rename = "postStart")]
    PostStart,
    /// Before the stop signal.
    #[serde(rename = "preStop")]
    PreStop,
}

impl Hook {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::PostStart => "postStart",
            Self::PreStop => "preStop",
        }
    }

    /// The kubelet's reason of the event that tells of its failure.
    pub fn failed_reason(self) -> &'static str {
        match self {
            Self::PostStart => "FailedPostStartHook",
            Self::PreStop => "FailedPreStopHook",
        }
    }
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum What {
    /// The container's program runs.
    Started,
    /// A hook began.
    HookStarted {
        /// Which one.
        hook: Hook,
    },
    /// A hook did what it was to do.
    HookSucceeded {
        /// Which one.
        hook: Hook,
    },
    /// An https hook met a server that speaks http, and was asked again so.
    HttpFallback {
        /// Which one.
        hook: Hook,
        /// The kubelet's text.
        message: String,
    },
    /// A hook failed.
    HookFailed {
        /// Which one.
        hook: Hook,
        /// The kubelet's text.
        message: String,
    },
    /// The stop began.
    Stopping {
        /// Who or what asked for it.
        cause: String,
    },
    /// The stop signal was sent.
    Signalled {
        /// Its number.
        signal: i32,
    },
    /// The grace period is over.
    GraceExpired,
    /// SIGKILL was sent.
    Killed {
        /// Who or what asked for it.
        cause: String,
    },
    /// The container ended.
    Exited {
        /// 0 to 255.
        status: u32,
    },
}

/// Something that happened, with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since 1970.
    pub at: u64,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The container's id.
    pub id: String,
    /// What is to happen, and who said so.
    pub policy: Policy,
    /// Where the stop stands.
    pub state: State,
    /// When the present state is over at the latest, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// What happened, in order.
    pub history: Vec<Entry>,
}

impl Record {
    /// The record of a container to which nothing has happened.
    pub fn new(id: &str, policy: Policy) -> Self {
        Self { id: id.to_owned(), policy, state: State::Idle, until: None, history: Vec::new() }
    }

    /// Adds what happened now.
    pub fn add(&mut self, what: What) {
        if self.history.len() == MAX_ENTRIES {
            // The first one is the start, which a picture needs.
            self.history.remove(1);
        }
        self.history.push(Entry { at: millis(SystemTime::now()), what });
    }

    /// When the first thing happened: with the id, which container this is.
    pub fn began(&self) -> Option<u64> {
        self.history.first().map(|entry| entry.at)
    }

    /// The hook that was begun and not ended, if there is one. Of a preStop
    /// and a postStart hook in parallel, the preStop hook is told.
    pub fn interrupted(&self) -> Option<Hook> {
        [Hook::PreStop, Hook::PostStart].into_iter().find(|wanted| {
            let last = self.history.iter().rev().find_map(|entry| match &entry.what {
                What::HookStarted { hook } if hook == wanted => Some(true),
                What::HookSucceeded { hook } | What::HookFailed { hook, .. } if hook == wanted => {
                    Some(false)
                }
                _ => None,
            });
            last == Some(true)
        })
    }
}

/// Milliseconds since 1970.
pub fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(whats: &[What]) -> Record {
        let mut record = Record::new("c", Policy::default());
        whats.iter().for_each(|what| record.add(what.clone()));
        record
    }

    #[test]
    fn a_hook_without_an_end_was_interrupted() {
        let started = What::HookStarted { hook: Hook::PreStop };
        let failed = What::HookFailed { hook: Hook::PreStop, message: "m".into() };
        let other = What::HookStarted { hook: Hook::PostStart };
        assert_eq!(record(&[]).interrupted(), None);
        assert_eq!(record(std::slice::from_ref(&started)).interrupted(), Some(Hook::PreStop));
        assert_eq!(record(&[started.clone(), failed.clone()]).interrupted(), None);
        assert_eq!(
            record(&[started.clone(), failed, started, What::Stopping { cause: "x".into() }])
                .interrupted(),
            Some(Hook::PreStop)
        );
        assert_eq!(record(&[other]).interrupted(), Some(Hook::PostStart));
    }

    #[test]
    fn the_file_reads_back_and_has_a_bound() {
        let mut record = record(&[What::Started]);
        for signal in 1..200 {
            record.add(What::Signalled { signal });
        }
        assert_eq!(record.history.len(), MAX_ENTRIES);
        assert_eq!(record.history[0].what, What::Started);
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.contains(r#""what":"signalled","signal":199"#), "{json}");
        assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
    }
}
