//! Shared by the fuzz targets: hosts to plan for, and what must hold of a plan.

pub mod tarball;

use std::path::Path;

use boathook_init::wire::{Header, Reader, Value};
use boathook_init::{Slot, Step};
use boathook_runtime::cgroup::{Driver, Layout};
use boathook_runtime::plan::{Context, Plan, SecurityModules};

/// A host of each kind, as its mountinfo shows it.
const MOUNTINFO: [&str; 3] = [
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
     33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
     34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
     35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
     36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
     37 31 0:34 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
     38 31 0:35 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb\n\
     39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
     35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
     36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
     40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
     41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
];

/// The cgroup hierarchies of a v1, a hybrid and a v2 host.
pub fn layouts() -> Vec<Layout> {
    MOUNTINFO.iter().map(|text| Layout::parse(text).expect("a host with cgroups")).collect()
}

/// What the plans are made for.
pub fn context(cgroups: &Layout) -> Context<'_> {
    Context {
        id: "fuzz",
        bundle: Path::new("/bundle"),
        cgroups,
        driver: Driver::Cgroupfs,
        no_pivot_root: false,
        no_new_keyring: false,
        modules: SecurityModules::default(),
        bare: false,
    }
}

/// What init relies on: the bytes are a plan to the last one, and a step only
/// names descriptors that were sent or that a step before it made.
pub fn check_program(plan: &Plan) {
    let image = plan.program.image(plan.fds.len());
    let mut reader = Reader::new(&image);
    let header = Header::get(&mut reader).expect("a header");
    let mut made = 0;
    let mut last = "";
    for index in 0..header.steps {
        let step = Step::get(&mut reader).unwrap_or_else(|_| panic!("step {index} after {last}"));
        if let Step::NewFs { slot, .. } | Step::NewProc { slot, .. } | Step::NewSysfs { slot, .. } =
            step
        {
            assert_eq!(slot, Slot::made(made), "{step:?}");
            made += 1;
        }
        step.fields(&mut |name, value| match value {
            Value::Slot(slot) if slot.is_made() => {
                assert!(slot.index(0) < made as usize, "{step:?}.{name} is not made yet");
            }
            Value::Slot(slot) => {
                assert!(slot.index(0) < plan.fds.len(), "{step:?}.{name} is not sent");
            }
            _ => {}
        });
        last = step.name();
    }
    assert!(reader.is_empty(), "bytes behind the last step");
    assert_eq!(made, plan.program.made());
    assert_eq!(header.slots as usize, plan.fds.len() + made as usize);
    assert_eq!(last, "Exec");
}
