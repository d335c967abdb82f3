//! What `kubectl exec`, `attach` and `port-forward` do, through the daemon's streaming server.
//!
//! The servers of 1.6, 1.7 and 2.1 speak version 4 of the protocol, in which a client that wants
//! to end its input has to hang up; [`rootfs_tests::cri::Session::can_end_input`] tells when one
//! of them learns version 5.

use crate::pod::Pod;
use rootfs_tests::cri::{AttachRequest, ContainerConfig, ExecRequest};
use rootfs_tests::error::Result;
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq};

fn request(container: &str, cmd: &[&str]) -> ExecRequest {
    ExecRequest {
        container_id: container.into(),
        cmd: cmd.iter().map(|&word| word.to_owned()).collect(),
        stdout: true,
        stderr: true,
        ..Default::default()
    }
}

/// A request for a terminal, which has no standard error of its own.
fn on_a_terminal(container: &str, cmd: &[&str]) -> ExecRequest {
    ExecRequest { tty: true, stdin: true, stderr: false, ..request(container, cmd) }
}

/// A line for a shell that waits for this size of its terminal and says it in other words than
/// the terminal echoes.
fn sized(rows: u16, columns: u16) -> String {
    format!(
        "until test \"$(stty size)\" = '{rows} {columns}'; do :; done; \
         echo sized-$(({rows}))x$(({columns}))\n"
    )
}

pub(crate) fn stream_exec(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let one = pod.sleeper("one")?;
    let run = |script: &str| {
        let said = pod.cri.exec_stream(request(&one, &["sh", "-c", script]))?.end()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&said.stdout), text(&said.stderr), said.code))
    };
    let said = run("echo out; echo err >&2; exit 3")?;
    ensure_eq!(said, ("out\n".into(), "err\n".into(), Some(3)), "output, errors and exit code");
    ensure_eq!(run("kill -9 $$")?.2, Some(137), "exit code of a killed exec");
    // The shortest of processes loses nothing either.
    for number in 0..10 {
        let said = run(&format!("echo {number}"))?;
        ensure_eq!(said, (format!("{number}\n"), String::new(), Some(0)), "round {number}");
    }
    let (output, _, code) = run("seq 1 200000 | head -c 1048576")?;
    let mut expected: String = (1..200_000_u32).map(|number| format!("{number}\n")).collect();
    expected.truncate(1 << 20);
    ensure!(output == expected && code == Some(0), "{} bytes of output differ", output.len());
    pod.end()
}

