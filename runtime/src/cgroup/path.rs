//! `linux.cgroupsPath`, checked component by component.

use crate::error::{Error, Result};

const FIELD: &str = "linux.cgroupsPath";
/// `NAME_MAX` of every Linux file system.
const MAX_COMPONENT: usize = 255;
/// `PATH_MAX`, less room for the mount point's directory and a file name.
const MAX_PATH: usize = 3840;

/// What a cgroup path is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The mount point of each hierarchy.
    MountRoot,
    /// This process's own cgroup in each hierarchy (on v2 that one's parent,
    /// because a v2 cgroup with processes cannot have controlled children).
    Own,
}

/// Where a container's cgroup goes: normalised, without a slash at either end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// What `path` is relative to.
    pub base: Base,
    /// `a/b/c`; never empty, never with `.`, `..` or an empty component.
    pub path: String,
}

impl Location {
    /// The place that a `linux.cgroupsPath` names for the cgroupfs driver; see
    /// [`CgroupPlan::new`](super::CgroupPlan::new) for the rules.
    pub(super) fn new(cgroups_path: Option<&str>, id: &str) -> Result<Self> {
        let text = match cgroups_path {
            Some(path) if !path.is_empty() => path,
            _ => {
                return Ok(Self { base: Base::MountRoot, path: normalise(id, "id")? });
            }
        };
        let base = if text.starts_with('/') { Base::MountRoot } else { Base::Own };
        Ok(Self { base, path: normalise(text, FIELD)? })
    }
}

/// Checks a path of an existing record, or one handed in by a caller.
pub(super) fn normalise(text: &str, field: &str) -> Result<String> {
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(bad(field, text, "must not contain a `..` component")),
            _ if part.len() > MAX_COMPONENT => {
                return Err(bad(field, text, "has a component longer than 255 bytes"));
            }
            // cgroupfs refuses a newline, and no other control byte is of any use in a name.
            _ if part.bytes().any(|b| b < 0x20 || b == 0x7f) => {
                return Err(bad(field, text, "must not contain control characters"));
            }
            _ => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(bad(field, text, "must name a cgroup below the root"));
    }
    let path = parts.join("/");
    if path.len() > MAX_PATH {
        return Err(bad(field, text, "is longer than 3840 bytes"));
    }
    Ok(path)
}

fn bad(field: &str, text: &str, problem: &str) -> Error {
    // A hostile path may be huge; the message need not be.
    let shown: String = text.chars().take(128).collect();
    Error::field(field, format!("{shown:?} {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(path: &str) -> (Base, String) {
        let location = Location::new(Some(path), "id").unwrap();
        (location.base, location.path)
    }

    #[test]
    fn absolute_relative_and_absent() {
        assert_eq!(ok("/a/b"), (Base::MountRoot, "a/b".into()));
        assert_eq!(ok("//a/./b//"), (Base::MountRoot, "a/b".into()));
        assert_eq!(ok("a/b"), (Base::Own, "a/b".into()));
        assert_eq!(ok("system.slice:cri:x"), (Base::Own, "system.slice:cri:x".into()));
        assert_eq!(ok("/..a/b.."), (Base::MountRoot, "..a/b..".into()));
        for none in [None, Some("")] {
            let location = Location::new(none, "c1").unwrap();
            assert_eq!(location, Location { base: Base::MountRoot, path: "c1".into() });
        }
    }

    #[test]
    fn what_could_leave_the_mount_is_refused_by_name() {
        let long = format!("/{}", "x".repeat(256));
        let deep = "/abc".repeat(1000);
        for path in [
            "/../x", "/a/../b", "..", "a/..", "/a/b/..", "/", "//", "/./", "/a\0b", "/a\nb", &long,
            &deep,
        ] {
            let error = Location::new(Some(path), "id").unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("linux.cgroupsPath: "), "{text}");
            assert!(text.len() < 400, "{text}");
        }
        assert!(Location::new(None, "..").unwrap_err().to_string().starts_with("id: "));
        assert!(Location::new(None, "").is_err());
    }
}
