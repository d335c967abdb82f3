//! Real trees, packed by GNU tar in each of its formats, are the same again
//! after they went through a layer.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::everything::{POSIX, age, fill, tar};
use super::{Yard, quick, snapshot};

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
