//! A layer for containerd's overlay snapshotter: what its own differ does with the mounts that a
//! snapshot has while it is made (containerd, `core/diff/apply/apply_linux.go`).
//!
//! | mounts | where the layer goes | what lies below |
//! |---|---|---|
//! | one `bind`, `rw` | its source | nothing: it is the first layer |
//! | one `overlay` | its `upperdir` | its `lowerdir`s, which may be unknown |
//!
//! Nothing is mounted. What is not of this kind is refused before anything was changed, and after
//! an error the directory is empty again, so that somebody else may have a try.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicBool;

use boathook_fs::layer::{self, Applied, Digest, Expected, Format, Limits, Report};
use boathook_fs::root::Root;

use crate::watched::Watched;
use crate::{Error, Result};

/// Options of overlayfs that change nothing for whoever writes to the upper directory.
const HARMLESS: [&str; 6] = ["rw", "index=off", "index=on", "volatile", "metacopy=off", "xino=off"];

/// A mount as containerd describes it.
#[derive(Debug, Clone, Default)]
pub struct MountText {
    /// `bind` or `overlay`.
    pub kind: String,
    /// The directory to bind.
    pub source: String,
    /// A place below the snapshot; empty for all of it.
    pub target: String,
    /// As mount(8) has them.
    pub options: Vec<String>,
}

/// A layer to apply.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Digest of the blob.
    pub digest: String,
    /// Its type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// The snapshot's mounts.
    pub mounts: Vec<MountText>,
    /// It has to be on disk in the end.
    pub sync: bool,
}

/// Why there is no layer.
#[derive(Debug)]
pub enum Refusal {
    /// Nothing was changed; it is a case for another differ.
    NotOurs(String),
    /// The layer or the machine is at fault. The directory is empty again.
    Failed(Error),
}

/// Where layers come from and where they may go.
#[derive(Debug, Clone)]
pub struct Differ {
    root: PathBuf,
    limits: Limits,
}

/// Where a layer goes.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    dir: PathBuf,
    /// There is no layer below.
    first: bool,
    /// The topmost first.
    below: Vec<PathBuf>,
}

impl Differ {
    /// For the containerd whose `root` directory this is.
    #[must_use]
    pub fn new(root: &Path, limits: Limits) -> Self {
        Self { root: root.to_owned(), limits }
    }

    /// Applies a layer. It ends early with an error once `stop` is set.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn apply(&self, request: &Request, stop: &AtomicBool) -> Result<Report, Refusal> {
        let ready = self.prepare(request).map_err(Refusal::NotOurs)?;
        self.work(request, &ready, stop).map_err(|error| match layer::clear(&ready.root) {
            Ok(()) => Refusal::Failed(error),
            Err(left) => Refusal::Failed(error.context(format!("(and what is left: {left})"))),
        })
    }

    /// Everything that can be seen before the first change.
    fn prepare(&self, request: &Request) -> Result<Ready, String> {
        let format = Format::of_media_type(&request.media_type)
            .ok_or_else(|| format!("mediaType {:?} is no layer", request.media_type))?;
        let digest: Digest = request.digest.parse().map_err(|e| format!("digest: {e}"))?;
        let place = place(&request.mounts)?;
        for dir in place.below.iter().chain([&place.dir]) {
            self.ours(dir)?;
        }
        let shown = place.dir.display();
        let root = Root::open(&place.dir).map_err(|e| e.to_string())?;
        let mut inside = fs::read_dir(&place.dir).map_err(|e| format!("{shown}: {e}"))?;
        if inside.next().is_some() {
            return Err(format!("{shown}: not empty"));
        }
        let open = |dir: &PathBuf| Root::open(dir).map_err(|e| e.to_string());
        let below = place.below.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let blob = self.blob(&digest, request.size)?;
        Ok(Ready { blob, digest, format, root, first: place.first, below })
    }

    /// Only directories of this containerd are written to or read.
    fn ours(&self, dir: &Path) -> Result<(), String> {
        let plain =
            dir.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        if plain && dir.starts_with(&self.root) && dir != self.root {
            return Ok(());
        }
        Err(format!("{}: not below {}", dir.display(), self.root.display()))
    }

    /// containerd's content store names blobs by their digest.
    fn blob(&self, digest: &Digest, size: u64) -> Result<File, String> {
        let hex = digest.to_string().replace(':', "/");
        let path = self.root.join("io.containerd.content.v1.content/blobs").join(hex);
        let wrong = |e: io::Error| format!("{}: {e}", path.display());
        let file = File::open(&path).map_err(wrong)?;
        let found = file.metadata().map_err(wrong)?.len();
        if found != size {
            return Err(format!("{}: size: expected {size}, found {found}", path.display()));
        }
        Ok(file)
    }

    fn work(&self, request: &Request, ready: &Ready, stop: &AtomicBool) -> Result<Report> {
        let options = layer::Options {
            limits: self.limits.clone(),
            first: ready.first,
            sync: layer::Sync::None,
            threads: true,
            ..layer::Options::default()
        };
        let expected =
            Expected { digest: Some(ready.digest), size: Some(request.size), diff_id: None };
        let why = "nobody waits for it any more";
        let blob = Watched { inner: &ready.blob, progress: &(), stop, why };
        let report =
            layer::apply_to(blob, ready.format, expected, ready.root.try_clone()?, &options)?;
        let below = ready
            .below
            .iter()
            .map(|root| Ok(Applied { root: root.try_clone()?, root_opaque: false }));
        let below = below.collect::<Result<Vec<_>>>()?;
        // With no lower directories it is not known what there is to hide.
        if !below.is_empty() {
            layer::prune(&ready.root, &report.whiteouts, &below)?;
        }
        layer::inherit(&ready.root, &report.parents, &below)?;
        if report.root_opaque {
            if below.is_empty() {
                let text = "the layer hides all that is below it, and what that is nobody told";
                return Err(Error::unsupported(text));
            }
            layer::hide_all(&ready.root, &below)?;
        }
        if request.sync {
            sync(&ready.root)?;
        }
        Ok(report)
    }
}

