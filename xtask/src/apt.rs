//! What a step needs from the distribution, and getting it through apt.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::process;

/// Something that must be on the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// A program looked up in `$PATH`, or an absolute path.
    pub(crate) file: &'static str,
    /// The Debian package that brings it.
    pub(crate) package: &'static str,
    /// What it is for; shown when it has to be installed.
    pub(crate) purpose: &'static str,
}

const fn need(file: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need { file, package, purpose }
}

/// To build the workspace. The C library's headers and archive come with
/// libc6-dev; whoever has Rust but uses another linker may lack them.
pub(crate) const BUILD: &[Need] = &[
    need("cc", "gcc", "links the programs"),
    need("/usr/include/stdlib.h", "libc6-dev", "the static C library"),
];

/// To run anything that needs root: demo, root tier, bench.
pub(crate) const ROOT: &[Need] = &[
    need("ip", "iproute2", "network namespaces of the tests"),
    need("dpkg-deb", "dpkg", "unpacks packages into private directories"),
    need("mount", "mount", "looks at mounts"),
    need("mkfs.ext4", "e2fsprogs", "the file system that layers are measured on"),
    need("/usr/bin/python3", "python3", "its reader of archives is what ours is compared with"),
    need(
        "/usr/lib/x86_64-linux-gnu/libseccomp.so.2",
        "libseccomp2",
        "what our seccomp programs are compared with",
    ),
];

/// To build the fuzz targets.
pub(crate) const FUZZ: &[Need] = &[need("c++", "g++", "compiles and links libFuzzer")];

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// Fails unless root, saying which command asked for it and why.
pub(crate) fn require_root(command: &str, why: &str) -> Result<(), Error> {
    if is_root() {
        return Ok(());
    }
    Err(Error::failed(format!("`cargo xtask {command}` needs root: {why}")))
}

/// Installs those of `needs` that are missing; says so before it does.
pub(crate) fn ensure(needs: &[Need]) -> Result<(), Error> {
    let missing = missing(needs, &|file| present(file));
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|n| n.package).collect();
    for need in &missing {
        println!("missing: {} ({}), from the package {}", need.file, need.purpose, need.package);
    }
    let by_hand = format!("install by hand: {}", packages.join(" "));
    if !is_root() {
        return Err(Error::failed(format!("only root can install packages; {by_hand}")));
    }
    if !process::in_path("apt-get") {
        return Err(Error::failed(format!("there is no apt-get on this machine; {by_hand}")));
    }
    apt_get(&["update"])?;
    let install = ["install", "--yes", "--no-install-recommends"];
    apt_get(&[install.as_slice(), packages.as_slice()].concat())
}

fn apt_get(args: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    println!("$ {}", process::shown(&command));
    process::capture(&mut command).map(drop)
}

fn missing(needs: &[Need], present: &dyn Fn(&Path) -> bool) -> Vec<Need> {
    let mut list: Vec<Need> = Vec::new();
    for need in needs {
        let known = list.iter().any(|n| n.package == need.package);
        if !known && !present(Path::new(need.file)) {
            list.push(*need);
        }
    }
    list
}

/// Root's own directories are searched too: a shell without `/usr/sbin` in
/// `$PATH` must not make us install what is there.
fn present(file: &Path) -> bool {
    if file.is_absolute() {
        return file.exists();
    }
    process::in_path(file)
        || ["/usr/local/sbin", "/usr/sbin", "/sbin"]
            .iter()
            .any(|dir| PathBuf::from(dir).join(file).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_listed_and_each_package_once() {
        let needs = [
            need("there", "a", "x"),
            need("gone", "b", "x"),
            need("/gone/too", "b", "x"),
            need("lost", "c", "x"),
        ];
        let list = missing(&needs, &|file| file == Path::new("there"));
        assert_eq!(list.iter().map(|n| n.package).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn the_shell_is_found_by_name_and_by_path() {
        assert!(present(Path::new("sh")) && present(Path::new("/bin/sh")));
        assert!(!present(Path::new("no-such-program-anywhere")));
        assert!(!present(Path::new("/no/such/file")));
    }
}
