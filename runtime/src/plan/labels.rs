//! Labels of security modules: those that take effect at the exec, and those of mounts.

use boathook_fs::flags::DataOption;
use boathook_init::{Slot, Step};
use oci_spec::runtime::{Process, Spec};

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

/// `linux.mountLabel`, the SELinux context of new file systems.
pub(crate) fn mount_label(spec: &Spec) -> Option<&str> {
    label(spec.linux().as_ref()?.mount_label())
}

/// The label for the mounts of a config, if SELinux is there to take it.
pub(super) fn of_mounts(spec: &Spec, modules: SecurityModules) -> Result<Option<&str>> {
    let Some(context) = mount_label(spec) else { return Ok(None) };
    let field = "linux.mountLabel";
    require(field, context, modules.selinux, "SELinux")?;
    Ok(Some(context))
}

/// Whether a new file system gets the label as its `context` option. The
/// kernel's own are labelled by the policy, and a context of the config's own counts.
pub(super) fn takes_context(kind: &str, data: &[DataOption]) -> bool {
    const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];
    !matches!(kind, "proc" | "sysfs" | "mqueue")
        && !data.iter().any(|(key, _)| CONTEXTS.contains(&key.as_str()))
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
