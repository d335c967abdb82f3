//! What the usual profile costs at every start: compiling it, and the kernel's
//! time to take it. `cargo run --release -p boathook-runtime --example seccomp_cost`

// A program to be run by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../tests/seccomp_common/mod.rs"]
mod seccomp_common;

use std::time::Instant;

use boathook_runtime::seccomp::compile;
use seccomp_common::{default_profile, sys};

const ROUNDS: usize = 501;

fn main() {
    let spec = default_profile();
    let filter = compile(&spec).unwrap();
    let mut compiling = Vec::with_capacity(ROUNDS);
    let mut loading = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let again = compile(&spec).unwrap();
        compiling.push(start.elapsed());
        assert_eq!(again, filter);
        // Filters pile up on a thread, so each load gets a new one.
        loading.push(std::thread::scope(|scope| {
            scope.spawn(|| sys::time_to_load(&filter)).join().unwrap()
        }));
    }
    compiling.sort();
    loading.sort();
    let median = ROUNDS / 2;
    println!("{} instructions on three architectures", filter.program.len());
    println!("compile {:7.1?} (best {:.1?})", compiling[median], compiling[0]);
    println!("load    {:7.1?} (best {:.1?})", loading[median], loading[0]);
}
