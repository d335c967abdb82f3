//! `idmap` and `ridmap`: which mappings the ids of a mount go through.

use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount, Spec};

use boathook_fs::flags::MountOptions;

use super::program::{MappedBy, MountIds};
use super::text;
use crate::idmap::IdMappings;
use crate::{Error, Result};

/// How the ids of `mounts[n]` (`field`) are mapped, if at all.
///
/// Mappings without one of the options ask for `idmap`, as other runtimes read
/// them; an option without mappings asks for the container's own
/// (config.md, "Linux mount options").
pub(super) fn of(
    field: &str,
    mount: &Mount,
    options: &MountOptions,
    spec: &Spec,
) -> Result<Option<MountIds>> {
    let (users, groups) = (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
    let own = IdMappings::new(field, users, groups)?;
    let recursive = options.idmap.is_some_and(|idmap| idmap.recursive);
    if let Some(mappings) = own {
        let field = format!("{field}.uidMappings");
        return Ok(Some(MountIds { field, by: MappedBy::Mappings(mappings), recursive }));
    }
    if options.idmap.is_none() {
        return Ok(None);
    }
    let name = if recursive { "ridmap" } else { "idmap" };
    let field = format!("{field}.options: {name:?}");
    match of_container(spec.linux().as_ref())? {
        Some(by) => Ok(Some(MountIds { field, by, recursive })),
        None => {
            let problem = "needs uidMappings and gidMappings, or a user namespace of the container";
            Err(Error::field(field, problem))
        }
    }
}

/// The mappings of the container's own user namespace.
fn of_container(linux: Option<&Linux>) -> Result<Option<MappedBy>> {
    let Some(linux) = linux else { return Ok(None) };
    let mut spaces = linux.namespaces().iter().flatten();
    let user = spaces.find(|space| space.typ() == LinuxNamespaceType::User);
    if let Some(path) = user.and_then(|space| space.path().as_ref())
        && !path.as_os_str().is_empty()
    {
        text::absolute("linux.namespaces", path)?;
        return Ok(Some(MappedBy::Namespace(path.clone())));
    }
    let (users, groups) = (linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref());
    let mappings = user.map(|_| IdMappings::new("linux", users, groups)).transpose()?.flatten();
    Ok(mappings.map(MappedBy::Mappings))
}
