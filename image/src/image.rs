//! From names in a layout to a list of layers (image-spec 1.1: image-layout.md,
//! image-index.md, manifest.md, config.md; for `docker save` its manifest.json).

use std::collections::BTreeMap;

use boathook_fs::layer::{self, Digest, Expected, Format};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::files::Source;
use crate::{Error, Result};

/// Indexes that lead to indexes.
const DEPTH_MAX: usize = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An image that was found, its documents checked and its layers not yet.
#[derive(Debug)]
pub struct Image {
    /// Digest of the configuration, which is the image's id.
    pub id: Digest,
    /// The configuration as it is.
    pub config: Vec<u8>,
    /// The lowest layer first.
    pub layers: Vec<Layer>,
}

/// A layer, and what is known of it.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The name of its file in the source.
    pub(crate) file: String,
    pub(crate) format: Format,
    pub(crate) expected: Expected,
    /// Digest of its decompressed bytes.
    pub diff_id: Digest,
    /// Bytes of the blob.
    pub size: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// One image of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Image {
    /// Finds the image called `reference`, or the only one.
    ///
    /// # Errors
    /// `NotFound` when there is no such image, or several and no name was given: the text lists
    /// them. `Invalid` for documents that are broken or not as their digests say.
    pub fn find(source: &Source, reference: Option<&str>) -> Result<Self> {
        if source.has("index.json") {
            return in_layout(source, reference);
        }
        if source.has("manifest.json") {
            return in_saved(source, reference);
        }
        let path = source.path().display();
        Err(Error::invalid(format!("{path}: neither index.json nor manifest.json is there")))
    }
}

fn in_layout(source: &Source, reference: Option<&str>) -> Result<Image> {
    let index: Index = parse("index.json", &source.document("index.json")?)?;
    let descriptor = choose(index.manifests, reference)?;
    let (name, manifest) = manifest(source, descriptor)?;
    let config_name = blob(&manifest.config.digest).map_err(|e| e.context(&name))?.1;
    let config = checked(source, &manifest.config)?;
    let parsed: Config = parse(&config_name, &config)?;
    let diff_ids = diff_ids(&parsed, manifest.layers.len(), &config_name)?;
    let layer = |(at, (descriptor, diff_id)): (usize, (&Descriptor, Digest))| {
        let (digest, file) = blob(&descriptor.digest)?;
        let media_type = &descriptor.media_type;
        let format = Format::of_media_type(media_type).ok_or_else(|| {
            Error::unsupported(format!("layer {at}: mediaType {media_type:?} is no layer"))
        })?;
        let size = descriptor.size;
        let (_, there) = source.reader(&file).map_err(|e| e.context(format!("layer {at}")))?;
        if there != size {
            let text = format!("layer {at}: size: expected {size}, found {there}");
            return Err(Error::invalid(text));
        }
        let expected = Expected { digest: Some(digest), size: Some(size), diff_id: Some(diff_id) };
        Ok(Layer { file, format, expected, diff_id, size })
    };
    let layers = manifest.layers.iter().zip(diff_ids).enumerate().map(layer);
    let id = manifest.config.digest.parse()?;
    Ok(Image { id, layers: layers.collect::<Result<_>>()?, config })
}

fn in_saved(source: &Source, reference: Option<&str>) -> Result<Image> {
    let all: Vec<Saved> = parse("manifest.json", &source.document("manifest.json")?)?;
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let names: Vec<String> = all.iter().flat_map(tags).collect();
    let wanted =
        |image: &&Saved| reference.is_none_or(|name| tags(image).iter().any(|t| t == name));
    let found: Vec<&Saved> = all.iter().filter(wanted).collect();
    let [image] = found[..] else { return Err(ambiguous(reference, found.len(), &names)) };
    let config = source.document(&image.config)?;
    let id = digest_of(&config)?;
    // The file is called by its digest, `.json` or in a directory of blobs.
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(named) = format!("sha256:{stem}").parse::<Digest>()
        && named != id
    {
        return Err(Error::invalid(format!("{}: its digest is {id}", image.config)));
    }
    let parsed: Config = parse(&image.config, &config)?;
    let diff_ids = diff_ids(&parsed, image.layers.len(), &image.config)?;
    let layer = |(file, diff_id): (&String, Digest)| {
        let size = source.reader(file)?.1;
        let expected = Expected { diff_id: Some(diff_id), size: Some(size), digest: None };
        Ok(Layer { file: file.clone(), format: Format::Unknown, expected, diff_id, size })
    };
    let layers = image.layers.iter().zip(diff_ids).map(layer).collect::<Result<_>>()?;
    Ok(Image { id, config, layers })
}

