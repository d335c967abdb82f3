//! Device rules as a v1 cgroup has them.

use std::collections::BTreeMap;

use super::{Access, DeviceKind, DeviceMatch, DeviceRule, FIELD};
use crate::cgroup::Controller;
use crate::cgroup::limits::Write;
use crate::error::{Error, Result};

/// The v1 kernel's form: a default, and exceptions by exact pattern
/// (Documentation/admin-guide/cgroup-v1/devices.rst).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cgroup) struct Table {
    pub(super) default_allow: bool,
    pub(super) exceptions: BTreeMap<DeviceMatch, Access>,
}

impl Table {
    /// Folds the rules in order.
    ///
    /// # Errors
    /// A rule that takes back part of a wider exception: a v1 table has no way
    /// to say so.
    pub(in crate::cgroup) fn new(rules: &[DeviceRule]) -> Result<Self> {
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

    /// Every device allowed.
    pub(super) fn all() -> Self {
        Self { default_allow: true, exceptions: BTreeMap::new() }
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
    pub(in crate::cgroup) fn read(list: &str) -> Option<Self> {
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
    pub(in crate::cgroup) fn writes(&self) -> Vec<Write> {
        let mut out = vec![write(self.default_allow, "a".to_owned())];
        let lines = self.exceptions.iter().map(|(d, access)| format!("{d} {access}"));
        out.extend(lines.map(|line| write(!self.default_allow, line)));
        out
    }

    /// The writes that lead from `current` to this table. Between two tables
    /// that deny by default there is no moment in which a device allowed by
    /// both is refused; else v1 offers no such way. Exceptions for all devices of
    /// both kinds would come near to allowing by default, but nothing can be
    /// excepted from them, and no child cgroup may allow by default below them.
    pub(in crate::cgroup) fn writes_from(&self, current: &Self) -> Vec<Write> {
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
        keep_first: false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
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
