//! Containers and execs on a terminal, with the other end in the test's hand.

use rootfs_tests::error::Result;
use rootfs_tests::pty::Terminal;
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host, suite};
use rustix::process::Signal;
use std::time::Duration;

suite!(run_on_a_terminal, keys_reach_the_process, size_follows, exec_on_a_terminal);

/// A line that waits for this size of the terminal, which `ctr` tells some time after the start,
/// and says it in other words than the terminal echoes.
fn sized(rows: u16, columns: u16) -> String {
    format!(
        "until test \"$(stty size 2>&1)\" = '{rows} {columns}'; do :; done; \
         echo sized-$(({rows}))x$(({columns}))\n"
    )
}

/// Starts `ctr` on a terminal of 33 rows and 99 columns.
fn ctr(scene: &Scene<'_>, args: &[&str]) -> Result<Terminal> {
    let mut command = scene.ctr.std_command();
    command.args(args);
    Terminal::start(command, 33, 99)
}

/// It stays until it has been heard; see [`rootfs_tests::ctr::Ctr::hear`].
fn run_on_a_terminal(scene: &mut Scene<'_>) -> Result<()> {
    let script =
        "test -t 0 && test -t 1 && test -t 2 && echo all-three; tty; echo said; read line; exit 4";
    let args = scene.run_args(&["--rm", "-t"], &scene.id, &["sh", "-c", script]);
    let mut terminal = ctr(scene, &args)?;
    terminal.expect("all-three")?;
    let rest = terminal.expect("said")?;
    let tty = rest.lines().nth(1).unwrap_or_default();
    ensure!(tty == "/dev/console" || tty.starts_with("/dev/pts/"), "the terminal's name: {rest:?}");
    terminal.send("\n")?;
    ensure_eq!(terminal.end()?.0, 4, "exit code");
    Ok(())
}

/// A shell's session: lines, the interrupt key, and the end of input.
fn keys_reach_the_process(scene: &mut Scene<'_>) -> Result<()> {
    let args = scene.run_args(&["--rm", "-t"], &scene.id, &["sh"]);
    let mut shell = ctr(scene, &args)?;
    // The answers differ from what the terminal echoes.
    shell.send("echo $((6 * 7))\n")?;
    shell.expect("42")?;
    shell.send("sh -c 'echo asleep-$((1 + 1)); exec sleep 1000'\n")?;
    shell.expect("asleep-2")?;
    // Only the terminal's own line discipline makes a signal of this key, for the foreground.
    shell.send("\u{3}")?;
    shell.send("echo status-$?\n")?;
    shell.expect("status-130")?;
    shell.send("exit 9\n")?;
    ensure_eq!(shell.end()?.0, 9, "exit code");
    Ok(())
}

fn size_follows(scene: &mut Scene<'_>) -> Result<()> {
    let args = scene.run_args(&["--rm", "-t"], &scene.id, &["sh"]);
    let mut shell = ctr(scene, &args)?;
    shell.send(&sized(33, 99))?;
    shell.expect("sized-33x99")?;
    shell.send(&sized(44, 122))?;
    shell.resize(44, 122)?;
    // `ctr` tells the first size before it listens to the signal, so the first may be too early.
    wait::until("the new size", PATIENCE, || {
        host::signal(shell.pid(), Signal::WINCH)?;
        shell.appears("sized-44x122", Duration::from_millis(500))
    })?;
    shell.send("exit\n")?;
    ensure_eq!(shell.end()?.0, 0, "exit code");
    Ok(())
}

fn exec_on_a_terminal(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&[], &id, &["sleep", "1000"])?;
    let mut shell = ctr(scene, &["task", "exec", "-t", "--exec-id", "sh", &id, "sh"])?;
    shell.send(&sized(33, 99))?;
    shell.expect("sized-33x99")?;
    shell.send("cat /proc/1/cmdline | tr '\\0' _\n")?;
    shell.expect("sleep_1000_")?;
    shell.send("exit 3\n")?;
    ensure_eq!(shell.end()?.0, 3, "exit code of the exec");
    ensure_eq!(scene.status(&id)?, "RUNNING", "status after the exec");
    scene.remove(&id)
}
