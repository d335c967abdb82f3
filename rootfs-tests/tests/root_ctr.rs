//! The life of a task, as `ctr` of a real containerd sees it.

use rootfs_tests::command::Stream;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::packages::Release;
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host, suite};

suite!(
    runs_and_removes,
    exit_codes,
    detached,
    exec,
    exec_in_the_background,
    kill_with_term,
    kill_all,
    kill_all_without_a_pid_namespace,
    killed_by_the_kernel_is_137,
    pause_and_resume,
    metrics,
    process_list,
    events_in_order,
    output_is_complete,
    input_reaches_the_process,
    input_ends,
    log_file,
    pid_file,
    many_rounds,
);

/// A first process that says when it is ready and ends with code 5 on SIGTERM.
const POLITE: &str = "trap 'exit 5' TERM; touch /ready; sleep 1000 & wait";

/// Waits until the container has made this file.
fn made(scene: &Scene<'_>, id: &str, file: &str) -> Result<()> {
    wait::until(&format!("{file} in {id}"), PATIENCE, || {
        let probe = ["task", "exec", "--exec-id", "probe", id, "test", "-e", file];
        Ok((scene.ctr.output(&probe)?.code == 0).then_some(()))
    })
}

/// Where a detached exec's fifos go; `ctr` leaves them lying.
fn exec_fifos(scene: &Scene<'_>) -> String {
    scene.daemon.dir().join("exec-fifos").display().to_string()
}

/// Waits until a killed exec has ended and forgets it.
fn exec_deleted(scene: &Scene<'_>, id: &str, exec: &str) -> Result<()> {
    wait::until(&format!("the end of {exec}"), PATIENCE, || {
        let deleted = scene.ctr.output(&["task", "delete", "--exec-id", exec, id])?;
        // While it runs, the refusal has code 1.
        Ok((deleted.code == 137).then_some(()))
    })
}

fn runs_and_removes(scene: &mut Scene<'_>) -> Result<()> {
    let args = scene.run_args(&["--rm"], &scene.id, &[]);
    let output = scene.ctr.hear(&args, &["sh", "-c", "echo out; echo err >&2"])?;
    ensure_eq!((output.text().as_str(), output.code), ("out", 0), "standard output and exit code");
    ensure_eq!(output.complaint(), "err", "standard error");
    let left = scene.ctr.ok(&["container", "ls", "-q"])?.text();
    ensure!(left.is_empty(), "containers after run --rm: {left}");
    Ok(())
}

fn exit_codes(scene: &mut Scene<'_>) -> Result<()> {
    for code in [0, 1, 7, 126, 255] {
        let script = format!("exit {code}");
        let args = scene.run_args(&["--rm"], &scene.id, &["sh", "-c", &script]);
        ensure_eq!(scene.ctr.output(&args)?.code, code, "exit code of {script:?}");
    }
    Ok(())
}

fn detached(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&[], &id, &["sleep", "1000"])?;
    ensure_eq!(scene.status(&id)?, "RUNNING", "status of a detached container");
    let pid = scene.pid(&id)?;
    if scene.runtime == Runtime::Runc {
        // runc's start returns when its init goes on, which is before it executes the program.
        wait::until("the program of runc's init", PATIENCE, || {
            Ok((host::command_line(pid) != "runc init").then_some(()))
        })?;
    }
    let line = host::command_line(pid);
    ensure_eq!(line, "sleep 1000", "command line of the process that ctr reports");
    // A second container of this name must be refused and leave the first alone.
    let args = scene.run_args(&["-d"], &id, &["sleep", "1"]);
    let second = scene.ctr.output(&args)?;
    ensure!(second.complaint().contains("already exists"), "second run: {}", second.complaint());
    ensure_eq!(scene.status(&id)?, "RUNNING", "status after a refused second run");
    scene.remove(&id)
}

