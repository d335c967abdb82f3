//! Pods and containers through the Container Runtime Interface, as the kubelet drives it.

mod events;
mod load;
mod pod;
mod streaming;
mod user;

use events::{container_events, no_container_events, pod_stats};
use load::{execs_until_the_end, rounds, twenty_pods_at_once};
use pod::{Pod, SLEEP};
use rootfs_tests::cri::{
    ContainerConfig, ContainerFilter, ContainerState, ImageSpec, KeyValue, LinuxContainerResources,
    Mount, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxFilter, PodSandboxState,
};
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq, host, suite};
use std::fs;
use streaming::{
    attach, attach_to_a_terminal, port_forward, stream_exec, stream_exec_input,
    stream_exec_on_a_terminal,
};
use user::{runtime_info, user_namespace};

suite!(
    version_and_status,
    pod_life,
    two_containers_share_the_pod,
    processes_shared_in_the_pod,
    host_network,
    exec_sync,
    exec_sync_takes_too_long,
    exec_sync_large_output,
    log_file,
    log_file_is_reopened,
    log_rotation_loses_nothing,
    stream_exec,
    stream_exec_input,
    stream_exec_on_a_terminal,
    attach,
    attach_to_a_terminal,
    port_forward,
    stats,
    pod_stats,
    container_events on [Trixie, Sid],
    no_container_events on [Bookworm],
    update,
    stop_in_time,
    stop_by_force,
    exit_code_and_times,
    restart_of_a_container,
    lists_and_filters,
    identity_and_limits,
    mounts,
    runtime_info on [Sid],
    user_namespace on [Sid],
    unknown_program,
    unknown_ids,
    daemon_restart,
    daemon_killed,
    twenty_pods_at_once,
    rounds,
    execs_until_the_end,
);

/// A process that says it is ready, ends with code 5 on SIGTERM, and lives otherwise.
const POLITE: [&str; 3] = ["sh", "-c", "trap 'exit 5' TERM; echo ready; sleep 1000 & wait"];
/// A process that does not end on SIGTERM.
const RUDE: [&str; 3] = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"];

fn version_and_status(scene: &mut Scene<'_>) -> Result<()> {
    let cri = scene.cri()?;
    let version = cri.version()?;
    ensure_eq!(version.runtime_name, "containerd", "runtime name");
    ensure_eq!(version.runtime_api_version, "v1", "API version");
    let handlers = cri.status()?.runtime_handlers;
    // containerd tells them since 2.0.
    let name = scene.runtime.handler();
    let known = handlers.is_empty() || handlers.iter().any(|handler| handler.name == name);
    ensure!(known, "no handler {name} in {handlers:?}");
    Ok(())
}

fn pod_life(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let status = pod.cri.pod_status(&pod.id)?.status.unwrap_or_default();
    ensure_eq!(status.state, i32::from(PodSandboxState::Ready), "state of a new pod");
    ensure_eq!(status.runtime_handler, scene.runtime.handler(), "handler of the pod");
    let ip = status.network.unwrap_or_default().ip;
    ensure!(ip.starts_with("198.18.0."), "address of the pod: {ip:?}");
    pod.cri.stop_pod(&pod.id)?;
    let status = pod.cri.pod_status(&pod.id)?.status.unwrap_or_default();
    ensure_eq!(status.state, i32::from(PodSandboxState::NotReady), "state of a stopped pod");
    // The kubelet repeats what it is not sure of.
    pod.cri.stop_pod(&pod.id)?;
    pod.cri.remove_pod(&pod.id)?;
    pod.cri.remove_pod(&pod.id)?;
    let left = pod.cri.pod_status(&pod.id);
    ensure_eq!(
        left.err().and_then(|it| it.code().map(str::to_owned)),
        Some("NotFound".into()),
        "status of a removed pod"
    );
    Ok(())
}

