//! `boathook layer apply|verify|diff-id`.

use std::fs::File;
use std::path::Path;

use boathook_fs::layer::{self, Digest, Expected, Format, Found, Limits, Options, Report, Sync};
use serde_json::{Value, json};

use crate::args::{Layer, LayerBlob, LayerLimits, LayerSync};
use crate::output::{Failure, print};

pub(crate) fn run(command: &Layer) -> Result<(), Failure> {
    match command {
        Layer::Apply { blob, target, first, sync, user_namespace, limits, json } => {
            let options = Options {
                limits: limits_of(limits),
                budget: None,
                first: *first,
                sync: match sync {
                    LayerSync::Layer => Sync::Layer,
                    LayerSync::None => Sync::None,
                },
                owners: None,
                user_namespace: *user_namespace,
                threads: true,
            };
            let (file, format, expected) = open(blob)?;
            let report = layer::apply(file, format, expected, target, &options)?;
            say(&report, *json)
        }
        Layer::Verify { blob, limits, json } => {
            let (file, format, expected) = open(blob)?;
            say(&layer::verify(file, format, expected, &limits_of(limits))?, *json)
        }
        Layer::DiffId { blob, media_type, limits } => {
            let format = format_of(media_type.as_deref())?;
            let found = layer::diff_id(open_file(blob)?, format, &limits_of(limits))?;
            print(&format!("{}\n", found.diff_id))
        }
    }
}

fn open(blob: &LayerBlob) -> Result<(File, Format, Expected), Failure> {
    let digest = |text: &Option<String>| text.as_deref().map(str::parse::<Digest>).transpose();
    let expected = Expected {
        digest: digest(&blob.digest)?,
        size: blob.size,
        diff_id: digest(&blob.diff_id)?,
    };
    let format = format_of(blob.media_type.as_deref())?;
    Ok((open_file(&blob.blob)?, format, expected))
}

fn open_file(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|e| Failure::Io(path.display().to_string(), e))
}

/// Without a media type the first bytes tell.
fn format_of(media_type: Option<&str>) -> Result<Format, Failure> {
    let Some(media_type) = media_type else { return Ok(Format::Unknown) };
    Format::of_media_type(media_type).ok_or_else(|| {
        Failure::Usage(format!("--media-type {media_type:?}: not the type of an image layer"))
    })
}

pub(super) fn limits_of(given: &LayerLimits) -> Limits {
    let usual = Limits::default();
    Limits {
        entries: given.max_entries.unwrap_or(usual.entries),
        bytes: given.max_bytes.unwrap_or(usual.bytes),
        ratio: given.max_ratio.unwrap_or(usual.ratio),
        ratio_from: usual.ratio_from,
        path_bytes: given.max_path_bytes.unwrap_or(usual.path_bytes),
        depth: given.max_depth.unwrap_or(usual.depth),
        extended_bytes: given.max_extended_bytes.unwrap_or(usual.extended_bytes),
        pax_records: given.max_pax_records.unwrap_or(usual.pax_records),
        xattrs: given.max_xattrs.unwrap_or(usual.xattrs),
        xattr_bytes: given.max_xattr_bytes.unwrap_or(usual.xattr_bytes),
        xattrs_bytes: given.max_xattrs_bytes.unwrap_or(usual.xattrs_bytes),
        sparse_segments: given.max_sparse_segments.unwrap_or(usual.sparse_segments),
        zstd_window_log: given.max_zstd_window_log.unwrap_or(usual.zstd_window_log),
    }
}

fn say(report: &Report, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print(&format!("{:#}\n", to_json(report)));
    }
    let Found { digest, size, diff_id, diff_size } = report.found;
    let mut text = format!(
        "digest    {digest}\nsize      {size}\ndiff id   {diff_id}\ndiff size {diff_size}\n\
         entries   {}\n",
        report.entries
    );
    if report.root_opaque {
        text.push_str("opaque    everything below this layer is hidden\n");
    }
    for warning in &report.warnings.texts {
        text.push_str(&format!("warning   {warning}\n"));
    }
    let more = report.warnings.count - report.warnings.texts.len() as u64;
    if more > 0 {
        text.push_str(&format!("warning   and {more} more\n"));
    }
    print(&text)
}

fn to_json(report: &Report) -> Value {
    let Found { digest, size, diff_id, diff_size } = report.found;
    json!({
        "digest": digest.to_string(),
        "size": size,
        "diffId": diff_id.to_string(),
        "diffSize": diff_size,
        "entries": report.entries,
        "rootOpaque": report.root_opaque,
        "warnings": report.warnings.texts,
        "warningCount": report.warnings.count,
    })
}
