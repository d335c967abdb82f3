//! `boathook image unpack` on a terminal.

use std::path::Path;
use std::process::Command;

use rootfs_tests::pty::Terminal;
use rootfs_tests::workspace;

use super::layout::{Layout, Pack};
use super::tarball;

pub(crate) fn shows_a_bar(dir: &Path) {
    let body: Vec<u8> = (0..2_000_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    let layer = tarball().entry("file", b'0', 0o644, "", &body).bytes();
    let size = layer.len();
    Layout::new(&[layer], Pack::Plain).write(&dir.join("image"));
    let unpack = |to: &str| {
        let mut command = Command::new(workspace::cli().unwrap());
        command.args(["image", "unpack", "--sync", "none"]).arg(dir.join("image"));
        command.arg(dir.join(to)).env("TERM", "xterm");
        command
    };
    let terminal = Terminal::start(unpack("one"), 24, 80).unwrap();
    let (code, seen) = terminal.end().unwrap();
    assert_eq!(code, 0, "{seen}");
    let total = format!("of {:.2} MiB", size as f64 / f64::from(1 << 20));
    assert!(seen.contains(&total), "{total}: {seen:?}");
    // It goes when all is there, and the result stays.
    let rest = &seen[seen.rfind(&total).unwrap()..];
    assert!(rest.contains("layer 0"), "{rest:?}");
    let output = unpack("two").output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(!output.stdout.contains(&0x1b));
}
