//! Pulls by other ways than CRI, and across restarts.

use rootfs_tests::containerd::{CRI_NAMESPACE, Daemon};
use rootfs_tests::packages::Release;
use rootfs_tests::unpackd::Unpackd;

use super::registry::{Holder, Registry, SLOW, SLOW_TOO};

/// `ctr`, which pulls by itself and has the diff service apply; since 2.1 it leaves both to the
/// transfer service unless it is told not to. Returns how many layers that makes.
pub(crate) fn by_ctr(daemon: &Daemon, registry: &Registry, release: Release) -> usize {
    let ctr = daemon.ctr(CRI_NAMESPACE);
    let pull = ["image", "pull", "--plain-http"];
    ctr.ok(&[&pull[..], &[&registry.image("by-ctr")]].concat()).unwrap();
    if release != Release::Sid {
        return 1;
    }
    ctr.ok(&[&pull[..], &["--local", &registry.image("by-client")]].concat()).unwrap();
    2
}

/// Either of the two is killed while a layer is on its way, and started again: the pull that was
/// under way ends well when the daemon lives, and can be made again when not.
pub(crate) fn across_restarts(
    daemon: &mut Daemon,
    unpackd: &mut Unpackd,
    registry: &Registry,
    holder: &Holder,
) {
    let image = registry.image(SLOW);
    registry.hold();
    let cri = daemon.cri().unwrap();
    let pulled = std::thread::scope(|scope| {
        let pull = scope.spawn(|| cri.pull(&image));
        holder.wait();
        unpackd.kill().unwrap();
        *unpackd = Unpackd::start(daemon).unwrap();
        holder.let_go();
        pull.join().unwrap()
    });
    pulled.unwrap();
    assert_eq!(unpackd.applied(), 1, "{}", unpackd.log());

    let image = registry.image(SLOW_TOO);
    registry.hold();
    std::thread::scope(|scope| {
        let pull = scope.spawn(|| cri.pull(&image));
        holder.wait();
        daemon.kill().unwrap();
        holder.let_go();
        pull.join().unwrap().unwrap_err();
    });
    daemon.up().unwrap();
    daemon.cri().unwrap().pull(&image).unwrap();
    assert_eq!(unpackd.applied(), 2, "{}", unpackd.log());
}
