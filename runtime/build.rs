//! Builds the container-side program for embedding: a static, non-PIE
//! executable without std and libc. Cargo cannot express a binary dependency
//! with its own flags on stable Rust, so the compiler is called directly
//! (docs/decisions/0004-init-build.md).

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let source = Path::new("init/src");
    println!("cargo::rerun-if-changed={}", source.display());
    let out = PathBuf::from(var("OUT_DIR"));
    let lib = out.join("libboathook_init.rlib");
    let program = out.join("boathook-init");
    run(rustc("rlib", "boathook_init", &source.join("lib.rs"), &lib));
    let mut link = rustc("bin", "boathook_init_start", &source.join("start.rs"), &program);
    link.arg("--extern").arg(format!("boathook_init={}", lib.display()));
    for arg in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        link.arg("-C").arg(format!("link-arg={arg}"));
    }
    link.args(["-C", "link-arg=-Wl,--build-id=none,--gc-sections,-z,norelro,-z,noexecstack"]);
    link.args(["-C", "lto=fat", "-C", "strip=symbols", "-C", "target-feature=+crt-static"]);
    run(link);
}

fn rustc(kind: &str, name: &str, source: &Path, out: &Path) -> Command {
    let mut command = Command::new(var("RUSTC"));
    command.args(["--edition", "2024", "--crate-type", kind, "--crate-name", name]);
    command.args(["--target", &var("TARGET"), "-o"]).arg(out).arg(source);
    for option in [
        "opt-level=s",
        "panic=abort",
        "relocation-model=static",
        "codegen-units=1",
        "debuginfo=0",
        "overflow-checks=no",
        "debug-assertions=no",
    ] {
        command.args(["-C", option]);
    }
    command
}

fn run(mut command: Command) {
    let status = command.status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{command:?}: {status:?}"
    );
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
