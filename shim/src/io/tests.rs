//! Streams over real fifos, pipes and pseudo-terminals.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::pipe::fcntl_getpipe_size;

use super::*;
use crate::failure::ErrorKind;

mod loggers;

/// No test waits longer for something that must happen.
const SOON: Duration = Duration::from_secs(20);

const WHOSE: Whose<'_> = Whose { id: "c1", namespace: "ns", owner: (0, 0) };

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn fifo(dir: &Path, name: &str) -> String {
    let path = dir.join(name);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    path.to_str().unwrap().to_owned()
}

fn reader(path: &str) -> File {
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).unwrap();
    rustix::fs::fcntl_setfl(&file, OFlags::empty()).unwrap();
    file
}

async fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::time::timeout(SOON, tokio::task::spawn_blocking(work)).await.unwrap().unwrap()
}

fn stdio(stdin: &str, stdout: &str, stderr: &str) -> Stdio {
    Stdio { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into(), terminal: false }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect()
}

#[test]
fn output_of_any_size_arrives_whole_and_ends() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "out");
        let (mut ends, prepared) = pipes(&stdio("", &path, ""), WHOSE).unwrap();
        assert!(ends.stdin.is_none() && ends.stderr.is_none());
        let streams = prepared.connect().unwrap();
        let mut out = reader(&path);
        let mut process = File::from(ends.stdout.take().unwrap());
        let data = pattern(1_000_003);
        let sent = data.clone();
        let writer = tokio::task::spawn_blocking(move || process.write_all(&sent).unwrap());
        let got = within(move || {
            let mut got = Vec::new();
            out.read_to_end(&mut got).unwrap();
            got
        })
        .await;
        writer.await.unwrap();
        assert!(got == data, "{} of {} bytes", got.len(), data.len());
        drop(streams);
    });
}

#[test]
fn output_waits_for_a_reader_that_comes_back() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "out");
        let (mut ends, prepared) = pipes(&stdio("", &path, ""), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        let process = File::from(ends.stdout.take().unwrap());
        // More than both pipes hold: the writer is stopped half-way, as a
        // workload is while the daemon is down.
        let size = 3 * fcntl_getpipe_size(process.as_fd()).unwrap();
        let data = pattern(size);
        drop(reader(&path));
        let sent = data.clone();
        let mut process_writer = process;
        let writer = tokio::task::spawn_blocking(move || process_writer.write_all(&sent));
        let again = path.clone();
        let got = within(move || {
            let mut got = vec![0; size];
            reader(&again).read_exact(&mut got).unwrap();
            got
        })
        .await;
        writer.await.unwrap().unwrap();
        assert!(got == data);
        streams.process_ended();
        streams.drained().await;
    });
}

/// Reads to the end, in a thread.
async fn all(path: &str) -> Vec<u8> {
    let path = path.to_owned();
    within(move || {
        let mut got = Vec::new();
        reader(&path).read_to_end(&mut got).unwrap();
        got
    })
    .await
}

/// Lets tasks do all they can do without waiting.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_client_that_comes_after_delete_was_asked_for_misses_nothing() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "out");
        let (mut ends, prepared) = pipes(&stdio("", &path, ""), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        File::from(ends.stdout.take().unwrap()).write_all(b"short life").unwrap();
        streams.process_ended();
        let drained = tokio::spawn(streams.drained());
        settle().await;
        assert_eq!(all(&path).await, b"short life");
        tokio::time::timeout(SOON, drained).await.unwrap().unwrap();
    });
}

#[test]
fn last_words_wait_for_a_daemon_that_is_away() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "out");
        let before = reader(&path);
        let (mut ends, prepared) = pipes(&stdio("", &path, ""), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        drop(before);
        File::from(ends.stdout.take().unwrap()).write_all(b"last words").unwrap();
        streams.process_ended();
        settle().await;
        assert_eq!(all(&path).await, b"last words");
    });
}

#[test]
fn more_than_a_fifo_holds_waits_for_longer_than_the_limit() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "out");
        let before = reader(&path);
        let (mut ends, prepared) = pipes(&stdio("", &path, ""), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        drop(before);
        let mut process = File::from(ends.stdout.take().unwrap());
        // The fifo full, and half a pipe more.
        let data = pattern(fcntl_getpipe_size(process.as_fd()).unwrap() * 3 / 2);
        let sent = data.clone();
        within(move || process.write_all(&sent).unwrap()).await;
        streams.process_ended();
        tokio::time::sleep(DRAIN_LIMIT + Duration::from_millis(100)).await;
        let got = all(&path).await;
        assert!(got == data, "{} of {} bytes", got.len(), data.len());
    });
}

#[test]
fn a_client_that_has_left_does_not_hold_up_delete() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "out");
        let client = reader(&path);
        let (mut ends, prepared) = pipes(&stdio("", &path, ""), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        drop(client);
        File::from(ends.stdout.take().unwrap()).write_all(b"unread").unwrap();
        streams.process_ended();
        let drained = tokio::spawn(streams.drained());
        settle().await;
        assert!(drained.is_finished(), "something was waited for");
    });
}

