//! Logging programs: real ones, written in shell.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

/// Short enough to wait for.
const SHORT: Limits = Limits {
    ready: Duration::from_millis(200),
    end: Duration::from_millis(200),
    term: Duration::from_millis(200),
};

/// A program in a directory of its own.
struct Script {
    dir: tempfile::TempDir,
}

impl Script {
    /// A shell script that gets its directory as `$2`.
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // Written under another name: a file that is open for writing cannot be executed, and a
        // test beside this one may be forking right now.
        let draft = dir.path().join("draft");
        let text = format!("#!/bin/sh\ncd \"$2\"\necho $$ > pid\n{text}\n");
        let written = std::process::Command::new("/bin/sh")
            .args(["-c", "printf %s \"$1\" > \"$2\"", "sh", &text])
            .arg(&draft)
            .status();
        assert!(written.unwrap().success());
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        Self { dir }
    }

    fn uri(&self, scheme: &str) -> String {
        let dir = self.dir.path().display();
        format!("{scheme}://{dir}/log?dir={dir}&colour=dark+blue")
    }

    fn stdio(&self) -> Stdio {
        stdio("", &self.uri("binary"), &self.uri("binary"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Whether the program is still there, dead or alive.
    fn exists(&self) -> bool {
        let pid = self.said("pid");
        !pid.is_empty() && Path::new(&format!("/proc/{}", pid.trim())).exists()
    }
}

/// Closes its readiness, then keeps what it gets, and says at its end how that came.
const KEEPS: &str = "exec 5>&-\ncat <&3 > out &\ncat <&4 > err\nwait\necho end > ended";

#[test]
fn a_program_gets_both_streams_arguments_and_two_variables() {
    runtime().block_on(async {
        let script = Script::new(&format!("echo \"$@\" > args; /usr/bin/env > env\n{KEEPS}"));
        let (mut ends, prepared) = pipes(&script.stdio(), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        let data = pattern(300_007);
        let (sent, mut out) = (data.clone(), File::from(ends.stdout.take().unwrap()));
        within(move || out.write_all(&sent).unwrap()).await;
        File::from(ends.stderr.take().unwrap()).write_all(b"errors").unwrap();
        streams.process_ended();
        tokio::time::timeout(SOON, streams.drained()).await.unwrap();
        assert!(!script.exists(), "the program is still there after the drain");
        assert_eq!(script.said("ended"), "end\n");
        assert!(std::fs::read(script.path("out")).unwrap() == data);
        assert_eq!(script.said("err"), "errors");
        let args = format!("dir {} colour dark blue\n", script.dir.path().display());
        assert_eq!(script.said("args"), args);
        // What a shell sets by itself.
        let own =
            |line: &&str| !["PWD=", "OLDPWD=", "_=", "SHLVL="].iter().any(|o| line.starts_with(o));
        let env = script.said("env");
        let mut env: Vec<_> = env.lines().filter(own).collect();
        env.sort_unstable();
        assert_eq!(env, ["CONTAINER_ID=c1", "CONTAINER_NAMESPACE=ns"]);
    });
}

#[test]
fn a_slow_program_is_waited_for() {
    runtime().block_on(async {
        // It reads nothing before it is told to, which is after the drain has begun.
        let script =
            Script::new("exec 5>&-\nmkfifo go\nread line < go\ncat <&3 > out\ncat <&4 > err");
        let (mut ends, prepared) = pipes(&script.stdio(), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        // More than one pipe holds, less than the two on the way.
        let data = pattern(100_000);
        let (sent, mut out) = (data.clone(), File::from(ends.stdout.take().unwrap()));
        within(move || out.write_all(&sent).unwrap()).await;
        drop(ends);
        streams.process_ended();
        let drained = tokio::spawn(streams.drained());
        let go = script.path("go");
        within(move || {
            while !go.exists() {
                std::thread::yield_now();
            }
            std::fs::write(go, "now\n").unwrap();
        })
        .await;
        tokio::time::timeout(SOON, drained).await.unwrap().unwrap();
        assert!(std::fs::read(script.path("out")).unwrap() == data);
    });
}

#[test]
fn a_terminal_has_one_stream_and_ends_the_other() {
    runtime().block_on(async {
        let script = Script::new(KEEPS);
        let (master, slave) = open_terminal();
        let mut wanted = script.stdio();
        wanted.terminal = true;
        let prepared = terminal(&wanted, WHOSE).unwrap().with(master).unwrap();
        let mut streams = prepared.connect().unwrap();
        File::from(slave).write_all(b"shown\n").unwrap();
        streams.process_ended();
        tokio::time::timeout(SOON, streams.drained()).await.unwrap();
        assert_eq!((script.said("out").as_str(), script.said("err").as_str()), ("shown\r\n", ""));
        assert!(!script.exists());
    });
}

#[test]
fn a_byte_is_readiness_for_both_schemes() {
    runtime().block_on(async {
        for scheme in ["binary", "binary-v2"] {
            let script = Script::new("printf r >&5\ncat <&3 > out");
            let uri = script.uri(scheme);
            let (ends, prepared) = pipes(&stdio("", &uri, ""), WHOSE).unwrap();
            let mut streams = prepared.connect().unwrap();
            assert!(ends.stderr.is_some(), "a program takes stderr whether it is named or not");
            drop(ends);
            streams.process_ended();
            tokio::time::timeout(SOON, streams.drained()).await.unwrap();
        }
    });
}

#[test]
fn a_program_that_does_not_get_ready_is_an_error_and_gone() {
    for (text, scheme, kind, part) in [
        ("exit 3", "binary", ErrorKind::Internal, "ended with code 3"),
        ("kill -9 $$", "binary", ErrorKind::Internal, "ended with code 137"),
        ("exit 0", "binary-v2", ErrorKind::Internal, "ended with code 0"),
        ("exec 5>&-; exec sleep 1000", "binary-v2", ErrorKind::Internal, "without a word"),
        ("exec sleep 1000", "binary", ErrorKind::Timeout, "not ready"),
    ] {
        let script = Script::new(text);
        let uri = script.uri(scheme);
        // Only the last one is to meet the limit, and it cannot be met early.
        let limits = match kind {
            ErrorKind::Timeout => SHORT,
            _ => Limits { ready: SOON, ..SHORT },
        };
        let failure = pipes_within(&stdio("", &uri, &uri), WHOSE, limits).unwrap_err();
        assert_eq!(failure.kind(), kind, "{text}: {failure}");
        let told = failure.to_string();
        assert!(told.contains(part) && told.contains("stdout") && told.contains(&uri), "{told}");
        assert!(!script.exists(), "{text}: the program is still there");
    }
}

#[test]
fn what_cannot_be_executed_is_wrong_input() {
    let script = Script::new("");
    std::fs::set_permissions(script.path("log"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let failure = pipes(&script.stdio(), WHOSE).unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::InvalidInput);
    assert!(failure.to_string().contains("ermission denied"), "{failure}");
}

#[test]
fn a_program_without_a_process_is_taken_away() {
    let script = Script::new(KEEPS);
    let (ends, prepared) = pipes(&script.stdio(), WHOSE).unwrap();
    assert!(script.exists());
    drop((ends, prepared));
    assert!(!script.exists(), "the create failed and the program stayed");
}

#[test]
fn a_program_that_dies_costs_the_output_and_not_the_process() {
    runtime().block_on(async {
        let script = Script::new("exec 5>&-\nread line <&3\nexit 1");
        let (mut ends, prepared) = pipes(&script.stdio(), WHOSE).unwrap();
        let mut streams = prepared.connect().unwrap();
        let mut out = File::from(ends.stdout.take().unwrap());
        // Far more than the pipes hold; without a reader the writer would stop or get EPIPE.
        let data = [b"line\n".to_vec(), pattern(1_000_000)].concat();
        within(move || out.write_all(&data).unwrap()).await;
        drop(ends);
        streams.process_ended();
        tokio::time::timeout(SOON, streams.drained()).await.unwrap();
        assert!(!script.exists());
    });
}

#[test]
fn a_program_that_stays_is_asked_and_then_killed() {
    runtime().block_on(async {
        let polite =
            "trap 'echo asked > asked; exit' TERM\nexec 5>&-\nwhile :; do sleep 0.01; done";
        let rude = "trap '' TERM\nexec 5>&-\nwhile :; do sleep 0.01; done";
        for (text, asked, term) in [(polite, "asked\n", SOON), (rude, "", SHORT.term)] {
            let script = Script::new(text);
            let limits = Limits { ready: SOON, term, ..SHORT };
            let opened = pipes_within(&script.stdio(), WHOSE, limits);
            let (ends, prepared) = opened.unwrap();
            let mut streams = prepared.connect().unwrap();
            drop(ends);
            streams.process_ended();
            tokio::time::timeout(SOON, streams.drained()).await.unwrap();
            assert!(!script.exists(), "{text}");
            assert_eq!(script.said("asked"), asked);
        }
    });
}

#[test]
fn a_server_that_ends_leaves_the_program_of_a_running_process() {
    let script = Script::new(KEEPS);
    let runtime = runtime();
    let (ends, streams) = runtime.block_on(async {
        let (ends, prepared) = pipes(&script.stdio(), WHOSE).unwrap();
        (ends, prepared.connect().unwrap())
    });
    std::mem::forget(streams);
    runtime.shutdown_background();
    drop(ends);
    // It sees the end of its input and finishes.
    let until = std::time::Instant::now() + SOON;
    while script.said("ended").is_empty() {
        assert!(std::time::Instant::now() < until, "it was killed");
        std::thread::yield_now();
    }
}
