//! One set of rows, printed as a table for the terminal and for the document.

use std::fmt::Write as _;

use crate::stats::{Bar, Samples};

/// One measured thing, on ours and on what it is held against.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// What it is held against.
    pub(crate) beside: &'static str,
    /// How the rounds followed each other; empty where it does not matter.
    pub(crate) spacing: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) theirs: Figure,
    pub(crate) ours: Figure,
    pub(crate) bar: Bar,
}

/// A median, and a 90th percentile where there were rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) p90: Option<f64>,
}

impl From<&Samples> for Figure {
    fn from(samples: &Samples) -> Self {
        Self { median: samples.median(), p90: Some(samples.p90()) }
    }
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self { median: value, p90: None }
    }
}

/// Cells of a row.
const COLUMNS: usize = 10;

const HEAD: [&str; COLUMNS] =
    ["what", "rounds", "beside", "its", "p90", "boathook", "p90", "ratio", "bar", ""];
/// The columns that hold figures, which stand right.
const FIGURES: std::ops::Range<usize> = 3..8;

impl Row {
    fn cells(&self) -> [String; COLUMNS] {
        let number = |value: f64| match self.unit {
            "" => format!("{value:.0}"),
            "MiB" => format!("{value:.2}"),
            _ => format!("{value:.1}"),
        };
        let p90 = |figure: &Figure| figure.p90.map_or_else(|| "–".into(), number);
        let name = if self.unit.is_empty() {
            self.name.clone()
        } else {
            format!("{}, {}", self.name, self.unit)
        };
        let bar = match self.bar {
            Bar::Share(share) => format!("≤ {share} ×"),
            Bar::Value(value) => format!("≤ {value}"),
            Bar::None => "–".into(),
        };
        let verdict = match self.bar.holds(self.theirs.median, self.ours.median) {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "",
        };
        [
            name,
            self.spacing.to_owned(),
            self.beside.to_owned(),
            number(self.theirs.median),
            p90(&self.theirs),
            number(self.ours.median),
            p90(&self.ours),
            format!("{:.2}", self.ours.median / self.theirs.median),
            bar,
            verdict.to_owned(),
        ]
    }

    /// Whether the row has a bar and is above it.
    pub(crate) fn missed(&self) -> bool {
        self.bar.holds(self.theirs.median, self.ours.median) == Some(false)
    }
}

/// The table with columns of equal width, for a terminal.
pub(crate) fn text(rows: &[Row]) -> String {
    let lines: Vec<[String; COLUMNS]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|l| l.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width - cell.chars().count());
            // Figures stand right, words left.
            let right = FIGURES.contains(&column);
            let _ =
                if right { write!(text, "{gap}{cell}  ") } else { write!(text, "{cell}{gap}  ") };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
    out
}

/// The same table in Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut out = format!("| {} |\n|---|---|---|--:|--:|--:|--:|--:|---|---|\n", HEAD.join(" | "));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.cells().join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bar: Bar) -> Row {
        Row {
            name: "start".into(),
            beside: "runc shim",
            spacing: "200 ms apart",
            unit: "ms",
            theirs: Figure { median: 80.0, p90: Some(90.0) },
            ours: Figure { median: 20.0, p90: None },
            bar,
        }
    }

    #[test]
    fn both_tables_hold_the_same_cells() {
        let rows = [row(Bar::Share(0.35)), row(Bar::Value(10.0)), row(Bar::None)];
        let (text, markdown) = (text(&rows), markdown(&rows));
        for cell in ["start, ms", "200 ms apart", "80.0", "90.0", "20.0", "0.25", "≤ 0.35 ×"] {
            assert!(text.contains(cell) && markdown.contains(cell), "{cell}");
        }
        assert_eq!(text.matches("reached").count(), 1);
        assert_eq!(markdown.matches("missed").count(), 1);
        assert_eq!(rows.map(|r| r.missed()), [false, true, false]);
    }

    #[test]
    fn a_figure_that_was_not_measured_never_reaches_its_bar() {
        let mut row = row(Bar::Share(0.35));
        row.ours.median = f64::NAN;
        assert!(row.missed());
    }
}