/// What was opened while a request was looked at.
struct Ready {
    blob: File,
    digest: Digest,
    format: Format,
    root: Root,
    first: bool,
    below: Vec<Root>,
}

fn sync(root: &Root) -> Result<()> {
    // A descriptor of its own: syncfs(2) takes none that was opened with O_PATH.
    let dir = root.open_file(Path::new("."), nix::fcntl::OFlag::O_RDONLY)?;
    nix::unistd::syncfs(dir.as_fd()).map_err(|e| Error::io("syncfs", &io::Error::from(e)))
}

fn place(mounts: &[MountText]) -> Result<Place, String> {
    let [mount] = mounts else { return Err(format!("{} mounts instead of one", mounts.len())) };
    if !mount.target.is_empty() {
        return Err(format!("mount: target {:?}", mount.target));
    }
    match mount.kind.as_str() {
        "bind" => {
            let known = |o: &String| matches!(o.as_str(), "bind" | "rbind" | "rw");
            match mount.options.iter().find(|option| !known(option)) {
                Some(option) => return Err(format!("bind mount: option {option:?}")),
                None if !mount.options.iter().any(|o| o == "rw") => {
                    return Err("bind mount: not rw".to_owned());
                }
                None => {}
            }
            Ok(Place { dir: PathBuf::from(&mount.source), first: true, below: Vec::new() })
        }
        "overlay" => overlay(&mount.options),
        other => Err(format!("mount: type {other:?}")),
    }
}

