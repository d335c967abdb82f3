//! What this program does inside a container, where busybox is not enough.

use std::process::ExitCode;

/// The first argument that makes the program a payload.
pub(crate) const FLAG: &str = "--payload";

/// Runs the payload that the arguments name; `None` when this is the test program itself.
pub(crate) fn called() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != FLAG {
        return None;
    }
    let name = arguments.next().unwrap_or_default();
    Some(match name.as_str() {
        other => {
            eprintln!("no payload {other:?}");
            ExitCode::from(99)
        }
    })
}
