//! The node's disk: made of packages, kept by the digest of what it is made from.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::binaries;
use crate::error::Error;
use crate::process::{self, Ended};
use crate::vm::console::Tail;
use crate::vm::mirror;
use crate::vm::suite::Suite;

/// Counts up when images of older recipes must not be used any more.
const RECIPE: u32 = 1;
/// Makes a node of a Debian machine; users run it too.
const PROVISION: &str = "deploy/node/provision.sh";
/// Downloading and unpacking some 200 packages on a slow machine.
const BUILD: Duration = Duration::from_secs(30 * 60);
/// While it is made an image is there twice, as files and as a disk.
const ROOM: u64 = 3 << 30;
/// Of the disk, sparse: what the guest may write goes to an overlay anyway.
const SIZE: &str = "6G";
/// The base system; the rest is the provisioning script's business.
const BASE: &str =
    "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,uidmap,linux-image-cloud-amd64";

/// Starts the work once the machine is up, and switches it off.
const UNIT: &str = "[Unit]
Description=Work of the virtual machine's owner
After=basic.target dbus.service systemd-logind.service
FailureAction=poweroff-force
[Service]
Type=oneshot
StandardOutput=journal+console
ExecStart=/bin/sh /usr/lib/boathook-vm/start
[Install]
WantedBy=multi-user.target
";

/// Of no use to a machine that lives for minutes. The profiles that AppArmor's unit loads are of
/// programs that are not there; the kernel's part works without.
const IDLE: [&str; 9] = [
    "apparmor.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty@tty1.service",
    "netavark-dhcp-proxy.service",
    "podman-auto-update.timer",
];

/// `/dev/vdb` is the payload, see [`super::job`]; its workspace gets a writable
/// overlay, at the path where it is on the host.
const START: &str = include_str!("start.sh");

/// A bootable disk with its kernel.
#[derive(Debug)]
pub(crate) struct Image {
    dir: PathBuf,
}

impl Image {
    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    pub(crate) fn initrd(&self) -> PathBuf {
        self.dir.join("initrd.img")
    }

    /// Finds the image, and makes it first where there is none.
    ///
    /// # Errors
    /// No address of an archive, no network, no room, or what a tool said.
    pub(crate) fn get(suite: Suite) -> Result<Self, Error> {
        let home = home()?;
        let lock = home.join(format!("{suite}.lock"));
        let lock = File::create(&lock).map_err(|e| Error::failed(format!("{suite}.lock: {e}")))?;
        lock.lock().map_err(|e| Error::failed(format!("vm: locking the images: {e}")))?;

        let script = fs::read_to_string(process::workspace().join(PROVISION))
            .map_err(|e| Error::failed(format!("{PROVISION}: {e}")))?;
        let name = format!("{suite}-{:016x}", digest(suite, &script));
        let image = Self { dir: home.join(&name) };
        if [image.disk(), image.kernel(), image.initrd()].iter().all(|file| file.is_file()) {
            return Ok(image);
        }
        remove_older(&home, suite)?;
        room(&home)?;
        println!("making a Debian {suite} image (some minutes, once)");
        let part = home.join(format!("{name}.part"));
        let made = make(suite, &part).and_then(|()| rename(&part, &image.dir));
        if made.is_err() && part.exists() {
            remove(&part)?;
        }
        made.map(|()| image)
    }
}

/// Where images and payloads are kept.
pub(crate) fn home() -> Result<PathBuf, Error> {
    let home = binaries::target_dir().join("vm");
    fs::create_dir_all(&home)
        .map_err(|e| Error::failed(format!("mkdir {}: {e}", home.display())))?;
    Ok(home)
}

fn digest(suite: Suite, script: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (RECIPE, suite.name(), script, UNIT, START, BASE, IDLE).hash(&mut hasher);
    hasher.finish()
}

fn make(suite: Suite, part: &Path) -> Result<(), Error> {
    fs::create_dir_all(part)
        .map_err(|e| Error::failed(format!("mkdir {}: {e}", part.display())))?;
    let root = part.join("root");
    unpack(suite, &root)?;
    prepare(&root)?;
    for (pattern, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd.img")] {
        let found = newest(&root.join("boot"), pattern)?;
        fs::copy(&found, part.join(name))
            .map_err(|e| Error::failed(format!("copying {}: {e}", found.display())))?;
    }
    disk(&root, &part.join("disk.img"), SIZE)?;
    remove(&root)
}

