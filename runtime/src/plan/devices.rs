//! /dev: the nodes that every container has, those of the config, and links.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use boathook_init::Step;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use super::program::{Builder, HostFd};
use super::text;
use crate::{Error, Result};

/// Default devices of the runtime specification (config-linux.md, "Default
/// Devices"): path, major, minor.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
];

/// Default links of the specification, and /dev/core as runc makes it.
const LINKS: [(&std::ffi::CStr, &std::ffi::CStr); 5] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
    (c"/proc/kcore", c"/dev/core"),
];

/// Major and minor numbers that the kernel can hold.
const MAJOR_MAX: i64 = (1 << 12) - 1;
const MINOR_MAX: i64 = (1 << 20) - 1;

/// Adds nodes and links, unless /dev is a bind mount: then it is the host's
/// own directory, and nothing may be made in it.
///
/// Nobody may make a node in a user namespace (`bound`): there the host's nodes
/// are mounted.
pub(super) fn steps(build: &mut Builder, spec: &Spec, bound: bool) -> Result<()> {
    if dev_is_bound(spec) {
        return Ok(());
    }
    let listed = spec.linux().as_ref().and_then(|l| l.devices().as_deref()).unwrap_or_default();
    for (path, major, minor) in DEFAULT {
        // A mount on /dev/random, say, takes the place of the node.
        if listed.iter().any(|device| device.path() == Path::new(path)) || mounted(spec, path) {
            continue;
        }
        let path = text::c_string("linux.devices", path)?;
        let mode = libc::S_IFCHR | 0o666;
        let node = Step::Node { path: &path, mode, major, minor, uid: 0, gid: 0 };
        add(build, "linux.devices", node, bound);
    }
    for (index, device) in listed.iter().enumerate() {
        node(build, &format!("linux.devices[{index}]"), device, bound)?;
    }
    for (target, path) in LINKS {
        build.push(&Step::Link { target, path, replace: 0 });
    }
    if !mounted(spec, "/dev/ptmx") {
        build.push(&Step::Link { target: c"pts/ptmx", path: c"/dev/ptmx", replace: 1 });
    }
    Ok(())
}

/// Whether the config mounts something exactly there.
fn mounted(spec: &Spec, path: &str) -> bool {
    spec.mounts().iter().flatten().any(|mount| {
        let place = text::in_container("destination", mount.destination());
        place.is_ok_and(|place| place.to_bytes() == path.as_bytes())
    })
}

fn dev_is_bound(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(|mount| {
        let path = text::in_container("destination", mount.destination());
        let options = mount.options().as_deref().unwrap_or_default();
        let bind = mount.typ().as_deref() == Some("bind")
            || options.iter().any(|o| o == "bind" || o == "rbind");
        bind && path.is_ok_and(|p| p.as_c_str() == c"/dev")
    })
}

/// A node, made or mounted. A fifo belongs to no driver and can always be made.
fn add(build: &mut Builder, field: &str, node: Step<'_>, bound: bool) {
    let Step::Node { path, mode, major, minor, .. } = node else { return };
    let kind = mode & libc::S_IFMT;
    if !bound || kind == libc::S_IFIFO {
        return build.push(&node);
    }
    let source = PathBuf::from(OsStr::from_bytes(path.to_bytes()));
    let block = kind == libc::S_IFBLK;
    let device = HostFd::Device { field: field.to_owned(), source, block, major, minor };
    let tree = build.fd(device);
    build.push(&Step::Attach { tree, path, strict: 0, keep_mode: 0 });
}

fn node(build: &mut Builder, field: &str, device: &LinuxDevice, bound: bool) -> Result<()> {
    let path = text::absolute(&format!("{field}.path"), device.path())?;
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            return Err(Error::field(format!("{field}.type"), "\"a\" is no type of device node"));
        }
    };
    let fifo = kind == libc::S_IFIFO;
    let mode = device.file_mode().unwrap_or(0o666);
    let node = Step::Node {
        path: &path,
        mode: kind | (mode & 0o7777),
        major: if fifo { 0 } else { number(field, "major", device.major(), MAJOR_MAX)? },
        minor: if fifo { 0 } else { number(field, "minor", device.minor(), MINOR_MAX)? },
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    };
    add(build, field, node, bound);
    Ok(())
}

fn number(field: &str, name: &str, value: i64, max: i64) -> Result<u32> {
    match u32::try_from(value) {
        Ok(number) if value <= max => Ok(number),
        _ => Err(Error::field(format!("{field}.{name}"), format!("{value} is not 0 to {max}"))),
    }
}
