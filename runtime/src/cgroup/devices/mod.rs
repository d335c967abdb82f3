//! `linux.resources.devices`: ordered rules, where the last match decides.
//!
//! ```text
//! parse      config.json + the default rules → checked rules
//! table      v1: a default and exceptions to it, as lines for the kernel
//! program    v2: an eBPF program; pure
//! install    v2: program → cgroup, by replacement
//! sys        bpf(2)
//! ```
//!
//! "The last match" is asked for read, write and mknod apart: a later rule on
//! reading leaves what earlier ones say about writing. The v1 form cannot
//! express every list; what it cannot becomes a program where the host has v2,
//! else an error, and never a wider permission in silence.

mod install;
mod program;
#[allow(unsafe_code, reason = "bpf(2) takes pointers inside a union of structs")]
mod sys;
mod table;

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

pub(super) use self::install::{Loaded, install};
pub use self::program::DeviceProgram;
pub(super) use self::table::Table;
use super::controller::Controller;
use super::layout::Layout;
use crate::error::{Error, ErrorKind, Result};

const FIELD: &str = "linux.resources.devices";

/// Character or block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DeviceKind {
    Char,
    Block,
}

/// Read, write and mknod as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access(u8);

impl Access {
    /// Read, write and mknod.
    pub const ALL: Self = Self(7);
    /// mknod alone.
    pub const MKNOD: Self = Self(4);
    const LETTERS: [(u8, char); 3] = [(1, 'r'), (2, 'w'), (4, 'm')];

    fn parse(text: &str) -> Option<Self> {
        let bit = |c| Self::LETTERS.iter().find(|(_, l)| *l == c).map(|(bit, _)| *bit);
        let bits = text.chars().try_fold(0, |bits, c| Some(bits | bit(c)?))?;
        (bits != 0).then_some(Self(bits))
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::LETTERS
            .iter()
            .filter(|(b, _)| self.0 & b != 0)
            .try_for_each(|(_, l)| write!(f, "{l}"))
    }
}

/// Which devices a rule speaks of; `None` is every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceMatch {
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
}

impl DeviceMatch {
    /// Whether every device of `other` is one of ours.
    fn covers(&self, other: &Self) -> bool {
        let part = |ours: Option<u32>, theirs| ours.is_none() || ours == theirs;
        self.kind == other.kind && part(self.major, other.major) && part(self.minor, other.minor)
    }

    /// Whether some device belongs to both.
    fn meets(&self, other: &Self) -> bool {
        let part = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && part(self.major, other.major) && part(self.minor, other.minor)
    }
}

impl fmt::Display for DeviceMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = if self.kind == DeviceKind::Char { 'c' } else { 'b' };
        write!(f, "{kind} {}:{}", part(self.major), part(self.minor))
    }
}

/// One checked rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// The devices; `None` is every device, and then `access` is [`Access::ALL`].
    pub devices: Option<DeviceMatch>,
    /// What is allowed or denied.
    pub access: Access,
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allow { "allow " } else { "deny " })?;
        match self.devices {
            Some(devices) => write!(f, "{devices} {}", self.access),
            None => f.write_str("a *:* rwm"),
        }
    }
}

/// What every container may do besides its own rules, as runc has it
/// (`libcontainer/specconv`, tun again since 1.2.4): mknod of anything, the
/// harmless memory devices, terminals, tun.
const DEFAULT: [(DeviceKind, Option<u32>, Option<u32>, Access); 11] = [
    (DeviceKind::Char, None, None, Access::MKNOD),
    (DeviceKind::Block, None, None, Access::MKNOD),
    (DeviceKind::Char, Some(1), Some(3), Access::ALL),
    (DeviceKind::Char, Some(1), Some(5), Access::ALL),
    (DeviceKind::Char, Some(1), Some(7), Access::ALL),
    (DeviceKind::Char, Some(1), Some(8), Access::ALL),
    (DeviceKind::Char, Some(1), Some(9), Access::ALL),
    (DeviceKind::Char, Some(5), Some(0), Access::ALL),
    (DeviceKind::Char, Some(5), Some(2), Access::ALL),
    (DeviceKind::Char, Some(136), None, Access::ALL),
    (DeviceKind::Char, Some(10), Some(200), Access::ALL),
];

