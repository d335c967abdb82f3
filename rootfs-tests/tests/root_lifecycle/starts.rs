//! postStart hooks, and annotations that cannot be used.

use crate::cri::Sandbox;
use crate::support::{POLITE, Subject, events, exec, record, told, topics};
use rootfs_tests::census::{Census, settled_descriptors};
use rootfs_tests::containerd::CRI_NAMESPACE;
use rootfs_tests::error::{Error, Result};
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::packages::Release;
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq};

/// The container counts as started while the hook still runs.
pub(crate) fn post_start(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let hook = exec("until test -e /out/go; do sleep 0.05; done; echo hook >>/out/log");
    subject.start(scene, &[("post-start", &hook)], &[], POLITE)?;
    ensure_eq!(scene.status(&subject.id)?, "RUNNING", "while the hook runs");
    subject.logged("ready")?;
    std::fs::write(subject.out.join("go"), "")
        .map_err(|source| rootfs_tests::Error::Io { what: "let the hook go".into(), source })?;
    wait::until("the hook's end", PATIENCE, || {
        let names = subject.record(scene)?.names();
        Ok(names.contains(&"hookSucceeded:postStart".to_owned()).then_some(()))
    })?;
    ensure_eq!(subject.lines("log"), ["ready", "hook"], "log");
    subject.kill(scene, "SIGTERM")?;
    ensure_eq!(subject.end(scene)?.1, 5, "exit code");
    Ok(())
}

/// Then the whole stop follows, the preStop hook included.
pub(crate) fn post_start_fails(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    // Not before the program can take the signal.
    let fail = exec("until test -e /out/log; do sleep 0.05; done; exit 1");
    let hooks = [("post-start", fail.as_str()), ("pre-stop", &exec("echo hook >>/out/log"))];
    let mut stream = events(scene)?;
    subject.start(scene, &hooks, &[], POLITE)?;
    let id = subject.id.clone();
    let lines =
        stream.until("the exit", |line| line.contains("/tasks/exit") && line.contains(&id))?;
    let told = [
        "/hooks/started",
        "/hooks/failed",
        "/hooks/stopping",
        "/hooks/started",
        "/hooks/succeeded",
        "/hooks/signalled",
        "/tasks/exit",
    ];
    ensure_eq!(topics(&lines, &id), told, "topics; all:\n{}", lines.join("\n"));
    let failed = lines.iter().any(|line| {
        line.contains("/hooks/failed") && line.contains("FailedPostStartHook") && line.contains(&id)
    });
    ensure!(failed, "no reason in:\n{}", lines.join("\n"));
    let (record, code) = subject.end(scene)?;
    ensure_eq!(code, 5, "exit code");
    ensure_eq!(subject.lines("log"), ["ready", "hook", "term"], "log");
    let names = record.names();
    let expected = [
        "started",
        "hookStarted:postStart",
        "hookFailed:postStart",
        "stopping",
        "hookStarted:preStop",
        "hookSucceeded:preStop",
        "signalled",
        "exited",
    ];
    ensure_eq!(names, expected, "the record");
    Ok(())
}

/// What Kubernetes cannot promise.
pub(crate) fn before_the_entrypoint(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let order = ("post-start-order", "before-entrypoint");
    let hook = exec("sleep 0.3; echo hook >>/out/log");
    subject.start(scene, &[("post-start", &hook), order], &[], POLITE)?;
    subject.logged("ready")?;
    ensure_eq!(subject.lines("log"), ["hook", "ready"], "log");
    subject.kill(scene, "SIGTERM")?;
    ensure_eq!(subject.end(scene)?.1, 5, "exit code");
    // A failure is the failure of the start; the program never runs.
    let failing = Subject::new(scene, &format!("{}-fails", scene.id))?;
    let options = failing.options(&[("post-start", &exec("echo no >&2; exit 3")), order], &[]);
    let options: Vec<&str> =
        std::iter::once("-d").chain(options.iter().map(String::as_str)).collect();
    let args = scene.run_args(&options, &failing.id, &["sh", "-c", POLITE]);
    let refused = scene.ctr.output(&args)?;
    let told = refused.complaint();
    ensure!(refused.code != 0 && told.contains("PostStart hook failed"), "told: {told}");
    ensure!(told.contains("exited with 3: no"), "told: {told}");
    ensure_eq!(failing.lines("log").len(), 0, "the program ran");
    let _ = scene.ctr.output(&["task", "delete", "--force", &failing.id]);
    scene.ctr.ok(&["container", "delete", &failing.id]).map(drop)
}

