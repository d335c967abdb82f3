//! Whiteouts, by what overlayfs makes of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use boathook_fs::layer::{self, Applied, Expected, Format, Options};
use boathook_fs::root::Root;
use nix::mount::{MsFlags, mount};

use super::common::{dir, in_private_namespace};
use super::{Tarball, Yard, quick, snapshot};

/// All paths below `root` that can be listed *and* looked up.
fn paths(root: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut todo = vec![root.to_owned()];
    while let Some(at) = todo.pop() {
        for item in fs::read_dir(&at).unwrap() {
            let path = item.unwrap().path();
            let meta = fs::symlink_metadata(&path)
                .unwrap_or_else(|e| panic!("{} is listed: {e}", path.display()));
            all.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    all
}

/// What is seen of a lower layer with all of these under `upper`.
const LOWER: [&str; 8] =
    ["keep", "gone", "dir/a", "dir/b", "opaque/a", "opaque/b", "again/a", "tree/x/y"];

fn merged(upper: Tarball) -> BTreeSet<String> {
    in_private_namespace(move |base| {
        let lower = dir(base.join("lower"));
        for name in LOWER {
            let path = lower.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "lower").unwrap();
        }
        let target = base.join("upper");
        boathook_fs::layer::apply(
            &upper.bytes()[..],
            boathook_fs::layer::Format::Plain,
            boathook_fs::layer::Expected::default(),
            &target,
            &quick(),
        )
        .unwrap();
        let on = dir(base.join("on"));
        let data = format!("lowerdir={}:{}", target.display(), lower.display());
        mount(Some("overlay"), &on, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
            .unwrap();
        paths(&on)
    })
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Red when a whiteout hides nothing, hides too much, or shows a name that
/// cannot be looked up (one in an opaque directory does).
#[test]
fn root_what_is_hidden_is_gone_and_the_rest_is_there() {
    let upper = Tarball::default()
        .file(".wh.gone", "")
        .file(".wh.not-there", "")
        .file("dir/.wh.a", "")
        .file("dir/new", "x")
        .file("opaque/.wh.b", "")
        .file("opaque/new", "x")
        .file("opaque/.wh..wh..opq", "")
        .dir("again", 0o755)
        .file("again/new", "x")
        .file(".wh.again", "")
        .file(".wh.tree", "")
        .file(".wh..wh.plnk/1", "x");
    let wanted = ["keep", "dir", "dir/b", "dir/new", "opaque", "opaque/new", "again", "again/new"];
    assert_eq!(merged(upper), set(&wanted));
}

/// A name that the same layer hides and has is the layer's, in either order.
#[test]
fn root_a_layers_own_entry_outlives_its_whiteout() {
    let upper = Tarball::default()
        .file(".wh.gone", "")
        .file("gone", "new")
        .file("keep", "new")
        .file(".wh.keep", "")
        .file(".wh.tree", "")
        .dir("tree", 0o755)
        .file("tree/.wh.x", "")
        .file("dir/.wh.a", "")
        .file("dir", "a file now");
    let wanted =
        ["gone", "keep", "tree", "dir", "opaque", "opaque/a", "opaque/b", "again", "again/a"];
    assert_eq!(merged(upper), set(&wanted));
}

#[test]
fn root_an_opaque_root_is_told_and_a_first_layer_has_no_whiteouts() {
    let yard = Yard::new();
    let tarball = || {
        Tarball::default()
            .file(".wh..wh..opq", "")
            .file(".wh.x", "")
            .file("d/.wh.y", "")
            .file("z", "")
    };
    let (layer, report) = yard.apply(tarball()).unwrap();
    assert!(report.root_opaque);
    assert_eq!(paths(&layer), set(&["d", "z"]));
    let first = Options { first: true, ..quick() };
    let bytes = Tarball::default().file("d/.wh.y", "").file("e/.wh..wh..opq", "").bytes();
    let (layer, report) = yard.apply_bytes(&bytes, &first).unwrap();
    assert!(!report.root_opaque);
    let tree = super::snapshot::of(&layer);
    assert_eq!(paths(&layer), set(&["d", "e"]));
    assert!(tree.values().all(|item| item.xattrs.is_empty()));
}

/// Red when a whiteout of a name that nobody has is left, where overlayfs may list what it cannot
/// find; when one that is needed goes; or when a directory's time tells of it.
#[test]
fn root_whiteouts_of_names_that_nobody_has_go() {
    in_private_namespace(|base| {
        let apply = |name: &str, tarball: Tarball| {
            let (format, expected) = (Format::Plain, Expected::default());
            let target = base.join(name);
            let bytes = tarball.bytes();
            let report = layer::apply(&bytes[..], format, expected, &target, &quick()).unwrap();
            (target, report)
        };
        let tarball = Tarball::default;
        let lowest = tarball().file("keep", "x").file("gone", "x").file("dir/a", "x");
        let lowest = lowest.file("dir/gone", "x").file("old/a", "x");
        let (lowest, _) = apply("lowest", lowest);
        let middle = tarball().file(".wh.gone", "").file("dir/.wh.gone", "");
        let (middle, _) = apply("middle", middle.file("old/.wh..wh..opq", ""));
        let upper = tarball()
            .dir("new", 0o755)
            .file("new/file", "x")
            .file("new/.wh.x", "")
            .dir("dir", 0o755)
            .file("dir/.wh.x", "")
            .file("dir/.wh.a", "")
            .file("dir/.wh.gone", "")
            .file("old/.wh.a", "")
            .file(".wh.gone", "")
            .file(".wh.never", "")
            .file(".wh.keep", "");
        let (upper, report) = apply("upper", upper);
        let open = |path: &Path| Root::open(path).unwrap();
        let below = [&middle, &lowest];
        let below = below.map(|path| Applied { root: open(path), root_opaque: false });
        let before = snapshot::of(&upper);
        layer::prune(&open(&upper), &report.whiteouts, &below).unwrap();
        let after = snapshot::of(&upper);
        assert!(before.len() > after.len());
        let left: Vec<_> = after.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(left, ["", "dir", "dir/a", "keep", "new", "new/file", "old"]);
        assert!(after.iter().all(|(path, item)| before[path] == *item), "{before:?}\n{after:?}");
        let on = dir(base.join("on"));
        let dirs = [&upper, &middle, &lowest].map(|path| path.display().to_string());
        let data = format!("lowerdir={}", dirs.join(":"));
        mount(Some("overlay"), &on, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
            .unwrap();
        assert_eq!(paths(&on), set(&["dir", "new", "new/file", "old"]));
        // The middle one hides all of it: nothing below counts.
        let below = [&middle, &lowest].map(|path| Applied { root: open(path), root_opaque: true });
        layer::prune(&open(&upper), &report.whiteouts, &below).unwrap();
        assert_eq!(snapshot::of(&upper).len(), 5);
    });
}
