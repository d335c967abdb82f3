//! Who unpacks, and how that is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rootfs_tests::command::Run;
use rootfs_tests::containerd::Daemon;
use rootfs_tests::error::{Context, Error};
use rootfs_tests::grpc::Connection;
use rootfs_tests::packages::Release;
use rootfs_tests::unpackd::Unpackd;
use rootfs_tests::{Result, ensure, workspace};

use super::corpus::{Blob, Corpus, Pack};
use super::ground::Ground;
use crate::stats::Samples;

const NAMESPACE: &str = "bench";
/// For one call; the slowest takes seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// Unit of times in procfs: USER_HZ is 100 on every architecture that counts here.
const TICK: Duration = Duration::from_millis(10);

/// Who unpacks a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// containerd 2.1 with its own differ.
    Containerd,
    /// The same with igzip in its PATH, which it uses then.
    WithIgzip,
    /// The same with `boathook unpackd` as its differ.
    Unpackd,
    /// `boathook layer apply`, or `image unpack` for several layers.
    Ours,
    Tar,
}

impl Who {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Containerd => "containerd 2.1",
            Self::WithIgzip => "containerd 2.1 with igzip",
            Self::Unpackd => "boathook unpackd",
            Self::Ours => "boathook",
            Self::Tar => "GNU tar (with igzip, zstd)",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::WithIgzip => "igzip",
            Self::Unpackd => "unpackd",
            Self::Ours => "ours",
            Self::Tar => "tar",
        }
    }
}

/// The samples of one of them.
pub(crate) struct Measured {
    pub(crate) who: Who,
    pub(crate) wall: Samples,
    /// User and system time of all processes that took part.
    pub(crate) cpu: Samples,
    /// Most memory that the process which unpacks ever had, in MiB; of daemons only.
    pub(crate) peak: f64,
}

