//! Device rules as an eBPF program (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15).
//!
//! The kernel runs it with `{ access << 16 | kind, major, minor }`
//! (`struct bpf_cgroup_dev_ctx`, linux/bpf.h) whenever a process of the cgroup
//! opens or makes a device node; 1 allows, 0 is `EPERM`.
//!
//! There is a section for either kind of device, which tests its rules from the
//! last to the first. A register holds what was asked for and no rule has
//! decided yet: a matching "allow" takes its bits out, and when none are left
//! the answer is yes; a "deny" that meets one of them answers no. What is left
//! at the end is up to the default.
//!
//! The shape is the verifier's taste, whose time is part of every container
//! start: one jump per rule on a device's number as a whole, straight to the
//! answer where the rule decides everything.

use std::collections::BTreeMap;

use super::{Access, DeviceKind, DeviceMatch, DeviceRule, FIELD};
use crate::error::{Error, Result};

/// The verifier gives up at 8192 jumps that it has not followed yet
/// (`BPF_COMPLEXITY_LIMIT_JMP_SEQ`), and a rule has two at most.
const MAX_RULES: usize = 2048;

/// A device number is 12 + 20 bits (linux/kdev_t.h); a rule about a larger one
/// speaks of no device.
const MINOR_BITS: u32 = 20;
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << MINOR_BITS) - 1;

/// A device program, not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProgram {
    code: Vec<Insn>,
}

/// One instruction, as the kernel has it (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Insn {
    code: u8,
    /// The destination in the low half on little-endian machines, in the high one on others.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The answer.
const R0: u8 = 0;
/// On entry.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// What was asked for and is not decided.
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Major and minor in one.
const NUMBER: u8 = 6;
/// Where a rule does not end the matter, numbers are compared in here: in their
/// own register the verifier would learn what they must be, follow each
/// possibility to the end of the section, and give up at a thousand rules.
const SCRATCH: u8 = 7;

/// Opcodes (Documentation/bpf/standardization/instruction-set.rst): class,
/// operation, and whether the operand is a register. All arithmetic and all
/// conditional jumps are the 32-bit kind (jumps since 5.1), because the 64-bit
/// kind would extend the sign of an immediate.
mod op {
    /// `dst = *(u32 *)(src + offset)`
    pub(super) const LOAD: u8 = 0x61;
    /// `dst = src`
    pub(super) const MOVE: u8 = 0xbc;
    /// `dst |= src`
    pub(super) const OR: u8 = 0x4c;
    /// `dst = immediate`
    pub(super) const SET: u8 = 0xb4;
    /// `dst &= immediate`
    pub(super) const AND: u8 = 0x54;
    /// `dst ^= immediate`
    pub(super) const XOR: u8 = 0xa4;
    /// `dst <<= immediate`
    pub(super) const SHIFT_LEFT: u8 = 0x64;
    /// `dst >>= immediate`
    pub(super) const SHIFT_RIGHT: u8 = 0x74;
    /// `if dst == immediate goto offset`
    pub(super) const JUMP_EQUAL: u8 = 0x16;
    /// `if dst != immediate goto offset`
    pub(super) const JUMP_UNEQUAL: u8 = 0x56;
    /// `if dst & immediate goto offset`
    pub(super) const JUMP_ANY: u8 = 0x46;
    pub(super) const EXIT: u8 = 0x95;
}

impl Insn {
    const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: u32) -> Self {
        let registers = if cfg!(target_endian = "big") { dst << 4 | src } else { src << 4 | dst };
        Self { code, registers, offset, immediate: immediate.cast_signed() }
    }
}

impl DeviceProgram {
    /// Compiles rules, which start with one for all devices; `None` when every
    /// access is allowed, so that no program is needed.
    ///
    /// # Errors
    /// `InvalidInput` for more than 2048 rules that have an effect.
    pub(in crate::cgroup) fn compile(rules: &[DeviceRule]) -> Result<Option<Self>> {
        let Essence { default_allow, rules } = Essence::of(rules);
        if rules.len() > MAX_RULES {
            let text = format!("{} different rules are more than {MAX_RULES}", rules.len());
            return Err(Error::field(FIELD, text));
        }
        if default_allow && rules.is_empty() {
            return Ok(None);
        }
        let mut code = vec![
            Insn::new(op::LOAD, KIND, CONTEXT, 0, 0),
            Insn::new(op::MOVE, ASKED, KIND, 0, 0),
            Insn::new(op::SHIFT_RIGHT, ASKED, 0, 0, 16),
            Insn::new(op::AND, KIND, 0, 0, 0xffff),
            Insn::new(op::LOAD, MAJOR, CONTEXT, 4, 0),
            Insn::new(op::LOAD, MINOR, CONTEXT, 8, 0),
            Insn::new(op::MOVE, NUMBER, MAJOR, 0, 0),
            Insn::new(op::SHIFT_LEFT, NUMBER, 0, 0, MINOR_BITS),
            Insn::new(op::OR, NUMBER, MINOR, 0, 0),
        ];
        let [chars, blocks] = [DeviceKind::Char, DeviceKind::Block].map(|kind| {
            let mut section = Section::default();
            let own = rules.iter().filter(|(devices, ..)| devices.kind == kind);
            section.fill(own, default_allow)
        });
        let over = chars.len() as i16;
        code.push(Insn::new(op::JUMP_UNEQUAL, KIND, 0, over, kind_number(DeviceKind::Char)));
        code.extend(chars);
        code.extend(blocks);
        Ok(Some(Self { code }))
    }

