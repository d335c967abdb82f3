//! Images that real daemons pull from a registry, unpacked by `boathook unpackd`: the same trees
//! as their own differ makes, while either of the two is killed and started again.

// The whole file is tests, helpers included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod corpus;
#[path = "../../../fs/tests/root_layer/everything.rs"]
mod everything;
#[path = "../../../cli/tests/root_image/layout.rs"]
mod layout;
mod pulls;
mod registry;
mod server;
#[path = "../../../fs/tests/root_layer/snapshot.rs"]
mod snapshot;
#[path = "../../../fs/tests/root_layer/tarball.rs"]
mod tarball;
mod terminal;
mod trees;

use layout::{Blob, Layout, Pack};
use registry::{Registry, SLOW, SLOW_TOO};
use rootfs_tests::census::Census;
use rootfs_tests::containerd::{CRI_NAMESPACE, Daemon};
use rootfs_tests::packages::Release;
use rootfs_tests::unpackd::Unpackd;
use tarball::Tarball;

fn tarball() -> Tarball {
    Tarball::default()
}

/// Layers that need each other, each compressed in another way.
fn image() -> Layout {
    let first = tarball()
        .dir(".", 0o755)
        .pax(&[("uid", "7"), ("gid", "8"), ("SCHILY.xattr.user.kept", "v")])
        .dir("dir", 0o2750)
        .file("dir/a", "a")
        .dir("opaque", 0o755)
        .file("opaque/a", "a")
        .symlink("link", "dir/a")
        .hard_link("again", "dir/a")
        .device("null", 1, 3)
        .entry("su", b'0', 0o4755, "", &vec![b's'; 300_000])
        .file("gone", "x");
    let second = tarball()
        .dir(".", 0o755)
        .file("dir/new", "b")
        .file(".wh.gone", "")
        .file("opaque/.wh..wh..opq", "");
    let third = tarball().dir(".", 0o755).file("dir/third", "c").file("opaque/z", "z");
    let packs = [Pack::Gzip, Pack::Zstd, Pack::Plain];
    let archives = [first, second, third].map(Tarball::bytes);
    Layout {
        blobs: archives.iter().zip(packs).map(|(bytes, pack)| Blob::new(bytes, pack)).collect(),
    }
}

/// A second layer that hides all of the first, of which it has one name too.
fn opaque() -> Layout {
    let first = tarball().file("file", "x").dir("both", 0o755).file("both/old", "x");
    let second = tarball().file("new", "x").dir("both", 0o755).file(".wh..wh..opq", "");
    Layout::new(&[first.bytes(), second.bytes()], Pack::Gzip)
}

/// A second layer that hides what the first has, and what it has not.
fn unknown() -> Layout {
    let first = tarball().file("seen", "x").dir("dir", 0o755).file("dir/seen", "x");
    let second = tarball().file(".wh.seen", "").file(".wh.unseen", "");
    let second = second.dir("dir", 0o755).file("dir/.wh.unseen", "").file("dir/new", "x");
    Layout::new(&[first.bytes(), second.bytes()], Pack::Gzip)
}

/// One layer of its own.
fn small(name: &str) -> Layout {
    Layout::new(&[tarball().dir(".", 0o755).file(name, name).bytes()], Pack::Gzip)
}