pub(crate) fn stream_exec_input(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let one = pod.sleeper("one")?;
    let with_input = |cmd: &[&str]| ExecRequest { stdin: true, ..request(&one, cmd) };
    let text: Vec<u8> = (0..20_000_u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let count = text.len().to_string();

    // What goes in comes out again while the process runs.
    let mut echo = pod.cri.exec_stream(with_input(&["head", "-c", &count]))?;
    for piece in text.chunks(4096) {
        echo.input(piece)?;
    }
    let said = echo.end()?;
    ensure_eq!(said.code, Some(0), "exit code");
    ensure!(said.stdout == text, "{} bytes came back of {count}", said.stdout.len());

    // The process sees the end of its input, and everything before it.
    let script = "cat > /got; wc -c < /got; touch /ended";
    let mut cat = pod.cri.exec_stream(with_input(&["sh", "-c", script]))?;
    for piece in text.chunks(4096) {
        cat.input(piece)?;
    }
    if cat.can_end_input() {
        cat.end_input()?;
        let said = cat.end()?;
        ensure_eq!(said.code, Some(0), "exit code");
        ensure_eq!(String::from_utf8_lossy(&said.stdout).trim(), count, "bytes counted");
    } else {
        cat.leave()?;
        wait::until("the end of input", PATIENCE, || {
            let there = pod.cri.exec(&one, &["test", "-e", "/ended"], 20)?.exit_code == 0;
            Ok(there.then_some(()))
        })?;
        ensure_eq!(pod.exec(&one, "wc -c < /got")?, count, "bytes that arrived");
    }
    pod.end()
}

pub(crate) fn stream_exec_on_a_terminal(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let one = pod.sleeper("one")?;
    let mut shell = pod.cri.exec_stream(on_a_terminal(&one, &["sh"]))?;
    shell.input(b"test -t 0 && test -t 1 && test -t 2 && echo all-$((1 + 2))\n")?;
    shell.expect("all-3")?;
    for (rows, columns) in [(33, 99), (44, 122)] {
        shell.resize(rows, columns)?;
        shell.input(sized(rows, columns).as_bytes())?;
        shell.expect(&format!("sized-{rows}x{columns}"))?;
    }
    // The interrupt key reaches the foreground.
    shell.input(b"sh -c 'echo asleep-$((1 + 1)); exec sleep 1000'\n")?;
    shell.expect("asleep-2")?;
    shell.input(b"\x03")?;
    shell.input(b"echo status-$?\n")?;
    shell.expect("status-130")?;
    shell.input(b"exit 9\n")?;
    ensure_eq!(shell.end()?.code, Some(9), "exit code");
    // The end of the client is the end of the terminal's input, not of the container.
    let mut shell = pod.cri.exec_stream(on_a_terminal(&one, &["cat"]))?;
    shell.input(b"once\n")?;
    shell.expect("once")?;
    shell.hang_up()?;
    ensure_eq!(pod.exec(&one, "echo alive")?, "alive", "the container after its client");
    pod.end()
}

fn join(container: &str, tty: bool) -> AttachRequest {
    let container_id = container.into();
    AttachRequest { container_id, stdin: true, stdout: true, stderr: !tty, tty }
}

pub(crate) fn attach(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    // Without an end the input outlives its clients.
    let script = "while read -r line; do echo \"got $line\"; test \"$line\" != end || exit 6; done";
    let config =
        ContainerConfig { stdin: true, ..ContainerConfig::simple("many", &["sh", "-c", script]) };
    let many = pod.run(&config)?;
    let mut first = pod.cri.attach(join(&many, false))?;
    first.input(b"one\n")?;
    first.expect("got one")?;
    first.hang_up()?;
    let mut second = pod.cri.attach(join(&many, false))?;
    second.input(b"two\nthree\n")?;
    second.expect("got two\ngot three\n")?;
    // When one of the streams ends, the daemon takes the client off all of them: what comes last
    // is in the log for certain, not here.
    second.input(b"end\n")?;
    second.end()?;
    pod.exited(&many)?;
    ensure_eq!(pod.cri.container_status(&many)?.exit_code, 6, "exit code");
    pod.logged("many", "got end")?;

    // With `stdinOnce` the first client's end is the end of input.
    let config = ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..ContainerConfig::simple("once", &["sh", "-c", "cat; exit 4"])
    };
    let once = pod.run(&config)?;
    let mut client = pod.cri.attach(join(&once, false))?;
    client.input(b"hello\n")?;
    client.expect("hello")?;
    client.hang_up()?;
    pod.exited(&once)?;
    ensure_eq!(pod.cri.container_status(&once)?.exit_code, 4, "exit code after the end of input");
    pod.end()
}

pub(crate) fn attach_to_a_terminal(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let config =
        ContainerConfig { stdin: true, tty: true, ..ContainerConfig::simple("one", &["sh"]) };
    let one = pod.run(&config)?;
    let mut shell = pod.cri.attach(join(&one, true))?;
    shell.resize(33, 99)?;
    shell.input(sized(33, 99).as_bytes())?;
    shell.expect("sized-33x99")?;
    shell.hang_up()?;
    let mut shell = pod.cri.attach(join(&one, true))?;
    shell.input(b"echo again-$((1 + 1))\n")?;
    shell.expect("again-2")?;
    shell.input(b"exit 9\n")?;
    shell.end()?;
    pod.exited(&one)?;
    ensure_eq!(pod.cri.container_status(&one)?.exit_code, 9, "exit code");
    pod.end()
}

pub(crate) fn port_forward(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let script = "while :; do nc -l -p 7777 -e cat; done";
    let one = pod.run(&ContainerConfig::simple("one", &["sh", "-c", script]))?;
    let text: Vec<u8> = (0..30_000_u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    for _ in 0..2 {
        // State 0A is LISTEN (proc_net(5)); the port in hexadecimal, for both families.
        wait::until("somebody who listens", PATIENCE, || {
            let listens = ["sh", "-c", "cat /proc/net/tcp* | grep -q ':1E61 0*:0000 0A'"];
            Ok((pod.cri.exec(&one, &listens, 20)?.exit_code == 0).then_some(()))
        })?;
        let mut connection = pod.cri.forward(&pod.id, 7777)?;
        let mut sent = 0;
        for piece in text.chunks(8192) {
            connection.send(piece)?;
            sent += piece.len();
            ensure!(connection.receive(sent)? == &text[..sent], "what came back differs");
        }
    }
    let refused = pod.cri.forward(&pod.id, 7)?.refusal()?;
    ensure!(refused.contains("connection refused"), "told of a port where nobody is: {refused}");
    pod.end()
}