#[test]
fn a_background_child_does_not_hold_up_the_end() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "out");
        let (mut ends, prepared) = pipes(&stdio("", &path, ""), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        let mut out = reader(&path);
        let mut child = File::from(ends.stdout.take().unwrap());
        child.write_all(b"last words").unwrap();
        streams.process_ended();
        let drained = streams.drained();
        // The pipe is still open; far sooner than the limit all is through.
        let begun = std::time::Instant::now();
        drained.await;
        assert!(begun.elapsed() < DRAIN_LIMIT / 2, "waited for the child");
        let got = within(move || {
            let mut got = String::new();
            out.read_to_string(&mut got).unwrap();
            got
        })
        .await;
        assert_eq!(got, "last words");
        drop(child);
    });
}

#[test]
fn input_survives_its_clients_and_ends_when_closed() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = fifo(dir.path(), "in");
        let (mut ends, prepared) = pipes(&stdio(&path, "", ""), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        let mut process = File::from(ends.stdin.take().unwrap());
        for word in ["one ", "two "] {
            let mut client = OpenOptions::new().write(true).open(&path).unwrap();
            client.write_all(word.as_bytes()).unwrap();
        }
        streams.close_stdin();
        streams.close_stdin();
        let got = within(move || {
            let mut got = String::new();
            process.read_to_string(&mut got).unwrap();
            got
        })
        .await;
        assert_eq!(got, "one two ");
    });
}

#[test]
fn a_file_is_appended_to() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "before ").unwrap();
        let name = path.to_str().unwrap();
        let (mut ends, prepared) = pipes(&stdio("", name, name), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        File::from(ends.stdout.take().unwrap()).write_all(b"after").unwrap();
        drop(ends);
        streams.process_ended();
        tokio::time::timeout(SOON, streams.drained()).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before after");
    });
}

#[test]
fn a_file_uri_makes_the_file_and_what_is_above_it() {
    use std::os::unix::fs::PermissionsExt;
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b/c/log");
        let uri = format!("file://{}/a%20b/c/log", dir.path().display());
        for word in ["one ", "two "] {
            let (mut ends, prepared) = pipes(&stdio("", &uri, &uri), WHOSE).unwrap();
            let mut streams = prepared.connect().unwrap();
            File::from(ends.stdout.take().unwrap()).write_all(word.as_bytes()).unwrap();
            drop(ends);
            streams.process_ended();
            tokio::time::timeout(SOON, streams.drained()).await.unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one two ");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        // What the umask of the test allows of 0644 and 0755.
        assert_eq!(mode(&path) & !0o644, 0);
        assert_eq!(mode(path.parent().unwrap()) & !0o755, 0);
    });
}

#[test]
fn a_terminal_is_copied_both_ways_and_ends_with_its_last_user() {
    runtime().block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (fifo(dir.path(), "in"), fifo(dir.path(), "out"));
        let (master, slave) = open_terminal();
        let prepared = terminal(&stdio(&input, &output, ""), WHOSE).unwrap().with(master).unwrap();
        let mut streams = prepared.connect().unwrap();
        let mut out = reader(&output);
        let mut client = OpenOptions::new().write(true).open(&input).unwrap();
        client.write_all(b"typed\n").unwrap();
        let mut slave = File::from(slave);
        let (slave, line) = within(move || {
            let mut line = [0; 6];
            slave.read_exact(&mut line).unwrap();
            slave.write_all(b"shown\n").unwrap();
            (slave, line)
        })
        .await;
        assert_eq!(&line, b"typed\n");
        drop(slave);
        let got = within(move || {
            let mut got = String::new();
            out.read_to_string(&mut got).unwrap();
            got
        })
        .await;
        // The terminal echoes what was typed and ends lines with CR LF.
        assert_eq!(got, "typed\r\nshown\r\n");
        streams.process_ended();
        tokio::time::timeout(SOON, streams.drained()).await.unwrap();
    });
}

fn open_terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    (master, slave)
}

#[test]
fn values_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let missing = format!("{}/none", dir.path().display());
    for (stdio, kind, part) in [
        (stdio("", "binary:///no/program?a=b", ""), ErrorKind::InvalidInput, "/no/program"),
        (stdio("", "", "binary:///bin/true"), ErrorKind::InvalidInput, "stderr"),
        (stdio("", "binary:///bin/true", file), ErrorKind::InvalidInput, "stderr"),
        (stdio("binary:///bin/true", "", ""), ErrorKind::InvalidInput, "stdin"),
        (stdio("", &format!("file://{file}/below"), ""), ErrorKind::InvalidInput, "stdout"),
        (stdio("", "", "ttrpc+unix:///run/s"), ErrorKind::InvalidInput, "\"ttrpc+unix\""),
        (stdio("", "relative/path", ""), ErrorKind::InvalidInput, "relative/path"),
        (stdio("", &missing, ""), ErrorKind::InvalidInput, "none"),
        (stdio(file, "", ""), ErrorKind::InvalidInput, "not a fifo"),
    ] {
        let failure = pipes(&stdio, WHOSE).unwrap_err();
        assert_eq!(failure.kind(), kind, "{failure}");
        assert!(failure.to_string().contains(part), "{failure}");
    }
}
