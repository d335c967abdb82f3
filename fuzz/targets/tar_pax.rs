//! The body of a PAX extended header, in front of a file with three bytes.
#![no_main]

use boathook_fs::layer::Limits;
use boathook_fuzz::tarball::{header, padded, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let limits = Limits { xattr_bytes: 64, sparse_segments: 8, xattrs: 4, ..Limits::default() };
    let extension = [header("pax", b'x', body.len()), padded(body)].concat();
    let file = [header("a", b'0', 3), padded(b"abc")].concat();
    if let Ok(entries) = read(&[&extension[..], &file].concat(), &limits) {
        assert!(entries.len() <= 1, "{entries:?}");
    }
    // A global one has no effect, and is refused where the other would be.
    let global = [header("pax", b'g', body.len()), padded(body), file.clone()].concat();
    if let Ok(entries) = read(&global, &limits) {
        assert_eq!(entries[0].path, b"a");
        assert!(entries[0].xattrs.is_empty() && entries[0].sparse.is_none());
    }
});
