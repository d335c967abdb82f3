//! A filesystem being configured: `fsopen`, `fsconfig`, `fsmount`.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::error::errno_of;
use crate::flags::{DataOption, SbFlags};
use crate::{Error, Result};

/// The kernel copies at most this many bytes of a parameter, its NUL included (fs/fsopen.c).
const VALUE_MAX: usize = 256;

/// Superblock flags that have a parameter of their own in every filesystem (fs/fs_context.c).
const SB_PARAMETERS: &[(u32, &str)] = &[
    (SbFlags::RDONLY, "ro"),
    (SbFlags::SYNCHRONOUS, "sync"),
    (SbFlags::DIRSYNC, "dirsync"),
    (SbFlags::MANDLOCK, "mand"),
    (SbFlags::LAZYTIME, "lazytime"),
];

pub(crate) struct FsContext<'a> {
    fd: OwnedFd,
    fstype: &'a str,
}

impl<'a> FsContext<'a> {
    pub(crate) fn open(fstype: &'a str) -> Result<Self> {
        let fd = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|e| Error::sys(format!("fsopen({fstype})"), errno_of(e)))?;
        Ok(Self { fd, fstype })
    }

    pub(crate) fn flag(&self, key: &str) -> Result<()> {
        fsconfig_set_flag(&self.fd, key).map_err(|e| self.failed(key, errno_of(e)))
    }

    pub(crate) fn string(&self, key: &str, value: &str) -> Result<()> {
        if value.len() >= VALUE_MAX {
            return Err(Error::invalid(format!(
                "{} mount option {key}: value has {} bytes, the kernel takes {}",
                self.fstype,
                value.len(),
                VALUE_MAX - 1
            )));
        }
        fsconfig_set_string(&self.fd, key, value)
            .map_err(|e| self.failed(&format!("{key}={value}"), errno_of(e)))
    }

    pub(crate) fn data(&self, option: &DataOption) -> Result<()> {
        match option {
            (key, Some(value)) => self.string(key, value),
            (key, None) => self.flag(key),
        }
    }

    pub(crate) fn superblock(&self, sb: SbFlags) -> Result<()> {
        for (bit, name) in SB_PARAMETERS {
            if sb.set & bit != 0 {
                self.flag(name)?;
            }
        }
        // These two have no common parameter. A filesystem that offers the choice has one of
        // its own (ext4); elsewhere the feature is always there or never, as with mount(2).
        self.hint(sb.set & SbFlags::POSIXACL != 0, "acl")?;
        self.hint(sb.clear & SbFlags::POSIXACL != 0, "noacl")?;
        self.hint(sb.set & SbFlags::I_VERSION != 0, "i_version")
    }

    fn hint(&self, wanted: bool, key: &str) -> Result<()> {
        if !wanted {
            return Ok(());
        }
        match self.flag(key) {
            Err(e) if e.errno() == Some(Errno::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// Makes the superblock and a detached mount of it.
    pub(crate) fn mount(self, attr: u64) -> Result<OwnedFd> {
        fsconfig_create(&self.fd).map_err(|e| self.failed("create", errno_of(e)))?;
        let bits = u32::try_from(attr)
            .map_err(|_| Error::invalid(format!("mount attributes {attr:#x}: unknown bits")))?;
        let attr = MountAttrFlags::from_bits_retain(bits);
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attr).map_err(|e| {
            let call = format!("fsmount({}, {bits:#x})", self.fstype);
            Error::sys(call, errno_of(e)).with_log(self.log())
        })
    }

    fn failed(&self, what: &str, errno: Errno) -> Error {
        Error::sys(format!("fsconfig({}, {what})", self.fstype), errno).with_log(self.log())
    }

    /// Each read gives one message, `<level> <text>\n`; ENODATA ends them.
    fn log(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0_u8; 1024];
        while let Ok(n) = nix::unistd::read(self.fd.as_fd(), &mut buffer)
            && n > 0
            && lines.len() < 16
        {
            let text = String::from_utf8_lossy(&buffer[..n]);
            let text = text.trim_end();
            lines.push(text.split_once(' ').map_or(text, |(_, message)| message).to_owned());
        }
        lines
    }
}

/// Whether `fsconfig` can take `value`.
pub(crate) fn fits(value: &str) -> bool {
    value.len() < VALUE_MAX
}
