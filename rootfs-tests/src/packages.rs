//! Real daemons from Debian packages, unpacked into private directories.
//!
//! ```text
//! target/debian/                     or $BOATHOOK_CACHE_DIR
//!   bookworm.lock                    one process fills a release, others wait
//!   bookworm/
//!     archives/*.deb                 as apt verified them; survive a damaged tree
//!     root/                          the packages' files, moved here when complete
//!     ready.json                     written last: what is here; without it nothing is
//!     apt/                           apt's lists and caches for this release only
//! ```
//!
//! Nothing is installed on the host and no maintainer script runs. A second run reads `ready.json`,
//! looks whether the programs are what it says, and touches no network.

mod apt;
mod loader;

use crate::command::Run;
use crate::error::{Context, Error, Result};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What is wanted of each release; apt adds what these need.
///
/// None of the releases has a package of nerdctl; what it asks of a shim (`ctr`'s calls, `binary://`
/// logs, host or no network) is asked by the suites themselves.
const WANTED: [&str; 6] =
    ["containerd", "runc", "crun", "busybox-static", "containernetworking-plugins", "patchelf"];

/// Counts up when the way a tree is made changes, so that older trees are made anew.
const RECIPE: u32 = 1;

/// A Debian release whose containerd is tested against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// Debian 12: containerd 1.6.
    Bookworm,
    /// Debian 13: containerd 1.7.
    Trixie,
    /// Debian unstable: containerd 2.x.
    Sid,
}

impl Release {
    /// The archive's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// The programs of one release.
#[derive(Clone, Debug)]
pub struct Packages {
    /// The release they come from.
    pub release: Release,
    root: PathBuf,
}

/// The record that a tree is complete.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    recipe: u32,
    /// Absolute: the loader's path is written into programs that need another C library.
    root: PathBuf,
    programs: Vec<Program>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Program {
    path: PathBuf,
    size: u64,
}

impl Packages {
    /// Finds the release's programs, and downloads and unpacks them first where necessary.
    ///
    /// # Errors
    /// [`Error::Missing`] with what to do when this machine's apt cannot provide them.
    pub fn get(release: Release) -> Result<Self> {
        let home = cache_dir()?;
        fs::create_dir_all(&home).during(|| format!("mkdir {}", home.display()))?;
        let lock = home.join(format!("{release}.lock"));
        let lock = File::create(&lock).during(|| format!("create {}", lock.display()))?;
        flock(&lock, FlockOperation::LockExclusive).during(|| "lock the package cache")?;

        let dir = home.join(release.name());
        let packages = Self { release, root: dir.join("root") };
        if packages.intact(&dir) {
            return Ok(packages);
        }
        apt::download(release, &dir, &WANTED)?;
        packages.unpack(&dir)?;
        packages.record(&dir)?;
        Ok(packages)
    }

    /// A directory that outlives the suites, for what is made of these packages.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.parent().unwrap_or(&self.root).to_owned()
    }

    /// The daemon.
    #[must_use]
    pub fn containerd(&self) -> PathBuf {
        self.root.join("usr/bin/containerd")
    }

    /// The stock shim.
    #[must_use]
    pub fn runc_shim(&self) -> PathBuf {
        self.root.join("usr/bin/containerd-shim-runc-v2")
    }

    /// The daemon's own client.
    #[must_use]
    pub fn ctr(&self) -> PathBuf {
        self.root.join("usr/bin/ctr")
    }

    /// The stock runtime.
    #[must_use]
    pub fn runc(&self) -> PathBuf {
        self.root.join("usr/sbin/runc")
    }

    /// The fast stock runtime.
    #[must_use]
    pub fn crun(&self) -> PathBuf {
        self.root.join("usr/bin/crun")
    }

    /// A static busybox; Debian moved it when `/bin` and `/usr/bin` became one.
    #[must_use]
    pub fn busybox(&self) -> PathBuf {
        let merged = self.root.join("usr/bin/busybox");
        if merged.exists() { merged } else { self.root.join("bin/busybox") }
    }

    /// The directory of the CNI plugins.
    #[must_use]
    pub fn cni(&self) -> PathBuf {
        self.root.join("usr/lib/cni")
    }

