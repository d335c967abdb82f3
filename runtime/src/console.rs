//! Terminals as the engine sees them: the master's side.

use std::os::fd::BorrowedFd;

use rustix::termios::{Winsize, tcsetwinsize};

use crate::{Error, Result};

/// Sets the size of the terminal whose master is `master`, in characters.
///
/// # Errors
/// `InvalidInput` above 65535; otherwise what the kernel says.
pub fn resize(master: BorrowedFd<'_>, width: u32, height: u32) -> Result<()> {
    let fit = |name: &str, value: u32| {
        u16::try_from(value).map_err(|_| Error::field(name, format!("{value} is more than 65535")))
    };
    let size = Winsize {
        ws_col: fit("width", width)?,
        ws_row: fit("height", height)?,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).map_err(|e| Error::sys("set the terminal's size", e))
}
