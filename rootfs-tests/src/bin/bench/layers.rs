//! Layers: `boathook` beside containerd's own differ and GNU tar, on one file system and in turns.
//!
//! ```text
//! containerd ── Apply ──▶ its own differ ────────▶ ┐
//! containerd ── Apply ──▶ boathook unpackd ──────▶ ├─ directories on ext4, which is in memory
//! boathook layer apply, boathook image unpack ───▶ ┤
//! tar ───────────────────────────────────────────▶ ┘
//! ```

mod contest;
mod corpus;
mod ground;
mod packages;
mod pool;

use rootfs_tests::Result;

use crate::report::{Figure, Row};
use crate::rig::Rig;
use crate::stats::Bar;
use contest::{Contest, Measured, Who};
use corpus::{Corpus, Pack};

/// Peak memory that is promised, in MiB: of gzip and plain layers, and with a window of zstd.
const MEMORY: f64 = 24.0;
const MEMORY_ZSTD: f64 = 56.0;
/// GNU tar hashes nothing, and yet is to take at least this many times as long, with igzip.
const TAR: f64 = 1.2;
/// With igzip instead of its own inflate, for the corpus of big files.
const IGZIP: f64 = 1.6;

/// How many times as long containerd is to take, for plain, gzip and zstd.
struct Promise {
    plain: f64,
    gzip: f64,
    zstd: f64,
}

const MANY: Promise = Promise { plain: 3.5, gzip: 4.0, zstd: 3.5 };
const DEBIAN: Promise = Promise { plain: 2.2, gzip: 3.0, zstd: 2.2 };
const BIG: Promise = Promise { plain: 1.0, gzip: 2.5, zstd: 1.5 };
/// Layers that are unpacked side by side.
const LAYERS: f64 = 4.0;

pub(crate) fn run(rig: &Rig) -> Result<Vec<Row>> {
    let dir = rig.dir().join("layers");
    let packages = packages::Packages::get(&dir)?;
    let corpora = [
        (corpus::many_files(&dir)?, MANY),
        (corpus::of_tree("Debian base", &dir, &packages.base()?)?, DEBIAN),
        (corpus::big_files(&dir)?, BIG),
    ];
    let parts = packages.parts()?;
    let parts = parts
        .iter()
        .enumerate()
        .map(|(at, tree)| corpus::of_tree(&format!("part {at}"), &dir, tree));
    let parts = parts.collect::<Result<Vec<_>>>()?;
    let contest = Contest::new(&packages.igzip(), (rig.rounds / 10).max(1))?;
    let mut rows = Vec::new();
    for (corpus, promise) in &corpora {
        for (pack, bar) in
            [(Pack::Plain, promise.plain), (Pack::Gzip, promise.gzip), (Pack::Zstd, promise.zstd)]
        {
            rows.extend(one_layer(&contest, corpus, pack, bar)?);
        }
    }
    for pack in [Pack::Gzip, Pack::Zstd] {
        rows.extend(many_layers(&contest, &parts, pack)?);
    }
    contest.end()?;
    let _ = std::fs::remove_dir_all(&dir);
    Ok(rows)
}

fn one_layer(contest: &Contest, corpus: &Corpus, pack: Pack, bar: f64) -> Result<Vec<Row>> {
    let gzip = pack == Pack::Gzip;
    let big = bar < MANY.gzip && corpus.name == corpus::BIG;
    let mut who = vec![Who::Containerd, Who::Ours, Who::Unpackd, Who::Tar];
    if gzip && big {
        who.push(Who::WithIgzip);
    }
    let measured = contest.measure(&who, std::slice::from_ref(corpus), pack)?;
    let name = format!("layer: {}, {}", corpus.name, pack.word());
    let mut rows = pair(&name, &measured, Who::Containerd, Who::Ours, bar);
    rows.extend(pair(
        &format!("{name}, by Apply"),
        &measured,
        Who::Containerd,
        Who::Unpackd,
        bar * 0.9,
    ));
    rows.push(memory(&measured, pack));
    let tar = if gzip { TAR } else { 0.0 };
    rows.extend(pair(&name, &measured, Who::Tar, Who::Ours, tar));
    if gzip && big {
        rows.extend(pair(&name, &measured, Who::WithIgzip, Who::Ours, IGZIP));
    }
    Ok(rows)
}

fn many_layers(contest: &Contest, parts: &[Corpus], pack: Pack) -> Result<Vec<Row>> {
    let who = [Who::Containerd, Who::Ours, Who::Unpackd];
    let measured = contest.measure(&who, parts, pack)?;
    let name = format!("{} layers: Debian base, {}", parts.len(), pack.word());
    let bar = if pack == Pack::Gzip { LAYERS } else { 0.0 };
    let mut rows = pair(&name, &measured, Who::Containerd, Who::Ours, bar);
    rows.extend(pair(&format!("{name}, by Apply"), &measured, Who::Containerd, Who::Unpackd, 0.0));
    rows.push(memory(&measured, pack));
    Ok(rows)
}

/// Wall clock, with a bar unless it is 0, and CPU.
fn pair(name: &str, measured: &[Measured], theirs: Who, ours: Who, bar: f64) -> Vec<Row> {
    let of = |who: Who| measured.iter().find(|one| one.who == who);
    let (Some(theirs), Some(ours)) = (of(theirs), of(ours)) else { return Vec::new() };
    // Rounded so that the table shows what is asked.
    let bar = if bar > 0.0 { Bar::Share((1000.0 / bar).floor() / 1000.0) } else { Bar::None };
    let row = |name: String, t: Figure, o: Figure, bar| Row {
        name,
        beside: theirs.who.title(),
        spacing: "back to back",
        unit: "ms",
        theirs: t,
        ours: o,
        bar,
    };
    vec![
        row(name.to_owned(), (&theirs.wall).into(), (&ours.wall).into(), bar),
        row("… CPU".to_owned(), (&theirs.cpu).into(), (&ours.cpu).into(), Bar::None),
    ]
}

/// The most that either process ever had, in any round.
fn memory(measured: &[Measured], pack: Pack) -> Row {
    let of = |who: Who| measured.iter().find(|one| one.who == who).map_or(f64::NAN, |one| one.peak);
    let bar = if pack == Pack::Zstd { MEMORY_ZSTD } else { MEMORY };
    Row {
        name: "… peak memory of the process".to_owned(),
        beside: Who::Containerd.title(),
        spacing: "",
        unit: "MiB",
        theirs: of(Who::Containerd).into(),
        ours: of(Who::Unpackd).into(),
        bar: Bar::Value(bar),
    }
}
