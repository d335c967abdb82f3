//! A subject with a bundle, and what is normal for the two.

use std::fs;
use std::path::Path;

use rootfs_tests::image::USER;
use rootfs_tests::wait::Deadline;
use serde_json::{Value, json};

use super::looks;
use super::subject;
use super::supervisor::{Answer, Failed, Role, Supervisor, Target};
use crate::support::{Case, LIMIT, census};

pub(super) struct Rig<'a> {
    watched: Watched<'a>,
    supervisor: Supervisor,
    /// What there is without a container.
    before: String,
    /// What a container looks like once it is created.
    created: String,
    /// What it looks like once it is started.
    started: String,
    /// What went wrong.
    complaints: Vec<String>,
}

/// What of the subject can be seen from outside.
struct Watched<'a> {
    case: Case<'a>,
    pid: u32,
}

impl<'a> Rig<'a> {
    pub(super) fn new(case: Case<'a>) -> Self {
        let terminal = case.config["process"]["terminal"] == json!(true);
        Self::with(case, if terminal { "terminal" } else { "pipes" })
    }

    /// With an engine that gets ready for more containers before it makes one.
    pub(super) fn prepared(case: Case<'a>) -> Self {
        Self::with(case, "prepared")
    }

    fn with(mut case: Case<'a>, kind: &str) -> Self {
        prepare(&mut case);
        let state = case.arena.state();
        let [bundle, state] = [case.bundle(), &state].map(|path| path.to_str().unwrap());
        let supervisor = Supervisor::start(&[bundle, state, kind]);
        let pid = supervisor.pid();
        let (before, created, started) = Default::default();
        let watched = Watched { case, pid };
        let mut rig =
            Self { watched, supervisor, before, created, started, complaints: Vec::new() };
        // The first round opens what stays open.
        rig.learn();
        rig.before = rig.watched.left();
        rig.learn();
        rig.check_nothing_left("without any failure");
        rig
    }

    /// A round in which nothing fails.
    fn learn(&mut self) {
        let pid = self.good("create");
        self.created = self.watched.looks(&pid);
        self.good("start");
        // A program that runs makes no call that is asked about, once it sleeps.
        self.supervisor.settle(|| (!asleep(&pid)).then(String::new));
        self.started = self.watched.looks(&pid);
        self.good("delete");
    }

    /// Nothing fails here.
    #[track_caller]
    pub(super) fn good(&mut self, command: &str) -> String {
        let answer = self.supervisor.run(command, None);
        let text = answer.text.strip_prefix("ok ");
        text.unwrap_or_else(|| panic!("{command}: {}", answer.text)).to_owned()
    }

    /// Has the `n`-th call fail, for every `n`, until there are not so many. `round` is one attempt
    /// with its before and after.
    pub(super) fn for_every_call(
        &mut self,
        role: Role,
        least: usize,
        round: impl Fn(&mut Self, Target) -> Option<Failed>,
    ) {
        let mut n = 1;
        while round(self, Target { role, n }).is_some() {
            n += 1;
        }
        assert!(n > least, "only {n} calls of {role:?} were seen");
    }

    /// The same for `n` up to `most`, of which there have to be so many.
    pub(super) fn for_the_first_calls(
        &mut self,
        role: Role,
        most: usize,
        round: impl Fn(&mut Self, Target) -> Option<Failed>,
    ) {
        for n in 1..=most {
            assert!(round(self, Target { role, n }).is_some(), "only {n} calls of {role:?}");
        }
    }

    /// Gives a command with a call that fails; an error must tell what failed.
    pub(super) fn attempt(&mut self, command: &str, target: Target) -> (Answer, String) {
        let answer = self.supervisor.run(command, Some(target));
        let told = match answer.failed {
            Some(failed) => format!("{command}, call {} of {:?}, {failed}", target.n, target.role),
            None => format!("{command}, nothing failed"),
        };
        match (answer.text.split_once(' '), answer.failed) {
            (Some(("ok", _)), _) => {}
            (Some(("error", error)), Some(failed)) => self.check_error(&told, error, failed),
            _ => self.complain(&told, &answer.text),
        }
        (answer, told)
    }

    fn check_error(&mut self, told: &str, error: &str, failed: Failed) {
        // init's errors come in nix's words, the others in libc's.
        let nix = nix::errno::Errno::from_raw(failed.errno).desc().to_lowercase();
        let libc = format!("(os error {})", failed.errno);
        let (kind, text) = error.split_once(' ').unwrap_or_default();
        if !text.to_lowercase().contains(&nix) && !text.contains(&libc) {
            self.complain(told, &format!("does not tell the errno: {error}"));
        }
        // It is not the caller who is to blame.
        if matches!(kind, "InvalidInput" | "Invalid" | "NotFound" | "Timeout" | "WrongState") {
            self.complain(told, &format!("is of the wrong class: {error}"));
        }
    }

