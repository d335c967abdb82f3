//! What a container's cgroup will be: checked, ordered, nothing done yet.

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::devices::{self, DeviceProgram, DeviceRule, Enforcement, Table};
use super::layout::{Layout, Mode};
use super::limits::{self, Purpose, Write};
use super::path::Location;
use crate::error::{Error, ErrorKind, Result};

/// Who makes the cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We do, in the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd does, as a scope. Not there yet.
    Systemd,
}

/// The cgroup of one container, before it is made. Pure: the same input on the
/// same layout gives the same plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPlan {
    driver: Driver,
    location: Location,
    writes: Vec<Write>,
    device_rules: Vec<DeviceRule>,
    device_program: Option<DeviceProgram>,
    owner: Option<u32>,
}

impl CgroupPlan {
    /// Plans the cgroup of container `id`.
    ///
    /// `cgroups_path` (`linux.cgroupsPath`) starting with `/` is below the mount
    /// point of each hierarchy; a relative one is below this process's own
    /// cgroup, as with runc's cgroupfs driver; absent or empty is `/<id>`.
    ///
    /// # Errors
    /// `InvalidInput` naming the field for a value that is wrong in itself,
    /// `Unsupported` naming the field for one that this host cannot honour:
    /// its controller is missing, or it exists only on the other cgroup version.
    pub fn new(
        cgroups_path: Option<&str>,
        id: &str,
        driver: Driver,
        resources: Option<&LinuxResources>,
        layout: &Layout,
    ) -> Result<Self> {
        if driver == Driver::Systemd {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the systemd cgroup driver is not available in this version; use the cgroupfs driver",
            ));
        }
        let location = Location::new(cgroups_path, id)?;
        let device_rules = devices::parse(resources)?;
        let mut writes = match resources {
            Some(resources) => limits::writes(resources, layout, Purpose::Create)?,
            None => Vec::new(),
        };
        let Enforcement { table, program } = Enforcement::choose(&device_rules, layout, None)?;
        writes.extend(table.iter().flat_map(Table::writes));
        check_controllers(&writes, layout)?;
        Ok(Self { driver, location, writes, device_rules, device_program: program, owner: None })
    }

    /// Has the v2 directory handed over to this user of the host: the container makes cgroups
    /// below it by itself.
    #[must_use]
    pub fn owned_by(mut self, uid: u32) -> Self {
        self.owner = Some(uid);
        self
    }

    /// Who gets the v2 directory; nobody gets v1's.
    pub fn owner(&self) -> Option<u32> {
        self.owner
    }

    /// Where the cgroup goes.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Who makes it.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// What will be written, in order, before any task is in the cgroup.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The device rules, the last match decides. On v1 they are also among the
    /// [`writes`](Self::writes), on v2 they are the [`device_program`](Self::device_program).
    pub fn device_rules(&self) -> &[DeviceRule] {
        &self.device_rules
    }

    /// The program that enforces the device rules on v2, attached before any
    /// task is in the cgroup. `None` where v1 does it, and when every access is
    /// allowed.
    pub fn device_program(&self) -> Option<&DeviceProgram> {
        self.device_program.as_ref()
    }
}

/// Every write needs its controller. Those that change nothing are left to the
/// executing side, which skips them where there is no file.
pub(super) fn check_controllers(writes: &[Write], layout: &Layout) -> Result<()> {
    let missing = writes.iter().find(|w| layout.index_of(w.controller).is_none());
    let Some(write) = missing else { return Ok(()) };
    let controller = write.controller;
    let text = match layout.mode {
        Mode::V1 => {
            format!("the cgroup v1 hierarchies of this host lack the {controller} controller")
        }
        Mode::Hybrid => format!(
            "this host has the {controller} controller in no cgroup v1 hierarchy, and its v2 root \
             does not hand it on"
        ),
        Mode::V2 => {
            let name = controller.v2_name();
            format!("the cgroup v2 hierarchy of this host lacks the {name} controller")
        }
    };
    Err(Error::field(&write.field, text).with_kind(ErrorKind::Unsupported))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
";

    fn plan(json: &str, mounts: &str) -> Result<CgroupPlan> {
        let resources = serde_json::from_str(json).unwrap();
        let layout = Layout::parse(mounts).unwrap();
        CgroupPlan::new(Some("/a"), "id", Driver::Cgroupfs, Some(&resources), &layout)
    }

    #[test]
    fn a_missing_controller_is_named_with_the_field() {
        let error = plan(r#"{"pids":{"limit":5}}"#, V1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(
            text.starts_with("linux.resources.pids.limit: ") && text.contains("pids controller")
        );
    }

    #[test]
    fn no_devices_controller_is_an_error_even_without_rules() {
        let mounts = V1.lines().take(2).collect::<Vec<_>>().join("\n");
        let error = plan("{}", &mounts).unwrap_err();
        assert!(error.to_string().starts_with("linux.resources.devices: "), "{error}");
    }

    #[test]
    fn limits_come_before_devices_and_only_what_was_asked() {
        let plan = plan(r#"{"memory":{"limit":1048576},"cpu":{"shares":512}}"#, V1).unwrap();
        let files: Vec<_> = plan.writes().iter().map(|w| w.file.as_ref()).take(3).collect();
        assert_eq!(files, ["cpu.shares", "memory.limit_in_bytes", "devices.deny"]);
        assert_eq!(plan.location().path, "a");
    }

    #[test]
    fn the_systemd_driver_says_so() {
        let layout = Layout::parse(V1).unwrap();
        let error = CgroupPlan::new(None, "id", Driver::Systemd, None, &layout).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("systemd"));
    }
}
