//! Labels of security modules that take effect at the exec.

use boathook_init::{Slot, Step};
use oci_spec::runtime::Process;

use super::program::Builder;
use super::text;
use crate::{Error, ErrorKind, Result};

/// Which security modules the running kernel has enabled.
#[derive(Debug, Clone, Copy, Default)]
pub struct SecurityModules {
    /// AppArmor.
    pub apparmor: bool,
    /// SELinux.
    pub selinux: bool,
}

impl SecurityModules {
    /// Asks the running kernel.
    pub fn of_this_host() -> Self {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
        Self {
            apparmor: enabled.is_ok_and(|text| text.first() == Some(&b'Y')),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

/// Whether the process has a label at all; the kernel is only asked then.
pub fn wanted(process: &Process) -> bool {
    label(process.apparmor_profile()).is_some() || label(process.selinux_label()).is_some()
}

fn label(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// Adds the steps that set the labels of the next exec, through a proc file
/// system that only init holds (CVE-2019-16884: /proc may be anything).
pub(super) fn steps(
    build: &mut Builder,
    process: &Process,
    modules: SecurityModules,
    proc: Option<Slot>,
) -> Result<()> {
    if !wanted(process) {
        return Ok(());
    }
    let proc = proc.unwrap_or_else(|| build.new_fs(c"proc", c"proc", &[], 0));
    if let Some(profile) = label(process.apparmor_profile()) {
        let field = "process.apparmorProfile";
        require(field, profile, modules.apparmor, "AppArmor")?;
        // "unconfined" is where every process starts.
        if profile != "unconfined" {
            let value = text::c_string(field, format!("exec {profile}"))?;
            let (file, older) = (c"attr/apparmor/exec", c"attr/exec");
            build.push(&Step::Label { proc, file, older, value: &value });
        }
    }
    if let Some(context) = label(process.selinux_label()) {
        let field = "process.selinuxLabel";
        require(field, context, modules.selinux, "SELinux")?;
        let value = text::c_string(field, context)?;
        build.push(&Step::Label { proc, file: c"attr/exec", older: c"attr/exec", value: &value });
    }
    Ok(())
}

fn require(field: &str, value: &str, there: bool, module: &str) -> Result<()> {
    if there || value == "unconfined" {
        return Ok(());
    }
    let text = format!("{field}: {value:?} asked for, but {module} is not enabled in this kernel");
    Err(Error::new(ErrorKind::Unsupported, text))
}
