//! Classic BPF as seccomp takes it, put together from its end.
//!
//! Jumps only go forward, so whoever writes the last instruction first knows
//! every target before the jump to it. A conditional jump reaches 255
//! instructions; farther targets get a long jump, or a copy if they are a
//! return, right behind the instruction that needs it.

/// One instruction (linux/filter.h, `struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip when the condition holds.
    pub jt: u8,
    /// How many to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl Instruction {
    /// Length in bytes.
    pub const LEN: usize = 8;

    /// The bytes that an x86 kernel reads.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_le_bytes(), self.k.to_le_bytes());
        [c0, c1, self.jt, self.jf, k0, k1, k2, k3]
    }

    /// The opposite of [`Instruction::to_bytes`].
    pub fn from_bytes([c0, c1, jt, jf, k0, k1, k2, k3]: [u8; Self::LEN]) -> Self {
        let (code, k) = (u16::from_le_bytes([c0, c1]), u32::from_le_bytes([k0, k1, k2, k3]));
        Self { code, jt, jf, k }
    }
}

// linux/bpf_common.h
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// Conditional jumps on a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Jump {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
    AnyBit = 0x45,
}

/// The kernel's `BPF_MAXINSNS`.
pub(super) const MAX: usize = 4096;

/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// A place in the program, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The program so far, last instruction first.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    reversed: Vec<Instruction>,
    /// The newest return of each value.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    pub(super) fn new() -> Self {
        Self { reversed: Vec::with_capacity(1024), returns: Vec::new() }
    }

    /// Whether it is longer than the kernel takes; more would be in vain.
    pub(super) fn full(&self) -> bool {
        self.reversed.len() > MAX
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// How many instructions the next one would skip to get to `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }

    /// Returns `value`.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        match self.returns.iter().find(|(known, _)| *known == value) {
            Some((_, label)) => *label,
            None => {
                let label = self.push(RETURN, 0, 0, value);
                self.returns.push((value, label));
                label
            }
        }
    }

    /// Does the same as `label`, and at most `REACH - spare` away.
    fn near(&mut self, label: Label, spare: usize) -> Label {
        if self.distance(label) + spare <= REACH {
            return label;
        }
        let Some(target) = self.reversed.get(label.0).copied() else { return label };
        if target.code != RETURN {
            let skip = u32::try_from(self.distance(label)).unwrap_or(u32::MAX);
            return self.push(JUMP, 0, 0, skip);
        }
        let newest = self.ret(target.k);
        if self.distance(newest) + spare <= REACH {
            return newest;
        }
        self.returns.retain(|(value, _)| *value != target.k);
        self.ret(target.k)
    }

    /// Goes to `then` when the loaded value fulfils the test, else to `other`.
    pub(super) fn branch(&mut self, jump: Jump, k: u32, then: Label, other: Label) -> Label {
        if then == other {
            return then;
        }
        // Making one target near moves the other away by one.
        let other = self.near(other, 1);
        let then = self.near(then, 0);
        let [jt, jf] = [then, other].map(|l| u8::try_from(self.distance(l)).unwrap_or(u8::MAX));
        self.push(jump as u16, jt, jf, k)
    }

    /// Loads the word at `offset` of `struct seccomp_data`, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.before(LOAD, offset, next)
    }

    /// Masks the loaded value, then goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.before(AND, mask, next)
    }

    fn before(&mut self, code: u16, k: u32, next: Label) -> Label {
        let distance = self.distance(next);
        if distance > 0 {
            self.push(JUMP, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX));
        }
        self.push(code, 0, 0, k)
    }

    /// The program in the order in which it runs.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}