/// Red when a layer goes to another differ in silence, when the tree is not what the daemon's own
/// differ makes, or when the end of either process is the end of both.
fn pulls(release: Release) {
    let before = Census::take().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (name, layout) in [
        ("whole", image()),
        ("opaque", opaque()),
        ("second", small("second")),
        ("third", small("third")),
        ("unknown", unknown()),
        ("by-ctr", small("by-ctr")),
        ("by-client", small("by-client")),
        (SLOW, small("slow")),
        (SLOW_TOO, small("slow too")),
        ("hostile", Layout::new(&[tarball().file("../out", "x").bytes()], Pack::Gzip)),
    ] {
        layout.write(&dir.path().join(name));
    }
    // Once is enough: it is ours that is compared, not the daemon.
    let corpus = release == Release::Sid;
    if corpus {
        corpus::layout(dir.path()).write(&dir.path().join("corpus"));
    }
    let (registry, holder) = Registry::start(dir.path());

    let mut daemon = Daemon::with_differ(release).unwrap();
    registry.introduce(&daemon);
    let mut unpackd = Unpackd::start(&daemon).unwrap();
    let pull = |daemon: &Daemon, name: &str| daemon.cri().unwrap().pull(&registry.image(name));
    pull(&daemon, "whole").unwrap();
    assert_eq!(unpackd.applied(), 3, "{}", unpackd.log());
    let ours = trees::of(&daemon);
    assert_eq!(ours.len(), 3);

    // containerd mounts every layer, so what an opaque root hides has to be hidden by name.
    pull(&daemon, "opaque").unwrap();
    assert_eq!(unpackd.applied(), 5, "{}", unpackd.log());
    trees::assert_hides(&trees::of(&daemon)[4], &["both", "file"], &["new"]);

    // What it cannot do goes to the daemon's own differ: the changes of a snapshot.
    let whole = trees::committed(&daemon);
    let above = whole.iter().find(|row| row.len() == 3).unwrap();
    daemon.ctr(CRI_NAMESPACE).ok(&["snapshots", "diff", &above[1], &above[0]]).unwrap();

    // The daemon says why it refuses an image, and nothing of it is left.
    let error = pull(&daemon, "hostile").unwrap_err().to_string();
    assert!(error.contains("boathook: entry \"../out\""), "{error}");
    assert_eq!(trees::committed(&daemon), whole);
    assert!(!daemon.cri().unwrap().has_image(&registry.image("hostile")).unwrap());

    daemon.kill().unwrap();
    daemon.up().unwrap();
    pull(&daemon, "second").unwrap();
    assert_eq!(unpackd.applied(), 6, "{}", unpackd.log());
    unpackd.kill().unwrap();
    assert!(unpackd.socket().exists(), "nothing was in the way of the next one");
    unpackd = Unpackd::start(&daemon).unwrap();
    pull(&daemon, "third").unwrap();
    assert_eq!(unpackd.applied(), 1, "{}", unpackd.log());
    pull(&daemon, "unknown").unwrap();
    assert_eq!(unpackd.applied(), 3, "{}", unpackd.log());
    let seen = trees::of(&daemon).pop().unwrap();
    trees::assert_hides(&seen, &["seen"], &["dir", "dir/new"]);
    assert_eq!(pulls::by_ctr(&daemon, &registry, release), unpackd.applied() - 3);
    pulls::across_restarts(&mut daemon, &mut unpackd, &registry, &holder);
    let corpus = corpus.then(|| {
        pull(&daemon, "corpus").unwrap();
        assert_eq!(unpackd.applied(), 3, "{}", unpackd.log());
        trees::of(&daemon).pop().unwrap()
    });
    unpackd.end().unwrap();
    daemon.end().unwrap();

    let stock = Daemon::start(release).unwrap();
    registry.introduce(&stock);
    pull(&stock, "whole").unwrap();
    trees::assert_same(&ours, &trees::of(&stock));
    if let Some(ours) = corpus {
        pull(&stock, "corpus").unwrap();
        trees::assert_same_but_root(&ours, &trees::of(&stock).pop().unwrap());
    }
    stock.end().unwrap();
    before.assert_same().unwrap();
}

#[test]
fn root_pulls_of_containerd_1_7() {
    pulls(Release::Trixie);
}

#[test]
fn root_pulls_of_containerd_2_1() {
    pulls(Release::Sid);
}

/// Red when others than root can connect, the socket that systemd holds is not taken, or a want of
/// descriptors is the end.
#[test]
fn root_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    server::units_are_right();
    server::own_socket_is_private(dir.path());
    server::a_want_of_descriptors_passes(dir.path());
    server::handed_over_socket_is_taken(dir.path());
}

/// Red when who looks at a terminal is not told how far it is, or a log file gets control characters.
#[test]
fn root_a_terminal_shows_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    terminal::shows_a_bar(dir.path());
}

fn root_of(daemon: &Daemon) -> std::path::PathBuf {
    daemon.dir().join("root")
}
