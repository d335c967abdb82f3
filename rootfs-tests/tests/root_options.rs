//! What `ctr run` can ask for, looked at from inside the container.

use rootfs_tests::containerd::Daemon;
use rootfs_tests::ctr::kept;
use rootfs_tests::error::{Context, Result};
use rootfs_tests::packages::Release;
use rootfs_tests::suite::Scene;
use rootfs_tests::{ensure, ensure_eq, host, image, suite};
use std::fs;

suite!(
    environment_and_directory,
    environment_file,
    user,
    host_name,
    read_only_root,
    bind_mounts,
    tmpfs_mount,
    capabilities,
    device,
    own_root_directory,
    host_network,
    joined_namespace,
    memory_and_cpu,
    cgroup_path,
    new_privileges,
    privileged,
    spec_file,
);

fn shell(scene: &Scene<'_>, options: &[&str], script: &str) -> Result<String> {
    scene.run(options, &["sh", "-c", script])
}

fn environment_and_directory(scene: &mut Scene<'_>) -> Result<()> {
    let options = ["--env", "COLOUR=dark blue", "--env", "EMPTY=", "--cwd", "/home/boat"];
    let script = "pwd; echo \"$COLOUR\"; echo \"[${EMPTY-unset}]\"; echo $PATH";
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = format!("/home/boat\ndark blue\n[]\n{path}");
    ensure_eq!(shell(scene, &options, script)?, expected, "directory and environment");
    Ok(())
}

fn environment_file(scene: &mut Scene<'_>) -> Result<()> {
    let file = scene.daemon.dir().join("environment");
    fs::write(&file, "ONE=1\nTWO=a=b\n").during(|| "write an environment file")?;
    let said = shell(scene, &["--env-file", &file.display().to_string()], "echo $ONE $TWO")?;
    ensure_eq!(said, "1 a=b", "environment");
    Ok(())
}

/// 1.6 has no option for it, so there the spec is changed.
fn user(scene: &mut Scene<'_>) -> Result<()> {
    let script = "id -u; id -g; cat /proc/self/status | grep -E '^Cap(Eff|Prm)' | tr '\\t' ' '";
    let none = "CapPrm: 0000000000000000\nCapEff: 0000000000000000";
    let said = if scene.daemon.packages().release == Release::Bookworm {
        with_spec(scene, script, |spec| {
            if let Some(user) = spec.pointer_mut("/process/user") {
                *user = serde_json::json!({ "uid": 1000, "gid": 2000 });
            }
        })?
    } else {
        shell(scene, &["--user", "1000:2000"], script)?
    };
    ensure_eq!(said, format!("1000\n2000\n{none}"), "user, group and what they may");
    Ok(())
}

