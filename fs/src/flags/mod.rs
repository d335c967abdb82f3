//! Mount option strings, as OCI configs and containerd write them, become typed flags.
//!
//! Three kinds of flags leave here, because the kernel keeps them in three places: those of
//! one mount (`MOUNT_ATTR_*`), those of the superblock behind it (`MS_*`), and those that are
//! actions rather than state (bind, remount, propagation, id-mapping, copy-up). What has no
//! known name is data for the filesystem and stays in order.
//!
//! Rules:
//! - Of two options that exclude each other the later one counts (`ro,rw` is writable). Only
//!   `rbind` is not taken back by `bind`, as in runc, where it would lose submounts.
//! - Propagation options are a list applied in order: `slave,shared` is not `shared`.
//! - An element may hold several options parted by commas. A comma behind a backslash, or
//!   within the double quotes of an SELinux context, parts nothing.
//! - Empty elements are skipped, as the kernel skips them.

mod table;
#[cfg(test)]
mod tests;

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
};

use crate::{Error, Result};
use table::{Atime, AtimeOp, Effect, KNOWN};

/// A key with its value, or a bare word, for the filesystem.
pub type DataOption = (String, Option<String>);

/// Typed mount options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `MOUNT_ATTR_*` to set on this mount. Bits asked for, after bits in `attr_clr` are cleared.
    pub attr_set: u64,
    /// `MOUNT_ATTR_*` to clear on this mount; with any access-time option the whole
    /// `MOUNT_ATTR__ATIME` field, as `mount_setattr` wants it.
    pub attr_clr: u64,
    /// As `attr_set`, for this mount and all below it (`rro`, `rnosuid`, …; Linux 5.12).
    pub rec_set: u64,
    /// As `attr_clr`, for this mount and all below it.
    pub rec_clr: u64,
    /// Flags of the superblock. Without meaning for a bind mount.
    pub sb: SbFlags,
    /// Changes of propagation, to be made in this order.
    pub propagation: Vec<Propagation>,
    /// Given when this is a bind mount.
    pub bind: Option<Bind>,
    /// `remount`: change an existing mount.
    pub remount: bool,
    /// `tmpcopyup`: fill the new tmpfs with what was below it.
    pub tmpcopyup: bool,
    /// `idmap` or `ridmap`: id-map the mount by the container's or the entry's mappings.
    pub idmap: Option<IdMap>,
    /// What the filesystem itself is told, in order. SELinux contexts are without their quotes.
    pub data: Vec<DataOption>,
}

/// Flags of a superblock, as `MS_*` bits of `mount(2)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SbFlags {
    /// Bits to set.
    pub set: u32,
    /// Bits to clear; of use only when an existing superblock is changed.
    pub clear: u32,
}

impl SbFlags {
    /// `ro`
    pub const RDONLY: u32 = libc::MS_RDONLY as u32;
    /// `sync`
    pub const SYNCHRONOUS: u32 = libc::MS_SYNCHRONOUS as u32;
    /// `mand`; without effect since Linux 5.15
    pub const MANDLOCK: u32 = libc::MS_MANDLOCK as u32;
    /// `dirsync`
    pub const DIRSYNC: u32 = libc::MS_DIRSYNC as u32;
    /// `silent`: fewer kernel messages
    pub const SILENT: u32 = libc::MS_SILENT as u32;
    /// `acl`
    pub const POSIXACL: u32 = libc::MS_POSIXACL as u32;
    /// `iversion`
    pub const I_VERSION: u32 = libc::MS_I_VERSION as u32;
    /// `lazytime`
    pub const LAZYTIME: u32 = libc::MS_LAZYTIME as u32;

    fn change(&mut self, bits: u32, on: bool) {
        let (to, from) =
            if on { (&mut self.set, &mut self.clear) } else { (&mut self.clear, &mut self.set) };
        *to |= bits;
        *from &= !bits;
    }
}

/// How mounts and unmounts travel between copies of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropagationKind {
    /// Both ways.
    Shared,
    /// From the master to this copy only.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and the mount cannot be bind mounted.
    Unbindable,
}

/// One change of propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// The new type.
    pub kind: PropagationKind,
    /// This mount and all below it.
    pub recursive: bool,
}

/// A bind mount was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind {
    /// `rbind`: with everything mounted below the source.
    pub recursive: bool,
}

/// An id-mapped mount was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// `ridmap`: with everything mounted below the source.
    pub recursive: bool,
}

/// The names of all options that are not passed to the filesystem, sorted; the
/// `mountOptions` of the OCI `features` document.
pub fn known_options() -> impl ExactSizeIterator<Item = &'static str> {
    KNOWN.iter().map(|(name, _)| *name)
}

/// Types `options`, the `options` array of an OCI mount or of a containerd mount.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`], naming the option: a NUL byte, a value without a key, an
/// SELinux context whose quote does not end.
pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<MountOptions> {
    let mut builder = Builder::default();
    for element in options {
        let mut rest = element.as_ref();
        while !rest.is_empty() {
            let (option, tail) = split_first(rest)?;
            builder.add(option)?;
            rest = tail;
        }
    }
    Ok(builder.finish())
}