fn two_containers_share_the_pod(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let (one, two) = (pod.sleeper("one")?, pod.sleeper("two")?);
    for namespace in ["net", "ipc", "uts"] {
        let link = format!("readlink /proc/self/ns/{namespace}");
        let (left, right) = (pod.exec(&one, &link)?, pod.exec(&two, &link)?);
        ensure_eq!(left, right, "{namespace} namespaces of the pod's containers");
        let host = fs::read_link(format!("/proc/self/ns/{namespace}")).during(|| "readlink")?;
        ensure!(left != host.display().to_string(), "the pod has the host's {namespace} namespace");
    }
    for namespace in ["pid", "mnt"] {
        let link = format!("readlink /proc/self/ns/{namespace}");
        let (left, right) = (pod.exec(&one, &link)?, pod.exec(&two, &link)?);
        ensure!(left != right, "both containers are in {namespace} namespace {left}");
    }
    let expected = format!("host-{}", scene.id);
    ensure_eq!(pod.exec(&two, "hostname")?, expected, "host name");
    let ip = pod.cri.pod_status(&pod.id)?.status.and_then(|it| it.network).unwrap_or_default().ip;
    let seen = pod.exec(&one, "ip -4 -o addr show eth0")?;
    ensure!(seen.contains(&format!("{ip}/24")), "address {ip} is not in {seen:?}");
    // What one listens on, the other reaches on loopback.
    pod.exec(&one, "nc -l -p 7777 -e echo hello >/dev/null 2>&1 &")?;
    wait::until("an answer over loopback", PATIENCE, || {
        let said = pod.cri.exec(&two, &["nc", "-w", "1", "127.0.0.1", "7777"], 20)?;
        Ok((said.stdout == b"hello\n").then_some(()))
    })?;
    pod.end()
}

fn processes_shared_in_the_pod(scene: &mut Scene<'_>) -> Result<()> {
    let shared = NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() };
    let pod = Pod::with(scene, |config| {
        let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        if let Some(context) = context {
            context.namespace_options = Some(shared.clone());
        }
    })?;
    let mut config = ContainerConfig::simple("one", &SLEEP);
    if let Some(context) = config.linux.as_mut().and_then(|it| it.security_context.as_mut()) {
        context.namespace_options = Some(shared.clone());
    }
    let one = pod.run(&config)?;
    let first = pod.exec(&one, "tr '\\0' ' ' < /proc/1/cmdline")?;
    ensure!(first.contains("sleep 2147483647"), "process 1 is the pod's own: {first}");
    // The container's end must not take the pod along, nor leave its other processes.
    let inner = pod.exec(&one, "sleep 777 >/dev/null 2>&1 & echo $!")?;
    pod.cri.stop(&one, 0)?;
    pod.cri.remove(&one)?;
    let two = pod.run(&{
        let mut second = config.clone();
        second.metadata =
            Some(rootfs_tests::cri::ContainerMetadata { name: "two".into(), attempt: 0 });
        second
    })?;
    let left = pod.exec(&two, &format!("test ! -e /proc/{inner} && echo gone || ps"))?;
    ensure_eq!(left, "gone", "process {inner} of the removed container");
    pod.end()
}

fn host_network(scene: &mut Scene<'_>) -> Result<()> {
    let node = NamespaceOption {
        network: NamespaceMode::Node.into(),
        ..NamespaceOption::container_pids()
    };
    let pod = Pod::with(scene, |config| {
        config.hostname = String::new();
        let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        if let Some(context) = context {
            context.namespace_options = Some(node.clone());
        }
    })?;
    let mut config = ContainerConfig::simple("one", &SLEEP);
    if let Some(context) = config.linux.as_mut().and_then(|it| it.security_context.as_mut()) {
        context.namespace_options = Some(node.clone());
    }
    let one = pod.run(&config)?;
    let seen = pod.exec(&one, "readlink /proc/self/ns/net")?;
    let host = fs::read_link("/proc/self/ns/net").during(|| "readlink")?;
    ensure_eq!(seen, host.display().to_string(), "network namespace of a host-network pod");
    pod.end()
}

