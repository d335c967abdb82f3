//! The seccomp compiler against libseccomp, and its programs in the kernel.

// The whole file is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod seccomp_common;

use std::collections::HashSet;

use boathook_runtime::seccomp::{Arch, Instruction, compile, number};
use oci_spec::runtime::{
    Arch as SpecArch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Operator, LinuxSyscall,
};
use proptest::test_runner::{Config, TestRunner};
use seccomp_common::bpf::{self, Data};
use seccomp_common::default_profile;
use seccomp_common::model::{ENOSYS, HIDDEN, Model, repeats};
use seccomp_common::oracle::Oracle;
use seccomp_common::random::{self, Dice, parse};
use seccomp_common::sys;
use serde_json::{Value, json};

fn oracle() -> (tempfile::TempDir, Oracle) {
    let dir = tempfile::tempdir().unwrap();
    let oracle = Oracle::start(dir.path());
    (dir, oracle)
}

/// The library is older than the table, so it knows a part of it.
#[test]
fn root_names_have_the_numbers_that_libseccomp_gives_them() {
    let (_dir, mut oracle) = oracle();
    let mut compared = [0; 3];
    for name in random::all_names() {
        for arch in Arch::ALL {
            let theirs = oracle.number(arch, name);
            if let Ok(theirs) = u32::try_from(theirs) {
                assert_eq!(number(arch, name), Some(theirs), "{name} on {arch:?}");
                compared[arch as usize] += 1;
            }
        }
    }
    println!("compared {compared:?} numbers on {:?}", Arch::ALL);
    assert!(compared.iter().all(|count| *count > 330), "{compared:?}");
}

#[test]
fn root_the_default_profile_means_the_same_to_libseccomp() {
    let (_dir, mut oracle) = oracle();
    let spec = known_to(&mut oracle, default_profile());
    let compared = compare(&mut oracle, &spec, 1).unwrap();
    println!("{compared:?}");
    assert!(compared.calls > 5_000 && compared.blind == 0, "{compared:?}");
}

#[test]
fn root_random_profiles_mean_the_same_to_libseccomp() {
    let (_dir, mut oracle) = oracle();
    let oracle = std::cell::RefCell::new(&mut oracle);
    let config = Config { failure_persistence: None, ..Config::default() };
    let cases = config.cases as usize;
    let mut runner = TestRunner::new(config);
    let total = std::cell::RefCell::new((Compared::default(), 0));
    let result = runner.run(&random::profile(), |spec| {
        let oracle = &mut oracle.borrow_mut();
        let spec = known_to(oracle, spec);
        let (sum, refused) = &mut *total.borrow_mut();
        match compare(oracle, &spec, 2) {
            Ok(one) => {
                sum.calls += one.calls;
                sum.blind += one.blind;
            }
            // Two actions for one call inside socketcall(2).
            Err(_) => *refused += 1,
        }
        Ok(())
    });
    println!("{total:?}");
    result.unwrap();
    let (sum, refused) = total.into_inner();
    assert!(sum.calls > 500 * cases && sum.blind < sum.calls / 100 && refused < cases / 5);
}

/// The part of a profile that libseccomp 2.5 both knows and gets right.
///
/// Left out are names that it has not heard of, and what it cannot do:
/// - It joins all conditions on a call in one tree that it does not walk back
///   in: "less than 0" next to "less than 5" makes it miss the 3, and some
///   lists make it loop for ever. Several values of one argument are fine.
/// - The conditions on a call inside socketcall(2) become conditions on
///   socketcall's pointers.
fn known_to(oracle: &mut Oracle, mut spec: LinuxSeccomp) -> LinuxSeccomp {
    let listed = spec.architectures().iter().flatten().cloned().collect::<Vec<_>>();
    let x86 = listed.contains(&SpecArch::ScmpArchX86);
    let mut conditional = HashSet::new();
    let mut fine = |name: &String, args: &[LinuxSeccompArg]| {
        let mut same = |(arch, ours): (Arch, u32)| oracle.number(arch, name) == i64::from(ours);
        Arch::ALL.into_iter().filter_map(|arch| Some((arch, number(arch, name)?))).all(&mut same)
            && (args.is_empty()
                || is_choice(args) && !(x86 && hidden(name)) && conditional.insert(name.clone()))
    };
    let rules = spec.syscalls().iter().flatten().cloned().filter_map(|mut rule: LinuxSyscall| {
        let args = rule.args().clone().unwrap_or_default();
        let names: Vec<String> = rule.names().iter().filter(|n| fine(n, &args)).cloned().collect();
        rule.set_names(names.clone());
        (!names.is_empty()).then_some(rule)
    });
    let rules = rules.collect();
    spec.set_syscalls(Some(rules));
    spec
}

