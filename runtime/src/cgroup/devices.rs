//! `linux.resources.devices`: ordered rules, where the last match decides.
//!
//! [`parse`] checks them and adds the default ones; v2 turns the list into a
//! program, v1 into the kernel's form: a default and exceptions to it
//! ([`Table`]). The v1 form cannot express everything; what it cannot is an
//! error here and never a wider permission in silence.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::controller::Controller;
use super::limits::Write;
use crate::error::{Error, Result};

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

/// The v1 kernel's form: a default, and exceptions by exact pattern
/// (Documentation/admin-guide/cgroup-v1/devices.rst).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) default_allow: bool,
    pub(super) exceptions: BTreeMap<DeviceMatch, Access>,
}

impl Table {
    /// Folds the rules in order.
    ///
    /// # Errors
    /// A rule that takes back part of a wider exception: a v1 table has no way
    /// to say so.
    pub(super) fn new(rules: &[DeviceRule]) -> Result<Self> {
        let mut table = Self { default_allow: false, exceptions: BTreeMap::new() };
        for rule in rules {
            let Some(devices) = rule.devices else {
                table = Self { default_allow: rule.allow, exceptions: BTreeMap::new() };
                continue;
            };
            if rule.allow == table.default_allow {
                table.take_back(&devices, rule.access)?;
            } else {
                let entry = table.exceptions.entry(devices).or_insert(Access(0));
                *entry = Access(entry.0 | rule.access.0);
            }
        }
        Ok(table)
    }

    fn take_back(&mut self, devices: &DeviceMatch, access: Access) -> Result<()> {
        for (pattern, bits) in &mut self.exceptions {
            if devices.covers(pattern) {
                *bits = Access(bits.0 & !access.0);
            } else if devices.meets(pattern) && bits.0 & access.0 != 0 {
                let (verb, other) =
                    if self.default_allow { ("allow", "deny") } else { ("deny", "allow") };
                let text = format!(
                    "cgroup v1 cannot {verb} {devices} {access} after the wider rule to {other} {pattern} {bits}"
                );
                return Err(Error::field(FIELD, text));
            }
        }
        self.exceptions.retain(|_, bits| bits.0 != 0);
        Ok(())
    }

    /// Reads `devices.list`. A table whose default is "allow" does not show its exceptions.
    pub(super) fn read(list: &str) -> Option<Self> {
        let mut table = Self { default_allow: false, exceptions: BTreeMap::new() };
        for line in list.lines() {
            let (kind, rest) = line.split_once(' ')?;
            let (numbers, access) = rest.split_once(' ')?;
            let kind = match kind {
                "a" => {
                    table.default_allow = true;
                    continue;
                }
                "b" => DeviceKind::Block,
                "c" => DeviceKind::Char,
                _ => return None,
            };
            let (major, minor) = numbers.split_once(':')?;
            let part = |t: &str| if t == "*" { Some(None) } else { t.parse().ok().map(Some) };
            let devices = DeviceMatch { kind, major: part(major)?, minor: part(minor)? };
            table.exceptions.insert(devices, Access::parse(access)?);
        }
        Some(table)
    }

    /// The writes that give a new cgroup, whatever it took over from its parent, this table.
    pub(super) fn writes(&self) -> Vec<Write> {
        let mut out = vec![write(self.default_allow, "a".to_owned())];
        let lines = self.exceptions.iter().map(|(d, access)| format!("{d} {access}"));
        out.extend(lines.map(|line| write(!self.default_allow, line)));
        out
    }

    /// The writes that lead from `current` to this table, with no moment in
    /// which a device allowed by both is refused.
    pub(super) fn writes_from(&self, current: &Self) -> Vec<Write> {
        if self.default_allow || current.default_allow {
            return self.writes();
        }
        let mut out = Vec::new();
        let bits = |table: &Self, d: &DeviceMatch| table.exceptions.get(d).map_or(0, |a| a.0);
        for (devices, access) in &self.exceptions {
            let missing = Access(access.0 & !bits(current, devices));
            if missing.0 != 0 {
                out.push(write(true, format!("{devices} {missing}")));
            }
        }
        for (devices, access) in &current.exceptions {
            let surplus = Access(access.0 & !bits(self, devices));
            if surplus.0 != 0 {
                out.push(write(false, format!("{devices} {surplus}")));
            }
        }
        out
    }
}

fn write(allow: bool, value: String) -> Write {
    let file = if allow { "devices.allow" } else { "devices.deny" };
    Write {
        controller: Controller::Devices,
        file: file.into(),
        instead: None,
        value,
        field: FIELD.into(),
        optional: false,
        retry: false,
        single: false,
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
    fn a_later_rule_takes_back_what_it_covers() {
        let lines = lines(
            r#"[{"allow":true,"type":"c","major":7,"minor":1,"access":"rw"},
                {"allow":true,"type":"c","major":7,"minor":2,"access":"r"},
                {"allow":false,"type":"c","major":7,"access":"r"}]"#,
        );
        assert!(lines.contains(&"devices.allow c 7:1 w".into()));
        assert!(!lines.iter().any(|l| l.contains("7:2")), "{lines:?}");
    }

    #[test]
    fn what_v1_cannot_say_is_refused() {
        let rules = rules(
            r#"[{"allow":true,"type":"c","major":7,"access":"rw"},
                {"allow":false,"type":"c","major":7,"minor":3,"access":"w"}]"#,
        )
        .unwrap();
        let text = Table::new(&rules).unwrap_err().to_string();
        assert!(text.starts_with("linux.resources.devices: "), "{text}");
        assert!(text.contains("c 7:3 w") && text.contains("c 7:* rw"), "{text}");
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

    #[test]
    fn an_update_writes_the_difference_only() {
        let old = Table::read("c *:* m\nb *:* m\nc 1:3 rwm\nc 7:1 rw\n").unwrap();
        let mut new = old.clone();
        new.exceptions.remove(&DeviceMatch {
            kind: DeviceKind::Char,
            major: Some(7),
            minor: Some(1),
        });
        new.exceptions.insert(
            DeviceMatch { kind: DeviceKind::Block, major: Some(8), minor: None },
            Access(1),
        );
        let lines: Vec<_> =
            new.writes_from(&old).iter().map(|w| format!("{} {}", w.file, w.value)).collect();
        assert_eq!(lines, ["devices.allow b 8:* r", "devices.deny c 7:1 rw"]);
        assert!(old.writes_from(&old).is_empty());
        assert!(Table::read("a *:* rwm\n").unwrap().default_allow);
    }
}
