//! `linux.seccomp`: a profile becomes a program for the kernel, by a compiler of
//! our own (docs/seccomp.md says what it supports and how it differs from
//! libseccomp).
//!
//! ```text
//! LinuxSeccomp ─ profile ─> rules with numbers ─ ranges ─> outcome of every
//!      number ─ generate ─> search tree ─ asm ─> Filter
//! ```
//! Pure and quick enough to be done at every start: the profile that container
//! engines use by default, 380 names on three architectures, takes about 0.1 ms.

mod action;
pub(crate) mod agent;
mod arch;
mod asm;
mod call;
mod generate;
mod profile;
mod ranges;
mod syscalls;

use oci_spec::runtime::LinuxSeccomp;

pub use arch::Arch;
pub use asm::Instruction;
pub use profile::Listener;

use crate::{Error, Result};
use profile::Profile;

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What the kernel runs on every system call; at most 4096 instructions.
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2).
    pub flags: u32,
    /// Who gets the listening descriptor; `Some` if and only if `flags` ask for one.
    pub listener: Option<Listener>,
    /// Names that no architecture here has; they are left out, as every runtime
    /// does, because profiles are written for kernels and machines of all kinds.
    pub unknown: Vec<String>,
}

impl Filter {
    /// The program as it lies in memory.
    pub fn bytes(&self) -> Vec<u8> {
        self.program.iter().flat_map(|instruction| instruction.to_bytes()).collect()
    }
}

/// The program that lies in `bytes`; `None` for what is none.
pub(crate) fn program(bytes: &[u8]) -> Option<Vec<Instruction>> {
    let (instructions, rest) = bytes.as_chunks();
    let fits = (1..=asm::MAX).contains(&instructions.len()) && rest.is_empty();
    fits.then(|| instructions.iter().copied().map(Instruction::from_bytes).collect())
}

/// Compiles a profile.
///
/// # Errors
/// `InvalidInput` naming the field (config-linux.md, "Seccomp").
pub fn compile(spec: &LinuxSeccomp) -> Result<Filter> {
    let profile = Profile::new(spec)?;
    let program = generate::program(&profile);
    if program.len() > asm::MAX {
        let problem = format!("too large: more than {} instructions", asm::MAX);
        return Err(Error::field("linux.seccomp.syscalls", problem));
    }
    let Profile { flags, listener, unknown, .. } = profile;
    Ok(Filter { program, flags, listener, unknown })
}

/// The number of a system call as the kernel shows it to filters; `None` when
/// the architecture has no call of that name, or has it only inside
/// socketcall(2) or ipc(2).
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    let number = call::lookup(name)?.direct(arch)?;
    Some(arch.base() + u32::from(number))
}
