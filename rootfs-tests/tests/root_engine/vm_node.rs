//! What only a node with cgroup v2, every capability and a kernel of the distribution's shows:
//! these run in the machine of `cargo xtask vm`, and nowhere else.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;

use boathook_runtime::ErrorKind;
use boathook_runtime::cgroup::stats::V2Stats;
use boathook_runtime::cgroup::{Mode, Stats};
use rootfs_tests::wait;
use serde_json::json;

use super::support::{Arena, LIMIT, Live, payload, tests};

tests!(
    the_host_is_a_node,
    a_high_mark_slows_and_does_not_kill,
    zswap_is_limited,
    the_whole_group_dies_for_want_of_memory,
    pressure_is_told,
    a_tree_of_threads_is_refused_in_plain_words,
    its_root_manages_what_it_was_given,
    a_read_only_mount_gives_nothing,
    limits_of_a_process_can_be_raised,
    the_oom_score_can_be_lowered,
    an_apparmor_profile_confines,
    a_profile_that_is_not_loaded_is_named,
);

/// The container's cgroup on the host.
fn cgroup(live: &Live) -> PathBuf {
    let found = live.container.cgroup().directories().find(|d| d.is_v2).expect("cgroup v2");
    found.mount_point.join(found.path)
}

fn read(live: &Live, file: &str) -> String {
    let path = cgroup(live).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.trim_end().to_owned()
}

fn stats(live: &Live) -> Box<V2Stats> {
    match live.container.stats().unwrap() {
        Stats::V2(stats) => stats,
        Stats::V1(stats) => panic!("not a v2 host: {stats:?}"),
    }
}

/// Red where these tests would prove nothing: on another machine than theirs.
fn the_host_is_a_node(arena: &Arena) {
    let advice = "these tests run in the machine of `cargo xtask vm`";
    assert_eq!(arena.engine.hierarchies().unwrap().mode(), Mode::V2, "{advice}");
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    for wanted in ["cpuset", "cpu", "io", "memory", "pids"] {
        assert!(controllers.split_whitespace().any(|it| it == wanted), "{controllers}: {advice}");
    }
    assert!(fs::metadata("/run/systemd/system").is_ok(), "no systemd: {advice}");
}

/// Red if `memory.high` is lost, or taken for a limit that kills.
fn a_high_mark_slows_and_does_not_kill(arena: &Arena) {
    let mut case = arena.case(&payload::args("eat", &[]));
    case.with_payload();
    case.config["linux"]["resources"]["unified"] = json!({ "memory.high": "16777216" });
    let live = case.start();
    assert_eq!(read(&live, "memory.high"), "16777216");
    let events = || stats(&live).memory_events.unwrap();
    wait::until("the mark", LIMIT, || Ok((events().high > 0).then_some(()))).unwrap();
    assert_eq!(events().oom_kill, 0);
    assert_eq!(read(&live, "cgroup.procs"), live.process.pid().to_string());
    live.delete();
}

/// Red if a key of a newer kernel is lost, or passes where the kernel does not have it.
fn zswap_is_limited(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["linux"]["resources"]["unified"] = json!({ "memory.zswap.max": "1048576" });
    if !fs::exists("/sys/module/zswap").unwrap() {
        let error = case.refused();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        let text = error.to_string();
        assert!(text.contains("linux.resources.unified.memory.zswap.max: "), "{text}");
        return;
    }
    let live = case.start();
    assert_eq!(read(&live, "memory.zswap.max"), "1048576");
    live.delete();
}

/// Red if `memory.oom.group`, as the kubelet sets it, does not reach the kernel.
fn the_whole_group_dies_for_want_of_memory(arena: &Arena) {
    let mut case = arena.case(&["/bin/sh", "-c", "/payload --payload eat & sleep 100000"]);
    case.with_payload();
    case.config["linux"]["resources"]["memory"] =
        json!({ "limit": 33_554_432, "swap": 33_554_432 });
    case.config["linux"]["resources"]["unified"] = json!({ "memory.oom.group": "1" });
    let live = case.start();
    assert_eq!(live.wait(), 137);
    let events = stats(&live).memory_events.unwrap();
    assert!(events.oom_group_kill > 0 && events.oom_kill > 1, "{events:?}");
    assert_eq!(read(&live, "cgroup.procs"), "");
    live.container.delete(LIMIT).unwrap();
}

/// Red if a pressure file is not read, or one is taken for another: only processor time is short.
fn pressure_is_told(arena: &Arena) {
    let mut case = arena.sh("while :; do :; done & while :; do :; done & while :; do :; done");
    case.config["linux"]["resources"]["cpu"] = json!({ "quota": 10_000, "period": 100_000 });
    let live = case.start();
    wait::until("pressure", LIMIT, || {
        let told = stats(&live).cpu.pressure.is_some_and(|pressure| pressure.some.total_usec > 0);
        Ok(told.then_some(()))
    })
    .unwrap();
    let stats = stats(&live);
    let memory = stats.memory.unwrap().pressure.expect("memory.pressure");
    let io = stats.io.unwrap().pressure.expect("io.pressure");
    let cpu = stats.cpu.pressure.unwrap().some.total_usec;
    assert!(cpu > memory.some.total_usec && cpu > io.some.total_usec, "{cpu} {memory:?} {io:?}");
    assert!(stats.cpu.stat.nr_throttled > 0, "{:?}", stats.cpu.stat);
    live.delete();
}