/// Annotations that cannot be used: what, its value, and what has to be said of it.
const WRONG: [(&str, &str, &str); 8] = [
    ("pre-stop", "{", "EOF"),
    ("pre-stop", r#"{"exec":{}}"#, "exec.command: Required value"),
    ("pre-stop", r#"{"httpGet":{"port":0}}"#, "port: Invalid value: 0"),
    ("post-start", r#"{"sleep":{"seconds":31}}"#, "terminationGracePeriodSeconds (30)"),
    ("post-start-order", "before-entrypoint", "no post-start hook"),
    ("stop", r#"{"gracePeriodSeconds":-1}"#, "gracePeriodSeconds: Invalid value: -1"),
    ("stop", r#"{"signal":"SIGNOPE"}"#, "signal: Invalid value: \"SIGNOPE\""),
    ("pre-stopp", "{}", "nobody knows this name"),
];

/// Create fails with the annotation's name and the reason, and leaves nothing.
pub(crate) fn wrong_annotations(scene: &mut Scene<'_>) -> Result<()> {
    let before = Census::with(&[scene.daemon.state()])?;
    for (what, value, part) in WRONG {
        let subject = Subject::new(scene, &scene.id)?;
        let options = subject.options(&[(what, value)], &[]);
        let options: Vec<&str> =
            std::iter::once("-d").chain(options.iter().map(String::as_str)).collect();
        let refused = scene.ctr.output(&scene.run_args(&options, &subject.id, &["true"]))?;
        let told = refused.complaint();
        let name = format!("{what}.boathook.dev/self");
        ensure!(refused.code != 0, "{what}={value} was accepted");
        ensure!(told.contains(&name) && told.contains(part), "{what}={value}: {told}");
        // Later clients do not print the code, which `wrong_annotations_of_cri` sees.
        let coded = scene.daemon.packages().release != Release::Bookworm;
        ensure!(coded || told.contains("invalid argument"), "{what}={value}: {told}");
        scene.ctr.ok(&["container", "delete", &subject.id])?;
    }
    before.assert_same()
}

/// The same in a pod, whose other containers do not notice. The shim's Create is part of CRI's
/// StartContainer. Both were seen red with another class for the error.
pub(crate) fn wrong_annotations_of_cri(scene: &mut Scene<'_>) -> Result<()> {
    scene.ctr = scene.daemon.ctr(CRI_NAMESPACE);
    // Annotations of the pod reach its sandbox, which is none of the containers they name.
    let pod = Sandbox::start(scene, &scene.id, &[("pre-stop.boathook.dev/pod-wide", "bye")])?;
    let (good, subject) = pod.run(scene, ("good", BUSYBOX), &[], POLITE)?;
    subject.logged("ready")?;
    let shims = rootfs_tests::host::processes(|line| {
        line.contains("-shim-boathook") && line.contains(&pod.id)
    });
    ensure_eq!(shims.len(), 1, "shims of the pod");
    let before = (Census::with(&[scene.daemon.state()])?, settled_descriptors(shims[0])?);
    let of_pod = std::iter::once(("pod-wide", "", "expected value"));
    for (what, value, part) in WRONG.into_iter().chain(of_pod) {
        let (name, key, annotations) = match what {
            "pod-wide" => ("pod-wide", "pre-stop.boathook.dev/pod-wide".to_owned(), vec![]),
            _ => {
                let key = format!("{what}.boathook.dev/bad");
                ("bad", key.clone(), vec![(key, value)])
            }
        };
        let annotations: Vec<_> = annotations.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        let (id, subject) = pod.create(scene, (name, BUSYBOX), &annotations, POLITE)?;
        let Err(refused) = pod.cri.start(&id) else {
            return Err(Error::check(format!("{what}={value} was accepted")));
        };
        ensure_eq!(refused.code(), Some("InvalidArgument"), "{what}={value}: {refused}");
        let told_of = refused.to_string();
        ensure!(told_of.contains(&key) && told_of.contains(part), "{what}={value}: {told_of}");
        let records = (record(CRI_NAMESPACE, &id).is_err(), told(CRI_NAMESPACE, &id).is_err());
        ensure_eq!(records, (true, true), "{what}={value}: no record, here nor of what is gone");
        ensure_eq!(subject.lines("log").len(), 0, "{what}={value}: the program ran");
        pod.cri.remove(&id)?;
    }
    before.0.assert_same()?;
    ensure_eq!(settled_descriptors(shims[0])?, before.1, "descriptors of the shim");
    ensure_eq!(scene.status(&good)?, "RUNNING", "the pod's other container");
    pod.end()
}
