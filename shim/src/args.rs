//! The command line containerd gives a shim: Go style flags and one action.
//!
//! The order of flags differs between daemon versions, so nothing is read by
//! position but the action itself, which is the only word without a dash.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::{Failure, Result};

/// What the program was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Bind the socket, leave a server behind, print its address.
    Start,
    /// Remove what a container left behind, print its exit status.
    Delete,
    /// Print `containerd.types.RuntimeInfo`.
    Info,
    /// Print name and version for people.
    Version,
}

/// The flags, as far as this shim needs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-namespace`: containerd's namespace of the container.
    pub namespace: String,
    /// `-address`: the daemon's gRPC socket; part of the shim socket's name.
    pub address: String,
    /// `-id`: the container the daemon calls for.
    pub id: String,
    /// `-bundle`: only given with `delete`.
    pub bundle: Option<PathBuf>,
    /// `-debug`: write debug lines to the log.
    pub debug: bool,
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// An unknown flag, a flag without its value, no action or two of them.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Action, Flags)> {
    let mut flags = Flags::default();
    let mut action = None;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let arg = text(arg)?;
        let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
            set_action(&mut action, word(&arg)?)?;
            continue;
        };
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        match name {
            "debug" => flags.debug = boolean(name, inline.as_deref())?,
            "info" if boolean(name, inline.as_deref())? => set_action(&mut action, Action::Info)?,
            "v" | "version" if boolean(name, inline.as_deref())? => {
                set_action(&mut action, Action::Version)?;
            }
            "info" | "v" | "version" => {}
            _ => {
                let value = match inline {
                    Some(value) => value,
                    None => text(args.next().ok_or_else(|| invalid(name, "needs a value"))?)?,
                };
                set_value(&mut flags, name, value)?;
            }
        }
    }
    let action = action.ok_or_else(|| Failure::invalid("no action: start or delete expected"))?;
    Ok((action, flags))
}

fn set_value(flags: &mut Flags, name: &str, value: String) -> Result<()> {
    match name {
        "namespace" => flags.namespace = value,
        "address" => flags.address = value,
        "id" => flags.id = value,
        "bundle" => flags.bundle = Some(value.into()),
        // Part of the contract, of no use here: events go over ttrpc, and the
        // socket's name is ours to choose.
        "publish-binary" | "socket" => {}
        _ => return Err(invalid(name, "unknown flag")),
    }
    Ok(())
}

fn set_action(slot: &mut Option<Action>, action: Action) -> Result<()> {
    match slot.replace(action) {
        None => Ok(()),
        Some(before) => Err(Failure::invalid(format!("two actions: {before:?} and {action:?}"))),
    }
}

fn word(arg: &str) -> Result<Action> {
    match arg {
        "start" => Ok(Action::Start),
        "delete" => Ok(Action::Delete),
        _ => Err(Failure::invalid(format!("unknown action {arg:?}: start or delete expected"))),
    }
}

fn boolean(name: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(invalid(name, format!("{other:?} is neither true nor false"))),
    }
}

fn text(arg: OsString) -> Result<String> {
    arg.into_string().map_err(|arg| Failure::invalid(format!("argument {arg:?} is not UTF-8")))
}

fn invalid(flag: &str, problem: impl std::fmt::Display) -> Failure {
    Failure::invalid(format!("-{flag}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<(Action, Flags)> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn reads_the_lines_of_every_daemon() {
        let lines = [
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id a start",
            "-id a -namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd start",
            "start --id=a --namespace=k8s.io --address=/run/c.sock",
        ];
        for line in lines {
            let (action, flags) = run(line).unwrap();
            assert_eq!(action, Action::Start, "{line}");
            assert_eq!(
                flags,
                Flags {
                    namespace: "k8s.io".into(),
                    address: "/run/c.sock".into(),
                    id: "a".into(),
                    ..Flags::default()
                },
                "{line}"
            );
        }
    }

    #[test]
    fn delete_has_a_bundle_and_debug_may_stand_anywhere() {
        let (action, flags) = run("-id a -bundle /b -debug delete").unwrap();
        assert_eq!((action, flags.debug), (Action::Delete, true));
        assert_eq!(flags.bundle, Some(PathBuf::from("/b")));
        assert!(!run("-debug=false -id a start").unwrap().1.debug);
    }

    #[test]
    fn info_and_version_are_flags() {
        assert_eq!(run("-info").unwrap().0, Action::Info);
        assert_eq!(run("-v").unwrap().0, Action::Version);
        assert!(run("-v=false").is_err());
    }

    #[test]
    fn wrong_lines_name_what_is_wrong() {
        for (line, part) in [
            ("", "no action"),
            ("-id", "-id: needs a value"),
            ("-nope x start", "-nope: unknown flag"),
            ("-debug=maybe start", "\"maybe\""),
            ("start delete", "two actions"),
            ("launch", "\"launch\""),
        ] {
            let error = run(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