/// Red if the reader gets an errno only, or the cgroup stays behind.
fn a_tree_of_threads_is_refused_in_plain_words(arena: &Arena) {
    let mut case = arena.sleeper();
    let parent = PathBuf::from(format!("/sys/fs/cgroup{}", arena.cgroup(&case.id)));
    fs::create_dir_all(parent.join("threads")).unwrap();
    fs::write(parent.join("threads/cgroup.type"), "threaded").unwrap();
    case.config["linux"]["cgroupsPath"] = json!(format!("{}/c", arena.cgroup(&case.id)));
    let error = case.refused();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    let text = error.to_string();
    assert!(text.contains("tree of threads") && text.contains("domain invalid"), "{text}");
    fs::remove_dir(parent.join("threads")).unwrap();
    fs::remove_dir(&parent).unwrap();
    fs::remove_dir(parent.parent().unwrap()).unwrap();
}

/// A container whose root is nobody on the host, with its cgroup mounted.
fn with_cgroup<'a>(arena: &'a Arena, access: &str) -> super::support::Case<'a> {
    const FIRST: u32 = 100_000;
    let mut case = arena.sleeper();
    case.new_namespace("user");
    case.new_namespace("cgroup");
    let ids = json!([{ "containerID": 0, "hostID": FIRST, "size": 65_536 }]);
    case.config["linux"]["uidMappings"] = ids.clone();
    case.config["linux"]["gidMappings"] = ids;
    case.config["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 });
    chown(case.file("/"), Some(FIRST), Some(FIRST)).unwrap();
    case.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", access]);
    case
}

/// Red if what the kernel delegates stays root's (then systemd does not run in a container), or a
/// limit becomes the container's own to lift.
fn its_root_manages_what_it_was_given(arena: &Arena) {
    let live = with_cgroup(arena, "rw").start();
    let script = "cd /sys/fs/cgroup && mkdir all && for p in $(cat cgroup.procs); do \
                  echo $p > all/cgroup.procs; done 2>/dev/null; cat cgroup.procs; \
                  echo '+pids +memory' > cgroup.subtree_control && mkdir one && \
                  echo 7 > one/pids.max && cat one/pids.max; \
                  (echo max > memory.max) 2>&1 | grep -c denied; cat memory.max";
    assert_eq!(live.sh(script), "7\n1\n67108864");
    // An exec follows to where the first process is now.
    assert_eq!(live.sh("cat /proc/self/cgroup"), "0::/all");
    live.delete();
}

/// Red if the owner of a cgroup changes although the container cannot use it.
fn a_read_only_mount_gives_nothing(arena: &Arena) {
    use std::os::unix::fs::MetadataExt;
    let live = with_cgroup(arena, "ro").start();
    for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
        assert_eq!(fs::metadata(cgroup(&live).join(file)).unwrap().uid(), 0, "{file}");
    }
    assert_eq!(live.sh("mkdir /sys/fs/cgroup/x 2>/dev/null || echo no"), "no");
    live.delete();
}

/// Red if the engine gives up a right before it has used it: above the host's own hard limit only
/// CAP_SYS_RESOURCE leads.
fn limits_of_a_process_can_be_raised(arena: &Arena) {
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let line = own.lines().find(|line| line.starts_with("Max msgqueue size")).unwrap();
    let hard: u64 = line.split_whitespace().nth(4).unwrap().parse().unwrap();
    let mut case = arena.sh("grep 'Max msgqueue size' /proc/self/limits");
    case.config["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_MSGQUEUE", "hard": hard * 2, "soft": hard + 1 }]);
    let outcome = case.run();
    let words: Vec<_> = outcome.text().split_whitespace().skip(3).take(2).collect();
    assert_eq!(words, [(hard + 1).to_string(), (hard * 2).to_string()]);
}

/// Red if a score below the engine's own, as the kubelet sets for its best pods, is lost.
fn the_oom_score_can_be_lowered(arena: &Arena) {
    let mut case = arena.sh("cat /proc/self/oom_score_adj");
    case.config["process"]["oomScoreAdj"] = json!(-997);
    assert_eq!(case.run().text(), "-997");
}

/// Everything but writing below `/tmp`.
const PROFILE: &str = "profile boathook-vm-test flags=(attach_disconnected,mediate_deleted) {
  capability, network, mount, umount, signal, ptrace, unix, dbus, pivot_root,
  file,
  deny /tmp/** w,
}
";

struct Profile(PathBuf);

impl Profile {
    fn load(arena: &Arena) -> Self {
        let file = arena.dir().join("profile");
        fs::write(&file, PROFILE).unwrap();
        Self::parser(&["--replace", "--skip-cache"], &file);
        Self(file)
    }

    fn parser(how: &[&str], file: &PathBuf) {
        let output = Command::new("apparmor_parser").args(how).arg(file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        Self::parser(&["--remove"], &self.0);
    }
}

/// Red if the profile is not that of the program, or an exec gets away from it.
fn an_apparmor_profile_confines(arena: &Arena) {
    let _profile = Profile::load(arena);
    let mut case = arena.sleeper();
    case.config["process"]["apparmorProfile"] = json!("boathook-vm-test");
    let live = case.start();
    assert_eq!(live.proc("attr/apparmor/current").trim_end(), "boathook-vm-test (enforce)");
    let script = "cat /proc/self/attr/current; touch /run/free && echo free; \
                  (: > /tmp/bound) 2>&1 | grep -c denied";
    assert_eq!(live.sh(script), "boathook-vm-test (enforce)\nfree\n1");
    live.delete();
}

/// Red if a container starts unconfined, or the message does not name the profile.
fn a_profile_that_is_not_loaded_is_named(arena: &Arena) {
    let mut case = arena.sleeper();
    case.config["process"]["apparmorProfile"] = json!("nobody-loaded-this");
    let error = case.refused();
    let text = error.to_string();
    assert!(
        text.contains("process.apparmorProfile") && text.contains("nobody-loaded-this"),
        "{text}"
    );
}
