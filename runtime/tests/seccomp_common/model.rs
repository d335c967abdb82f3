//! What a profile means, told rule by rule and without any cleverness: the
//! program that the compiler makes has to agree on every call.

use boathook_runtime::seccomp::{Arch, number};
use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::bpf::Data;

pub(crate) const KILL_THREAD: u32 = 0;
pub(crate) const ENOSYS: u32 = 0x0005_0026;
const X32: u32 = 0x4000_0000;

/// A profile, its names looked up.
pub(crate) struct Model<'a> {
    spec: &'a LinuxSeccomp,
    rules: Vec<Rule<'a>>,
}

struct Rule<'a> {
    rule: &'a LinuxSyscall,
    value: u32,
    /// Name and number, by architecture.
    names: Vec<(&'a str, [Option<u32>; 3])>,
}

enum Answer {
    Always,
    Now,
    No,
}

impl<'a> Model<'a> {
    pub(crate) fn new(spec: &'a LinuxSeccomp) -> Self {
        let rules = spec.syscalls().iter().flatten().map(|rule| Rule {
            rule,
            value: rule.action().as_u32(rule.errno_ret()),
            names: rule.names().iter().map(|n| (&**n, Arch::ALL.map(|a| number(a, n)))).collect(),
        });
        Self { spec, rules: rules.collect() }
    }

    pub(crate) fn default(&self) -> u32 {
        self.spec.default_action().as_u32(self.spec.default_errno_ret())
    }

    /// The architecture whose rules apply; the value to return when there is none.
    pub(crate) fn arch(&self, data: &Data) -> Result<Arch, u32> {
        let listed = |arch| self.spec.architectures().iter().flatten().any(|a| *a == arch);
        match data.arch {
            0x4000_0003 if listed(SpecArch::ScmpArchX86) => Ok(Arch::X86),
            0xc000_003e if data.number < X32 => Ok(Arch::X86_64),
            0xc000_003e if listed(SpecArch::ScmpArchX32) => Ok(Arch::X32),
            0xc000_003e if data.number == u32::MAX => Err(self.default()),
            _ => Err(KILL_THREAD),
        }
    }

    /// Whether the number is newer than everything that the profile names.
    pub(crate) fn beyond(&self, arch: Arch, nr: u32) -> bool {
        let names = self.rules.iter().flat_map(|rule| &rule.names);
        let highest = names.filter_map(|(_, numbers)| numbers[arch as usize]).max();
        let passes = matches!(
            self.spec.default_action(),
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        );
        !passes && highest.is_some_and(|highest| nr > highest)
    }

    pub(crate) fn evaluate(&self, data: &Data) -> u32 {
        let arch = match self.arch(data) {
            Ok(arch) => arch,
            Err(value) => return value,
        };
        let mut conditional = None;
        for rule in self.rules.iter().filter(|rule| rule.value != self.default()) {
            match self.speaks(rule, arch, data) {
                Answer::Always => return rule.value,
                Answer::Now if conditional.is_none() => conditional = Some(rule.value),
                Answer::Now | Answer::No => {}
            }
        }
        match conditional {
            Some(value) => value,
            None if self.beyond(arch, data.number) => ENOSYS,
            None => self.default(),
        }
    }

    fn speaks(&self, rule: &Rule<'_>, arch: Arch, data: &Data) -> Answer {
        let args = rule.rule.args().as_deref().unwrap_or_default();
        let unconditional = unconditional(args, arch);
        let strictness = |value: u32| (value & 0xffff_0000) as i32;
        let tightens = strictness(rule.value) <= strictness(self.default());
        let mut answer = Answer::No;
        for (name, numbers) in &rule.names {
            if numbers[arch as usize] == Some(data.number) {
                if unconditional {
                    return Answer::Always;
                }
                if holds(args, arch, &data.args) {
                    answer = Answer::Now;
                }
            }
            if arch == Arch::X86 && inside(name, data) && (unconditional || tightens) {
                answer = Answer::Now;
            }
        }
        answer
    }
}

fn unconditional(args: &[LinuxSeccompArg], arch: Arch) -> bool {
    let nothing = |arg: &LinuxSeccompArg| {
        arg.op() == Operator::ScmpCmpMaskedEq && cut(arch, arg.value()) == 0
    };
    if repeats(args) { args.iter().any(nothing) } else { args.iter().all(nothing) }
}

/// Whether one argument is tested twice.
pub(crate) fn repeats(args: &[LinuxSeccompArg]) -> bool {
    (0..6).any(|index| args.iter().filter(|a| a.index() == index).count() > 1)
}

fn holds(args: &[LinuxSeccompArg], arch: Arch, actual: &[u64; 6]) -> bool {
    let one = |arg: &LinuxSeccompArg| test(arg, arch, actual[arg.index()]);
    if repeats(args) { args.iter().any(one) } else { args.iter().all(one) }
}

/// What an architecture sees of an argument.
fn cut(arch: Arch, value: u64) -> u64 {
    if arch == Arch::X86_64 { value } else { value & 0xffff_ffff }
}

fn test(arg: &LinuxSeccompArg, arch: Arch, actual: u64) -> bool {
    let (actual, wanted) = (cut(arch, actual), cut(arch, arg.value()));
    match arg.op() {
        Operator::ScmpCmpEq => actual == wanted,
        Operator::ScmpCmpNe => actual != wanted,
        Operator::ScmpCmpLt => actual < wanted,
        Operator::ScmpCmpLe => actual <= wanted,
        Operator::ScmpCmpGt => actual > wanted,
        Operator::ScmpCmpGe => actual >= wanted,
        Operator::ScmpCmpMaskedEq => {
            actual & wanted == cut(arch, arg.value_two().unwrap_or(0)) & wanted
        }
    }
}

/// `SYS_SOCKET` and so on, from one upwards.
const SOCKET: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
const IPC: [(u64, &str); 12] = [
    (1, "semop"),
    (2, "semget"),
    (3, "semctl"),
    (4, "semtimedop"),
    (11, "msgsnd"),
    (12, "msgrcv"),
    (13, "msgget"),
    (14, "msgctl"),
    (21, "shmat"),
    (22, "shmdt"),
    (23, "shmget"),
    (24, "shmctl"),
];

/// Names of calls that i386 makes through another one.
pub(crate) const HIDDEN: [&str; 32] = {
    let mut names = [""; 32];
    let mut at = 0;
    while at < 32 {
        names[at] = if at < 20 { SOCKET[at] } else { IPC[at - 20].1 };
        at += 1;
    }
    names
};

/// Whether the call is `name` made through socketcall(2) or ipc(2).
fn inside(name: &str, data: &Data) -> bool {
    match data.number {
        102 => {
            let which = data.args[0] & 0xffff_ffff;
            which > 0 && SOCKET.get(which as usize - 1) == Some(&name)
        }
        117 => IPC.contains(&(data.args[0] & 0xffff, name)),
        _ => false,
    }
}
