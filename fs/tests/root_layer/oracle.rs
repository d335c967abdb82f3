//! Real trees, packed by GNU tar in each of its formats, are the same again
//! after they went through a layer.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};

use super::{Yard, quick, snapshot};

/// `cap_net_raw=ep` as the kernel stores it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Something of everything.
fn fill(dir: &Path) {
    let at = |name: &str| dir.join(name);
    fs::create_dir_all(at("usr/bin")).unwrap();
    fs::write(at("usr/bin/tool"), vec![b't'; 700_000]).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("private"), "p").unwrap();
    mode(&at("private"), 0o600);
    fs::write(at("everyone"), "e").unwrap();
    mode(&at("everyone"), 0o666);
    fs::write(at("usr/bin/su"), "s").unwrap();
    chown(at("usr/bin/su"), Some(1000), Some(4_000_000)).unwrap();
    mode(&at("usr/bin/su"), 0o6755);
    fs::write(at("usr/bin/ping"), "p").unwrap();
    chown(at("usr/bin/ping"), Some(7), Some(8)).unwrap();
    xattr(&at("usr/bin/ping"), "security.capability", &CAPABILITY);
    fs::create_dir(at("tmp")).unwrap();
    mode(&at("tmp"), 0o1777);
    fs::create_dir(at("group")).unwrap();
    chown(at("group"), None, Some(50)).unwrap();
    mode(&at("group"), 0o2775);
    // Without care it gets the group of its directory.
    fs::write(at("group/of-root"), "r").unwrap();
    chown(at("group/of-root"), Some(0), Some(0)).unwrap();
    fs::create_dir(at("group/sub")).unwrap();
    chown(at("group/sub"), Some(0), Some(0)).unwrap();
    mode(&at("group/sub"), 0o755);
    symlink("usr/bin", at("bin")).unwrap();
    symlink("/no/where", at("dangling")).unwrap();
    lchown(at("dangling"), Some(3), Some(4)).unwrap();
    fs::hard_link(at("usr/bin/tool"), at("tool-again")).unwrap();
    fs::hard_link(at("dangling"), at("dangling-again")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), Mode::from_bits_truncate(0o640)).unwrap();
    for (name, kind) in [("null", SFlag::S_IFCHR), ("disk", SFlag::S_IFBLK)] {
        let bits = Mode::from_bits_truncate(0o666);
        mknod(&at(name), kind, bits, makedev(1, 3)).unwrap();
        mode(&at(name), 0o666);
    }
    fs::create_dir(at(&"d".repeat(120))).unwrap();
    fs::write(at(&"d".repeat(120)).join("f".repeat(200)), "long").unwrap();
    symlink("t".repeat(300), at("long-link")).unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"no\xfftext\n")), "bytes").unwrap();
    let mut sparse = File::create(at("sparse")).unwrap();
    for place in [0, 1 << 20, 5 << 20] {
        sparse.seek(SeekFrom::Start(place)).unwrap();
        sparse.write_all(&[b'x'; 5000]).unwrap();
    }
    sparse.set_len(8 << 20).unwrap();
}

/// Times with nanoseconds, the deepest first.
fn age(dir: &Path) {
    let paths: Vec<_> = snapshot::of(dir).into_keys().collect();
    for (index, path) in paths.iter().enumerate().rev() {
        let time = Timespec { tv_sec: 1_600_000_000 + index as i64, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, dir.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn tar(dir: &Path, archive: &Path, args: &[&str]) {
    let mut command = Command::new("tar");
    command.arg("-C").arg(dir).args(["--numeric-owner", "--sort=name", "-cf"]).arg(archive);
    let output = command.args(args).arg(".").output().expect("GNU tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const POSIX: [&str; 3] = ["--format=posix", "--xattrs", "--xattrs-include=*"];

/// Red when anything of a file is lost or comes in the wrong order: a set-id
/// bit or a capability after a change of owner, a directory's time after what
/// was made in it, a group that a directory hands on.
#[test]
fn root_a_tree_is_the_same_again() {
    let yard = Yard::new();
    let tree = yard.dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree);
    age(&tree);
    let wanted = snapshot::of(&tree);
    let archive = yard.dir.path().join("a.tar");
    for format in ["0.0", "0.1", "1.0"] {
        let sparse = format!("--sparse-version={format}");
        tar(&tree, &archive, &[&POSIX[..], &["--sparse", &sparse]].concat());
        let (layer, report) = yard.apply_bytes(&fs::read(&archive).unwrap(), &quick()).unwrap();
        let got = snapshot::of(&layer);
        for (path, item) in &wanted {
            assert_eq!(got.get(path), Some(item), "{}", path.display());
        }
        assert_eq!(got.len(), wanted.len());
        assert_eq!(report.warnings.count, 0, "{:?}", report.warnings);
        let blocks = fs::metadata(layer.join("sparse")).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "holes are written out: {blocks} blocks");
    }
}

/// The older formats have whole seconds and no attributes.
#[test]
fn root_the_older_formats_too() {
    let yard = Yard::new();
    let tree = yard.dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree);
    fs::remove_file(tree.join("usr/bin/ping")).unwrap();
    age(&tree);
    let mut wanted = snapshot::of(&tree);
    let archive = yard.dir.path().join("a.tar");
    wanted.values_mut().for_each(|item| item.modified.1 = 0);
    tar(&tree, &archive, &["--format=gnu"]);
    let (layer, _) = yard.apply_bytes(&fs::read(&archive).unwrap(), &quick()).unwrap();
    assert_eq!(snapshot::of(&layer), wanted);
}

/// One piece of an archive, compressed.
type Press = fn(&[u8]) -> Vec<u8>;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// As zstd:chunked does it, each piece is followed by something to be skipped.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let skipped = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, b't', b'o', b'c', b'!'];
    [&zstd::encode_all(bytes, 1).unwrap()[..], &skipped].concat()
}

/// Each member of a gzip file, each frame of zstd is one more piece of the same archive.
#[test]
fn root_compressed_piece_by_piece() {
    let yard = Yard::new();
    let tree = yard.dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree);
    age(&tree);
    let archive = yard.dir.path().join("a.tar");
    tar(&tree, &archive, &POSIX);
    let bytes = fs::read(&archive).unwrap();
    let sum = Command::new("sha256sum").arg(&archive).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap();
    for press in [gzip as Press, zstd] {
        let blob: Vec<u8> = bytes.chunks(100_001).flat_map(press).collect();
        let (layer, report) = yard.apply_bytes(&blob, &quick()).unwrap();
        assert_eq!(snapshot::of(&layer), snapshot::of(&tree));
        let diff_id = report.found.diff_id.to_string();
        assert_eq!(diff_id.strip_prefix("sha256:"), sum.split(' ').next());
        assert_eq!(report.found.diff_size, bytes.len() as u64);
    }
}
