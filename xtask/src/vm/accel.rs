//! What runs the guest's instructions. That `/dev/kvm` is there says little: a
//! guest may hang under it, so one is booted.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::Error;
use crate::process;
use crate::vm::image::{self, Image};

/// A kernel without a disk reaches its panic in a second or two under KVM.
const PROBE: Duration = Duration::from_secs(20);
/// What a kernel says that has found no root file system: it ran.
const ALIVE: &str = "Unable to mount root fs";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    /// Software emulation: ten times as slow, and always there.
    Emulation,
}

impl Accel {
    /// For `-accel` and `-cpu`.
    pub(crate) fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Emulation => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Emulation => "software emulation",
        })
    }
}

/// KVM where the image's kernel really boots under it, within a time limit.
pub(crate) fn choose(image: &Image) -> Result<Accel, Error> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accel::Emulation);
    }
    let log = image::home()?.join(format!("probe-{}.log", std::process::id()));
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "q35"])
        .args(Accel::Kvm.arguments())
        .args(["-m", "256", "-nodefaults", "-no-reboot", "-display", "none", "-kernel"])
        .arg(image.kernel())
        .args(["-append", "console=ttyS0 panic=-1", "-serial"])
        .arg(format!("file:{}", log.display()));
    let ended = process::watch(&mut command, PROBE, |_| ());
    let said = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let _ = fs::remove_file(&log);
    ended?;
    let alive = said.is_ok_and(|said| said.contains(ALIVE));
    if !alive {
        println!("vm: no guest boots under /dev/kvm here, so software emulation is used");
    }
    Ok(if alive { Accel::Kvm } else { Accel::Emulation })
}
