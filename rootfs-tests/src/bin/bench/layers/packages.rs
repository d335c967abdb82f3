//! A Debian base system and igzip, unpacked from their packages.

use std::fs;
use std::path::{Path, PathBuf};

use rootfs_tests::Result;
use rootfs_tests::command::Run;
use rootfs_tests::error::Context;
use rootfs_tests::packages::{self, Release};

/// Layers that the base system is divided into.
const PARTS: usize = 8;

/// Where things were unpacked.
pub(crate) struct Packages {
    dir: PathBuf,
    archives: Vec<PathBuf>,
    igzip: PathBuf,
}

impl Packages {
    /// What every Debian system has, and a package manager. No maintainer script runs.
    pub(crate) fn get(dir: &Path) -> Result<Self> {
        let archives = packages::archives(Release::Bookworm, "base", &["?essential", "apt"])?;
        let isal = packages::archives(Release::Bookworm, "isal", &["isal"])?;
        let isal_dir = dir.join("isal");
        unpack(&isal, &isal_dir)?;
        Ok(Self { igzip: wrapper(&isal_dir)?, dir: dir.to_owned(), archives })
    }

    pub(crate) fn igzip(&self) -> PathBuf {
        self.igzip.clone()
    }

    /// All of it in one directory.
    pub(crate) fn base(&self) -> Result<PathBuf> {
        let to = self.dir.join("base");
        unpack(&self.archives, &to)?;
        Ok(to)
    }

    /// The same, each package in one of several directories of about the same size.
    pub(crate) fn parts(&self) -> Result<Vec<PathBuf>> {
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        let mut by_size = self.archives.clone();
        by_size.sort_by_key(|path| std::cmp::Reverse(size(path)));
        let mut parts = vec![(0, Vec::new()); PARTS];
        for archive in by_size {
            if let Some(least) = parts.iter_mut().min_by_key(|(size, _)| *size) {
                least.0 += size(&archive);
                least.1.push(archive);
            }
        }
        let unpacked = parts.iter().enumerate().map(|(at, (_, archives))| {
            let to = self.dir.join(format!("part-{at}"));
            unpack(archives, &to).map(|()| to)
        });
        unpacked.collect()
    }
}

fn unpack(archives: &[PathBuf], to: &Path) -> Result<()> {
    fs::create_dir_all(to).during(|| format!("mkdir {}", to.display()))?;
    for archive in archives {
        Run::new("dpkg-deb").arg("-x").arg(archive).arg(to).ok()?;
    }
    Ok(())
}

/// igzip finds its library beside it.
fn wrapper(dir: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("igzip");
    let usr = dir.join("usr").display().to_string();
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={usr}/lib/x86_64-linux-gnu exec {usr}/bin/igzip \"$@\"\n"
    );
    fs::write(&path, text).during(|| format!("write {}", path.display()))?;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&path, mode).during(|| format!("chmod {}", path.display()))?;
    Ok(path)
}
