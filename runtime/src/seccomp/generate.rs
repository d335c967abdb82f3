//! The program for a profile.
//!
//! ```text
//! architecture ── x86-64, x32 ──> binary search over ranges of numbers ──> return
//!              ├─ i386 ─────────> binary search                        └─> arguments ──> return
//!              └─ other ────────> kill
//! ```
//! The kernel runs a filter in its head for every number when it is loaded, so
//! that calls which are always allowed cost nothing later; the depth of the
//! tree is what loading costs.

use super::action::KILL_THREAD;
use super::arch::{Arch, X32_BIT};
use super::asm::{Assembler, Instruction, Jump, Label};
use super::profile::{Condition, Profile, Rule, Test, When};
use super::ranges::{Check, Checks, Outcome, Ranges};

// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The whole program; longer than the kernel takes if `profile` is too large.
pub(super) fn program(profile: &Profile) -> Vec<Instruction> {
    let mut asm = Assembler::new();
    let foreign = asm.ret(KILL_THREAD);
    let mut entry = foreign;
    if profile.arches.contains(&Arch::X86) {
        let tree = Generator::new(&mut asm, profile, Arch::X86).tree();
        let start = asm.load(NUMBER, tree);
        entry = asm.branch(Jump::Equal, Arch::X86.audit(), start, foreign);
    }
    let x32 = if profile.arches.contains(&Arch::X32) {
        Generator::new(&mut asm, profile, Arch::X32).tree()
    } else {
        // Not a call at all: what a tracer puts there to have a call skipped.
        let skipped = asm.ret(profile.default);
        asm.branch(Jump::Equal, u32::MAX, skipped, foreign)
    };
    let x86_64 = Generator::new(&mut asm, profile, Arch::X86_64).tree();
    let mode = asm.branch(Jump::GreaterOrEqual, X32_BIT, x32, x86_64);
    let start = asm.load(NUMBER, mode);
    let entry = asm.branch(Jump::Equal, Arch::X86_64.audit(), start, entry);
    asm.load(ARCH, entry);
    asm.finish()
}

struct Generator<'a> {
    asm: &'a mut Assembler,
    profile: &'a Profile,
    ranges: Ranges,
    wide: bool,
    /// Where the code of each list of checks is, once it is there.
    checks: Vec<Option<Label>>,
}

impl<'a> Generator<'a> {
    fn new(asm: &'a mut Assembler, profile: &'a Profile, arch: Arch) -> Self {
        let ranges = Ranges::new(profile, arch);
        let checks = vec![None; ranges.checks.len()];
        Self { asm, profile, ranges, wide: arch.wide(), checks }
    }

    fn tree(&mut self) -> Label {
        self.search(0, self.ranges.list.len())
    }

    /// Finds the range that the number is in, among those from `low` up to `high`.
    fn search(&mut self, low: usize, high: usize) -> Label {
        let part = self.ranges.list.get(low..high).unwrap_or_default();
        match *part {
            [] => self.asm.ret(KILL_THREAD),
            [(_, outcome)] => self.outcome(outcome),
            // One number between two ranges that are treated alike.
            [(_, around), (number, alone), (after, same)]
                if same == around && after == number + 1 =>
            {
                let (around, alone) = (self.outcome(around), self.outcome(alone));
                self.asm.branch(Jump::Equal, number, alone, around)
            }
            _ => {
                let middle = low + part.len() / 2;
                let first = part.get(part.len() / 2).map_or(0, |(first, _)| *first);
                let above = self.search(middle, high);
                let below = self.search(low, middle);
                self.asm.branch(Jump::GreaterOrEqual, first, above, below)
            }
        }
    }

    fn outcome(&mut self, outcome: Outcome) -> Label {
        match outcome {
            Outcome::Return(value) => self.asm.ret(value),
            Outcome::Check(index) => {
                if let Some(label) = self.checks.get(index).copied().flatten() {
                    return label;
                }
                let Some(checks) = self.ranges.checks.get(index).cloned() else {
                    return self.asm.ret(KILL_THREAD);
                };
                let label = self.first_of(&checks);
                if let Some(place) = self.checks.get_mut(index) {
                    *place = Some(label);
                }
                label
            }
        }
    }

    /// The first check that holds decides.
    fn first_of(&mut self, checks: &Checks) -> Label {
        let mut otherwise = self.asm.ret(checks.otherwise);
        for check in checks.list.iter().rev() {
            let Some(rule) = self.profile.rules.get(check.rule) else { continue };
            otherwise = self.check(check, rule, otherwise);
            if self.asm.full() {
                break;
            }
        }
        otherwise
    }

    fn check(&mut self, check: &Check, rule: &Rule, otherwise: Label) -> Label {
        let holds = self.asm.ret(rule.value);
        if let Some(selector) = check.selector {
            let (mask, value) = (selector.mask, u64::from(selector.value));
            let test = Condition { argument: 0, test: Test::Equal, mask, value, negated: false };
            return self.condition(&test, holds, otherwise);
        }
        match &rule.when {
            When::Always => holds,
            When::All(conditions) => {
                conditions.iter().rev().fold(holds, |next, c| self.condition(c, next, otherwise))
            }
            When::Any(conditions) => {
                let mut otherwise = otherwise;
                for condition in conditions.iter().rev() {
                    otherwise = self.condition(condition, holds, otherwise);
                    if self.asm.full() {
                        break;
                    }
                }
                otherwise
            }
        }
    }

    fn condition(&mut self, condition: &Condition, holds: Label, fails: Label) -> Label {
        let (yes, no) = if condition.negated { (fails, holds) } else { (holds, fails) };
        let low_at = ARGUMENTS + 8 * u32::from(condition.argument);
        let [(low_mask, high_mask), (low, high)] = [condition.mask, condition.value].map(halves);
        match condition.test {
            Test::Equal => {
                let equal = self.equal(low_at, low_mask, low, yes, no);
                if !self.wide {
                    return equal;
                }
                self.equal(low_at + 4, high_mask, high, equal, no)
            }
            Test::Greater | Test::GreaterOrEqual => {
                let jump = match condition.test {
                    Test::Greater => Jump::Greater,
                    _ => Jump::GreaterOrEqual,
                };
                let test = self.asm.branch(jump, low, yes, no);
                let lower = self.asm.load(low_at, test);
                if !self.wide {
                    return lower;
                }
                let same = self.asm.branch(Jump::Equal, high, lower, no);
                let test = self.asm.branch(Jump::Greater, high, yes, same);
                self.asm.load(low_at + 4, test)
            }
        }
    }

    /// Half of an argument, masked, against a value.
    fn equal(&mut self, offset: u32, mask: u32, value: u32, yes: Label, no: Label) -> Label {
        match (mask, value) {
            (0, _) => yes,
            (_, 0) if mask != u32::MAX => {
                let test = self.asm.branch(Jump::AnyBit, mask, no, yes);
                self.asm.load(offset, test)
            }
            (u32::MAX, _) => {
                let test = self.asm.branch(Jump::Equal, value, yes, no);
                self.asm.load(offset, test)
            }
            _ => {
                let test = self.asm.branch(Jump::Equal, value, yes, no);
                let masked = self.asm.and(mask, test);
                self.asm.load(offset, masked)
            }
        }
    }
}

/// Lower and upper half.
fn halves(value: u64) -> (u32, u32) {
    ((value & 0xffff_ffff) as u32, (value >> 32) as u32)
}
