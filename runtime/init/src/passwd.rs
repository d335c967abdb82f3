//! The home directory of a user in the container's /etc/passwd. The file is
//! hostile: it is read with a bound, and a line that does not fit is skipped.

use crate::files;
use crate::sys::PathBuf;

/// Most bytes of /etc/passwd that are looked at.
const LIMIT: usize = 10 << 20;
/// Longest line that can matter: a home directory is a path.
const LINE: usize = 5 * 1024;

/// Appends the home directory of `uid` to `out`; `/` when there is none.
pub(crate) fn home_of(root: i32, uid: u32, out: &mut PathBuf) {
    let mut scan = Scan { line: [0; LINE], len: 0, overflow: false, uid, found: false };
    let _ = files::read_limited(root, c"/etc/passwd", LIMIT, &mut |bytes| scan.feed(bytes, out));
    scan.feed(b"\n", out);
    if !scan.found {
        let _ = out.push(b"/");
    }
}

struct Scan {
    line: [u8; LINE],
    len: usize,
    overflow: bool,
    uid: u32,
    found: bool,
}

impl Scan {
    fn feed(&mut self, bytes: &[u8], out: &mut PathBuf) {
        for byte in bytes {
            if *byte != b'\n' {
                match self.line.get_mut(self.len) {
                    Some(place) => *place = *byte,
                    None => self.overflow = true,
                }
                self.len = (self.len + 1).min(LINE);
                continue;
            }
            let line = self.line.get(..self.len).unwrap_or_default();
            if !self.found
                && !self.overflow
                && let Some(home) = home_in(line, self.uid)
            {
                self.found = out.push(home).is_ok();
            }
            self.len = 0;
            self.overflow = false;
        }
    }
}

/// The sixth field of a passwd line whose third is exactly `uid`.
fn home_in(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|b| *b == b':');
    if number(fields.nth(2)?)? != uid {
        return None;
    }
    fields.nth(2).filter(|home| !home.is_empty() && !home.contains(&0))
}

/// Digits only: no sign, no blank, no overflow.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u32, |sum, b| {
        let digit = b.is_ascii_digit().then(|| u32::from(*b - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(file: &[u8], uid: u32) -> Option<std::string::String> {
        let mut out = PathBuf::new();
        let mut scan = Scan { line: [0; LINE], len: 0, overflow: false, uid, found: false };
        for piece in file.chunks(7) {
            scan.feed(piece, &mut out);
        }
        scan.feed(b"\n", &mut out);
        scan.found.then(|| out.as_c_str().to_str().unwrap().into())
    }

    #[test]
    fn the_home_of_a_user_is_the_sixth_field_of_its_first_line() {
        let file =
            b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\nweb2:x:33:1::/other:/x";
        assert_eq!(home(file, 0).as_deref(), Some("/root"));
        assert_eq!(home(file, 33).as_deref(), Some("/srv/web"));
        assert_eq!(home(file, 34), None);
    }

    #[test]
    fn lax_numbers_and_endless_lines_match_nobody() {
        for uid in ["+0", "-0", " 0", "0x0", "4294967296", ""] {
            let line = std::format!("evil:x:{uid}:0::/evil:/bin/sh\n");
            assert_eq!(home(line.as_bytes(), 0), None, "{uid:?}");
        }
        let mut long = std::vec![b'a'; 3 * LINE];
        long.extend_from_slice(b":x:0:0::/evil:/bin/sh\nroot:x:0:0::/good:/bin/sh\n");
        assert_eq!(home(&long, 0).as_deref(), Some("/good"));
    }
}