#[derive(Default)]
struct Builder {
    out: MountOptions,
    atime: Option<Atime>,
    rec_atime: Option<Atime>,
}

impl Builder {
    fn add(&mut self, option: &str) -> Result<()> {
        if option.is_empty() {
            return Ok(());
        }
        if option.contains('\0') {
            return Err(Error::invalid(format!("mount option {option:?}: contains a NUL byte")));
        }
        match table::find(option) {
            Some(effect) => self.apply(effect),
            None => self.out.data.push(data_option(option)?),
        }
        Ok(())
    }

    fn apply(&mut self, effect: Effect) {
        let out = &mut self.out;
        match effect {
            Effect::Nothing => {}
            Effect::ReadOnly(on) => {
                toggle(&mut out.attr_set, &mut out.attr_clr, MOUNT_ATTR_RDONLY, on);
                out.sb.change(SbFlags::RDONLY, on);
            }
            Effect::Attr(bits, on) => toggle(&mut out.attr_set, &mut out.attr_clr, bits, on),
            Effect::RecAttr(bits, on) => toggle(&mut out.rec_set, &mut out.rec_clr, bits, on),
            Effect::Atime(op) => self.atime = op.after(self.atime),
            Effect::RecAtime(op) => self.rec_atime = op.after(self.rec_atime),
            Effect::Sb(bits, on) => out.sb.change(bits, on),
            Effect::Propagation(kind, recursive) => {
                out.propagation.push(Propagation { kind, recursive });
            }
            Effect::Bind(recursive) => {
                let before = out.bind.is_some_and(|b| b.recursive);
                out.bind = Some(Bind { recursive: recursive || before });
            }
            Effect::Remount => out.remount = true,
            Effect::CopyUp => out.tmpcopyup = true,
            Effect::IdMap(recursive) => out.idmap = Some(IdMap { recursive }),
        }
    }

    fn finish(self) -> MountOptions {
        let mut out = self.out;
        if let Some(mode) = self.atime {
            out.attr_clr |= MOUNT_ATTR__ATIME;
            out.attr_set |= mode.bits();
        }
        if let Some(mode) = self.rec_atime {
            out.rec_clr |= MOUNT_ATTR__ATIME;
            out.rec_set |= mode.bits();
        }
        out
    }
}

impl Atime {
    fn bits(self) -> u64 {
        match self {
            Self::Relative => MOUNT_ATTR_RELATIME,
            Self::Never => MOUNT_ATTR_NOATIME,
            Self::Strict => MOUNT_ATTR_STRICTATIME,
        }
    }
}

impl AtimeOp {
    /// Taking a mode back leaves relatime, the kernel's default since 2.6.30. To take back
    /// relatime itself is to say nothing about access times.
    fn after(self, before: Option<Atime>) -> Option<Atime> {
        match (self, before) {
            (Self::Use(mode), _) => Some(mode),
            (Self::Not(Atime::Relative), None | Some(Atime::Relative)) => None,
            (Self::Not(mode), Some(other)) if other != mode => Some(other),
            (Self::Not(_), _) => Some(Atime::Relative),
        }
    }
}

fn toggle(set: &mut u64, clr: &mut u64, bits: u64, on: bool) {
    let (to, from) = if on { (set, clr) } else { (clr, set) };
    *to |= bits;
    *from &= !bits;
}

/// The options of SELinux, whose values carry commas (categories `c1,c2`) within quotes.
const SELINUX: &[&str] = &["context", "fscontext", "defcontext", "rootcontext"];

fn is_selinux(key: &str) -> bool {
    SELINUX.contains(&key)
}

fn data_option(option: &str) -> Result<DataOption> {
    let Some((key, value)) = option.split_once('=') else {
        return Ok((option.to_owned(), None));
    };
    if key.is_empty() {
        return Err(Error::invalid(format!("mount option {option:?}: value without a name")));
    }
    let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let value = match bare {
        Some(bare) if is_selinux(key) => bare,
        _ => value,
    };
    Ok((key.to_owned(), Some(value.to_owned())))
}

/// Cuts the first option off a comma list.
fn split_first(list: &str) -> Result<(&str, &str)> {
    let mut from = 0;
    if let Some((key, value)) = list.split_once('=')
        && is_selinux(key)
        && let Some(quoted) = value.strip_prefix('"')
    {
        let Some(end) = quoted.find('"') else {
            return Err(Error::invalid(format!("mount option {list:?}: quote does not end")));
        };
        from = list.len() - quoted.len() + end + 1;
    }
    let mut escaped = false;
    for (at, byte) in list.bytes().enumerate().skip(from) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => return Ok((&list[..at], &list[at + 1..])),
            _ => {}
        }
    }
    Ok((list, ""))
}
