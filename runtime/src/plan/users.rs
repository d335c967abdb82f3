//! Ids of a user namespace: `linux.uidMappings` and `linux.gidMappings`.

use std::ffi::CString;

use oci_spec::runtime::{Linux, LinuxIdMapping, Process};

use super::text;
use crate::{Error, Result, idmap};

/// Checked maps of users and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdMaps {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

impl IdMaps {
    /// The maps of a config, if it has any.
    pub(super) fn of(linux: &Linux) -> Result<Option<Self>> {
        let uids = linux.uid_mappings().as_deref().unwrap_or_default();
        let gids = linux.gid_mappings().as_deref().unwrap_or_default();
        let missing = |field: &str| Error::field(field, "missing, and the other one is there");
        match (uids.is_empty(), gids.is_empty()) {
            (true, true) => return Ok(None),
            (true, false) => return Err(missing("linux.uidMappings")),
            (false, true) => return Err(missing("linux.gidMappings")),
            (false, false) => {}
        }
        let uids = checked("linux.uidMappings", uids)?;
        let gids = checked("linux.gidMappings", gids)?;
        Ok(Some(Self { uids, gids }))
    }

    /// The lines of `/proc/PID/uid_map`.
    pub(super) fn uid_lines(&self) -> Result<CString> {
        lines("linux.uidMappings", &self.uids)
    }

    /// The lines of `/proc/PID/gid_map`.
    pub(super) fn gid_lines(&self) -> Result<CString> {
        lines("linux.gidMappings", &self.gids)
    }

    /// What a user inside is outside.
    pub(super) fn host_uid(&self, uid: u32) -> Option<u32> {
        let holds = |it: &&LinuxIdMapping| idmap::holds(it.container_id(), it.size(), uid);
        let range = self.uids.iter().find(holds)?;
        Some(range.host_id() + (uid - range.container_id()))
    }

    /// An id that is not mapped does not exist inside.
    pub(super) fn check_process(&self, process: &Process) -> Result<()> {
        let user = process.user();
        has("process.user.uid", &self.uids, user.uid())?;
        has("process.user.gid", &self.gids, user.gid())?;
        for gid in user.additional_gids().iter().flatten() {
            has("process.user.additionalGids", &self.gids, *gid)?;
        }
        Ok(())
    }
}

fn has(field: &str, ranges: &[LinuxIdMapping], id: u32) -> Result<()> {
    if ranges.iter().any(|range| idmap::holds(range.container_id(), range.size(), id)) {
        return Ok(());
    }
    Err(Error::field(field, format!("{id} is not mapped in the container's user namespace")))
}

/// What the kernel would refuse without saying why.
fn checked(field: &str, ranges: &[LinuxIdMapping]) -> Result<Vec<LinuxIdMapping>> {
    idmap::check(field, ranges)?;
    if !ranges.iter().any(|range| range.container_id() == 0) {
        return Err(Error::field(field, "id 0 of the container is not mapped"));
    }
    Ok(ranges.to_vec())
}

fn lines(field: &str, ranges: &[LinuxIdMapping]) -> Result<CString> {
    text::c_string(field, idmap::lines(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ranges(triples: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
        let all: Vec<_> = triples
            .iter()
            .map(|(c, h, s)| json!({ "containerID": c, "hostID": h, "size": s }))
            .collect();
        serde_json::from_value(json!(all)).unwrap()
    }

    #[test]
    fn maps_become_lines_of_the_kernel() {
        let maps = checked("f", &ranges(&[(0, 100_000, 1000), (1000, 5, 1)])).unwrap();
        assert_eq!(lines("f", &maps).unwrap().as_c_str(), c"0 100000 1000\n1000 5 1\n");
        assert!(has("u", &maps, 1000).is_ok() && has("u", &maps, 0).is_ok());
        assert!(has("u", &maps, 1001).is_err());
        let maps = IdMaps { uids: maps.clone(), gids: maps };
        let hosts = [0, 999, 1000, 1001].map(|uid| maps.host_uid(uid));
        assert_eq!(hosts, [Some(100_000), Some(100_999), Some(5), None]);
    }

    #[test]
    fn what_the_kernel_would_refuse_is_told_by_field() {
        let max = u32::MAX;
        for (triples, want) in [
            (&[(0, 0, 0)][..], "f[0].size"),
            (&[(0, 5, max), (7, 9, 1)], "f[0].hostID: 5 and"),
            (&[(0, 1, 10), (max, 100, 1)], "f[1].containerID: 4294967295 and"),
            (&[(0, 1000, 10), (9, 5000, 10)], "f[1].containerID: 9 overlaps with range 0"),
            (&[(0, 1000, 10), (10, 991, 10)], "f[1].hostID: 991 overlaps with range 0"),
            (&[(0, 1000, 10), (10, 1000, 1)], "f[1].hostID: 1000 overlaps with range 0"),
            (&[(1, 1000, 10)], "f: id 0"),
        ] {
            let text = checked("f", &ranges(triples)).unwrap_err().to_string();
            assert!(text.starts_with(want), "{text}");
        }
        let many: Vec<_> = (0..341).map(|n| (n, n, 1)).collect();
        assert!(checked("f", &ranges(&many)).unwrap_err().to_string().contains("more than 340"));
        let wide: Vec<_> = (0..340).map(|n| (n, 4_000_000_000 + n, 1)).collect();
        let text = checked("f", &ranges(&wide)).unwrap_err().to_string();
        assert_eq!(text, "f: 340 ranges are 5670 bytes of text; at most 4095 fit");
    }
}
