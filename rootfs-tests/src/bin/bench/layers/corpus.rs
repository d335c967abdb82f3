//! Archives to unpack, each of them plain and compressed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rootfs_tests::Result;
use rootfs_tests::error::Context;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::pool::{Pool, Random};

pub(crate) const BIG: &str = "big files";
/// Files of the first corpus, and bytes of the other's.
const MANY_COUNT: usize = 20_000;
const BIG_MIB: [usize; 4] = [100, 75, 49, 32];
/// Levels that builders of images use.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;
const TIME: u64 = 1_700_000_000;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pack {
    Plain,
    Gzip,
    Zstd,
}

impl Pack {
    /// As the table calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Plain => "not compressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A layer in a file.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) file: PathBuf,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

/// An archive.
#[derive(Clone, Debug)]
pub(crate) struct Corpus {
    pub(crate) name: String,
    plain: Blob,
    gzip: Blob,
    zstd: Blob,
}

impl Corpus {
    pub(crate) fn blob(&self, pack: Pack) -> &Blob {
        match pack {
            Pack::Plain => &self.plain,
            Pack::Gzip => &self.gzip,
            Pack::Zstd => &self.zstd,
        }
    }

    /// Digest of the archive.
    pub(crate) fn diff_id(&self) -> &str {
        &self.plain.digest
    }
}

/// Small files in directories of many depths, as of packages of a script language.
pub(crate) fn many_files(dir: &Path) -> Result<Corpus> {
    let pool = Pool::new();
    let mut random = Random::new(2);
    let mut out = Output::new("many files", dir)?;
    let mut dirs = vec!["app".to_owned()];
    out.directory("app")?;
    let mut made = 0;
    while made < MANY_COUNT {
        let recent = dirs.len().saturating_sub(400);
        let parent = &dirs[recent + random.below(dirs.len() - recent)];
        let parent = if parent.matches('/').count() > 9 { "app" } else { parent };
        let own = format!("{parent}/pkg-{:05x}", dirs.len());
        out.directory(&own)?;
        for at in 0..[1, 2, 4, 7, 12, 25, 40][random.below(7)] {
            let size = random.file_size();
            let from = random.below(pool.text.len() - size);
            let program = random.below(10) == 0;
            let bytes = if program { &pool.program } else { &pool.text };
            let name = format!("{own}/module{at:03}.{}", if program { "bin" } else { "js" });
            out.file(&name, size, bytes[from..from + size].chunks(size.max(1)))?;
            made += 1;
        }
        dirs.push(own);
    }
    out.end()
}

/// Four large programs.
pub(crate) fn big_files(dir: &Path) -> Result<Corpus> {
    let pool = Pool::new();
    let mut random = Random::new(3);
    let mut out = Output::new(BIG, dir)?;
    out.directory("opt")?;
    for (at, mib) in BIG_MIB.iter().enumerate() {
        // Other bytes each time, or a long window would find them again.
        let pieces: Vec<(usize, u8)> = (0..*mib)
            .map(|_| (random.below(pool.program.len() - (1 << 20)), random.below(256) as u8))
            .collect();
        let mut piece = vec![0; 1 << 20];
        out.start(&format!("opt/big-{at}"), mib << 20)?;
        for (from, change) in pieces {
            for (to, byte) in piece.iter_mut().zip(&pool.program[from..]) {
                *to = byte ^ change;
            }
            out.more(&piece)?;
        }
    }
    out.end()
}

/// Everything in a directory, as GNU tar packs it.
pub(crate) fn of_tree(name: &str, dir: &Path, tree: &Path) -> Result<Corpus> {
    let mut out = Output::new(name, dir)?;
    let mut tar = std::process::Command::new("tar")
        .args(["--sort=name", "--numeric-owner", "-C"])
        .arg(tree)
        .args(["-cf", "-", "."])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .during(|| "start tar")?;
    let copied = tar.stdout.take().map(|mut from| io::copy(&mut from, &mut out.all));
    let ended = tar.wait().during(|| "wait for tar")?;
    copied.transpose().during(|| "pack a tree")?;
    rootfs_tests::ensure!(ended.success(), "tar of {}: {ended}", tree.display());
    out.finish()
}

/// A file with what was written to it.
struct Sum {
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Sum {
    fn new(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).during(|| format!("create {}", path.display()))?;
        Ok(Self {
            path,
            file: BufWriter::with_capacity(1 << 20, file),
            hash: Sha256::new(),
            size: 0,
        })
    }

    fn end(mut self) -> io::Result<Blob> {
        self.file.flush()?;
        let hex: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Blob { file: self.path, digest: format!("sha256:{hex}"), size: self.size })
    }
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes an archive in all ways at once.
struct All {
    plain: Sum,
    gzip: GzEncoder<Sum>,
    zstd: zstd::Encoder<'static, Sum>,
}

impl Write for All {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.plain.write_all(bytes)?;
        self.gzip.write_all(bytes)?;
        self.zstd.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Output {
    name: String,
    all: All,
    /// Of the file that was started last.
    padding: usize,
}

impl Output {
    fn new(name: &str, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).during(|| format!("mkdir {}", dir.display()))?;
        let file = |end: &str| Sum::new(dir.join(format!("{}.{end}", name.replace(' ', "-"))));
        let zstd = zstd::Encoder::new(file("zst")?, ZSTD_LEVEL).during(|| "start zstd")?;
        let gzip = GzEncoder::new(file("gz")?, Compression::new(GZIP_LEVEL));
        Ok(Self { name: name.to_owned(), all: All { plain: file("tar")?, gzip, zstd }, padding: 0 })
    }

    fn header(&mut self, name: &str, kind: EntryType, mode: u32, size: usize) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(name).during(|| format!("header of {name}"))?;
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(TIME);
        header.set_size(size as u64);
        header.set_cksum();
        self.more(header.as_bytes())
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, EntryType::Directory, 0o755, 0)
    }

    fn start(&mut self, name: &str, size: usize) -> Result<()> {
        self.header(name, EntryType::Regular, 0o644, size)?;
        self.padding = size.next_multiple_of(512) - size;
        Ok(())
    }

    fn more(&mut self, bytes: &[u8]) -> Result<()> {
        self.all.write_all(bytes).during(|| format!("write the archive of {}", self.name))
    }

    fn file<'b>(
        &mut self,
        name: &str,
        size: usize,
        pieces: impl Iterator<Item = &'b [u8]>,
    ) -> Result<()> {
        self.start(name, size)?;
        for piece in pieces {
            self.more(piece)?;
        }
        self.more(&[0; 512][..self.padding])
    }

    /// With the two blocks that end an archive.
    fn end(mut self) -> Result<Corpus> {
        self.more(&[0; 1024])?;
        self.finish()
    }

    fn finish(self) -> Result<Corpus> {
        let All { plain, gzip, zstd } = self.all;
        let close = || -> io::Result<[Blob; 3]> {
            Ok([plain.end()?, gzip.finish()?.end()?, zstd.finish()?.end()?])
        };
        let [plain, gzip, zstd] = close().during(|| format!("end the archive of {}", self.name))?;
        Ok(Corpus { name: self.name, plain, gzip, zstd })
    }
}
