//! What was left out of a layer without harm.

/// The first few warnings in full, and how many there were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    /// The first ones.
    pub texts: Vec<String>,
    /// All of them.
    pub count: u64,
}

impl Warnings {
    /// An image must not be able to fill a log.
    const KEPT: usize = 20;

    pub(super) fn add(&mut self, text: String) {
        if self.texts.len() < Self::KEPT {
            self.texts.push(text);
        }
        self.count += 1;
    }
}
