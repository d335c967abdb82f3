//! The options this crate knows by name, and what each one does.
//!
//! The names are those of the OCI runtime specification (config.md, "Linux mount
//! options") and those runc accepts beyond it. Everything else is data for the filesystem.

use libc::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY,
};

use super::{PropagationKind, SbFlags};

/// What an option does to the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Says nothing that is not the default already.
    Nothing,
    /// Read-only (true) or not: both of the mount and of the superblock.
    ReadOnly(bool),
    /// Sets or clears a `MOUNT_ATTR_*` of this mount.
    Attr(u64, bool),
    /// The same of this mount and all below it.
    RecAttr(u64, bool),
    /// Access times of this mount.
    Atime(AtimeOp),
    /// Access times of this mount and all below it.
    RecAtime(AtimeOp),
    /// Sets or clears a flag of the superblock.
    Sb(u32, bool),
    Propagation(PropagationKind, bool),
    Bind(bool),
    Remount,
    CopyUp,
    IdMap(bool),
}

/// A step in the 3-bit access-time field of `MOUNT_ATTR__ATIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtimeOp {
    /// Choose this mode.
    Use(Atime),
    /// Any mode but this one.
    Not(Atime),
}

/// The values of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Atime {
    Relative,
    Never,
    Strict,
}

use Atime::{Never, Relative, Strict};
use AtimeOp::{Not, Use};
use Effect::{
    Atime as At, Attr, Bind, CopyUp, IdMap, Nothing, Propagation, ReadOnly, RecAtime as RAt,
    RecAttr, Remount, Sb,
};
use PropagationKind::{Private, Shared, Slave, Unbindable};

/// Sorted by name; `find` relies on it and a test holds it.
pub(super) const KNOWN: &[(&str, Effect)] = &[
    ("acl", Sb(SbFlags::POSIXACL, true)),
    ("async", Sb(SbFlags::SYNCHRONOUS, false)),
    ("atime", At(Not(Never))),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Attr(MOUNT_ATTR_NODEV, false)),
    ("diratime", Attr(MOUNT_ATTR_NODIRATIME, false)),
    ("dirsync", Sb(SbFlags::DIRSYNC, true)),
    ("exec", Attr(MOUNT_ATTR_NOEXEC, false)),
    ("idmap", IdMap(false)),
    ("iversion", Sb(SbFlags::I_VERSION, true)),
    ("lazytime", Sb(SbFlags::LAZYTIME, true)),
    ("loud", Sb(SbFlags::SILENT, false)),
    ("mand", Sb(SbFlags::MANDLOCK, true)),
    ("noacl", Sb(SbFlags::POSIXACL, false)),
    ("noatime", At(Use(Never))),
    ("nodev", Attr(MOUNT_ATTR_NODEV, true)),
    ("nodiratime", Attr(MOUNT_ATTR_NODIRATIME, true)),
    ("noexec", Attr(MOUNT_ATTR_NOEXEC, true)),
    ("noiversion", Sb(SbFlags::I_VERSION, false)),
    ("nolazytime", Sb(SbFlags::LAZYTIME, false)),
    ("nomand", Sb(SbFlags::MANDLOCK, false)),
    ("norelatime", At(Not(Relative))),
    ("nostrictatime", At(Not(Strict))),
    ("nosuid", Attr(MOUNT_ATTR_NOSUID, true)),
    ("nosymfollow", Attr(MOUNT_ATTR_NOSYMFOLLOW, true)),
    ("private", Propagation(Private, false)),
    ("ratime", RAt(Not(Never))),
    ("rbind", Bind(true)),
    ("rdev", RecAttr(MOUNT_ATTR_NODEV, false)),
    ("rdiratime", RecAttr(MOUNT_ATTR_NODIRATIME, false)),
    ("relatime", At(Use(Relative))),
    ("remount", Remount),
    ("rexec", RecAttr(MOUNT_ATTR_NOEXEC, false)),
    ("ridmap", IdMap(true)),
    ("rnoatime", RAt(Use(Never))),
    ("rnodev", RecAttr(MOUNT_ATTR_NODEV, true)),
    ("rnodiratime", RecAttr(MOUNT_ATTR_NODIRATIME, true)),
    ("rnoexec", RecAttr(MOUNT_ATTR_NOEXEC, true)),
    ("rnorelatime", RAt(Not(Relative))),
    ("rnostrictatime", RAt(Not(Strict))),
    ("rnosuid", RecAttr(MOUNT_ATTR_NOSUID, true)),
    ("rnosymfollow", RecAttr(MOUNT_ATTR_NOSYMFOLLOW, true)),
    ("ro", ReadOnly(true)),
    ("rprivate", Propagation(Private, true)),
    ("rrelatime", RAt(Use(Relative))),
    ("rro", RecAttr(MOUNT_ATTR_RDONLY, true)),
    ("rrw", RecAttr(MOUNT_ATTR_RDONLY, false)),
    ("rshared", Propagation(Shared, true)),
    ("rslave", Propagation(Slave, true)),
    ("rstrictatime", RAt(Use(Strict))),
    ("rsuid", RecAttr(MOUNT_ATTR_NOSUID, false)),
    ("rsymfollow", RecAttr(MOUNT_ATTR_NOSYMFOLLOW, false)),
    ("runbindable", Propagation(Unbindable, true)),
    ("rw", ReadOnly(false)),
    ("shared", Propagation(Shared, false)),
    ("silent", Sb(SbFlags::SILENT, true)),
    ("slave", Propagation(Slave, false)),
    ("strictatime", At(Use(Strict))),
    ("suid", Attr(MOUNT_ATTR_NOSUID, false)),
    ("symfollow", Attr(MOUNT_ATTR_NOSYMFOLLOW, false)),
    ("sync", Sb(SbFlags::SYNCHRONOUS, true)),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(Unbindable, false)),
];

/// The effect of `name`, if it is a known option.
pub(super) fn find(name: &str) -> Option<Effect> {
    let at = KNOWN.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    KNOWN.get(at).map(|(_, effect)| *effect)
}
