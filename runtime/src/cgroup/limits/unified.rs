//! `linux.resources.unified`: v2 files by name.

use oci_spec::runtime::LinuxResources;

use super::Write;
use crate::cgroup::Controller;
use crate::error::{Error, ErrorKind, Result};

/// The files of every cgroup that are settings; the others are how the runtime
/// itself moves, stops and kills processes.
const CORE: [&str; 3] = ["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"];

/// Adds a write per entry: the key is the file, the value goes into it as it
/// is. A file that is not there is the executing side's to report.
pub(super) fn writes(
    resources: &LinuxResources,
    on_v2: &dyn Fn(Controller) -> bool,
    out: &mut Vec<Write>,
) -> Result<()> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (key, value) in entries {
        let field = format!("linux.resources.unified.{key}");
        let name = key.split('.').next().unwrap_or_default();
        if name.is_empty() || name.len() == key.len() || key.contains(['/', '\0', '\n']) {
            return Err(Error::field(field, "is not the name of a cgroup file"));
        }
        if name == "cgroup" && !CORE.contains(&key.as_str()) {
            return Err(Error::field(field, "is the runtime's own"));
        }
        let controller = Controller::from_v2_name(name).unwrap_or(Controller::Other);
        if !on_v2(controller) {
            let text = format!(
                "this host has no cgroup v2 with {name} files; use the other fields of linux.resources"
            );
            return Err(Error::field(field, text).with_kind(ErrorKind::Unsupported));
        }
        out.push(Write::new(controller, key.clone(), value, field).keyed());
    }
    Ok(())
}