    /// Everything that suites execute.
    fn programs(&self) -> Vec<PathBuf> {
        let cni = self.cni();
        let plugins = ["bridge", "host-local", "loopback", "portmap"].map(|name| cni.join(name));
        let mut all = vec![self.containerd(), self.runc_shim(), self.ctr(), self.runc()];
        all.extend([self.crun(), self.busybox()]);
        all.extend(plugins);
        all
    }

    fn intact(&self, dir: &Path) -> bool {
        let Ok(text) = fs::read(dir.join("ready.json")) else { return false };
        let Ok(ready) = serde_json::from_slice::<Ready>(&text) else { return false };
        ready.recipe == RECIPE
            && ready.root == self.root
            && !ready.programs.is_empty()
            && ready.programs.iter().all(|program| {
                fs::metadata(&program.path).is_ok_and(|found| {
                    found.len() == program.size && found.permissions().mode() & 0o111 != 0
                })
            })
    }

    /// Unpacks into a directory beside and moves it into place when all is there.
    fn unpack(&self, dir: &Path) -> Result<()> {
        let fresh = dir.join("root.part");
        for old in [&fresh, &self.root] {
            if old.exists() {
                fs::remove_dir_all(old).during(|| format!("remove {}", old.display()))?;
            }
        }
        fs::create_dir_all(&fresh).during(|| format!("mkdir {}", fresh.display()))?;
        for archive in apt::archives(dir)? {
            let unpacked = Run::new("dpkg-deb").arg("-x").arg(&archive).arg(&fresh).ok();
            if let Err(error) = unpacked {
                // A damaged archive would fail every later run: have apt fetch it again.
                fs::remove_file(&archive).during(|| format!("remove {}", archive.display()))?;
                return Err(error);
            }
        }
        fs::rename(&fresh, &self.root).during(|| format!("rename to {}", self.root.display()))?;
        for program in self.programs() {
            loader::adapt(&self.root, &program)?;
        }
        Ok(())
    }

    fn record(&self, dir: &Path) -> Result<()> {
        let mut programs = Vec::new();
        for path in self.programs() {
            let found = fs::metadata(&path).map_err(|error| Error::Missing {
                what: format!("{} of {}", path.display(), self.release),
                remedy: format!("Debian's package no longer holds it ({error}); see WANTED"),
            })?;
            programs.push(Program { path, size: found.len() });
        }
        let ready = Ready { recipe: RECIPE, root: self.root.clone(), programs };
        let text = serde_json::to_vec_pretty(&ready)
            .map_err(|error| Error::Format { what: "ready.json".into(), why: error.to_string() })?;
        let part = dir.join("ready.json.part");
        fs::write(&part, text).during(|| format!("write {}", part.display()))?;
        fs::rename(&part, dir.join("ready.json")).during(|| "rename to ready.json")
    }
}

/// The archives of other packages of a release, with all that they need: as they are, in a directory
/// `name` of the cache, from which a second run takes them without the network.
///
/// # Errors
/// As of [`Packages::get`].
pub fn archives(release: Release, name: &str, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let home = cache_dir()?;
    let dir = home.join(name);
    fs::create_dir_all(&dir).during(|| format!("mkdir {}", dir.display()))?;
    let lock = home.join(format!("{name}.lock"));
    let lock = File::create(&lock).during(|| format!("create {}", lock.display()))?;
    flock(&lock, FlockOperation::LockExclusive).during(|| "lock the package cache")?;
    // Written last: without it nothing is there.
    let ready = dir.join("wanted");
    if fs::read_to_string(&ready).is_ok_and(|text| text == wanted.join(" ")) {
        return apt::archives(&dir);
    }
    apt::download(release, &dir, wanted)?;
    fs::write(&ready, wanted.join(" ")).during(|| format!("write {}", ready.display()))?;
    apt::archives(&dir)
}

/// Where unpacked releases are kept: `BOATHOOK_CACHE_DIR`, else `debian` in the target directory.
fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("BOATHOOK_CACHE_DIR") {
        return std::path::absolute(PathBuf::from(dir)).during(|| "BOATHOOK_CACHE_DIR");
    }
    Ok(crate::workspace::target_dir()?.join("debian"))
}
