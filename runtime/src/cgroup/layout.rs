//! Which cgroup hierarchies a host has and where: pure parsing of
//! `/proc/self/mountinfo` and `/proc/PID/cgroup` (proc(5), cgroups(7)).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::controller::{Controller, Controllers};
use crate::error::{Error, ErrorKind, Result};

/// Where cgroup file systems are mounted by convention.
pub(super) const CONVENTIONAL: &str = "/sys/fs/cgroup";

/// How a host uses the two generations of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Only v1 hierarchies.
    V1,
    /// v1 hierarchies hold the controllers, a v2 one the membership.
    Hybrid,
    /// One v2 hierarchy.
    V2,
}

/// The cgroup hierarchies of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How the host uses them.
    pub mode: Mode,
    /// One entry per hierarchy, v1 first.
    pub mounts: Vec<HierarchyMount>,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HierarchyMount {
    /// What tells it from the others.
    pub kind: Kind,
    /// Its controllers. On a v2 host those that `cgroup.controllers` of the
    /// mount lists; for the v2 hierarchy of a hybrid host those that its root
    /// hands on, because the root is not ours to change there.
    pub controllers: Controllers,
    /// Where it is mounted.
    pub mount_point: PathBuf,
}

/// What kind of hierarchy a mount is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// v1 with controllers; the string is the list as the kernel prints it, `cpu,cpuacct`.
    V1(String),
    /// v1 without controllers, `name=…`; the string is the name.
    Named(String),
    /// v2.
    V2,
}

impl HierarchyMount {
    /// A stable key for records: `memory`, `cpu,cpuacct`, `name=systemd`, and `""` for v2,
    /// as in the second field of `/proc/PID/cgroup`.
    pub fn key(&self) -> String {
        match &self.kind {
            Kind::V1(list) => list.clone(),
            Kind::Named(name) => format!("name={name}"),
            Kind::V2 => String::new(),
        }
    }

    /// Whether it is the v2 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.kind == Kind::V2
    }
}

impl Layout {
    /// Reads the layout out of the text of a `mountinfo` file.
    ///
    /// A cgroup2 file system at `/sys/fs/cgroup` makes a v2 host, whatever
    /// else is mounted elsewhere; v1 mounts beside a v2 one make a hybrid.
    /// Of several mounts of one hierarchy the one under `/sys/fs/cgroup` wins,
    /// and of several on one mount point the topmost.
    ///
    /// # Errors
    /// `Unsupported` when no cgroup file system is mounted.
    pub fn parse(mountinfo: &str) -> Result<Self> {
        let mut found: Vec<MountLine> = Vec::new();
        for line in mountinfo.lines().filter_map(MountLine::parse) {
            // Whatever lies below on the same mount point can no longer be reached.
            found.retain(|old| old.mount_point != line.mount_point);
            let Some(kind) = line.kind.clone() else { continue };
            match found.iter_mut().find(|old| old.kind.as_ref() == Some(&kind)) {
                Some(old) if line.rank() > old.rank() => *old = line,
                Some(_) => {}
                None => found.push(line),
            }
        }
        let mounts = found.into_iter().filter_map(MountLine::into_mount).collect();
        Self::from_mounts(mounts)
    }

    /// The layout that `/proc/self/cgroup` and the usual mount points suggest;
    /// the caller must check each mount. Saves reading `mountinfo`, which takes
    /// longer the more mounts a host has.
    pub(super) fn guess(proc_cgroup: &str) -> Result<Self> {
        let at = |name: &str| Path::new(CONVENTIONAL).join(name);
        let mounts = parse_membership(proc_cgroup).map(|entry| HierarchyMount {
            mount_point: match &entry.kind {
                Kind::V1(list) => at(list),
                Kind::Named(name) => at(name),
                Kind::V2 => at("unified"),
            },
            controllers: entry.controllers(),
            kind: entry.kind,
        });
        Self::from_mounts(mounts.collect())
    }

    /// A v2 host with its one hierarchy at the conventional place.
    pub(super) fn unified(controllers: Controllers) -> Self {
        let mount_point = PathBuf::from(CONVENTIONAL);
        let mount = HierarchyMount { kind: Kind::V2, controllers, mount_point };
        Self { mode: Mode::V2, mounts: vec![mount] }
    }

