//! What images look like when they are mounted.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::layout::{Layout, Pack};
use super::{Yard, base, paths, snapshot, tarball, untimed};

/// Layers that need each other: what is hidden, what is opaque, directories without an entry.
fn layers() -> Vec<Vec<u8>> {
    let first = tarball()
        .pax(&[("uid", "7"), ("gid", "8"), ("SCHILY.xattr.user.kept", "v")])
        .dir("dir", 0o2750)
        .file("dir/a", "a")
        .dir("opaque", 0o755)
        .file("opaque/a", "a")
        .file("gone", "x");
    let second =
        tarball().file("dir/sub/new", "b").file(".wh.gone", "").file("opaque/.wh..wh..opq", "");
    let third = tarball().file("dir/third", "c").file("dir/sub/.wh.new", "").file("opaque/z", "z");
    vec![first.bytes(), second.bytes(), third.bytes()]
}

/// `script` with the image mounted on `on`, in a mount namespace that ends with it. What the
/// command mounts, it takes away again.
fn mounted(yard: &Yard, flags: &str, script: &str) -> String {
    fs::create_dir_all(yard.path("on")).unwrap();
    let inside = format!(
        "findmnt -rno TARGET > before
         $B image mount {flags} out/i on
         {script}
         $B image umount on
         findmnt -rno TARGET > after
         cmp before after
         if $B image umount on 2> again; then exit 3; fi
         grep -q 'nothing is mounted there' again"
    );
    fs::write(yard.path("inside.sh"), inside).unwrap();
    yard.good("unshare --mount --propagation private sh -eu inside.sh")
}

const LIST: &str = "cd on; find . -mindepth 1 | sort | tr '\\n' ' '; cd ..";

/// Red when the merged tree is not the image, or a directory that a layer passes through loses
/// what a lower layer says of it.
#[test]
fn root_a_mounted_image_is_what_its_layers_say() {
    let yard = Yard::new();
    for pack in [Pack::Gzip, Pack::Zstd, Pack::Plain] {
        let image = yard.unpack(&Layout::new(&layers(), pack), "").unwrap();
        let seen = mounted(&yard, "", LIST);
        assert_eq!(seen, "./dir ./dir/a ./dir/sub ./dir/third ./opaque ./opaque/z ");
        for at in 0..3 {
            let dir = fs::metadata(image.join(format!("layers/{at}/dir"))).unwrap();
            assert_eq!((dir.mode() & 0o7777, dir.uid(), dir.gid()), (0o2750, 7, 8), "layer {at}");
            let tree = snapshot::of(&image.join(format!("layers/{at}")));
            let kept = &tree[std::path::Path::new("dir")].xattrs[&b"user.kept"[..]];
            assert_eq!(kept, b"v", "layer {at}");
        }
    }
}

/// Red when `docker save`'s archive, a layout's archive or other flags make another tree.
#[test]
fn root_all_ways_to_an_image_lead_to_the_same_tree() {
    let yard = Yard::new();
    // The last layer comes twice.
    let layers = [layers(), vec![tarball().file("x", "").bytes(); 2]].concat();
    let image = yard.unpack(&Layout::new(&layers, Pack::Gzip), "--workers 1").unwrap();
    let wanted = untimed(&image.join("layers"));
    Layout::save(&layers, &yard.path("saved"));
    yard.good("tar -C image -cf layout.tar . && tar -C saved -cf saved.tar .");
    for (source, flags) in [
        ("image", "--workers 8 --name tried"),
        ("layout.tar", ""),
        ("saved.tar", "--name tried:1"),
        ("saved", ""),
    ] {
        yard.good("rm -r out/i");
        let json = yard.good(&format!("$B image unpack --json {flags} {source} out/i"));
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["layers"].as_array().unwrap().len(), 5, "{source}");
        assert!(untimed(&yard.path("out/i/layers")) == wanted, "{source}");
    }
    for (script, wanted) in [
        (
            "$B image unpack --name other image out/j",
            "image \"other\" is not there; there are: tried",
        ),
        ("$B image unpack image out/i", "File exists"),
        ("gzip -k saved.tar; $B image unpack saved.tar.gz out/j", "decompress it first"),
        ("$B image unpack out out/j", "neither index.json nor manifest.json"),
        ("$B image mount out on", "image.json"),
    ] {
        let error = yard.bad(&format!("mkdir -p on; {script}"));
        assert!(error.contains(wanted), "{script}: {error}");
    }
}

