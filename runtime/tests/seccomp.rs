//! The seccomp compiler against a plain reading of profiles, on an interpreter
//! of the kernel's programs.

// The whole file is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod seccomp_common;

use boathook_runtime::ErrorKind;
use boathook_runtime::seccomp::{Arch, Filter, Instruction, compile, number};
use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;
use seccomp_common::bpf::{self, Data};
use seccomp_common::default_profile;
use seccomp_common::model::{self, Model};
use seccomp_common::random::{self, Dice, parse};
use serde_json::{Value, json};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;

fn agrees(spec: &LinuxSeccomp, seed: u64) -> Filter {
    let filter = compile(spec).unwrap();
    assert_eq!(bpf::verify(&filter.program), Ok(()));
    let model = Model::new(spec);
    for data in random::calls(spec, &mut Dice::new(seed)) {
        let got = bpf::run(&filter.program, &data).value;
        let wanted = model.evaluate(&data);
        assert_eq!(
            got,
            wanted,
            "{got:x} {wanted:x} {data:x?}\n{}",
            serde_json::to_string(spec).unwrap()
        );
    }
    filter
}

proptest! {
    #[test]
    fn a_program_does_what_its_profile_says(spec in random::profile(), seed: u64) {
        agrees(&spec, seed);
    }

    /// Whatever a config says, there is an answer.
    #[test]
    fn no_profile_makes_the_compiler_panic(
        names in prop::collection::vec("[a-z0-9_]{0,12}|\\PC{0,6}|socket|read", 0..6),
        index in any::<u32>(), values in any::<(u64, u64)>(), errno in prop::option::of(any::<u32>()),
        action in prop::sample::select(&["ALLOW", "ERRNO", "TRACE", "NOTIFY", "KILL", "LOG"][..]),
        op in prop::sample::select(&["NE", "LE", "GE", "MASKED_EQ"][..]),
        path in prop::option::of("/?[a-z\0/]{0,120}"), metadata in prop::option::of("a{0,3}"),
        flag in prop::sample::select(&["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"][..]),
    ) {
        let spec = parse(json!({
            "defaultAction": format!("SCMP_ACT_{action}"), "defaultErrnoRet": errno,
            "listenerPath": path, "listenerMetadata": metadata,
            "flags": [format!("SECCOMP_FILTER_FLAG_{flag}")],
            "syscalls": [{
                "names": names, "action": format!("SCMP_ACT_{action}"), "errnoRet": errno,
                "args": [{"index": index % 9, "value": values.0, "valueTwo": values.1, "op": format!("SCMP_CMP_{op}")}],
            }],
        }));
        match compile(&spec) {
            Ok(filter) => prop_assert_eq!(bpf::verify(&filter.program), Ok(())),
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::InvalidInput);
                prop_assert!(error.to_string().starts_with("linux.seccomp."), "{}", error);
            }
        }
    }
}

fn call(arch: Arch, name: &str, args: &[u64]) -> Data {
    let mut data =
        Data { number: number(arch, name).unwrap(), arch: arch.audit(), ..Data::default() };
    data.args[..args.len()].copy_from_slice(args);
    data
}

fn result(filter: &Filter, arch: Arch, name: &str, args: &[u64]) -> u32 {
    bpf::run(&filter.program, &call(arch, name, args)).value
}

#[test]
fn the_default_profile_is_small_and_means_what_it_says() {
    let spec = default_profile();
    let filter = agrees(&spec, 1);
    println!("{} instructions", filter.program.len());
    assert!(filter.program.len() < 700, "{}", filter.program.len());
    for arch in Arch::ALL {
        assert_eq!(result(&filter, arch, "execve", &[]), ALLOW, "{arch:?}");
        assert_eq!(result(&filter, arch, "reboot", &[]), EPERM, "{arch:?}");
        assert_eq!(result(&filter, arch, "clone3", &[]), model::ENOSYS, "{arch:?}");
        assert_eq!(result(&filter, arch, "clone", &[0x11]), ALLOW, "{arch:?}");
        assert_eq!(
            result(&filter, arch, "clone", &[0x1000_0011]),
            EPERM,
            "user namespace {arch:?}"
        );
        assert_eq!(result(&filter, arch, "personality", &[0x2_0008]), ALLOW, "{arch:?}");
        assert_eq!(result(&filter, arch, "personality", &[0x40_0000]), EPERM, "{arch:?}");
        assert_eq!(result(&filter, arch, "socket", &[40]), EPERM, "AF_VSOCK {arch:?}");
        assert_eq!(result(&filter, arch, "socket", &[2]), ALLOW, "{arch:?}");
    }
    for arch in [Arch::X86_64, Arch::X86] {
        assert_eq!(result(&filter, arch, "open_tree_attr", &[]), model::ENOSYS, "newer: {arch:?}");
    }
    // On x32 old calls have the highest numbers, so nothing is known to be newer.
    assert_eq!(result(&filter, Arch::X32, "open_tree_attr", &[]), EPERM);
    assert_eq!(filter.unknown, [""; 0]);
}

