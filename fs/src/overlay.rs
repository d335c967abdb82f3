//! Overlay mounts of any number of layers.
//!
//! `lowerdir` is a list in one string: `:` parts layers, `::` begins layers that only hold data
//! (Linux 6.5), and a backslash takes the meaning off the byte behind it. Kernels with
//! `lowerdir+` get each layer in a call of its own, unescaped; older ones get the string, by
//! `fsconfig` up to 255 bytes, by `mount(2)` up to a page together with all other options.
//! `upperdir` and `workdir` go to the kernel as they came; it takes the backslashes off itself.

use std::borrow::Cow;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use crate::flags::{DataOption, SbFlags};
use crate::mount::context::{FsContext, fits};
use crate::mount::{NewFs, Tree};
use crate::probe::Kernel;
use crate::{Error, Result};

/// An overlay, checked as far as its options alone allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Lower layers, the topmost first; plain paths without escapes.
    lower: Vec<String>,
    /// Layers below `lower` of which only file contents are used (metacopy redirects).
    data_only: Vec<String>,
    /// As given, with escapes.
    upper: Option<String>,
    /// As given, with escapes.
    work: Option<String>,
    /// `index=off`, `userxattr`, `volatile`, `metacopy=…`, `xino=…`, whatever the kernel knows.
    rest: Vec<DataOption>,
}

impl Overlay {
    /// Takes the layers out of filesystem options.
    ///
    /// # Errors
    /// `Invalid` naming the option: no lower layer, an empty layer name, `upperdir` without
    /// `workdir` or the reverse.
    pub fn from_data(data: &[DataOption]) -> Result<Self> {
        let mut overlay = Self::default();
        for (key, value) in data {
            let value = value.as_deref();
            match (key.as_str(), value) {
                // A second lowerdir replaces the first, as in the kernel.
                ("lowerdir", Some(list)) => {
                    (overlay.lower, overlay.data_only) = split_layers(list)?;
                }
                ("lowerdir+", Some(layer)) => overlay.lower.push(layer.to_owned()),
                ("datadir+", Some(layer)) => overlay.data_only.push(layer.to_owned()),
                ("upperdir", Some(dir)) => overlay.upper = Some(dir.to_owned()),
                ("workdir", Some(dir)) => overlay.work = Some(dir.to_owned()),
                ("lowerdir" | "lowerdir+" | "datadir+" | "upperdir" | "workdir", None) => {
                    return Err(wrong(key, "has no value"));
                }
                _ => overlay.rest.push((key.clone(), value.map(str::to_owned))),
            }
        }
        overlay.check()?;
        Ok(overlay)
    }

    fn check(&self) -> Result<()> {
        let layers = self.lower.iter().chain(&self.data_only);
        if self.lower.is_empty() {
            return Err(wrong("lowerdir", "is missing"));
        }
        if layers.into_iter().any(String::is_empty) {
            return Err(wrong("lowerdir", "has an empty layer name"));
        }
        match (&self.upper, &self.work) {
            (Some(_), None) => Err(wrong("workdir", "is missing although upperdir is given")),
            (None, Some(_)) => Err(wrong("upperdir", "is missing although workdir is given")),
            _ => Ok(()),
        }
    }

    /// The same overlay with its lower layers elsewhere; `place` gets each one's number, from the
    /// top, and its path.
    pub(crate) fn moved(
        &self,
        mut place: impl FnMut(usize, &str) -> Result<String>,
    ) -> Result<Self> {
        let mut moved = self.clone();
        let layers = moved.lower.iter_mut().chain(&mut moved.data_only);
        for (number, layer) in layers.enumerate() {
            *layer = place(number, layer)?;
        }
        Ok(moved)
    }