fn exec(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&["--env", "COLOUR=blue"], &id, &["sleep", "1000"])?;
    let run = |options: &[&str], command: &[&str]| {
        let args = [&["task", "exec", "--exec-id", "one"], options, &[&id]].concat();
        scene.ctr.hear(&args, command)
    };
    let said = run(&[], &["sh", "-c", "echo out; echo err >&2; exit 9"])?;
    ensure_eq!(said.code, 9, "exit code of an exec");
    ensure_eq!(said.text(), "out", "standard output of an exec");
    ensure!(said.complaint().starts_with("err"), "standard error of an exec: {}", said.complaint());
    ensure_eq!(run(&[], &["sh", "-c", "echo $COLOUR"])?.text(), "blue", "environment");
    ensure_eq!(run(&["--cwd", "/etc"], &["pwd"])?.text(), "/etc", "--cwd");
    let who = run(&["--user", "1000:2000"], &["sh", "-c", "id -u; id -g"])?.text();
    ensure_eq!(who, "1000\n2000", "--user");
    let processes = run(&[], &["sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"])?.text();
    ensure_eq!(processes, "sleep 1000", "process 1 as an exec sees it");
    let missing = ["task", "exec", "--exec-id", "one", &id, "no-such-program"];
    let missing = scene.ctr.output(&missing)?;
    ensure!(missing.code != 0, "an exec of nothing succeeds");
    let told = missing.complaint();
    ensure!(
        told.contains("exec: \"no-such-program\": executable file not found in $PATH"),
        "message for a program that is not there: {told}"
    );
    ensure_eq!(scene.status(&id)?, "RUNNING", "status after the execs");
    scene.remove(&id)
}

fn exec_in_the_background(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&[], &id, &["sleep", "1000"])?;
    let fifos = exec_fifos(scene);
    let exec = ["task", "exec", "-d", "--fifo-dir", &fifos, "--exec-id", "bg", &id, "sleep", "500"];
    scene.ctr.ok(&exec)?;
    let twice = scene.ctr.output(&exec)?;
    ensure!(twice.complaint().contains("already"), "same exec id: {}", twice.complaint());
    scene.ctr.ok(&["task", "kill", "--exec-id", "bg", "--signal", "SIGKILL", &id])?;
    exec_deleted(scene, &id, "bg")?;
    ensure_eq!(scene.status(&id)?, "RUNNING", "status after its exec was killed");
    scene.remove(&id)
}

fn kill_with_term(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&[], &id, &["sh", "-c", POLITE])?;
    made(scene, &id, "/ready")?;
    scene.ctr.ok(&["task", "kill", &id])?;
    ensure_eq!(scene.delete(&id)?, 5, "exit code after SIGTERM");
    Ok(())
}

/// The first process outlives SIGTERM and ends with its child's status, so that only a signal to
/// all gets it to end. runc took that literally before 1.2; since then it sends everything but
/// SIGKILL to the first process alone.
fn kill_all(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    let script = "trap 'touch /told' TERM; sleep 1000 & touch /ready; wait $!; wait $!; exit $?";
    scene.start(&[], &id, &["sh", "-c", script])?;
    made(scene, &id, "/ready")?;
    scene.ctr.ok(&["task", "kill", "--all", "--signal", "SIGTERM", &id])?;
    if scene.runtime == Runtime::Runc && scene.daemon.packages().release == Release::Sid {
        made(scene, &id, "/told")?;
        return scene.remove(&id);
    }
    ensure_eq!(scene.delete(&id)?, 143, "exit code after SIGTERM to all");
    Ok(())
}

/// Without a process namespace of its own, the end of the first process is not the end of all.
fn kill_all_without_a_pid_namespace(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    let script = "sleep 1000 & echo $! > /child; touch /ready; wait";
    let host = format!("pid:/proc/{}/ns/pid", std::process::id());
    scene.start(&["--with-ns", &host], &id, &["sh", "-c", script])?;
    made(scene, &id, "/ready")?;
    let cat = ["task", "exec", "--exec-id", "cat", &id];
    let child = scene.ctr.hear(&cat, &["cat", "/child"])?.text();
    let child: u32 = child.parse().map_err(|_| Error::check(format!("pid {child:?}")))?;
    ensure_eq!(host::command_line(child), "sleep 1000", "the second process");
    scene.ctr.ok(&["task", "kill", "--all", "--signal", "SIGKILL", &id])?;
    wait::gone(child, PATIENCE)?;
    ensure_eq!(scene.delete(&id)?, 137, "exit code after SIGKILL to all");
    Ok(())
}

fn killed_by_the_kernel_is_137(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&[], &id, &["sleep", "1000"])?;
    scene.ctr.ok(&["task", "kill", "--signal", "SIGKILL", &id])?;
    scene.stopped(&id)?;
    let twice = scene.ctr.output(&["task", "kill", "--signal", "SIGKILL", &id])?;
    ensure!(twice.code != 0, "a process that has ended was killed again");
    let told = twice.complaint();
    ensure!(told.contains("already") || told.contains("not found"), "told: {told}");
    ensure_eq!(scene.delete(&id)?, 137, "exit code after SIGKILL");
    Ok(())
}

