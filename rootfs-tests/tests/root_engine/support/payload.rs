//! What this program does inside a container, where busybox is not enough.

use std::io::Result;
use std::process::ExitCode;

use super::{spy, sys};

/// The first argument that makes the program a payload.
const FLAG: &str = "--payload";

/// Where [`super::Case::with_payload`] puts the program.
pub(crate) const PLACE: &str = "/payload";

/// The arguments of a process that is to run a payload.
pub(crate) fn args<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[PLACE, FLAG, name], more].concat()
}

/// Runs the payload that the arguments name; `None` when this is the test program itself.
pub(crate) fn called() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != FLAG {
        return None;
    }
    let name = arguments.next().unwrap_or_default();
    let done = match name.as_str() {
        "eat" => eat(),
        "fail" => {
            let [bundle, state, kind] = [(); 3].map(|()| arguments.next().unwrap_or_default());
            crate::failing_calls::subject::serve(&bundle, &state, &kind)
        }
        "engine" => crate::killed::serve(&mut arguments),
        "keyring" => keyring(),
        "without" => {
            let [call, bundle, state] = [(); 3].map(|()| arguments.next().unwrap_or_default());
            crate::failing_calls::subject::without(&call, &bundle, &state)
        }
        "peek" => spy::peek(&arguments.next().unwrap_or_default()),
        "spy" => spy::spy(),
        other => Err(std::io::Error::other(format!("no payload {other:?}"))),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::from(99)
        }
    })
}

/// Takes memory until somebody minds.
fn eat() -> Result<()> {
    let mut held = Vec::new();
    loop {
        held.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&held);
    }
}

/// Prints the session keyring's description.
fn keyring() -> Result<()> {
    println!("{}", sys::session_keyring()?);
    Ok(())
}