/// The rules of a config: everything denied, then its own in order, then the default ones.
pub(super) fn parse(resources: Option<&LinuxResources>) -> Result<Vec<DeviceRule>> {
    let own = resources.and_then(|r| r.devices().as_ref());
    let mut rules = vec![DeviceRule { allow: false, devices: None, access: Access::ALL }];
    for (index, rule) in own.into_iter().flatten().enumerate() {
        parse_rule(index, rule, &mut rules)?;
    }
    rules.extend(DEFAULT.iter().map(|&(kind, major, minor, access)| DeviceRule {
        allow: true,
        devices: Some(DeviceMatch { kind, major, minor }),
        access,
    }));
    Ok(rules)
}

fn parse_rule(index: usize, rule: &LinuxDeviceCgroup, out: &mut Vec<DeviceRule>) -> Result<()> {
    let field = |name: &str| format!("{FIELD}[{index}].{name}");
    let access = match rule.access().as_deref() {
        None | Some("") => Access::ALL,
        Some(text) => Access::parse(text).ok_or_else(|| {
            Error::field(field("access"), format!("{text:?} has letters other than r, w and m"))
        })?,
    };
    let major = number(&field("major"), rule.major())?;
    let minor = number(&field("minor"), rule.minor())?;
    let kinds: &[DeviceKind] = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => &[DeviceKind::Char, DeviceKind::Block],
        LinuxDeviceType::B => &[DeviceKind::Block],
        LinuxDeviceType::C | LinuxDeviceType::U => &[DeviceKind::Char],
        LinuxDeviceType::P => {
            return Err(Error::field(field("type"), "\"p\" is no device; use a, b or c"));
        }
    };
    let allow = rule.allow();
    if kinds.len() == 2 && (major, minor, access) == (None, None, Access::ALL) {
        out.push(DeviceRule { allow, devices: None, access });
        return Ok(());
    }
    out.extend(kinds.iter().map(|&kind| {
        let devices = Some(DeviceMatch { kind, major, minor });
        DeviceRule { allow, devices, access }
    }));
    Ok(())
}

/// A device number; absent and −1 mean every number.
fn number(field: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n)
            .map(Some)
            .map_err(|_| Error::field(field, format!("{n} is no device number"))),
    }
}

/// How a container's device rules are enforced on this host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Enforcement {
    /// v1: the lines of the devices controller.
    pub(super) table: Option<Table>,
    /// v2: the program; `None` when none is needed.
    pub(super) program: Option<DeviceProgram>,
}