fn overlay(options: &[String]) -> Result<Place, String> {
    let (mut upper, mut below) = (None, Vec::new());
    for option in options {
        match option.split_once('=') {
            Some(("upperdir", dir)) => upper = Some(PathBuf::from(dir)),
            // containerd's directories have no colon in their names, and it escapes none.
            Some(("lowerdir", list)) => below = list.split(':').map(PathBuf::from).collect(),
            Some(("workdir", _)) => {}
            _ if HARMLESS.contains(&option.as_str()) => {}
            _ => return Err(format!("overlay mount: option {option:?}")),
        }
    }
    let dir = upper.ok_or("overlay mount: no upperdir")?;
    Ok(Place { dir, first: false, below })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> MountText {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        MountText {
            kind: kind.to_owned(),
            source: source.to_owned(),
            options,
            ..Default::default()
        }
    }

    #[test]
    fn mounts_of_the_overlay_snapshotter() {
        let bind = mount("bind", "/c/s/1/fs", &["rw", "rbind"]);
        let wanted = Place { dir: "/c/s/1/fs".into(), first: true, below: Vec::new() };
        assert_eq!(place(&[bind]), Ok(wanted));
        let options =
            ["index=off", "workdir=/c/s/3/work", "upperdir=/c/s/3/fs", "lowerdir=/c/2:/c/1"];
        let below = vec!["/c/2".into(), "/c/1".into()];
        let wanted = Place { dir: "/c/s/3/fs".into(), first: false, below };
        assert_eq!(place(&[mount("overlay", "overlay", &options)]), Ok(wanted));
        let alone = mount("overlay", "overlay", &["upperdir=/c/s/3/fs", "workdir=/w"]);
        let wanted = Place { dir: "/c/s/3/fs".into(), first: false, below: Vec::new() };
        assert_eq!(place(&[alone]), Ok(wanted));
    }

    #[test]
    fn what_is_not_understood_is_for_somebody_else() {
        let bind = mount("bind", "/c/1", &["rw", "rbind"]);
        let below = MountText { target: "/x".to_owned(), ..bind.clone() };
        for (mounts, wanted) in [
            (vec![], "0 mounts"),
            (vec![bind.clone(), bind], "2 mounts"),
            (vec![below], "target \"/x\""),
            (vec![mount("bind", "/c/1", &["ro", "rbind"])], "\"ro\""),
            (vec![mount("bind", "/c/1", &["rbind"])], "not rw"),
            (vec![mount("erofs", "/c/1", &[])], "\"erofs\""),
            (vec![mount("overlay", "", &["lowerdir=/a:/b"])], "no upperdir"),
            (vec![mount("overlay", "", &["upperdir=/u", "userxattr"])], "\"userxattr\""),
            (vec![mount("overlay", "", &["upperdir=/u", "uidmap=0:1:2"])], "\"uidmap=0:1:2\""),
            (vec![mount("bind", "/c/1", &["rw", "X-containerd.mkdir.path=/"])], "X-containerd"),
        ] {
            let error = place(&mounts).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    fn applied(root: &Path, request: &Request) -> String {
        let differ = Differ::new(root, Limits::default());
        match differ.apply(request, &AtomicBool::new(false)) {
            Ok(_) => "applied".to_owned(),
            Err(Refusal::NotOurs(text)) => format!("not ours: {text}"),
            Err(Refusal::Failed(error)) => format!("failed: {error}"),
        }
    }

    /// Red when a directory outside of containerd's is touched, a full one is written to, or a
    /// broken blob leaves something.
    #[test]
    fn refused_before_the_first_change_or_undone() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("c"), dir.path().join("outside"));
        let store = root.join("io.containerd.content.v1.content/blobs/sha256");
        let (target, full) = (root.join("fs"), root.join("full"));
        for dir in [&store, &target, &full, &outside] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(full.join("x"), "").unwrap();
        let blob = b"no archive at all";
        let found = layer::diff_id(&blob[..], Format::Plain, &Limits::default()).unwrap();
        let digest = found.digest.to_string();
        fs::write(store.join(digest.trim_start_matches("sha256:")), blob).unwrap();
        let to = |dir: &Path| mount("bind", dir.to_str().unwrap(), &["rw", "rbind"]);
        let good = Request {
            digest,
            media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
            size: blob.len() as u64,
            mounts: vec![to(&target)],
            ..Request::default()
        };
        for (request, wanted) in [
            (Request { media_type: "x/encrypted".into(), ..good.clone() }, "not ours: mediaType"),
            (Request { digest: "sha256:../x".into(), ..good.clone() }, "not ours: digest: "),
            (Request { digest: format!("sha256:{:064}", 0), ..good.clone() }, "not ours: "),
            (Request { size: 3, ..good.clone() }, "not ours: "),
            (Request { mounts: vec![to(&outside)], ..good.clone() }, "not ours: "),
            (
                Request { mounts: vec![to(&root.join("fs/../../outside"))], ..good.clone() },
                "not ours: ",
            ),
            (Request { mounts: vec![to(&full)], ..good.clone() }, "not ours: "),
            (good, "failed: "),
        ] {
            let said = applied(&root, &request);
            assert!(said.starts_with(wanted), "{wanted:?}: {said}");
            for dir in [&target, &outside] {
                assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "{said}");
            }
        }
    }
}