fn exec_sync(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let one = pod.sleeper("one")?;
    let said = pod.cri.exec(&one, &["sh", "-c", "echo out; echo err >&2; exit 3"], 20)?;
    ensure_eq!(said.stdout, b"out\n", "standard output");
    ensure_eq!(said.stderr, b"err\n", "standard error");
    ensure_eq!(said.exit_code, 3, "exit code");
    let killed = pod.cri.exec(&one, &["sh", "-c", "kill -9 $$"], 20)?;
    ensure_eq!(killed.exit_code, 137, "exit code of a killed exec");
    // Probes come by the hundred.
    for round in 0..20 {
        let said = pod.cri.exec(&one, &["true"], 20)?;
        ensure_eq!(said.exit_code, 0, "exit code of probe {round}");
    }
    let missing = pod.cri.exec(&one, &["no-such-program"], 20);
    let told = missing.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(told.contains("executable file not found in $PATH"), "told: {told:?}");
    pod.end()
}

fn exec_sync_takes_too_long(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let one = pod.sleeper("one")?;
    let late = pod.cri.exec(&one, &["sleep", "987"], 1);
    let code = late.as_ref().err().and_then(Error::code).map(str::to_owned);
    ensure_eq!(code, Some("DeadlineExceeded".to_owned()), "answer to an exec that takes too long");
    let left = pod.exec(&one, "ps | grep -c '[s]leep 987' || true")?;
    ensure_eq!(left, "0", "processes of the exec that took too long");
    pod.end()
}

fn exec_sync_large_output(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let one = pod.sleeper("one")?;
    let said = pod.cri.exec(&one, &["sh", "-c", "seq 1 200000 | head -c 1048576"], 20)?;
    let mut expected: Vec<u8> =
        (1..200_000_u32).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    expected.truncate(1 << 20);
    ensure_eq!(said.stdout.len(), expected.len(), "bytes of standard output");
    ensure!(said.stdout == expected, "standard output differs");
    pod.end()
}

/// The format is the kubelet's: time, stream, F for a whole line, text.
fn log_file(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let script = "echo to out; echo to err >&2; printf unfinished";
    let one = pod.run(&ContainerConfig::simple("one", &["sh", "-c", script]))?;
    pod.exited(&one)?;
    pod.logged("one", "unfinished")?;
    let text = fs::read_to_string(pod.logs.join("one.log")).during(|| "read the log")?;
    let mut lines: Vec<&str> =
        text.lines().filter_map(|line| line.split_once(' ').map(|(_, rest)| rest)).collect();
    lines.sort_unstable();
    ensure_eq!(
        lines,
        ["stderr F to err", "stdout F to out", "stdout P unfinished"],
        "log:\n{text}"
    );
    pod.end()
}

fn log_file_is_reopened(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let script = "echo before; until test -e /go; do sleep 0.01; done; echo after; sleep 1000";
    let one = pod.run(&ContainerConfig::simple("one", &["sh", "-c", script]))?;
    pod.logged("one", "before")?;
    let log = pod.logs.join("one.log");
    fs::rename(&log, pod.logs.join("one.log.1")).during(|| "rotate the log")?;
    pod.cri.reopen_log(&one)?;
    pod.exec(&one, "touch /go")?;
    pod.logged("one", "after")?;
    let text = fs::read_to_string(&log).during(|| "read the log")?;
    ensure!(!text.contains("before"), "the new log holds the old lines:\n{text}");
    pod.end()
}