fn host_name(scene: &mut Scene<'_>) -> Result<()> {
    if scene.daemon.packages().release == Release::Bookworm {
        let said = with_spec(scene, "hostname", |spec| {
            if let Some(spec) = spec.as_object_mut() {
                spec.insert("hostname".into(), "harbour".into());
            }
        })?;
        ensure_eq!(said, "harbour", "host name");
    } else {
        ensure_eq!(shell(scene, &["--hostname", "harbour"], "hostname")?, "harbour", "host name");
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").during(|| "read the host's name")?;
    ensure!(host.trim() != "harbour", "the host was renamed");
    Ok(())
}

fn read_only_root(scene: &mut Scene<'_>) -> Result<()> {
    let script = "touch /file 2>&1; echo $?; touch /run/file && echo run-is-writable";
    let said = shell(scene, &["--read-only"], script)?;
    ensure!(said.contains("Read-only file system\n1"), "said: {said}");
    ensure!(said.ends_with("run-is-writable"), "said: {said}");
    Ok(())
}

fn bind_mounts(scene: &mut Scene<'_>) -> Result<()> {
    let dir = scene.daemon.dir().join("shared");
    fs::create_dir_all(&dir).during(|| "make a directory")?;
    fs::write(dir.join("file"), "from the host").during(|| "write a file")?;
    let bind = |target: &str, options: &str| {
        format!("type=bind,src={},dst={target},options={options}", dir.display())
    };
    let (free, fixed) = (bind("/free/deep", "rbind:rw"), bind("/fixed", "rbind:ro"));
    let file = format!("type=bind,src={0}/file,dst=/etc/one-file,options=bind:ro", dir.display());
    let options = ["--mount", &free, "--mount", &fixed, "--mount", &file];
    let script =
        "cat /fixed/file /etc/one-file; echo; touch /fixed/x 2>&1; echo inside > /free/deep/new";
    let said = shell(scene, &options, script)?;
    ensure!(said.starts_with("from the hostfrom the host\n"), "said: {said}");
    ensure!(said.contains("Read-only file system"), "said: {said}");
    let made = fs::read_to_string(dir.join("new")).during(|| "read what was made")?;
    ensure_eq!(made, "inside\n", "what the container wrote");
    Ok(())
}

fn tmpfs_mount(scene: &mut Scene<'_>) -> Result<()> {
    let mount = "type=tmpfs,src=tmpfs,dst=/scratch,options=nosuid:noexec:size=1m:mode=700";
    let script = "grep ' /scratch ' /proc/mounts; stat -c %a /scratch";
    let said = shell(scene, &["--mount", mount], script)?;
    for part in ["nosuid", "noexec", "size=1024k", "tmpfs", "\n700"] {
        ensure!(said.contains(part), "no {part:?} in {said}");
    }
    Ok(())
}

fn capabilities(scene: &mut Scene<'_>) -> Result<()> {
    let effective = |options: &[&str]| -> Result<u64> {
        let said = shell(scene, options, "grep CapEff /proc/self/status | cut -f 2")?;
        u64::from_str_radix(&said, 16)
            .map_err(|_| rootfs_tests::Error::check(format!("CapEff {said}")))
    };
    let (net_admin, chown) = (1 << 12, 1 << 0);
    let usual = effective(&[])?;
    ensure!(usual & net_admin == 0 && usual & chown != 0, "usual set {usual:x}");
    let more = effective(&["--cap-add", "CAP_NET_ADMIN"])?;
    ensure_eq!(more, usual | net_admin, "after --cap-add");
    let less = effective(&["--cap-drop", "CAP_CHOWN"])?;
    ensure_eq!(less, usual & !chown, "after --cap-drop");
    Ok(())
}

/// The device's node and the permission to use it; without the option there is neither. This one
/// is on every machine, and wants a capability besides.
fn device(scene: &mut Scene<'_>) -> Result<()> {
    let script = "stat -c '%F %t:%T' /dev/kmsg; (: < /dev/kmsg) && echo opened";
    let said = shell(scene, &["--cap-add", "CAP_SYSLOG", "--device", "/dev/kmsg"], script)?;
    ensure_eq!(said, "character special file 1:b\nopened", "a device that was given");
    let made = "ls /dev/kmsg 2>&1; mknod /tmp/kmsg c 1 11 && (: < /tmp/kmsg) 2>&1 || true";
    let said = shell(scene, &["--cap-add", "CAP_SYSLOG"], made)?;
    ensure!(said.contains("No such file"), "a node that was not given: {said:?}");
    ensure!(said.contains("Operation not permitted"), "a device that was not given: {said:?}");
    Ok(())
}

fn own_root_directory(scene: &mut Scene<'_>) -> Result<()> {
    let dir = scene.daemon.dir().join("own-root");
    fs::create_dir_all(&dir).during(|| "make a root directory")?;
    image::unpack(&scene.daemon.packages().busybox(), &dir)?;
    fs::write(dir.join("mark"), "mine").during(|| "write into the root directory")?;
    let root = dir.display().to_string();
    let args = ["run", "--rm", "--runtime", scene.runtime.ctr(), "--rootfs", &root, &scene.id];
    let said = scene.ctr.hear(&args, &["/bin/cat", "/mark"])?;
    let said = (said.text(), said.code);
    ensure_eq!(said, ("mine".into(), 0), "a file of the root directory, and the exit code");
    ensure!(host::mounts_below(&dir)?.is_empty(), "mounts are left on {root}");
    Ok(())
}

fn host_network(scene: &mut Scene<'_>) -> Result<()> {
    let said = shell(scene, &["--net-host"], "readlink /proc/self/ns/net")?;
    let host = fs::read_link("/proc/self/ns/net").during(|| "readlink")?;
    ensure_eq!(said, host.display().to_string(), "network namespace");
    let own = shell(scene, &[], "readlink /proc/self/ns/net")?;
    ensure!(own != said, "without the option the container has the host's network too");
    Ok(())
}

fn joined_namespace(scene: &mut Scene<'_>) -> Result<()> {
    let first = format!("{}-first", scene.id);
    scene.start(&[], &first, &["sleep", "1000"])?;
    let pid = scene.pid(&first)?;
    let option = format!("network:/proc/{pid}/ns/net");
    let said = shell(scene, &["--with-ns", &option], "readlink /proc/self/ns/net")?;
    let theirs = fs::read_link(format!("/proc/{pid}/ns/net")).during(|| "readlink")?;
    ensure_eq!(said, theirs.display().to_string(), "network namespace");
    scene.remove(&first)
}

fn memory_and_cpu(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    let limit = (48 << 20).to_string();
    let options = ["--memory-limit", &limit, "--cpu-shares", "300", "--cpu-quota", "30000"];
    scene.start(&[&options[..], &["--cpu-period", "60000"]].concat(), &id, &["sleep", "1000"])?;
    let pid = scene.pid(&id)?;
    if let Ok(memory) = host::cgroup_file(pid, "memory", "memory.limit_in_bytes") {
        ensure_eq!(memory, limit, "memory limit");
        ensure_eq!(host::cgroup_file(pid, "cpu", "cpu.shares")?, "300", "CPU shares");
        ensure_eq!(host::cgroup_file(pid, "cpu", "cpu.cfs_quota_us")?, "30000", "CPU quota");
        ensure_eq!(host::cgroup_file(pid, "cpu", "cpu.cfs_period_us")?, "60000", "CPU period");
    } else {
        ensure_eq!(host::cgroup_file(pid, "", "memory.max")?, limit, "memory.max");
        ensure_eq!(host::cgroup_file(pid, "", "cpu.max")?, "30000 60000", "cpu.max");
    }
    scene.remove(&id)
}

fn cgroup_path(scene: &mut Scene<'_>) -> Result<()> {
    let id = scene.id.clone();
    let path = format!("/{}/chosen", scene.daemon.name());
    scene.start(&["--cgroup", &path], &id, &["sleep", "1000"])?;
    let table = fs::read_to_string(format!("/proc/{}/cgroup", scene.pid(&id)?))
        .during(|| "read the container's cgroups")?;
    let chosen = |line: &&str| line.ends_with(&format!(":{path}"));
    let missing: Vec<&str> = table.lines().filter(|line| !chosen(line)).collect();
    // A controller that no hierarchy of this machine mounts has only its root.
    let strange = missing.iter().any(|line| !line.ends_with(":/"));
    ensure!(table.lines().any(|line| chosen(&line)) && !strange, "cgroups:\n{table}");
    scene.remove(&id)
}

fn new_privileges(scene: &mut Scene<'_>) -> Result<()> {
    let script = "grep NoNewPrivs /proc/self/status | cut -f 2";
    ensure_eq!(shell(scene, &[], script)?, "1", "no_new_privs");
    ensure_eq!(shell(scene, &["--allow-new-privs"], script)?, "0", "no_new_privs when allowed");
    Ok(())
}

fn privileged(scene: &mut Scene<'_>) -> Result<()> {
    let script = "test -w /proc/sys/kernel && touch /sys/fs/cgroup/x 2>/dev/null; \
                  grep -c ' /proc/sys ' /proc/mounts; ls /dev | wc -l";
    let said = shell(scene, &["--privileged"], script)?;
    let mut lines = said.lines();
    ensure_eq!(lines.next(), Some("0"), "read-only mounts over /proc/sys");
    let devices = lines.next().and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
    let usual = shell(scene, &[], "ls /dev | wc -l")?.parse::<usize>().unwrap_or(0);
    ensure!(devices > usual, "{devices} devices when privileged, {usual} otherwise");
    Ok(())
}

fn spec_file(scene: &mut Scene<'_>) -> Result<()> {
    let said = with_spec(scene, "ulimit -n; cat /proc/self/oom_score_adj", |spec| {
        if let Some(process) = spec.get_mut("process").and_then(|it| it.as_object_mut()) {
            let limit = serde_json::json!([{ "type": "RLIMIT_NOFILE", "hard": 512, "soft": 256 }]);
            process.insert("rlimits".into(), limit);
            process.insert("oomScoreAdj".into(), 300.into());
        }
    })?;
    ensure_eq!(said, "256\n300", "limit of open files and oom_score_adj");
    Ok(())
}

/// Runs a script by a spec of one's own, on a root directory.
fn with_spec(
    scene: &Scene<'_>,
    script: &str,
    change: impl FnOnce(&mut serde_json::Value),
) -> Result<String> {
    let root = root(scene.daemon)?;
    let mut spec = rootfs_tests::bundle::spec(&scene.id, &kept(&["sh", "-c", script]));
    let cgroup = format!("/{}/{}", scene.daemon.name(), scene.id);
    for (place, value) in [("/root/path", root.as_str()), ("/linux/cgroupsPath", cgroup.as_str())] {
        if let Some(found) = spec.pointer_mut(place) {
            *found = value.into();
        }
    }
    change(&mut spec);
    let file = scene.daemon.dir().join(format!("{}.json", scene.id));
    fs::write(&file, spec.to_string()).during(|| "write a spec")?;
    let file = file.display().to_string();
    let args = ["run", "--rm", "--runtime", scene.runtime.ctr(), "--config", &file, &scene.id];
    let said = scene.ctr.hear_kept(&args)?;
    if said.code == 0 { Ok(said.text()) } else { Err(said.refused()) }
}

/// The busybox image's files in a directory of the daemon's.
fn root(daemon: &Daemon) -> Result<String> {
    let dir = daemon.dir().join("spec-root");
    if !dir.exists() {
        fs::create_dir_all(&dir).during(|| "make a root directory")?;
        image::unpack(&daemon.packages().busybox(), &dir)?;
    }
    Ok(dir.display().to_string())
}
