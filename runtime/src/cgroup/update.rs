//! Changing the limits of a living cgroup.

use oci_spec::runtime::LinuxResources;

use super::apply::{apply, apply_or_restore};
use super::controller::Controller;
use super::devices::{self, Table};
use super::group::Cgroup;
use super::layout::Mode;
use super::limits::Purpose;
use super::plan::{check_controllers, resource_writes};
use crate::error::{Error, ErrorKind, Result};

impl Cgroup {
    /// Applies the limits that `resources` names and leaves all others, and the
    /// device rules unless it has some, as they are.
    ///
    /// If the kernel refuses one, the limits changed before it are put back
    /// (where the file holds a single value).
    ///
    /// # Errors
    /// As [`CgroupPlan::new`](super::CgroupPlan::new) for wrong values;
    /// `WrongState` when usage is above a new memory limit; `NotFound` when the
    /// cgroup is gone.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let layout = self.hierarchies.layout();
        let writes = resource_writes(Some(resources), layout, Purpose::Update)?;
        check_controllers(&writes, layout)?;
        let has_rules = resources.devices().as_ref().is_some_and(|rules| !rules.is_empty());
        // Checked before anything is written.
        let table = match has_rules {
            true => Some(self.device_table(resources)?),
            false => None,
        };
        self.check_usage(resources)?;
        apply_or_restore(self, &writes)?;
        match table {
            Some(table) => self.update_devices(&table),
            None => Ok(()),
        }
    }

    fn device_table(&self, resources: &LinuxResources) -> Result<Table> {
        if self.mode() == Mode::V2 {
            let text = "device rules on cgroup v2 are not available in this version";
            return Err(
                Error::field("linux.resources.devices", text).with_kind(ErrorKind::Unsupported)
            );
        }
        Table::new(&devices::parse(Some(resources))?)
    }

    fn update_devices(&self, table: &Table) -> Result<()> {
        let Some(at) = self.member(Controller::Devices) else {
            return Err(super::v1::no_hierarchy(Controller::Devices, "changing device rules"));
        };
        let name = "devices.list";
        let list = at.read(name).map_err(|errno| at.error("reading", name, errno))?;
        let writes = match Table::read(&list) {
            Some(current) => table.writes_from(&current),
            None => table.writes(),
        };
        apply(self, &writes)
    }

    /// `checkBeforeUpdate`: v2 would kill to get below a lower limit; v1 refuses by itself.
    fn check_usage(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        let limit = memory.limit().and_then(|limit| u64::try_from(limit).ok()).filter(|l| *l > 0);
        let (Some(limit), true, Mode::V2) =
            (limit, memory.check_before_update().unwrap_or(false), self.mode())
        else {
            return Ok(());
        };
        let Some(at) = self.v2() else { return Ok(()) };
        let name = "memory.current";
        let text = at.read(name).map_err(|errno| at.error("reading", name, errno))?;
        match text.trim_end().parse::<u64>() {
            Ok(usage) if usage > limit => Err(Error::field(
                "linux.resources.memory.limit",
                format!("{limit} is below the {usage} bytes in use"),
            )
            .with_kind(ErrorKind::WrongState)),
            _ => Ok(()),
        }
    }
}