    /// The number of lower layers, data-only ones included.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.lower.len() + self.data_only.len()
    }

    /// Makes the overlay, detached. `source` is the word that mountinfo shows, `overlay` by default.
    ///
    /// # Errors
    /// As [`Tree::new_fs`]; `Unsupported` when the options need more than a page and this
    /// kernel has no `lowerdir+`.
    pub fn tree(&self, source: Option<&str>, sb: SbFlags, attr: u64) -> Result<Tree> {
        self.tree_on(Kernel::host(), source, sb, attr)
    }

    /// As [`Overlay::tree`], as a kernel with the facilities of `kernel` has to do it.
    ///
    /// # Errors
    /// As [`Overlay::tree`].
    pub fn tree_on(
        &self,
        kernel: &Kernel,
        source: Option<&str>,
        sb: SbFlags,
        attr: u64,
    ) -> Result<Tree> {
        let source = source.filter(|s| !s.is_empty()).unwrap_or("overlay");
        let context = match FsContext::open("overlay") {
            Err(e) if e.errno() == Some(Errno::ENOSYS) => return self.classic(source, sb, attr),
            other => other?,
        };
        let mut held = Vec::new();
        if !self.append_layers(kernel, &context, &mut held)? {
            let list = self.layer_list();
            if !fits(&list) {
                return self.classic(source, sb, attr);
            }
            context.string("lowerdir", &list)?;
        }
        context.string("source", source)?;
        context.superblock(sb)?;
        for (key, dir) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            if let Some(dir) = dir {
                context.string(key, &short(dir, || Ok(unescape(dir)), &mut held)?)?;
            }
        }
        self.rest.iter().try_for_each(|option| context.data(option))?;
        // `held` must live until here: older kernels look directories up when they mount.
        Tree::mount(context, attr)
    }

    /// Gives each layer to the kernel by itself; `false` when this kernel takes only a list.
    fn append_layers(
        &self,
        kernel: &Kernel,
        context: &FsContext<'_>,
        held: &mut Vec<OwnedFd>,
    ) -> Result<bool> {
        if kernel.known_lowerdir_append() == Some(false) {
            return Ok(false);
        }
        let lower = self.lower.iter().map(|layer| ("lowerdir+", layer));
        let data_only = self.data_only.iter().map(|layer| ("datadir+", layer));
        for (at, (key, layer)) in lower.chain(data_only).enumerate() {
            let path = short(layer, || Ok(layer.clone()), held)?;
            match context.string(key, &path) {
                Ok(()) if at == 0 => kernel.learn_lowerdir_append(true),
                Ok(()) => {}
                // EINVAL may mean the parameter or the directory; only the probe can tell.
                Err(e)
                    if at == 0
                        && e.errno() == Some(Errno::EINVAL)
                        && !kernel.overlay_lowerdir_append() =>
                {
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn classic(&self, source: &str, sb: SbFlags, attr: u64) -> Result<Tree> {
        let mut data = vec![("lowerdir".to_owned(), Some(self.layer_list()))];
        for (key, dir) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            if let Some(dir) = dir {
                data.push((key.to_owned(), Some(escape(dir, &[',']))));
            }
        }
        data.extend(self.rest.iter().cloned());
        let source = Some(source);
        Tree::classic(&NewFs { fstype: "overlay", source, sb, data: &data, attr })
    }

    /// The layers as one `lowerdir` string.
    fn layer_list(&self) -> String {
        let join = |layers: &[String], between: &str| {
            layers.iter().map(|l| escape(l, &['\\', ':', ','])).collect::<Vec<_>>().join(between)
        };
        let mut list = join(&self.lower, ":");
        if !self.data_only.is_empty() {
            list.push_str("::");
            list.push_str(&join(&self.data_only, "::"));
        }
        list
    }
}

fn wrong(key: &str, problem: &str) -> Error {
    Error::invalid(format!("overlay mount option {key} {problem}"))
}

/// Splits a `lowerdir` value into lower and data-only layers and takes the escapes off.
fn split_layers(list: &str) -> Result<(Vec<String>, Vec<String>)> {
    let (mut lower, mut data_only) = (Vec::new(), Vec::new());
    let mut data = false;
    for (at, part) in split_unescaped(list, ':').into_iter().enumerate() {
        match (part, at) {
            ("", 0) => return Err(wrong("lowerdir", "has an empty layer name")),
            // The empty part between two colons: what follows is data-only.
            ("", _) if !data => data = true,
            ("", _) => return Err(wrong("lowerdir", "has an empty layer name")),
            (part, _) if data => {
                data_only.push(unescape(part));
                data = false;
            }
            (_, _) if !data_only.is_empty() => {
                return Err(wrong("lowerdir", "has a layer below a data-only layer"));
            }
            (part, _) => lower.push(unescape(part)),
        }
    }
    if data {
        return Err(wrong("lowerdir", "has an empty layer name"));
    }
    Ok((lower, data_only))
}

fn split_unescaped(list: &str, at: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in list.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == at {
            parts.push(&list[start..i]);
            start = i + c.len_utf8();
        }
    }
    parts.push(&list[start..]);
    parts
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// Puts a backslash before each of `special`. An escape that is there already counts as one
/// character when the backslash itself is not special.
fn escape(text: &str, special: &[char]) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut escaped = false;
    for c in text.chars() {
        if special.contains(&c) && !escaped {
            out.push('\\');
        }
        escaped = c == '\\' && !escaped && !special.contains(&'\\');
        out.push(c);
    }
    out
}

/// A name that `fsconfig` takes for a directory whose own path is too long for it: that of a
/// descriptor, which `held` keeps open.
fn short<'a>(
    value: &'a str,
    path: impl FnOnce() -> Result<String>,
    held: &mut Vec<OwnedFd>,
) -> Result<Cow<'a, str>> {
    if fits(value) {
        return Ok(Cow::Borrowed(value));
    }
    let path = path()?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = openat(AT_FDCWD, path.as_str(), flags, Mode::empty())
        .map_err(|e| Error::sys(format!("openat({path}, {flags:?})"), e))?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    held.push(fd);
    Ok(Cow::Owned(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(options: &[&str]) -> Result<Overlay> {
        Overlay::from_data(&crate::flags::parse(options)?.data)
    }

    #[test]
    fn containerds_options_are_taken_apart() {
        let o = parse(&[
            "index=off",
            "userxattr",
            "workdir=/s/3/work",
            "upperdir=/s/3/fs",
            "lowerdir=/s/2/fs:/s/1/fs",
        ])
        .unwrap();
        assert_eq!(o.lower, ["/s/2/fs", "/s/1/fs"]);
        assert_eq!((o.upper.as_deref(), o.work.as_deref()), (Some("/s/3/fs"), Some("/s/3/work")));
        assert_eq!(
            o.rest,
            [("index".to_owned(), Some("off".to_owned())), ("userxattr".to_owned(), None)]
        );
        assert_eq!(o.layers(), 2);
    }

    #[test]
    fn escapes_and_data_layers() {
        let o = parse(&["lowerdir=/a\\:b:/c\\\\d::/data1::/d\\:2"]).unwrap();
        assert_eq!(o.lower, ["/a:b", "/c\\d"]);
        assert_eq!(o.data_only, ["/data1", "/d:2"]);
        assert_eq!(o.layer_list(), "/a\\:b:/c\\\\d::/data1::/d\\:2");
    }

    #[test]
    fn bad_options_are_named() {
        for (options, text) in [
            (&["index=off"][..], "overlay mount option lowerdir is missing"),
            (&["lowerdir"], "overlay mount option lowerdir has no value"),
            (&["lowerdir="], "overlay mount option lowerdir has an empty layer name"),
            (&["lowerdir=:/a"], "overlay mount option lowerdir has an empty layer name"),
            (&["lowerdir=/a:"], "overlay mount option lowerdir has an empty layer name"),
            (&["lowerdir=/a:::/b"], "overlay mount option lowerdir has an empty layer name"),
            (
                &["lowerdir=/a::/b:/c"],
                "overlay mount option lowerdir has a layer below a data-only layer",
            ),
            (
                &["lowerdir=/a", "upperdir=/u"],
                "overlay mount option workdir is missing although upperdir is given",
            ),
            (
                &["lowerdir=/a", "workdir=/u"],
                "overlay mount option upperdir is missing although workdir is given",
            ),
        ] {
            let e = parse(options).unwrap_err();
            assert_eq!((e.to_string().as_str(), e.kind()), (text, crate::ErrorKind::Invalid));
        }
    }

    #[test]
    fn commas_get_one_backslash_and_never_two() {
        assert_eq!(escape("/a,b\\,c\\\\,d", &[',']), "/a\\,b\\,c\\\\\\,d");
    }

    proptest! {
        #[test]
        fn layers_survive_the_list(
            lower in prop::collection::vec("/[a:\\\\,b]{0,6}", 1..6),
            data_only in prop::collection::vec("/[a:\\\\,b]{0,6}", 0..3),
        ) {
            let o = Overlay { lower: lower.clone(), data_only: data_only.clone(), ..Overlay::default() };
            prop_assert_eq!(split_layers(&o.layer_list()).unwrap(), (lower, data_only));
        }

        #[test]
        fn any_string_is_an_answer(list in "[/a:\\\\]{0,12}") {
            if let Ok((lower, data_only)) = split_layers(&list) {
                prop_assert!(lower.iter().chain(&data_only).all(|l| !l.is_empty() || list.contains('\\')));
            }
        }
    }
}
