//! A real OCI image made of Debian's static busybox.
//!
//! One layer, four names: [`BUSYBOX`] for containers, [`QUITTER`] for one with a stop signal of its
//! own, [`SAILOR`] for one with a user of its own, and [`PAUSE`] for pod sandboxes. The archive is an OCI image layout in a tar, as `ctr image import`
//! reads it; the same input gives the same digests.

use crate::command::Run;
use crate::error::{Context, Error, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// The image for containers: a shell by default.
pub const BUSYBOX: &str = "docker.io/library/boathook-busybox:1";
/// The same with `STOPSIGNAL SIGQUIT`.
pub const QUITTER: &str = "docker.io/library/boathook-quitter:1";
/// The same with `USER boat`.
pub const SAILOR: &str = "docker.io/library/boathook-sailor:1";
/// The image for pod sandboxes: a process that sleeps and collects orphans.
pub const PAUSE: &str = "docker.io/library/boathook-pause:1";

/// Counts up when the image's content changes.
const RECIPE: u32 = 3;

/// An ordinary user of the image, `boat`, whose primary group has the same number.
pub const USER: u32 = 1000;
/// A group, `crew`, that [`USER`] also belongs to.
pub const CREW: u32 = 2000;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/:/bin/false\n\
    boat:x:1000:1000:boat:/home/boat:/bin/sh\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nboat:x:1000:\ncrew:x:2000:boat\n";

/// As process 1 of a pod it has to collect what is handed to it; a shell's `wait` does.
const PAUSE_SCRIPT: &str = "trap 'exit 0' TERM INT; while :; do sleep 2147483647 & wait; done";

/// The image archive for this busybox, built unless `dir` has it already.
///
/// # Errors
/// The busybox does not run, or the directory cannot be written.
pub fn archive(busybox: &Path, dir: &Path) -> Result<PathBuf> {
    let path = dir.join(format!("boathook-images-{RECIPE}.tar"));
    if path.exists() {
        return Ok(path);
    }
    let part = dir.join(format!("boathook-images-{RECIPE}.{}.part", std::process::id()));
    fs::write(&part, build(busybox)?).during(|| format!("write {}", part.display()))?;
    fs::rename(&part, &path).during(|| format!("rename to {}", path.display()))?;
    Ok(path)
}

/// Puts the image's files into a directory, for bundles without a daemon.
///
/// # Errors
/// The busybox does not run, or the directory cannot be written.
pub fn unpack(busybox: &Path, root: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(std::io::Cursor::new(layer(busybox)?));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.unpack(root).during(|| format!("unpack the image to {}", root.display()))
}

/// The whole archive.
fn build(busybox: &Path) -> Result<Vec<u8>> {
    let layer = layer(busybox)?;
    let diff_id = digest(&layer);
    let mut packer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
    packer.write_all(&layer).during(|| "compress the layer")?;
    let packed = packer.finish().during(|| "compress the layer")?;
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": digest(&packed),
        "size": packed.len(),
    });

    let mut blobs = vec![packed];
    let mut manifests = Vec::new();
    let pause = ["/bin/sh", "-c", PAUSE_SCRIPT];
    let shell = ["/bin/sh"];
    let images = [
        (BUSYBOX, &shell[..], None),
        (QUITTER, &shell[..], Some(("StopSignal", "SIGQUIT"))),
        (SAILOR, &shell[..], Some(("User", "boat"))),
        (PAUSE, &pause[..], None),
    ];
    for (name, command, more) in images {
        let config = config(&diff_id, command, more).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config),
                "size": config.len(),
            },
            "layers": [layer],
        });
        let manifest = manifest.to_string().into_bytes();
        manifests.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&manifest),
            "size": manifest.len(),
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rsplit(':').next(),
            },
        }));
        blobs.extend([config, manifest]);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });

    let mut tar = Tree::new();
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", 0o644, index.to_string().as_bytes())?;
    for blob in &blobs {
        let name = digest(blob).replace("sha256:", "blobs/sha256/");
        tar.file(&name, 0o644, blob)?;
    }
    tar.finish()
}

fn config(diff_id: &str, command: &[&str], more: Option<(&str, &str)>) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut run = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": command,
        "WorkingDir": "/",
    });
    if let Some((key, value)) = more {
        run[key] = value.into();
    }
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created_by": "busybox-static" }],
    })
}

/// The layer, not compressed.
fn layer(busybox: &Path) -> Result<Vec<u8>> {
    let program = fs::read(busybox).during(|| format!("read {}", busybox.display()))?;
    let applets = Run::new(busybox).arg("--list").ok()?.text();
    let mut tar = Tree::new();
    for dir in ["bin", "etc", "home", "proc", "sys", "dev", "run", "usr", "usr/bin", "var"] {
        tar.dir(dir, 0o755, 0)?;
    }
    tar.dir("root", 0o700, 0)?;
    tar.dir("home/boat", 0o755, USER)?;
    tar.dir("tmp", 0o1777, 0)?;
    tar.file("bin/busybox", 0o755, &program)?;
    tar.file("etc/passwd", 0o644, PASSWD.as_bytes())?;
    tar.file("etc/group", 0o644, GROUP.as_bytes())?;
    // For tests of what cannot be executed.
    tar.file("bin/not-executable", 0o644, b"#!/bin/sh\n")?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        tar.link(&format!("bin/{applet}"), "busybox")?;
    }
    tar.finish()
}

fn digest(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    sum.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// A tar in memory with fixed times.
struct Tree(Builder<Vec<u8>>);

impl Tree {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, owner: u32, size: usize) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(u64::from(owner));
        header.set_gid(u64::from(owner));
        header.set_mtime(0);
        header.set_size(size as u64);
        header
    }

    fn dir(&mut self, path: &str, mode: u32, owner: u32) -> Result<()> {
        let mut header = Self::header(EntryType::Directory, mode, owner, 0);
        let entry = self.0.append_data(&mut header, format!("{path}/"), std::io::empty());
        entry.during(|| format!("add {path} to an archive"))
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = Self::header(EntryType::Regular, mode, 0, content.len());
        let entry = self.0.append_data(&mut header, path, content);
        entry.during(|| format!("add {path} to an archive"))
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = Self::header(EntryType::Symlink, 0o777, 0, 0);
        let entry = self.0.append_link(&mut header, path, target);
        entry.during(|| format!("add {path} to an archive"))
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().map_err(|source| Error::Io { what: "finish an archive".into(), source })
    }
}