/// Every line is in one of the files, in order, however often they are rotated meanwhile.
fn log_rotation_loses_nothing(scene: &mut Scene<'_>) -> Result<()> {
    const LINES: usize = 1000;
    let pod = Pod::start(scene)?;
    let script = format!(
        "i=0; while test $i -lt {LINES}; do i=$((i+1)); echo line-$i; \
         case $i in *00) until test -e /go-$i; do sleep 0.01; done;; esac; done"
    );
    let one = pod.run(&ContainerConfig::simple("one", &["sh", "-c", &script]))?;
    let log = pod.logs.join("one.log");
    let mut files = Vec::new();
    for last in (100..LINES).step_by(100) {
        let written = format!("line-{last}\n");
        wait::until(&format!("line {last} in any of the files"), PATIENCE, || {
            let holds = |file| fs::read_to_string(file).unwrap_or_default().contains(&written);
            Ok((files.iter().any(holds) || holds(&log)).then_some(()))
        })?;
        // The writer goes on while the file is exchanged, and waits a hundred lines later.
        pod.exec(&one, &format!("touch /go-{last}"))?;
        let old = pod.logs.join(format!("one.log.{last}"));
        fs::rename(&log, &old).during(|| "rotate the log")?;
        pod.cri.reopen_log(&one)?;
        files.push(old);
    }
    // The container may end before this does, and takes it along.
    pod.cri.exec(&one, &["touch", &format!("/go-{LINES}")], 20)?;
    pod.exited(&one)?;
    files.push(log);
    let mut text = String::new();
    for file in files {
        text += &fs::read_to_string(&file).during(|| format!("read {}", file.display()))?;
    }
    let lines: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(3)).collect();
    let expected: Vec<String> = (1..=LINES).map(|number| format!("line-{number}")).collect();
    let at = lines.iter().zip(&expected).position(|(found, wanted)| found != wanted);
    ensure_eq!((lines.len(), at), (LINES, None), "lines in all files, and the first wrong one");
    pod.end()
}

fn stats(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let mut config = ContainerConfig::simple(
        "one",
        &["sh", "-c", "seq 1 50000 >/dev/null; echo done; sleep 1000"],
    );
    if let Some(linux) = config.linux.as_mut() {
        let memory_limit_in_bytes = 64 << 20;
        linux.resources =
            Some(LinuxContainerResources { memory_limit_in_bytes, ..Default::default() });
    }
    let one = pod.run(&config)?;
    let two = pod.sleeper("two")?;
    pod.logged("one", "done")?;
    let stats = pod.cri.stats(&one)?;
    let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).unwrap_or_default().value;
    ensure!(cpu > 1_000_000, "{cpu} ns of CPU time after counting to 50000");
    let memory = stats.memory.unwrap_or_default();
    let working_set = memory.working_set_bytes.unwrap_or_default().value;
    let available = memory.available_bytes.unwrap_or_default().value;
    ensure!((4096..64 << 20).contains(&working_set), "{working_set} bytes of working set");
    ensure_eq!(available + working_set, 64 << 20, "available and working set add up to the limit");
    let all = pod.cri.list_stats(None)?;
    let mut ids: Vec<String> =
        all.into_iter().filter_map(|it| it.attributes.map(|attributes| attributes.id)).collect();
    let mut expected = vec![one, two];
    ids.sort_unstable();
    expected.sort_unstable();
    ensure_eq!(ids, expected, "containers with stats");
    pod.end()
}

fn update(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let one = pod.sleeper("one")?;
    let pid = pod.first_process(&one)?;
    let limits = LinuxContainerResources {
        memory_limit_in_bytes: 96 << 20,
        cpu_shares: 512,
        cpu_quota: 20_000,
        cpu_period: 50_000,
        cpuset_cpus: "0".into(),
        ..Default::default()
    };
    pod.cri.update(&one, limits)?;
    let cpus = "grep Cpus_allowed_list /proc/1/status | cut -f 2";
    ensure_eq!(pod.exec(&one, cpus)?, "0", "processors after the update");
    if let Ok(memory) = host::cgroup_file(pid, "memory", "memory.limit_in_bytes") {
        ensure_eq!(memory, (96 << 20).to_string(), "memory limit");
        ensure_eq!(host::cgroup_file(pid, "cpu", "cpu.shares")?, "512", "CPU shares");
        ensure_eq!(host::cgroup_file(pid, "cpu", "cpu.cfs_quota_us")?, "20000", "CPU quota");
        ensure_eq!(host::cgroup_file(pid, "cpu", "cpu.cfs_period_us")?, "50000", "CPU period");
    } else {
        ensure_eq!(host::cgroup_file(pid, "", "memory.max")?, (96 << 20).to_string(), "memory.max");
        ensure_eq!(host::cgroup_file(pid, "", "cpu.max")?, "20000 50000", "cpu.max");
    }
    pod.end()
}

