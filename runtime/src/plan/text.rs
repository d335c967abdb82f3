//! Strings of a config on their way into the kernel.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// A string with its NUL; one inside is refused.
pub(super) fn c_string(field: &str, text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|e| {
        let text = String::from_utf8_lossy(&e.clone().into_vec()).into_owned();
        Error::field(field, format!("{text:?} has a NUL byte"))
    })
}

/// All strings of a list.
pub(super) fn c_strings(field: &str, texts: &[String]) -> Result<Vec<CString>> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| c_string(&format!("{field}[{index}]"), text.as_str()))
        .collect()
}

/// Refuses a path with a NUL byte.
pub(super) fn no_nul(field: &str, path: &Path) -> Result<()> {
    c_string(field, path.as_os_str().as_bytes()).map(drop)
}

/// A path as text.
pub(super) fn utf8<'p>(field: &str, path: &'p Path) -> Result<&'p str> {
    path.to_str().ok_or_else(|| Error::field(field, format!("{} is not UTF-8", path.display())))
}

/// A path inside the container, made absolute and free of `.` and `..` before
/// the kernel sees it; `..` at the root stays at the root. A relative path
/// counts from the root, as other runtimes read it.
pub(super) fn in_container(field: &str, path: &Path) -> Result<CString> {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    c_string(field, clean.into_os_string().into_encoded_bytes())
}

/// As [`in_container`], for fields that must be absolute.
pub(super) fn absolute(field: &str, path: &Path) -> Result<CString> {
    if !path.is_absolute() {
        return Err(Error::field(field, format!("{} is not an absolute path", path.display())));
    }
    in_container(field, path)
}