/// The manifest that `descriptor` leads to, through indexes for several platforms.
fn manifest(source: &Source, mut descriptor: Descriptor) -> Result<(String, Manifest)> {
    for _ in 0..DEPTH_MAX {
        let name = blob(&descriptor.digest)?.1;
        let bytes = checked(source, &descriptor)?;
        match descriptor.media_type.as_str() {
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => {
                return Ok((name.clone(), parse(&name, &bytes)?));
            }
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                let index: Index = parse(&name, &bytes)?;
                let fits = |d: &Descriptor| d.platform.as_ref().is_some_and(is_ours);
                let found = index.manifests.into_iter().find(fits);
                descriptor = found.ok_or_else(|| {
                    Error::not_found(format!("{name}: no image for linux/{}", architecture()))
                })?;
            }
            other => {
                let text = format!("{name}: mediaType {other:?} is neither manifest nor index");
                return Err(Error::unsupported(text));
            }
        }
    }
    Err(Error::invalid(format!("{}: an index in an index in an index", descriptor.digest)))
}

fn choose(all: Vec<Descriptor>, reference: Option<&str>) -> Result<Descriptor> {
    let names_of = |d: &Descriptor| {
        let names = [REF_NAME, CONTAINERD_NAME].map(|key| d.annotations.get(key).cloned());
        names.into_iter().flatten().collect::<Vec<_>>()
    };
    let names: Vec<String> = all.iter().flat_map(names_of).collect();
    let wanted =
        |d: &Descriptor| reference.is_none_or(|name| names_of(d).iter().any(|n| n == name));
    let mut found: Vec<Descriptor> = all.into_iter().filter(wanted).collect();
    match found.pop() {
        Some(only) if found.is_empty() => Ok(only),
        other => Err(ambiguous(reference, found.len() + usize::from(other.is_some()), &names)),
    }
}

fn ambiguous(reference: Option<&str>, found: usize, names: &[String]) -> Error {
    let there = if names.is_empty() { "none has a name".to_owned() } else { names.join(", ") };
    Error::not_found(match (reference, found) {
        (Some(name), 0) => format!("image {name:?} is not there; there are: {there}"),
        (Some(name), count) => format!("{count} images are called {name:?}"),
        (None, 0) => "there is no image".to_owned(),
        (None, count) => format!("there are {count} images, and none was asked for: {there}"),
    })
}

/// A blob's digest and its name in a layout. Only a digest that was parsed becomes a path.
fn blob(text: &str) -> Result<(Digest, String)> {
    let digest: Digest = text.parse()?;
    let hex = digest.to_string();
    Ok((digest, format!("blobs/sha256/{}", hex.trim_start_matches("sha256:"))))
}

/// A document, when its size and digest are what `descriptor` says.
fn checked(source: &Source, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let (digest, name) = blob(&descriptor.digest)?;
    let bytes = source.document(&name)?;
    let (size, wanted) = (bytes.len() as u64, descriptor.size);
    if size != wanted {
        return Err(Error::invalid(format!("{name}: size: expected {wanted}, found {size}")));
    }
    let found = digest_of(&bytes)?;
    if found != digest {
        return Err(Error::invalid(format!("{name}: digest: expected {digest}, found {found}")));
    }
    Ok(bytes)
}

fn digest_of(bytes: &[u8]) -> Result<Digest> {
    Ok(layer::diff_id(bytes, Format::Plain, &layer::Limits::default())?.digest)
}

fn diff_ids(config: &Config, layers: usize, name: &str) -> Result<Vec<Digest>> {
    let ids = &config.rootfs.diff_ids;
    if ids.len() != layers {
        let count = ids.len();
        let text = format!("{name}: rootfs.diff_ids: {count} of them for {layers} layers");
        return Err(Error::invalid(text));
    }
    let read = |(at, text): (usize, &String)| {
        text.parse().map_err(|e| Error::from(e).context(format!("{name}: rootfs.diff_ids[{at}]")))
    };
    ids.iter().enumerate().map(read).collect()
}

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("{name}: {e}")))
}

fn is_ours(platform: &Platform) -> bool {
    platform.os == "linux" && platform.architecture == architecture()
}

/// This machine's in the words of Go, which manifests use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
