//! OCI bundles without a daemon, shaped like those that `ctr run` makes.

use crate::error::{Context, Result};
use crate::image;
use crate::packages::Packages;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The capabilities of containerd's default spec.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A bundle directory: `config.json` and, for [`Bundle::busybox`], `rootfs/` with files in it.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The directory.
    pub dir: PathBuf,
    /// What `config.json` holds; write changes with [`Bundle::save`].
    pub config: Value,
}

impl Bundle {
    /// A bundle `parent/id` with the busybox image's files in `rootfs/`.
    ///
    /// The directory has the container's name, as containerd's have; the stock shim counts on it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn busybox(parent: &Path, id: &str, args: &[&str], packages: &Packages) -> Result<Self> {
        let bundle = Self::empty(parent, id, args)?;
        image::unpack(&packages.busybox(), &bundle.rootfs())?;
        Ok(bundle)
    }

    /// A bundle `parent/id` whose `rootfs/` is empty, for a caller that mounts over it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn empty(parent: &Path, id: &str, args: &[&str]) -> Result<Self> {
        let bundle = Self { dir: parent.join(id), config: spec(id, args) };
        fs::create_dir_all(bundle.rootfs()).during(|| format!("mkdir in {}", parent.display()))?;
        bundle.save()?;
        Ok(bundle)
    }

    /// Where the container's files are.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> Result<()> {
        let path = self.dir.join("config.json");
        fs::write(&path, self.config.to_string()).during(|| format!("write {}", path.display()))
    }

    /// Adds a member to the object that a JSON pointer names, and writes the file.
    ///
    /// # Errors
    /// There is no such object, or the file cannot be written.
    pub fn add(&mut self, pointer: &str, name: &str, value: Value) -> Result<()> {
        let object = self.config.pointer_mut(pointer).and_then(Value::as_object_mut);
        let object = object
            .ok_or_else(|| crate::Error::check(format!("no object {pointer:?} in config.json")))?;
        object.insert(name.to_owned(), value);
        self.save()
    }

    /// Changes one value, named by a JSON pointer (RFC 6901), and writes the file.
    ///
    /// # Errors
    /// The place does not exist, or the file cannot be written.
    pub fn set(&mut self, pointer: &str, value: Value) -> Result<()> {
        let place = self.config.pointer_mut(pointer);
        *place.ok_or_else(|| crate::Error::check(format!("no {pointer} in config.json")))? = value;
        self.save()
    }
}

/// containerd's default spec for `ctr run` of an image that says nothing special.
#[must_use]
pub fn spec(id: &str, args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": { "uid": 0, "gid": 0, "additionalGids": [0] },
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "mounts": mounts(),
        "linux": {
            "resources": { "devices": devices() },
            "cgroupsPath": format!("/boathook-tests/{id}"),
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}

fn mounts() -> Value {
    let mount = |point: &str, kind: &str, options: &[&str]| {
        let source =
            if kind == "tmpfs" && point != "/dev" { point.rsplit('/').next() } else { None };
        let source = if point == "/run" { "tmpfs" } else { source.unwrap_or(kind) };
        json!({ "destination": point, "type": kind, "source": source, "options": options })
    };
    json!([
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/run", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ])
}

/// All devices denied but the usual ones.
fn devices() -> Value {
    let allow = |kind: &str, major: Option<i64>, minor: Option<i64>| {
        let mut rule = json!({ "allow": true, "type": kind, "access": "rwm" });
        for (name, number) in [("major", major), ("minor", minor)] {
            if let (Some(number), Some(rule)) = (number, rule.as_object_mut()) {
                rule.insert(name.to_owned(), number.into());
            }
        }
        rule
    };
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    // null, random, full, tty, zero, urandom, console (devices.txt of the kernel).
    for (major, minor) in [(1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 1)] {
        rules.push(allow("c", Some(major), Some(minor)));
    }
    // Pseudo-terminals and their multiplexer.
    rules.push(allow("c", Some(136), None));
    rules.push(allow("c", Some(5), Some(2)));
    Value::Array(rules)
}
