//! The trees of a daemon's overlay snapshots.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rootfs_tests::containerd::{CRI_NAMESPACE, Daemon};

use super::root_of;
use super::snapshot::{self, Item};

type Tree = BTreeMap<PathBuf, Item>;

/// In the order in which they were made.
pub(crate) fn of(daemon: &Daemon) -> Vec<Tree> {
    let dir = root_of(daemon).join("io.containerd.snapshotter.v1.overlayfs/snapshots");
    let names = fs::read_dir(&dir).unwrap().map(|item| item.unwrap().file_name());
    let mut numbers: Vec<u64> = names.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.iter().map(|number| snapshot::of(&dir.join(number.to_string()).join("fs"))).collect()
}

/// The snapshots that are whole, each as KEY PARENT KIND; the lowest have no parent.
pub(crate) fn committed(daemon: &Daemon) -> Vec<Vec<String>> {
    let table = daemon.ctr(CRI_NAMESPACE).ok(&["snapshots", "ls"]).unwrap().text();
    let rows = table.lines().map(|line| line.split_whitespace().map(str::to_owned));
    let mut whole: Vec<Vec<String>> = rows.map(Iterator::collect).collect();
    whole.retain(|row| row.last().is_some_and(|kind| kind == "Committed"));
    whole.sort();
    whole
}

/// That nothing of lower layers' `names` is seen, and nothing is hidden but these.
pub(crate) fn assert_hides(tree: &Tree, names: &[&str], more: &[&str]) {
    let mut all = [names, more].concat();
    all.sort_unstable();
    let there: Vec<_> = tree.keys().skip(1).map(|path| path.to_str().unwrap()).collect();
    assert_eq!(there, all);
    for name in names {
        let item = &tree[Path::new(name)];
        let opaque = item.xattrs.get(&b"trusted.overlay.opaque"[..]);
        assert!(is_whiteout(item) || opaque == Some(&b"y".to_vec()), "{name}");
    }
}

/// The time of every entry, as `Tarball` writes it.
const TIME: i64 = 0o14_524_250_400;

/// All that is seen of a file, but for what is known to differ: the metadata of a layer's root,
/// which containerd leaves out; the times of whiteouts, which the clock sets; and those of
/// directories that a layer has no entry for. containerd copies a lower layer's time and then puts
/// files into the directory, which sets it again.
pub(crate) fn assert_same(ours: &[Tree], stock: &[Tree]) {
    assert_eq!(ours.len(), stock.len());
    for (at, (ours, stock)) in ours.iter().zip(stock).enumerate() {
        let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(ours), names(stock), "layer {at}");
        for (path, item) in ours.iter().skip(1) {
            let mut other = stock[path].clone();
            if is_whiteout(item) || (is_directory(item) && other.modified.0 != TIME) {
                other.modified = item.modified;
            }
            assert_eq!(*item, other, "layer {at}: {}", path.display());
            assert!(is_whiteout(item) || item.modified == (TIME, 0), "layer {at}: {path:?}");
        }
    }
}

/// The same of layers with an entry for each of their directories: only the root's metadata differs.
pub(crate) fn assert_same_but_root(ours: &Tree, stock: &Tree) {
    assert!(ours.len() > 500, "{} files are not many", ours.len());
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(ours), names(stock));
    for (path, item) in ours.iter().skip(1) {
        // Contents are too long to be shown.
        assert!(item.content == stock[path].content, "{}: content", path.display());
        let without = |item: &Item| Item { content: Vec::new(), ..item.clone() };
        assert_eq!(without(item), without(&stock[path]), "{}", path.display());
    }
}

fn is_whiteout(item: &Item) -> bool {
    item.mode & 0o170_000 == 0o020_000 && item.device == 0
}

fn is_directory(item: &Item) -> bool {
    item.mode & 0o170_000 == 0o040_000
}
