//! The interpreter inside the container: whatever bytes it maps and whatever
//! the kernel answers, it reads nothing but the plan, ends, and looks nothing
//! up where it could leave the container. The first two bytes are the number
//! of answers, then come the answers, the rest are steps.
#![no_main]

use boathook_init::wire::{Header, MAX_SLOTS, Reader, Sink};
use boathook_init::{Step, fake};
use libfuzzer_sys::fuzz_target;

struct Buffer(Vec<u8>);

impl Sink for Buffer {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first_chunk() else { return };
    let count = usize::from(u16::from_le_bytes(*count)).min(rest.len());
    let (answers, steps) = rest.split_at(count);
    decodes_or_says_so(steps);
    // Most inputs get a header that lets init look at the steps.
    let mut plan = Buffer(Vec::new());
    Header { slots: MAX_SLOTS, steps: u32::MAX }.put(&mut plan);
    plan.put(steps);
    // A copy of exactly this size, so that a byte beyond it is seen.
    fake::run(&plan.0.clone().into_boxed_slice(), answers);
    fake::run(&steps.to_vec().into_boxed_slice(), answers);
});

/// What is decoded is encoded to the same bytes again: no step has two readings.
fn decodes_or_says_so(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let mut again = Buffer(Vec::new());
    while let Ok(step) = Step::get(&mut reader) {
        step.put(&mut again);
        let shown = format!("{step:?}");
        assert!(shown.starts_with(step.name()), "{shown}");
    }
    assert!(bytes.starts_with(&again.0), "{again:?} is read out of {bytes:?}", again = again.0);
}
