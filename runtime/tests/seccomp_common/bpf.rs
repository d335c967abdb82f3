//! Classic BPF as the kernel reads it: what it accepts, and what a program does.

use boathook_runtime::seccomp::Instruction;

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) number: u32,
    pub(crate) arch: u32,
    pub(crate) pointer: u64,
    pub(crate) args: [u64; 6],
}

impl Data {
    pub(crate) fn word(&self, offset: u32) -> u32 {
        let half = |value: u64| (value >> (8 * (offset % 8))) as u32;
        match offset {
            0 => self.number,
            4 => self.arch,
            8 | 12 => half(self.pointer),
            _ => half(self.args[offset as usize / 8 - 2]),
        }
    }
}

pub(crate) const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
pub(crate) const JUMP: u16 = 0x05;
pub(crate) const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_OR_EQUAL: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
pub(crate) const RETURN: u16 = 0x06;

/// What kernel/seccomp.c and net/core/filter.c check before they take a program.
pub(crate) fn verify(program: &[Instruction]) -> Result<(), String> {
    if program.is_empty() || program.len() > 4096 {
        return Err(format!("{} instructions", program.len()));
    }
    for (at, i) in program.iter().enumerate() {
        let inside = |skip: usize| at + 1 + skip < program.len();
        let fine = match i.code {
            LOAD => i.k % 4 == 0 && i.k < 64,
            AND | RETURN => true,
            JUMP => inside(i.k as usize),
            EQUAL | GREATER | GREATER_OR_EQUAL | ANY_BIT => {
                inside(usize::from(i.jt)) && inside(usize::from(i.jf))
            }
            _ => false,
        };
        if !fine {
            return Err(format!("instruction {at}: {i:x?}"));
        }
    }
    match program.last() {
        Some(last) if last.code == RETURN => Ok(()),
        last => Err(format!("ends with {last:x?}")),
    }
}

/// One run of a program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// What it returned.
    pub(crate) value: u32,
    /// How many instructions that took.
    pub(crate) steps: usize,
    /// Whether it looked at the call's number.
    pub(crate) saw_number: bool,
}

pub(crate) fn run(program: &[Instruction], data: &Data) -> Run {
    let (mut at, mut a) = (0, 0_u32);
    let mut run = Run { value: 0, steps: 0, saw_number: false };
    loop {
        let i = program[at];
        let go = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        at += 1;
        run.steps += 1;
        match i.code {
            LOAD => {
                a = data.word(i.k);
                run.saw_number |= i.k == 0;
            }
            AND => a &= i.k,
            JUMP => at += i.k as usize,
            EQUAL => at += go(a == i.k),
            GREATER => at += go(a > i.k),
            GREATER_OR_EQUAL => at += go(a >= i.k),
            ANY_BIT => at += go(a & i.k != 0),
            RETURN => return Run { value: i.k, ..run },
            other => panic!("instruction {}: code {other:#x}", at - 1),
        }
    }
}
