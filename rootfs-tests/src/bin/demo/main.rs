//! One pod with two containers under a private containerd, once on boathook and
//! once on the stock runc shim, step by step and side by side; in the end the
//! machine is compared with what it was.
//!
//! `cargo xtask demo` builds the programs and starts this.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program talks to the person who started it"
)]

mod layers;
mod pod;
mod stop;
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pod::{Pod, Step};
use rootfs_tests::census::Census;
use rootfs_tests::containerd::{CRI_NAMESPACE, Daemon};
use rootfs_tests::packages::{Packages, Release};
use rootfs_tests::{Error, Result, host, workspace};
use table::Table;

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo stopped: {error}");
            if let Error::Missing { .. } = error {
                eprintln!("Then run `cargo xtask demo` again.");
            }
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    host::need_root()?;
    need_hosts()?;
    let shim = workspace::shim()?;
    let size = std::fs::metadata(&shim).map_or(0, |m| m.len());
    println!("The shim under test is one static file of {} KiB.", size >> 10);

    let packages = took("Debian's containerd, runc and busybox, in a private directory", || {
        Packages::get(layers::RELEASE)?;
        Packages::get(Release::Bookworm)
    })?;
    // Taken here: the packages stay, like everything that was built.
    host::exclusive()?;
    let before = Census::take()?;

    let mut daemon =
        took("a containerd of our own is up, with handlers `boathook` and `runc`", || {
            Daemon::start(packages.release)
        })?;
    println!("  (everything it has is in {})", daemon.dir().display());
    let outcome = pods(&daemon).and_then(|()| stop::show(&mut daemon));
    let outcome =
        outcome.map_err(|error| Error::check(format!("{error}\n\n{}", daemon.log_tail())));
    let ended = daemon.end();
    outcome?;
    ended?;
    layers::show()?;

    before.assert_same()?;
    println!(
        "\nNothing is left behind: processes, mounts, cgroups, network namespaces and links, \
         sockets and files are what they were."
    );
    Ok(())
}

/// Every Debian installation has this file, a bare chroot has not.
fn need_hosts() -> Result<()> {
    if Path::new("/etc/hosts").exists() {
        return Ok(());
    }
    Err(Error::Missing {
        what: "/etc/hosts, which containerd copies for every pod,".into(),
        remedy: "write one, for example with the line `127.0.0.1 localhost`".into(),
    })
}

fn pods(daemon: &Daemon) -> Result<()> {
    took("an image made of busybox is imported", || daemon.import(CRI_NAMESPACE))?;
    let cri = Rc::new(daemon.cri()?);
    let runtime = cri.version()?;
    println!("  ({} {}, CRI v1)", runtime.runtime_name, runtime.runtime_version);

    took("one pod on each, not counted: the first pays for cold files", || {
        ["runc", "boathook"].into_iter().try_for_each(|handler| {
            let mut pod = Pod::new(&cri, daemon, handler, "first")?;
            pod::BEGIN.iter().chain(pod::END).try_for_each(|step| (step.run)(&mut pod).map(drop))
        })
    })?;

    println!(
        "\nA pod with two containers on each of the two; milliseconds as the caller saw them:"
    );
    let mut table = Table::new();
    let mut stock = Pod::new(&cri, daemon, "runc", "pod")?;
    let mut ours = Pod::new(&cri, daemon, "boathook", "pod")?;
    side_by_side(&mut table, pod::BEGIN, &mut ours, &mut stock)?;
    let memory = (ours.shim_memory()?, stock.shim_memory()?);
    side_by_side(&mut table, pod::END, &mut ours, &mut stock)?;
    table.total();
    table.memory(memory.0, memory.1);
    Ok(())
}

fn side_by_side(table: &mut Table, steps: &[Step], ours: &mut Pod, stock: &mut Pod) -> Result<()> {
    for step in steps {
        let on = |handler: &str, error: Error| {
            Error::check(format!("{} on {handler}: {error}", step.name))
        };
        let (_, theirs) = timed(|| (step.run)(stock)).map_err(|e| on("the runc shim", e))?;
        let (seen, own) = timed(|| (step.run)(ours)).map_err(|e| on("boathook", e))?;
        table.line(step.name, own, theirs, &seen);
    }
    Ok(())
}

/// Does something that is not compared, and says how long it took.
fn took<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (value, time) = timed(work)?;
    println!("- {what} ({:.1} s)", time.as_secs_f64());
    Ok(value)
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let start = Instant::now();
    let value = work()?;
    Ok((value, start.elapsed()))
}
