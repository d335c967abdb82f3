//! The program against the plain meaning of the rules, and against the v1 table.

use proptest::prelude::*;

use super::super::{Table, parse};
use super::*;

/// What a process asks for.
#[derive(Debug, Clone, Copy)]
struct Question {
    kind: DeviceKind,
    major: u32,
    minor: u32,
    access: Access,
}

/// Runs a program as the kernel would; refuses whatever its verifier would.
fn run(program: Option<&DeviceProgram>, asked: Question) -> bool {
    let Some(program) = program else { return true };
    let context =
        [access_number(asked.access) << 16 | kind_number(asked.kind), asked.major, asked.minor];
    let mut registers: [Option<u32>; 10] = [None; 10];
    let mut at = 0;
    loop {
        let Insn { code, registers: pair, offset, immediate } = program.code()[at];
        let (dst, src) = (usize::from(pair & 15), usize::from(pair >> 4));
        assert!(offset >= 0, "a jump backwards at {at}");
        let value = immediate.cast_unsigned();
        let read = |register: usize| registers[register].expect("read before it was written");
        at += 1;
        match code {
            op::LOAD => {
                assert_eq!(src, usize::from(CONTEXT));
                registers[dst] = Some(context[offset as usize / 4]);
            }
            op::MOVE => registers[dst] = Some(read(src)),
            op::SET => registers[dst] = Some(value),
            op::AND => registers[dst] = Some(read(dst) & value),
            op::XOR => registers[dst] = Some(read(dst) ^ value),
            op::OR => registers[dst] = Some(read(dst) | read(src)),
            op::SHIFT_LEFT => registers[dst] = Some(read(dst) << value),
            op::SHIFT_RIGHT => registers[dst] = Some(read(dst) >> value),
            op::JUMP_EQUAL => at += if read(dst) == value { offset as usize } else { 0 },
            op::JUMP_UNEQUAL => at += if read(dst) == value { 0 } else { offset as usize },
            op::JUMP_ANY => at += if read(dst) & value == 0 { 0 } else { offset as usize },
            op::EXIT => return read(usize::from(R0)) == 1,
            _ => panic!("opcode {code:#x} at {}", at - 1),
        }
    }
}

fn concerns(devices: &Option<DeviceMatch>, asked: Question) -> bool {
    let Question { kind, major, minor, .. } = asked;
    let this = DeviceMatch { kind, major: Some(major), minor: Some(minor) };
    devices.is_none_or(|devices| devices.covers(&this))
}

/// The meaning: for each kind of access the last rule that speaks of it decides.
fn naive(rules: &[DeviceRule], asked: Question) -> bool {
    [1, 2, 4].into_iter().filter(|bit| asked.access.0 & bit != 0).all(|bit| {
        let speaks =
            |rule: &&DeviceRule| concerns(&rule.devices, asked) && rule.access.0 & bit != 0;
        rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
    })
}

/// security/device_cgroup.c: all of the access inside one exception to "deny",
/// none of it inside any exception to "allow".
fn v1_kernel(table: &Table, asked: Question) -> bool {
    let asked_bits = asked.access.0;
    let mut matching =
        table.exceptions.iter().filter(|(d, _)| concerns(&Some(**d), asked)).map(|(_, a)| a.0);
    match table.default_allow {
        true => !matching.any(|bits| asked_bits & bits != 0),
        false => matching.any(|bits| asked_bits & !bits == 0),
    }
}

fn kinds() -> impl Strategy<Value = DeviceKind> {
    prop_oneof![Just(DeviceKind::Char), Just(DeviceKind::Block)]
}

/// Few numbers, so that rules meet, and the largest, whose bits reach everywhere.
fn majors() -> impl Strategy<Value = u32> {
    prop_oneof![5 => 0_u32..4, 1 => Just(MAX_MAJOR)]
}

fn minors() -> impl Strategy<Value = u32> {
    prop_oneof![5 => 0_u32..4, 1 => Just(MAX_MINOR)]
}

