//! Lets a program of a newer release run beside an older C library.
//!
//! Starting it through its own loader would not do: `containerd-shim-runc-v2` and `runc` execute
//! `/proc/self/exe` again, which would then be the loader. So the loader's path inside the program
//! is changed, on the private copy, and only where the host's libraries do not suffice.

use crate::command::Run;
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Both, for the releases before `/lib` and `/usr/lib` became one.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// Leaves a program alone that runs as it is, and ties others to the libraries in `root`.
pub(super) fn adapt(root: &Path, program: &Path) -> Result<()> {
    if !program.exists() || runs_as_it_is(program)? {
        return Ok(());
    }
    let loader = find(root, "ld-linux-x86-64.so.2")?;
    let libraries = LIBRARIES.map(|place| root.join(place).display().to_string()).join(":");
    let changed = program.with_extension("adapted");
    Run::new(&loader)
        .arg("--library-path")
        .arg(&libraries)
        .arg(find(root, "patchelf")?)
        .arg("--set-interpreter")
        .arg(&loader)
        // RPATH, unlike RUNPATH, also holds for the libraries' own libraries.
        .args(["--force-rpath", "--set-rpath"])
        .arg(&libraries)
        .arg("--output")
        .arg(&changed)
        .arg(program)
        .ok()?;
    fs::rename(&changed, program)
        .map_err(|source| Error::Io { what: format!("replace {}", program.display()), source })?;
    if runs_as_it_is(program)? {
        return Ok(());
    }
    Err(Error::Missing {
        what: format!("a library of {}", program.display()),
        remedy: "apt did not bring it along; add its package to WANTED".into(),
    })
}

/// Asks the loader named in the program to find all libraries and versions without starting it.
fn runs_as_it_is(program: &Path) -> Result<bool> {
    if !has_interpreter(program)? {
        return Ok(true);
    }
    let traced = Run::new(program).env("LD_TRACE_LOADED_OBJECTS", "1").output()?;
    let told = traced.text() + &traced.complaint();
    Ok(traced.code == 0 && !told.contains("not found"))
}

/// Whether the file is an ELF program that names a loader (elf(5), `PT_INTERP`).
fn has_interpreter(program: &Path) -> Result<bool> {
    const PT_INTERP: u32 = 3;
    let failed = |source| Error::Io { what: format!("read {}", program.display()), source };
    let mut head = Vec::new();
    File::open(program).map_err(failed)?.take(4096).read_to_end(&mut head).map_err(failed)?;
    if !head.starts_with(b"\x7fELF") {
        return Ok(false);
    }
    let table = usize::try_from(le(&head, 0x20, 8)).unwrap_or(usize::MAX);
    let size = usize::try_from(le(&head, 0x36, 2)).unwrap_or(usize::MAX);
    let mut entries = (0..le(&head, 0x38, 2))
        .filter_map(|index| table.checked_add(size.checked_mul(usize::try_from(index).ok()?)?));
    Ok(entries.any(|entry| le(&head, entry, 4) == u64::from(PT_INTERP)))
}

/// A little-endian number, or 0 where the bytes are not there.
fn le(bytes: &[u8], at: usize, count: usize) -> u64 {
    let found = bytes.get(at..at.saturating_add(count)).unwrap_or_default();
    found.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn find(root: &Path, name: &str) -> Result<PathBuf> {
    let found = ["usr/bin", "usr/lib64", "lib64"]
        .iter()
        .map(|place| root.join(place).join(name))
        .find(|path| path.exists());
    found.ok_or_else(|| Error::Missing {
        what: format!("{name} in {}", root.display()),
        remedy: "Debian's package no longer holds it where it used to".into(),
    })
}
