//! What init tells the engine: sixteen bytes, one message each.

/// Kinds of message from init.
pub mod kind {
    /// All steps before `Ready` are done; init waits for the start byte.
    pub const READY: u32 = 1;
    /// A step failed; init ends.
    pub const FAILED: u32 = 2;
    /// The master of the container's terminal is attached to the message.
    pub const CONSOLE: u32 = 3;
    /// Mounts are done and the old root is still there; init waits for a byte.
    pub const HOLD: u32 = 4;
    /// The listener of the process's filter is attached to the message; init
    /// waits for a byte.
    pub const LISTENER: u32 = 5;
    /// This process ends and its copy goes on; the copy's pid is the detail, and
    /// it waits for a byte.
    pub const BORN: u32 = 6;
    /// What the step says has to be done from outside; init waits for a byte.
    pub const ASK: u32 = 7;
}

/// Failures that no single errno tells; in [`Report::detail`].
pub mod detail {
    /// The plan cannot be decoded.
    pub const MALFORMED: u32 = 0x1000_0001;
    /// `argv[0]` has no slash and no directory of PATH holds it.
    pub const NOT_IN_PATH: u32 = 0x1000_0002;
    /// `argv[0]` is there but is not an executable file for this user.
    pub const NOT_EXECUTABLE: u32 = 0x1000_0003;
    /// `argv[0]` with a slash does not exist.
    pub const NO_SUCH_PROGRAM: u32 = 0x1000_0004;
    /// The working directory lies outside the root.
    pub const CWD_OUTSIDE: u32 = 0x1000_0005;
    /// Something else is at a path where a certain device is wanted.
    pub const OTHER_NODE: u32 = 0x1000_0006;
    /// The file is not on the file system that it has to be on.
    pub const WRONG_FS: u32 = 0x1000_0007;
    /// A descriptor of the plan did not arrive.
    pub const NO_SLOT: u32 = 0x1000_0008;
    /// `argv[0]` is a directory.
    pub const IS_DIRECTORY: u32 = 0x1000_0009;
    /// fsconfig(2) refused the step's first option; one more for each that came before.
    pub const OPTION: u32 = 0x2000_0000;
}

/// One message from init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// One of [`kind`].
    pub kind: u32,
    /// Index of the step it is about.
    pub step: u32,
    /// errno of the failed call, or 0.
    pub errno: u32,
    /// Number of the failed system call, or one of [`detail`].
    pub detail: u32,
}

impl Report {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// The message's bytes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let words = [self.kind, self.step, self.errno, self.detail];
        for (to, word) in out.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Reads a message; `None` when the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Some(Self { kind: word(0), step: word(4), errno: word(8), detail: word(12) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_wire() {
        let report =
            Report { kind: kind::FAILED, step: 70_000, errno: 13, detail: detail::WRONG_FS };
        assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
        assert_eq!(Report::from_bytes(&report.to_bytes()[1..]), None);
    }
}