#[test]
fn the_search_is_shallow() {
    let filter = compile(&default_profile()).unwrap();
    for arch in Arch::ALL {
        for name in random::all_names() {
            let Some(nr) = number(arch, name) else { continue };
            let data = Data { number: nr, arch: arch.audit(), ..Data::default() };
            let steps = bpf::run(&filter.program, &data).steps;
            assert!(steps <= 24, "{steps} instructions for {name} on {arch:?}");
        }
    }
}

/// Jumps beyond 255 instructions, and the end of what the kernel takes.
#[test]
fn a_large_profile_is_jumped_through_and_a_huge_one_refused() {
    let rules = |count: u64| -> LinuxSeccomp {
        let rules: Vec<Value> = (0..count)
            .map(|n| {
                let errno = n % 4000;
                json!({ "names": ["ioctl", "prctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
                        "args": [{"index": n % 6, "value": n << 30, "op": "SCMP_CMP_EQ"}] })
            })
            .collect();
        parse(json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                      "syscalls": rules }))
    };
    let filter = agrees(&rules(450), 3);
    assert!(filter.program.len() > 3000, "{}", filter.program.len());
    let error = compile(&rules(1000)).unwrap_err().to_string();
    assert_eq!(error, "linux.seccomp.syscalls: too large: more than 4096 instructions");
}

#[test]
fn calls_hidden_in_another_are_found_by_its_selector() {
    let spec = parse(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [
            { "names": ["socket", "semop"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["connect"], "action": "SCMP_ACT_ALLOW",
              "args": [{ "index": 2, "value": 16, "op": "SCMP_CMP_EQ" }] },
            { "names": ["bind"], "action": "SCMP_ACT_KILL_PROCESS",
              "args": [{ "index": 2, "value": 16, "op": "SCMP_CMP_EQ" }] },
        ],
    }));
    let filter = agrees(&spec, 4);
    let of = |name, selector| result(&filter, Arch::X86, name, &[selector, 0, 16]);
    assert_eq!(of("socketcall", 1), ALLOW);
    assert_eq!(of("socketcall", 3), EPERM, "a condition that nobody can check opens nothing");
    assert_eq!(of("socketcall", 2), 0x8000_0000, "and closes all");
    assert_eq!(of("ipc", 1), ALLOW);
    assert_eq!(of("ipc", 0x3_0001), ALLOW, "the kernel cuts the version off");
    assert_eq!(of("ipc", 2), EPERM);
    assert_eq!(result(&filter, Arch::X86_64, "connect", &[0, 0, 16]), ALLOW);
}

#[test]
fn of_two_rules_the_one_without_conditions_counts() {
    let spec = |first: Value, second: Value| {
        parse(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [first, second] }))
    };
    let errno = json!({ "names": ["dup"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9,
                        "args": [{ "index": 0, "value": 5, "op": "SCMP_CMP_EQ" }] });
    let allow = json!({ "names": ["dup"], "action": "SCMP_ACT_ALLOW" });
    for spec in [spec(errno.clone(), allow.clone()), spec(allow, errno)] {
        let filter = agrees(&spec, 5);
        assert_eq!(result(&filter, Arch::X86_64, "dup", &[5]), ALLOW);
    }
}

#[test]
fn one_argument_tested_twice_makes_two_rules() {
    let spec = parse(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 3, "op": "SCMP_CMP_EQ" },
            { "index": 0, "value": 4, "op": "SCMP_CMP_EQ" },
            { "index": 1, "value": 9, "op": "SCMP_CMP_EQ" },
        ] },
    ] }));
    let filter = agrees(&spec, 6);
    for (args, expected) in [([3, 0], ALLOW), ([4, 0], ALLOW), ([5, 9], ALLOW), ([5, 8], EPERM)] {
        assert_eq!(result(&filter, Arch::X86_64, "kill", &args), expected, "{args:?}");
    }
}

#[test]
fn unlisted_architectures_are_killed_and_foreign_ones_accepted() {
    let spec = parse(json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X", "SCMP_ARCH_ARM"],
        "syscalls": [{ "names": ["s390_pci_mmio_read", "dup"], "action": "SCMP_ACT_LOG" }],
    }));
    let filter = agrees(&spec, 7);
    assert_eq!(filter.unknown, ["s390_pci_mmio_read"]);
    assert_eq!(result(&filter, Arch::X86_64, "read", &[]), ALLOW);
    assert_eq!(result(&filter, Arch::X86, "read", &[]), model::KILL_THREAD);
    assert_eq!(result(&filter, Arch::X32, "read", &[]), model::KILL_THREAD);
    let skipped = Data { number: u32::MAX, arch: Arch::X86_64.audit(), ..Data::default() };
    assert_eq!(bpf::run(&filter.program, &skipped).value, ALLOW);
}

