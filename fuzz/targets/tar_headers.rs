//! An archive, block by block. Every block gets a right checksum, so that it is
//! the fields that are looked at.
#![no_main]

use boathook_fs::layer::Limits;
use boathook_fuzz::tarball::{read, seal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = Limits::default();
    // As it is: bodies and the end are not broken by checksums.
    let _ = read(input, &limits);
    let mut sealed = input.to_vec();
    for block in sealed.chunks_exact_mut(512).filter(|block| block.iter().any(|byte| *byte != 0)) {
        seal(block);
    }
    let _ = read(&sealed, &limits);
    // The first one only, which leaves its body alone.
    let mut first = input.to_vec();
    if let Some(block) = first.get_mut(..512) {
        seal(block);
        let _ = read(&first, &limits);
    }
});
