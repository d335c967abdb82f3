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
