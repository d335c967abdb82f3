//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// A container runtime, and the tools around it.
#[derive(Debug, Parser)]
#[command(name = "boathook", version, about, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print what starting a bundle will do to the kernel, step by step, without doing it.
    Plan(Plan),
    /// Find out what this host offers, what of it will be used, and whether pods can run.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look at the configuration file.
    Config {
        /// The file [default: $BOATHOOK_CONFIG, else /etc/boathook/config.toml].
        #[arg(long, global = true)]
        config: Option<PathBuf>,
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Show a container's hooks, what they did, and what its stop is doing.
    Lifecycle(Lifecycle),
    /// Show what happened to the hooks and stops of containers.
    Events(Events),
    /// Read image layers: apply one, check one, print a diff id.
    #[command(subcommand)]
    Layer(Box<Layer>),
    /// Unpack an image and mount it.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Serve containerd as a differ: it asks for layers, and they are unpacked here.
    Unpackd(Box<Unpackd>),
}

/// Arguments of `boathook unpackd`.
#[derive(Debug, clap::Args)]
pub(crate) struct Unpackd {
    /// The daemon's directory, `root` in its configuration.
    #[arg(long, default_value = "/var/lib/containerd")]
    pub(crate) root: PathBuf,
    /// The socket to make, unless one was handed over.
    #[arg(long, default_value = "/run/boathook/unpackd.sock")]
    pub(crate) socket: PathBuf,
    #[command(flatten)]
    pub(crate) limits: LayerLimits,
}

/// The commands of `boathook image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Unpack all layers of an image to a new directory.
    Unpack(Box<UnpackImage>),
    /// Mount an image that was unpacked, read-only unless told where to write.
    Mount {
        /// What `image unpack` made.
        image: PathBuf,
        /// The directory to mount on.
        on: PathBuf,
        /// A directory for what is written to the mount; it stays when the mount is gone.
        #[arg(long, value_name = "DIRECTORY")]
        writable: Option<PathBuf>,
        /// What is written need not survive a crash of the machine, and is faster.
        #[arg(long, requires = "writable")]
        volatile: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a mount away.
    Umount {
        /// The directory that is mounted on.
        on: PathBuf,
    },
}