    fn from_mounts(mut mounts: Vec<HierarchyMount>) -> Result<Self> {
        let unified = mounts.iter().position(HierarchyMount::is_v2);
        let at_top = unified.is_some_and(|i| mounts[i].mount_point == Path::new(CONVENTIONAL));
        let mode = match unified {
            Some(_) if at_top || mounts.len() == 1 => Mode::V2,
            Some(_) => Mode::Hybrid,
            None if mounts.is_empty() => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "no cgroup file system is mounted on this host",
                ));
            }
            None => Mode::V1,
        };
        if mode == Mode::V2 {
            mounts.retain(HierarchyMount::is_v2);
        } else {
            mounts.sort_by_key(HierarchyMount::is_v2);
        }
        Ok(Self { mode, mounts })
    }

    /// The index of the hierarchy where limits of `controller` are written: v1
    /// if one has it, else v2.
    pub fn index_of(&self, controller: Controller) -> Option<usize> {
        if controller == Controller::Other {
            return self.v2_index();
        }
        // v1 hierarchies come first.
        self.mounts.iter().position(|mount| mount.controllers.contains(controller))
    }

    /// Whether limits of `controller` are v2's: on a hybrid host those of
    /// controllers that no v1 hierarchy has, on a v2 host all.
    pub fn on_v2(&self, controller: Controller) -> bool {
        let index = self.index_of(controller);
        self.mode == Mode::V2 || index.is_some() && index == self.v2_index()
    }

    /// The index of the v2 hierarchy.
    pub fn v2_index(&self) -> Option<usize> {
        self.mounts.iter().position(HierarchyMount::is_v2)
    }
}

/// One cgroup line of a `mountinfo` file.
#[derive(Debug, Clone)]
pub(super) struct MountLine {
    /// `None` for a file system that is no cgroup but may cover one.
    kind: Option<Kind>,
    controllers: Controllers,
    /// The directory of the hierarchy that is mounted, `/` for all of it.
    pub(super) root: String,
    pub(super) mount_point: PathBuf,
}

impl MountLine {
    /// Fields: id parent major:minor root mount-point options [optional…] - type source super-options.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, mount_point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (fs, _source, options) = (right.next()?, right.next()?, right.next()?);
        let (kind, controllers) = match fs {
            "cgroup2" => (Some(Kind::V2), Controllers::default()),
            "cgroup" => v1_kind(options),
            _ => (None, Controllers::default()),
        };
        Some(Self {
            kind,
            controllers,
            root: unescape(root),
            mount_point: PathBuf::from(unescape(mount_point)),
        })
    }

    /// Whether it mounts the hierarchy of that kind.
    pub(super) fn is_of(&self, kind: &Kind) -> bool {
        self.kind.as_ref() == Some(kind)
    }

    fn rank(&self) -> (bool, bool) {
        (self.mount_point.starts_with(CONVENTIONAL), self.root == "/")
    }

    fn into_mount(self) -> Option<HierarchyMount> {
        let Self { kind, controllers, mount_point, .. } = self;
        Some(HierarchyMount { kind: kind?, controllers, mount_point })
    }
}

/// The kind of a v1 mount from its super-block options, such as
/// `rw,xattr,name=systemd` or `rw,cpu,cpuacct`.
fn v1_kind(options: &str) -> (Option<Kind>, Controllers) {
    let names: Vec<&str> =
        options.split(',').filter(|o| Controller::from_name(o).is_some()).collect();
    if !names.is_empty() {
        let controllers = names.iter().filter_map(|n| Controller::from_name(n)).collect();
        return (Some(Kind::V1(names.join(","))), controllers);
    }
    let name = options.split(',').find_map(|o| o.strip_prefix("name="));
    (name.map(|n| Kind::Named(n.to_owned())), Controllers::default())
}

/// Undoes the octal escapes of `mountinfo` (space, tab, newline, backslash).
fn unescape(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|c| u8::from_str_radix(c, 8).ok());
        match code {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) kind: Kind,
    /// As seen from the reader's cgroup namespace.
    pub(super) path: String,
}

impl Membership {
    fn controllers(&self) -> Controllers {
        match &self.kind {
            Kind::V1(list) => list.split(',').filter_map(Controller::from_name).collect(),
            _ => Controllers::default(),
        }
    }
}

