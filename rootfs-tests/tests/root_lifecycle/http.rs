//! httpGet hooks against servers in the container's own network.

use crate::crash::{forget, kill_shim};
use crate::servers::{Manner, Server};
use crate::support::{POLITE, Subject, told};
use rootfs_tests::error::{Context, Result};
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host};
use rustix::process::Signal;
use std::fs;

/// A container that serves one request with this script, and ends with code 5 on SIGTERM.
fn server(answer: &str) -> String {
    format!(
        "printf '%s\\n' '#!/bin/sh' '{answer}' >/serve; chmod 755 /serve; \
         (while :; do nc -l -p 8080 -e /serve; done) & \
         trap 'echo term >>/out/log; exit 5' TERM; \
         until grep -q ':1F90 ' /proc/net/tcp /proc/net/tcp6; do sleep 0.05; done; \
         echo ready >>/out/log; while :; do sleep 1000 & wait; done"
    )
}

/// Nobody outside reaches that network. Any status is success; by number and by name.
pub(crate) fn http_in_the_containers_network(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let answer = "read line; echo \"$line\" >>/out/requests; while read head && test ${#head} -gt 1; do echo \"$head\" >>/out/requests; done; printf \"HTTP/1.1 500 Oops\\r\\nContent-Length: 0\\r\\n\\r\\n\"";
    let hook = r#"{"httpGet":{"path":"/stop?now","port":"web","httpHeaders":[{"name":"x-why","value":"test"}]}}"#;
    let ports = ("io.kubernetes.container.ports", r#"[{"name":"web","containerPort":8080}]"#);
    let options = subject
        .options(&[("pre-stop", hook)], &["--annotation", &format!("{}={}", ports.0, ports.1)]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    scene.start(&options, &subject.id, &["sh", "-c", &server(answer)])?;
    subject.logged("ready")?;
    subject.kill(scene, "SIGTERM")?;
    let (record, code) = subject.end(scene)?;
    ensure_eq!(code, 5, "exit code; {:?}", record.0);
    ensure!(record.names().contains(&"hookSucceeded:preStop".to_owned()), "{:?}", record.0);
    let requests = subject.lines("requests");
    ensure_eq!(requests.first().map(|it| it.trim()), Some("GET /stop?now HTTP/1.1"), "request");
    let has = |line: &str| requests.iter().any(|it| it.trim() == line);
    for line in ["Host: 127.0.0.1:8080", "User-Agent: kube-lifecycle/1.36", "X-Why: test"] {
        ensure!(has(line), "{line:?} is not in {requests:?}");
    }
    Ok(())
}

/// At least once: a request whose maker was killed before the answer came is made again, by the shim
/// when that was its helper, and by containerd's clean-up when it was the shim.
pub(crate) fn http_is_asked_again(scene: &mut Scene<'_>) -> Result<()> {
    const PORT: u16 = 8080;
    for kind in ["helper", "shim"] {
        let subject = Subject::new(scene, &format!("{}-{kind}", scene.id))?;
        let hook = format!(r#"{{"httpGet":{{"path":"/bye","port":{PORT}}}}}"#);
        subject.start(scene, &[("pre-stop", &hook)], &[], POLITE)?;
        subject.logged("ready")?;
        let asked = subject.out.join("asked");
        let pid = scene.pid(&subject.id)?;
        let server = Server::start(pid, PORT, Manner::SilentOnce, Some(asked.clone()))?;
        subject.kill(scene, "SIGTERM")?;
        wait::until("the first request", PATIENCE, || Ok(asked.exists().then_some(())))?;
        let helpers = host::processes(|line| line.contains("http-hook"));
        ensure_eq!(helpers.len(), 1, "helpers");
        match kind {
            "helper" => host::signal(helpers[0], Signal::KILL)?,
            _ => kill_shim(&subject.id)?,
        }
        let requests = server.end()?;
        ensure_eq!(requests, ["GET /bye HTTP/1.1"; 2], "requests, with the {kind} killed");
        wait::gone(pid, PATIENCE)?;
        let names = wait::until("the exit in the record", PATIENCE, || {
            let names = told(scene.ctr.namespace(), &subject.id)?.names();
            Ok(names.contains(&"exited".to_owned()).then_some(names))
        })?;
        let again: &[&str] = match kind {
            // That there were two helpers is nobody's business.
            "helper" => &["hookSucceeded:preStop", "signalled", "exited"],
            _ => &["hookStarted:preStop", "hookSucceeded:preStop", "killed", "exited"],
        };
        let expected = [&["started", "stopping", "hookStarted:preStop"], again].concat();
        ensure_eq!(names, expected, "the record, with the {kind} killed");
        if kind == "helper" {
            ensure_eq!(scene.delete(&subject.id)?, 5, "exit code");
        } else {
            forget(scene, &subject.id)?;
        }
    }
    host::none_left("helpers of http hooks", |line| line.contains("http-hook"))
}

/// Helpers are started three times in all: a hook whose helpers are all killed has failed, and the
/// stop goes on. Seen red with two times, and with four.
pub(crate) fn http_is_asked_three_times(scene: &mut Scene<'_>) -> Result<()> {
    const PORT: u16 = 8080;
    let subject = Subject::new(scene, &scene.id)?;
    let hook = format!(r#"{{"httpGet":{{"path":"/bye","port":{PORT}}}}}"#);
    subject.start(scene, &[("pre-stop", &hook)], &[], POLITE)?;
    subject.logged("ready")?;
    let asked = subject.out.join("asked");
    let pid = scene.pid(&subject.id)?;
    let server = Server::start(pid, PORT, Manner::SilentThrice, Some(asked.clone()))?;
    subject.kill(scene, "SIGTERM")?;
    for time in 1..=3 {
        wait::until(&format!("request {time}"), PATIENCE, || Ok(asked.exists().then_some(())))?;
        fs::remove_file(&asked).during(|| "forget a request")?;
        let helpers = host::processes(|line| line.contains("http-hook"));
        ensure_eq!(helpers.len(), 1, "helpers at request {time}");
        host::signal(helpers[0], Signal::KILL)?;
    }
    let requests = server.end()?;
    ensure_eq!(requests, ["GET /bye HTTP/1.1"; 3], "requests");
    let (record, code) = subject.end(scene)?;
    ensure_eq!(code, 5, "exit code");
    let expected =
        ["started", "stopping", "hookStarted:preStop", "hookFailed:preStop", "signalled", "exited"];
    ensure_eq!(record.names(), expected, "the record");
    let message = record.message("hookFailed")?;
    ensure!(message.contains("the helper was killed 3 times"), "message {message:?}");
    host::none_left("helpers of http hooks", |line| line.contains("http-hook"))
}
