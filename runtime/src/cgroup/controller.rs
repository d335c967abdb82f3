//! The controllers we know, by name, and small sets of them.

use std::fmt;

/// A cgroup controller. `Blkio` is called `io` on v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Memory,
    Devices,
    Freezer,
    Blkio,
    Pids,
    NetCls,
    NetPrio,
    PerfEvent,
    Hugetlb,
    Rdma,
    Misc,
    Dmem,
    /// v2 files that belong to none of these: those of every cgroup, and those
    /// of controllers newer than this list.
    Other,
}

/// Every controller proper with its v1 name.
const NAMES: [(Controller, &str); 15] = [
    (Controller::Cpu, "cpu"),
    (Controller::Cpuacct, "cpuacct"),
    (Controller::Cpuset, "cpuset"),
    (Controller::Memory, "memory"),
    (Controller::Devices, "devices"),
    (Controller::Freezer, "freezer"),
    (Controller::Blkio, "blkio"),
    (Controller::Pids, "pids"),
    (Controller::NetCls, "net_cls"),
    (Controller::NetPrio, "net_prio"),
    (Controller::PerfEvent, "perf_event"),
    (Controller::Hugetlb, "hugetlb"),
    (Controller::Rdma, "rdma"),
    (Controller::Misc, "misc"),
    (Controller::Dmem, "dmem"),
];

impl Controller {
    /// The name in `/proc/self/cgroup` and in v1 mount options.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(c, _)| *c == self).map_or("other", |(_, name)| name)
    }

    /// The name in v2's `cgroup.controllers` and file names.
    pub fn v2_name(self) -> &'static str {
        if self == Self::Blkio { "io" } else { self.name() }
    }

    /// The controller of that v1 name.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(c, _)| *c)
    }

    /// The controller of that v2 name.
    pub fn from_v2_name(name: &str) -> Option<Self> {
        match name {
            "io" => Some(Self::Blkio),
            "blkio" => None,
            _ => Self::from_name(name),
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of controllers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controllers(u16);

impl Controllers {
    /// Whether `controller` is in the set.
    pub fn contains(self, controller: Controller) -> bool {
        self.0 & (1 << controller as u16) != 0
    }

    /// Whether all of `other` is in the set.
    pub fn contains_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds one controller.
    pub fn insert(&mut self, controller: Controller) {
        self.0 |= 1 << controller as u16;
    }

    /// The members, in the order of the enum.
    pub fn iter(self) -> impl Iterator<Item = Controller> {
        NAMES.iter().map(|(c, _)| *c).filter(move |c| self.contains(*c))
    }

    /// The space-separated list of a v2 `cgroup.controllers` file; unknown names are left out.
    pub(super) fn parse_v2(text: &str) -> Self {
        text.split_whitespace().filter_map(Controller::from_v2_name).collect()
    }
}

impl FromIterator<Controller> for Controllers {
    fn from_iter<I: IntoIterator<Item = Controller>>(iter: I) -> Self {
        let mut set = Self::default();
        iter.into_iter().for_each(|c| set.insert(c));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (controller, name) in NAMES {
            assert_eq!(Controller::from_name(name), Some(controller));
            assert_eq!(Controller::from_v2_name(controller.v2_name()), Some(controller));
        }
        assert_eq!(Controller::from_v2_name("blkio"), None);
        assert_eq!(Controller::from_name("io"), None);
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = Controllers::parse_v2("cpuset cpu io memory new_thing pids\n");
        let names: Vec<_> = set.iter().map(Controller::v2_name).collect();
        assert_eq!(names, ["cpu", "cpuset", "memory", "io", "pids"]);
        assert!(!set.contains(Controller::Hugetlb));
        assert!(set.contains_all([Controller::Cpu, Controller::Blkio].into_iter().collect()));
        assert!(!set.contains_all([Controller::Cpu, Controller::Rdma].into_iter().collect()));
    }
}
