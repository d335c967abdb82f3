//! Fields that this version does not honour are refused by name: nothing of a
//! config is ignored in silence.

use oci_spec::runtime::Spec;

use crate::{Error, ErrorKind, Result};

fn refuse(field: &str, present: bool) -> Result<()> {
    if !present {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("{field}: not supported by this version")))
}

/// Refuses what [`super::Plan::create`] cannot honour.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let version = spec.version();
    if !version.starts_with("1.") {
        return Err(Error::field("ociVersion", format!("{version:?} is not a version 1.x")));
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    refuse("linux.intelRdt", linux.intel_rdt().is_some())
}
