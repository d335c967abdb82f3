//! Writes the seeds of the target `init`: the steps of real plans behind the
//! answers that let them begin. To be run again when the table of steps changes:
//! `cargo run --example init_seeds` in `fuzz/`.

#![allow(clippy::print_stdout, reason = "a tool for people")]

use std::path::Path;

use boathook_fuzz::{context, layouts};
use boathook_init::wire::Header;
use boathook_runtime::{Plan, spec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for config in std::fs::read_dir(seeds.join("config"))? {
        let path = config?.path();
        let spec = spec::from_json(&std::fs::read(&path)?)?;
        for (index, layout) in layouts().iter().enumerate() {
            let plan = match Plan::create(&spec, &context(layout)) {
                Ok(plan) => plan,
                // Not every host can run every config.
                Err(error) => {
                    println!("{}, host {index}: {error}", path.display());
                    continue;
                }
            };
            let image = plan.program.image(plan.fds.len());
            let answers = descriptors();
            let mut seed = (answers.len() as u16).to_le_bytes().to_vec();
            seed.extend_from_slice(&answers);
            seed.extend_from_slice(&image[Header::LEN..]);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            std::fs::write(seeds.join("init").join(format!("{name}-{index}")), seed)?;
        }
    }
    Ok(())
}

/// The kernel's first answers, the first of them last: yes to what comes before
/// the engine's message, and sixty descriptors in it for a table of many.
fn descriptors() -> Vec<u8> {
    let mut answers = vec![0; 68];
    answers.extend([60, 40, 0]);
    answers.reverse();
    answers
}
