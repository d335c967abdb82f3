//! The layers of an image, side by side, into one directory that appears whole:
//!
//! ```text
//! target/
//!     image.json      which layers there are, the lowest first
//!     config.json     the image's configuration, byte for byte
//!     layers/0 …      the trees
//! ```

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use boathook_fs::layer::{self, Applied, Budget, Report, Staging, Sync as OnDisk};
use boathook_fs::root::Root;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::files::Source;
use crate::image::{Image, Layer};
use crate::watched::{Progress, Watched};
use crate::{Error, Result};

/// What an image may be and hold; an error names the limit.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of each layer.
    pub layer: layer::Limits,
    /// `layers`: how many; overlayfs takes 500.
    pub layers: usize,
    /// `image-bytes`: of all layers after decompression.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer: layer::Limits::default(), layers: 500, bytes: 128 << 30 }
    }
}

/// How an image is unpacked.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How much it may be.
    pub limits: Limits,
    /// Whether it has to be on disk before the target appears.
    pub sync: OnDisk,
    /// Layers at once, and with that the memory: each takes about 1 MiB, and for zstd its
    /// window. 0 for as many as there are processors, 4 at the most.
    pub workers: usize,
    /// As for one layer.
    pub owners: Option<boathook_fs::rootfs::IdMap>,
    /// As for one layer.
    pub user_namespace: bool,
}

/// What became of an image; `image.json` holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unpacked {
    /// Digest of the configuration.
    pub id: String,
    /// The lowest first; layer N is the directory `layers/N`.
    pub layers: Vec<UnpackedLayer>,
    /// Whether it is for mounts with `userxattr`.
    pub user_namespace: bool,
    /// What was left out without harm, the first ones.
    pub warnings: Vec<String>,
}

/// One layer of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnpackedLayer {
    /// Digest of its decompressed bytes.
    pub diff_id: String,
    /// Number of those.
    pub diff_size: u64,
    /// How many entries it has.
    pub entries: u64,
    /// Whether it hides everything below it.
    pub root_opaque: bool,
}

