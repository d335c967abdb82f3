//! What only v2 needs between mkdir and the limits: controllers switched on
//! along the path, and the device program.

use nix::errno::Errno;

use super::controller::Controllers;
use super::file;
use super::group::{At, Cgroup};
use super::plan::CgroupPlan;
use crate::error::{Error, ErrorKind, Result};

pub(super) fn prepare(group: &Cgroup, plan: &CgroupPlan) -> Result<()> {
    let Some(at) = group.v2() else { return Ok(()) };
    let available = match group.hierarchies.layout().v2_index() {
        Some(index) => group.hierarchies.mount(index).controllers,
        None => Controllers::default(),
    };
    enable(at, available)?;
    devices(plan)
}

/// Makes every controller of the mount available in the leaf. The leaf's own
/// list tells at once whether the parents pass them on already.
fn enable(at: At<'_>, wanted: Controllers) -> Result<()> {
    let name = "cgroup.controllers";
    let have = at.read(name).map_err(|errno| at.error("reading", name, errno))?;
    if Controllers::parse_v2(&have).contains_all(wanted) {
        return Ok(());
    }
    let ancestors =
        std::iter::once("").chain(at.path.match_indices('/').map(|(i, _)| &at.path[..i]));
    for ancestor in ancestors {
        let file = match ancestor {
            "" => "cgroup.subtree_control".to_owned(),
            _ => format!("{ancestor}/cgroup.subtree_control"),
        };
        for controller in wanted.iter() {
            let value = format!("+{}", controller.v2_name());
            match file::write(at.root, &file, &value) {
                // ENOENT: not available here, as an ancestor's owner decided; EBUSY: that
                // cgroup has processes of its own; EOPNOTSUPP: it is threaded. A limit that
                // needs the controller will say so by the name of its field.
                Ok(()) | Err(Errno::ENOENT | Errno::EBUSY | Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(Error::sys(format!("writing {value} to {file}"), errno)),
            }
        }
    }
    Ok(())
}

/// Device rules are a BPF program on v2. Until it is there, a container that
/// must not open every device is refused rather than let loose.
fn devices(plan: &CgroupPlan) -> Result<()> {
    let all = plan.device_rules().iter().rev().find(|rule| rule.devices.is_none());
    if all.is_some_and(|rule| rule.allow) {
        return Ok(());
    }
    let text = "device rules on cgroup v2 are not available in this version";
    Err(Error::field("linux.resources.devices", text).with_kind(ErrorKind::Unsupported))
}