/// `containerd.services.diff.v1.ApplyRequest` and what it holds, by their field numbers.
#[derive(Clone, PartialEq, prost::Message)]
struct ApplyRequest {
    #[prost(message, optional, tag = "1")]
    diff: Option<Descriptor>,
    #[prost(message, repeated, tag = "2")]
    mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ApplyResponse {
    #[prost(message, optional, tag = "1")]
    applied: Option<Descriptor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Descriptor {
    #[prost(string, tag = "1")]
    media_type: String,
    #[prost(string, tag = "2")]
    digest: String,
    #[prost(int64, tag = "3")]
    size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Mount {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    source: String,
    #[prost(string, repeated, tag = "4")]
    options: Vec<String>,
}

/// A daemon and a connection to it.
struct Server {
    daemon: Daemon,
    connection: Connection,
}

impl Server {
    fn new(daemon: Daemon) -> Result<Self> {
        let connection = Connection::open(&daemon.socket())?.in_namespace(NAMESPACE)?;
        Ok(Self { daemon, connection })
    }

    /// Puts a blob into its content store, unless it has it, and keeps it there.
    fn ingest(&self, blob: &Blob) -> Result<()> {
        let hex = blob.digest.replace(':', "/");
        let store = self.daemon.dir().join("root/io.containerd.content.v1.content/blobs");
        if store.join(hex).exists() {
            return Ok(());
        }
        let ctr = self.daemon.ctr(NAMESPACE);
        let file = fs::File::open(&blob.file).during(|| format!("open {}", blob.file.display()))?;
        let done = ctr
            .std_command()
            .args(["content", "ingest", "--expected-digest", &blob.digest, &blob.digest])
            .stdin(Stdio::from(file))
            .status()
            .during(|| "start ctr")?;
        ensure!(done.success(), "ctr content ingest {}: {done}", blob.file.display());
        ctr.ok(&["content", "label", &blob.digest, "containerd.io/gc.root=bench"]).map(drop)
    }

    /// Has the daemon apply `layers`, one after the other as it does for an image, in `dir`.
    fn apply(&self, layers: &[Corpus], pack: Pack, dir: &Path) -> Result<()> {
        let mut below: Vec<String> = Vec::new();
        for (at, layer) in layers.iter().enumerate() {
            let [tree, work] = ["fs", "work"].map(|name| format!("{}/{at}/{name}", dir.display()));
            let mount = if below.is_empty() {
                let options = ["rw", "rbind"].map(str::to_owned).to_vec();
                Mount { r#type: "bind".into(), source: tree.clone(), options }
            } else {
                let options = vec![
                    "index=off".to_owned(),
                    format!("workdir={work}"),
                    format!("upperdir={tree}"),
                    format!("lowerdir={}", below.join(":")),
                ];
                Mount { r#type: "overlay".into(), source: "overlay".into(), options }
            };
            let blob = layer.blob(pack);
            let diff = Descriptor {
                media_type: pack.media_type().to_owned(),
                digest: blob.digest.clone(),
                size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            };
            let request = ApplyRequest { diff: Some(diff), mounts: vec![mount] };
            let method = "/containerd.services.diff.v1.Diff/Apply";
            let answer: ApplyResponse = self.connection.call(method, request, PATIENCE)?;
            let diff_id = answer.applied.map(|applied| applied.digest).unwrap_or_default();
            ensure!(diff_id == layer.diff_id(), "{}: diff id {diff_id}", layer.name);
            below.insert(0, tree);
        }
        Ok(())
    }
}

/// The contestants, and the ground they share.
pub(crate) struct Contest {
    own: Server,
    with_igzip: Server,
    with_unpackd: Server,
    unpackd: Unpackd,
    ground: Ground,
    cli: PathBuf,
    igzip: PathBuf,
    rounds: usize,
}

impl Contest {
    pub(crate) fn new(igzip: &Path, rounds: usize) -> Result<Self> {
        let with_unpackd = Server::new(Daemon::with_differ(Release::Sid)?)?;
        // What unpackd writes to is below the daemon's directory; the others do not care.
        let dir = with_unpackd.daemon.dir();
        let ground = Ground::new(dir.join("root/bench"), dir.join("memory"))?;
        let unpackd = Unpackd::start(&with_unpackd.daemon)?;
        let with_igzip = Server::new(Daemon::start(Release::Sid)?)?;
        // It looks for igzip when it needs it first.
        let place = with_igzip.daemon.dir().join("bin/igzip");
        std::os::unix::fs::symlink(igzip, &place).during(|| "link igzip")?;
        Ok(Self {
            own: Server::new(Daemon::start(Release::Sid)?)?,
            with_igzip,
            with_unpackd,
            unpackd,
            ground,
            cli: workspace::cli()?,
            igzip: igzip.to_owned(),
            rounds,
        })
    }

    pub(crate) fn end(self) -> Result<()> {
        let Self { own, with_igzip, with_unpackd, mut unpackd, ground, .. } = self;
        unpackd.end()?;
        drop(ground);
        for server in [own, with_igzip, with_unpackd] {
            server.daemon.end()?;
        }
        Ok(())
    }

    /// Everybody unpacks the same layers, one after the other and in turns; the first round does
    /// not count.
    pub(crate) fn measure(
        &self,
        who: &[Who],
        layers: &[Corpus],
        pack: Pack,
    ) -> Result<Vec<Measured>> {
        let layout = self.ground.dir.join("layout");
        write_layout(&layout, layers, pack)?;
        let mut all: Vec<Measured> = Vec::new();
        for who in who {
            if let Some(server) = self.server(*who) {
                layers.iter().try_for_each(|layer| server.ingest(layer.blob(pack)))?;
            }
            let (wall, cpu) = Default::default();
            all.push(Measured { who: *who, wall, cpu, peak: 0.0 });
        }
        for round in 0..=self.rounds {
            let count = all.len();
            for turn in 0..count {
                let Some(one) = all.get_mut((round + turn) % count) else { continue };
                let failed = |e| Error::check(format!("{}: {e}", one.who.title()));
                let (wall, cpu, peak) = self.once(one.who, layers, pack).map_err(failed)?;
                one.peak = one.peak.max(peak);
                if round > 0 {
                    one.wall.push(wall);
                    one.cpu.push(cpu);
                }
            }
        }
        Ground::remove(&layout)?;
        Ok(all)
    }

    fn server(&self, who: Who) -> Option<&Server> {
        match who {
            Who::Containerd => Some(&self.own),
            Who::WithIgzip => Some(&self.with_igzip),
            Who::Unpackd => Some(&self.with_unpackd),
            Who::Ours | Who::Tar => None,
        }
    }

    /// The processes whose time counts, beside this one's children; the one that unpacks is first.
    fn processes(&self, who: Who) -> Vec<u32> {
        let unpackd = self.unpackd.pid().filter(|_| who == Who::Unpackd);
        let daemon = self.server(who).and_then(|server| server.daemon.pid());
        unpackd.into_iter().chain(daemon).collect()
    }

    fn once(&self, who: Who, layers: &[Corpus], pack: Pack) -> Result<(Duration, Duration, f64)> {
        let dir = self.ground.fresh(who.word())?;
        for at in 0..layers.len() {
            for name in ["fs", "work"] {
                let dir = dir.join(format!("{at}/{name}"));
                fs::create_dir_all(&dir).during(|| format!("mkdir {}", dir.display()))?;
            }
        }
        let processes = self.processes(who);
        processes.iter().try_for_each(|pid| forget_peak(*pid))?;
        let cpu = || {
            processes.iter().map(|pid| cpu_of(*pid)).chain([children()]).sum::<Result<Duration>>()
        };
        let (start, before) = (Instant::now(), cpu()?);
        match (self.server(who), layers) {
            (Some(server), _) => server.apply(layers, pack, &dir)?,
            (None, [layer]) if who == Who::Tar => self.tar(layer, pack, &dir.join("0/fs"))?,
            (None, [layer]) => self.layer(layer, pack, &dir)?,
            (None, _) => self.image(&dir)?,
        }
        let (wall, after) = (start.elapsed(), cpu()?);
        let peak = processes.first().map_or(Ok(0.0), |pid| peak_of(*pid))?;
        Ground::remove(&dir)?;
        Ok((wall, after.saturating_sub(before), peak))
    }

    fn tar(&self, layer: &Corpus, pack: Pack, to: &Path) -> Result<()> {
        let tar = Run::new("tar").args(["--xattrs", "--numeric-owner", "-p", "-C"]).arg(to);
        let tar = match pack {
            Pack::Plain => tar,
            Pack::Gzip => tar.arg("-I").arg(&self.igzip),
            Pack::Zstd => tar.arg("--zstd"),
        };
        tar.arg("-xf").arg(&layer.blob(pack).file).within(PATIENCE).ok().map(drop)
    }

    fn layer(&self, layer: &Corpus, pack: Pack, dir: &Path) -> Result<()> {
        let blob = layer.blob(pack);
        Run::new(&self.cli)
            .args([
                "layer",
                "apply",
                "--first",
                "--sync",
                "none",
                "--media-type",
                pack.media_type(),
            ])
            .args(["--digest", &blob.digest, "--size", &blob.size.to_string()])
            .args(["--diff-id", layer.diff_id()])
            .arg(&blob.file)
            .arg(dir.join("tree"))
            .within(PATIENCE)
            .ok()
            .map(drop)
    }

    fn image(&self, dir: &Path) -> Result<()> {
        Run::new(&self.cli)
            .args(["image", "unpack", "--sync", "none"])
            .args([self.ground.dir.join("layout"), dir.join("image")])
            .within(PATIENCE)
            .ok()
            .map(drop)
    }
}

/// An OCI layout whose blobs are links to the files.
fn write_layout(to: &Path, layers: &[Corpus], pack: Pack) -> Result<()> {
    use serde_json::json;
    use sha2::{Digest, Sha256};
    let blobs = to.join("blobs/sha256");
    fs::create_dir_all(&blobs).during(|| format!("mkdir {}", blobs.display()))?;
    let put = |value: &serde_json::Value, kind: &str| -> Result<serde_json::Value> {
        let text = value.to_string();
        let hex: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&hex), &text).during(|| "write a blob")?;
        Ok(json!({ "mediaType": kind, "digest": format!("sha256:{hex}"), "size": text.len() }))
    };
    let mut descriptors = Vec::new();
    for layer in layers {
        let blob = layer.blob(pack);
        let file = blobs.join(blob.digest.trim_start_matches("sha256:"));
        fs::copy(&blob.file, &file).during(|| format!("copy {}", blob.file.display()))?;
        descriptors.push(
            json!({ "mediaType": pack.media_type(), "digest": blob.digest, "size": blob.size }),
        );
    }
    let ids: Vec<&str> = layers.iter().map(Corpus::diff_id).collect();
    let config = json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": ids } });
    let config = put(&config, "application/vnd.oci.image.config.v1+json")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": descriptors });
    let index = json!({ "schemaVersion": 2, "manifests": [put(&manifest, kind)?] });
    fs::write(to.join("index.json"), index.to_string()).during(|| "write index.json")?;
    fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .during(|| "write oci-layout")
}

/// User and system time of a process and of its children that have ended.
fn cpu_of(pid: u32) -> Result<Duration> {
    times(&format!("/proc/{pid}/stat"), 0..4)
}

/// The same of this process's children alone.
fn children() -> Result<Duration> {
    times("/proc/self/stat", 2..4)
}

/// proc_pid_stat(5): utime, stime, cutime, cstime are fields 14 to 17.
fn times(path: &str, which: std::ops::Range<usize>) -> Result<Duration> {
    let text = fs::read_to_string(path).during(|| format!("read {path}"))?;
    // The second field is a name, which may hold blanks.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(11).take(4).filter_map(|word| word.parse().ok()).collect();
    let ticks: u64 = ticks.get(which).unwrap_or_default().iter().sum();
    Ok(TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
}

/// proc_pid_clear_refs(5): the peak begins anew at what is there.
fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").during(|| format!("write {path}"))
}

/// In MiB.
fn peak_of(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).during(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.unwrap_or(f64::NAN) / 1024.0)
}
