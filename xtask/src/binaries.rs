//! Building, and finding what was built: cargo says where each file is.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::Error;
use crate::process::{capture_stdout, cargo, workspace};

/// Where cargo puts its own directory `target` for this workspace.
pub(crate) fn target_dir() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    workspace().join(set.unwrap_or_else(|| "target".into()))
}

/// A program with tests in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestProgram {
    /// `crate::target`, for people.
    pub(crate) name: String,
    /// The target's own name: the file stem for tests in `tests/`.
    pub(crate) target: String,
    /// Directory of the package: tests run there, as under cargo.
    pub(crate) package_dir: PathBuf,
    pub(crate) executable: PathBuf,
}

impl TestProgram {
    /// Whether its file name puts it into the root tier.
    pub(crate) fn needs_root(&self) -> bool {
        self.target.starts_with("root_")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.package_dir).env("CARGO_MANIFEST_DIR", &self.package_dir);
        command
    }
}

/// Builds every test program of the workspace without running one.
pub(crate) fn test_programs() -> Result<Vec<TestProgram>, Error> {
    let json = capture_stdout(&mut cargo(&[
        "test",
        "--workspace",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    let mut programs: Vec<TestProgram> = messages(&json).filter_map(|m| test_program(&m)).collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// The directory with the programs that are installed on a node, as shipped.
pub(crate) struct Release {
    dir: PathBuf,
}

impl Release {
    /// Tells `command` where the release binaries are.
    pub(crate) fn announce<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("BOATHOOK_BIN_DIR", &self.dir)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Builds the release binaries.
pub(crate) fn release() -> Result<Release, Error> {
    let json = capture_stdout(&mut cargo(&[
        "build",
        "--release",
        "--package=boathook-shim",
        "--package=boathook-cli",
        "--message-format=json-render-diagnostics",
    ]))?;
    program_of(&json, "boathook")?;
    let shim = program_of(&json, "containerd-shim-boathook-v2")?;
    Ok(Release { dir: shim.parent().unwrap_or(&shim).to_path_buf() })
}

/// Builds one program of `rootfs-tests`.
pub(crate) fn helper(name: &str) -> Result<PathBuf, Error> {
    let json = capture_stdout(&mut cargo(&[
        "build",
        "--package=rootfs-tests",
        "--bin",
        name,
        "--message-format=json-render-diagnostics",
    ]))?;
    program_of(&json, name)
}

fn program_of(json: &str, name: &str) -> Result<PathBuf, Error> {
    messages(json)
        .filter(|m| m["target"]["name"] == name)
        .find_map(|m| m["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| Error::failed(format!("cargo built no program called {name}")))
}

fn messages(json: &str) -> impl Iterator<Item = Value> + '_ {
    json.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|m: &Value| m["reason"] == "compiler-artifact")
}

fn test_program(message: &Value) -> Option<TestProgram> {
    if message["profile"]["test"] != true {
        return None;
    }
    let executable = message["executable"].as_str()?;
    let package_dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let target = message["target"]["name"].as_str()?;
    let package = package_dir.strip_prefix(workspace()).unwrap_or(&package_dir).display();
    let kind = message["target"]["kind"][0].as_str()?;
    Some(TestProgram {
        name: format!("{package}: {target} ({kind})"),
        target: target.to_owned(),
        package_dir: package_dir.clone(),
        executable: executable.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(name: &str, test: bool, executable: Option<&str>) -> String {
        serde_json::json!({
            "reason": "compiler-artifact",
            "manifest_path": workspace().join("fs/Cargo.toml"),
            "target": {"name": name, "kind": ["test"]},
            "profile": {"test": test},
            "executable": executable,
        })
        .to_string()
    }

    #[test]
    fn test_programs_are_told_from_libraries_and_plain_programs() {
        let json = [
            artifact("root_mounts", true, Some("/t/root_mounts-1")),
            artifact("boathook", false, Some("/t/boathook")),
            artifact("boathook_fs", false, None),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ]
        .join("\n");
        let found: Vec<_> = messages(&json).filter_map(|m| test_program(&m)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "fs: root_mounts (test)");
        assert!(found[0].needs_root());
        assert_eq!(found[0].package_dir, workspace().join("fs"));
    }

    #[test]
    fn a_program_is_found_by_its_name() {
        let json =
            [artifact("a", false, Some("/t/a")), artifact("b", false, Some("/t/b"))].join("\n");
        assert_eq!(program_of(&json, "b").unwrap(), Path::new("/t/b"));
        assert!(program_of(&json, "c").unwrap_err().to_string().contains('c'));
    }
}
