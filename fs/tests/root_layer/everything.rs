//! Real trees with something of everything, packed by GNU tar.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};

use super::snapshot;

/// `cap_net_raw=ep` as the kernel stores it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Something of everything.
pub(crate) fn fill(dir: &Path) {
    let at = |name: &str| dir.join(name);
    fs::create_dir_all(at("usr/bin")).unwrap();
    fs::write(at("usr/bin/tool"), vec![b't'; 700_000]).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("private"), "p").unwrap();
    mode(&at("private"), 0o600);
    fs::write(at("everyone"), "e").unwrap();
    mode(&at("everyone"), 0o666);
    fs::write(at("usr/bin/su"), "s").unwrap();
    chown(at("usr/bin/su"), Some(1000), Some(4_000_000)).unwrap();
    mode(&at("usr/bin/su"), 0o6755);
    fs::write(at("usr/bin/ping"), "p").unwrap();
    chown(at("usr/bin/ping"), Some(7), Some(8)).unwrap();
    xattr(&at("usr/bin/ping"), "security.capability", &CAPABILITY);
    fs::create_dir(at("tmp")).unwrap();
    mode(&at("tmp"), 0o1777);
    fs::create_dir(at("group")).unwrap();
    chown(at("group"), None, Some(50)).unwrap();
    mode(&at("group"), 0o2775);
    // Without care it gets the group of its directory.
    fs::write(at("group/of-root"), "r").unwrap();
    chown(at("group/of-root"), Some(0), Some(0)).unwrap();
    fs::create_dir(at("group/sub")).unwrap();
    chown(at("group/sub"), Some(0), Some(0)).unwrap();
    mode(&at("group/sub"), 0o755);
    symlink("usr/bin", at("bin")).unwrap();
    symlink("/no/where", at("dangling")).unwrap();
    lchown(at("dangling"), Some(3), Some(4)).unwrap();
    fs::hard_link(at("usr/bin/tool"), at("tool-again")).unwrap();
    fs::hard_link(at("dangling"), at("dangling-again")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), Mode::from_bits_truncate(0o640)).unwrap();
    for (name, kind) in [("null", SFlag::S_IFCHR), ("disk", SFlag::S_IFBLK)] {
        let bits = Mode::from_bits_truncate(0o666);
        mknod(&at(name), kind, bits, makedev(1, 3)).unwrap();
        mode(&at(name), 0o666);
    }
    fs::create_dir(at(&"d".repeat(120))).unwrap();
    fs::write(at(&"d".repeat(120)).join("f".repeat(200)), "long").unwrap();
    symlink("t".repeat(300), at("long-link")).unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"no\xfftext\n")), "bytes").unwrap();
    let mut sparse = File::create(at("sparse")).unwrap();
    for place in [0, 1 << 20, 5 << 20] {
        sparse.seek(SeekFrom::Start(place)).unwrap();
        sparse.write_all(&[b'x'; 5000]).unwrap();
    }
    sparse.set_len(8 << 20).unwrap();
}

/// Times with nanoseconds, the deepest first.
pub(crate) fn age(dir: &Path) {
    let paths: Vec<_> = snapshot::of(dir).into_keys().collect();
    for (index, path) in paths.iter().enumerate().rev() {
        let time = Timespec { tv_sec: 1_600_000_000 + index as i64, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, dir.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Everything in `dir`, and what `args` add to it.
pub(crate) fn tar(dir: &Path, archive: &Path, args: &[&str]) {
    let mut command = Command::new("tar");
    command.arg("-C").arg(dir).args(["--numeric-owner", "--sort=name", "-cf"]).arg(archive);
    let output = command.args(args).arg(".").output().expect("GNU tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The format that loses nothing.
pub(crate) const POSIX: [&str; 3] = ["--format=posix", "--xattrs", "--xattrs-include=*"];
