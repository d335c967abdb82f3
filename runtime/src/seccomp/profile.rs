//! A profile, checked: names became numbers, actions became return values.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::action;
use super::arch::Arch;
use super::call::{Numbers, lookup};
use crate::{Error, Result};

const FIELD: &str = "linux.seccomp";

/// Who is asked about calls with `SCMP_ACT_NOTIFY`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listener {
    /// The agent's stream socket, absolute.
    pub path: PathBuf,
    /// Handed on as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
}

/// What is compiled.
#[derive(Debug)]
pub(super) struct Profile {
    /// Return value for what no rule speaks of.
    pub(super) default: u32,
    /// The architectures covered; x86-64 is always one.
    pub(super) arches: Vec<Arch>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(super) flags: u32,
    pub(super) listener: Option<Listener>,
    /// Rules that do something else than the default, in order.
    pub(super) rules: Vec<Rule>,
    /// The highest number that any rule names, by architecture.
    pub(super) highest: [Option<u16>; 3],
    /// Names that no architecture here has.
    pub(super) unknown: Vec<String>,
}

/// One rule: every way of `when` leads to the same return value.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) calls: Vec<Numbers>,
    pub(super) value: u32,
    pub(super) when: When,
}

/// On what arguments a rule depends.
#[derive(Debug)]
pub(super) enum When {
    /// On none.
    Always,
    /// All of these hold.
    All(Vec<Condition>),
    /// One of these holds.
    Any(Vec<Condition>),
}

impl When {
    /// Whether the rule holds for every call, on an architecture that looks at
    /// whole arguments or at their lower halves.
    pub(super) fn always(&self, wide: bool) -> bool {
        let no_test = |c: &Condition| if wide { c.mask == 0 } else { c.mask & 0xffff_ffff == 0 };
        match self {
            Self::Always => true,
            Self::All(conditions) => conditions.iter().all(no_test),
            Self::Any(conditions) => conditions.iter().any(no_test),
        }
    }
}

/// `(argument & mask) test value`, or the opposite of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Condition {
    pub(super) argument: u8,
    pub(super) test: Test,
    pub(super) mask: u64,
    pub(super) value: u64,
    pub(super) negated: bool,
}

/// How two numbers are compared, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
}

impl Profile {
    /// Checks `spec`.
    pub(super) fn new(spec: &LinuxSeccomp) -> Result<Self> {
        let errno = spec.default_errno_ret();
        let default =
            action::value(spec.default_action(), errno, || format!("{FIELD}.defaultErrnoRet"))?;
        if spec.default_action() == LinuxSeccompAction::ScmpActNotify {
            let problem = "SCMP_ACT_NOTIFY cannot be the default: it would stop the process \
                           before it executes its program";
            return Err(Error::field(format!("{FIELD}.defaultAction"), problem));
        }
        let rules = spec.syscalls().as_deref().unwrap_or_default();
        let notifies = rules.iter().any(|r| r.action() == LinuxSeccompAction::ScmpActNotify);
        let mut profile = Self {
            default,
            arches: arches(spec),
            flags: flags(spec, notifies)?,
            listener: listener(spec, notifies)?,
            rules: Vec::with_capacity(rules.len()),
            highest: [None; 3],
            unknown: Vec::new(),
        };
        for (index, rule) in rules.iter().enumerate() {
            profile.add(index, rule)?;
        }
        Ok(profile)
    }

    fn add(&mut self, index: usize, rule: &LinuxSyscall) -> Result<()> {
        let field = |name: &str| format!("{FIELD}.syscalls[{index}].{name}");
        let value = action::value(rule.action(), rule.errno_ret(), || field("errnoRet"))?;
        let when = when(rule.args().as_deref().unwrap_or_default(), index)?;
        if rule.names().is_empty() {
            return Err(Error::field(field("names"), "must not be empty"));
        }
        let mut calls = Vec::with_capacity(rule.names().len());
        for (at, name) in rule.names().iter().enumerate() {
            match lookup(name) {
                Some(numbers) => calls.push(numbers),
                None if name.is_empty() => {
                    return Err(Error::field(field(&format!("names[{at}]")), "must not be empty"));
                }
                None => self.unknown.push(name.clone()),
            }
        }
        for (numbers, arch) in calls.iter().flat_map(|c| Arch::ALL.map(|arch| (c, arch))) {
            let highest = &mut self.highest[arch as usize];
            *highest = (*highest).max(numbers.direct(arch));
        }
        // Such a rule still says that its author knew the calls; it does nothing else, not even
        // hold back a later rule (runc and crun leave it out as well).
        if value != self.default {
            self.rules.push(Rule { calls, value, when });
        }
        Ok(())
    }
}

