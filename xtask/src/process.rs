//! Starting programs: shown while they run, or captured, always with the
//! command line in the error.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let _ = write!(line, " {}", arg.to_string_lossy());
    }
    line
}

/// The directory of this workspace.
pub(crate) fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// `cargo` as it was used to start us, in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(workspace());
    command
}

/// Runs with the caller's terminal; fails when the program does.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    println!("$ {}", shown(command));
    let status = command.status().map_err(|e| not_started(command, &e))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::failed(format!("`{}` failed ({status})", shown(command))))
}

/// Runs in silence; on failure the error carries the whole output.
pub(crate) fn capture(command: &mut Command) -> Result<String, Error> {
    let output = command.output().map_err(|e| not_started(command, &e))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(Error::failed(format!(
        "`{}` failed ({}):\n{}",
        shown(command),
        output.status,
        text.trim_end()
    )))
}

/// Like [`capture`], but with stderr on the caller's terminal (cargo's progress).
pub(crate) fn capture_stdout(command: &mut Command) -> Result<String, Error> {
    println!("$ {}", shown(command));
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| not_started(command, &e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::failed(format!("`{}` failed ({})", shown(command), output.status)))
}

/// How a watched program ended.
pub(crate) enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed when its time was up.
    Overdue,
}

/// Runs with both streams merged line by line into `line`, for at most `limit`.
///
/// The process is killed at the deadline; what it started itself must tie its
/// own life to it.
pub(crate) fn watch(
    command: &mut Command,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<Ended, Error> {
    watch_stages(command, limit, |text| {
        line(text);
        None
    })
}

/// The same for a program with a first stage that has a limit of its own: what `line` returns is
/// the time that is left from then on.
pub(crate) fn watch_stages(
    command: &mut Command,
    limit: Duration,
    mut line: impl FnMut(&str) -> Option<Duration>,
) -> Result<Ended, Error> {
    let mut deadline = Instant::now() + limit;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| not_started(command, &e))?;
    let lines = lines_of(&mut child);
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => {
                if let Some(more) = line(&text) {
                    deadline = Instant::now() + more;
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => return overdue(child, command),
        }
    }
    // Both streams are closed: the exit follows at once.
    let status = child.wait().map_err(|e| not_started(command, &e))?;
    Ok(Ended::Exited(status))
}

fn overdue(mut child: Child, command: &Command) -> Result<Ended, Error> {
    child.kill().and_then(|()| child.wait()).map_err(|e| not_started(command, &e))?;
    Ok(Ended::Overdue)
}

fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|s| Box::new(s) as _),
        child.stderr.take().map(|s| Box::new(s) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut raw = Vec::new();
            while reader.read_until(b'\n', &mut raw).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&raw);
                if sender.send(text.trim_end_matches('\n').to_owned()).is_err() {
                    return;
                }
                raw.clear();
            }
        });
    }
    receiver
}

fn not_started(command: &Command, error: &std::io::Error) -> Error {
    Error::failed(format!("`{}`: {error}", shown(command)))
}

/// Whether `program` is in `$PATH`.
pub(crate) fn in_path(program: impl AsRef<OsStr>) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|dir| dir.join(program.as_ref()).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failed_command_brings_its_line_and_its_output() {
        let error = capture(&mut sh("echo out; echo err >&2; exit 7")).unwrap_err().to_string();
        for part in ["sh -c", "exit status: 7", "out", "err"] {
            assert!(error.contains(part), "{part:?} not in {error:?}");
        }
    }

    #[test]
    fn watch_hands_over_both_streams_and_the_exit() {
        let mut seen = Vec::new();
        let ended =
            watch(&mut sh("echo a; echo b >&2; printf c; exit 3"), Duration::from_secs(60), |l| {
                seen.push(l.to_owned());
            });
        seen.sort();
        assert_eq!(seen, ["a", "b", "c"]);
        assert!(matches!(ended.unwrap(), Ended::Exited(s) if s.code() == Some(3)));
    }

    #[test]
    fn watch_kills_what_outlives_its_limit() {
        let ended = watch(&mut sh("exec sleep 3600"), Duration::from_millis(50), |_| ());
        assert!(matches!(ended.unwrap(), Ended::Overdue));
    }

    #[test]
    fn a_stage_that_is_reached_has_time_of_its_own() {
        let mut seen = 0;
        let ended = watch_stages(
            &mut sh("echo up; read -r _ < /dev/null; sleep 0.3; echo done"),
            Duration::from_secs(60),
            |line| {
                seen += 1;
                (line == "up").then_some(Duration::from_secs(60))
            },
        );
        assert!(matches!(ended.unwrap(), Ended::Exited(_)) && seen == 2);
        let late =
            watch_stages(&mut sh("echo up; exec sleep 3600"), Duration::from_secs(3600), |_| {
                Some(Duration::from_millis(50))
            });
        assert!(matches!(late.unwrap(), Ended::Overdue));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("/no/such/program")).unwrap_err().to_string();
        assert!(error.contains("/no/such/program"), "{error}");
    }
}
