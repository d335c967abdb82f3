//! `linux.timeOffsets`: the clocks of a new time namespace.

use std::ffi::CString;
use std::fmt::Write as _;

use oci_spec::runtime::Linux;

use super::text;
use crate::{Error, Result};

/// Clocks that a time namespace has of its own (time_namespaces(7)).
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];
const NANOSECONDS: u32 = 1_000_000_000;
/// The kernel's clocks count nanoseconds in 63 bits, and it wants room for
/// what is still to come (`KTIME_SEC_MAX / 2`).
const SECONDS_MAX: i64 = i64::MAX / NANOSECONDS as i64 / 2;

/// The lines of `/proc/PID/timens_offsets`, if the config has offsets.
pub(super) fn lines(linux: &Linux) -> Result<Option<CString>> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|all| !all.is_empty()) else {
        return Ok(None);
    };
    if let Some(other) = offsets.keys().find(|clock| !CLOCKS.contains(&clock.as_str())) {
        let problem = format!("{other:?} is not {}", CLOCKS.join(" or "));
        return Err(Error::field("linux.timeOffsets", problem));
    }
    let mut text = String::new();
    for (clock, offset) in CLOCKS.iter().filter_map(|clock| Some((clock, offsets.get(*clock)?))) {
        let field = format!("linux.timeOffsets.{clock}");
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if !(-SECONDS_MAX..=SECONDS_MAX).contains(&seconds) {
            let problem = format!("{seconds} is more than {SECONDS_MAX} either way");
            return Err(Error::field(format!("{field}.secs"), problem));
        }
        if nanoseconds >= NANOSECONDS {
            let problem = format!("{nanoseconds} is not below {NANOSECONDS}");
            return Err(Error::field(format!("{field}.nanosecs"), problem));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{clock} {seconds} {nanoseconds}");
    }
    text::c_string("linux.timeOffsets", text).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(offsets: &Value) -> Result<Option<CString>> {
        let linux: Linux = serde_json::from_value(json!({ "timeOffsets": offsets })).unwrap();
        lines(&linux)
    }

    #[test]
    fn clocks_become_lines_in_one_order() {
        let both = json!({ "boottime": { "secs": -3, "nanosecs": 7 }, "monotonic": {} });
        assert_eq!(of(&both).unwrap().unwrap().as_c_str(), c"monotonic 0 0\nboottime -3 7\n");
        assert_eq!(of(&json!({})).unwrap(), None);
    }

    #[test]
    fn what_is_no_offset_is_told_by_field() {
        for (offsets, want) in [
            (json!({ "realtime": { "secs": 1 } }), "linux.timeOffsets: \"realtime\" is not"),
            (json!({ "boottime": { "secs": i64::MIN } }), "linux.timeOffsets.boottime.secs: -9223"),
            (
                json!({ "monotonic": { "nanosecs": NANOSECONDS } }),
                "linux.timeOffsets.monotonic.nanosecs: 1000000000",
            ),
        ] {
            let text = of(&offsets).unwrap_err().to_string();
            assert!(text.starts_with(want), "{text}");
        }
    }
}
