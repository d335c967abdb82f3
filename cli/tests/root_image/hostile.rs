//! Images that want out, that lie, or that are merely strange: each is refused, with words that
//! say why, or its effects stay in its layer. `Yard::unpack` looks at what is around it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::layout::{Blob, Layout, Pack, gzip, sha256};
use super::{Tarball, Yard, base, paths, tarball};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Layers that are refused, as they come and in any compression.
fn refused(canary: &Path) -> Vec<(&'static str, Vec<Vec<u8>>, &'static str)> {
    let up = format!("{}{}", "../".repeat(12), canary.display());
    let outside = canary.join("etc").display().to_string();
    let passwd = format!("{outside}/passwd");
    let body = |count: usize| vec![b'x'; count];
    let overlap = base()
        .pax(&[
            ("GNU.sparse.major", "0"),
            ("GNU.sparse.minor", "1"),
            ("GNU.sparse.name", "d/bad"),
            ("GNU.sparse.size", "8192"),
            ("GNU.sparse.map", "4096,512,0,8192"),
        ])
        .entry("d/bad", b'0', 0o644, "", &body(8704));
    let flood: Vec<(String, String)> =
        (0..300).map(|at| (format!("SCHILY.xattr.user.k{at:03}"), "v".to_owned())).collect();
    let flood: Vec<(&str, &str)> = flood.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let big = "v".repeat(70_000);
    let one = |what: &'static str, layer: Tarball, wanted: &'static str| {
        (what, vec![layer.bytes()], wanted)
    };
    let two = |what: &'static str, layer: Tarball, wanted: &'static str| {
        (what, vec![base().bytes(), layer.bytes()], wanted)
    };
    let cut = base().entry("d/cut", b'0', 0o644, "", &body(9000)).bytes();
    vec![
        one("traversal", base().pax(&[("path", &format!("{up}/new"))]).file("x", "out"), "`..`"),
        one("inner traversal", base().file("d/../../etc/new", "out"), "`..`"),
        one("dotdot inside", base().file("d/../etc/new", "n"), "`..`"),
        one("hard link out", base().hard_link("stolen", &passwd), "not in this layer"),
        one("hard link up", base().hard_link("stolen", "../etc/passwd"), "`..`"),
        one(
            "hard link through a link",
            base().symlink("out", &outside).hard_link("stolen", "out/passwd"),
            "not in this layer",
        ),
        one("hard link to itself", base().hard_link("me", "me"), "not in this layer"),
        one("hard link to a directory", base().hard_link("l", "d"), "one name only"),
        one("whiteout up", base().file("../.wh.canary", ""), "`..`"),
        two("whiteout of .", tarball().file("d/.wh..", ""), "names no file"),
        two("whiteout of ..", tarball().file("d/.wh...", ""), "names no file"),
        two("whiteout of nothing", tarball().file("d/.wh.", ""), "names no file"),
        two("whiteout device", tarball().device("etc/passwd", 0, 0), "device 0:0"),
        one("a file as the root", base().file(".", "x"), "must be a directory"),
        one("a link as the root", base().symlink("./", "/tmp"), "must be a directory"),
        one("no name", base().file("", "x"), "the name is empty"),
        one("NUL", base().pax(&[("path", "d/a\0b")]).file("x", "x"), "NUL"),
        one("unknown type", base().entry("z", b'Z', 0, "", b"z"), "unknown type 'Z'"),
        one("long component", base().pax(&[("path", &"n".repeat(300))]).file("x", ""), "255"),
        one("long path", base().pax(&[("path", &"pp/".repeat(2000))]).file("x", ""), "path-bytes"),
        one("deep", base().pax(&[("path", &"d/".repeat(2000))]).dir("x", 0o755), "depth = 1024"),
        one("negative size", base().dir("d/neg", 0).but(124, &[0xff; 12]), "size"),
        one("checksum", base().raw(&[b'!'; 512]), "checksum"),
        one(
            "huge extension",
            base().dir("p", 0).but(156, b"x").but(124, b"10000000000\0"),
            "extended-bytes",
        ),
        one(
            "huge claim",
            base().dir("h", 0).but(156, b"0").but(124, b"\x80\0\0\0\0\x04\0\0\0\0\0\0"),
            "the archive ends",
        ),
        one("old sparse", base().entry("s", b'S', 0o644, "", b"x"), "old GNU format"),
        one("overlapping sparse map", overlap, "sparse"),
        one("many attributes", base().pax(&flood).file("x", ""), "xattrs = 256"),
        one(
            "a long attribute",
            base().pax(&[("SCHILY.xattr.user.big", &big)]).file("x", ""),
            "xattr-bytes = 65536",
        ),
        ("cut", vec![cut[..cut.len() - 6000].to_vec()], "the archive ends"),
    ]
}

