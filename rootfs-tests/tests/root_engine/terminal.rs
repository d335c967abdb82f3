//! Terminals: made in the container, held by the engine's caller.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use boathook_runtime::{ErrorKind, Stdio, console};
use rootfs_tests::image::USER;
use rootfs_tests::wait::Deadline;
use serde_json::json;

use super::support::live::wait_for;
use super::support::streams::{Reader, Streams};
use super::support::{Arena, Case, LIMIT, Live, tests};

tests!(
    a_terminal_is_all_three_streams,
    it_is_the_controlling_one_and_the_console,
    it_has_the_size_that_was_asked_for,
    resizing_tells_the_program,
    input_and_its_control_characters_arrive,
    closing_the_master_hangs_up,
    it_belongs_to_the_user,
    an_exec_has_one_of_its_own,
    streams_and_config_must_agree,
    without_devpts_there_is_no_terminal,
);

fn terminal<'a>(arena: &'a Arena, script: &str) -> Case<'a> {
    let mut case = arena.sh(script);
    case.config["process"]["terminal"] = json!(true);
    case
}

/// Starts the container; the reader has the terminal's output.
fn start(case: &Case<'_>) -> (Live, Reader, OwnedFd) {
    let mut live = case.create_with(Stdio::Terminal).unwrap_or_else(|e| panic!("create: {e}"));
    live.start();
    let master = live.console.take().expect("a master");
    let reader = Reader::new(master.try_clone().unwrap());
    (live, reader, master)
}

/// Red if one of the three is something else, or the terminal's way of ending lines is lost.
fn a_terminal_is_all_three_streams(arena: &Arena) {
    let script = "tty; for fd in 0 1 2; do readlink /proc/self/fd/$fd; done; echo err >&2; exit 9";
    let (live, mut reader, _master) = start(&terminal(arena, script));
    let all = reader.rest(Deadline::after(LIMIT));
    assert_eq!(all, "/dev/pts/0\r\n".repeat(4) + "err\r\n");
    assert_eq!(live.wait(), 9);
    live.delete();
}

/// Red if job control cannot work, or /dev/console is another terminal or none.
fn it_is_the_controlling_one_and_the_console(arena: &Arena) {
    let script = "echo tty > /dev/tty; echo console > /dev/console; stat -c %t:%T /dev/console; \
                  cut -d' ' -f 5-8 /proc/self/stat; echo $$";
    let (live, mut reader, _master) = start(&terminal(arena, script));
    let all = reader.rest(Deadline::after(LIMIT));
    let lines: Vec<&str> = all.lines().collect();
    // Group, session, terminal (136:0), group in the foreground.
    assert_eq!(lines, ["tty", "console", "88:0", "1 1 34816 1", "1"]);
    live.delete();
}

/// Red if width and height are mixed up, or set too late for the program to see.
fn it_has_the_size_that_was_asked_for(arena: &Arena) {
    let mut case = terminal(arena, "stty size");
    case.config["process"]["consoleSize"] = json!({ "width": 121, "height": 33 });
    let (live, mut reader, _master) = start(&case);
    assert_eq!(reader.rest(Deadline::after(LIMIT)).trim_end(), "33 121");
    live.delete();
}

/// Red if a resize does not reach the program as SIGWINCH with the new size.
fn resizing_tells_the_program(arena: &Arena) {
    let script = "trap 'stty size' WINCH; echo on; while :; do sleep 1000000 & wait $!; done";
    let (live, mut reader, master) = start(&terminal(arena, script));
    assert_eq!(reader.line(Deadline::after(LIMIT)), "on");
    console::resize(master.as_fd(), 99, 44).unwrap();
    assert_eq!(reader.line(Deadline::after(LIMIT)), "44 99");
    let error = console::resize(master.as_fd(), 65536, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    live.delete();
}

/// Red if input goes astray, or Ctrl-C reaches nobody.
fn input_and_its_control_characters_arrive(arena: &Arena) {
    let script = "stty -echo; trap 'echo interrupted; exit 5' INT; echo on; read -r line; \
                  echo \"got $line\"; while :; do sleep 0.01; done";
    let (live, mut reader, master) = start(&terminal(arena, script));
    let mut master = fs::File::from(master);
    assert_eq!(reader.line(Deadline::after(LIMIT)), "on");
    master.write_all(b"some words\n").unwrap();
    assert_eq!(reader.line(Deadline::after(LIMIT)), "got some words");
    master.write_all(b"\x03").unwrap();
    assert_eq!(reader.line(Deadline::after(LIMIT)).trim_start_matches("^C"), "interrupted");
    assert_eq!(live.wait(), 5);
    live.delete();
}

/// Red if somebody else keeps the master open: the session would not hear that its user is gone.
fn closing_the_master_hangs_up(arena: &Arena) {
    let script = "trap 'exit 6' HUP; echo on; while :; do sleep 0.01; done";
    let (live, mut reader, master) = start(&terminal(arena, script));
    assert_eq!(reader.line(Deadline::after(LIMIT)), "on");
    drop((reader, master));
    assert_eq!(live.wait(), 6);
    live.delete();
}

/// Red if a user cannot open the own terminal again, as `sudo` and `screen` do.
fn it_belongs_to_the_user(arena: &Arena) {
    let mut case = terminal(arena, "stat -c '%u %g %a' $(tty) /dev/console; echo again > $(tty)");
    case.user(USER, USER, &[]);
    let (live, mut reader, _master) = start(&case);
    let all = reader.rest(Deadline::after(LIMIT));
    assert_eq!(all, format!("{USER} 5 620\r\n").repeat(2) + "again\r\n");
    live.delete();
}

/// Red if an exec takes the container's terminal, gets none, or moves /dev/console.
fn an_exec_has_one_of_its_own(arena: &Arena) {
    let (live, _reader, _master) = start(&terminal(arena, "exec sleep 1000000"));
    let script = "tty; echo on > /dev/tty; stat -c %t:%T /dev/console; stat -c %u $(tty)";
    let mut process = live.process_spec(&["/bin/sh", "-c", script]);
    process["user"] = json!({ "uid": USER, "gid": USER });
    process["consoleSize"] = json!({ "width": 10, "height": 5 });
    let (process, master) = live.exec_with(&process, Stdio::Terminal).unwrap();
    process.start(LIMIT).unwrap();
    let all = Reader::new(master.unwrap()).rest(Deadline::after(LIMIT));
    assert_eq!(all, format!("/dev/pts/1\r\non\r\n88:0\r\n{USER}\r\n"));
    assert_eq!(wait_for(&process), 0);
    live.delete();
}

/// Red if a program that wants a terminal runs on pipes, or the other way round.
fn streams_and_config_must_agree(arena: &Arena) {
    let error = terminal(arena, "true").create_with(Streams::pipes().0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().starts_with("process.terminal: "), "{error}");
    let error = arena.sh("true").create_with(Stdio::Terminal).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().starts_with("process.terminal: "), "{error}");
}

/// Red if a terminal of the host is used where the container has none, or the error does not say
/// what is missing.
fn without_devpts_there_is_no_terminal(arena: &Arena) {
    let mut case = terminal(arena, "true");
    case.without_mount("/dev/pts");
    let error = case.create_with(Stdio::Terminal).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
    assert!(text.contains("terminal") && text.contains("/dev/pts"), "{text}");
    assert!(fs::metadata(case.file("/dev")).unwrap().is_dir());
    assert!(!case.file("/dev/console").exists());
    assert_eq!(fs::metadata(case.file("/dev")).unwrap().uid(), 0);
}
