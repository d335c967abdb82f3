//! Whoever is killed leaves no image, and nothing that the next one does not remove.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::layout::{Layout, Pack};
use super::{Tarball, Yard, snapshot, tarball};

const KILLS: u32 = 100;

fn layer(at: usize) -> Vec<u8> {
    let fill = |layer: Tarball, file: usize| {
        let dir = format!("d{at}-{}", file % 10);
        let layer = if file < 10 { layer.dir(&dir, 0o700) } else { layer };
        layer.entry(&format!("{dir}/{file}"), b'0', 0o640, "", &vec![b'a'; file * 97])
    };
    (0..80).fold(tarball().dir(".", 0o755), fill).bytes()
}

/// Red when a half of an image is taken for one, or when what a killed process left is in the way.
#[test]
fn root_killed_at_any_point_and_run_again() {
    let yard = Yard::new();
    let layers: Vec<_> = (0..3).map(layer).collect();
    yard.unpack(&Layout::new(&layers, Pack::Gzip), "").unwrap();
    let target = yard.path("out/i");
    // Every time in it comes from an entry.
    let tree = || (0..3).map(|at| snapshot::of(&target.join(format!("layers/{at}"))));
    let wanted: Vec<_> = tree().collect();
    let spawn = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boathook"));
        command.args(["image", "unpack", "--sync", "none", "image", "out/i"]);
        command.current_dir(yard.dir.path()).stdout(Stdio::null()).spawn().unwrap()
    };
    fs::remove_dir_all(&target).unwrap();
    let start = Instant::now();
    assert!(spawn().wait().unwrap().success());
    let whole = start.elapsed();
    let seed = RandomState::new().build_hasher().finish() | 1;
    println!("seed {seed}, {whole:?} for a run");
    let mut state = seed;
    let mut cut_short = 0;
    for _ in 0..KILLS {
        if target.exists() {
            assert!(tree().eq(wanted.iter().cloned()), "an image that appeared is not whole");
            fs::remove_dir_all(&target).unwrap();
        }
        let mut child = spawn();
        // Any moment will do: what is seen afterwards does not depend on it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let share = u32::try_from(state >> 40).unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(share) / f64::from(1 << 24)));
        child.kill().unwrap();
        child.wait().unwrap();
        let left = fs::read_dir(yard.path("out")).unwrap();
        let staged = |name: &str| name.starts_with(".boathook-staging-");
        let names: Vec<_> =
            left.map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| name == "i" || staged(name)), "{names:?}");
        assert!(names.iter().filter(|name| staged(name)).count() <= 1, "{names:?}");
        cut_short += u32::from(names.iter().any(|name| staged(name)));
    }
    assert!(cut_short > 0, "no kill came in the middle");
    if !target.exists() {
        assert!(spawn().wait().unwrap().success());
    }
    assert!(tree().eq(wanted), "the last run's tree differs");
    assert_eq!(fs::read_dir(yard.path("out")).unwrap().count(), 1, "something is left over");
}