/// Red when one of these is taken, is refused in silence, or leaves something: the entry or the
/// thing that is wrong is named, whatever the layer is compressed with.
#[test]
fn root_hostile_layers_are_refused() {
    let yard = Yard::new();
    for (what, layers, wanted) in refused(&yard.path("canary")) {
        for pack in [Pack::Gzip, Pack::Zstd, Pack::Plain] {
            let error = yard.unpack(&Layout::new(&layers, pack), "").expect_err(what);
            assert!(error.contains(wanted), "{what}, {pack:?}: {error}");
            let layer = format!("boathook: layer {}: ", layers.len() - 1);
            assert!(error.starts_with(&layer), "{what}, {pack:?}: {error}");
        }
    }
}

/// Streams that are broken although every digest of the image may be right.
#[test]
fn root_broken_streams_are_refused() {
    let yard = Yard::new();
    let archive = base().entry("d/f", b'0', 0o644, "", &noise(200_000)).bytes();
    let whole = gzip(&archive);
    let frames = zstd::encode_all(&archive[..], 3).unwrap();
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let mut crc = whole.clone();
    let at = crc.len() - 8;
    crc[at] ^= 1;
    for (what, bytes, media_type) in [
        ("gzip cut", whole[..120_000].to_vec(), GZIP),
        ("gzip without its trailer", whole[..whole.len() - 8].to_vec(), GZIP),
        ("gzip checksum", crc, GZIP),
        ("gzip and junk", [&whole[..], b"JUNK"].concat(), GZIP),
        ("gzip and a zero", [&whole[..], b"\0"].concat(), GZIP),
        ("zstd cut", frames[..frames.len() / 2].to_vec(), zstd),
        ("zstd and junk", [&frames[..], b"JUNK"].concat(), zstd),
    ] {
        let layout = Layout { blobs: vec![Blob::of(bytes, media_type, &archive)] };
        let error = yard.unpack(&layout, "").expect_err(what);
        assert!(error.starts_with("boathook: layer 0: "), "{what}: {error}");
    }
}

/// Bytes that no compressor makes smaller.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

/// Documents that lie about layers.
#[test]
fn root_lies_about_layers_are_refused() {
    let yard = Yard::new();
    let archive = base().bytes();
    let good = Blob::new(&archive, Pack::Gzip);
    let tail = [&archive[..], &[1; 65536]].concat();
    let evil = gzip(&base().file("d/evil", "e").bytes());
    let mut path = good.clone();
    path.digest = "sha256:../../../../canary/etc/passwd".to_owned();
    let other = Blob { diff_id: sha256(b"other"), ..good.clone() };
    let shorter = Blob { size: good.size - 10, ..good.clone() };
    let odd = Blob { media_type: "text/plain".to_owned(), ..good.clone() };
    let plain = Blob { media_type: GZIP.trim_end_matches("+gzip").to_owned(), ..good.clone() };
    for (what, blob, wanted) in [
        ("diff id", other, "diff id: expected"),
        ("diff id of a part", Blob::of(gzip(&tail), GZIP, &archive), "diff id: expected"),
        ("digest", Blob { size: evil.len(), bytes: evil, ..good.clone() }, "digest: expected"),
        ("size", shorter, "size: expected"),
        ("digest as a path", path, "canary"),
        ("media type", odd, "\"text/plain\" is no layer"),
        ("gzip that is called plain", plain, "layer 0: "),
    ] {
        let error = yard.unpack(&Layout { blobs: vec![blob] }, "").expect_err(what);
        assert!(error.contains(wanted), "{what}: {error}");
    }
    let layers = vec![archive.clone(); 501];
    let error = yard.unpack(&Layout::new(&layers, Pack::Gzip), "").unwrap_err();
    assert!(error.contains("501 layers, more than the limit layers = 500"), "{error}");
}