/// A rule may name a number that no device has, whose low bits are another's.
fn too_large(bits: u32) -> impl Strategy<Value = u32> {
    prop_oneof![Just(1 << bits | 1), Just(1 << 31), Just(u32::MAX)]
}

fn patterns() -> impl Strategy<Value = DeviceMatch> {
    let major = prop::option::of(prop_oneof![9 => majors(), 1 => too_large(12)]);
    let minor = prop::option::of(prop_oneof![9 => minors(), 1 => too_large(MINOR_BITS)]);
    (kinds(), major, minor).prop_map(|(kind, major, minor)| DeviceMatch { kind, major, minor })
}

fn accesses() -> impl Strategy<Value = Access> {
    (1_u8..=7).prop_map(Access)
}

fn rules(most: usize) -> impl Strategy<Value = Vec<DeviceRule>> {
    let some = (any::<bool>(), patterns(), accesses())
        .prop_map(|(allow, devices, access)| DeviceRule { allow, devices: Some(devices), access });
    let all =
        any::<bool>().prop_map(|allow| DeviceRule { allow, devices: None, access: Access::ALL });
    let first = all.clone();
    let rest = prop::collection::vec(prop_oneof![9 => some, 1 => all], 0..=most);
    (first, rest).prop_map(|(first, rest)| std::iter::once(first).chain(rest).collect())
}

