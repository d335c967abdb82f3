//! A blob that is read for somebody who wants to know how far it is, or not to go on.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

/// Who wants to know how far it is.
pub trait Progress: Sync {
    /// So many more bytes of blobs were read.
    fn read(&self, bytes: u64);
}

impl Progress for () {
    fn read(&self, _: u64) {}
}

/// Tells how far it is, and ends with an error once `stop` is set.
pub(crate) struct Watched<'w, R> {
    pub(crate) inner: R,
    pub(crate) progress: &'w dyn Progress,
    pub(crate) stop: &'w AtomicBool,
    /// The error's text.
    pub(crate) why: &'static str,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(self.why));
        }
        let count = self.inner.read(buffer)?;
        self.progress.read(count as u64);
        Ok(count)
    }
}
