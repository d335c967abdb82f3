//! A process that no signal reaches: it waits in the kernel for a file system that has taken its
//! request and does not answer (FUSE; request_wait_answer in fs/fuse/dev.c does not let even SIGKILL
//! through then). The file system is a thread of the test.

use crate::support::Subject;
use rootfs_tests::error::{Context, Error, Result};
use rootfs_tests::suite::Scene;
use rootfs_tests::wait::{self, PATIENCE};
use rootfs_tests::{ensure, ensure_eq};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Operations, and the size of a request's header (linux/fuse.h).
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const HEADER: usize = 40;

/// A file system of one empty directory, in which a look for anything never ends.
pub(crate) struct Tar {
    dir: PathBuf,
    mounted: bool,
    /// A look was taken.
    stuck: Receiver<()>,
}

impl Tar {
    pub(crate) fn mount(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).during(|| "make a mount point")?;
        let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let device = File::from(device.during(|| "open /dev/fuse")?);
        let data =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let data = CString::new(data).map_err(|e| Error::check(e.to_string()))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tar", &dir, "fuse", flags, Some(data.as_c_str()))
            .during(|| "mount a FUSE file system")?;
        let (told, stuck) = channel();
        // Ends with the connection.
        std::thread::spawn(move || serve(device, &told));
        Ok(Self { dir, mounted: true, stuck })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Waits until somebody has looked into it.
    pub(crate) fn stuck(&self, within: Duration) -> Result<()> {
        let stuck = self.stuck.recv_timeout(within);
        stuck.map_err(|_| Error::check("nobody looked into the file system".to_owned()))
    }

    /// Whoever waits gets an error: a forced unmount ends the connection, busy or not.
    pub(crate) fn let_go(&mut self) -> Result<()> {
        let _ = rustix::mount::unmount(&self.dir, UnmountFlags::FORCE);
        let detached = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
        self.mounted = false;
        match detached {
            // The first was enough.
            Err(rustix::io::Errno::INVAL) => Ok(()),
            other => other.during(|| "unmount a FUSE file system"),
        }
    }
}

impl Drop for Tar {
    fn drop(&mut self) {
        if self.mounted {
            let _ = self.let_go();
        }
    }
}

fn serve(mut device: File, told: &Sender<()>) {
    let mut request = vec![0; 64 << 10];
    while let Ok(count) = device.read(&mut request) {
        if count < HEADER {
            continue;
        }
        let word = |at: usize| [0, 1, 2, 3].map(|i| request[at + i]);
        let unique: Vec<u8> = request[8..16].to_vec();
        let (error, body) = match u32::from_ne_bytes(word(4)) {
            INIT => (0, init()),
            GETATTR => (0, attributes()),
            LOOKUP => {
                let _ = told.send(());
                continue;
            }
            FORGET | INTERRUPT => continue,
            // ENOSYS
            _ => (-38_i32, Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).unwrap_or(0);
        let head = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique].concat();
        let _ = device.write(&[head, body].concat());
    }
}

/// `fuse_init_out`: version 7.31, writes of a page, all else zero.
fn init() -> Vec<u8> {
    let words = [7_u32, 31, 0, 0, 0, 4096];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.resize(64, 0);
    bytes
}

/// `fuse_attr_out` of the directory: number 1, mode 0755, two links.
fn attributes() -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes.extend(1_u64.to_ne_bytes());
    bytes.resize(16 + 60, 0);
    bytes.extend([0o40755_u32, 2].iter().flat_map(|word| word.to_ne_bytes()));
    bytes.resize(16 + 88, 0);
    bytes
}

/// SIGKILL is sent on time, the shim goes on answering, and the container ends when the kernel lets
/// its process go. Seen red with SIGTERM in the place of SIGKILL.
pub(crate) fn stuck_in_the_kernel(scene: &mut Scene<'_>) -> Result<()> {
    let subject = Subject::new(scene, &scene.id)?;
    let mut tar = Tar::mount(scene.daemon.dir().join("out").join(format!("{}-tar", scene.id)))?;
    let mount = format!("type=bind,src={},dst=/tar,options=rbind:rw", tar.dir.display());
    let stop = ("stop", r#"{"gracePeriodSeconds":1}"#);
    let script = "echo ready >>/out/log; : </tar/nothing";
    subject.start(scene, &[stop], &["--mount", &mount], script)?;
    let pid = scene.pid(&subject.id)?;
    tar.stuck(PATIENCE)?;
    subject.kill(scene, "SIGTERM")?;
    wait::until("SIGKILL", PATIENCE, || {
        Ok(subject.record(scene)?.names().contains(&"killed".to_owned()).then_some(()))
    })?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).during(|| "read its status")?;
    ensure!(status.contains("State:\tD"), "it is not stuck:\n{status}");
    ensure_eq!(scene.status(&subject.id)?, "RUNNING", "while it is stuck");
    tar.let_go()?;
    let (record, code) = subject.end(scene)?;
    ensure_eq!(code, 137, "exit code");
    let left = record.between("signalled", "killed")?;
    ensure!(left >= 1_990, "{left} ms from the signal to SIGKILL");
    Ok(())
}
