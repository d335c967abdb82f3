//! `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).

/// One mount.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Which directory of the file system is mounted.
    pub(crate) root: String,
    pub(crate) point: String,
    /// Options of the mount.
    pub(crate) options: Vec<String>,
    /// `shared:N`, `master:N`, `unbindable`.
    pub(crate) propagation: Vec<String>,
    pub(crate) kind: String,
    pub(crate) source: String,
    /// Options of the superblock.
    pub(crate) superblock: Vec<String>,
}

impl Entry {
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|it| it == option)
    }

    pub(crate) fn is(&self, propagation: &str) -> bool {
        self.propagation.iter().any(|it| it.starts_with(propagation))
    }
}

/// The whole table, in order.
pub(crate) fn parse(text: &str) -> Vec<Entry> {
    text.lines().map(|line| entry(line).unwrap_or_else(|| panic!("{line:?}"))).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let mut file_system = file_system.split(' ');
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(Entry {
        root: mount.next()?.to_owned(),
        point: mount.next()?.to_owned(),
        options: list(mount.next()?),
        propagation: mount.map(str::to_owned).collect(),
        kind: file_system.next()?.to_owned(),
        source: file_system.next()?.to_owned(),
        superblock: list(file_system.next()?),
    })
}

/// The topmost mount at a point.
#[track_caller]
pub(crate) fn at<'t>(table: &'t [Entry], point: &str) -> &'t Entry {
    let found = table.iter().rev().find(|entry| entry.point == point);
    found.unwrap_or_else(|| panic!("nothing at {point} in {table:#?}"))
}
