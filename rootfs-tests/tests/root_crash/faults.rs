//! A machine without room: a full disk, no descriptors, cgroups that cannot be written. Each is
//! told with what was wanted and why, nothing is left, and the next create works.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rootfs_tests::census::{Census, descriptors, settled_descriptors};
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::shimrpc::Launch;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::rig::{Rig, SLEEP, again, create_below, finish, id, run_delete};
use crate::stage::Alone;

pub(crate) const ALONE: &[Alone] = &[
    ("a_full_disk", a_full_disk),
    ("no_descriptors", no_descriptors),
    ("cgroups_that_cannot_be_written", cgroups_that_cannot_be_written),
];

/// A small file system for records, unmounted when the value goes.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn new(at: &'a Path, options: &str) -> Result<Self> {
        fs::create_dir_all(at).during(|| "make a mount point")?;
        let text = std::ffi::CString::new(options).unwrap_or_default();
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(text.as_c_str()))
            .during(|| format!("mount a tmpfs with {options}"))?;
        Ok(Self(at))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

/// Red if a create that cannot be recorded leaves something without a record, at whichever of its
/// files and directories the room ends, or does not say which.
fn a_full_disk(rig: &Rig) -> Result<()> {
    let bundle = rig.bundle("full", &SLEEP)?;
    let before = Census::take()?;
    let shim = rig.shim(&bundle)?;
    let mut task = shim.connect()?;
    let place = rig.dir().join("disk");
    let root = place.join("state");
    let mut refused = 0;
    // The root directory of a tmpfs is its first inode; no page at all is the last of the cases.
    let small = (2..=6).map(|inodes| format!("nr_inodes={inodes}"));
    let full = "size=4k,nr_inodes=100".to_owned();
    for options in small.chain([full]) {
        let disk = Disk::new(&place, &options)?;
        if options.starts_with("size") {
            fs::write(place.join("filler"), [0; 4096]).during(|| "fill the disk")?;
        }
        match create_below(&mut task, &bundle, &root) {
            Ok(_) => {
                task.start(id(&bundle), "")?;
                finish(&mut task, &bundle)?;
            }
            Err(error) => {
                refused += 1;
                told(&error, "ResourceExhausted", &["disk/state", "No space left on device"])?;
            }
        }
        // Where the state directory itself had no room there is none.
        let left = fs::read_dir(&root).map_or(0, Iterator::count);
        ensure_eq!(left, 0, "entries of the state directory with {options}");
        drop(disk);
    }
    ensure!(refused >= 4, "only {refused} creates were refused");
    fs::remove_dir_all(&place).during(|| "remove the mount point")?;
    task.create(id(&bundle), &bundle.dir)?;
    task.start(id(&bundle), "")?;
    finish(&mut task, &bundle)?;
    shim.end()?;
    again(rig, &bundle, &before)
}

/// The refusal has this code and names these.
fn told(error: &Error, code: &str, parts: &[&str]) -> Result<()> {
    ensure_eq!(error.code(), Some(code), "code of: {error}");
    let text = error.to_string();
    for part in parts {
        ensure!(text.contains(part), "no {part:?} in: {text}");
    }
    Ok(())
}

/// Red if one of the places where a shim's create can run out of descriptors has no undo.
fn no_descriptors(rig: &Rig) -> Result<()> {
    let bundle = rig.bundle("descriptors", &SLEEP)?;
    let before = Census::take()?;
    let shim = rig.shim(&bundle)?;
    let mut task = shim.connect()?;
    let id = id(&bundle);
    let server = task.connect(id)?.shim_pid;
    let pid = i32::try_from(server).ok().and_then(Pid::from_raw);
    // What is opened once stays open.
    task.create(id, &bundle.dir)?;
    task.delete(id, "")?;
    let count = || Ok(descriptors(server)?.values().sum::<usize>());
    settled_descriptors(server)?;
    let used: usize = count()?;
    let machine = Census::take()?;
    let mut refused = 0;
    for spare in (0..48).step_by(3) {
        let current = Some(u64::try_from(used + spare).unwrap_or(0));
        let old = prlimit(pid, Resource::Nofile, Rlimit { current, maximum: Some(4096) })
            .during(|| "take the server's descriptors")?;
        let created = task.create(id, &bundle.dir);
        let maximum = Some(4096);
        prlimit(pid, Resource::Nofile, Rlimit { current: maximum, maximum })
            .during(|| format!("give back what it had: {old:?}"))?;
        match created {
            Ok(_) => task.delete(id, "").map(drop)?,
            Err(error) => {
                refused += 1;
                ensure_eq!(error.code(), Some("ResourceExhausted"), "{spare} to spare: {error}");
                let text = error.to_string();
                // What was opened, and why it could not be.
                let opened = text.split_once(": Too many open files").map(|(opened, _)| opened);
                let opened = opened.and_then(|text| text.split_once("ResourceExhausted: "));
                ensure!(opened.is_some_and(|(_, it)| !it.is_empty()), "{spare} to spare: {text}");
            }
        }
        machine.assert_same()?;
        wait::until(
            "the descriptors that were",
            PATIENCE,
            || Ok((count()? <= used).then_some(())),
        )?;
    }
    ensure!(refused >= 5, "only {refused} creates were refused");
    shim.end()?;
    again(rig, &bundle, &before)
}

/// Red if a create goes on without limits, or what it had made in the hierarchies before the one
/// that refuses stays, or is told as a fault of our own. The server runs in a mount namespace in which the last of the hierarchies
/// that have a file system of their own cannot be written.
fn cgroups_that_cannot_be_written(rig: &Rig) -> Result<()> {
    let bundle = rig.bundle("cgroups", &SLEEP)?;
    let before = Census::take()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").during(|| "read mountinfo")?;
    let points: Vec<&str> = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup ") || line.contains(" - cgroup2 "))
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    for point in [points.first(), points.last()].into_iter().flatten() {
        let mut launch = Launch::boathook(id(&bundle), &bundle.dir, rig.dir())?;
        let real = launch.program.display().to_string();
        launch.program = rig.dir().join("shim-without-cgroups");
        let script = format!(
            "#!/bin/sh\nexec unshare --mount --propagation private \
             sh -c 'mount -o remount,bind,ro {point} && exec {real} \"$@\"' sh \"$@\"\n"
        );
        fs::write(&launch.program, script).during(|| "write a script")?;
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&launch.program, mode).during(|| "make it a program")?;
        let shim = launch.start()?;
        let mut task = shim.connect()?;
        let error = match task.create(id(&bundle), &bundle.dir) {
            Err(error) => error,
            Ok(pid) => return Err(Error::check(format!("{point} is read-only, and {pid} runs"))),
        };
        told(&error, "PermissionDenied", &[point, "Read-only file system"])?;
        run_delete(&shim)?;
        shim.end()?;
        before.assert_same()?;
    }
    again(rig, &bundle, &before)
}