/// Streams and labels that are unusual and right.
#[test]
fn root_unusual_streams_are_read() {
    let yard = Yard::new();
    let archive = base().file("d/f", "f").bytes();
    let half = archive.len() / 2;
    let members = [gzip(&archive[..half]), gzip(b""), gzip(&archive[half..])].concat();
    let skippable =
        [b"\x5a\x2a\x4d\x18\x04\0\0\0TOC!".to_vec(), zstd::encode_all(&archive[..], 3).unwrap()]
            .concat();
    let late = [&archive[..], &tarball().file("d/late", "x").bytes()].concat();
    let cut = base().file("d/f", "f").cut();
    for (what, blob) in [
        ("members", Blob::of(members, GZIP, &archive)),
        ("zstd that is called gzip", Blob::of(skippable, GZIP, &archive)),
        ("an entry behind the end", Blob::of(gzip(&late), GZIP, &late)),
        ("no end", Blob::of(gzip(&cut), GZIP, &cut)),
    ] {
        let image = yard.unpack(&Layout { blobs: vec![blob] }, "").expect(what);
        assert_eq!(paths(&image.join("layers/0")), ["d", "d/f", "etc", "etc/passwd"], "{what}");
    }
}

/// Effects of these stay in the layer.
#[test]
fn root_what_is_taken_stays_inside() {
    let yard = Yard::new();
    let outside = yard.path("canary/etc");
    let outside = outside.to_str().unwrap();
    let passwd = format!("{outside}/passwd");
    let first = base()
        .symlink("out", outside)
        .file("out/new", "inside")
        .symlink("f", &passwd)
        .file("f", "mine")
        .symlink("link", outside)
        .dir("link/", 0o700)
        .file("/absolute", "inside")
        .device("d/null", 1, 3)
        .file("d/null", "mine")
        .entry("d/pipe", b'6', 0o644, "", b"")
        .file("d/pipe", "mine")
        .device("d/mem", 1, 1)
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", outside)])
        .dir("d", 0o755)
        .file(".wh..wh.plnk/1", "x")
        .pax(&[("size", "5")])
        .entry("d/sized", b'0', 0o6755, "", b"hello")
        .pax(&[("uid", "1000"), ("gid", "1000")])
        .entry("d/su", b'0', 0o6755, "", b"x");
    let second = tarball().file("out/passwd", "second").file("out/.wh.gone", "");
    let layout = Layout::new(&[first.bytes(), second.bytes()], Pack::Gzip);
    let image = yard.unpack(&layout, "").unwrap();
    let (low, high) = (image.join("layers/0"), image.join("layers/1"));
    let inside = low.join(outside.trim_start_matches('/')).join("new");
    assert_eq!(fs::read_to_string(inside).unwrap(), "inside");
    for name in ["f", "d/null", "d/pipe"] {
        assert_eq!(fs::read_to_string(low.join(name)).unwrap(), "mine", "{name}");
        assert!(fs::symlink_metadata(low.join(name)).unwrap().is_file(), "{name}");
    }
    assert!(fs::symlink_metadata(low.join("link")).unwrap().is_dir());
    assert!(fs::symlink_metadata(low.join("d/mem")).unwrap().file_type().is_char_device());
    assert!(!low.join(".wh..wh.plnk").exists());
    let su = fs::metadata(low.join("d/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o6755, 1000, 1000));
    // A link of a lower layer is not followed: this layer has a directory in its place.
    assert_eq!(fs::read_to_string(high.join("out/passwd")).unwrap(), "second");
    assert!(fs::symlink_metadata(high.join("out")).unwrap().is_dir());
    let json = fs::read_to_string(image.join("image.json")).unwrap();
    for wanted in ["trusted.overlay.redirect", "aufs"] {
        assert!(json.contains(wanted), "{wanted}: {json}");
    }
}