/// Architectures of other machines are accepted and have no part in the
/// filter: no program for them can run here. Generated profiles list many.
fn arches(spec: &LinuxSeccomp) -> Vec<Arch> {
    let listed = spec.architectures().as_deref().unwrap_or_default();
    let mut arches = vec![Arch::X86_64];
    for (name, arch) in [(SpecArch::ScmpArchX86, Arch::X86), (SpecArch::ScmpArchX32, Arch::X32)] {
        if listed.contains(&name) {
            arches.push(arch);
        }
    }
    arches
}

fn flags(spec: &LinuxSeccomp, notifies: bool) -> Result<u32> {
    let mut flags = if notifies { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    let Some(listed) = spec.flags() else {
        // Without a list, as opposed to an empty one, other runtimes spare the process a
        // mitigation that slows every branch down; the kernel does so by itself since 5.16.
        return narrow(flags | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    };
    for (index, flag) in listed.iter().enumerate() {
        flags |= match flag {
            // The process has one thread when the filter is loaded: nobody to synchronise with.
            Flag::SeccompFilterFlagTsync => 0,
            Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv if notifies => {
                libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
            }
            Flag::SeccompFilterFlagWaitKillableRecv => {
                let problem = format!("{flag} needs a rule with SCMP_ACT_NOTIFY");
                return Err(Error::field(format!("{FIELD}.flags[{index}]"), problem));
            }
        };
    }
    narrow(flags)
}

fn narrow(flags: libc::c_ulong) -> Result<u32> {
    u32::try_from(flags).map_err(|_| Error::field(format!("{FIELD}.flags"), "out of range"))
}

fn listener(spec: &LinuxSeccomp, notifies: bool) -> Result<Option<Listener>> {
    // Generated configs have empty strings where they mean nothing.
    let path = spec.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let metadata = spec.listener_metadata().clone().unwrap_or_default();
    let field = || format!("{FIELD}.listenerPath");
    let Some(path) = path else {
        if !metadata.is_empty() {
            let problem = "must not be set without listenerPath";
            return Err(Error::field(format!("{FIELD}.listenerMetadata"), problem));
        }
        if notifies {
            return Err(Error::field(field(), "must be set for SCMP_ACT_NOTIFY"));
        }
        return Ok(None);
    };
    if !notifies {
        return Ok(None);
    }
    let bytes = path.as_os_str().as_bytes();
    // sun_path of unix(7), with its NUL.
    if !path.is_absolute() || bytes.contains(&0) || bytes.len() > 107 {
        let problem = format!("{} is not an absolute path of a socket", path.display());
        return Err(Error::field(field(), problem));
    }
    Ok(Some(Listener { path: path.clone(), metadata }))
}

/// Conditions on different arguments must all hold. As soon as one argument
/// has two, each condition stands alone and one is enough. That is how runc
/// reads a profile, because libseccomp takes one test of an argument per rule.
fn when(args: &[LinuxSeccompArg], rule: usize) -> Result<When> {
    let mut seen = [false; 6];
    let mut twice = false;
    let mut conditions = Vec::with_capacity(args.len());
    for (at, arg) in args.iter().enumerate() {
        let Some(seen) = seen.get_mut(arg.index()) else {
            let field = format!("{FIELD}.syscalls[{rule}].args[{at}].index");
            return Err(Error::field(field, format!("{} is not 0 to 5", arg.index())));
        };
        twice |= std::mem::replace(seen, true);
        conditions.push(condition(arg));
    }
    Ok(match (conditions.is_empty(), twice) {
        (true, _) => When::Always,
        (false, false) => When::All(conditions),
        (false, true) => When::Any(conditions),
    })
}

fn condition(arg: &LinuxSeccompArg) -> Condition {
    let (test, negated) = match arg.op() {
        Operator::ScmpCmpEq | Operator::ScmpCmpMaskedEq => (Test::Equal, false),
        Operator::ScmpCmpNe => (Test::Equal, true),
        Operator::ScmpCmpGt => (Test::Greater, false),
        Operator::ScmpCmpLe => (Test::Greater, true),
        Operator::ScmpCmpGe => (Test::GreaterOrEqual, false),
        Operator::ScmpCmpLt => (Test::GreaterOrEqual, true),
    };
    let (mask, value) = match arg.op() {
        // Here the first value is the mask.
        Operator::ScmpCmpMaskedEq => (arg.value(), arg.value_two().unwrap_or(0) & arg.value()),
        _ => (u64::MAX, arg.value()),
    };
    // `index` was checked to be below six.
    let argument = u8::try_from(arg.index()).unwrap_or(0);
    Condition { argument, test, mask, value, negated }
}
