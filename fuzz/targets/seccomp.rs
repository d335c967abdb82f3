//! Seccomp profiles: the compiler ends, the kernel would take its program, and
//! the program agrees with a plain reading of the profile on every call tried.
#![no_main]

// The tests' interpreter and model, so that there is one opinion on what a profile means.
#[allow(dead_code, unreachable_pub, reason = "each user takes its part")]
#[path = "../../runtime/tests/seccomp_common/bpf.rs"]
mod bpf;
#[allow(dead_code, unreachable_pub, reason = "each user takes its part")]
#[path = "../../runtime/tests/seccomp_common/model.rs"]
mod model;
#[path = "../../runtime/tests/seccomp_common/names.rs"]
mod names;

use arbitrary::Arbitrary;
use boathook_runtime::seccomp::{Arch, compile, number};
use bpf::Data;
use libfuzzer_sys::fuzz_target;
use model::Model;
use names::SPECIAL;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

#[derive(Debug, Arbitrary)]
struct Profile {
    default: Action,
    arches: u8,
    flags: u8,
    listener: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Arbitrary)]
struct Rule {
    names: Vec<u8>,
    action: Action,
    args: Vec<Argument>,
}

#[derive(Debug, Arbitrary)]
struct Action(u8, Option<u16>);

#[derive(Debug, Arbitrary)]
struct Argument {
    index: u8,
    operator: u8,
    value: Number,
    two: Option<Number>,
}

/// Numbers at which 32 and 64 bits differ are worth more than others.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Number {
    Small(u8),
    Bit(u8),
    Low(u32),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
struct Call {
    arch: u8,
    name: u8,
    off: i8,
    args: [Number; 6],
}

const ACTIONS: [&str; 9] =
    ["ALLOW", "ERRNO", "KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "LOG", "TRACE", "NOTIFY"];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const ARCHES: [&str; 4] = ["X86_64", "X86", "X32", "AARCH64"];
const FLAGS: [&str; 4] = ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"];

fuzz_target!(|input: (Profile, Vec<Call>)| {
    let (profile, calls) = input;
    let Ok(spec) = serde_json::from_value::<LinuxSeccomp>(profile.json()) else { return };
    match compile(&spec) {
        Ok(filter) => {
            assert_eq!(bpf::verify(&filter.program), Ok(()));
            let model = Model::new(&spec);
            for call in calls.iter().map(Call::data) {
                let got = bpf::run(&filter.program, &call).value;
                let wanted = model.evaluate(&call);
                assert_eq!(got, wanted, "{call:x?} under {}", profile.json());
            }
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("linux.seccomp."), "{text}");
        }
    }
});

fn pick<'a>(all: &[&'a str], index: u8) -> &'a str {
    all[usize::from(index) % all.len()]
}

/// One of the calls with something special, or no name at all.
fn call_name(index: u8) -> &'static str {
    SPECIAL.get(usize::from(index) % (SPECIAL.len() + 1)).copied().unwrap_or_default()
}

/// The names whose bits are set.
fn chosen(all: &[&str], bits: u8, prefix: &str) -> Vec<String> {
    let set = |at: &usize| bits >> at & 1 == 1;
    (0..all.len()).filter(set).map(|at| format!("{prefix}{}", all[at])).collect()
}

impl Number {
    fn get(self) -> u64 {
        match self {
            Self::Small(n) => u64::from(n),
            Self::Bit(n) => (1_u64 << (n % 64)).wrapping_sub(u64::from(n >> 7)),
            Self::Low(n) => u64::from(n),
            Self::Any(n) => n,
        }
    }
}

impl Profile {
    fn json(&self) -> Value {
        let mut json = json!({ "syscalls": self.rules.iter().map(Rule::json).collect::<Vec<_>>() });
        self.default.put(&mut json, "defaultAction", "defaultErrnoRet");
        if self.arches & 0x80 == 0 {
            json["architectures"] = json!(chosen(&ARCHES, self.arches, "SCMP_ARCH_"));
        }
        if self.flags & 0x80 == 0 {
            json["flags"] = json!(chosen(&FLAGS, self.flags, "SECCOMP_FILTER_FLAG_"));
        }
        if self.listener {
            json["listenerPath"] = json!("/run/agent");
        }
        json
    }
}

impl Rule {
    fn json(&self) -> Value {
        let names: Vec<_> = self.names.iter().map(|name| call_name(*name)).collect();
        let mut json = json!({
            "names": names,
            "args": self.args.iter().map(Argument::json).collect::<Vec<_>>(),
        });
        self.action.put(&mut json, "action", "errnoRet");
        json
    }
}

impl Action {
    fn put(&self, json: &mut Value, action: &str, errno: &str) {
        json[action] = json!(format!("SCMP_ACT_{}", pick(&ACTIONS, self.0)));
        if let Some(value) = self.1 {
            json[errno] = json!(value);
        }
    }
}

impl Argument {
    fn json(&self) -> Value {
        let mut json = json!({
            "index": self.index % 8, "value": self.value.get(),
            "op": format!("SCMP_CMP_{}", pick(&OPERATORS, self.operator)),
        });
        if let Some(two) = self.two {
            json["valueTwo"] = json!(two.get());
        }
        json
    }
}

impl Call {
    /// A call at or beside a number that a profile can name.
    fn data(&self) -> Data {
        let arch = Arch::ALL[usize::from(self.arch) % 3];
        let named = number(arch, call_name(self.name)).unwrap_or(u32::from(self.name));
        let number = named.wrapping_add_signed(i32::from(self.off / 16));
        let audit = if self.arch == 0xff { 0x4000_0028 } else { arch.audit() };
        Data { number, arch: audit, pointer: 0, args: self.args.map(Number::get) }
    }
}
