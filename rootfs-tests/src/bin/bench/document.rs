//! `docs/benchmarks.md`: the table, where it comes from and how to repeat it.

use std::fs;

use rootfs_tests::command::Run;
use rootfs_tests::error::{Context, Result};
use rootfs_tests::workspace;

use crate::machine::Machine;
use crate::report::{self, Row};
use crate::rig::Rig;

/// Writes the document anew.
pub(crate) fn write(rig: &Rig, rows: &[Row], load_before: &str) -> Result<()> {
    let path = workspace::root().join("docs/benchmarks.md");
    let mut text =
        text(rows, &Machine::look().to_string(), &versions(rig)?, rig.rounds, load_before);
    for why in rig.all_left_out() {
        text += &format!("\nLeft out: {why}.\n");
    }
    fs::write(&path, text).during(|| format!("write {}", path.display()))?;
    println!("written: docs/benchmarks.md");
    Ok(())
}

fn versions(rig: &Rig) -> Result<String> {
    let first_line = |program: &std::path::Path, flag: &str| -> Result<String> {
        let text = Run::new(program).arg(flag).ok()?.text();
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    };
    let rust = match rig.rust_shim {
        Some(_) => "containerd-runc-shim 0.2.0 from the Rust registry",
        None => "the runc shim in Rust could not be built here",
    };
    Ok([
        first_line(&rig.packages.containerd(), "--version")?,
        first_line(&rig.packages.runc(), "--version")?,
        first_line(&rig.crun, "--version")?,
        rust.to_owned(),
        format!("boathook {}", env!("CARGO_PKG_VERSION")),
    ]
    .join("; "))
}

fn text(rows: &[Row], machine: &str, versions: &str, rounds: usize, load: &str) -> String {
    let missed: Vec<String> = rows
        .iter()
        .filter(|row| row.missed())
        .map(|row| format!("- {} {}", row.name, row.spacing).trim_end().to_owned())
        .collect();
    let verdict = if missed.is_empty() {
        "Every bar is reached.".to_owned()
    } else {
        format!("These miss their bars:\n\n{}", missed.join("\n"))
    };
    format!(
        "# Benchmarks\n\n\
         Written by `cargo xtask bench`; repeat it with the same command, as root. Nothing else should run meanwhile.\n\n\
         **Compared:** boathook with Debian's runc shim, which executes runc or crun, and with the runc shim in Rust. {versions}.\n\
         **Machine:** {machine}; load before the run: {load}.\n\
         **Method:** {rounds} rounds after three that do not count. Every round measures both shims, and they take turns at going \
         first. Back to back means without a pause; 200 ms apart means that nothing was started for 200 ms, as on a node that starts a \
         container now and then. Median and 90th percentile are measured values. The ratio is boathook's median over the other's. Every container has \
         the seccomp profile that nodes apply by default.\n\n\
         {table}\n\
         {verdict}\n\n\
         ## What is measured\n\
         - **Create+Start+Wait+Delete**: the calls that containerd makes for a container, over one connection to a shim that is already \
         there. The container is `/bin/true` of a static busybox on an overlay, with containerd's default spec (own pid, ipc, uts, mount \
         and network namespaces, masked paths, device rules). Without stdio.\n\
         - **start of the shim**: from executing the binary to the first answer of the server behind it.\n\
         - **exec**: the same calls for `/bin/true` in a container that is running.\n\
         - **ctr run --rm**: the whole command under containerd, with the start of `ctr` itself, snapshots, stdio by fifo and clean-up. A shim \
         that does nothing at all would still take about a third of the runc shim's time here.\n\
         - **a pod by CRI**: what the kubelet calls for a pod with one container that ends at once when asked. On a network of its own, a \
         stop of the sandbox is mostly the network plugin's work and the kernel's removal of its links, with any shim; on the host's network \
         only the shim's part is left.\n\
         - **20 pods at once**: on the host's network, from the first call to the answer of the last `StartContainer`.\n\
         - **beside N containers**: the first measurement again, on a host where N containers of boathook sleep, in pods of ten, and where 1000 \
         mounts have been added; held against the same on the empty host.\n\
         - **idle**: `smaps_rollup` and `status` of a shim whose containers sleep, after 10 execs and 100 other calls each, when nobody has \
         called for five seconds; the second of three shims of its kind, because they share pages. **right after calls**: the same, before \
         those five seconds.\n\
         - **layer, N layers**: a tenth of the rounds after one that does not count, on ext4 with a journal in memory, warm, and nobody waits for the disk. \
         containerd's time is that of one call of its diff service for each layer, one after the other, as it does it itself; boathook's is that of `boathook \
         layer apply` or `boathook image unpack`, from the start of the process, and in rows with **by Apply** that of the same calls of a containerd whose \
         differ is `boathook unpackd`. CPU is that of all processes that take part, peak memory that of the daemon and of unpackd. GNU tar hashes \
         nothing, and decompresses with igzip and zstd. Many files are 20 000 of up to 400 KB, big files four with 256 MiB; the Debian base is \
         what every system has, from its packages; its 8 layers are the same packages in eight groups.\n",
        table = report::markdown(rows),
    )
}
