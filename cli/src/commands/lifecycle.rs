//! `boathook lifecycle ID`: what is configured, where it came from, what ran
//! when, how it ended, and what the stop is doing.

mod svg;

use std::fmt::Write;
use std::time::SystemTime;

use boathook_hooks::record::{Entry, Record, What, millis};
use boathook_hooks::termination::State;
use boathook_hooks::{Handler, Order, Origin, signal};

use crate::args::Lifecycle;
use crate::output::{Failure, print};
use crate::records;

pub(crate) fn run(args: &Lifecycle) -> Result<(), Failure> {
    let found = records::of(&args.place, &args.id)?;
    let now = millis(SystemTime::now());
    let text = if args.svg {
        svg::picture(&found.record, now)
    } else if args.json {
        json(&found, now)?
    } else {
        text(&found.record, now)
    };
    print(&text)
}

fn json(found: &records::Found, now: u64) -> Result<String, Failure> {
    let wrong = |e: serde_json::Error| Failure::Text(format!("encode the record: {e}"));
    let mut value = serde_json::to_value(&found.record).map_err(wrong)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("namespace".into(), found.namespace.clone().into());
        if let Some(until) = found.record.until {
            object.insert("leftMillis".into(), until.saturating_sub(now).into());
        }
    }
    Ok(format!("{value:#}\n"))
}

fn text(record: &Record, now: u64) -> String {
    let policy = &record.policy;
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "{name:<10} {text}");
    };
    let pod = match policy.pod.as_str() {
        "" => String::new(),
        pod => format!(", {} in pod {pod}", policy.container),
    };
    line("container", &format!("{}{pod}", record.id));
    line(
        "from",
        match policy.origin {
            Origin::Annotations => "annotations of boathook.dev",
            Origin::Kubelet => "annotations of the kubelet (backstop)",
        },
    );
    let order = match policy.order {
        Order::AfterStart => "",
        Order::BeforeEntrypoint => ", before the entrypoint",
    };
    let post_start = policy.post_start.as_ref().map(|h| format!("{}{order}", handler(h)));
    line("postStart", &post_start.unwrap_or_else(|| "none".into()));
    line("preStop", &policy.pre_stop.as_ref().map_or_else(|| "none".into(), handler));
    let signal = policy.signal.map_or_else(|| "the signal CRI sends".into(), signal::name);
    line("stop", &format!("{signal}, grace period {} s", policy.grace));
    line("now", &now_text(record, now));
    let begin = record.history.first().map_or(now, |entry| entry.at);
    for entry in &record.history {
        let after = entry.at.saturating_sub(begin);
        let _ = writeln!(
            out,
            "  {}  +{:>4}.{:03} s  {}",
            clock(entry.at),
            after / 1000,
            after % 1000,
            what(&entry.what)
        );
    }
    out
}

fn now_text(record: &Record, now: u64) -> String {
    let left = record.until.map_or_else(String::new, |until| {
        let left = until.saturating_sub(now);
        format!(", {}.{} s left", left / 1000, left % 1000 / 100)
    });
    let running = match record.interrupted() {
        Some(hook) if record.state == State::Idle => format!("{} hook runs", hook.name()),
        _ => "no stop was asked for".to_owned(),
    };
    match record.state {
        State::Idle => running,
        State::Hook => format!("the preStop hook runs{left}"),
        State::Term => format!("the stop signal was sent{left}"),
        State::Kill => "SIGKILL was sent".to_owned(),
        State::Done => "the container has ended".to_owned(),
    }
}

fn handler(handler: &Handler) -> String {
    match handler {
        Handler::Exec(exec) => format!("exec {}", exec.command.join(" ")),
        Handler::HttpGet(get) => {
            let host = if get.host.is_empty() { "pod" } else { &get.host };
            let scheme = get.scheme.to_ascii_lowercase();
            format!("httpGet {scheme}://{host}:{}{}", get.port, get.path)
        }
        Handler::TcpSocket(tcp) => format!("tcpSocket {}", tcp.port),
        Handler::Sleep(sleep) => format!("sleep {} s", sleep.seconds),
    }
}

/// One entry in words.
pub(crate) fn what(what: &What) -> String {
    match what {
        What::Started => "started".to_owned(),
        What::HookStarted { hook } => format!("{} hook started", hook.name()),
        What::HookSucceeded { hook } => format!("{} hook succeeded", hook.name()),
        What::HttpFallback { message, .. } => format!("LifecycleHTTPFallback: {message}"),
        What::HookFailed { hook, message } => format!("{}: {message}", hook.failed_reason()),
        What::Stopping { cause } => format!("stop began: {cause}"),
        What::Signalled { signal: number } => format!("{} was sent", signal::name(*number)),
        What::GraceExpired => "the grace period is over".to_owned(),
        What::Killed { cause } => format!("killed: {cause}"),
        What::Exited { status } => format!("exited with {status}"),
    }
}

/// Time of day, UTC.
pub(crate) fn clock(at: u64) -> String {
    let seconds = at / 1000 % 86_400;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{h:02}:{m:02}:{s:02}.{:03}Z", at % 1000)
}

/// An entry on a line of its own, for the list of events.
pub(crate) fn event_line(found: &records::Found, entry: &Entry) -> String {
    format!("{}  {}/{}  {}\n", clock(entry.at), found.namespace, found.record.id, what(&entry.what))
}

#[cfg(test)]
mod tests {
    use boathook_hooks::Policy;
    use boathook_hooks::record::Hook;

    use super::*;

    pub(super) fn record() -> Record {
        let pre_stop = Handler::parse(r#"{"exec":{"command":["sync","-f"]}}"#, 30).ok();
        let signal = Some(signal::TERM);
        let policy = Policy { pre_stop, grace: 30, signal, ..Policy::default() };
        let mut record = Record::new("c1", policy);
        for (at, what) in [
            (1000, What::Started),
            (5000, What::Stopping { cause: "SIGTERM was sent".into() }),
            (5000, What::HookStarted { hook: Hook::PreStop }),
        ] {
            record.history.push(Entry { at, what });
        }
        record.state = State::Hook;
        record.until = Some(35_000);
        record
    }

    #[test]
    fn the_text_says_what_is_configured_and_what_is_going_on() {
        let text = text(&record(), 15_500);
        for part in [
            "preStop    exec sync -f\n",
            "postStart  none\n",
            "stop       SIGTERM, grace period 30 s\n",
            "now        the preStop hook runs, 19.5 s left\n",
            "  00:00:05.000Z  +   4.000 s  preStop hook started\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn the_json_says_how_long_is_left() {
        let found = records::Found { namespace: "ns".into(), record: record() };
        let json: serde_json::Value = serde_json::from_str(&json(&found, 15_500).unwrap()).unwrap();
        assert_eq!(json["leftMillis"], 19_500);
        assert_eq!(json["namespace"], "ns");
        assert_eq!(json["history"][2]["hook"], "preStop");
    }
}
