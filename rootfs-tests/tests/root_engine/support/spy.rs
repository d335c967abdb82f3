//! Payloads that look into other processes of their container.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// Tries everything that lets one process look into another; one line for each try.
pub(crate) fn peek(pid: &str) -> Result<()> {
    let at = |name: &str| format!("/proc/{pid}/{name}");
    let told = |what: &str, result: Result<()>| match result {
        Ok(()) => println!("{what} ok"),
        Err(error) => println!("{what} {:?}", Errno::from_raw(error.raw_os_error().unwrap_or(0))),
    };
    let memory = OpenOptions::new().read(true).write(true).open(at("mem"));
    told("mem", memory.map(drop));
    for file in ["maps", "environ"] {
        told(file, fs::read(at(file)).map(drop));
    }
    for link in ["exe", "cwd", "root", "fd/0"] {
        told(link, fs::read_link(at(link)).map(drop));
    }
    let target = Pid::from_raw(pid.parse().unwrap_or(0));
    told("ptrace", ptrace::seize(target, ptrace::Options::empty()).map_err(Into::into));
    Ok(())
}

/// Looks at every new process from its first moment to its last, until `/stop` exists, and tells
/// each thing once: whose memory map could be read, whose program could be opened. Of whoever is
/// not busybox yet it also tells memory of the engine, descriptors of files, and capabilities.
pub(crate) fn spy() -> Result<()> {
    println!("watching");
    let mut seen = BTreeSet::new();
    let mut next = std::process::id() + 1;
    let mut there = false;
    for turn in 0_u64.. {
        let exists = look_at(next, &mut seen);
        if there && !exists {
            next += 1;
        }
        there = exists;
        if turn % 512 == 0 {
            if Path::new("/stop").exists() {
                break;
            }
            next = next.max(newest()?);
        }
    }
    for line in seen {
        println!("{line}");
    }
    println!("done");
    std::io::stdout().flush()
}

/// Whether there is such a process; adds what could be seen of it.
fn look_at(pid: u32, seen: &mut BTreeSet<String>) -> bool {
    if let Ok(program) = File::open(format!("/proc/{pid}/exe")) {
        use std::os::fd::AsRawFd;
        if let Ok(name) = fs::read_link(format!("/proc/self/fd/{}", program.as_raw_fd())) {
            seen.insert(format!("exe {}", name.display()));
            if !name.ends_with("busybox") {
                seen.extend(details(pid));
            }
        }
    }
    match fs::read_to_string(format!("/proc/{pid}/maps")) {
        Ok(maps) => {
            let names = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
            seen.extend(names.map(|name| format!("maps {name}")));
            true
        }
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// What the engine's memory has and no program of a container.
pub(crate) fn secret() -> String {
    ["nobody", "in", "a", "container", "reads", "this"].join("/")
}

/// What may be seen only of a process that has nothing to do with the host any more.
fn details(pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        if let Ok(name) = fs::read_link(entry.path()) {
            let name = name.display().to_string();
            found.extend(name.starts_with('/').then(|| format!("fd {name}")));
        }
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    found.extend(status.lines().filter(|line| line.starts_with("CapEff")).map(str::to_owned));
    if holds_secret(pid).unwrap_or(false) {
        found.push("the engine's memory".to_owned());
    }
    found
}

fn holds_secret(pid: u32) -> Result<bool> {
    let secret = secret();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut buffer = vec![0; 1 << 20];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let Some((first, _)) = line.split_once('-') else { continue };
        let Ok(at) = u64::from_str_radix(first, 16) else { continue };
        let length = memory.read_at(&mut buffer, at).unwrap_or(0);
        if buffer[..length].windows(secret.len()).any(|part| part == secret.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The highest process number there is, if that is not this process.
fn newest() -> Result<u32> {
    let mut highest = 0;
    for entry in fs::read_dir("/proc")? {
        if let Ok(pid) = entry?.file_name().to_string_lossy().parse() {
            highest = highest.max(pid);
        }
    }
    Ok(if highest == std::process::id() { highest + 1 } else { highest })
}
