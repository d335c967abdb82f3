//! Random profiles, and the calls that tell them apart.

use boathook_runtime::seccomp::{Arch, number};
use oci_spec::runtime::LinuxSeccomp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::bpf::Data;
use super::names::SPECIAL;

/// Every name of the compiler's table, read off its source.
pub(crate) fn all_names() -> Vec<&'static str> {
    let source = include_str!("../../src/seccomp/syscalls.rs");
    source
        .lines()
        .filter_map(|l| l.trim().strip_prefix("Call::new(\"")?.split('"').next())
        .collect()
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        2 => prop::sample::select(&SPECIAL[..]),
        1 => prop::sample::select(all_names()),
    ]
}

fn action(notify: bool) -> impl Strategy<Value = (&'static str, Option<u32>)> {
    let last = if notify { "SCMP_ACT_NOTIFY" } else { "SCMP_ACT_LOG" };
    prop_oneof![
        4 => Just(("SCMP_ACT_ALLOW", None)),
        2 => Just(("SCMP_ACT_ERRNO", None)),
        2 => (0_u32..4096).prop_map(|errno| ("SCMP_ACT_ERRNO", Some(errno))),
        1 => Just(("SCMP_ACT_ERRNO", Some(38))),
        1 => Just(("SCMP_ACT_KILL", None)),
        1 => Just(("SCMP_ACT_KILL_THREAD", None)),
        1 => Just(("SCMP_ACT_KILL_PROCESS", None)),
        1 => Just(("SCMP_ACT_TRAP", None)),
        1 => Just(("SCMP_ACT_LOG", None)),
        1 => (0_u32..65536).prop_map(|data| ("SCMP_ACT_TRACE", Some(data))),
        1 => Just((last, None)),
    ]
}

/// Numbers around which 32 and 64 bits differ.
fn number_of_note() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0_u64..6,
        1 => Just(40_u64),
        1 => prop::sample::select(&[0x8000_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001][..]),
        1 => prop::sample::select(&[0x7e02_0000, u64::MAX, 1 << 63, 0xffff_ffff_0000_0000][..]),
        1 => any::<u64>(),
    ]
}

const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];

fn argument() -> impl Strategy<Value = Value> {
    let operator = prop::sample::select(&OPERATORS[..]);
    (0_u32..6, operator, number_of_note(), prop::option::of(number_of_note())).prop_map(
        |(index, op, value, two)| {
            json!({ "index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two })
        },
    )
}

fn rule() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        3 => prop::collection::vec(name(), 1..5),
        1 => prop::collection::vec(name(), 1..120),
    ];
    let args = prop_oneof![
        2 => Just(Vec::new()),
        3 => prop::collection::vec(argument(), 1..4),
    ];
    (names, action(true), args).prop_map(|(names, (action, errno), args)| {
        json!({ "names": names, "action": action, "errnoRet": errno, "args": args })
    })
}

/// A valid profile.
pub(crate) fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let arches = prop::sample::subsequence(
        vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
        0..=4,
    );
    (action(false), arches, prop::collection::vec(rule(), 0..25)).prop_map(
        |((action, errno), arches, rules)| {
            let listener = rules.iter().any(|r| r["action"] == "SCMP_ACT_NOTIFY");
            parse(json!({
                "defaultAction": action, "defaultErrnoRet": errno, "architectures": arches,
                "listenerPath": listener.then_some("/run/agent"), "syscalls": rules,
            }))
        },
    )
}

pub(crate) fn parse(mut json: Value) -> LinuxSeccomp {
    without_nulls(&mut json);
    serde_json::from_value(json).unwrap()
}

fn without_nulls(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// A small generator of numbers for the calls to try, so that a failing case
/// is the same when it is run again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll() as usize % all.len()]
    }
}

/// Calls at and around all that the profile names, on every architecture.
pub(crate) fn calls(spec: &LinuxSeccomp, dice: &mut Dice) -> Vec<Data> {
    let values = values(spec);
    let mut calls = Vec::new();
    for arch in Arch::ALL {
        for nr in numbers(spec, arch) {
            for _ in 0..6 {
                let args = std::array::from_fn(|_| argument_near(&values, dice));
                calls.push(Data { number: nr, arch: arch.audit(), pointer: dice.roll(), args });
            }
        }
    }
    // ARM, which never runs here.
    calls.push(Data { number: 1, arch: 0x4000_0028, ..Data::default() });
    calls
}

fn numbers(spec: &LinuxSeccomp, arch: Arch) -> Vec<u32> {
    let names = spec.syscalls().iter().flatten().flat_map(|rule| rule.names().iter());
    let named = names.filter_map(|name| number(arch, name));
    let mut numbers: Vec<u32> =
        named.flat_map(|n| [n.wrapping_sub(1), n, n + 1]).chain([0, 102, 117, 600]).collect();
    numbers.extend([0x3fff_ffff, 0x4000_0000, 0x4000_0200, 0x7fff_ffff, 0x8000_0000, u32::MAX]);
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Values that the conditions compare with, and small ones.
fn values(spec: &LinuxSeccomp) -> Vec<u64> {
    let args = spec.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten());
    args.flat_map(|a| [a.value(), a.value_two().unwrap_or(1)]).chain(0..25).collect()
}

fn argument_near(values: &[u64], dice: &mut Dice) -> u64 {
    let value = dice.of(values);
    match dice.roll() % 8 {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => value ^ (1 << (dice.roll() % 64)),
        3 => value | 0xffff_ffff_0000_0000,
        4 => dice.roll(),
        _ => value,
    }
}