/// Unpacks `image` to `target`, which must not exist, and appears when every byte was right.
///
/// # Errors
/// `Invalid` for an image that is broken or more than a limit; others by errno. Nothing is left
/// behind.
pub fn unpack(
    source: &Source,
    image: &Image,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Unpacked> {
    let most = options.limits.layers;
    if image.layers.len() > most {
        return Err(Error::invalid(format!(
            "the image has {} layers, more than the limit layers = {most}",
            image.layers.len()
        )));
    }
    let staging = Staging::new(target)?;
    let root = staging.root()?;
    let directory = |at: usize| -> Result<Root> {
        let name = format!("layers/{at}");
        let mode = Mode::from_bits_truncate(0o755);
        Ok(Root::from_fd(root.create_dir_all(Path::new(&name), mode)?))
    };
    let roots = (0..image.layers.len()).map(directory).collect::<Result<Vec<_>>>()?;
    let job = Job {
        source,
        layers: &image.layers,
        roots: &roots,
        options,
        progress,
        threads: image.layers.len() < processors(),
        budget: Budget::new(options.limits.bytes),
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        done: Mutex::new((0..image.layers.len()).map(|_| None).collect()),
    };
    let reports = job.run()?;
    inherit(&roots, &reports)?;
    let unpacked = told(image, &reports, options);
    let json = serde_json::to_vec_pretty(&unpacked)
        .map_err(|e| Error::invalid(format!("image.json: {e}")))?;
    staging.write("config.json", &image.config)?;
    staging.write("image.json", &json)?;
    staging.publish(options.sync)?;
    Ok(unpacked)
}

fn told(image: &Image, reports: &[Report], options: &Options) -> Unpacked {
    let layer = |report: &Report| UnpackedLayer {
        diff_id: report.found.diff_id.to_string(),
        diff_size: report.found.diff_size,
        entries: report.entries,
        root_opaque: report.root_opaque,
    };
    let warnings = reports.iter().enumerate().flat_map(|(at, report)| {
        report.warnings.texts.iter().map(move |text| format!("layer {at}: {text}"))
    });
    Unpacked {
        id: image.id.to_string(),
        layers: reports.iter().map(layer).collect(),
        user_namespace: options.user_namespace,
        warnings: warnings.take(100).collect(),
    }
}

/// Directories that a layer only passes through are those of the layers below it, and whiteouts of
/// names that these do not have are none. One layer after the other, the lowest first: each may hand on what it was given.
fn inherit(roots: &[Root], reports: &[Report]) -> Result<()> {
    let mut below: Vec<Applied> = Vec::new();
    for (at, (root, report)) in roots.iter().zip(reports).enumerate() {
        layer::prune(root, &report.whiteouts, &below)
            .and_then(|()| layer::inherit(root, &report.parents, &below))
            .map_err(|e| Error::from(e).context(format!("layer {at}")))?;
        below.insert(0, Applied { root: root.try_clone()?, root_opaque: report.root_opaque });
    }
    Ok(())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Layers that wait, and those that are done.
struct Job<'j> {
    source: &'j Source,
    layers: &'j [Layer],
    roots: &'j [Root],
    options: &'j Options,
    progress: &'j dyn Progress,
    /// Each layer is worked on by several threads: there are fewer layers than processors.
    threads: bool,
    /// Of all layers together.
    budget: Budget,
    /// Place in the order of work.
    next: AtomicUsize,
    /// One failed; the others need not go on.
    stop: AtomicBool,
    done: Mutex<Vec<Option<Result<Report>>>>,
}

impl Job<'_> {
    /// Most layers at once when nobody says how many: the memory is bounded whatever the machine.
    const WORKERS: usize = 4;

    fn run(self) -> Result<Vec<Report>> {
        // The largest first, so that none is alone at the end.
        let mut order: Vec<usize> = (0..self.layers.len()).collect();
        order.sort_by_key(|at| self.layers.get(*at).map(|l| std::cmp::Reverse(l.size)));
        let workers = match self.options.workers {
            0 => processors().min(Self::WORKERS),
            asked => asked,
        };
        std::thread::scope(|scope| {
            for _ in 0..workers.min(order.len()) {
                scope.spawn(|| self.work(&order));
            }
        });
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut reports = Vec::with_capacity(done.len());
        for (at, result) in done.into_iter().enumerate() {
            // What has no result was not begun, because another failed.
            let Some(result) = result else { continue };
            let report = result.map_err(|e| e.context(format!("layer {at}")))?;
            reports.push(report);
        }
        Ok(reports)
    }

    fn work(&self, order: &[usize]) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(at) = order.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            let result = self.one(*at);
            let failed = result.is_err();
            // A layer that was broken off has nothing to say of its own.
            if failed && self.stop.swap(true, Ordering::Relaxed) {
                return;
            }
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = done.get_mut(*at) {
                *place = Some(result);
            }
        }
    }

    fn one(&self, at: usize) -> Result<Report> {
        let (Some(layer), Some(root)) = (self.layers.get(at), self.roots.get(at)) else {
            return Err(Error::invalid("no such layer"));
        };
        let options = layer::Options {
            limits: self.options.limits.layer.clone(),
            budget: Some(self.budget.clone()),
            first: at == 0,
            sync: OnDisk::None,
            owners: self.options.owners.clone(),
            user_namespace: self.options.user_namespace,
            threads: self.threads,
        };
        let (piece, _) = self.source.reader(&layer.file)?;
        let why = "another layer failed";
        let blob = Watched { inner: piece, progress: self.progress, stop: &self.stop, why };
        let root = root.try_clone()?;
        Ok(layer::apply_to(blob, layer.format, layer.expected, root, &options)?)
    }
}
