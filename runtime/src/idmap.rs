//! Mappings of user and group ids, and user namespaces that hold them.
//!
//! The kernel takes the mappings of an id-mapped mount as a user namespace. One
//! that nobody lives in is made by a process that is born in a new namespace,
//! gets its maps from here and ends; a descriptor keeps the namespace.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use oci_spec::runtime::LinuxIdMapping;

use crate::channel::Channel;
use crate::process::{Process, children};
use crate::{Error, ErrorKind, Result, sys};

/// Most ranges that the kernel takes (user_namespaces(7), since Linux 4.15).
const RANGES_MAX: usize = 340;
/// The kernel takes less than a page of text, in one write (kernel/user_namespace.c, `map_write`).
const TEXT_END: usize = 4096;

/// Checked mappings of users and of groups, neither empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMappings {
    users: Vec<LinuxIdMapping>,
    groups: Vec<LinuxIdMapping>,
}

impl IdMappings {
    /// Checks `uidMappings` and `gidMappings` of `parent` (`linux`, `mounts[3]`);
    /// `None` when neither has an entry.
    ///
    /// # Errors
    /// `InvalidInput` naming the field: only one of the two, no length, ranges
    /// that overlap or leave the 32 bits.
    pub fn new(
        parent: &str,
        users: Option<&[LinuxIdMapping]>,
        groups: Option<&[LinuxIdMapping]>,
    ) -> Result<Option<Self>> {
        let (users, groups) = (users.unwrap_or_default(), groups.unwrap_or_default());
        let (uid, gid) = (format!("{parent}.uidMappings"), format!("{parent}.gidMappings"));
        match (users.is_empty(), groups.is_empty()) {
            (true, true) => return Ok(None),
            (true, false) => return Err(Error::field(uid, "missing beside gidMappings")),
            (false, true) => return Err(Error::field(gid, "missing beside uidMappings")),
            (false, false) => {}
        }
        check(&uid, users)?;
        check(&gid, groups)?;
        Ok(Some(Self { users: users.to_vec(), groups: groups.to_vec() }))
    }

    /// The mappings of users.
    pub fn users(&self) -> &[LinuxIdMapping] {
        &self.users
    }

    /// The mappings of groups.
    pub fn groups(&self) -> &[LinuxIdMapping] {
        &self.groups
    }

    /// Gives them to the user namespace that the process `pid` was born in.
    ///
    /// # Errors
    /// When the kernel refuses them, which it does once a namespace has some.
    pub(crate) fn write(&self, pid: i32) -> Result<()> {
        for (file, map) in [("uid_map", &self.users), ("gid_map", &self.groups)] {
            let lines = lines(map);
            std::fs::write(format!("/proc/{pid}/{file}"), &lines)
                .map_err(|e| Error::sys(format!("write {lines:?} to {file}"), e))?;
        }
        Ok(())
    }

    /// A user namespace with these mappings and no process. `image` is the
    /// sealed init program.
    ///
    /// # Errors
    /// `Unsupported` where the kernel has no user namespaces, `Exhausted` at
    /// the limit of `user.max_user_namespaces`.
    pub(crate) fn namespace(&self, image: BorrowedFd<'_>) -> Result<OwnedFd> {
        let (channel, theirs) = Channel::pair()?;
        let number = CString::new(theirs.as_raw_fd().to_string()).unwrap_or_default();
        let mut children = children();
        let arguments = [c"boathook-init", number.as_c_str()];
        let flags = libc::CLONE_NEWUSER as u64;
        let (pid, pidfd) =
            sys::spawn(image, theirs.as_fd(), arguments, flags, None).map_err(no_namespace)?;
        children.add(pid);
        drop(children);
        // It waits for a plan that never comes, and ends with this record of it.
        let holder = Process::new(pid, pidfd, channel, String::new());
        self.write(holder.pid())?;
        let namespace = File::open(format!("/proc/{pid}/ns/user"))
            .map_err(|e| Error::sys("open a new user namespace", e))?;
        Ok(namespace.into())
    }
}

fn no_namespace(errno: Errno) -> Error {
    let error = Error::sys("new user namespace", errno);
    match errno {
        // Built without CONFIG_USER_NS.
        Errno::EINVAL => error.with_kind(ErrorKind::Unsupported),
        _ => error,
    }
}

