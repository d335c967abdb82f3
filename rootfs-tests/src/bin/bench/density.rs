//! Starts on a crowded node: many containers beside, many mounts on the host.

use std::fs;

use rootfs_tests::Result;
use rootfs_tests::error::Context;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use crate::pod::Pod;
use crate::report::{Figure, Row};
use crate::rig::{Rig, Served, Which};
use crate::rounds::Spacing;
use crate::stats::{Bar, Samples};
use crate::tasks::{end_sleeper, one_task, sleeper};

/// Containers of one pod, so that a node of 500 has 50 shims.
const POD: usize = 10;
/// Other containers at each step.
const STEPS: [usize; 2] = [200, 500];
const MOUNTS: usize = 1000;

pub(crate) fn run(rig: &Rig) -> Result<Vec<Row>> {
    let (mut served, container) = sleeper(rig, Which::Ours)?;
    let alone = starts(rig, &mut served)?;
    let mut rows = Vec::new();
    let mut row = |name: String, bar, figures: &Samples| {
        rows.push(Row {
            name,
            beside: "boathook on the empty host",
            spacing: Spacing::Apart.text(),
            unit: "ms",
            theirs: Figure::from(&alone),
            ours: Figure::from(figures),
            bar,
        });
    };
    let what = "Create+Start+Wait+Delete";
    let mut pods: Vec<Pod> = Vec::new();
    for count in STEPS {
        while pods.len() * POD < count {
            pods.push(Pod::start(rig, Which::Ours, POD)?);
        }
        let bar = if count == 500 { Bar::Share(1.3) } else { Bar::None };
        row(format!("{what} beside {count} containers"), bar, &starts(rig, &mut served)?);
    }
    let mounts = Mounts::make(rig)?;
    row(
        format!("{what} beside 500 containers and {MOUNTS} mounts"),
        Bar::None,
        &starts(rig, &mut served)?,
    );
    drop(mounts);
    for pod in pods {
        pod.end()?;
    }
    end_sleeper((served, container))?;
    Ok(rows)
}

fn starts(rig: &Rig, served: &mut Served) -> Result<Samples> {
    let mut samples = Samples::default();
    for round in 0..rig.rounds + Spacing::WARM_UP {
        Spacing::Apart.pause();
        let container = rig.container(Which::Ours, &["/bin/true"])?;
        let laps = one_task(served, &container)?;
        container.remove()?;
        if round >= Spacing::WARM_UP {
            samples.push(laps.iter().map(|(_, time)| *time).sum());
        }
    }
    Ok(samples)
}

/// Mounts below one directory of the bench; gone when dropped.
struct Mounts {
    top: std::path::PathBuf,
}

impl Mounts {
    fn make(rig: &Rig) -> Result<Self> {
        let top = rig.dir().join("mounts");
        fs::create_dir(&top).during(|| "mkdir mounts")?;
        let made = Self { top };
        let what = || format!("mount below {}", made.top.display());
        mount("tmpfs", &made.top, "tmpfs", MountFlags::empty(), None).during(what)?;
        mount_change(&made.top, MountPropagationFlags::PRIVATE).during(what)?;
        for number in 0..MOUNTS {
            let dir = made.top.join(number.to_string());
            fs::create_dir(&dir).during(what)?;
            mount_bind(&dir, &dir).during(what)?;
        }
        Ok(made)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = unmount(&self.top, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.top);
    }
}
