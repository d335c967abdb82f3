//! What is on this machine, to be compared before and after.
//!
//! The count is of the whole machine, not of what a test believes it made: mounts, cgroup
//! directories of every hierarchy, processes, network links, sockets, and the files of runtimes,
//! network namespaces with a name among them. One without a name lives as long as a process in it.
//!
//! A machine has a life of its own, so processes count by [`crate::host::mark`], and what vanished
//! counts only where a container's end must not have touched it: mounts and network links.
//! [`crate::host::exclusive`] keeps other suites away meanwhile.

mod sources;

use crate::error::{Error, Result};
use crate::wait::{self, PATIENCE};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Things of one kind, each with how often it occurs.
type Things = BTreeMap<String, usize>;

/// The kinds of which nothing may vanish either.
const LASTING: [&str; 2] = ["mount", "network link"];

/// One count of everything.
#[derive(Clone, Debug)]
pub struct Census {
    /// Further directories whose files count.
    dirs: Vec<PathBuf>,
    kinds: BTreeMap<&'static str, Things>,
}

/// What appeared and what vanished between two counts.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    lines: Vec<String>,
}

impl Census {
    /// Counts now.
    ///
    /// # Errors
    /// A table of the kernel cannot be read.
    pub fn take() -> Result<Self> {
        Self::with(&[])
    }

    /// Counts now, and the files below these directories too.
    ///
    /// # Errors
    /// A table of the kernel cannot be read.
    pub fn with(dirs: &[PathBuf]) -> Result<Self> {
        let kinds = BTreeMap::from([
            ("mount", sources::mounts()?),
            ("cgroup", sources::cgroups()?),
            ("process", sources::processes()?),
            ("network link", sources::links()?),
            ("socket", sources::sockets()?),
            ("file", sources::files(dirs)?),
        ]);
        Ok(Self { dirs: dirs.to_owned(), kinds })
    }

    /// What is different in `later`.
    #[must_use]
    pub fn difference(&self, later: &Self) -> Difference {
        let mut lines = Vec::new();
        let none = Things::new();
        for (kind, after) in &later.kinds {
            let before = self.kinds.get(kind).unwrap_or(&none);
            let names = before.keys().chain(after.keys().filter(|it| !before.contains_key(*it)));
            for name in names {
                let count = |things: &Things| things.get(name).copied().unwrap_or(0);
                match (count(before), count(after)) {
                    (was, is) if was == is => {}
                    (was, is) if is < was && !LASTING.contains(kind) => {}
                    (0, 1) => lines.push(format!("+ {kind} {name}")),
                    (1, 0) => lines.push(format!("- {kind} {name}")),
                    (was, is) => lines.push(format!("± {kind} {name}: {was} → {is}")),
                }
            }
        }
        Difference { lines }
    }

    /// Waits until everything is as it was at this count.
    ///
    /// The kernel removes network namespaces, and with them links and cgroups, some time after
    /// their last process; this asks again until then.
    ///
    /// # Errors
    /// [`Error::Check`] with what appeared and vanished.
    pub fn assert_same_within(&self, within: Duration) -> Result<()> {
        let mut last = Difference::default();
        let same = wait::until("the machine as it was before", within, || {
            last = self.difference(&Self::with(&self.dirs)?);
            Ok(last.lines.is_empty().then_some(()))
        });
        same.map_err(|error| Error::check(format!("{error}\n{last}")))
    }

    /// [`Census::assert_same_within`] with the usual patience.
    ///
    /// # Errors
    /// [`Error::Check`] with what appeared and vanished.
    pub fn assert_same(&self) -> Result<()> {
        self.assert_same_within(PATIENCE)
    }
}

impl Difference {
    /// Whether nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("left over (+) and lost (-):")?;
        for line in &self.lines {
            write!(out, "\n  {line}")?;
        }
        Ok(())
    }
}

/// What a process's descriptors refer to, each with how often.
///
/// Numbers in brackets, which name one socket or pipe of many, are left out, so that two counts of
/// the same process can be compared.
///
/// # Errors
/// There is no such process.
pub fn descriptors(pid: u32) -> Result<BTreeMap<String, usize>> {
    let dir = format!("/proc/{pid}/fd");
    let entries =
        fs::read_dir(&dir).map_err(|source| Error::Io { what: format!("list {dir}"), source })?;
    let mut found = BTreeMap::new();
    for entry in entries.flatten() {
        // One may be closed between listing and looking.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.display().to_string();
        let target = target.split(":[").next().unwrap_or_default().to_owned();
        *found.entry(target).or_insert(0) += 1;
    }
    Ok(found)
}

/// As [`descriptors`], of a boathook server that has had a container: waits until the mount
/// namespace is there that it makes in the first quiet moment after that.
///
/// # Errors
/// It is not there in time, or there is no such process.
pub fn settled_descriptors(pid: u32) -> Result<BTreeMap<String, usize>> {
    wait::until("a server that is prepared", PATIENCE, || {
        let found = descriptors(pid)?;
        Ok(found.contains_key("mnt").then_some(found))
    })
}

/// A count as text, one thing a line.
#[must_use]
pub fn listing(things: &BTreeMap<String, usize>) -> String {
    things.iter().fold(String::new(), |mut text, (name, count)| {
        let _ = write!(text, "\n  {count} × {name}");
        text
    })
}
