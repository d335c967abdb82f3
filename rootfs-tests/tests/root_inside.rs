//! The same container, run by both shims, must look the same from inside.
//!
//! A report of everything a process can see of its container is made with the stock shim and with
//! the shim under test, and compared line by line. With the stock shim on both sides the report
//! proves that it does not change from run to run.

use rootfs_tests::cri::{
    Capability, ContainerConfig, Int64Value, LinuxContainerResources, PodSandboxConfig,
    ProfileType, SecurityProfile,
};
use rootfs_tests::error::{Context, Result};
use rootfs_tests::image::BUSYBOX;
use rootfs_tests::suite::{Runtime, Scene};
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, suite};
use std::collections::BTreeSet;
use std::fs;

suite!(
    plain,
    read_only,
    privileged,
    with_seccomp,
    with_capabilities_and_limits,
    an_exec,
    an_exec_as_a_user,
    process_one_alone,
    in_a_pod,
    in_a_pod_as_a_user,
    in_a_privileged_pod,
    an_exec_in_a_pod,
);

/// The last line of a report that is whole.
const REPORT_END: &str = "end: of the report";

/// Everything that a process can find out about its container; sections by their first word.
const REPORT: &str = r#"
section() { while read -r line; do echo "$1: $line"; done; }
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Speculation|SigBlk|SigIgn|CoreDumping|THP|Cpus_allowed_list|Mems_allowed_list)' /proc/self/status | section status
env | grep -vE '^(SHLVL|PWD|_)=' | sort | section env
cat /proc/self/cgroup | section cgroup
cat /proc/self/limits | section limits
cat /proc/self/oom_score_adj | section oom
cat /proc/self/mountinfo | section mount
umask | section umask
pwd | section cwd
hostname | section host
find /dev /dev/pts -xdev ! -path '/dev/pts/[0-9]*' -exec stat -c '%n %F %a %u:%g %t:%T' {} ';' | section dev
find /dev -type l -exec ls -l {} ';' | sed 's/.* \/dev/\/dev/' | section link
ls -l /proc/self/fd | sed 's/.* \([0-9]* -> [^:]*\).*/\1/' | grep -E '^[0-9]' | grep -v /proc/ | section fd
ls -ld / /proc /sys /dev /dev/shm /run /tmp 2>&1 | awk '{ print $1, $3, $4, $9 }' | section dir
for file in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats /proc/scsi /sys/firmware /proc/acpi /proc/interrupts; do
    stat -c '%n %F %a %t:%T' $file 2>&1; ls $file 2>&1 | wc -l; head -c 1 $file 2>/dev/null | wc -c
done | section masked
for file in /proc/sys/kernel/domainname /proc/sysrq-trigger /proc/irq/x /proc/bus/x /sys/x /x; do
    (: >> $file) 2>&1 | sed 's/.*: //; s/^$/ok/'; echo "$file $?"
done | section write
for key in kernel/shmmax net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range fs/mqueue/msg_max net/ipv4/ip_forward; do
    echo "$key $(cat /proc/sys/$key 2>&1)"
done | section sysctl
(ip -o link; ip -o route) 2>&1 | sed 's/@if[0-9]*//; s/link\/.*//' | section net
cut -d ' ' -f 5-8 /proc/1/stat | section session
cat /proc/self/personality /proc/self/timerslack_ns /proc/self/coredump_filter 2>&1 | section misc
mkdir /tmp/m 2>&1 && mount -t tmpfs none /tmp/m 2>&1 | section may-mount
mknod /tmp/node c 1 11 2>&1 | section may-mknod
chown 5:5 /tmp/m 2>&1 | section may-chown
echo end: of the report
"#;

/// The report's lines without what differs from run to run, and without the differences that are
/// known and meant:
///
/// - `/dev/core` points to `/proc/kcore`; runc makes it only where the kernel has that file.
/// - Go's runtime leaves signal 32 ignored, which is a matter of its C library.
/// - See [`mount`] for the mount table.
fn normal(report: &str, in_pod: bool) -> BTreeSet<String> {
    let core = fs::exists("/proc/kcore").unwrap_or(false);
    report
        .lines()
        .filter(|line| core || !line.contains("/dev/core "))
        .map(|line| match line.strip_prefix("mount: ") {
            Some(entry) => format!("mount: {}", mount(entry, in_pod)),
            None => ignored(&line.split_whitespace().collect::<Vec<_>>().join(" ")),
        })
        .collect()
}

/// A line about ignored signals without signal 32, any other line as it is.
fn ignored(line: &str) -> String {
    let Some((head, mask)) = line.split_once("SigIgn: ") else { return line.to_owned() };
    let mask = u64::from_str_radix(mask, 16).unwrap_or(u64::MAX) & !(1 << 31);
    format!("{head}SigIgn: {mask:016x}")
}

