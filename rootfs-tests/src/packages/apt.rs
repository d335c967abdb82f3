//! Downloading with the machine's own apt, kept apart from the machine's own state.

use super::Release;
use crate::command::Run;
use crate::error::{Context, Error, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names the archive to use where apt's own configuration does not tell.
const MIRROR: &str = "BOATHOOK_DEBIAN_MIRROR";
/// Enough for a hundred megabytes on a slow line.
const DOWNLOAD: Duration = Duration::from_secs(15 * 60);

/// A Debian archive as apt's configuration describes it.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    uri: String,
    keyring: Option<String>,
}

/// The downloaded packages.
pub(super) fn archives(dir: &Path) -> Result<Vec<PathBuf>> {
    let dir = dir.join("archives");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).during(|| format!("list {}", dir.display()))? {
        let path = entry.during(|| format!("list {}", dir.display()))?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Brings the wanted packages and all they need into `dir/archives`; apt verifies signatures and
/// digests, and fetches again what is there in part or is out of date.
pub(super) fn download(release: Release, dir: &Path, wanted: &[&str]) -> Result<()> {
    let archive = archive()?;
    let apt = dir.join("apt");
    for part in ["state/lists/partial", "cache"] {
        let part = apt.join(part);
        fs::create_dir_all(&part).during(|| format!("mkdir {}", part.display()))?;
    }
    let kept = dir.join("archives");
    fs::create_dir_all(kept.join("partial")).during(|| format!("mkdir {}", kept.display()))?;
    let options = options(release, &archive, &apt, &kept)?;
    let get = |rest: &[&str]| {
        Run::new("apt-get").args(&options).args(rest).env("LC_ALL", "C").within(DOWNLOAD).ok()
    };
    let fetch = || -> Result<()> {
        let updated = get(&["update"]);
        // The lists name one version of each package; older ones from an earlier run would be
        // unpacked over it.
        get(&["autoclean"])?;
        let mut install = vec!["--yes", "--no-install-recommends", "--download-only", "install"];
        install.extend(wanted);
        // Without a network the lists and packages of an earlier run still do.
        get(&install).map(drop).or_else(|error| updated.and(Err(error)))
    };
    fetch().map_err(|error| Error::Missing {
        what: format!("{} of Debian {release}", wanted.join(", ")),
        remedy: format!(
            "apt could not fetch it from {}; check the network, or name another archive by \
             {MIRROR}\n{error}",
            archive.uri
        ),
    })
}

/// Options that keep apt's state, lists and packages in our own directories.
fn options(release: Release, from: &Archive, apt: &Path, kept: &Path) -> Result<Vec<String>> {
    let sources = apt.join("sources.list");
    let signed = from.keyring.as_ref().map_or(String::new(), |key| format!(" [signed-by={key}]"));
    let text = format!("deb{signed} {} {release} main\n", from.uri);
    fs::write(&sources, text).during(|| format!("write {}", sources.display()))?;
    let settings = [
        format!("Dir::State={}", apt.join("state").display()),
        // As on a machine with nothing installed, so that libraries come along.
        "Dir::State::status=/dev/null".to_owned(),
        format!("Dir::Cache={}", apt.join("cache").display()),
        format!("Dir::Cache::archives={}", kept.display()),
        format!("Dir::Etc::sourcelist={}", sources.display()),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        "Dir::Etc::preferences=/dev/null".to_owned(),
        "Dir::Etc::preferencesparts=/dev/null".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        "Acquire::Retries=3".to_owned(),
        // The directories belong to us, not to apt's own user.
        "APT::Sandbox::User=root".to_owned(),
    ];
    Ok(settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect())
}

/// The archive this machine installs from.
fn archive() -> Result<Archive> {
    if let Ok(uri) = std::env::var(MIRROR) {
        return Ok(Archive { uri, keyring: None });
    }
    let codename = codename();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.filter_map(|entry| entry.ok().map(|entry| entry.path())));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| Some((file, fs::read_to_string(file).ok()?)))
        .find_map(|(file, text)| {
            if file.extension().is_some_and(|end| end == "sources") {
                from_stanzas(&text, &codename)
            } else {
                from_lines(&text, &codename)
            }
        })
        .ok_or_else(|| Error::Missing {
            what: "a Debian archive".into(),
            remedy: format!(
                "no file in /etc/apt names one for {codename:?}; set {MIRROR} to its address"
            ),
        })
}

/// The release that runs here, by which the main archive is told from others.
fn codename() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    line.unwrap_or("sid").trim_matches('"').to_owned()
}

/// Reads the one-line format of sources.list(5).
fn from_lines(text: &str, codename: &str) -> Option<Archive> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb")?.trim_start();
        let (keyring, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => {
                let key = options.split_whitespace().find_map(|it| it.strip_prefix("signed-by="));
                (key.map(str::to_owned), rest)
            }
            None => (None, rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let main = suite == codename && words.any(|component| component == "main");
        main.then(|| Archive { uri: uri.to_owned(), keyring })
    })
}

/// Reads the deb822 format of sources.list(5).
fn from_stanzas(text: &str, codename: &str) -> Option<Archive> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let has = |name: &str, word: &str| {
            field(name).is_some_and(|value| value.split_whitespace().any(|it| it == word))
        };
        let main = has("Types", "deb") && has("Suites", codename) && has("Components", "main");
        let uri = field("URIs")?.split_whitespace().next()?.to_owned();
        main.then(|| Archive {
            uri,
            keyring: field("Signed-By").filter(|key| key.starts_with('/')),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{Archive, from_lines, from_stanzas};

    #[test]
    fn one_line_sources_give_the_main_archive_and_its_key() {
        let text = "# deb http://no/ bookworm main\n\
                    deb http://other/apt stable-bookworm main\n\
                    deb http://sec/debian-security bookworm-security main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://here/debian bookworm contrib main\n";
        let found = from_lines(text, "bookworm");
        let expected = Archive { uri: "http://here/debian".into(), keyring: Some("/k.gpg".into()) };
        assert_eq!(found, Some(expected));
        assert_eq!(from_lines(text, "trixie"), None);
    }

    #[test]
    fn stanzas_give_the_archive_whose_suites_name_the_release() {
        let text = "Types: deb\nURIs: http://sec/\nSuites: bookworm-security\nComponents: main\n\n\
                    Types: deb\n# a comment\nURIs: http://here/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By: /keys/debian.gpg\n";
        let found = from_stanzas(text, "bookworm");
        let expected =
            Archive { uri: "http://here/debian".into(), keyring: Some("/keys/debian.gpg".into()) };
        assert_eq!(found, Some(expected));
    }
}
