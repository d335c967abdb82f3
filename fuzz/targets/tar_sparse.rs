//! A file whose body starts with a sparse map (format 1.0).
#![no_main]

use boathook_fs::layer::Limits;
use boathook_fuzz::tarball::{header, padded, read};
use libfuzzer_sys::fuzz_target;

/// `GNU.sparse.major=1`, `minor=0`, `realsize=5000`, with their lengths.
const RECORDS: &[u8] =
    b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=5000\n";

fuzz_target!(|body: &[u8]| {
    let limits = Limits { sparse_segments: 64, ..Limits::default() };
    let archive = [
        header("pax", b'x', RECORDS.len()),
        padded(RECORDS),
        header("a", b'0', body.len()),
        padded(body),
    ];
    if let Ok(entries) = read(&archive.concat(), &limits) {
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].size, 5000);
        assert!(entries[0].sparse.is_some());
    }
});