/// Red when layers below an opaque root show, one layer cannot be mounted, or writing goes
/// elsewhere than it was told to.
#[test]
fn root_kinds_of_mounts() {
    let yard = Yard::new();
    let opaque = vec![base().bytes(), tarball().file(".wh..wh..opq", "").file("new", "n").bytes()];
    yard.unpack(&Layout::new(&opaque, Pack::Gzip), "").unwrap();
    assert_eq!(mounted(&yard, "", LIST), "./new ");
    let only_read = "if touch on/x 2> /dev/null; then exit 4; fi";
    mounted(&yard, "", only_read);
    mounted(&yard, "--writable w --volatile", "echo written > on/x; rm on/new");
    assert_eq!(fs::read_to_string(yard.path("w/upper/x")).unwrap(), "written\n");
    yard.unpack(&Layout::new(&[base().bytes()], Pack::Gzip), "").unwrap();
    assert_eq!(mounted(&yard, "", &format!("{only_read}; {LIST}")), "./d ./etc ./etc/passwd ");
}

/// As many layers as overlayfs takes.
#[test]
fn root_five_hundred_layers() {
    let yard = Yard::new();
    let layer = |at: usize| tarball().file(&format!("d/{at:03}"), "x").bytes();
    let layers: Vec<_> = (0..500).map(layer).collect();
    yard.unpack(&Layout::new(&layers, Pack::Plain), "").unwrap();
    assert_eq!(mounted(&yard, "", "ls on/d | wc -l"), "500\n");
}

/// Red when an id on disk is not the mapped one, or one without a place is taken.
#[test]
fn root_owners_are_shifted() {
    let yard = Yard::new();
    let map = |count: u32| format!("--map-users 0:100000:{count} --map-groups 0:200000:{count}");
    let image = yard.unpack(&Layout::new(&layers(), Pack::Gzip), &map(65536)).unwrap();
    for at in 0..3 {
        let root = image.join(format!("layers/{at}"));
        for path in &paths(&root) {
            let meta = fs::symlink_metadata(root.join(path)).unwrap();
            // A whiteout is nobody's.
            if meta.file_type().is_char_device() {
                continue;
            }
            let wanted = if path == "dir" { (100_007, 200_008) } else { (100_000, 200_000) };
            assert_eq!((meta.uid(), meta.gid()), wanted, "layer {at}, {path}");
        }
        let meta = fs::metadata(&root).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (100_000, 200_000), "layer {at}");
    }
    let error = yard.unpack(&Layout::new(&layers(), Pack::Gzip), &map(7)).unwrap_err();
    assert!(error.contains("entry \"dir\": owner 7 is not in the mapping"), "{error}");
}

/// In a user namespace there are no device nodes and other attributes; the mount made there shows
/// the same tree.
#[test]
fn root_unpacked_and_mounted_in_a_user_namespace() {
    let yard = Yard::new();
    let mut layers = layers();
    layers[0] = tarball().device("null", 1, 3).raw(&layers[0]).bytes();
    Layout::new(&layers, Pack::Gzip).write(&yard.path("image"));
    fs::create_dir(yard.path("on")).unwrap();
    let inside = format!(
        "$B image unpack --user-namespace image out/i > told
         $B image mount out/i on
         {LIST}
         $B image umount on"
    );
    fs::write(yard.path("inside.sh"), inside).unwrap();
    let seen = in_user_namespace(&yard);
    assert_eq!(seen, "./dir ./dir/a ./dir/sub ./dir/third ./opaque ./opaque/z ");
    assert!(fs::read_to_string(yard.path("told")).unwrap().contains("device left out"));
}

/// Runs `inside.sh` as root of a user namespace with ids 0 to 69999, and gives what it printed.
fn in_user_namespace(yard: &Yard) -> String {
    let mut command = Command::new("unshare");
    command.args(["--user", "--mount", "--propagation", "private", "sh", "-euc"]);
    // The second program has what the first had not: ids, and with them capabilities.
    command.arg("echo; read go; exec sh -eu inside.sh").current_dir(yard.dir.path());
    command.env("B", env!("CARGO_BIN_EXE_boathook"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut ready = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", child.id()), "0 0 70000").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
