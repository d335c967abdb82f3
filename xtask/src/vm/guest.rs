//! One boot: the machine, what it says, and how it ended.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::libtest::Report;
use crate::process::{self, Ended};
use crate::vm::accel::Accel;
use crate::vm::console::Tail;
use crate::vm::image::Image;
use crate::vm::job::Payload;
use crate::vm::suite::CgroupMode;

/// MiB of memory; the kernel takes what it touches.
const MEMORY: &str = "3072";

/// Six times what it takes to boot under emulation on an idle machine of two processors.
const BOOT: Duration = Duration::from_secs(10 * 60);
/// What the guest prints when it begins to work.
const UP: &str = "boathook-vm: up";

pub(crate) struct Guest<'i> {
    pub(crate) image: &'i Image,
    pub(crate) accel: Accel,
    pub(crate) cgroup: CgroupMode,
    pub(crate) limit: Duration,
    pub(crate) append: &'i str,
}

impl Guest<'_> {
    /// Boots, shows what the work prints, and fails as the work does.
    pub(crate) fn run(&self, payload: &Payload) -> Result<(), Error> {
        let mut command = self.machine(payload);
        // Not `stdio`: that reads, too, and at the end of our input tells the guest that nobody
        // is there any more.
        command.args(["-chardev", "file,id=out,path=/dev/stdout", "-serial"]);
        command.arg(format!("file:{}", payload.file("console").display()));
        let mut report = Report::default();
        let start = Instant::now();
        let mut up = None;
        let ended = process::watch_stages(&mut command, BOOT.min(self.limit), |line| {
            let line = line.trim_end_matches('\r');
            if line == UP {
                up = Some(start.elapsed());
                println!("vm: up after {} s", start.elapsed().as_secs());
                return Some(self.limit.saturating_sub(start.elapsed()));
            }
            if report.read(line) {
                println!("{line}");
            }
            None
        })?;
        let console = || Tail::of(&payload.file("console"));
        if let Ended::Overdue = ended {
            let what = if up.is_some() { "the work was not done" } else { "the guest was not up" };
            return Err(Error::failed(format!(
                "{what} after {} s, so the guest was ended; its console said last:\n{}",
                start.elapsed().as_secs(),
                console()
            )));
        }
        let counts = &report.counts;
        if counts.finished > 0 {
            println!(
                "\n== vm: {} tests passed, {} failed, {} s of which {} to boot",
                counts.passed,
                counts.failed,
                start.elapsed().as_secs(),
                up.unwrap_or_default().as_secs()
            );
            report
                .left_out
                .iter()
                .chain(&counts.ignored)
                .for_each(|it| println!("  left out  {it}"));
        }
        match status(payload) {
            // A program may end early with 0: its tests have not run then.
            Some(0) if counts.finished < payload.parts => Err(Error::failed(format!(
                "only {} of {} runs of test programs told a result",
                counts.finished, payload.parts
            ))),
            Some(0) if payload.parts > 0 && counts.passed == 0 => {
                Err(Error::failed("no test has such a name"))
            }
            Some(0) => Ok(()),
            Some(1) if counts.failed > 0 => {
                Err(Error::failed(format!("vm tier: failed: {}", counts.failures.join(", "))))
            }
            // A command's own, as a shell has it.
            Some(code) if payload.parts == 0 => Err(Error::Ended(u8::try_from(code).unwrap_or(1))),
            Some(code) => Err(Error::failed(format!("the guest's work ended with {code}"))),
            None => Err(Error::failed(format!(
                "the guest ended without an answer; its console said last:\n{}",
                console()
            ))),
        }
    }

    /// Boots with the caller's terminal as the guest's console.
    pub(crate) fn shell(&self, payload: &Payload) -> Result<(), Error> {
        let mut command = self.machine(payload);
        command.args(["-chardev", "null,id=out", "-serial", "mon:stdio"]);
        command.stdin(Stdio::inherit());
        process::run(&mut command)
    }

    /// The machine as far as every guest is alike. It ends with its owner.
    fn machine(&self, payload: &Payload) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "q35"])
            .args(self.accel.arguments())
            .args(["-smp", "2", "-m", MEMORY, "-nodefaults", "-no-reboot", "-display", "none"])
            .arg("-kernel")
            .arg(self.image.kernel())
            .arg("-initrd")
            .arg(self.image.initrd())
            .arg("-append")
            .arg(format!(
                "console=ttyS0 root=/dev/vda rw panic=-1 loglevel=4 systemd.show_status=false \
                 mitigations=off audit=0 {} {}",
                self.cgroup.kernel_arguments(),
                self.append
            ));
        for disk in [self.image.disk(), payload.disk()] {
            // What the guest writes is in an unlinked file, and gone with the machine.
            command.arg("-drive");
            command.arg(format!("file={},format=raw,if=virtio,snapshot=on", disk.display()));
        }
        command
            .args([
                "-device",
                "virtio-rng",
                "-device",
                "virtio-serial",
                "-device",
                "virtserialport,chardev=out,name=out",
            ])
            .arg("-chardev")
            .arg(format!("file,id=status,path={}", payload.file("status").display()))
            .args(["-device", "virtserialport,chardev=status,name=status"]);
        command
    }
}

/// What the guest wrote last, if it came so far.
fn status(payload: &Payload) -> Option<i32> {
    fs::read_to_string(payload.file("status")).ok()?.trim().parse().ok()
}
