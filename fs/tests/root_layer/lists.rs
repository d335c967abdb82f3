//! Our reader's list of an archive, against those of GNU tar and Python's tarfile.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use boathook_fs::layer::{Archive, Digest, Entry, Format, Kind, Limits, diff_id};

use super::Yard;
use super::everything::{POSIX, age, fill, tar};

/// One line of `tar --list --verbose`, blanks made one.
fn as_tar(entry: &Entry) -> String {
    let bits = |shift: u32, special: u32, set: char| {
        let bits = entry.mode >> shift & 7;
        let mut text = String::new();
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => set.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
        text
    };
    let kind = match entry.kind {
        Kind::File => '-',
        Kind::HardLink => 'h',
        Kind::Symlink => 'l',
        Kind::Directory => 'd',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
        Kind::Fifo => 'p',
    };
    let size = match entry.kind {
        Kind::CharDevice | Kind::BlockDevice => format!("{},{}", entry.device.0, entry.device.1),
        _ => entry.size.to_string(),
    };
    let link = match entry.kind {
        Kind::HardLink => format!(" link to {}", escaped(&entry.link)),
        Kind::Symlink => format!(" -> {}", escaped(&entry.link)),
        _ => String::new(),
    };
    format!(
        "{kind}{}{}{} {}/{} {size} {} {}{link}",
        bits(6, 0o4000, 's'),
        bits(3, 0o2000, 's'),
        bits(0, 0o1000, 't'),
        entry.uid,
        entry.gid,
        date(entry.mtime.seconds, entry.mtime.nanoseconds),
        escaped(&entry.path),
    )
}

/// As GNU tar's quoting style `escape` in the C locale.
fn escaped(name: &[u8]) -> String {
    let mut text = String::new();
    for byte in name {
        let _ = match byte {
            b'\n' => write!(text, "\\n"),
            b'\\' => write!(text, "\\\\"),
            b' '..=b'~' => write!(text, "{}", char::from(*byte)),
            _ => write!(text, "\\{byte:03o}"),
        };
    }
    text
}

/// Universal time, from the count of days (proleptic Gregorian calendar).
fn date(seconds: i64, nanoseconds: u32) -> String {
    let (mut day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let mut year = 1970;
    while day >= 365 + i64::from(leap(year)) {
        day -= 365 + i64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for days in [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let fraction = if nanoseconds == 0 { String::new() } else { format!(".{nanoseconds:09}") };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}{fraction}", day + 1)
}

/// One line of [`PYTHON`].
fn as_python(entry: &Entry, body: Option<Digest>) -> String {
    let kind = match entry.kind {
        Kind::File => "file",
        Kind::HardLink => "link",
        Kind::Symlink => "symlink",
        Kind::Directory => "directory",
        Kind::CharDevice => "character",
        Kind::BlockDevice => "block",
        Kind::Fifo => "fifo",
    };
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    // It drops the slash at the end of a directory's name, and has no root without a name.
    let name = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
    let body = body.map_or(String::new(), |digest| digest.to_string());
    let mut xattrs: Vec<String> =
        entry.xattrs.iter().map(|(name, value)| format!("{}={}", hex(name), hex(value))).collect();
    xattrs.sort();
    format!(
        "{kind} {} {} {:o} {} {} {} {} {} {body}",
        hex(name),
        hex(&entry.link),
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        entry.mtime.seconds,
        xattrs.join(","),
    )
}

/// Lists an archive as [`as_python`] does.
const PYTHON: &str = r#"
import hashlib, sys, tarfile
kinds = {tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.LNKTYPE: "link",
         tarfile.SYMTYPE: "symlink", tarfile.DIRTYPE: "directory", tarfile.CHRTYPE: "character",
         tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo", tarfile.GNUTYPE_SPARSE: "file"}
raw = lambda text: text.encode("utf-8", "surrogateescape").hex()
with tarfile.open(sys.argv[1], "r:", encoding="utf-8", errors="surrogateescape") as archive:
    for entry in archive:
        body = ""
        if entry.isreg():
            body = "sha256:" + hashlib.sha256(archive.extractfile(entry).read()).hexdigest()
        known = "SCHILY.xattr."
        xattrs = sorted(raw(key[len(known):]) + "=" + raw(value)
                        for key, value in entry.pax_headers.items() if key.startswith(known))
        link = entry.linkname if entry.islnk() or entry.issym() else ""
        seconds = int(entry.mtime // 1)
        size = entry.size
        print(kinds[entry.type], raw(entry.name), raw(link), "%o" % entry.mode, entry.uid,
              entry.gid, size, seconds, ",".join(xattrs), body)
"#;

fn lines(program: &str, args: &[&str], archive: &Path) -> Vec<String> {
    let mut command = Command::new(program);
    command.args(args).arg(archive).env("TZ", "UTC").env("LC_ALL", "C");
    let output = command.output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The stored bytes with the holes of a sparse file between them.
fn whole(entry: &Entry, stored: &[u8]) -> Vec<u8> {
    let Some(map) = &entry.sparse else { return stored.to_vec() };
    let mut out = vec![0; usize::try_from(entry.size).unwrap()];
    let mut rest = stored;
    for segment in map {
        let (now, later) = rest.split_at(usize::try_from(segment.length).unwrap());
        let at = usize::try_from(segment.offset).unwrap();
        out[at..at + now.len()].copy_from_slice(now);
        rest = later;
    }
    out
}

/// Red when an entry is lost or invented, or any field of one is read in another way than both
/// other readers do it.
#[test]
fn root_lists_are_those_of_other_readers() {
    let yard = Yard::new();
    let tree = yard.dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree);
    age(&tree);
    let archive = yard.dir.path().join("a.tar");
    let sparse = |version: &'static str| [&POSIX[..], &["--sparse", version]].concat();
    for args in [
        POSIX.to_vec(),
        sparse("--sparse-version=0.0"),
        sparse("--sparse-version=0.1"),
        sparse("--sparse-version=1.0"),
        vec!["--format=gnu"],
        vec!["--format=gnu", "--exclude=./usr/bin/ping"],
    ] {
        tar(&tree, &archive, &args);
        let bytes = fs::read(&archive).unwrap();
        let limits = Limits::default();
        let mut reader = Archive::new(&bytes[..], &limits);
        let (mut tar_lines, mut python_lines) = (Vec::new(), Vec::new());
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut stored = Vec::new();
            reader
                .read_body::<boathook_fs::Error>(|piece| {
                    stored.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
            let body = (entry.kind == Kind::File).then(|| {
                diff_id(&whole(&entry, &stored)[..], Format::Plain, &limits).unwrap().diff_id
            });
            tar_lines.push(as_tar(&entry));
            python_lines.push(as_python(&entry, body));
        }
        let list = ["--list", "-vv", "--full-time", "--numeric-owner", "--quoting-style=escape"];
        let theirs = lines("tar", &[&list[..], &["-f"]].concat(), &archive);
        assert!(tar_lines.len() > 20, "{tar_lines:?}");
        assert_eq!(tar_lines, theirs, "{args:?}");
        let blanks: Vec<String> = python_lines
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(blanks, lines("/usr/bin/python3", &["-c", PYTHON], &archive), "{args:?}");
    }
}
