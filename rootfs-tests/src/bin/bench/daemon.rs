//! Whole commands and pods, under a real containerd.

use std::fs;
use std::path::Path;
use std::thread;

use rootfs_tests::containerd::{BOATHOOK, CRI_NAMESPACE, Daemon, RUNC};
use rootfs_tests::cri::{
    ContainerConfig, Cri, LinuxPodSandboxConfig, NamespaceMode, NamespaceOption, PodSandboxConfig,
};
use rootfs_tests::error::Context;
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::packages::Release;
use rootfs_tests::{Error, Result};

use crate::report::Row;
use crate::rig::{Rig, Which};
use crate::rounds::{Laps, Match, Spacing, lap, measure};
use crate::stats::Bar;

/// The kubelet's default, in seconds; the measured containers end at once when asked.
const GRACE: i64 = 30;
/// Ends by the usual signal, as servers do; a shell that is process 1 has to be told.
const OBEDIENT: [&str; 3] =
    ["/bin/sh", "-c", "trap 'exit 0' TERM; : > /ready; sleep 2147483647 & wait"];
const CROWD: usize = 20;

pub(crate) fn ctr(rig: &Rig) -> Result<Vec<Row>> {
    const NAMESPACE: &str = "bench";
    let daemon = Daemon::start(Release::Bookworm)?;
    daemon.import(NAMESPACE)?;
    let ctr = daemon.ctr(NAMESPACE);
    let mut number = 0;
    let mut rows = Vec::new();
    for spacing in Spacing::BOTH {
        let (name, other, rounds) = ("ctr run --rm", Which::Stock, rig.rounds);
        let what = Match { name, other, bar: Bar::Share(0.6), part_bars: &[], spacing, rounds };
        let measured = measure(&what, |which| {
            number += 1;
            let id = format!("boathook-bench-ctr-{number}");
            let cgroup = format!("/{id}");
            let runtime = if which == Which::Stock { RUNC } else { BOATHOOK };
            let mut args = vec!["run", "--rm", "--seccomp", "--runtime", runtime];
            args.extend(["--cgroup", &cgroup, BUSYBOX, &id, "/bin/true"]);
            let mut laps = Laps::new();
            lap(&mut laps, "run", || ctr.ok(&args))?;
            Ok(laps)
        });
        rows.extend(measured.map_err(|error| with_log(&error, &daemon))?);
    }
    daemon.end()?;
    Ok(rows)
}

/// The daemon's own words are lost when its directory goes.
fn with_log(error: &Error, daemon: &Daemon) -> Error {
    Error::check(format!("{error}\n{}", daemon.log_tail()))
}

/// A pod with one container: on a network of its own, and on the host's. The first spends most of
/// a stop in the network plugin and the kernel's removal of links, whatever the shim does.
pub(crate) fn cri(rig: &Rig) -> Result<Vec<Row>> {
    const BARS: &[(&str, Bar)] = &[
        ("RunPodSandbox", Bar::Share(0.6)),
        ("StopContainer", Bar::Share(0.5)),
        ("StopPodSandbox", Bar::Share(0.5)),
    ];
    let daemon = Daemon::start(Release::Bookworm)?;
    daemon.import(CRI_NAMESPACE)?;
    let cri = daemon.cri()?;
    let mut number = 0;
    let mut rows = Vec::new();
    for (name, host) in
        [("a pod by CRI, own network", false), ("a pod by CRI, network of the host", true)]
    {
        let (other, spacing, rounds) = (Which::Stock, Spacing::Apart, rig.rounds / 2 + 1);
        let what = Match { name, other, bar: Bar::None, part_bars: BARS, spacing, rounds };
        let measured = measure(&what, |which| {
            number += 1;
            let pod = pod(&format!("bench-{number}"), &daemon.logs(), host)?;
            one_pod(&cri, &pod, which)
        });
        rows.extend(measured.map_err(|error| with_log(&error, &daemon))?);
    }
    drop(cri);
    daemon.end()?;
    Ok(rows)
}

