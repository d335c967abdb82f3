//! `linux.netDevices`: names, checked as the kernel would check them late.

use std::ffi::{CStr, CString};

use boathook_init::{List, Step};
use oci_spec::runtime::Linux;

use super::namespaces::Namespaces;
use super::program::Builder;
use super::text;
use crate::{Error, Result};

/// `IFNAMSIZ` without the NUL.
const NAME_MAX: usize = 15;

/// Adds the step that has the devices moved, in the order of their names.
pub(super) fn steps(build: &mut Builder, linux: &Linux, namespaces: &Namespaces) -> Result<()> {
    let mut devices: Vec<_> = linux.net_devices().iter().flatten().collect();
    if devices.is_empty() {
        return Ok(());
    }
    if !namespaces.own_net() {
        let problem = "needs a network namespace of the container's own";
        return Err(Error::field("linux.netDevices", problem));
    }
    devices.sort_by_key(|(name, _)| name.as_str());
    let mut names: Vec<CString> = Vec::new();
    let mut inside: Vec<CString> = Vec::new();
    for (name, device) in devices {
        let field = format!("linux.netDevices.{name}");
        names.push(checked(&field, name)?);
        let field = format!("{field}.name");
        let new = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        let new = checked(&field, new)?;
        // A pattern such as eth%d gives each its own.
        if !new.as_bytes().contains(&b'%') && inside.contains(&new) {
            return Err(Error::field(field, format!("{new:?} is the name of two devices")));
        }
        inside.push(new);
    }
    let names: Vec<&CStr> = names.iter().map(CString::as_c_str).collect();
    let inside: Vec<&CStr> = inside.iter().map(CString::as_c_str).collect();
    let (names, inside) = (List::Strings(&names), List::Strings(&inside));
    build.push(&Step::NetDevices { names, inside });
    Ok(())
}

/// The rules of `dev_valid_name` (net/core/dev.c).
fn checked(field: &str, name: &str) -> Result<CString> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if name.is_empty() || name.len() > NAME_MAX || matches!(name, "." | "..") || name.contains(bad)
    {
        return Err(Error::field(field, format!("{name:?} is no name of a network device")));
    }
    text::c_string(field, name)
}
