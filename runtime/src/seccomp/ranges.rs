//! What happens to each system call number of an architecture: consecutive
//! numbers with the same outcome become one range.

use std::collections::HashMap;

use super::action;
use super::arch::Arch;
use super::profile::{Profile, Rule};

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The filter returns this.
    Return(u32),
    /// It depends on the arguments: an index into [`Ranges::checks`].
    Check(usize),
}

/// A rule to try, in order; `selector` comes on top for a call that is made
/// through another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Check {
    pub(super) rule: usize,
    pub(super) selector: Option<Selector>,
}

/// The first argument of socketcall(2) or ipc(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Selector {
    pub(super) mask: u64,
    pub(super) value: u16,
}

/// The outcomes of an architecture.
#[derive(Debug)]
pub(super) struct Ranges {
    /// First number and outcome, ascending; the first starts at the
    /// architecture's base and the last goes on to the end.
    pub(super) list: Vec<(u32, Outcome)>,
    /// Rules to try, each list once.
    pub(super) checks: Vec<Checks>,
}

/// Rules to try in order, and what to return when none holds.
#[derive(Debug, Clone)]
pub(super) struct Checks {
    pub(super) list: Vec<Check>,
    pub(super) otherwise: u32,
}

/// What the rules say of one number.
#[derive(Debug, Clone, Default)]
struct Slot {
    /// From the first rule without conditions: it outdoes all that have some,
    /// wherever they stand (as in libseccomp).
    always: Option<u32>,
    checks: Vec<Check>,
}

impl Ranges {
    /// The outcomes that `profile` has for `arch`.
    pub(super) fn new(profile: &Profile, arch: Arch) -> Self {
        let mut ranges = Self { list: Vec::new(), checks: Vec::new() };
        let mut known = HashMap::new();
        let slots = slots(profile, arch);
        let (listed, beyond) = (profile.highest[arch as usize], beyond(profile, arch));
        for (number, slot) in (0_u16..).zip(&slots) {
            let unnamed = if listed >= Some(number) { profile.default } else { beyond };
            let outcome = match slot.always {
                Some(value) => Outcome::Return(value),
                None if slot.checks.is_empty() => Outcome::Return(unnamed),
                None => {
                    Outcome::Check(*known.entry((&slot.checks, unnamed)).or_insert_with(|| {
                        ranges
                            .checks
                            .push(Checks { list: slot.checks.clone(), otherwise: unnamed });
                        ranges.checks.len() - 1
                    }))
                }
            };
            ranges.push(arch.base() + u32::from(number), outcome);
        }
        let end = arch.base().saturating_add(u32::try_from(slots.len()).unwrap_or(u32::MAX));
        ranges.push(end, Outcome::Return(beyond));
        ranges
    }

    fn push(&mut self, from: u32, outcome: Outcome) {
        if self.list.last().is_none_or(|(_, last)| *last != outcome) {
            self.list.push((from, outcome));
        }
    }
}

/// What numbers above all that the profile names return. Its author cannot
/// have known these calls, and a C library that meets EPERM or worse where
/// it expects "no such call" does not fall back to the older one. So they do
/// not exist, unless the default lets them pass, or the profile says nothing
/// about the architecture at all.
fn beyond(profile: &Profile, arch: Arch) -> u32 {
    match profile.highest[arch as usize] {
        Some(_) if !action::lets_pass(profile.default) => action::ENOSYS,
        _ => profile.default,
    }
}

fn slots(profile: &Profile, arch: Arch) -> Vec<Slot> {
    let count = profile.highest[arch as usize].map_or(0, |highest| usize::from(highest) + 1);
    let mut slots = vec![Slot::default(); count];
    for (index, rule) in profile.rules.iter().enumerate() {
        for call in &rule.calls {
            if let Some(number) = call.direct(arch) {
                let check = Check { rule: index, selector: None };
                add(&mut slots, number, check, rule.when.always(arch.wide()).then_some(rule.value));
            }
            if let Some(packed) = call.packed(arch)
                && expressible(profile, rule)
            {
                let selector = Selector { mask: packed.mask(), value: packed.selector };
                let check = Check { rule: index, selector: Some(selector) };
                add(&mut slots, packed.outer, check, None);
            }
        }
    }
    slots
}

fn add(slots: &mut Vec<Slot>, number: u16, check: Check, always: Option<u32>) {
    let at = usize::from(number);
    if at >= slots.len() {
        // socketcall(2) and ipc(2) may be above every number that is named.
        slots.resize(at + 1, Slot::default());
    }
    let Some(slot) = slots.get_mut(at) else { return };
    match always {
        Some(value) => _ = slot.always.get_or_insert(value),
        None if slot.checks.last() == Some(&check) => {}
        None => slot.checks.push(check),
    }
}

/// The arguments of a call that is made through socketcall(2) lie in memory,
/// where no filter sees them. A rule that loosens the default for some of them
/// is left out then, and one that tightens it holds for all: a profile never
/// lets more through than it says.
fn expressible(profile: &Profile, rule: &Rule) -> bool {
    rule.when.always(Arch::X86.wide()) || !action::looser(rule.value, profile.default)
}