#[test]
fn flags_are_those_that_the_kernel_wants() {
    let flags = |json: Value| compile(&parse(json)).unwrap().flags;
    let with = |list: Value| flags(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": list }));
    assert_eq!(flags(json!({ "defaultAction": "SCMP_ACT_ALLOW" })), 4, "as runc without a list");
    assert_eq!(with(json!([])), 0);
    assert_eq!(with(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), 0, "one thread: nothing to do");
    assert_eq!(with(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 6);
    let filter = compile(&parse(json!({
        "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/run/agent", "listenerMetadata": "x",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
    })));
    let filter = filter.unwrap();
    assert_eq!(filter.flags, 0b10_1000);
    assert_eq!(filter.listener.unwrap().metadata, "x");
}

#[test]
fn wrong_profiles_are_named_by_field_and_value() {
    let allow = |more: Value| {
        let mut all = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let rule = |more: Value| {
        let mut all = json!({ "names": ["read"], "action": "SCMP_ACT_KILL" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        allow(json!({ "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_LOG" }, all] }))
    };
    let arg = json!([{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
                     { "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }]);
    let notify = json!({ "action": "SCMP_ACT_NOTIFY" });
    let listener = |path: &str| {
        let mut all = rule(notify.clone());
        all["listenerPath"] = json!(path);
        all
    };
    for (json, wanted) in [
        (rule(json!({ "args": arg })), "linux.seccomp.syscalls[1].args[1].index: 6 is not 0 to 5"),
        (rule(json!({ "names": [] })), "linux.seccomp.syscalls[1].names: must not be empty"),
        (
            rule(json!({ "names": ["a", ""] })),
            "linux.seccomp.syscalls[1].names[1]: must not be empty",
        ),
        (
            rule(json!({ "errnoRet": 5 })),
            "linux.seccomp.syscalls[1].errnoRet: 5 is given, but SCMP_ACT_KILL returns none",
        ),
        (
            rule(json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 5000 })),
            "linux.seccomp.syscalls[1].errnoRet: 5000 is more than 4095",
        ),
        (
            allow(json!({ "defaultErrnoRet": 1 })),
            "linux.seccomp.defaultErrnoRet: 1 is given, but SCMP_ACT_ALLOW returns none",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default: it would stop the \
             process before it executes its program",
        ),
        (
            allow(json!({ "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] })),
            "linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with \
             SCMP_ACT_NOTIFY",
        ),
        (
            allow(json!({ "listenerMetadata": "x" })),
            "linux.seccomp.listenerMetadata: must not be set without listenerPath",
        ),
        (rule(notify.clone()), "linux.seccomp.listenerPath: must be set for SCMP_ACT_NOTIFY"),
        (
            listener("run/agent"),
            "linux.seccomp.listenerPath: run/agent is not an absolute path of a socket",
        ),
    ] {
        let error = compile(&parse(json)).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::InvalidInput, wanted.to_owned()));
    }
}

#[test]
fn a_program_that_leaves_its_end_or_its_data_is_not_accepted() {
    let ok = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let ret = ok(bpf::RETURN, 0, 0, 7);
    assert_eq!(bpf::verify(&[ok(bpf::LOAD, 0, 0, 60), ret]), Ok(()));
    for bad in [
        &[][..],
        &[ok(bpf::LOAD, 0, 0, 64), ret],
        &[ok(bpf::LOAD, 0, 0, 2), ret],
        &[ok(bpf::EQUAL, 1, 0, 0), ret],
        &[ok(bpf::EQUAL, 0, 1, 0), ret],
        &[ok(bpf::JUMP, 0, 0, 1), ret],
        &[ret, ok(bpf::LOAD, 0, 0, 0)],
        &[ok(0x87, 0, 0, 0), ret],
    ] {
        assert!(bpf::verify(bad).is_err(), "{bad:x?}");
    }
}

#[test]
fn the_interpreter_sees_the_words_of_an_argument() {
    let args = [0, 0, 0, 0, 0, 0x1122_3344_5566_7788];
    let data = Data { number: 1, arch: 2, pointer: 3, args };
    assert_eq!(data.word(56), 0x5566_7788);
    assert_eq!(data.word(60), 0x1122_3344);
    assert_eq!((data.word(0), data.word(4), data.word(8)), (1, 2, 3));
}