impl Enforcement {
    /// v1 where the host has that controller and it can express the rules and
    /// change them without a gap, else a program on v2. In the second case v1
    /// allows everything and the program alone decides.
    ///
    /// `now` is the v1 table of a living cgroup.
    ///
    /// # Errors
    /// `InvalidInput` for rules that v1 cannot express on a host without v2,
    /// `Unsupported` on a host with neither.
    pub(super) fn choose(
        rules: &[DeviceRule],
        layout: &Layout,
        now: Option<&Table>,
    ) -> Result<Self> {
        let has_v2 = layout.v2_index().is_some();
        if layout.index_of(Controller::Devices).is_none() {
            return match has_v2 {
                true => Ok(Self { table: None, program: DeviceProgram::compile(rules)? }),
                false => {
                    let text = "the cgroup v1 hierarchies of this host lack the devices controller";
                    Err(Error::field(FIELD, text).with_kind(ErrorKind::Unsupported))
                }
            };
        }
        let table = Table::new(rules);
        // Exceptions to "allow" come after the allowing in v1, and "deny"
        // before its exceptions: in between the wrong thing holds.
        let gap = table.as_ref().is_ok_and(|t| t.default_allow && !t.exceptions.is_empty())
            || now.is_some_and(|now| now.default_allow);
        match table {
            Ok(table) if !gap || !has_v2 => Ok(Self { table: Some(table), program: None }),
            Err(error) if !has_v2 => Err(error),
            _ => Ok(Self { table: Some(Table::all()), program: DeviceProgram::compile(rules)? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Result<Vec<DeviceRule>> {
        let resources = serde_json::from_str(&format!(r#"{{"devices":{json}}}"#)).unwrap();
        parse(Some(&resources))
    }

    fn lines(json: &str) -> Vec<String> {
        let table = Table::new(&rules(json).unwrap()).unwrap();
        table.writes().iter().map(|w| format!("{} {}", w.file, w.value)).collect()
    }

    #[test]
    fn nothing_asked_is_deny_all_plus_the_defaults() {
        let lines = lines("[]");
        assert_eq!(lines[0], "devices.deny a");
        assert_eq!(lines.len(), 12);
        for want in ["c *:* m", "b *:* m", "c 1:3 rwm", "c 136:* rwm", "c 5:2 rwm", "c 10:200 rwm"]
        {
            assert!(lines.contains(&format!("devices.allow {want}")), "{want}");
        }
        assert_eq!(parse(None).unwrap(), rules("[]").unwrap());
    }

    #[test]
    fn own_rules_are_ordered_and_minus_one_is_a_wildcard() {
        let lines = lines(
            r#"[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"c","major":10,"minor":229,"access":"rw"},
                {"allow":true,"type":"b","major":8,"minor":-1,"access":"r"}]"#,
        );
        assert!(lines.contains(&"devices.allow c 10:229 rw".into()));
        assert!(lines.contains(&"devices.allow b 8:* r".into()));
    }

    #[test]
    fn privileged_is_one_write() {
        assert_eq!(lines(r#"[{"allow":true,"access":"rwm"}]"#), ["devices.allow a"]);
        assert_eq!(lines(r#"[{"allow":true,"type":"a"}]"#), ["devices.allow a"]);
    }

    #[test]
    fn a_typed_rule_is_not_taken_for_all_devices() {
        let lines = lines(r#"[{"allow":true,"type":"a","major":9,"minor":1,"access":"r"}]"#);
        assert!(lines.contains(&"devices.allow c 9:1 r".into()));
        assert!(lines.contains(&"devices.allow b 9:1 r".into()));
        assert_eq!(lines[0], "devices.deny a");
    }

    #[test]
    fn bad_rules_name_their_field() {
        let cases = [
            (r#"[{"allow":true,"access":"rx"}]"#, "linux.resources.devices[0].access: "),
            (r#"[{"allow":true,"type":"c","major":-2}]"#, "linux.resources.devices[0].major: "),
            (
                r#"[{"allow":true,"type":"c","minor":4294967296}]"#,
                "linux.resources.devices[0].minor: ",
            ),
            (r#"[{"allow":true},{"allow":true,"type":"p"}]"#, "linux.resources.devices[1].type: "),
        ];
        for (json, start) in cases {
            let text = rules(json).unwrap_err().to_string();
            assert!(text.starts_with(start), "{text}");
        }
    }

    /// Red if a host's own means are passed over, or a gap is accepted where
    /// the host can do without.
    #[test]
    fn each_host_enforces_rules_by_what_it_has() {
        let devices = "36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";
        let memory = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let v2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let how = |mounts: &[&str], json: &str, now: Option<&Table>| {
            let layout = Layout::parse(&mounts.concat()).unwrap();
            let chosen = Enforcement::choose(&rules(json).unwrap(), &layout, now);
            chosen.map(|e| (e.table.map(|t| t.default_allow), e.program.is_some()))
        };
        let simple = "[]";
        let all = r#"[{"allow":true}]"#;
        let all_but = r#"[{"allow":true},{"allow":false,"type":"c","major":1,"minor":11}]"#;
        let hard = r#"[{"allow":true,"type":"c","major":7,"access":"rw"},
                       {"allow":false,"type":"c","major":7,"minor":3,"access":"w"}]"#;
        let (v1, hybrid) = ([devices], [devices, v2]);
        assert_eq!(how(&v1, simple, None).unwrap(), (Some(false), false));
        assert_eq!(how(&v1, all_but, None).unwrap(), (Some(true), false));
        assert_eq!(how(&v1, hard, None).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(how(&hybrid, simple, None).unwrap(), (Some(false), false));
        assert_eq!(how(&hybrid, all, None).unwrap(), (Some(true), false));
        assert_eq!(how(&hybrid, all_but, None).unwrap(), (Some(true), true));
        assert_eq!(how(&hybrid, hard, None).unwrap(), (Some(true), true));
        assert_eq!(how(&hybrid, simple, Some(&Table::all())).unwrap(), (Some(true), true));
        assert_eq!(how(&v1, simple, Some(&Table::all())).unwrap(), (Some(false), false));
        for json in [simple, all_but, hard] {
            assert_eq!(how(&[v2], json, None).unwrap(), (None, true));
            assert_eq!(how(&[memory, v2], json, None).unwrap(), (None, true));
        }
        assert_eq!(how(&[v2], all, None).unwrap(), (None, false));
        assert_eq!(how(&[memory], simple, None).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
