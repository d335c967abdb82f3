//! Names of a layer's entries: taken apart into components, whiteouts told
//! from files (image-spec layer.md, "Representing Changes").

use super::limits::Limits;
use super::tar::Problem;

/// Longest component (`NAME_MAX`).
const NAME_MAX: usize = 255;
/// What whiteouts begin with.
const WHITEOUT: &[u8] = b".wh.";
/// Names of aufs' own begin with it twice.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A path below the layer's root: components parted by single slashes, none of
/// them empty, `.` or `..`; empty for the root itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

/// What a path of a layer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// A file of this name.
    File(Name),
    /// Lower layers' file of this name is hidden.
    Whiteout(Name),
    /// Everything that lower layers have in this directory is hidden.
    Opaque(Name),
    /// aufs' own book-keeping, or something below it.
    Ignored,
}

impl Name {
    /// Takes `path` apart. Leading, trailing and doubled slashes and `.` mean
    /// nothing; every byte but NUL is part of a name.
    ///
    /// # Errors
    /// An empty path, a `..`, a NUL byte, and what is longer or deeper than the limits.
    pub fn parse(path: &[u8], limits: &Limits) -> Result<Self, Problem> {
        if path.is_empty() {
            return Err(Problem::new("the name is empty"));
        }
        if path.len() as u64 > limits.path_bytes {
            return Err(Problem::limit("path-bytes", limits.path_bytes));
        }
        let mut name = Vec::with_capacity(path.len());
        let mut depth = 0;
        for part in path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(Problem::new("the name has a component `..`")),
                _ if part.contains(&0) => return Err(Problem::new("the name has a NUL byte")),
                _ if part.len() > NAME_MAX => {
                    return Err(Problem::new("the name has a component of more than 255 bytes"));
                }
                _ => {}
            }
            depth += 1;
            if depth > limits.depth {
                return Err(Problem::limit("depth", limits.depth));
            }
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend_from_slice(part);
        }
        Ok(Self(name))
    }

    /// Whether it is the layer's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, without slashes at the ends.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The components from the root on.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// The directory it is in, and its last component; `None` for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        let (parent, last) = match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => (self.0.get(..at)?, self.0.get(at + 1..)?),
            None => (&b""[..], &self.0[..]),
        };
        Some((Self(parent.to_vec()), last))
    }

    /// The name of the first `count` components.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        let parts: Vec<&[u8]> = self.components().take(count).collect();
        Self(parts.join(&b'/'))
    }

    /// The name of `last` in this directory.
    #[must_use]
    pub fn join(&self, last: &[u8]) -> Self {
        if self.is_root() {
            return Self(last.to_vec());
        }
        Self([&self.0, &b"/"[..], last].concat())
    }
}

impl Meaning {
    /// What `path` means.
    ///
    /// # Errors
    /// As [`Name::parse`]; a whiteout of nothing, of `.` or of `..`; something
    /// in a directory that a whiteout would be.
    pub fn of(path: &[u8], limits: &Limits) -> Result<Self, Problem> {
        let name = Name::parse(path, limits)?;
        let Some((parent, last)) = name.split() else { return Ok(Self::File(name)) };
        if last == OPAQUE && !parent.is_below(AUFS) {
            parent.check_no_whiteout()?;
            return Ok(Self::Opaque(parent));
        }
        if name.is_below(AUFS) {
            return Ok(Self::Ignored);
        }
        parent.check_no_whiteout()?;
        match last.strip_prefix(WHITEOUT) {
            None => Ok(Self::File(name)),
            Some(b"" | b"." | b"..") => Err(Problem::new("the whiteout names no file")),
            Some(hidden) => Ok(Self::Whiteout(parent.join(hidden))),
        }
    }
}

impl Name {
    fn is_below(&self, prefix: &[u8]) -> bool {
        self.components().any(|part| part.starts_with(prefix))
    }

    fn check_no_whiteout(&self) -> Result<(), Problem> {
        if self.is_below(WHITEOUT) {
            return Err(Problem::new("a whiteout is used as a directory"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &[u8]) -> Result<Meaning, Problem> {
        Meaning::of(path, &Limits::default())
    }

    fn name(path: &str) -> Name {
        Name(path.as_bytes().to_vec())
    }

    #[test]
    fn slashes_and_dots_mean_nothing() {
        for path in ["a/b", "/a/b", "./a/b", "a//b/", "//a/./b/."] {
            assert_eq!(of(path.as_bytes()), Ok(Meaning::File(name("a/b"))), "{path}");
        }
        for path in [".", "./", "/", "//."] {
            assert_eq!(of(path.as_bytes()), Ok(Meaning::File(Name::default())), "{path}");
        }
        assert_eq!(of(b"a\xff\n"), Ok(Meaning::File(Name(b"a\xff\n".to_vec()))));
        assert_eq!(of(b"..a/b.."), Ok(Meaning::File(name("..a/b.."))));
    }

    #[test]
    fn whiteouts_are_told_from_files() {
        for (path, wanted) in [
            (".wh.a", Meaning::Whiteout(name("a"))),
            ("d/.wh.a", Meaning::Whiteout(name("d/a"))),
            ("d/.wh..a", Meaning::Whiteout(name("d/.a"))),
            ("d/.wh....", Meaning::Whiteout(name("d/..."))),
            ("d/.wh..wh..opq", Meaning::Opaque(name("d"))),
            (".wh..wh..opq", Meaning::Opaque(name(""))),
            (".wh..wh.plnk", Meaning::Ignored),
            (".wh..wh.plnk/1/2", Meaning::Ignored),
            ("d/.wh..wh.aufs", Meaning::Ignored),
            (".wh", Meaning::File(name(".wh"))),
            ("a.wh.b", Meaning::File(name("a.wh.b"))),
        ] {
            assert_eq!(of(path.as_bytes()), Ok(wanted), "{path}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        let component = "x".repeat(256);
        let long = "x/".repeat(2048);
        let deep = "x/".repeat(1025);
        for (path, wanted) in [
            ("", "the name is empty"),
            ("..", "`..`"),
            ("a/../b", "`..`"),
            ("/..", "`..`"),
            ("a\0b", "NUL"),
            (&component, "more than 255 bytes"),
            (&long, "path-bytes = 4095"),
            (&deep, "depth = 1024"),
            (".wh.", "names no file"),
            (".wh..", "names no file"),
            ("d/.wh...", "names no file"),
            (".wh.a/b", "used as a directory"),
            (".wh.a/.wh..wh..opq", "used as a directory"),
        ] {
            let error = of(path.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{path:.20}: {error}");
        }
    }
}