    /// Also that it can be started, unless what failed has ended it while it waited. How much of
    /// the reason is left then depends on who was faster: init with its report, or the start.
    pub(super) fn check_created(&mut self, told: &str, pid: &str) {
        let wanted = self.created.clone();
        self.check_looks(told, &wanted, pid);
        let answer = self.supervisor.run("start", None);
        let refused = answer.text.starts_with("error ");
        if refused && self.supervisor.settle(|| (!ended(pid)).then(String::new)).is_none() {
            return;
        }
        if !answer.text.starts_with("ok") {
            self.complain(told, &format!("its start: {}", answer.text));
        }
    }

    pub(super) fn check_started(&mut self, told: &str, pid: &str) {
        let wanted = self.started.clone();
        self.check_looks(told, &wanted, pid);
    }

    /// Looks again until it is as it should be: an exec that has begun is not over yet.
    fn check_looks(&mut self, told: &str, wanted: &str, pid: &str) {
        let wrong = self.supervisor.settle(|| {
            let now = self.watched.looks(pid);
            (wanted != now && !ended(pid)).then(|| looks::difference(wanted, &now))
        });
        if let Some(wrong) = wrong {
            self.complain(told, &format!("is another one:\n{wrong}"));
        }
    }

    /// Deletes what may be there, twice if need be, and nothing may be left then.
    pub(super) fn delete(&mut self, told: &str) {
        let answer = self.supervisor.run("delete", None);
        if !answer.text.starts_with("ok") {
            self.complain(told, &format!("cannot be deleted: {}", answer.text));
        }
        self.check_nothing_left(told);
    }

    pub(super) fn check_nothing_left(&mut self, told: &str) {
        let deadline = Deadline::after(LIMIT);
        let wrong = loop {
            let now = self.watched.left();
            if now == self.before {
                break None;
            }
            if deadline.over() {
                break Some(looks::difference(&self.before, &now));
            }
            // As the engine's users do when a child has ended.
            self.good("reap");
        };
        if let Some(wrong) = wrong {
            self.complain(told, &format!("left behind:\n{wrong}"));
            // The next round is not to suffer for it.
            self.before = self.watched.left();
        }
        self.supervisor.forget_programs();
    }

    /// What is there now is not to be taken away by the rounds that follow.
    pub(super) fn others_are_left(&mut self) {
        self.before = self.watched.left();
    }

    fn complain(&mut self, told: &str, problem: &str) {
        eprintln!("{told}: {problem}");
        self.complaints.push(format!("{told}: {problem}"));
        assert!(self.complaints.len() < 1000, "{}", self.complaints.join("\n"));
    }

    /// The end of the test.
    pub(super) fn end(self) {
        assert!(self.complaints.is_empty(), "{}", self.complaints.join("\n"));
    }
}

impl Watched<'_> {
    fn cgroup(&self) -> String {
        self.case.arena.cgroup(&self.case.id)
    }

    fn looks(&self, pid: &str) -> String {
        looks::of(pid.parse().unwrap(), &self.cgroup())
    }

    /// Everything that is there because of the subject.
    fn left(&self) -> String {
        // Without their names and states, which change while they execute something.
        let pid = |process: String| process.split(' ').next().unwrap_or_default().to_owned();
        let mut things: Vec<String> = census::descendants().into_iter().map(pid).collect();
        things.retain(|process| *process != self.pid.to_string());
        let state = census::entries(&self.case.arena.state());
        things.extend(state.into_iter().map(|name| format!("record {name}")));
        for point in census::cgroup_mounts() {
            // The container's own and the parent that is made for it.
            let own = format!("{point}{}", self.cgroup());
            let parent = Path::new(&own).parent().unwrap_or(Path::new(&own));
            things.extend(
                [parent, Path::new(&own)]
                    .iter()
                    .filter(|path| path.exists())
                    .map(|path| path.display().to_string()),
            );
        }
        things.extend(census::mounts());
        let descriptors = rootfs_tests::census::descriptors(self.pid).unwrap();
        things.push(rootfs_tests::census::listing(&descriptors));
        let tasks = format!("/proc/{}/task", self.pid);
        things.push(format!("{} threads", census::entries(Path::new(&tasks)).len()));
        things.join("\n")
    }
}

/// Whether a process has ended; that nobody has waited for it yet changes nothing.
fn ended(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// Whether the container's program has come as far as it gets.
fn asleep(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(sleep) S")
}

/// Something of everything that could get lost.
fn prepare(case: &mut Case<'_>) {
    case.config["root"]["path"] = json!(subject::ROOT);
    let process = &mut case.config["process"];
    process["user"] = json!({ "uid": USER, "gid": USER, "additionalGids": [7] });
    process["oomScoreAdj"] = json!(17);
    let linux = &mut case.config["linux"];
    linux["resources"]["pids"] = json!({ "limit": 77 });
    linux["resources"]["memory"] = json!({ "limit": 64 << 20 });
    linux["resources"]["cpu"] = json!({ "shares": 333 });
    linux["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    linux["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["kexec_load"], "action": "SCMP_ACT_ERRNO" }] });
    case.save();
    let mut exec: Value = case.config["process"].clone();
    exec["args"] = json!(["/bin/true"]);
    exec["terminal"] = json!(false);
    fs::write(case.bundle().join("exec.json"), exec.to_string()).unwrap();
    for dir in [subject::ROOT, "above", "beside"] {
        fs::create_dir(case.bundle().join(dir)).unwrap();
    }
}
