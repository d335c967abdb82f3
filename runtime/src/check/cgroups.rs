//! Control groups: one is made, looked into, and removed.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, accessat};

use super::Area;
use crate::cgroup::{Cgroup, CgroupPlan, Driver, Hierarchies, Join, Mode};
use crate::{Engine, Result};

/// A cgroup that nothing but one short process was in goes at once.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn look(engine: &Engine, area: &mut Area<'_>) {
    let hierarchies = area.needs("hierarchies", engine.hierarchies(), "mounted");
    if let Some(hierarchies) = hierarchies {
        shape(hierarchies, area);
        match Trial::make(hierarchies) {
            Ok(trial) => trial.look(engine, area),
            Err(error) => {
                area.needs("making cgroups", Err::<(), _>(error), "");
            }
        }
    }
    drivers(area);
}

fn shape(hierarchies: &Hierarchies, area: &mut Area<'_>) {
    area.is(
        "mode",
        match hierarchies.mode() {
            Mode::V1 => "v1",
            Mode::Hybrid => "hybrid: v1 hierarchies have the controllers, v2 the processes",
            Mode::V2 => "v2",
        },
    );
    let layout = hierarchies.layout();
    for (v2, name) in [(false, "controllers of v1"), (true, "controllers of v2")] {
        let mounts = layout.mounts.iter().filter(|mount| mount.is_v2() == v2);
        let names = mounts.flat_map(|mount| mount.controllers.iter());
        let names: Vec<_> = names.map(|c| if v2 { c.v2_name() } else { c.name() }).collect();
        if !names.is_empty() {
            area.is(name, names.join(" "));
        }
    }
}

fn drivers(area: &mut Area<'_>) {
    area.is("cgroupfs driver", "the default");
    area.offers(
        "systemd driver",
        false,
        "",
        match systemd_answers() {
            true => "systemd runs here, but the driver is not in this version",
            false => "systemd does not manage this host",
        },
    );
}

/// Whether systemd is the host's manager (sd_booted(3)) and its bus can be reached.
fn systemd_answers() -> bool {
    Path::new("/run/systemd/system").is_dir()
        && UnixStream::connect("/run/dbus/system_bus_socket").is_ok()
}

/// A cgroup to look into.
struct Trial(Cgroup);

impl Trial {
    /// Made as those of containers are, device rules included.
    fn make(hierarchies: &Hierarchies) -> Result<Self> {
        let path = format!("/boathook-check-{}", std::process::id());
        let layout = hierarchies.layout();
        let plan = CgroupPlan::new(Some(&path), "check", Driver::Cgroupfs, None, layout)?;
        Cgroup::create(hierarchies, &plan).map(Self)
    }

    fn look(self, engine: &Engine, area: &mut Area<'_>) {
        let join = self.0.join_files();
        area.needs("making cgroups", join.as_ref(), "with the rules for devices");
        if let Ok(join) = join {
            let (child, use_, instead) = match &join {
                Join::V1(_) => (None, "", "v1 has none: the first process joins by itself"),
                Join::V2(fd) | Join::Hybrid { unified: fd, .. } => {
                    (Some(fd), "processes are born in their cgroup", "")
                }
            };
            match child {
                None => area.prefers("clone into a cgroup", false, use_, instead),
                Some(fd) => {
                    let born = super::namespaces::born(engine, 0, Some(fd.as_fd()));
                    area.needs("clone into a cgroup", born, use_);
                }
            }
        }
        self.files(area);
        if let Err(error) = self.0.delete(Instant::now() + LIMIT) {
            area.needs("removing cgroups", Err::<(), _>(error), "");
        }
    }

    fn files(&self, area: &mut Area<'_>) {
        area.prefers(
            "cgroup.kill",
            self.has("cgroup.kill"),
            "all processes of a container end at once",
            "a container is frozen, and each process is killed",
        );
        area.offers(
            "freezer",
            self.has("cgroup.freeze") || self.has("freezer.state"),
            "pause and resume",
            "containers cannot be paused",
        );
        area.offers(
            "pressure (PSI)",
            self.has("memory.pressure"),
            "in the statistics of containers",
            "statistics are without it",
        );
        area.offers(
            "memory.oom.group",
            self.has("memory.oom.group"),
            "a container out of memory can end as a whole",
            "of a container out of memory one process ends",
        );
    }

    fn has(&self, file: &str) -> bool {
        self.0.directories().any(|dir| {
            let path = format!("{}/{file}", dir.path);
            accessat(dir.root, path.as_str(), Access::EXISTS, AtFlags::empty()).is_ok()
        })
    }
}
