//! libseccomp, asked through a small C program (libseccomp.c), because the
//! tests are linked statically and cannot load a library.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use boathook_runtime::seccomp::{Arch, Instruction};
use oci_spec::runtime::{Arch as SpecArch, LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::model::repeats;

pub(crate) struct Oracle {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Oracle {
    /// Compiles the program into `dir` and starts it.
    pub(crate) fn start(dir: &Path) -> Self {
        let program = dir.join("libseccomp-oracle");
        let source = dir.join("libseccomp.c");
        std::fs::write(&source, include_str!("libseccomp.c")).unwrap();
        let mut compiler = Command::new("cc");
        compiler.arg("-O1").arg("-o").arg(&program).arg(&source).arg("-ldl");
        let made = compiler.output().expect("the C compiler (package gcc)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut child =
            Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output) }
    }

    fn ask(&mut self, question: &str) -> String {
        self.input.write_all(question.as_bytes()).unwrap();
        // Some lists of rules make it loop.
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut ready = [PollFd::new(self.output.get_ref(), PollFlags::IN)];
        assert_eq!(poll(&mut ready, Some(&limit)), Ok(1), "libseccomp does not come to an end");
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "libseccomp could not be asked (package libseccomp2)");
        answer
    }

    /// The number of a call; negative when the architecture has none of its own.
    pub(crate) fn number(&mut self, arch: Arch, name: &str) -> i64 {
        self.ask(&format!("resolve {} {name}\n", token(arch))).trim().parse().unwrap()
    }

    /// The program that a runtime on libseccomp makes of the profile.
    pub(crate) fn compile(&mut self, spec: &LinuxSeccomp) -> Result<Vec<Instruction>, String> {
        let default = spec.default_action().as_u32(spec.default_errno_ret());
        let mut script = format!("init {default}\n");
        for (name, arch) in [(SpecArch::ScmpArchX86, Arch::X86), (SpecArch::ScmpArchX32, Arch::X32)]
        {
            if spec.architectures().iter().flatten().any(|listed| *listed == name) {
                script += &format!("arch {}\n", token(arch));
            }
        }
        for rule in spec.syscalls().iter().flatten() {
            let value = rule.action().as_u32(rule.errno_ret());
            if value != default {
                rules(&mut script, rule, value);
            }
        }
        script += "export\n";
        let answer = self.ask(&script);
        let Some(program) = answer.strip_prefix("program") else { return Err(answer) };
        Ok(program.split_whitespace().map(|word| instruction(word.parse().unwrap())).collect())
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `SCMP_ARCH_*`: x32 is the one that is not the kernel's own value.
fn token(arch: Arch) -> u32 {
    if arch == Arch::X32 { 0x4000_003e } else { arch.audit() }
}

fn rules(script: &mut String, rule: &LinuxSyscall, value: u32) {
    let args = rule.args().as_deref().unwrap_or_default();
    for name in rule.names() {
        if repeats(args) {
            for arg in args {
                *script += &format!("rule {value} {name} 1{}\n", comparison(arg));
            }
        } else {
            let list: String = args.iter().map(comparison).collect();
            *script += &format!("rule {value} {name} {}{list}\n", args.len());
        }
    }
}

fn comparison(arg: &LinuxSeccompArg) -> String {
    let (op, two) = (arg.op() as u32, arg.value_two().unwrap_or(0));
    format!(" {} {op} {} {two}", arg.index(), arg.value())
}

fn instruction(word: u64) -> Instruction {
    let [c0, c1, jt, jf, k0, k1, k2, k3] = word.to_le_bytes();
    Instruction {
        code: u16::from_le_bytes([c0, c1]),
        jt,
        jf,
        k: u32::from_le_bytes([k0, k1, k2, k3]),
    }
}
