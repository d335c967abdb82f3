//! How much an image may be, and how much of the machine it may have meanwhile.

use super::layout::{Blob, Layout, Pack};
use super::{Yard, base, tarball};

const MIB: usize = 1 << 20;

/// One file of zeros.
fn zeros(mib: usize) -> Vec<u8> {
    base().entry("d/zero", b'0', 0o644, "", &vec![0; mib * MIB]).bytes()
}

/// Red when a limit is not named, does not stop anything, or cannot be changed.
#[test]
fn root_limits_are_flags_and_named() {
    let yard = Yard::new();
    let small = vec![base().bytes(), tarball().file("a/b/c", "x").bytes()];
    let both: usize = small.iter().map(Vec::len).sum();
    for (flags, wanted) in [
        ("--max-entries 2", "layer 0: more than the limit entries = 2".to_owned()),
        ("--max-depth 2", "layer 1: entry \"a/b/c\": more than the limit depth = 2".to_owned()),
        ("--max-layers 1", "more than the limit layers = 1".to_owned()),
        (
            &format!("--max-image-bytes {}", both - 1),
            format!("more than the limit image-bytes = {}", both - 1),
        ),
    ] {
        let error = yard.unpack(&Layout::new(&small, Pack::Gzip), flags).expect_err(flags);
        assert!(error.contains(&wanted), "{flags}: {error}");
    }
    yard.unpack(&Layout::new(&small, Pack::Gzip), &format!("--max-image-bytes {both}")).unwrap();
}

/// Red when a bomb is written to the end, or is kept in memory: the program may have little of
/// it, and zeros behind an archive's end count as well.
#[test]
fn root_bombs_are_small_in_memory_and_end_at_a_limit() {
    let yard = Yard::new();
    let archive = zeros(80);
    let tail = [base().bytes(), vec![0; 80 * MIB]].concat();
    for archive in [&archive, &tail] {
        let zstd = Layout { blobs: vec![Blob::new(archive, Pack::Zstd)] };
        let error = yard.unpack(&zstd, "").unwrap_err();
        assert!(error.contains("more than the limit ratio = 1100"), "{error}");
        let gzip = Layout { blobs: vec![Blob::new(archive, Pack::Gzip)] };
        let error = yard.unpack(&gzip, "--max-bytes 9000000").unwrap_err();
        assert!(error.contains("more than the limit bytes = 9000000"), "{error}");
        yard.unpack(&gzip, "").unwrap();
        // All that it writes to, stacks of threads included (setrlimit(2), RLIMIT_DATA).
        yard.good("rm -r out/i; ulimit -d 24576; exec $B image unpack --sync none image out/i");
    }
}

/// Red when entries are kept in memory, or the limit on them is not what ends it.
#[test]
fn root_a_bomb_of_inodes_ends_at_a_limit() {
    let yard = Yard::new();
    let names = (0..40_000).map(|at| format!("d/{at}"));
    let archive = names.fold(base(), |archive, name| archive.file(&name, "")).bytes();
    let layout = Layout { blobs: vec![Blob::new(&archive, Pack::Gzip)] };
    assert!(layout.blobs[0].bytes.len() * 40 < archive.len(), "it is no bomb");
    layout.write(&yard.path("image"));
    // In memory, because a disk would take most of the time.
    let unpack = "unpack --sync none image out/i";
    let there = yard.good(&format!(
        "exec unshare -m sh -euc 'mount -t tmpfs none out; ulimit -d 24576; \
         $B image {unpack} --max-entries 30000 2>&1 && exit 9; ls -A out; \
         $B image {unpack}; ls out/i/layers/0/d | wc -l'"
    ));
    let lines: Vec<&str> = there.lines().collect();
    assert!(lines[0].contains("more than the limit entries = 30000"), "{there}");
    assert!(lines[1].starts_with("id "), "something was left: {there}");
    let count: usize = lines.last().unwrap().trim().parse().unwrap();
    assert!(count >= 40_000, "{there}");
}