fn stop_in_time(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let one = pod.run(&ContainerConfig::simple("one", &POLITE))?;
    pod.logged("one", "ready")?;
    pod.cri.stop(&one, 60)?;
    let status = pod.cri.container_status(&one)?;
    ensure_eq!(status.exit_code, 5, "exit code after a stop with grace");
    // Stopped already: the kubelet may ask again.
    pod.cri.stop(&one, 60)?;
    pod.end()
}

fn stop_by_force(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let one = pod.run(&ContainerConfig::simple("one", &RUDE))?;
    pod.logged("one", "ready")?;
    pod.cri.stop(&one, 1)?;
    let status = pod.cri.container_status(&one)?;
    ensure_eq!(status.exit_code, 137, "exit code after the grace period");
    pod.end()
}

fn exit_code_and_times(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    for (name, code, reason) in [("good", 0, "Completed"), ("bad", 42, "Error")] {
        let script = format!("exit {code}");
        let id = pod.run(&ContainerConfig::simple(name, &["sh", "-c", &script]))?;
        pod.exited(&id)?;
        let status = pod.cri.container_status(&id)?;
        ensure_eq!((status.exit_code, status.reason.as_str()), (code, reason), "end of {name}");
        // The daemon takes the time of the start after the fact, so it may be past that of the end.
        let (created, started, finished) =
            (status.created_at, status.started_at, status.finished_at);
        ensure!(
            created > 0 && created <= started && created <= finished,
            "times of {name}: created {created}, started {started}, finished {finished}"
        );
    }
    pod.end()
}

/// A restart is a new container of the same name and the next attempt, in the same pod.
fn restart_of_a_container(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let mut config =
        ContainerConfig::simple("app", &["sh", "-c", "readlink /proc/self/ns/net; exit 1"]);
    let mut seen = Vec::new();
    for attempt in 0..3 {
        if let Some(metadata) = config.metadata.as_mut() {
            metadata.attempt = attempt;
        }
        config.log_path = format!("app-{attempt}.log");
        let id = pod.run(&config)?;
        pod.exited(&id)?;
        ensure_eq!(pod.cri.container_status(&id)?.exit_code, 1, "exit code of attempt {attempt}");
        pod.cri.remove(&id)?;
        let log = pod.logs.join(&config.log_path);
        let text = fs::read_to_string(&log).during(|| format!("read {}", log.display()))?;
        seen.push(text.split_whitespace().last().unwrap_or_default().to_owned());
    }
    ensure!(seen.windows(2).all(|pair| pair.first() == pair.last()), "network namespaces {seen:?}");
    pod.end()
}

fn lists_and_filters(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::with(scene, |config| {
        config.labels.insert("app".into(), "lists".into());
    })?;
    let one = pod.sleeper("one")?;
    let mut labelled = ContainerConfig::simple("two", &SLEEP);
    labelled.labels.insert("tier".into(), "back".into());
    let two = pod.cri.create(&pod.id, &labelled, &pod.config)?;
    ensure_eq!(pod.state(&one)?, ContainerState::Running, "state of a started container");
    ensure_eq!(pod.state(&two)?, ContainerState::Created, "state of a created container");

    let label = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let pods = pod.cri.list_pods(Some(PodSandboxFilter {
        label_selector: label("app", "lists"),
        ..Default::default()
    }))?;
    ensure_eq!(pods.iter().map(|it| &it.id).collect::<Vec<_>>(), [&pod.id], "pods by label");
    let none = pod.cri.list_pods(Some(PodSandboxFilter {
        label_selector: label("app", "other"),
        ..Default::default()
    }))?;
    ensure!(none.is_empty(), "pods with a label that none has: {none:?}");
    let by_label = pod.cri.list_containers(Some(ContainerFilter {
        label_selector: label("tier", "back"),
        ..Default::default()
    }))?;
    ensure_eq!(by_label.iter().map(|it| &it.id).collect::<Vec<_>>(), [&two], "containers by label");
    let by_pod = pod.cri.list_containers(Some(ContainerFilter {
        pod_sandbox_id: pod.id.clone(),
        ..Default::default()
    }))?;
    ensure_eq!(by_pod.len(), 2, "containers of the pod");
    // A container that was created and never started goes like any other.
    pod.cri.remove(&two)?;
    pod.end()
}