    /// How many instructions it has.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.code.len()
    }

    pub(super) fn code(&self) -> &[Insn] {
        &self.code
    }
}

/// The instructions for one kind of device, at most 2048 × 5 and the answers.
#[derive(Default)]
struct Section {
    code: Vec<Insn>,
    /// Which instructions jump to which answer.
    jumps: Vec<(usize, bool)>,
}

impl Section {
    fn fill<'a>(
        &mut self,
        rules: impl Iterator<Item = &'a (DeviceMatch, bool, Access)>,
        default_allow: bool,
    ) -> Vec<Insn> {
        let mut default = default_allow;
        for &(devices, allow, access) in rules {
            let test = number(devices);
            if access == Access::ALL && test.is_none() {
                // Nothing behind it would ever be reached, which the verifier refuses.
                default = allow;
                break;
            }
            self.rule(test, allow, access);
        }
        let start = self.code.len();
        for allow in [default, !default] {
            self.code.push(Insn::new(op::SET, R0, 0, 0, u32::from(allow)));
            self.code.push(Insn::new(op::EXIT, 0, 0, 0, 0));
        }
        for &(at, allow) in &self.jumps {
            let target = if allow == default { start } else { start + 2 };
            self.code[at].offset = (target - at - 1) as i16;
        }
        if self.jumps.iter().all(|(_, allow)| *allow == default) {
            self.code.truncate(start + 2);
        }
        std::mem::take(&mut self.code)
    }

    fn rule(&mut self, test: Option<(u8, u32)>, allow: bool, access: Access) {
        match test {
            Some((register, value)) if access == Access::ALL => {
                return self.answer_if(op::JUMP_EQUAL, register, value, allow);
            }
            Some((register, value)) => {
                let over = if allow { 2 } else { 1 };
                self.code.push(Insn::new(op::MOVE, SCRATCH, register, 0, 0));
                self.code.push(Insn::new(op::XOR, SCRATCH, 0, 0, value));
                self.code.push(Insn::new(op::JUMP_UNEQUAL, SCRATCH, 0, over, 0));
            }
            None => {}
        }
        let bits = access_number(access);
        if allow {
            self.code.push(Insn::new(op::AND, ASKED, 0, 0, !bits));
            self.answer_if(op::JUMP_EQUAL, ASKED, 0, true);
        } else {
            self.answer_if(op::JUMP_ANY, ASKED, bits, false);
        }
    }

    fn answer_if(&mut self, condition: u8, register: u8, value: u32, allow: bool) {
        self.jumps.push((self.code.len(), allow));
        self.code.push(Insn::new(condition, register, 0, 0, value));
    }
}

/// The register that tells these devices from others of their kind, and its value.
fn number(devices: DeviceMatch) -> Option<(u8, u32)> {
    match (devices.major, devices.minor) {
        (Some(major), Some(minor)) => Some((NUMBER, major << MINOR_BITS | minor)),
        (Some(major), None) => Some((MAJOR, major)),
        (None, Some(minor)) => Some((MINOR, minor)),
        (None, None) => None,
    }
}

/// `BPF_DEVCG_DEV_BLOCK` and `…_CHAR`.
fn kind_number(kind: DeviceKind) -> u32 {
    match kind {
        DeviceKind::Block => 1,
        DeviceKind::Char => 2,
    }
}

/// `BPF_DEVCG_ACC_MKNOD` 1, `…_READ` 2, `…_WRITE` 4.
fn access_number(access: Access) -> u32 {
    let Access(bits) = access;
    u32::from(bits << 1 & 6 | bits >> 2 & 1)
}

/// What the rules come down to: the default, and the rules that can make a
/// difference, the last one first.
struct Essence {
    default_allow: bool,
    rules: Vec<(DeviceMatch, bool, Access)>,
}

impl Essence {
    fn of(rules: &[DeviceRule]) -> Self {
        let mut kept = Vec::new();
        // What later rules decide, by their pattern.
        let mut decided: BTreeMap<DeviceMatch, u8> = BTreeMap::new();
        let mut default_allow = false;
        for rule in rules.iter().rev() {
            let Some(devices) = rule.devices else {
                default_allow = rule.allow;
                break;
            };
            if devices.major > Some(MAX_MAJOR) || devices.minor > Some(MAX_MINOR) {
                continue;
            }
            let later = wider(devices).filter_map(|d| decided.get(&d)).fold(0, |a, b| a | b);
            let bits = rule.access.0 & !later;
            if bits != 0 {
                // With what was decided before, this may be the end of the matter.
                let access = if bits | later == Access::ALL.0 { Access::ALL } else { Access(bits) };
                kept.push((devices, rule.allow, access));
                *decided.entry(devices).or_default() |= bits;
            }
        }
        // The first rules say nothing new if they say what holds anyhow.
        while kept.last().is_some_and(|(_, allow, _)| *allow == default_allow) {
            kept.pop();
        }
        Self { default_allow, rules: kept }
    }
}

/// The patterns that cover all of `devices`, itself included.
fn wider(devices: DeviceMatch) -> impl Iterator<Item = DeviceMatch> {
    let DeviceMatch { kind, major, minor } = devices;
    [(major, minor), (major, None), (None, minor), (None, None)]
        .into_iter()
        .map(move |(major, minor)| DeviceMatch { kind, major, minor })
}

#[cfg(test)]
mod tests;
