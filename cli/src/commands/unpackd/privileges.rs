//! What a differ needs no privilege for, it has none for.

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::output::Failure;

/// Files of any owner and kind, with any attribute: `trusted.overlay.*` needs SYS_ADMIN
/// (xattr(7)), `security.capability` SETFCAP.
const NEEDED: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_ADMIN);

/// Gives up all other capabilities of this thread, and of those that it starts, for good.
pub(super) fn drop_all_but_files() -> Result<(), Failure> {
    drop_all().map_err(|e| Failure::Io("drop privileges".to_owned(), e.into()))
}

fn drop_all() -> io::Result<()> {
    let now = capabilities(None)?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter().filter(|one| !NEEDED.contains(*one)) {
            match remove_capability_from_bounding_set(capability) {
                // The kernel is older than the capability.
                Err(io::Errno::INVAL) => {}
                other => other?,
            }
        }
    }
    let kept = now.permitted & NEEDED;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })?;
    set_no_new_privs(true)
}
