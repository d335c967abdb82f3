//! Stops: the hook, the signal, the end.

use crate::support::{POLITE, RUDE, Subject, events, exec, topics};
use rootfs_tests::command::{Run, Stream};
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host, image, workspace};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The shortest grace there is between signal and kill, in milliseconds, less the rounding of the
/// two times.
const MIN_GRACE: u64 = 1_990;
/// What a busy machine may add to a stop.
const LATE: u64 = 15_000;

/// Red if a hook runs as somebody else, elsewhere, or at somebody else's cost. Seen red with the
/// user of its process left out.
pub(crate) fn exec_is_like_the_container(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let facts = "id -u; pwd; echo $COLOUR; grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; cat /proc/self/cgroup; readlink /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/net";
    // Time that the hook uses is the container's.
    let hook = format!(
        "({facts}) >/out/hook; i=0; until test -e /out/go; do i=$((i+1)); done; echo hook >>/out/log"
    );
    let script = format!("({facts}) >/out/own; {POLITE}");
    let user = image::USER.to_string();
    let everybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(&subject.out, everybody).during(|| "open a directory to everybody")?;
    // The user is the image's.
    let more = ["--env", "COLOUR=blue", "--cwd", "/etc", "--seccomp"];
    let options = subject.options(&[("pre-stop", &exec(&hook))], &more);
    let mut args = vec!["run", "-d", "--runtime", scene.runtime.ctr()];
    args.extend(options.iter().map(String::as_str));
    args.extend([image::SAILOR, &subject.id, "sh", "-c", &script]);
    scene.ctr.ok(&args)?;
    subject.logged("ready")?;
    let pid = scene.pid(&subject.id)?;
    let used = || -> Result<u64> {
        let text = host::cgroup_file(pid, "cpuacct", "cpuacct.usage")?;
        text.trim().parse().map_err(|_| Error::check(format!("cpuacct.usage {text:?}")))
    };
    let before = used()?;
    subject.kill(scene, "SIGTERM")?;
    wait::until("time used by the hook", PATIENCE, || {
        Ok((used()? > before + 20_000_000).then_some(()))
    })?;
    fs::write(subject.out.join("go"), "").during(|| "let the hook go")?;
    let (record, code) = subject.end(scene)?;
    ensure_eq!(code, 5, "exit code");
    ensure_eq!(subject.lines("log"), ["ready", "hook", "term"], "order of hook and signal");
    ensure_eq!(
        subject.lines("hook"),
        subject.lines("own"),
        "the hook's process and the container's"
    );
    let own = subject.lines("own");
    ensure!(own.starts_with(&[user, "/etc".into(), "blue".into()]), "the container's: {own:?}");
    ensure_eq!(
        record.names(),
        [
            "started",
            "stopping",
            "hookStarted:preStop",
            "hookSucceeded:preStop",
            "signalled",
            "exited"
        ],
        "the record"
    );
    Ok(())
}

/// Its output is in the event; a child that holds its streams is not waited for. Seen red with another
/// topic for failures.
pub(crate) fn exec_fails(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let hook = exec("sleep 1000 & echo to out; echo to err >&2; exit 3");
    subject.start(scene, &[("pre-stop", &hook)], &[], POLITE)?;
    subject.logged("ready")?;
    let mut stream = events(scene)?;
    subject.kill(scene, "SIGTERM")?;
    let id = subject.id.clone();
    let lines =
        stream.until("the exit", |line| line.contains("/tasks/exit") && line.contains(&id))?;
    let expected =
        ["/hooks/stopping", "/hooks/started", "/hooks/failed", "/hooks/signalled", "/tasks/exit"];
    ensure_eq!(topics(&lines, &id), expected, "topics; all:\n{}", lines.join("\n"));
    let failed =
        lines.iter().find(|line| line.contains("/hooks/failed")).cloned().unwrap_or_default();
    ensure!(failed.contains("FailedPreStopHook"), "no reason: {failed}");
    ensure!(failed.contains("exited with 3: to err"), "no message: {failed}");
    let (record, code) = subject.end(scene)?;
    ensure_eq!(code, 5, "exit code");
    let message = record.message("hookFailed")?;
    let expected = format!(
        "Exec lifecycle hook ([sh -c sleep 1000 & echo to out; echo to err >&2; exit 3]) for Container {id:?} in Pod \"\" \
         failed - error: command 'sh -c sleep 1000 & echo to out; echo to err >&2; exit 3' exited with 3: to err\n, \
         message: \"to out\\nto err\\n\""
    );
    ensure_eq!(message, expected, "message");
    Ok(())
}

