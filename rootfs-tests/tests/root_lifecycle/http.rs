//! httpGet hooks against servers in the container's own network.

use crate::support::Subject;
use rootfs_tests::error::Result;
use rootfs_tests::suite::Scene;
use rootfs_tests::{ensure, ensure_eq};

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