/// A line of mountinfo without numbers, and without what each runtime does in its own way:
///
/// - overlay's directories, told by one option or by several;
/// - a masked directory's empty tmpfs, whose size nobody can use up;
/// - a masked file's null device, of the host's `/dev` or of the container's;
/// - in a pod, the tmpfs that holds the v1 hierarchies, which runc mounts writable where the spec has `ro`;
/// - in a pod, `/dev/shm`, whose `nosuid,nodev,noexec` runc loses since 1.2, and does not before.
fn mount(entry: &str, in_pod: bool) -> String {
    let words: Vec<&str> = entry.split(' ').collect();
    let (left, right) = entry.split_once(" - ").unwrap_or((entry, ""));
    // Root, mount point, options, and whether there are peer groups, not which: the first three
    // words are numbers.
    let mut kept: Vec<String> = left
        .split(' ')
        .skip(3)
        .map(|word| word.split_once(':').map_or(word, |(kind, _)| kind).to_owned())
        .collect();
    let point = words.get(4).copied().unwrap_or_default();
    let file_system = right.split(' ').next().unwrap_or_default();
    let masks = ["/proc/acpi", "/proc/scsi", "/proc/asound", "/sys/firmware"];
    let right = match (file_system, point) {
        ("overlay", _) => "overlay",
        ("tmpfs", point) if masks.contains(&point) => "an empty tmpfs",
        ("tmpfs", "/sys/fs/cgroup" | "/dev/shm") if in_pod => {
            kept.truncate(2);
            right
        }
        _ if kept.first().is_some_and(|root| root == "/null") => {
            kept.truncate(2);
            "a null device"
        }
        _ => right,
    };
    format!("{} - {right}", kept.join(" "))
}

/// How often the stock shim is asked for a report: on a busy machine it may close a container's
/// output before all of it was copied. The shim under test is asked once.
const STOCK_REPORTS: usize = 5;

/// A whole report by the stock shim, or the last one it made.
fn stock(report: &impl Fn(Runtime) -> Result<String>) -> Result<String> {
    let mut text = report(Runtime::Runc)?;
    for _ in 1..STOCK_REPORTS {
        if text.contains(REPORT_END) {
            break;
        }
        text = report(Runtime::Runc)?;
    }
    Ok(text)
}

/// Makes a report with the stock shim and with the scene's, and compares them.
fn same(scene: &Scene<'_>, in_pod: bool, report: impl Fn(Runtime) -> Result<String>) -> Result<()> {
    let by_stock = stock(&report)?;
    let found = match scene.runtime {
        Runtime::Runc => stock(&report)?,
        Runtime::Boathook => report(Runtime::Boathook)?,
    };
    let stock = by_stock;
    for text in [&stock, &found] {
        ensure!(text.contains(REPORT_END), "the report is not complete:\n{text}");
    }
    let (stock, found) = (normal(&stock, in_pod), normal(&found, in_pod));
    let differences: Vec<String> = stock
        .difference(&found)
        .map(|line| format!("- {line}"))
        .chain(found.difference(&stock).map(|line| format!("+ {line}")))
        .collect();
    ensure!(
        differences.is_empty(),
        "inside is different from the stock shim's (-):\n{}",
        differences.join("\n")
    );
    Ok(())
}

/// The report of `ctr run` with these options; ids and cgroups are the same for both shims.
fn run(scene: &Scene<'_>, options: &[&str]) -> Result<()> {
    same(scene, false, |runtime| {
        let head = ["run", "--rm", "--runtime", runtime.ctr()];
        let tail = [BUSYBOX, "inside", "sh", "-c", REPORT];
        Ok(scene.ctr.ok(&[&head[..], options, &tail[..]].concat())?.text())
    })
}

fn plain(scene: &mut Scene<'_>) -> Result<()> {
    run(scene, &[])
}

fn read_only(scene: &mut Scene<'_>) -> Result<()> {
    let mount = "type=bind,src=/etc,dst=/host-etc,options=rbind:ro:nosuid:nodev:rslave";
    run(scene, &["--read-only", "--mount", mount])
}

fn privileged(scene: &mut Scene<'_>) -> Result<()> {
    run(scene, &["--privileged"])
}

fn with_seccomp(scene: &mut Scene<'_>) -> Result<()> {
    run(scene, &["--seccomp"])
}

fn with_capabilities_and_limits(scene: &mut Scene<'_>) -> Result<()> {
    let capabilities = ["--cap-add", "CAP_SYS_ADMIN", "--cap-drop", "CAP_CHOWN"];
    let limits = ["--memory-limit", "100000000", "--cpus", "0.5", "--allow-new-privs"];
    run(scene, &[&capabilities[..], &limits[..], &["--net-host", "--env", "A=b c"]].concat())
}

/// The report of an exec in a container that only sleeps.
fn exec(scene: &Scene<'_>, options: &[&str]) -> Result<()> {
    same(scene, false, |runtime| {
        let run = ["run", "-d", "--runtime", runtime.ctr(), BUSYBOX, "inside", "sleep", "1000"];
        scene.ctr.ok(&run)?;
        let head = ["task", "exec", "--exec-id", "report"];
        let tail = ["inside", "sh", "-c", REPORT];
        let text = scene.ctr.ok(&[&head[..], options, &tail[..]].concat())?.text();
        scene.remove("inside")?;
        Ok(text)
    })
}

fn an_exec(scene: &mut Scene<'_>) -> Result<()> {
    exec(scene, &[])
}

