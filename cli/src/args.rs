//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
