//! The path of a layer's entry: a file, a whiteout, or an error.
#![no_main]

use boathook_fs::layer::{Limits, Meaning, Name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &[u8]| {
    let limits = Limits { depth: 16, ..Limits::default() };
    match Meaning::of(path, &limits) {
        Ok(Meaning::File(name)) => {
            stays_inside(&name, &limits);
            assert!(!name.components().any(|part| part.starts_with(b".wh.")), "{name:?}");
        }
        Ok(Meaning::Whiteout(name)) => {
            stays_inside(&name, &limits);
            assert!(!name.is_root());
        }
        Ok(Meaning::Opaque(name)) => stays_inside(&name, &limits),
        Ok(Meaning::Ignored) => {
            assert!(path.windows(8).any(|part| part == b".wh..wh."));
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
});

fn stays_inside(name: &Name, limits: &Limits) {
    let parts: Vec<&[u8]> = name.components().collect();
    for part in &parts {
        assert!(!matches!(*part, b"" | b"." | b"..") && part.len() <= 255, "{name:?}");
        assert!(!part.contains(&0) && !part.contains(&b'/'), "{name:?}");
    }
    assert!(parts.len() as u64 <= limits.depth);
    assert_eq!(parts.join(&b'/'), name.as_bytes());
    if name.is_root() {
        return;
    }
    let (parent, last) = name.split().expect("a parent");
    assert_eq!(parent.join(last), *name);
    assert_eq!(Name::parse(name.as_bytes(), limits).as_ref(), Ok(name));
}
