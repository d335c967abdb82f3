//! Whiteouts, by what overlayfs makes of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use boathook_fs::layer::Options;
use nix::mount::{MsFlags, mount};

use super::common::{dir, in_private_namespace};
use super::{Tarball, Yard, quick};

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
