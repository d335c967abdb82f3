//! Bytes that compress as files of images do: text about threefold, programs about twofold. The
//! same on every run.

/// Bytes of each kind.
const SIZE: usize = 8 << 20;

/// A generator of pseudo-random numbers (xorshift64*), by its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        (self.unit() * count as f64) as usize
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `count`, the small ones more often: a word in three is one of the commonest.
    fn common(&mut self, count: usize) -> usize {
        const START: f64 = 3.0;
        let span = ((count as f64 + START) / START).ln();
        let at = START * (self.unit() * span).exp() - START;
        (at as usize).min(count - 1)
    }

    /// Sizes of files: many of a few KiB and some of hundreds (log-normal).
    pub(crate) fn file_size(&mut self) -> usize {
        let normal = (-2.0 * self.unit().max(1e-12).ln()).sqrt()
            * (std::f64::consts::TAU * self.unit()).cos();
        ((7.2 + 1.45 * normal).exp() as usize).min(400_000)
    }
}

/// Both kinds.
pub(crate) struct Pool {
    pub(crate) text: Vec<u8>,
    pub(crate) program: Vec<u8>,
}

impl Pool {
    pub(crate) fn new() -> Self {
        let mut random = Random::new(1);
        Self { text: text(&mut random), program: program(&mut random) }
    }
}

fn text(random: &mut Random) -> Vec<u8> {
    const LETTERS: &[u8] = b"etaoinshrdlucmfwypvbgkqjxz";
    let mut words: Vec<Vec<u8>> = Vec::new();
    for _ in 0..9000 {
        let length = 2 + random.below(10);
        words.push((0..length).map(|_| LETTERS[random.common(LETTERS.len())]).collect());
    }
    let mut out = Vec::with_capacity(SIZE + 16);
    while out.len() < SIZE {
        out.extend_from_slice(&words[random.common(words.len())]);
        let end: &[u8] = match random.below(12) {
            0 => b";\n    ",
            1 => b", ",
            _ => b" ",
        };
        out.extend_from_slice(end);
    }
    out
}

/// Sequences that come again, with operands between them that do not.
fn program(random: &mut Random) -> Vec<u8> {
    let mut runs: Vec<Vec<u8>> = Vec::new();
    for _ in 0..20_000 {
        let length = 3 + random.below(12);
        runs.push((0..length).map(|_| random.common(256) as u8).collect());
    }
    let mut out = Vec::with_capacity(SIZE + 16);
    while out.len() < SIZE {
        out.extend_from_slice(&runs[random.common(runs.len())]);
        if random.below(3) == 0 {
            out.extend_from_slice(&random.next().to_le_bytes()[..2]);
        }
    }
    out
}