/// Whether a call of i386 shares its number with others.
fn hidden(name: &str) -> bool {
    HIDDEN.contains(&name) || ["socketcall", "ipc"].contains(&name)
}

/// One condition for each argument, or several values of one.
fn is_choice(args: &[LinuxSeccompArg]) -> bool {
    let equal = |a: &LinuxSeccompArg| a.op() == Operator::ScmpCmpEq && a.index() == args[0].index();
    !repeats(args) || args.iter().all(equal)
}

#[derive(Debug, Default, Clone, Copy)]
struct Compared {
    calls: usize,
    /// Calls that libseccomp's program was blind to.
    blind: usize,
}

fn compare(oracle: &mut Oracle, spec: &LinuxSeccomp, seed: u64) -> Result<Compared, String> {
    let theirs: Vec<Instruction> = oracle.compile(spec)?;
    let ours = compile(spec).unwrap().program;
    let model = Model::new(spec);
    let mut compared = Compared::default();
    for data in random::calls(spec, &mut Dice::new(seed)) {
        let got = bpf::run(&ours, &data).value;
        if differs_by_intent(&model, spec, &data, got) {
            continue;
        }
        compared.calls += 1;
        let bpf::Run { value: wanted, saw_number, .. } = bpf::run(&theirs, &data);
        // Sharing code between architectures it sometimes drops the load of the number, and
        // compares the architecture with numbers of calls (x32, and `_llseek` first).
        if got != wanted && model.arch(&data).is_ok() && !saw_number {
            compared.blind += 1;
            continue;
        }
        let json = || serde_json::to_string(spec).unwrap();
        assert_eq!(got, wanted, "{got:x} {wanted:x} {data:x?}\n{}", json());
    }
    Ok(compared)
}

/// Where the two are not meant to agree, or libseccomp does not say what it does.
fn differs_by_intent(model: &Model<'_>, spec: &LinuxSeccomp, data: &Data, got: u32) -> bool {
    let Ok(arch) = model.arch(data) else { return false };
    // libseccomp alone knows nothing of numbers that are newer than the profile; runc adds that
    // in front of its programs.
    if model.beyond(arch, data.number) {
        assert!(got == ENOSYS || [102, 117].contains(&data.number));
        return true;
    }
    // It compares the version of ipc(2), too, which the kernel does not look at.
    if arch == Arch::X86 && data.number == 117 && data.args[0] > 0xffff {
        return true;
    }
    // In its code for 32 bits "less or equal" inherits the sense of the comparison before it.
    arch != Arch::X86_64 && spec.syscalls().iter().flatten().any(less_or_equal_behind_another)
}

fn less_or_equal_behind_another(rule: &LinuxSyscall) -> bool {
    let args = rule.args().as_deref().unwrap_or_default();
    !repeats(args) && args.len() > 1 && args.iter().any(|a| a.op() == Operator::ScmpCmpLe)
}

/// The exit code of `work` under a profile that kills what it does not name.
fn under(rules: &Value, work: impl FnOnce() -> i32) -> i32 {
    let spec = parse(json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }));
    sys::under(&compile(&spec).unwrap(), work)
}

fn exits() -> Value {
    json!({ "names": ["exit_group"], "action": "SCMP_ACT_ALLOW" })
}

fn on(arch: Arch, name: &str) -> u32 {
    number(arch, name).unwrap()
}

