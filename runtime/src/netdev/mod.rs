//! `linux.netDevices`: network devices of the host that move into a container's
//! network namespace.
//!
//! The engine moves them while init waits, before anything in the container can
//! look at them. They keep their permanent global addresses and come up. Until
//! the container exists they can go back: what a failed create would take into
//! a dying namespace might be the host's only such device. Later they never do;
//! the kernel returns hardware by itself when the namespace ends.

mod netlink;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use boathook_init::List;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use crate::{Error, ErrorKind, Result};
use netlink::{Address, Link, Route};

/// Devices that have moved. Dropped without [`Moved::keep`] they go back.
#[derive(Debug)]
pub(crate) struct Moved {
    home: (Route, OwnedFd),
    there: (Route, OwnedFd),
    devices: Vec<Device>,
}

/// One that has moved, and what it was at home.
#[derive(Debug)]
struct Device {
    name: String,
    /// Its number in the container.
    index: i32,
    up: bool,
    addresses: Vec<Address>,
}

/// Moves the devices `names` into the network namespace of the process `pid`,
/// where they are called `inside`, in the same order.
///
/// # Errors
/// Naming the device: `InvalidInput` for one that does not exist or cannot be
/// moved, and for a name that is taken. Then none has moved.
pub(crate) fn move_all(names: List<'_>, inside: List<'_>, pid: i32) -> Result<Moved> {
    let failed = |what: &str, e: std::io::Error| Error::sys(format!("linux.netDevices: {what}"), e);
    let open = |path: String| File::open(path).map(OwnedFd::from);
    let home = open("/proc/thread-self/ns/net".to_owned())
        .map_err(|e| failed("open the host's network namespace", e))?;
    let there = open(format!("/proc/{pid}/ns/net"))
        .map_err(|e| failed("open the container's network namespace", e))?;
    let socket = |e: Errno| Error::sys("linux.netDevices: socket(NETLINK_ROUTE)", e);
    let routes = (
        Route::open().map_err(socket)?,
        within(there.as_fd(), home.as_fd(), Route::open)?.map_err(socket)?,
    );
    let mut moved = Moved { home: (routes.0, home), there: (routes.1, there), devices: Vec::new() };
    for (name, inside) in names.iter().zip(inside.iter()) {
        moved.take(&name.to_string_lossy(), &inside.to_string_lossy())?;
    }
    Ok(moved)
}

impl Moved {
    /// The container exists: they are its own now.
    pub(crate) fn keep(mut self) {
        self.devices.clear();
    }

    fn take(&mut self, name: &str, inside: &str) -> Result<()> {
        let field = format!("linux.netDevices.{name}");
        let failed = |what: &str, errno: Errno| kind(Error::sys(format!("{field}: {what}"), errno));
        let (home, _) = &mut self.home;
        let links = home.links().map_err(|e| failed("list the host's devices", e))?;
        let Some(link) = links.into_iter().find(|link| link.name == name) else {
            return Err(Error::field(&field, "the host has no such network device"));
        };
        let addresses = home.addresses(link.index).map_err(|e| failed("list its addresses", e))?;
        let (there, namespace) = &mut self.there;
        let before = there.links().map_err(|e| failed("list the container's devices", e))?;
        if before.iter().any(|other| other.name == inside) {
            let problem = format!("{inside:?} exists in the container's network namespace");
            return Err(Error::field(format!("{field}.name"), problem));
        }
        home.move_to(link.index, namespace.as_fd(), inside)
            .map_err(|e| failed(&format!("move it into the container as {inside:?}"), e))?;
        let after = there.links().map_err(|e| failed("list the container's devices", e))?;
        let is_new = |link: &&Link| before.iter().all(|other| other.index != link.index);
        let index = after.iter().find(|link| link.name == inside || is_new(link));
        let Some(index) = index.map(|link| link.index) else {
            return Err(Error::new(ErrorKind::Internal, format!("{field}: lost on its way")));
        };
        // From here on it goes back if anything fails.
        let device = Device { name: name.to_owned(), index, up: link.up, addresses };
        self.devices.push(device);
        for address in &self.devices[self.devices.len() - 1].addresses {
            there
                .add_address(index, address)
                .map_err(|e| failed(&format!("add its address {address}"), e))?;
        }
        there.set_up(index).map_err(|e| failed("bring it up", e))
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        let (home, namespace) = &mut self.home;
        // A device that cannot go back has been told about in no other way.
        for device in self.devices.drain(..).rev() {
            let back = self.there.0.move_to(device.index, namespace.as_fd(), &device.name);
            let links = if back.is_ok() { home.links() } else { Ok(Vec::new()) };
            let link = links.ok().and_then(|l| l.into_iter().find(|l| l.name == device.name));
            let Some(link) = link else { continue };
            for address in &device.addresses {
                let _ = home.add_address(link.index, address);
            }
            if device.up {
                let _ = home.set_up(link.index);
            }
        }
    }
}

/// What the kernel refuses about a device is wrong in the config.
fn kind(error: Error) -> Error {
    let source = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<std::io::Error>());
    match source.and_then(std::io::Error::raw_os_error) {
        Some(libc::EINVAL | libc::EEXIST | libc::ENODEV | libc::EOPNOTSUPP) => {
            error.with_kind(ErrorKind::InvalidInput)
        }
        _ => error,
    }
}

/// Runs `work` with this thread in the network namespace `there`, and comes back to `home`.
fn within<T>(there: BorrowedFd<'_>, home: BorrowedFd<'_>, work: impl FnOnce() -> T) -> Result<T> {
    setns(there, CloneFlags::CLONE_NEWNET)
        .map_err(|e| Error::sys("linux.netDevices: setns(network namespace)", e))?;
    let result = work();
    if setns(home, CloneFlags::CLONE_NEWNET).is_err() {
        // This thread would go on in a container's network: there is no safe way on.
        std::process::abort();
    }
    Ok(result)
}