/// The hook has the grace period, and never less than a second, as in a pod that the kubelet deletes;
/// the program has two seconds, however little is left.
pub(crate) fn short_graces(scene: &mut Scene<'_>) -> Result<()> {
    let script = RUDE.replace("TERM", "USR1");
    let hook = exec("echo hook >>/out/log; exec sleep 1000");
    let mut subjects = Vec::new();
    for grace in [0, 1, 2] {
        let subject = Subject::new(scene, &format!("{}-{grace}", scene.id))?;
        let stop = format!(r#"{{"gracePeriodSeconds":{grace},"signal":"USR1"}}"#);
        subject.start(scene, &[("pre-stop", &hook), ("stop", &stop)], &[], &script)?;
        subject.logged("ready")?;
        // Not the stop signal, and the shell ignores it.
        subject.kill(scene, "SIGWINCH")?;
        ensure_eq!(subject.record(scene)?.names(), ["started"], "after another signal");
        subjects.push((grace, subject));
    }
    subjects.iter().try_for_each(|(_, subject)| subject.kill(scene, "SIGUSR1"))?;
    for (grace, subject) in &subjects {
        let (record, code) = subject.end(scene)?;
        ensure_eq!(code, 137, "exit code with {grace} s");
        let log = subject.lines("log");
        ensure_eq!(log, ["ready", "hook", "term"], "what the container saw with {grace} s");
        let hook = record.between("hookStarted:preStop", "signalled")?;
        let least = [990, 990, 1_990][*grace];
        ensure!((least..LATE).contains(&hook), "the hook had {hook} ms of {grace} s");
        let left = record.between("signalled", "killed")?;
        let late = "from the signal to the end";
        ensure!((MIN_GRACE..LATE).contains(&left), "{left} ms {late} with {grace} s");
    }
    Ok(())
}

pub(crate) fn kill_does_not_wait(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let hook = exec("echo hook >>/out/log; sleep 1000");
    subject.start(scene, &[("pre-stop", &hook)], &[], POLITE)?;
    subject.logged("ready")?;
    subject.kill(scene, "SIGTERM")?;
    subject.logged("hook")?;
    subject.kill(scene, "SIGKILL")?;
    let (record, code) = subject.end(scene)?;
    ensure_eq!(code, 137, "exit code");
    ensure_eq!(subject.lines("log"), ["ready", "hook"], "no signal was sent after SIGKILL");
    ensure!(!record.names().contains(&"signalled".to_owned()), "{:?}", record.names());
    Ok(())
}

/// Whatever a container does, it ends. Seen red with SIGTERM for the first process in the place of
/// SIGKILL for all, and, the paused one, with a cgroup that is not thawed after it.
pub(crate) fn stubborn_containers(scene: &mut Scene<'_>) -> Result<()> {
    let stop = ("stop", r#"{"gracePeriodSeconds":0}"#);
    let bomb = "echo ready >>/out/log; trap '' TERM; while :; do (sleep 0.1; sleep 0.1) & sleep 0.02; done";
    let zombies = format!(
        "for i in 1 2 3; do sh -c 'exit 0' & done; exec sh -c \"{}\"",
        RUDE.replace('"', "\\\"")
    );
    let kinds =
        [("stopped", RUDE), ("paused", RUDE), ("forks", bomb), ("zombies", zombies.as_str())];
    let mut subjects = Vec::new();
    for (kind, script) in kinds {
        let subject = Subject::new(scene, &format!("{}-{kind}", scene.id))?;
        subject.start(scene, &[stop], &[], script)?;
        subjects.push(subject);
    }
    for subject in &subjects {
        subject.logged("ready")?;
    }
    host::signal(scene.pid(&subjects[0].id)?, rustix::process::Signal::STOP)?;
    scene.ctr.ok(&["task", "pause", &subjects[1].id])?;
    for subject in &subjects {
        subject.kill(scene, "SIGTERM")?;
    }
    for subject in &subjects {
        let (record, code) = subject.end(scene)?;
        ensure_eq!(code, 137, "exit code of {}", subject.id);
        let left = record.between("signalled", "killed")?;
        ensure!((MIN_GRACE..LATE).contains(&left), "{}: {left} ms", subject.id);
    }
    Ok(())
}

/// A hook's memory is the container's: the kernel kills it in the container's name, and counts it
/// there. Seen red with hooks moved out of the cgroup, and without the memory watch's report.
pub(crate) fn hook_out_of_memory(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let limit = (24 << 20).to_string();
    // tail keeps what has no end of line.
    let hook = exec(
        "head -c 200000000 /dev/zero | tail -n 1 >/dev/null; echo hook >>/out/log; \
         until test -e /out/go; do sleep 0.05; done; exit 9",
    );
    subject.start(scene, &[("pre-stop", &hook)], &["--memory-limit", &limit], POLITE)?;
    subject.logged("ready")?;
    let pid = scene.pid(&subject.id)?;
    let killed = || -> Result<u64> {
        let text = host::cgroup_file(pid, "memory", "memory.oom_control")?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        let count = count.and_then(|count| count.trim().parse().ok());
        count.ok_or_else(|| Error::check(format!("no oom_kill in {text:?}")))
    };
    ensure_eq!(killed()?, 0, "processes killed before the hook");
    let mut stream = events(scene)?;
    subject.kill(scene, "SIGTERM")?;
    subject.logged("hook")?;
    ensure!(killed()? > 0, "the container's cgroup has counted nobody");
    fs::write(subject.out.join("go"), "").during(|| "let the hook go")?;
    let id = subject.id.clone();
    let lines =
        stream.until("the exit", |line| line.contains("/tasks/exit") && line.contains(&id))?;
    let oom = lines.iter().any(|line| line.contains("/tasks/oom") && line.contains(&id));
    ensure!(oom, "no oom event:\n{}", lines.join("\n"));
    let failed = lines.iter().any(|line| line.contains("/hooks/failed") && line.contains(&id));
    ensure!(failed, "the hook did not fail:\n{}", lines.join("\n"));
    // What was killed is the hook's greatest process, and no process of the program.
    ensure_eq!(subject.end(scene)?.1, 5, "exit code");
    Ok(())
}

/// Without annotations every signal passes, and nothing is written or said. Seen red with a policy of
/// defaults for every container.
pub(crate) fn no_policy(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    subject.start(scene, &[("pre-stop.boathook.dev/other", "{")], &[], RUDE)?;
    subject.logged("ready")?;
    ensure!(subject.record(scene).is_err(), "there is a record without a policy");
    subject.kill(scene, "SIGTERM")?;
    subject.logged("term")?;
    subject.kill(scene, "SIGTERM")?;
    wait::until("a second SIGTERM", PATIENCE, || {
        Ok((subject.lines("log").iter().filter(|it| *it == "term").count() == 2).then_some(()))
    })?;
    scene.remove(&subject.id)
}

/// What `boathook lifecycle` and `boathook events` say while a stop is under way. Seen red with the
/// stop's state left out of the record, and without the journal.
pub(crate) fn seen_by_people(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let hook = exec("until test -e /out/go; do sleep 0.05; done");
    let cli = workspace::cli()?;
    let run = |args: &[&str]| Ok::<_, Error>(Run::new(&cli).args(args).ok()?.text());
    let namespace = scene.ctr.namespace();
    let mut follow = std::process::Command::new(&cli);
    follow.args(["events", "--follow", "-n", namespace, "--container", &subject.id]);
    let mut followed = Stream::start(follow)?;
    subject.start(scene, &[("pre-stop", &hook)], &[], POLITE)?;
    subject.logged("ready")?;
    subject.kill(scene, "SIGTERM")?;
    let text = run(&["lifecycle", "-n", namespace, &subject.id])?;
    for part in
        ["annotations of boathook.dev", "the preStop hook runs, ", "SIGTERM, grace period 30 s"]
    {
        ensure!(text.contains(part), "{part:?} is not in\n{text}");
    }
    fs::write(subject.out.join("go"), "").during(|| "let the hook go")?;
    scene.stopped(&subject.id)?;
    let json = run(&["lifecycle", "-n", namespace, "--json", &subject.id])?;
    let json: serde_json::Value =
        serde_json::from_str(&json).map_err(|e| Error::check(format!("{e}: {json}")))?;
    ensure_eq!(json["state"], "done", "state in {json}");
    let svg = run(&["lifecycle", "-n", namespace, "--svg", &subject.id])?;
    ensure!(svg.starts_with("<svg ") && svg.contains("SIGTERM"), "{svg}");
    let listed = || run(&["events", "-n", namespace, "--container", &subject.id]);
    let events = listed()?;
    ensure_eq!(events.lines().count(), subject.record(scene)?.names().len(), "events:\n{events}");
    ensure!(events.contains("preStop hook succeeded"), "events:\n{events}");
    let other = Run::new(&cli).args(["lifecycle", "nobody"]).output()?;
    ensure!(other.code == 1 && other.complaint().contains("\"nobody\""), "{}", other.complaint());
    scene.delete(&subject.id)?;
    ensure!(subject.record(scene).is_err(), "the record is still in the state directory");
    ensure_eq!(listed()?, events, "events of a container that is gone");
    let lines = followed.until("the exit", |line| line.contains("exited with 5"))?;
    ensure_eq!(lines.join("\n"), events, "events, followed");
    Ok(())
}

/// In one pod, fifty hooks of a second each run beside each other. Seen red with one at a time.
pub(crate) fn fifty_at_once(scene: &mut Scene<'_>) -> Result<()> {
    let group = scene.id.clone();
    let hooks = [r#"{"sleep":{"seconds":1}}"#.to_owned(), exec("exec sleep 1")];
    let label = format!("io.containerd.runc.v2.group={group}");
    let mut subjects = Vec::new();
    for number in 0..50 {
        let subject = Subject::new(scene, &format!("{}-{number}", scene.id))?;
        let hook = hooks[number % hooks.len()].as_str();
        let annotations = [("pre-stop", hook), ("stop", r#"{"gracePeriodSeconds":30}"#)];
        subject.start(scene, &annotations, &["--annotation", &label], POLITE)?;
        subjects.push(subject);
    }
    for subject in &subjects {
        subject.logged("ready")?;
    }
    std::thread::scope(|scope| {
        let kills: Vec<_> = subjects
            .iter()
            .map(|it| {
                let scene = &*scene;
                scope.spawn(move || it.kill(scene, "SIGTERM"))
            })
            .collect();
        kills.into_iter().try_for_each(|kill| {
            kill.join().unwrap_or_else(|_| Err(Error::check("a thread panicked".to_owned())))
        })
    })?;
    for subject in &subjects {
        let (record, code) = subject.end(scene)?;
        ensure_eq!(code, 5, "exit code of {}", subject.id);
        let hook = record.between("hookStarted:preStop", "hookSucceeded:preStop")?;
        ensure!(hook >= 990, "the hook of {} took {hook} ms", subject.id);
        let took = record.between("stopping", "exited")?;
        // One after the other they would take fifty seconds.
        ensure!(took < 30_000, "{} took {took} ms", subject.id);
    }
    Ok(())
}