fn handler(which: Which) -> &'static str {
    if which == Which::Ours { "boathook" } else { "runc" }
}

fn pod(name: &str, logs: &Path, host: bool) -> Result<PodSandboxConfig> {
    let logs = logs.join(name);
    fs::create_dir(&logs).during(|| format!("mkdir {}", logs.display()))?;
    let mut config = PodSandboxConfig::simple(name, "/", &logs);
    if host {
        // The host's name goes with its network.
        config.hostname = String::new();
        let options = NamespaceOption { network: NamespaceMode::Node.into(), ..own_pids() };
        let linux = config.linux.get_or_insert_with(LinuxPodSandboxConfig::default);
        let context = linux.security_context.get_or_insert_with(Default::default);
        context.namespace_options = Some(options);
    }
    Ok(config)
}

fn own_pids() -> NamespaceOption {
    NamespaceOption::container_pids()
}

fn one_pod(cri: &Cri, config: &PodSandboxConfig, which: Which) -> Result<Laps> {
    let container = ContainerConfig::simple("main", &OBEDIENT);
    let mut laps = Laps::new();
    let pod = lap(&mut laps, "RunPodSandbox", || cri.run_pod(config, handler(which)))?;
    let id = lap(&mut laps, "CreateContainer", || cri.create(&pod, &container, config))?;
    lap(&mut laps, "StartContainer", || cri.start(&id))?;
    // The shell must have set its trap.
    cri.exec(&id, &["/bin/sh", "-c", "until [ -e /ready ]; do :; done"], 10)?;
    lap(&mut laps, "StopContainer", || cri.stop(&id, GRACE))?;
    lap(&mut laps, "RemoveContainer", || cri.remove(&id))?;
    lap(&mut laps, "StopPodSandbox", || cri.stop_pod(&pod))?;
    lap(&mut laps, "RemovePodSandbox", || cri.remove_pod(&pod))?;
    Ok(laps)
}

/// From the first request to the start of the last container.
pub(crate) fn crowd(rig: &Rig) -> Result<Vec<Row>> {
    let daemon = Daemon::start(Release::Bookworm)?;
    daemon.import(CRI_NAMESPACE)?;
    let clients = (0..CROWD).map(|_| daemon.cri()).collect::<Result<Vec<Cri>>>()?;
    let mut number = 0;
    let (name, other) = ("20 pods at once, until all containers run", Which::Stock);
    let (spacing, rounds) = (Spacing::BackToBack, rig.rounds / 10 + 1);
    let what = Match { name, other, bar: Bar::None, part_bars: &[], spacing, rounds };
    let measured = measure(&what, |which| {
        number += 1;
        let configs = (0..CROWD)
            .map(|member| pod(&format!("crowd-{number}-{member}"), &daemon.logs(), true))
            .collect::<Result<Vec<_>>>()?;
        let mut laps = Laps::new();
        let pods = lap(&mut laps, "all", || start_all(&clients, &configs, which))?;
        for (cri, pod) in clients.iter().zip(&pods) {
            cri.stop_pod(pod)?;
            cri.remove_pod(pod)?;
        }
        Ok(laps)
    });
    let rows = measured.map_err(|error| with_log(&error, &daemon))?;
    drop(clients);
    daemon.end()?;
    Ok(rows)
}

fn start_all(clients: &[Cri], configs: &[PodSandboxConfig], which: Which) -> Result<Vec<String>> {
    let start = |cri: &Cri, config: &PodSandboxConfig| {
        let pod = cri.run_pod(config, handler(which))?;
        cri.run(&pod, &ContainerConfig::simple("main", &OBEDIENT), config)?;
        Ok(pod)
    };
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter()
            .zip(configs)
            .map(|(cri, config)| scope.spawn(move || start(cri, config)))
            .collect();
        running
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| Err(Error::check("a starter died"))))
            .collect()
    })
}