/// Unpacks and configures the packages, and provisions what came of it.
fn unpack(suite: Suite, root: &Path) -> Result<(), Error> {
    let script = process::workspace().join(PROVISION);
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "TERM",
            "mmdebstrap",
            "--variant=minbase",
            "--dpkgopt=force-unsafe-io",
            "--format=directory",
        ])
        .arg(format!("--include={BASE}"))
        .arg(format!("--customize-hook=upload {} /root/provision.sh", script.display()))
        .arg("--customize-hook=chroot \"$1\" sh /root/provision.sh")
        .arg(suite.name())
        .args([root.as_os_str(), mirror::address()?.as_ref()]);
    println!("$ {}", process::shown(&command));
    let mut tail = Tail::default();
    match process::watch(&mut command, BUILD, |line| tail.push(line))? {
        Ended::Exited(status) if status.success() => Ok(()),
        Ended::Exited(status) => {
            Err(Error::failed(format!("mmdebstrap ended with {status}:\n{tail}")))
        }
        Ended::Overdue => Err(Error::failed(format!(
            "mmdebstrap did not end within {} minutes:\n{tail}",
            BUILD.as_secs() / 60
        ))),
    }
}

/// What makes the node ours: it does the payload's work and nothing else.
fn prepare(root: &Path) -> Result<(), Error> {
    let units = root.join("etc/systemd/system");
    let wants = units.join("multi-user.target.wants");
    for dir in [&wants, &root.join("usr/lib/boathook-vm")] {
        fs::create_dir_all(dir).map_err(|e| Error::failed(format!("{}: {e}", dir.display())))?;
    }
    let write = |path: &str, text: &str| {
        fs::write(root.join(path), text).map_err(|e| Error::failed(format!("{path}: {e}")))
    };
    write("usr/lib/boathook-vm/start", START)?;
    write("etc/systemd/system/boathook-vm.service", UNIT)?;
    write("etc/hostname", "node\n")?;
    let link = |to: &str, at: &Path| {
        let _ = fs::remove_file(at);
        std::os::unix::fs::symlink(to, at)
            .map_err(|e| Error::failed(format!("{}: {e}", at.display())))
    };
    // What an update would make anew is new already; looking takes a minute under emulation.
    for stamp in ["etc/.updated", "var/.updated"] {
        write(stamp, "")?;
    }
    for unit in IDLE {
        link("/dev/null", &units.join(unit))?;
    }
    // A test that wants the node's own daemon starts it; that takes its time, too.
    let _ = fs::remove_file(wants.join("containerd.service"));
    link("../boathook-vm.service", &wants.join("boathook-vm.service"))?;
    // The console belongs to the kernel's messages, and to the shell when one is asked for.
    link("/dev/null", &units.join("serial-getty@ttyS0.service"))
}

/// An ext4 file system of `root`'s content, without a mount.
pub(crate) fn disk(root: &Path, file: &Path, size: &str) -> Result<(), Error> {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1", "-d"]);
    command.arg(root).arg(file).arg(size);
    process::capture(&mut command).map(drop)
}

fn newest(boot: &Path, start: &str) -> Result<PathBuf, Error> {
    let entries =
        fs::read_dir(boot).map_err(|e| Error::failed(format!("{}: {e}", boot.display())))?;
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
    };
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(named)
        .max()
        .ok_or_else(|| Error::failed(format!("the packages brought no {start}* into /boot")))
}

/// Images of this release made from something else, and what was left half made.
fn remove_older(home: &Path, suite: Suite) -> Result<(), Error> {
    let start = format!("{suite}-");
    let entries =
        fs::read_dir(home).map_err(|e| Error::failed(format!("{}: {e}", home.display())))?;
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&start)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

pub(crate) fn remove(dir: &Path) -> Result<(), Error> {
    fs::remove_dir_all(dir).map_err(|e| Error::failed(format!("removing {}: {e}", dir.display())))
}

fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to).map_err(|e| Error::failed(format!("renaming to {}: {e}", to.display())))
}

fn room(dir: &Path) -> Result<(), Error> {
    let mut command = Command::new("df");
    command.args(["--output=avail", "--block-size=1"]).arg(dir);
    let text = process::capture(&mut command)?;
    let free: u64 = text.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
    if free >= ROOM {
        return Ok(());
    }
    Err(Error::failed(format!(
        "an image needs {} MiB while it is made, and {} has {} MiB free",
        ROOM >> 20,
        dir.display(),
        free >> 20
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_script_or_release_is_another_image() {
        let here = digest(Suite::Trixie, "a");
        assert_eq!(here, digest(Suite::Trixie, "a"));
        assert_ne!(here, digest(Suite::Trixie, "b"));
        assert_ne!(here, digest(Suite::Sid, "a"));
    }
}
