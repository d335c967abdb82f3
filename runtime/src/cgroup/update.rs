//! Changing the limits of a living cgroup.

use oci_spec::runtime::LinuxResources;

use super::apply::{apply, apply_or_restore};
use super::controller::Controller;
use super::devices::{self, Enforcement, Loaded, Table};
use super::group::Cgroup;
use super::limits::{self, Purpose, Write};
use super::plan::check_controllers;
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
        let writes = limits::writes(resources, layout, Purpose::Update)?;
        check_controllers(&writes, layout)?;
        let has_rules = resources.devices().as_ref().is_some_and(|rules| !rules.is_empty());
        // Checked, by the kernel too, before anything is written.
        let devices = match has_rules {
            true => Some(self.new_rules(resources)?),
            false => None,
        };
        self.check_usage(resources)?;
        apply_or_restore(self, &writes)?;
        match devices {
            Some(rules) => self.update_devices(&rules),
            None => Ok(()),
        }
    }

    fn new_rules(&self, resources: &LinuxResources) -> Result<NewRules> {
        let rules = devices::parse(Some(resources))?;
        let name = "devices.list";
        let now = match self.member(Controller::Devices) {
            Some(at) => {
                Table::read(&at.read(name).map_err(|errno| at.error("reading", name, errno))?)
            }
            None => None,
        };
        let Enforcement { table, program } =
            Enforcement::choose(&rules, self.hierarchies.layout(), now.as_ref())?;
        let writes = match (table, now) {
            (Some(table), Some(now)) => table.writes_from(&now),
            (Some(table), None) => table.writes(),
            (None, _) => Vec::new(),
        };
        Ok(NewRules { writes, program: program.as_ref().map(Loaded::new).transpose()? })
    }

    /// The program comes before a table that leaves the decision to it, and
    /// goes after a table that decides itself.
    fn update_devices(&self, rules: &NewRules) -> Result<()> {
        let install = || match self.v2() {
            Some(at) => devices::install(at, rules.program.as_ref(), false),
            None => Ok(()),
        };
        if rules.program.is_some() {
            install()?;
            return apply(self, &rules.writes);
        }
        apply(self, &rules.writes)?;
        install()
    }

    /// `checkBeforeUpdate`: v2 would kill to get below a lower limit; v1 refuses by itself.
    fn check_usage(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory() else { return Ok(()) };
        let limit = memory.limit().and_then(|limit| u64::try_from(limit).ok()).filter(|l| *l > 0);
        let asked = memory.check_before_update().unwrap_or(false);
        let on_v2 = self.hierarchies.layout().on_v2(Controller::Memory);
        let (Some(limit), true, true) = (limit, asked, on_v2) else { return Ok(()) };
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

/// Device rules that only need to be put into force.
struct NewRules {
    /// Lines for the v1 table.
    writes: Vec<Write>,
    program: Option<Loaded>,
}