#[test]
fn root_the_kernel_takes_the_default_profile_and_obeys_it() {
    let filter = compile(&default_profile()).unwrap();
    let vsock = sys::under(&filter, || {
        let allowed = sys::call(on(Arch::X86_64, "getpid"), [0; 3]) > 0
            && sys::call_i386(on(Arch::X86, "getpid"), 0) > 0
            && sys::call(on(Arch::X86_64, "personality"), [0; 3]) >= 0;
        let refused = sys::call(on(Arch::X86_64, "socket"), [40, 1, 0]) == -1
            && sys::call(on(Arch::X86_64, "personality"), [0x40_0000, 0, 0]) == -1
            && sys::call(on(Arch::X86_64, "unshare"), [0x2000_0000, 0, 0]) == -1
            && sys::call_i386(on(Arch::X86, "umount2"), 0) == -1
            && sys::call(on(Arch::X32, "reboot"), [0; 3]) == -1;
        let unknown = sys::call(on(Arch::X86_64, "clone3"), [0; 3]) == -38
            && sys::call(on(Arch::X86_64, "open_tree_attr"), [0; 3]) == -38
            && sys::call_i386(10_000, 0) == -38;
        i32::from(!allowed) + 2 * i32::from(!refused) + 4 * i32::from(!unknown)
    });
    assert_eq!(vsock, 0);
}

#[test]
fn root_every_action_is_the_kernels() {
    let getppid = on(Arch::X86_64, "getppid");
    let rule = |more: Value| {
        let mut rule = json!({ "names": ["getppid"] });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([exits(), rule])
    };
    for (action, errno, expected) in [
        ("ALLOW", None, 0),
        ("LOG", None, 0),
        ("ERRNO", Some(99), 99),
        // Nobody traces, so there is no such call.
        ("TRACE", Some(5), libc::ENOSYS),
        ("TRAP", None, -libc::SIGSYS),
        ("KILL_THREAD", None, -libc::SIGSYS),
        ("KILL_PROCESS", None, -libc::SIGSYS),
    ] {
        let rules = rule(json!({ "action": format!("SCMP_ACT_{action}"), "errnoRet": errno }));
        let code = under(&rules, || match sys::call(getppid, [0; 3]) {
            refused if refused < 0 => -refused as i32,
            _ => 0,
        });
        assert_eq!(code, expected, "{action}");
    }
    // And what no rule names.
    let unnamed = || sys::call(getppid, [0; 3]) as i32;
    assert_eq!(
        under(&json!([exits(), { "names": ["close"], "action": "SCMP_ACT_LOG" }]), unnamed),
        -libc::SIGSYS
    );
}

#[test]
fn root_conditions_see_all_64_bits() {
    let rules = json!([exits(), {
        "names": ["close"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
        "args": [{ "index": 0, "value": 0x1_0000_0005_u64, "op": "SCMP_CMP_EQ" },
                 { "index": 2, "value": 0xff_0000_0000_u64, "valueTwo": 0x12_0000_0000_u64,
                   "op": "SCMP_CMP_MASKED_EQ" }],
    }, {
        "names": ["close"], "action": "SCMP_ACT_ERRNO", "errnoRet": 66,
        "args": [{ "index": 0, "value": 1_u64 << 40, "op": "SCMP_CMP_GT" }],
    }]);
    let close = on(Arch::X86_64, "close");
    for (args, expected) in [
        ([0x1_0000_0005, 0, 0x12_0000_0000], 77),
        ([0x1_0000_0005, 9, 0x3412_9999_9999], 77),
        ([0x5, 0, 0x12_0000_0000], -libc::SIGSYS),
        ([0x1_0000_0005, 0, 0x13_0000_0000], -libc::SIGSYS),
        ([(1 << 40) + 1, 0, 0], 66),
        ([1 << 40, 0, 0], -libc::SIGSYS),
    ] {
        let code = under(&rules, || -sys::call(close, args) as i32);
        assert_eq!(code, expected, "{args:x?}");
    }
}
