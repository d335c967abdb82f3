//! A stop that goes on while containerd is dead.

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use rootfs_tests::containerd::{CRI_NAMESPACE, Daemon};
use rootfs_tests::cri::{ContainerConfig, ContainerState, PodSandboxConfig};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{Error, Result, ensure_eq};

/// Does not end by itself, so that the stop has to go all the way.
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 1000; done";
const HOOK: &str = r#"{"exec":{"command":["sleep","1"]}}"#;
const STOP: &str = r#"{"gracePeriodSeconds":3}"#;

/// Stops a container and kills the daemon in the middle of the grace period.
pub(crate) fn show(daemon: &mut Daemon) -> Result<()> {
    let logs = daemon.logs().join("stop");
    fs::create_dir(&logs)
        .map_err(|source| Error::Io { what: format!("mkdir {}", logs.display()), source })?;
    let cri = daemon.cri()?;
    let pod = PodSandboxConfig::simple("stop", "/", &logs);
    let sandbox = cri.run_pod(&pod, "boathook")?;
    let mut config = ContainerConfig::simple("stubborn", &["/bin/sh", "-c", STUBBORN]);
    config.annotations = HashMap::from([
        ("pre-stop.boathook.dev/stubborn".to_owned(), HOOK.to_owned()),
        ("stop.boathook.dev/stubborn".to_owned(), STOP.to_owned()),
    ]);
    let container = cri.run(&sandbox, &config, &pod)?;
    let log = logs.join("stubborn.log");
    wait::until("the container's first line", PATIENCE, || {
        Ok(fs::read_to_string(&log).unwrap_or_default().contains("ready").then_some(()))
    })?;
    let info = cri.container_info(&container)?;
    let info: serde_json::Value =
        serde_json::from_str(&info).map_err(|error| Error::check(format!("{error}: {info}")))?;
    let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let pid = pid.ok_or_else(|| Error::check(format!("no pid in {info}")))?;

    let begun = Instant::now();
    let ctr = daemon.ctr(CRI_NAMESPACE);
    ctr.ok(&["task", "kill", "--signal", "SIGTERM", &container])?;
    let record = format!("/run/boathook/{CRI_NAMESPACE}/{container}/lifecycle.json");
    // One of three seconds is over then.
    wait::until("SIGTERM, after the preStop hook", PATIENCE, || {
        Ok(fs::read_to_string(&record).unwrap_or_default().contains("signalled").then_some(()))
    })?;
    daemon.kill()?;
    wait::gone(pid, PATIENCE)?;
    let took = begun.elapsed();

    daemon.up()?;
    let cri = daemon.cri()?;
    wait::until("the exit, told by the new containerd", PATIENCE, || {
        let state = cri.container_status(&container)?.state;
        Ok((state == i32::from(ContainerState::Exited)).then_some(()))
    })?;
    let code = cri.container_status(&container)?.exit_code;
    ensure_eq!(code, 137, "exit code after the stop");
    println!(
        "\nA container that ignores SIGTERM, with a preStop hook of 1 s and a grace period of 3 s, was told to stop,\n\
         and containerd was killed in the middle of it, after SIGTERM. The container ended {:.1} s after the stop began; the\n\
         containerd that was started then knows its exit code, {code}.",
        took.as_secs_f64()
    );
    cri.stop_pod(&sandbox)?;
    cri.remove_pod(&sandbox)
}
