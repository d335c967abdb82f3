//! What a guest gets to see of the host: the workspace, what was built in it,
//! and what to do. It becomes a disk that the guest mounts read-only.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binaries::{self, TestProgram};
use crate::error::Error;
use crate::process;
use crate::vm::suite::CgroupMode;
use crate::vm::tier::{self, Part};
use crate::vm::{Work, image};

/// Of the file system; its files are sparse where nothing is.
const SIZE: &str = "6G";
/// Begins the name of a payload's directory; the number of its process follows.
const PAYLOAD: &str = "payload-";
/// Whose daemons and programs the tier uses.
const RELEASES: [&str; 2] = ["bookworm", "sid"];
/// What the tests keep of a release, without downloads.
const CACHE: [&str; 2] = ["root", "ready.json"];

/// A disk with the work on it; gone when dropped.
#[derive(Debug)]
pub(crate) struct Payload {
    dir: PathBuf,
    /// How many runs of test programs it asks for.
    pub(crate) parts: usize,
}

impl Payload {
    /// Builds what the work needs and puts it on a disk.
    pub(crate) fn build(work: &Work, cgroup: CgroupMode) -> Result<Self, Error> {
        remove_abandoned(&image::home()?)?;
        let release = binaries::release()?;
        let programs = match work {
            Work::Tests(_) => binaries::test_programs()?,
            Work::Command(_) | Work::Shell => Vec::new(),
        };
        let parts = match work {
            Work::Tests(name) => tier::parts(cgroup, name.as_deref()),
            Work::Command(_) | Work::Shell => Vec::new(),
        };
        let name = format!("{PAYLOAD}{}", std::process::id());
        let payload = Self { dir: image::home()?.join(name), parts: parts.len() };
        let files = payload.dir.join("files");
        for part in ["bin", "tests", "tree"] {
            create(&files.join(part))?;
        }
        for name in ["boathook", "containerd-shim-boathook-v2"] {
            copy(&release.dir().join(name), &files.join("bin").join(name))?;
        }
        sources(&files.join("tree"))?;
        if let Work::Tests(_) = work {
            cache(&files)?;
        }
        let wanted = |it: &&TestProgram| parts.iter().any(|part| part.program == it.target);
        let programs: Vec<&TestProgram> = programs.iter().filter(wanted).collect();
        for program in &programs {
            strip(&program.executable, &files.join("tests").join(&program.target))?;
            built_in(program, &files.join("tree"))?;
        }
        write(&files.join("workspace"), &process::workspace().display().to_string())?;
        match work {
            Work::Shell => write(&files.join("shell"), "")?,
            Work::Command(words) => write(&files.join("job"), &quoted(words))?,
            Work::Tests(_) => write(&files.join("job"), &tests(&parts, &programs)?)?,
        }
        image::disk(&files, &payload.disk(), SIZE)?;
        image::remove(&files)?;
        Ok(payload)
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    /// The guest's console, and what it says at its end.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Err(error) = image::remove(&self.dir) {
            println!("vm: {error}");
        }
    }
}

/// Runs each part as `cargo xtask test --root` does, and fails if one fails.
fn tests(parts: &[Part], programs: &[&TestProgram]) -> Result<String, Error> {
    let mut text = "failed=0\n".to_owned();
    for part in parts {
        let program = programs.iter().find(|it| it.target == part.program).ok_or_else(|| {
            Error::failed(format!("vm: there is no test program {}", part.program))
        })?;
        let mut words = vec!["--test-threads=1".to_owned(), "--show-output".to_owned()];
        words.extend(part.only.clone());
        words.extend(part.skip.iter().flat_map(|it| ["--skip".to_owned(), (*it).to_owned()]));
        let dir = quoted(&[program.package_dir.display().to_string()]);
        let _ = writeln!(
            text,
            "echo '== vm: {part}'\n(cd {dir} && CARGO_MANIFEST_DIR={dir} \
             \"$BOATHOOK_TESTS_DIR\"/{} {}) || failed=1",
            part.program,
            quoted(&words),
        );
    }
    text.push_str("exit $failed\n");
    Ok(text)
}

/// For a shell, each word as it is.
fn quoted(words: &[String]) -> String {
    let words = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    words.collect::<Vec<_>>().join(" ")
}

/// The workspace's files as git knows them, new ones included.
fn sources(to: &Path) -> Result<(), Error> {
    let mut command = Command::new("sh");
    command
        .args(["-c", "git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create | tar --extract --directory=\"$0\""])
        .arg(to)
        .current_dir(process::workspace());
    process::capture(&mut command).map(drop)
}

