//! The last lines of a program that was not heard in time.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::path::Path;

/// Enough for a kernel's panic with its stack.
const KEPT: usize = 40;

/// Keeps the last lines it is given.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<String>);

impl Tail {
    pub(crate) fn push(&mut self, line: &str) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(printable(line));
    }

    /// The last lines of a file; none when there is no such file.
    pub(crate) fn of(file: &Path) -> Self {
        let mut tail = Self::default();
        let bytes = fs::read(file).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().for_each(|line| tail.push(line));
        tail
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("  (it printed nothing)");
        }
        self.0.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Firmware and systemd move the cursor about, which would spoil a terminal.
fn printable(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // A sequence ends with its first letter.
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else if c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut tail = Tail::default();
        (0..100).for_each(|n| tail.push(&format!("line {n}")));
        let text = tail.to_string();
        assert_eq!(text.lines().count(), KEPT);
        assert!(text.contains("line 99") && !text.contains("line 59\n"), "{text}");
    }

    #[test]
    fn control_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("\u{1b}[2J\u{1b}[0mBooting\r\u{7}"), "Booting");
    }

    #[test]
    fn a_silent_program_is_called_silent() {
        assert!(Tail::of(Path::new("/no/such/file")).to_string().contains("nothing"));
    }
}
