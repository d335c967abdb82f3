//! Mount option strings → typed flags. One option a line.
#![no_main]

use boathook_fs::flags::{MountOptions, known_options, parse};
use libc_bits::*;
use libfuzzer_sys::fuzz_target;

/// `MOUNT_ATTR_*` of linux/mount.h.
mod libc_bits {
    pub(crate) const RDONLY: u64 = 0x1;
    pub(crate) const NOSUID: u64 = 0x2;
    pub(crate) const NODEV: u64 = 0x4;
    pub(crate) const NOEXEC: u64 = 0x8;
    pub(crate) const ATIME: u64 = 0x70;
    pub(crate) const NODIRATIME: u64 = 0x80;
    pub(crate) const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Options that exclude each other.
const PAIRS: [(&str, &str, u64); 6] = [
    ("ro", "rw", RDONLY),
    ("nosuid", "suid", NOSUID),
    ("nodev", "dev", NODEV),
    ("noexec", "exec", NOEXEC),
    ("nodiratime", "diratime", NODIRATIME),
    ("nosymfollow", "symfollow", NOSYMFOLLOW),
];

fuzz_target!(|text: &str| {
    let lines: Vec<&str> = text.split('\n').collect();
    let Ok(got) = parse(&lines) else { return };
    mount_setattr_takes(&got);
    if text.contains(['\\', '"', '=']) {
        return;
    }
    // Without anything that keeps a comma from parting, a list is its comma string...
    assert_eq!(Ok(&got), parse(&[lines.join(",")]).as_ref().map_err(ToString::to_string));
    // ...the last of a pair counts, and only what has no known name is data.
    let words: Vec<&str> = text.split(['\n', ',']).filter(|word| !word.is_empty()).collect();
    for (on, off, bit) in PAIRS {
        let last = words.iter().rev().find(|word| **word == on || **word == off);
        assert_eq!(got.attr_set & bit != 0, last == Some(&on), "{on}");
        assert_eq!(got.attr_clr & bit != 0, last == Some(&off), "{off}");
    }
    let unknown = words.iter().filter(|word| !known_options().any(|known| known == **word));
    assert!(unknown.eq(got.data.iter().map(|(key, _)| key)));
});

/// The kernel refuses a part of the access-time field, two modes in it, and a
/// bit that is set and cleared.
fn mount_setattr_takes(got: &MountOptions) {
    for (set, clear) in [(got.attr_set, got.attr_clr), (got.rec_set, got.rec_clr)] {
        assert!(clear & ATIME == 0 || clear & ATIME == ATIME);
        assert!([0, 0x10, 0x20].contains(&(set & ATIME)));
        assert!(set & ATIME == 0 || clear & ATIME == ATIME);
        assert_eq!(set & clear & !ATIME, 0);
    }
    assert_eq!(got.sb.set & got.sb.clear, 0);
    for (key, value) in &got.data {
        assert!(!key.contains('\0') && !value.as_deref().unwrap_or_default().contains('\0'));
    }
}
