//! The history of a container as a picture: a line of time, one row for the
//! program, one for each hook and one for the grace period.

use std::fmt::Write;

use boathook_hooks::record::{Entry, Hook, Record, What};

const WIDTH: u64 = 720;
const LEFT: u64 = 110;
const ROW: u64 = 34;
const TOP: u64 = 34;

/// A stretch of time in a row.
struct Bar {
    row: u64,
    from: u64,
    to: u64,
    colour: &'static str,
    label: String,
}

/// The picture. `now` ends what has not ended.
pub(super) fn picture(record: &Record, now: u64) -> String {
    let begin = record.history.first().map_or(now, |entry| entry.at);
    let over = matches!(record.history.last(), Some(Entry { what: What::Exited { .. }, .. }));
    let end = match record.history.last() {
        Some(last) if over => last.at,
        _ => now,
    };
    let span = end.saturating_sub(begin).max(1);
    let x = |at: u64| LEFT + at.saturating_sub(begin).min(span) * WIDTH / span;
    let rows = ["program", "postStart", "preStop", "stop"];
    let height = TOP + ROW * rows.len() as u64 + 60;
    let total = LEFT + WIDTH + 30;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{total}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}</text>\n",
        escape(&format!("{}: grace period {} s", record.id, record.policy.grace))
    );
    for (row, name) in rows.iter().enumerate() {
        let y = TOP + ROW * row as u64 + 20;
        let _ = writeln!(out, "<text x=\"10\" y=\"{y}\">{name}</text>");
    }
    for Bar { row, from, to, colour, label } in bars(record, begin, end) {
        let (left, width) = (x(from), (x(to) - x(from)).max(2));
        let y = TOP + ROW * row;
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"{}\" width=\"{width}\" height=\"22\" rx=\"3\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"{}\">{}</text>",
            y + 4,
            left + 4,
            y + 20,
            escape(&label)
        );
    }
    let bottom = TOP + ROW * rows.len() as u64 + 8;
    for entry in &record.history {
        let Some((colour, mark)) = mark(&entry.what) else { continue };
        let at = x(entry.at);
        let _ = writeln!(
            out,
            "<line x1=\"{at}\" y1=\"{TOP}\" x2=\"{at}\" y2=\"{bottom}\" stroke=\"{colour}\" stroke-dasharray=\"3 2\"/>\n\
             <text x=\"{at}\" y=\"{}\" text-anchor=\"middle\" fill=\"{colour}\">{mark}</text>",
            bottom + 14
        );
    }
    for step in 0..=4 {
        let at = begin + span * step / 4;
        let after = at - begin;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666666\">{}.{} s</text>",
            x(at),
            bottom + 32,
            after / 1000,
            after % 1000 / 100
        );
    }
    out.push_str("</svg>\n");
    out
}

fn bars(record: &Record, begin: u64, end: u64) -> Vec<Bar> {
    const GREEN: &str = "#b7e1cd";
    const BLUE: &str = "#c9daf8";
    const RED: &str = "#f4c7c3";
    let find = |wanted: &dyn Fn(&What) -> bool| {
        record.history.iter().find(|entry| wanted(&entry.what)).map(|entry| entry.at)
    };
    let mut bars = Vec::new();
    let from = find(&|w| matches!(w, What::Started)).unwrap_or(begin);
    let exit = record.history.iter().find_map(|entry| match entry.what {
        What::Exited { status } => Some(format!("exit status {status}")),
        _ => None,
    });
    bars.push(Bar { row: 0, from, to: end, colour: GREEN, label: exit.unwrap_or_default() });
    for (row, wanted) in [(1, Hook::PostStart), (2, Hook::PreStop)] {
        let began = find(&|w| matches!(w, What::HookStarted { hook } if *hook == wanted));
        let Some(from) = began else { continue };
        let ended = record.history.iter().find_map(|entry| match &entry.what {
            What::HookSucceeded { hook } if *hook == wanted => Some((entry.at, BLUE, "succeeded")),
            What::HookFailed { hook, .. } if *hook == wanted => Some((entry.at, RED, "failed")),
            _ => None,
        });
        let (to, colour, label) = ended.unwrap_or((end, RED, "not ended"));
        bars.push(Bar { row, from, to: to.min(end), colour, label: label.to_owned() });
    }
    if let Some(from) = find(&|w| matches!(w, What::Stopping { .. })) {
        let label = "grace period runs".to_owned();
        bars.push(Bar { row: 3, from, to: end, colour: "#fce8b2", label });
    }
    bars
}

fn mark(what: &What) -> Option<(&'static str, String)> {
    match what {
        What::Stopping { .. } => Some(("#b45f06", "stop".to_owned())),
        What::Signalled { signal } => Some(("#b45f06", boathook_hooks::signal::name(*signal))),
        What::Killed { .. } => Some(("#cc0000", "SIGKILL".to_owned())),
        _ => None,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn every_part_is_drawn_inside_the_picture() {
        let mut record = record();
        record.id = "a<b".into();
        for (at, what) in [
            (7000, What::HookSucceeded { hook: Hook::PreStop }),
            (7000, What::Signalled { signal: 15 }),
            (9000, What::Exited { status: 0 }),
        ] {
            record.history.push(Entry { at, what });
        }
        let svg = picture(&record, 99_000);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a&lt;b: grace period 30 s"), "{svg}");
        for part in ["exit status 0", ">succeeded<", ">SIGTERM<", ">8.0 s<"] {
            assert!(svg.contains(part), "{part} is not in\n{svg}");
        }
        assert!(!svg.contains(">not ended<"));
        let right =
            svg.split(" x=\"").skip(1).filter_map(|s| s.split('"').next()?.parse::<u64>().ok());
        assert!(right.max().unwrap() <= LEFT + WIDTH);
    }
}
