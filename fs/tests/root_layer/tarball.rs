//! Archives written entry by entry, right or wrong as the test wants them.

// Each test binary uses its own part of this.
#![allow(dead_code)]

/// An archive under construction.
#[derive(Default)]
pub(crate) struct Tarball(Vec<u8>);

impl Tarball {
    /// A header of `kind` and its body, padded.
    pub(crate) fn entry(
        mut self,
        name: &str,
        kind: u8,
        mode: u32,
        link: &str,
        body: &[u8],
    ) -> Self {
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        block[108..124].copy_from_slice(b"0000000\x000000000\0");
        block[124..136].copy_from_slice(format!("{:011o}\0", body.len()).as_bytes());
        block[136..148].copy_from_slice(b"14524250400\0");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[329..345].copy_from_slice(b"0000000\x000000000\0");
        self.seal(block);
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn seal(&mut self, mut block: [u8; 512]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
    }

    pub(crate) fn file(self, name: &str, body: &str) -> Self {
        self.entry(name, b'0', 0o644, "", body.as_bytes())
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(name, b'5', mode, "", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', 0o777, target, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', 0o644, target, b"")
    }

    /// A character device.
    pub(crate) fn device(mut self, name: &str, major: u32, minor: u32) -> Self {
        let at = self.0.len();
        self = self.entry(name, b'3', 0o600, "", b"");
        let mut block: [u8; 512] = self.0[at..at + 512].try_into().unwrap();
        block[329..337].copy_from_slice(format!("{major:07o}\0").as_bytes());
        block[337..345].copy_from_slice(format!("{minor:07o}\0").as_bytes());
        self.0.truncate(at);
        self.seal(block);
        self
    }

    /// An extended header for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let line = |(key, value): &(&str, &str)| {
            let rest = format!(" {key}={value}\n");
            let digits = (1..8).find(|d| (rest.len() + d).to_string().len() == *d).unwrap();
            format!("{}{rest}", rest.len() + digits)
        };
        let body: String = records.iter().map(line).collect();
        self.entry("pax", b'x', 0, "", body.as_bytes())
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The last header that was written, with other bytes at `at`, sealed again.
    pub(crate) fn but(mut self, at: usize, bytes: &[u8]) -> Self {
        let start = self.0.len() - 512;
        let mut block: [u8; 512] = self.0[start..].try_into().unwrap();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        self.0.truncate(start);
        self.seal(block);
        self
    }

    /// The archive without its end.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }

    /// The archive with its end.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
