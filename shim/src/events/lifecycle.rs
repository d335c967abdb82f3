//! Events of hooks and stops. They stay off `/tasks/`, where clients expect
//! containerd's own, and come as `ContainerUpdate`, which every `ctr` decodes.

use boathook_hooks::Policy;
use boathook_hooks::record::{Record, What};
use boathook_hooks::signal;

use crate::table::Event;

/// The event that tells of this, if one does: containerd's own tell of starts
/// and exits.
pub(crate) fn event(record: &Record, what: &What) -> Option<Event> {
    let policy = &record.policy;
    let text = str::to_owned;
    let (topic, own) = match what {
        What::Started | What::Exited { .. } => return None,
        What::HookStarted { hook } => ("/hooks/started", vec![("hook", text(hook.name()))]),
        What::HookSucceeded { hook } => ("/hooks/succeeded", vec![("hook", text(hook.name()))]),
        What::HttpFallback { hook, message } => (
            "/hooks/fallback",
            vec![
                ("hook", text(hook.name())),
                ("reason", text("LifecycleHTTPFallback")),
                ("message", message.clone()),
            ],
        ),
        What::HookFailed { hook, message } => (
            "/hooks/failed",
            vec![
                ("hook", text(hook.name())),
                ("reason", text(hook.failed_reason())),
                ("message", message.clone()),
            ],
        ),
        What::Stopping { cause } => (
            "/hooks/stopping",
            vec![
                ("reason", text("Killing")),
                ("message", format!("Stopping container {}", policy.container)),
                ("cause", cause.clone()),
                ("grace", policy.grace.to_string()),
            ],
        ),
        What::Signalled { signal } => ("/hooks/signalled", vec![("signal", signal::name(*signal))]),
        What::GraceExpired => ("/hooks/grace-expired", vec![("grace", policy.grace.to_string())]),
        What::Killed { cause } => {
            ("/hooks/killed", vec![("signal", text("SIGKILL")), ("cause", cause.clone())])
        }
    };
    let mut labels: Vec<_> = own.into_iter().chain(whose(policy)).collect();
    labels.retain(|(_, value)| !value.is_empty());
    let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Some(Event::Lifecycle { id: record.id.clone(), topic, labels })
}

fn whose(policy: &Policy) -> [(&'static str, String); 2] {
    [("container", policy.container.clone()), ("pod", policy.pod.clone())]
}

#[cfg(test)]
mod tests {
    use boathook_hooks::record::Hook;

    use super::*;

    #[test]
    fn a_failure_names_its_reason_and_stays_off_tasks() {
        let policy = Policy { container: "web".into(), ..Policy::default() };
        let record = Record::new("c1", policy);
        let what = What::HookFailed { hook: Hook::PreStop, message: "why".into() };
        let Some(Event::Lifecycle { id, topic, labels }) = event(&record, &what) else { panic!() };
        assert_eq!((id.as_str(), topic), ("c1", "/hooks/failed"));
        let get = |name: &str| labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(get("reason"), Some("FailedPreStopHook"));
        assert_eq!(get("message"), Some("why"));
        assert_eq!(get("container"), Some("web"));
        assert_eq!(get("pod"), None);
        assert!(event(&record, &What::Started).is_none());
    }
}
