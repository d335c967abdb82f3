//! `linux.cgroupsPath` and the files of procfs that say where cgroups are: no
//! path leaves the hierarchy. First line: the path; second line: the
//! container's id; the rest: a mountinfo file.
#![no_main]

use std::path::{Component, Path};

use boathook_fuzz::layouts;
use boathook_runtime::cgroup::{Base, CgroupPlan, Driver, Layout};
use boathook_runtime::plan::check_id;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\n');
    let mut next = || parts.next().unwrap_or_default();
    let (path, id, mountinfo) = (next(), next(), next());
    for layout in Layout::parse(mountinfo).into_iter().chain(layouts()) {
        for given in [Some(path), None] {
            if let Ok(plan) = CgroupPlan::new(given, id, Driver::Cgroupfs, None, &layout) {
                stays_inside(&plan, given.unwrap_or_default());
            }
        }
    }
    // An id that containers may have is always a cgroup of its own.
    if check_id(id).is_ok() {
        let [layout, ..] = &layouts()[..] else { return };
        let plan = CgroupPlan::new(None, id, Driver::Cgroupfs, None, layout).expect("a cgroup");
        assert_eq!(plan.location().path, id);
    }
});

fn stays_inside(plan: &CgroupPlan, given: &str) {
    let location = plan.location();
    let path = &location.path;
    assert!(!path.is_empty() && path.len() < 4096, "{path:?}");
    assert!(!path.starts_with('/') && !path.ends_with('/'), "{path:?}");
    assert!(!path.contains(|c: char| c.is_ascii_control()), "{path:?}");
    for part in path.split('/') {
        assert!(!matches!(part, "" | "." | "..") && part.len() <= 255, "{path:?}");
    }
    let joined = Path::new("/sys/fs/cgroup/memory").join(path);
    let below = joined.strip_prefix("/sys/fs/cgroup/memory").expect("below the hierarchy");
    assert!(below.components().all(|c| matches!(c, Component::Normal(_))), "{path:?}");
    let relative = !given.is_empty() && !given.starts_with('/');
    assert_eq!(location.base == Base::Own, relative, "{given:?}");
    for write in plan.writes() {
        assert!(!write.file.contains('/') && !write.file.contains(".."), "{write:?}");
    }
}