fn identity_and_limits(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let mut config = ContainerConfig::simple("one", &SLEEP);
    config.working_dir = "/home/boat".into();
    config.envs = vec![KeyValue { key: "COLOUR".into(), value: "dark blue".into() }];
    if let Some(linux) = config.linux.as_mut() {
        linux.resources = Some(LinuxContainerResources {
            memory_limit_in_bytes: 32 << 20,
            cpu_shares: 256,
            oom_score_adj: 500,
            ..Default::default()
        });
        if let Some(context) = linux.security_context.as_mut() {
            context.run_as_user = Some(rootfs_tests::cri::Int64Value { value: 1000 });
            context.supplemental_groups = vec![3000];
            context.readonly_rootfs = true;
            context.no_new_privs = true;
        }
    }
    let one = pod.run(&config)?;
    ensure_eq!(pod.exec(&one, "id -u; id -g")?, "1000\n1000", "user and group");
    let groups = pod.exec(&one, "id -G")?;
    for group in ["2000", "3000"] {
        ensure!(groups.split(' ').any(|it| it == group), "group {group} is not in {groups}");
    }
    ensure_eq!(pod.exec(&one, "pwd")?, "/home/boat", "working directory");
    ensure_eq!(pod.exec(&one, "echo $COLOUR")?, "dark blue", "environment");
    ensure_eq!(pod.exec(&one, "cat /proc/self/oom_score_adj")?, "500", "oom_score_adj");
    let status = pod.exec(&one, "grep NoNewPrivs /proc/1/status")?;
    ensure_eq!(status, "NoNewPrivs:\t1", "no_new_privs of process 1");
    let caps = pod.exec(&one, "grep CapEff /proc/1/status")?;
    ensure_eq!(caps, "CapEff:\t0000000000000000", "capabilities of an ordinary user");
    let written = pod.cri.exec(&one, &["touch", "/file"], 20)?;
    ensure!(written.exit_code != 0, "a read-only root was written");
    let pid = pod.first_process(&one)?;
    if let Ok(memory) = host::cgroup_file(pid, "memory", "memory.limit_in_bytes") {
        ensure_eq!(memory, (32 << 20).to_string(), "memory limit");
        ensure_eq!(host::cgroup_file(pid, "cpu", "cpu.shares")?, "256", "CPU shares");
    }
    pod.end()
}

fn mounts(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let dir = scene.daemon.dir().join("volume");
    fs::create_dir_all(&dir).during(|| "make a volume")?;
    fs::write(dir.join("file"), "from the host\n").during(|| "write into a volume")?;
    let mut config = ContainerConfig::simple("one", &SLEEP);
    let mount = |container_path: &str, readonly| Mount {
        container_path: container_path.into(),
        host_path: dir.display().to_string(),
        readonly,
        ..Default::default()
    };
    config.mounts = vec![mount("/data", false), mount("/fixed", true)];
    let one = pod.run(&config)?;
    ensure_eq!(pod.exec(&one, "cat /fixed/file")?, "from the host", "a file of a volume");
    pod.exec(&one, "echo from the container > /data/file")?;
    let text = fs::read_to_string(dir.join("file")).during(|| "read the volume")?;
    ensure_eq!(text, "from the container\n", "the file on the host");
    let refused = pod.cri.exec(&one, &["touch", "/fixed/other"], 20)?;
    ensure!(refused.exit_code != 0, "a read-only volume was written");
    pod.end()
}