fn pause_and_resume(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&[], &id, &["sleep", "1000"])?;
    let pid = scene.pid(&id)?;
    let frozen = || -> Result<bool> {
        let v1 = host::cgroup_file(pid, "freezer", "freezer.state");
        let state = v1.or_else(|_| host::cgroup_file(pid, "", "cgroup.freeze"))?;
        Ok(state == "FROZEN" || state == "1")
    };
    ensure!(!frozen()?, "frozen before pause");
    scene.ctr.ok(&["task", "pause", &id])?;
    ensure_eq!(scene.status(&id)?, "PAUSED", "status after pause");
    ensure!(frozen()?, "not frozen after pause");
    scene.ctr.ok(&["task", "resume", &id])?;
    ensure_eq!(scene.status(&id)?, "RUNNING", "status after resume");
    ensure!(!frozen()?, "frozen after resume");
    scene.remove(&id)
}

fn metrics(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    let limit = (64 << 20).to_string();
    // Something that has used a little time and memory before it is looked at.
    let script = "seq 1 20000 > /numbers; touch /ready; sleep 1000";
    scene.start(&["--memory-limit", &limit], &id, &["sh", "-c", script])?;
    made(scene, &id, "/ready")?;
    let text = scene.ctr.ok(&["task", "metrics", "--format", "json", &id])?.text();
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Error::check(format!("metrics are no JSON ({error}): {text}")))?;
    let number = |places: &[&str]| {
        let found = places.iter().find_map(|place| json.pointer(place)?.as_u64());
        found.ok_or_else(|| Error::check(format!("none of {places:?} in {text}")))
    };
    let cpu = number(&["/cpu/usage/total", "/cpu/usage_usec"])?;
    let memory = number(&["/memory/usage/usage", "/memory/usage"])?;
    let found = number(&["/memory/usage/limit", "/memory/usage_limit"])?;
    let processes = number(&["/pids/current"])?;
    ensure!(cpu > 0, "no CPU time in {text}");
    ensure!((4096..64 << 20).contains(&memory), "{memory} bytes of memory in {text}");
    ensure_eq!(found, 64 << 20, "memory limit in the metrics");
    ensure!((1..10).contains(&processes), "{processes} processes in {text}");
    scene.remove(&id)
}

fn process_list(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    scene.start(&[], &id, &["sleep", "1000"])?;
    let fifos = exec_fifos(scene);
    let exec = ["task", "exec", "-d", "--fifo-dir", &fifos, "--exec-id", "second"];
    scene.ctr.ok(&[&exec[..], &[&id, "sleep", "500"]].concat())?;
    let pid = scene.pid(&id)?.to_string();
    let table = scene.ctr.ok(&["task", "ps", &id])?.text();
    let rows: Vec<&str> = table.lines().skip(1).collect();
    ensure_eq!(rows.len(), 2, "rows of task ps:\n{table}");
    ensure!(
        rows.iter().any(|row| row.split_whitespace().next() == Some(&pid)),
        "no {pid}:\n{table}"
    );
    ensure!(rows.iter().any(|row| row.contains("second")), "no exec id:\n{table}");
    scene.ctr.ok(&["task", "kill", "--exec-id", "second", "--signal", "SIGKILL", &id])?;
    exec_deleted(scene, &id, "second")?;
    scene.remove(&id)
}

/// The order that everything built on containerd's events relies on.
fn events_in_order(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    let mut events = scene.events()?;
    scene.start(&[], &id, &["sleep", "1000"])?;
    scene.ctr.ok(&["task", "exec", "--exec-id", "ex", &id, "true"])?;
    scene.ctr.ok(&["task", "pause", &id])?;
    scene.ctr.ok(&["task", "resume", &id])?;
    scene.remove(&id)?;
    let ours = |line: &str, topic: &str| line.contains(topic) && line.contains(&id);
    // The stock shim may end before its last event has left it.
    let stock = scene.runtime == Runtime::Runc;
    let last = if stock { "/containers/delete" } else { "/tasks/delete" };
    let lines = events.until("the last event", |line| ours(line, last))?;
    let found: Vec<&str> = lines
        .iter()
        .filter(|line| line.contains(&id))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("/tasks/")))
        .collect();
    let expected = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/paused",
        "/tasks/resumed",
        "/tasks/exit",
        "/tasks/delete",
    ];
    let expected = if stock { &expected[..found.len().clamp(8, 9)] } else { &expected[..] };
    ensure_eq!(found, expected, "topics in order; all lines:\n{}", lines.join("\n"));
    let exits: Vec<&String> = lines.iter().filter(|line| ours(line, "/tasks/exit")).collect();
    let all = lines.join("\n");
    ensure!(
        exits.first().is_some_and(|line| line.contains("\"id\":\"ex\"")),
        "exec's exit:\n{all}"
    );
    ensure!(exits.last().is_some_and(|line| line.contains("137")), "status of the exit:\n{all}");
    Ok(())
}

