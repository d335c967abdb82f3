//! A layer that is large and has something of everything.

use std::fs;
use std::path::Path;

use rootfs_tests::packages::{Packages, Release};

use super::everything::{POSIX, age, fill, tar};
use super::layout::{Layout, Pack};

/// The files of Debian packages and, beside them, owners, modes, attributes, links, devices, long
/// names, holes and times of every kind.
pub(crate) fn layout(dir: &Path) -> Layout {
    let (tree, archive) = (dir.join("everything"), dir.join("everything.tar"));
    fs::create_dir(&tree).unwrap();
    fill(&tree);
    age(&tree);
    let packages = Packages::get(Release::Bookworm).unwrap().cache().join("root");
    let packages = packages.to_str().unwrap();
    // The largest programs are many times as many bytes and no other kind of file.
    let more = ["--sparse", "--exclude=*/containerd*", "--exclude=*/cni/*", "-C", packages, "."];
    let own = ["-C", tree.to_str().unwrap()];
    tar(&tree, &archive, &[&POSIX[..], &more, &own].concat());
    Layout::new(&[fs::read(archive).unwrap()], Pack::Zstd)
}
