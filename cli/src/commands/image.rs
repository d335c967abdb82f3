//! `boathook image unpack|mount|umount`.

use std::io::IsTerminal;

use boathook_fs::layer::Sync;
use boathook_fs::rootfs::IdMap;
use boathook_image::{Image, Limits, Mount, Options, Progress, Source, Unpacked};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::layer::limits_of;
use crate::args::{ImageCommand, LayerSync, UnpackImage};
use crate::output::{Failure, print};

pub(crate) fn run(command: &ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Unpack(unpack) => self::unpack(unpack),
        ImageCommand::Mount { image, on, writable, volatile, json } => {
            let how = Mount { writable: writable.as_deref(), volatile: *volatile };
            boathook_image::mount(image, on, &how)?;
            if *json { print(&format!("{:#}\n", json!({ "mounted": on }))) } else { Ok(()) }
        }
        ImageCommand::Umount { on } => Ok(boathook_image::unmount(on)?),
    }
}

fn unpack(unpack: &UnpackImage) -> Result<(), Failure> {
    let owners = match (&unpack.map_users, &unpack.map_groups) {
        (Some(users), Some(groups)) => Some(IdMap::parse(users, groups)?),
        _ => None,
    };
    let usual = Limits::default();
    let options = Options {
        limits: Limits {
            layer: limits_of(&unpack.limits),
            layers: unpack.max_layers.unwrap_or(usual.layers),
            bytes: unpack.max_image_bytes.unwrap_or(usual.bytes),
        },
        sync: match unpack.sync {
            LayerSync::Layer => Sync::Layer,
            LayerSync::None => Sync::None,
        },
        workers: unpack.workers.unwrap_or(0),
        owners,
        user_namespace: unpack.user_namespace,
    };
    let source = Source::open(&unpack.image)?;
    let image = Image::find(&source, unpack.name.as_deref())?;
    let bar = Bar::of(&image);
    let unpacked = boathook_image::unpack(&source, &image, &unpack.target, &options, &bar);
    bar.0.finish_and_clear();
    say(&unpacked?, unpack.json)
}

fn say(unpacked: &Unpacked, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print(&format!("{:#}\n", json!(unpacked)));
    }
    let mut text = format!("id       {}\n", unpacked.id);
    for (at, layer) in unpacked.layers.iter().enumerate() {
        let opaque = if layer.root_opaque { ", hides everything below it" } else { "" };
        text.push_str(&format!(
            "layer {at:<2} {}, {} bytes, {} entries{opaque}\n",
            layer.diff_id, layer.diff_size, layer.entries
        ));
    }
    for warning in &unpacked.warnings {
        text.push_str(&format!("warning  {warning}\n"));
    }
    print(&text)
}

/// Blobs' bytes on standard error, where it is a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn of(image: &Image) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(image.layers.iter().map(|layer| layer.size).sum());
        let template = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        Self(match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }
}

impl Progress for Bar {
    fn read(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}
