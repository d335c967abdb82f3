//! Log lines into the `log` fifo of the bundle, whose reader is the daemon.
//!
//! Everything written there is copied into the daemon's own log as it is, so
//! lines have its `key=value` form. A line is one `write` of fewer than
//! `PIPE_BUF` bytes to a non-blocking fifo: it arrives whole or is dropped when
//! the daemon is down or does not read. Logging can never stall a call.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// PIPE_BUF (pipe(7)).
const MAX_LINE: usize = 4096;

static LOG: OnceLock<Log> = OnceLock::new();

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What came in and what was decided; only with `-debug`.
    Debug,
    /// Once in a server's life.
    Info,
    /// Something did not work and the shim went on.
    Warn,
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    fifo: Option<File>,
    least: Level,
}

impl Log {
    /// Opens the fifo `log` in `bundle`. Without a reader (a bundle made by
    /// hand) lines go nowhere.
    pub fn open(bundle: &Path, debug: bool) -> Self {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let fifo =
            OpenOptions::new().write(true).custom_flags(nonblocking).open(bundle.join("log")).ok();
        Self { fifo, least: if debug { Level::Debug } else { Level::Info } }
    }

    /// Makes this the log of the process. The first one stays.
    pub fn install(self) {
        let _ = LOG.set(self);
    }

    fn write(&self, level: Level, message: fmt::Arguments<'_>) {
        let Some(mut fifo) = self.fifo.as_ref().filter(|_| level >= self.least) else { return };
        let line = line(level, SystemTime::now(), &message.to_string());
        let _ = fifo.write(line.as_bytes());
    }
}

/// Writes one line to the log of the process, if it has one.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    if let Some(log) = LOG.get() {
        log.write(level, message);
    }
}

/// Whether debug lines are wanted, for callers that would build one at a cost.
pub fn debugging() -> bool {
    LOG.get().is_some_and(|log| log.least == Level::Debug && log.fifo.is_some())
}

/// A line for people who follow the server with `-debug`.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => {
        if $crate::log::debugging() {
            $crate::log::write($crate::log::Level::Debug, format_args!($($arg)*))
        }
    };
}

/// A line about the server's life.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Info, format_args!($($arg)*)) };
}

/// A line about something that did not work.
#[macro_export]
macro_rules! warning {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Warn, format_args!($($arg)*)) };
}

fn line(level: Level, now: SystemTime, message: &str) -> String {
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warning",
    };
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut message = message.to_owned();
    let room = MAX_LINE - 200;
    if message.len() > room {
        let mut end = room;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
    let mut line = format!(
        "time=\"{}\" level={level} msg={message:?} shim=boathook pid={}\n",
        rfc3339(since.as_secs(), since.subsec_nanos()),
        std::process::id(),
    );
    // Escapes may have made it longer than a fifo takes in one piece.
    if line.len() > MAX_LINE {
        line = format!("level={level} msg=\"a line of {} bytes\" shim=boathook\n", line.len());
    }
    line
}

/// UTC with nanoseconds, as Go's loggers print it.
fn rfc3339(secs: u64, nanos: u32) -> String {
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Days to a civil date by eras of 400 years that begin on 1 March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_right_at_the_edges() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(secs, 0), text);
        }
    }

    #[test]
    fn a_line_is_one_line_and_fits_into_a_fifo() {
        let now = UNIX_EPOCH + Duration::from_secs(1);
        let text = line(Level::Warn, now, "a \"b\"\nc");
        assert!(text.contains(r#"level=warning msg="a \"b\"\nc" shim=boathook"#), "{text}");
        assert_eq!(text.matches('\n').count(), 1);
        for long in ["ä".repeat(9000), "\u{7f}".repeat(9000)] {
            assert!(line(Level::Info, now, &long).len() <= MAX_LINE);
        }
    }

    #[test]
    fn no_fifo_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        Log::open(dir.path(), true).write(Level::Warn, format_args!("lost"));
    }
}