fn an_exec_as_a_user(scene: &mut Scene<'_>) -> Result<()> {
    exec(scene, &["--user", "1000:2000", "--cwd", "/home/boat"])
}

/// No shell between the runtime and the one who looks: signals and descriptors as they are given.
/// What such a short process says may be lost in `ctr`, so it goes to a file.
fn process_one_alone(scene: &mut Scene<'_>) -> Result<()> {
    let log = scene.daemon.dir().join(format!("{}.log", scene.id));
    let uri = format!("file://{}", log.display());
    for command in [
        &["grep", "-E", "^(Sig|Shd)...:|^Threads", "/proc/self/status"][..],
        &["ls", "/proc/self/fd"],
    ] {
        same(scene, false, |runtime| {
            let head = ["run", "--rm", "--log-uri", &uri, "--runtime", runtime.ctr()];
            scene.ctr.ok(&[&head[..], &[BUSYBOX, "inside"], command].concat())?;
            let text = fs::read_to_string(&log).during(|| "read the log")?;
            fs::remove_file(&log).during(|| "remove the log")?;
            Ok(if text.is_empty() { text } else { text + REPORT_END })
        })?;
    }
    Ok(())
}

/// The report of a container in a pod, changed by `change`; of an exec in it when `exec`.
fn pod(
    scene: &Scene<'_>,
    exec: bool,
    change: impl Fn(&mut PodSandboxConfig, &mut ContainerConfig),
) -> Result<()> {
    let cri = scene.cri()?;
    same(scene, true, |runtime| {
        let logs = scene.daemon.dir().join("pods").join(format!("{}-{runtime}", scene.id));
        if logs.exists() {
            fs::remove_dir_all(&logs).during(|| "remove the log of the run before")?;
        }
        fs::create_dir_all(&logs).during(|| "make the pod's log directory")?;
        let mut pod =
            PodSandboxConfig::simple("inside", &format!("/{}", scene.daemon.name()), &logs);
        let command: &[&str] = if exec { &["sleep", "1000"] } else { &["sh", "-c", REPORT] };
        let mut container = ContainerConfig::simple("one", command);
        change(&mut pod, &mut container);
        let id = cri.run_pod(&pod, runtime.handler())?;
        let one = cri.run(&id, &container, &pod)?;
        let text = if exec {
            let said = cri.exec(&one, &["sh", "-c", REPORT], 20)?;
            String::from_utf8_lossy(&said.stdout).into_owned()
        } else {
            match (runtime, logged(&logs.join("one.log"))) {
                // Not complete, so that it is asked again.
                (Runtime::Runc, Err(_)) => String::new(),
                (_, report) => report?,
            }
        };
        let network = cri.pod_status(&id)?.status.and_then(|status| status.network);
        let address = network.unwrap_or_default().ip;
        match (runtime, cri.stop_pod(&id)) {
            // The stock shim on a busy machine ends before it has answered; the kubelet asks again.
            (Runtime::Runc, Err(_)) => cri.stop_pod(&id)?,
            (_, answer) => answer?,
        }
        cri.remove_pod(&id)?;
        // New for every pod.
        Ok(text.replace(&one, "CONTAINER").replace(&id, "POD").replace(&address, "ADDRESS"))
    })
}

/// The lines of a log file, once the report in it is complete.
fn logged(log: &std::path::Path) -> Result<String> {
    wait::until("the report in the log", PATIENCE, || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        let report = lines.collect::<Vec<_>>().join("\n");
        Ok(report.contains(REPORT_END).then_some(report))
    })
}

fn in_a_pod(scene: &mut Scene<'_>) -> Result<()> {
    pod(scene, false, |_, container| {
        if let Some(linux) = container.linux.as_mut() {
            linux.resources = Some(LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                cpu_shares: 300,
                cpu_quota: 30_000,
                cpu_period: 60_000,
                oom_score_adj: 200,
                ..Default::default()
            });
        }
    })
}

fn in_a_pod_as_a_user(scene: &mut Scene<'_>) -> Result<()> {
    pod(scene, false, |_, container| {
        let context = container.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        if let Some(context) = context {
            context.run_as_user = Some(Int64Value { value: 1000 });
            context.supplemental_groups = vec![3000, 4000];
            context.no_new_privs = true;
            context.readonly_rootfs = true;
            context.seccomp = Some(SecurityProfile {
                profile_type: ProfileType::RuntimeDefault.into(),
                ..Default::default()
            });
            context.capabilities = Some(Capability {
                drop_capabilities: vec!["ALL".into()],
                add_capabilities: vec!["NET_BIND_SERVICE".into()],
                ..Default::default()
            });
        }
    })
}

fn in_a_privileged_pod(scene: &mut Scene<'_>) -> Result<()> {
    pod(scene, false, |pod, container| {
        let sandbox = pod.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        if let Some(context) = sandbox {
            context.privileged = true;
        }
        let context = container.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        if let Some(context) = context {
            context.privileged = true;
        }
    })
}

fn an_exec_in_a_pod(scene: &mut Scene<'_>) -> Result<()> {
    pod(scene, true, |_, _| {})
}