/// Parses `/proc/PID/cgroup`: lines of `id:controllers:path`, where v2 is `0::path`.
/// Hierarchies with no controller known to us are left out.
pub(super) fn parse_membership(text: &str) -> impl Iterator<Item = Membership> {
    text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_id, list, path) = (fields.next()?, fields.next()?, fields.next()?);
        let kind = match (list, list.strip_prefix("name=")) {
            ("", _) => Kind::V2,
            (_, Some(name)) => Kind::Named(name.to_owned()),
            // A named hierarchy with controllers prints as `cpu,name=x`.
            _ => v1_kind(list).0?,
        };
        Some(Membership { kind, path: path.to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_ONE_BY_ONE: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    /// A systemd host in legacy mode, with co-mounted controllers, optional
    /// fields, and a container's bind mount of one hierarchy.
    const V1_SYSTEMD: &str = "\
24 29 0:22 / /sys rw,nosuid - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd
40 30 0:36 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:18 master:3 - cgroup cgroup rw,cpu,cpuacct
41 30 0:37 / /sys/fs/cgroup/net_cls,net_prio rw,nosuid shared:19 - cgroup cgroup rw,net_cls,net_prio
42 30 0:38 / /sys/fs/cgroup/cpuset rw shared:20 - cgroup cgroup rw,cpuset,clone_children
90 29 0:36 /docker/abc /var/lib/x/merged/sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
";

    const V2_SYSTEMD: &str = "\
24 29 0:22 / /sys rw,nosuid - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
77 29 0:50 / /run/vpn/net_cls rw - cgroup none rw,net_cls
";

    fn keys(layout: &Layout) -> Vec<String> {
        layout.mounts.iter().map(HierarchyMount::key).collect()
    }

    #[test]
    fn hybrid_with_single_controllers() {
        let layout = Layout::parse(HYBRID_ONE_BY_ONE).unwrap();
        assert_eq!(layout.mode, Mode::Hybrid);
        assert_eq!(keys(&layout), ["cpu", "cpuacct", "memory", "name=systemd", ""]);
        assert_eq!(layout.index_of(Controller::Memory), Some(2));
        assert_eq!(layout.index_of(Controller::Hugetlb), None);
        assert_eq!(layout.v2_index(), Some(4));
    }

    #[test]
    fn a_hybrid_host_may_have_a_controller_on_v2() {
        let mut layout = Layout::parse(HYBRID_ONE_BY_ONE).unwrap();
        layout.mounts[4].controllers = Controllers::parse_v2("hugetlb memory");
        assert_eq!(layout.index_of(Controller::Hugetlb), Some(4));
        assert!(layout.on_v2(Controller::Hugetlb) && layout.on_v2(Controller::Other));
        // v1 wins, and a controller that is nowhere is not on v2.
        assert_eq!(layout.index_of(Controller::Memory), Some(2));
        assert!(!layout.on_v2(Controller::Memory) && !layout.on_v2(Controller::Rdma));
        assert!(Layout::parse(V2_SYSTEMD).unwrap().on_v2(Controller::Rdma));
        let v1 = Layout::parse(V1_SYSTEMD).unwrap();
        assert!(!v1.on_v2(Controller::Cpu) && !v1.on_v2(Controller::Other));
    }

    #[test]
    fn v1_with_comounted_controllers_and_a_bind_elsewhere() {
        let layout = Layout::parse(V1_SYSTEMD).unwrap();
        assert_eq!(layout.mode, Mode::V1);
        assert_eq!(keys(&layout), ["name=systemd", "cpu,cpuacct", "net_cls,net_prio", "cpuset"]);
        assert_eq!(layout.index_of(Controller::Cpu), layout.index_of(Controller::Cpuacct));
        let cpu = &layout.mounts[layout.index_of(Controller::Cpu).unwrap()];
        assert_eq!(cpu.mount_point, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(layout.v2_index(), None);
    }

    #[test]
    fn the_order_of_the_bind_mount_does_not_matter() {
        let mut lines: Vec<&str> = V1_SYSTEMD.lines().collect();
        lines.reverse();
        let layout = Layout::parse(&lines.join("\n")).unwrap();
        let cpu = &layout.mounts[layout.index_of(Controller::Cpu).unwrap()];
        assert_eq!(cpu.mount_point, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    }

    #[test]
    fn v2_at_the_top_wins_over_a_stray_v1_mount() {
        let layout = Layout::parse(V2_SYSTEMD).unwrap();
        assert_eq!(layout.mode, Mode::V2);
        assert_eq!(keys(&layout), [""]);
        assert_eq!(layout.mounts[0].mount_point, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn a_covered_mount_is_not_seen() {
        let text =
            format!("{HYBRID_ONE_BY_ONE}50 35 0:60 / /sys/fs/cgroup/memory ro - tmpfs t ro\n");
        let layout = Layout::parse(&text).unwrap();
        assert_eq!(layout.index_of(Controller::Memory), None);
    }

    #[test]
    fn no_cgroups_is_an_error_and_rubbish_is_skipped() {
        let error = Layout::parse("1 2 3\n\n27 1 254:0 / / rw - ext4 /dev/vda rw\n").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(unescape(r"/a\040b\134c\"), r"/a b\c\");
    }

    #[test]
    fn membership_gives_the_same_layout_as_the_mounts() {
        let text = "9:name=systemd:/x\n4:memory:/a:b\n2:cpuacct:/\n1:cpu:/\n0::/y\n";
        let guess = Layout::guess(text).unwrap();
        let parsed = Layout::parse(HYBRID_ONE_BY_ONE).unwrap();
        assert_eq!(guess.mode, parsed.mode);
        for mount in &parsed.mounts {
            assert!(guess.mounts.contains(mount), "{mount:?}");
        }
        let entries: Vec<_> = parse_membership(text).collect();
        assert_eq!(entries[1].path, "/a:b");
        assert_eq!(entries[4].kind, Kind::V2);
    }
}