/// Daemons and busybox as the tests keep them: downloaded here first where they are not yet,
/// since a guest has no network, and linked, not copied.
fn cache(files: &Path) -> Result<(), Error> {
    let mut fetch = Command::new(binaries::helper("packages")?);
    fetch.args(RELEASES).current_dir(process::workspace());
    process::run(&mut fetch)?;
    let set = std::env::var_os("BOATHOOK_CACHE_DIR").map(PathBuf::from);
    let kept = set.map_or_else(|| Ok(binaries::target_dir().join("debian")), std::path::absolute);
    let kept = kept.map_err(|e| Error::failed(format!("BOATHOOK_CACHE_DIR: {e}")))?;
    for release in RELEASES {
        let to = files.join("cache").join(release);
        create(&to)?;
        for part in CACHE.iter().map(|part| kept.join(release).join(part)) {
            let copy = |how: &[&str]| {
                process::capture(Command::new("cp").arg("--archive").args(how).arg(&part).arg(&to))
            };
            // Kept on another file system, they cannot be linked.
            copy(&["--link"]).or_else(|_| copy(&["--force"]))?;
        }
    }
    write(&files.join("cache-path"), &kept.display().to_string())
}

/// What runs that were killed have left; whoever is alive keeps theirs.
fn remove_abandoned(home: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(home).map_err(|e| Error::failed(format!("{}: {e}", home.display())));
    for entry in entries?.filter_map(Result::ok) {
        let owner =
            entry.file_name().to_str().and_then(|it| it.strip_prefix(PAYLOAD)?.parse().ok());
        if owner.is_some_and(|pid: u32| !Path::new("/proc").join(pid.to_string()).exists()) {
            image::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Programs of its own package, which a test program knows by the path where cargo built them.
fn built_in(program: &TestProgram, tree: &Path) -> Result<(), Error> {
    const OWN: [(&str, &str); 1] = [("root_process", "containerd-shim-boathook-v2")];
    let Some((_, own)) = OWN.iter().find(|(tests, _)| *tests == program.target) else {
        return Ok(());
    };
    let outside = || {
        let problem = "vm: the build directory is outside of the workspace, so that a guest \
                       cannot have it at its path";
        Error::failed(problem)
    };
    let built = program.executable.ancestors().nth(2).ok_or_else(outside)?.join(own);
    let path = built.strip_prefix(process::workspace()).map_err(|_| outside())?;
    let to = tree.join(path);
    create(to.parent().ok_or_else(outside)?)?;
    strip(&built, &to)
}

fn strip(from: &Path, to: &Path) -> Result<(), Error> {
    let mut command = Command::new("strip");
    command.args(["--strip-debug", "-o"]).arg(to).arg(from);
    process::capture(&mut command).map(drop)
}

fn create(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|e| Error::failed(format!("mkdir {}: {e}", dir.display())))
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to)
        .map(drop)
        .map_err(|e| Error::failed(format!("copying {}: {e}", from.display())))
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    fs::write(file, text).map_err(|e| Error::failed(format!("{}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_guest_as_they_are() {
        let words = ["printf", "%s.", "a b", "it's", "$HOME", "*"].map(str::to_owned);
        let mut command = Command::new("sh");
        command.arg("-c").arg(quoted(&words));
        assert_eq!(process::capture(&mut command).unwrap(), "a b.it's.$HOME.*.");
    }

    fn program(target: &str) -> TestProgram {
        TestProgram {
            name: target.into(),
            target: target.into(),
            package_dir: std::env::temp_dir(),
            executable: "/bin/true".into(),
        }
    }

    fn part(program: &'static str) -> Part {
        Part { program, only: Some("a b".into()), skip: vec!["c::"] }
    }

    #[test]
    fn a_failed_program_fails_the_job_and_the_others_still_run() {
        let (bad, good) = (program("false"), program("echo"));
        let text = super::tests(&[part("false"), part("echo")], &[&bad, &good]).unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("BOATHOOK_TESTS_DIR=/bin\n{text}"));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("--test-threads=1 --show-output a b --skip c::"), "{said}");
    }

    #[test]
    fn a_program_that_was_not_built_is_named() {
        let error = super::tests(&[part("root_gone")], &[]).unwrap_err().to_string();
        assert!(error.contains("root_gone"), "{error}");
    }

    #[test]
    fn only_what_nobody_owns_any_more_is_removed() {
        let home = std::env::temp_dir().join(format!("xtask-vm-{}", std::process::id()));
        let own = home.join(format!("{PAYLOAD}{}", std::process::id()));
        // Above the highest number that a process can have.
        let abandoned = home.join(format!("{PAYLOAD}4194305"));
        let image = home.join("trixie-1");
        for dir in [&own, &abandoned, &image] {
            create(dir).unwrap();
        }
        remove_abandoned(&home).unwrap();
        assert!(own.exists() && image.exists() && !abandoned.exists());
        image::remove(&home).unwrap();
    }
}
