//! The process that makes a request for somebody else.
//!
//! ```text
//! stdin    one line: the request as JSON; the end of it is the end of the helper
//! stdout   the report as JSON
//! stderr   not a stream: the network namespace to be entered
//! ```
//! The namespace comes on a standard descriptor because those are the only
//! ones a child is given without leaving others open to every child.

use std::io::{self, BufRead, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sched::{CloneFlags, setns};

use super::{Report, Request, get};

/// Runs the helper; everything it has to say is in the report.
///
/// # Errors
/// Nobody wants the report.
pub fn run() -> io::Result<()> {
    let report = work();
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    out.flush()
}

fn work() -> Report {
    let mut line = String::new();
    if let Err(e) = io::stdin().lock().read_line(&mut line) {
        return Report::Failed(format!("read the request: {e}"));
    }
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(e) => return Report::Failed(format!("read the request: {e}")),
    };
    let shared = match enter() {
        Ok(shared) => shared,
        Err(e) => return Report::Failed(format!("enter the pod's network: {e}")),
    };
    // Whoever wanted the answer is gone when its end of the stream is.
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(1);
    });
    get(&request, || own_address(shared))
}

/// Enters the namespace on stderr; true when it is the one we are in.
fn enter() -> io::Result<bool> {
    let stderr = io::stderr();
    let wanted = std::fs::metadata("/proc/self/fd/2")?;
    let ours = std::fs::metadata("/proc/self/ns/net")?;
    if (wanted.dev(), wanted.ino()) == (ours.dev(), ours.ino()) {
        return Ok(true);
    }
    setns(stderr.as_fd(), CloneFlags::CLONE_NEWNET)?;
    Ok(false)
}

/// The first address of the pod: that of eth0 before others, IPv4 before
/// IPv6. A pod without any is reached on its loopback; one that shares the
/// host's network has none, as for the kubelet.
fn own_address(shared: bool) -> Result<String, String> {
    const NONE: &str =
        "failed to find networking container: the pod shares the host's network; set host";
    if shared {
        return Err(NONE.to_owned());
    }
    let all = getifaddrs().map_err(|e| format!("failed to find networking container: {e}"))?;
    let candidates =
        all.filter(|a| !a.flags.contains(InterfaceFlags::IFF_LOOPBACK)).filter_map(|a| {
            let storage = a.address?;
            let v4 = storage.as_sockaddr_in().map(|s| IpAddr::V4(s.ip()));
            let v6 = storage.as_sockaddr_in6().map(|s| IpAddr::V6(s.ip()));
            Some((a.interface_name != "eth0", v4.or(v6)?))
        });
    let usable = candidates.filter(|(_, ip)| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    });
    let best = usable.min_by_key(|(other, ip)| (*other, ip.is_ipv6()));
    Ok(best.map_or_else(|| "127.0.0.1".to_owned(), |(_, ip)| ip.to_string()))
}