/// Arguments of `boathook image unpack`.
#[derive(Debug, clap::Args)]
pub(crate) struct UnpackImage {
    /// An OCI layout, or an archive of one or of `docker save`.
    pub(crate) image: PathBuf,
    /// The directory to make; it must not exist, and appears when all was right.
    pub(crate) target: PathBuf,
    /// The image's name, where there are several.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// When it has to be on disk: before the directory appears, or whenever.
    #[arg(long, value_enum, default_value_t = LayerSync::Layer)]
    pub(crate) sync: LayerSync,
    /// Layers at once [default: one for each processor, 4 at the most].
    #[arg(long, value_name = "COUNT")]
    pub(crate) workers: Option<usize>,
    /// Owners on disk, for a user namespace that is mapped so: inside:outside:count, ….
    #[arg(long, value_name = "RANGES", requires = "map_groups")]
    pub(crate) map_users: Option<String>,
    /// The same for groups.
    #[arg(long, value_name = "RANGES", requires = "map_users")]
    pub(crate) map_groups: Option<String>,
    /// It is for mounts made in a user namespace, or unpacked in one.
    #[arg(long)]
    pub(crate) user_namespace: bool,
    #[command(flatten)]
    pub(crate) limits: LayerLimits,
    /// Layers [default: 500].
    #[arg(long, help_heading = "Limits")]
    pub(crate) max_layers: Option<usize>,
    /// Bytes of all layers after decompression [default: 128 GiB].
    #[arg(long, help_heading = "Limits")]
    pub(crate) max_image_bytes: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The commands of `boathook layer`.
#[derive(Debug, Subcommand)]
pub(crate) enum Layer {
    /// Apply a layer to a new directory, which overlayfs can have as a layer.
    Apply {
        #[command(flatten)]
        blob: LayerBlob,
        /// The directory to make; it must not exist, and appears when all was right.
        target: PathBuf,
        /// It is the lowest layer: there is nothing for its whiteouts to hide.
        #[arg(long)]
        first: bool,
        /// When the layer has to be on disk: before its directory appears, or whenever.
        #[arg(long, value_enum, default_value_t = LayerSync::Layer)]
        sync: LayerSync,
        /// It is for mounts made in a user namespace, or applied in one.
        #[arg(long)]
        user_namespace: bool,
        #[command(flatten)]
        limits: LayerLimits,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read a layer to its end and check all that needs no file system.
    Verify {
        #[command(flatten)]
        blob: LayerBlob,
        #[command(flatten)]
        limits: LayerLimits,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the digest of a layer's decompressed bytes.
    DiffId {
        /// The file with the layer.
        blob: PathBuf,
        /// The blob's media type [default: its first bytes tell].
        #[arg(long)]
        media_type: Option<String>,
        #[command(flatten)]
        limits: LayerLimits,
    },
}

/// `--sync`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LayerSync {
    /// Before the directory appears.
    Layer,
    /// Whenever the kernel likes.
    None,
}

/// A layer, and what is known of it.
#[derive(Debug, clap::Args)]
pub(crate) struct LayerBlob {
    /// The file with the layer.
    pub(crate) blob: PathBuf,
    /// The blob's media type [default: its first bytes tell].
    #[arg(long)]
    pub(crate) media_type: Option<String>,
    /// The digest that the blob must have.
    #[arg(long)]
    pub(crate) digest: Option<String>,
    /// The size in bytes that the blob must have.
    #[arg(long)]
    pub(crate) size: Option<u64>,
    /// The digest that the decompressed bytes must have.
    #[arg(long)]
    pub(crate) diff_id: Option<String>,
}

/// How much a layer may be; each error names its limit.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LayerLimits {
    /// Entries [default: 1000000].
    #[arg(long)]
    pub(crate) max_entries: Option<u64>,
    /// Bytes after decompression [default: 64 GiB].
    #[arg(long)]
    pub(crate) max_bytes: Option<u64>,
    /// Ratio of decompressed to compressed bytes, after 64 MiB [default: 1100].
    #[arg(long)]
    pub(crate) max_ratio: Option<u64>,
    /// Bytes of a path [default: 4095].
    #[arg(long)]
    pub(crate) max_path_bytes: Option<u64>,
    /// Components of a path [default: 1024].
    #[arg(long)]
    pub(crate) max_depth: Option<u64>,
    /// Bytes of one extended header, long name or sparse map [default: 1 MiB].
    #[arg(long)]
    pub(crate) max_extended_bytes: Option<u64>,
    /// Records of one extended header [default: 4096].
    #[arg(long)]
    pub(crate) max_pax_records: Option<u64>,
    /// Extended attributes of an entry [default: 256].
    #[arg(long)]
    pub(crate) max_xattrs: Option<u64>,
    /// Bytes of one extended attribute [default: 64 KiB].
    #[arg(long)]
    pub(crate) max_xattr_bytes: Option<u64>,
    /// Bytes of all extended attributes of an entry [default: 256 KiB].
    #[arg(long)]
    pub(crate) max_xattrs_bytes: Option<u64>,
    /// Segments of a sparse file [default: 65536].
    #[arg(long)]
    pub(crate) max_sparse_segments: Option<u64>,
    /// Window of zstd, as the logarithm to base 2 of its bytes [default: 25].
    #[arg(long, value_parser = clap::value_parser!(u32).range(10..=31))]
    pub(crate) max_zstd_window_log: Option<u32>,
}

/// What can be done with the configuration file.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether it can be used.
    Check,
    /// Print what holds, defaults included.
    Print,
}

/// Where containers are looked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Parent of the state directories.
    #[arg(long, default_value = "/run/boathook")]
    pub(crate) root: PathBuf,
    /// Only this namespace of containerd.
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
}

/// Arguments of `boathook lifecycle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Lifecycle {
    /// The container's id.
    pub(crate) id: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print a picture of what happened.
    #[arg(long, conflicts_with = "json")]
    pub(crate) svg: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Arguments of `boathook events`.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Only this container.
    #[arg(long, value_name = "ID")]
    pub(crate) container: Option<String>,
    /// Go on with what happens from now on.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Print JSON, one event a line.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Arguments of `boathook plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// The bundle: a directory with a config.json.
    pub(crate) bundle: PathBuf,
    /// The id that the container would have [default: the bundle's directory name].
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Plan for systemd as the manager of cgroups.
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// chroot into the root file system instead of pivot_root.
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring.
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
}