fn questions() -> impl Strategy<Value = Vec<Question>> {
    let one = (kinds(), majors(), minors(), accesses())
        .prop_map(|(kind, major, minor, access)| Question { kind, major, minor, access });
    prop::collection::vec(one, 32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Red if a jump, a mask, a shortcut or the order of the rules is wrong.
    #[test]
    fn the_program_means_what_the_rules_mean(rules in rules(24), questions in questions()) {
        let program = DeviceProgram::compile(&rules).unwrap();
        for asked in questions {
            prop_assert_eq!(run(program.as_ref(), asked), naive(&rules, asked), "{:?}", asked);
        }
    }

    /// Red if a container's devices depend on the cgroup version. Alone, v1
    /// refuses two kinds of access at once that two rules allow one by one.
    #[test]
    fn the_program_agrees_with_v1(rules in rules(6), questions in questions()) {
        let Ok(table) = Table::new(&rules) else { return Ok(()) };
        let program = DeviceProgram::compile(&rules).unwrap();
        for asked in questions {
            let (ours, v1) = (run(program.as_ref(), asked), v1_kernel(&table, asked));
            if asked.access.0.is_power_of_two() || table.default_allow {
                prop_assert_eq!(ours, v1, "{:?}", asked);
            } else {
                prop_assert!(ours || !v1, "{:?}", asked);
            }
        }
    }
}

fn compile(json: &str) -> Option<DeviceProgram> {
    let resources = serde_json::from_str(&format!(r#"{{"devices":{json}}}"#)).unwrap();
    DeviceProgram::compile(&parse(Some(&resources)).unwrap()).unwrap()
}

fn ask(kind: DeviceKind, major: u32, minor: u32, access: u8) -> Question {
    Question { kind, major, minor, access: Access(access) }
}

#[test]
fn allowing_everything_needs_no_program() {
    assert_eq!(compile(r#"[{"allow":true,"access":"rwm"}]"#), None);
    let again = r#"[{"allow":true,"type":"c","major":1,"minor":3},{"allow":true,"type":"a"}]"#;
    assert_eq!(compile(again), None);
    let but_one = r#"[{"allow":true},{"allow":false,"type":"b","major":8,"access":"w"}]"#;
    let program = compile(but_one).unwrap();
    assert!(run(Some(&program), ask(DeviceKind::Block, 8, 1, 1)));
    assert!(!run(Some(&program), ask(DeviceKind::Block, 8, 1, 3)));
    assert!(run(Some(&program), ask(DeviceKind::Block, 9, 1, 7)));
}

#[test]
fn the_default_rules_are_a_short_program() {
    let program = compile("[]").unwrap();
    assert!(program.len() <= 32, "{} instructions", program.len());
    for (kind, major, minor, access, wanted) in [
        (DeviceKind::Char, 1, 3, 3, true),
        (DeviceKind::Char, 1, 3, 7, true),
        (DeviceKind::Block, 1, 3, 1, false),
        (DeviceKind::Char, 1, 4, 1, false),
        (DeviceKind::Char, 136, 77, 3, true),
        (DeviceKind::Block, 254, 0, 4, true),
        (DeviceKind::Block, 254, 0, 5, false),
    ] {
        let asked = ask(kind, major, minor, access);
        assert_eq!(run(Some(&program), asked), wanted, "{asked:?}");
    }
}

/// Red if rules without effect make the program longer: a config may repeat
/// them by the hundred.
#[test]
fn rules_without_effect_cost_nothing() {
    let plain = compile("[]").unwrap();
    let denied = r#"{"allow":false,"type":"c","major":240,"minor":7},"#.repeat(100);
    assert_eq!(compile(&format!("[{}]", denied.trim_end_matches(','))).unwrap(), plain);
    let null = r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"r"},"#.repeat(100);
    assert_eq!(compile(&format!("[{}]", null.trim_end_matches(','))).unwrap(), plain);
}

/// The numbers of linux/bpf.h: an error here would let the wrong thing through.
#[test]
fn numbers_are_the_kernels() {
    let letters = |text: &str| access_number(Access::parse(text).unwrap());
    assert_eq!((letters("m"), letters("r"), letters("w"), letters("rwm")), (1, 2, 4, 7));
    assert_eq!((kind_number(DeviceKind::Block), kind_number(DeviceKind::Char)), (1, 2));
    assert_eq!(size_of::<Insn>(), 8);
}

#[test]
fn too_many_rules_are_refused() {
    let rule = |n: usize, access| DeviceRule {
        allow: n.is_multiple_of(2),
        devices: Some(DeviceMatch {
            kind: DeviceKind::Char,
            major: Some(n as u32 % 100),
            minor: Some(n as u32 / 100),
        }),
        access: Access(access),
    };
    // The first of them would say what holds anyhow, if it denied.
    let rules: Vec<_> = (0..=MAX_RULES).map(|n| rule(n, 3)).collect();
    let error = DeviceProgram::compile(&rules).unwrap_err();
    assert!(error.to_string().starts_with("linux.resources.devices: 2049"), "{error}");
    // The longest there is: every jump must reach its answer.
    let program = DeviceProgram::compile(&rules[..MAX_RULES]).unwrap();
    let asked = |n: usize| ask(DeviceKind::Char, n as u32 % 100, n as u32 / 100, 2);
    for n in [0, 1, 2, MAX_RULES - 2, MAX_RULES - 1] {
        assert_eq!(run(program.as_ref(), asked(n)), n % 2 == 0, "{n}");
    }
}

/// Red if access(2) with `F_OK`, which asks for nothing, is answered by a rule
/// about another device. As on v1: yes where some rule allows something.
#[test]
fn a_question_for_nothing_needs_a_rule_that_allows_something() {
    let rules = [
        DeviceRule { allow: false, devices: None, access: Access::ALL },
        DeviceRule {
            allow: true,
            devices: Some(DeviceMatch { kind: DeviceKind::Char, major: Some(7), minor: Some(1) }),
            access: Access(1),
        },
    ];
    let program = DeviceProgram::compile(&rules).unwrap();
    let table = Table::new(&rules).unwrap();
    for (minor, wanted) in [(1, true), (2, false)] {
        let asked = ask(DeviceKind::Char, 7, minor, 0);
        assert_eq!(run(program.as_ref(), asked), wanted, "{asked:?}");
        assert_eq!(v1_kernel(&table, asked), wanted, "{asked:?}");
    }
}
