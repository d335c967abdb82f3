//! OCI layouts (image-spec 1.1, image-layout.md) and archives of `docker save`, written layer by
//! layer, right or wrong as the test wants them.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pack {
    Plain,
    Gzip,
    Zstd,
}

/// A layer as it is, and what the image says of it.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: usize,
    pub(crate) diff_id: String,
}

impl Blob {
    pub(crate) fn new(archive: &[u8], pack: Pack) -> Self {
        let (bytes, suffix) = match pack {
            Pack::Plain => (archive.to_vec(), ""),
            Pack::Gzip => (gzip(archive), "+gzip"),
            Pack::Zstd => (zstd::encode_all(archive, 3).unwrap(), "+zstd"),
        };
        Self::of(bytes, &format!("{LAYER}{suffix}"), archive)
    }

    /// `bytes` that stand for `archive`.
    pub(crate) fn of(bytes: Vec<u8>, media_type: &str, archive: &[u8]) -> Self {
        let (digest, size) = (sha256(&bytes), bytes.len());
        Self { bytes, media_type: media_type.to_owned(), digest, size, diff_id: sha256(archive) }
    }
}

/// An image of these layers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    pub(crate) blobs: Vec<Blob>,
}

impl Layout {
    pub(crate) fn new(archives: &[Vec<u8>], pack: Pack) -> Self {
        Self { blobs: archives.iter().map(|archive| Blob::new(archive, pack)).collect() }
    }

    fn config(&self) -> Vec<u8> {
        let ids: Vec<&str> = self.blobs.iter().map(|blob| blob.diff_id.as_str()).collect();
        let rootfs = json!({ "type": "layers", "diff_ids": ids });
        bytes(&json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs }))
    }

    /// Writes the layout to the directory `to`.
    pub(crate) fn write(&self, to: &Path) {
        fs::create_dir_all(to.join("blobs/sha256")).unwrap();
        let put = |name: &str, bytes: &[u8]| {
            // A name that is no digest's is one that the test leaves out.
            let name = name.trim_start_matches("sha256:");
            if name.len() == 64 {
                fs::write(to.join("blobs/sha256").join(name), bytes).unwrap();
            }
        };
        for blob in &self.blobs {
            put(&blob.digest, &blob.bytes);
        }
        let document = |bytes: &[u8], media_type: &str| {
            put(&sha256(bytes), bytes);
            json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
        };
        let config = document(&self.config(), "application/vnd.oci.image.config.v1+json");
        let layer = |blob: &Blob| json!({ "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size });
        let layers: Vec<Value> = self.blobs.iter().map(layer).collect();
        let manifest = bytes(
            &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }),
        );
        let mut manifest = document(&manifest, MANIFEST);
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "tried" });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs::write(to.join("index.json"), bytes(&index)).unwrap();
        fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }

    /// Writes the image as `docker save` did before it wrote layouts: layers are not compressed,
    /// one that comes twice is a link.
    #[allow(dead_code, reason = "each test binary uses its own part of this")]
    pub(crate) fn save(archives: &[Vec<u8>], to: &Path) {
        let own = Self::new(archives, Pack::Plain);
        let config = own.config();
        let name = format!("{}.json", sha256(&config).trim_start_matches("sha256:"));
        fs::create_dir_all(to).unwrap();
        fs::write(to.join(&name), config).unwrap();
        let mut layers = Vec::new();
        for (at, blob) in own.blobs.iter().enumerate() {
            let layer = format!("layer{at}/layer.tar");
            fs::create_dir_all(to.join(format!("layer{at}"))).unwrap();
            match own.blobs.iter().take(at).position(|old| old.digest == blob.digest) {
                Some(same) => {
                    let target = format!("../layer{same}/layer.tar");
                    std::os::unix::fs::symlink(target, to.join(&layer)).unwrap();
                }
                None => fs::write(to.join(&layer), &blob.bytes).unwrap(),
            }
            layers.push(layer);
        }
        let saved = json!([{ "Config": name, "RepoTags": ["tried:1"], "Layers": layers }]);
        fs::write(to.join("manifest.json"), bytes(&saved)).unwrap();
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}