/// A megabyte that shows what is missing where.
fn megabyte() -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (1..200_000_u32).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    bytes.truncate(1 << 20);
    bytes
}

fn output_is_complete(scene: &mut Scene<'_>) -> Result<()> {
    let script = "seq 1 200000 | head -c 1048576";
    let args = scene.run_args(&["--rm"], &scene.id, &["sh", "-c", script]);
    let output = scene.ctr.ok(&args)?;
    let at = output.stdout.iter().zip(megabyte()).position(|(left, right)| *left != right);
    ensure_eq!(output.stdout.len(), 1 << 20, "bytes of standard output");
    ensure_eq!(at, None, "first byte of standard output that differs");
    // The exec path has its own plumbing.
    let id = format!("{}-exec", scene.id);
    scene.start(&[], &id, &["sleep", "1000"])?;
    let said = scene.ctr.ok(&["task", "exec", "--exec-id", "e", &id, "sh", "-c", script])?;
    ensure!(said.stdout == megabyte(), "an exec's output of {} bytes differs", said.stdout.len());
    scene.remove(&id)
}

fn input_reaches_the_process(scene: &mut Scene<'_>) -> Result<()> {
    let args = scene.run_args(&["--rm"], &scene.id, &["head", "-c", "1048576"]);
    let output = scene.ctr.command(args).stdin(megabyte()).ok()?;
    ensure_eq!(output.stdout.len(), 1 << 20, "bytes that came back");
    ensure!(output.stdout == megabyte(), "what came back differs");
    Ok(())
}

/// Only the end of its input ends this process. `ctr` passes that on when it comes while the
/// container runs, so the line has to come back first.
fn input_ends(scene: &mut Scene<'_>) -> Result<()> {
    let mut command = scene.ctr.std_command();
    command.args(scene.run_args(&["--rm"], &scene.id, &["cat"]));
    let mut cat = Stream::start(command)?;
    cat.write("one line\n")?;
    cat.until("the line", |line| line == "one line")?;
    cat.close_input();
    ensure_eq!(cat.end()?, 0, "exit code");
    Ok(())
}

fn log_file(scene: &mut Scene<'_>) -> Result<()> {
    let file = scene.daemon.dir().join(format!("{}.log", scene.id));
    let uri = format!("file://{}", file.display());
    let id = scene.id.clone();
    let script = "echo to the log; echo and errors >&2";
    scene.start(&["--log-uri", &uri], &id, &["sh", "-c", script])?;
    scene.delete(&id)?;
    let text = std::fs::read_to_string(&file).during(|| format!("read {}", file.display()))?;
    // Two streams have no order.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let expected = ["and errors", "to the log"];
    // The stock shim may lose one of the streams of a process that was over at once.
    let one_short = lines == expected[1..] || lines == expected[..1];
    let stock = scene.runtime == Runtime::Runc && one_short;
    ensure!(stock || lines == expected, "lines of {}: {lines:?}", file.display());
    Ok(())
}

fn pid_file(scene: &mut Scene<'_>) -> Result<()> {
    let file = scene.daemon.dir().join(format!("{}.pid", scene.id));
    let id = scene.id.clone();
    scene.start(&["--pid-file", &file.display().to_string()], &id, &["sleep", "1000"])?;
    let text = std::fs::read_to_string(&file).during(|| format!("read {}", file.display()))?;
    ensure_eq!(text.trim(), scene.pid(&id)?.to_string(), "the pid file");
    scene.remove(&id)
}

/// What leaks a little leaks visibly after a hundred; the census is taken by the suite.
fn many_rounds(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    // The stock shim is slower, and a tenth of it proves the scenario right.
    let rounds = if scene.runtime == Runtime::Boathook { 100 } else { 10 };
    for round in 0..rounds {
        let told = |error: Error| Error::check(format!("round {round}: {error}"));
        scene.start(&["--null-io"], &id, &["sleep", "1000"]).map_err(told)?;
        scene.ctr.output(&["task", "delete", "--force", &id]).map_err(told)?;
        scene.ctr.ok(&["container", "delete", &id]).map_err(told)?;
    }
    Ok(())
}