/// Ranges as `/proc/PID/uid_map` has them.
pub(crate) fn lines(ranges: &[LinuxIdMapping]) -> String {
    let line =
        |it: &LinuxIdMapping| format!("{} {} {}\n", it.container_id(), it.host_id(), it.size());
    ranges.iter().map(line).collect()
}

/// What the kernel would refuse without saying why: too many ranges, more text
/// than it reads, empty ranges, some that leave the 32 bits or overlap on either
/// side.
pub(crate) fn check(field: &str, ranges: &[LinuxIdMapping]) -> Result<()> {
    if ranges.len() > RANGES_MAX {
        let problem = format!("{} ranges are more than {RANGES_MAX}", ranges.len());
        return Err(Error::field(field, problem));
    }
    let length = lines(ranges).len();
    if length >= TEXT_END {
        let problem = format!(
            "{} ranges are {length} bytes of text; at most {} fit",
            ranges.len(),
            TEXT_END - 1
        );
        return Err(Error::field(field, problem));
    }
    for (index, range) in ranges.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if range.size() == 0 {
            return Err(Error::field(format!("{field}.size"), "must not be 0"));
        }
        for (name, first) in [("containerID", range.container_id()), ("hostID", range.host_id())] {
            // The last id there could be is none: it stands for "unchanged".
            if first.checked_add(range.size()).is_none() {
                let problem =
                    format!("{first} and {} ids from there end above 4294967294", range.size());
                return Err(Error::field(format!("{field}.{name}"), problem));
            }
        }
        for (earlier, other) in ranges.iter().take(index).enumerate() {
            let sides = [
                ("containerID", range.container_id(), other.container_id()),
                ("hostID", range.host_id(), other.host_id()),
            ];
            for (name, one, two) in sides {
                if holds(one, range.size(), two) || holds(two, other.size(), one) {
                    let problem = format!("{one} overlaps with range {earlier}");
                    return Err(Error::field(format!("{field}.{name}"), problem));
                }
            }
        }
    }
    Ok(())
}

/// Whether `id` is one of `count` from `first` on.
pub(crate) fn holds(first: u32, count: u32, id: u32) -> bool {
    id.checked_sub(first).is_some_and(|offset| offset < count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
        let json: Vec<_> = entries
            .iter()
            .map(|(inside, host, size)| {
                serde_json::json!({ "containerID": inside, "hostID": host, "size": size })
            })
            .collect();
        serde_json::from_value(json.into()).unwrap()
    }

    fn refusal(users: &[(u32, u32, u32)], groups: &[(u32, u32, u32)]) -> String {
        let (users, groups) = (map(users), map(groups));
        IdMappings::new("m", Some(&users), Some(&groups)).unwrap_err().to_string()
    }

    #[test]
    fn wrong_mappings_name_the_entry() {
        let good = [(0, 1000, 10)];
        for (wrong, field) in [
            (&[(0, 1000, 0)][..], "[0].size: "),
            (&[(u32::MAX, 0, 1)], "[0].containerID: "),
            (&[(0, u32::MAX - 9, 10)], "[0].hostID: "),
            (&[(0, 1000, 10), (9, 2000, 1)], "[1].containerID: "),
            (&[(0, 1000, 10), (10, 1009, 1)], "[1].hostID: "),
        ] {
            let text = refusal(wrong, &good);
            assert!(text.starts_with(&format!("m.uidMappings{field}")), "{text}");
            let text = refusal(&good, wrong);
            assert!(text.starts_with(&format!("m.gidMappings{field}")), "{text}");
        }
        assert!(refusal(&good, &[]).starts_with("m.gidMappings: missing"));
        assert!(refusal(&[], &good).starts_with("m.uidMappings: missing"));
        let many: Vec<_> = (0..341).map(|n| (n, n + 1000, 1)).collect();
        assert!(refusal(&many, &good).starts_with("m.uidMappings: 341 ranges"));
        let wide: Vec<_> = (0..300).map(|n| (n, n + 4_000_000_000, 1)).collect();
        let text = refusal(&good, &wide);
        assert_eq!(text, "m.gidMappings: 300 ranges are 4990 bytes of text; at most 4095 fit");
    }

    #[test]
    fn none_is_none_and_neighbours_are_apart() {
        assert_eq!(IdMappings::new("m", None, Some(&[])).unwrap(), None);
        let both = map(&[(0, 1000, 10), (10, 1010, 5)]);
        let made = IdMappings::new("m", Some(&both), Some(&both)).unwrap().unwrap();
        assert_eq!((made.users(), made.groups()), (both.as_slice(), both.as_slice()));
    }
}
