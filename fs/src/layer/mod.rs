//! Image layers: a blob becomes a directory that overlayfs can have as a layer
//! (image-spec 1.1 layer.md; kernel, overlayfs.rst).
//!
//! ```text
//! blob ── stream ──▶ bytes ── tar ──▶ entries ── apply ──▶ staging/fs
//!  digest, size ✓     diff id ✓   limits ✓              │ rename, when all was right
//!                                                        ▼
//!                                                     the target
//! ```
//!
//! A layer is a program of a stranger. Its names are used one by one with the
//! descriptor of their directory, nothing is followed but by the kernel inside
//! the layer's root, and what is not published never existed.

mod apply;
mod decoder;
mod digest;
mod input;
mod limits;
mod name;
mod parents;
mod pipeline;
mod staging;
mod stream;
mod tar;
mod warnings;

use std::io::Read;
use std::path::Path;

pub use decoder::Format;
pub use digest::Digest;
pub use limits::{Budget, Limits};
pub use name::{Meaning, Name};
pub use parents::{Applied, hide_all, inherit, prune};
pub use staging::{Staging, Sync};
pub use stream::{Expected, Found};
pub use tar::{Archive, Entry, Error as TarError, Kind, Problem, Segment, Time, Xattr};
pub use warnings::Warnings;

use crate::root::Root;
use crate::rootfs::IdMap;
use crate::{Error, Result};
use stream::Stream;

/// A blob of fewer bytes is done before other threads have begun.
const SMALL: u64 = 128 << 10;

/// How a layer is applied.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How much it may be.
    pub limits: Limits,
    /// What it shares with the other layers of its image.
    pub budget: Option<Budget>,
    /// It is the lowest layer: there is nothing for whiteouts to hide.
    pub first: bool,
    /// When it has to be on disk.
    pub sync: Sync,
    /// Owners on disk, for a container whose user namespace is mapped so; what the layer says
    /// otherwise.
    pub owners: Option<IdMap>,
    /// It is for overlay mounts made in a user namespace (`userxattr`, Linux 5.11), perhaps
    /// applied in one, where there are no device nodes: they are left out then.
    pub user_namespace: bool,
    /// Reading and hashing have a thread each, beside the caller's, which writes: worth it where
    /// there are more processors than layers.
    pub threads: bool,
}

/// What became of a layer.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the blob is.
    pub found: Found,
    /// How many entries it has.
    pub entries: u64,
    /// Whether it hides everything below it. overlayfs cannot be told so by an
    /// attribute of a layer's root: the list of lower layers ends here.
    pub root_opaque: bool,
    /// Directories it needs and does not describe; see [`inherit`].
    pub parents: Vec<Name>,
    /// Names that it hides by a whiteout; see [`prune`].
    pub whiteouts: Vec<Name>,
    /// What was left out without harm.
    pub warnings: Warnings,
}

impl From<TarError> for Error {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Archive(problem) => Self::invalid(problem.to_string()),
            TarError::Read(error) => stream::read_error(error),
        }
    }
}

/// Applies the layer in `blob` and publishes it as the directory `target`,
/// which must not exist. The directory is made beside it and renamed when every
/// byte was read and is what `expected` says; until then there is no target.
///
/// # Errors
/// `Invalid` for a layer that is broken, not accepted, more than a limit (the
/// text names it) or not as expected; others by errno. In every case nothing is
/// left behind.
pub fn apply(
    blob: impl Read + Send,
    format: Format,
    expected: Expected,
    target: &Path,
    options: &Options,
) -> Result<Report> {
    let staging = Staging::new(target)?;
    let report = apply_to(blob, format, expected, staging.root()?, options)?;
    staging.publish(options.sync)?;
    Ok(report)
}

/// As [`apply`], to `root`, an empty directory that nobody else knows of. It is not published,
/// not synchronized, and left as it is when there was an error.
///
/// # Errors
/// As for [`apply`].
pub fn apply_to(
    blob: impl Read + Send,
    format: Format,
    expected: Expected,
    root: Root,
    options: &Options,
) -> Result<Report> {
    let limits = &options.limits;
    let budget = options.budget.clone();
    let small = expected.size.is_some_and(|size| size < SMALL);
    let (outcome, found) = if options.threads && !small {
        pipeline::run(blob, format, expected, limits, budget, |input| {
            apply::apply(&mut Archive::new(input, limits), root, options)
        })?
    } else {
        let mut stream = Stream::new(blob, format, expected, limits)?.within(budget);
        let outcome = apply::apply(&mut Archive::new(&mut stream, limits), root, options)?;
        (outcome, stream.finish()?)
    };
    let apply::Outcome { entries, root_opaque, parents, whiteouts, warnings } = outcome;
    Ok(Report { found, entries, root_opaque, parents, whiteouts, warnings })
}

/// Removes all that is in `root`.
///
/// # Errors
/// By errno.
pub fn clear(root: &Root) -> Result<()> {
    apply::clear(root)
}

/// Reads the layer in `blob` to the end and checks everything that can be
/// checked without a file system.
///
/// # Errors
/// As for [`apply`].
pub fn verify(
    blob: impl Read,
    format: Format,
    expected: Expected,
    limits: &Limits,
) -> Result<Report> {
    let stream = Stream::new(blob, format, expected, limits)?;
    let mut archive = Archive::new(stream, limits);
    let mut report_entries = 0;
    let mut root_opaque = false;
    while let Some(entry) = archive.next_entry()? {
        report_entries += 1;
        let wrong = |problem: Problem| {
            Error::invalid(problem.to_string())
                .context(format!("entry {}", tar::shown(&entry.path)))
        };
        let meaning = Meaning::of(&entry.path, limits).map_err(wrong)?;
        root_opaque |= matches!(&meaning, Meaning::Opaque(directory) if directory.is_root());
        if entry.kind == Kind::HardLink {
            Name::parse(&entry.link, limits).map_err(wrong)?;
        }
    }
    let found = archive.into_input().finish()?;
    let warnings = Warnings::default();
    let (parents, whiteouts) = (Vec::new(), Vec::new());
    Ok(Report { found, entries: report_entries, root_opaque, parents, whiteouts, warnings })
}

/// The digest of the decompressed bytes of `blob`, whatever they are.
///
/// # Errors
/// `Invalid` for a broken stream; others by errno.
pub fn diff_id(blob: impl Read, format: Format, limits: &Limits) -> Result<Found> {
    Stream::new(blob, format, Expected::default(), limits)?.finish()
}
