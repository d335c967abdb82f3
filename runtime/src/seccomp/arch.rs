//! The architectures whose programs an x86-64 kernel runs.

/// An architecture that a filter can cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// The machine's own.
    X86_64,
    /// 32-bit programs.
    X86,
    /// 32-bit pointers on 64-bit registers: x86-64's calls with a bit set.
    X32,
}

/// The bit of a system call's number that makes it one of x32.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::X86_64, Self::X86, Self::X32];

    /// `AUDIT_ARCH_*`, as the kernel tells it to filters; x32 is told from
    /// x86-64 by the call's number only.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
        }
    }

    /// What is added to a number of the table to get the number of the call.
    pub(super) fn base(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }

    /// Whether arguments are looked at in full or, as their calls take them,
    /// by their lower 32 bits.
    pub(super) fn wide(self) -> bool {
        self == Self::X86_64
    }
}