fn unknown_program(scene: &mut Scene<'_>) -> Result<()> {
    let pod = Pod::start(scene)?;
    let cases = [
        ("no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
        ("/bin/not-executable", "exec: \"/bin/not-executable\": permission denied"),
    ];
    for (program, expected) in cases {
        let name = program.rsplit('/').next().unwrap_or(program);
        let id =
            pod.cri.create(&pod.id, &ContainerConfig::simple(name, &[program]), &pod.config)?;
        let told = pod.cri.start(&id).err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(told.contains(expected), "start of {program}: {told:?}");
        let status = pod.cri.container_status(&id)?;
        ensure_eq!(status.state, i32::from(ContainerState::Exited), "state of {program}");
        pod.cri.remove(&id)?;
    }
    let image =
        Some(ImageSpec { image: "docker.io/library/absent:1".into(), ..Default::default() });
    let absent = ContainerConfig { image, ..ContainerConfig::simple("absent", &SLEEP) };
    ensure!(pod.cri.create(&pod.id, &absent, &pod.config).is_err(), "a container of no image");
    ensure!(pod.cri.has_image(BUSYBOX)?, "the image is gone");
    pod.end()
}

fn unknown_ids(scene: &mut Scene<'_>) -> Result<()> {
    let cri = scene.cri()?;
    let refused = cri.container_status("nobody").err();
    ensure_eq!(refused.as_ref().and_then(Error::code), Some("NotFound"), "status of nobody");
    let refused = cri.exec("nobody", &["true"], 5).err();
    ensure_eq!(refused.as_ref().and_then(Error::code), Some("NotFound"), "exec in nobody");
    // Removal of what is not there is what the kubelet wants.
    cri.remove("nobody")?;
    cri.remove_pod("nobody")?;
    let pod = PodSandboxConfig::simple(&scene.id, scene.daemon.name(), &scene.daemon.logs());
    let refused = cri.run_pod(&pod, "no-such-handler").err().map(|error| error.to_string());
    let told = refused.unwrap_or_default();
    ensure!(told.contains("no-such-handler"), "a pod with an unknown handler: {told:?}");
    Ok(())
}

fn daemon_restart(scene: &mut Scene<'_>) -> Result<()> {
    survives(scene, rootfs_tests::containerd::Daemon::stop)
}

fn daemon_killed(scene: &mut Scene<'_>) -> Result<()> {
    survives(scene, rootfs_tests::containerd::Daemon::kill)
}

/// Containers outlive the daemon; one that ends meanwhile keeps its exit code.
fn survives(
    scene: &mut Scene<'_>,
    down: fn(&mut rootfs_tests::containerd::Daemon) -> Result<()>,
) -> Result<()> {
    let mut pod = Pod::start(scene)?;
    let stays = pod.sleeper("stays")?;
    let script = "until test -e /go; do sleep 0.01; done; exit 6";
    let ends = pod.run(&ContainerConfig::simple("ends", &["sh", "-c", script]))?;
    let (one, two) = (pod.first_process(&stays)?, pod.first_process(&ends)?);
    down(scene.daemon)?;
    ensure_eq!(host::command_line(one), "sleep 1000", "the container while the daemon is down");
    fs::write(format!("/proc/{two}/root/go"), "").during(|| "tell the container to end")?;
    wait::gone(two, PATIENCE)?;
    scene.daemon.up()?;
    pod.cri = scene.cri()?;
    ensure_eq!(pod.state(&stays)?, ContainerState::Running, "state after a restart of the daemon");
    ensure_eq!(pod.exec(&stays, "echo still here")?, "still here", "exec after the restart");
    pod.exited(&ends)?;
    // The stock shim loses the code of a container that ended meanwhile (255, Unknown).
    let code = pod.cri.container_status(&ends)?.exit_code;
    let expected: &[i32] = match scene.runtime {
        rootfs_tests::suite::Runtime::Runc => &[6, 255],
        rootfs_tests::suite::Runtime::Boathook => &[6],
    };
    ensure!(expected.contains(&code), "exit code {code} of a container that ended meanwhile");
    pod.end()
}
