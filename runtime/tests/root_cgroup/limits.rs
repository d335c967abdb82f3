//! Limits that this kernel has besides CPU, memory and pids, and those it has not.

use std::fs;
use std::path::Path;

use boathook_runtime::ErrorKind;
use boathook_runtime::cgroup::stats::BlkioEntry;
use boathook_runtime::cgroup::{Controller, Stats};

use super::support::{Arena, Child, deadline, parse};

/// `major:minor` of some block device of this host.
fn block_device() -> (u32, u32) {
    let text = fs::read_to_string("/proc/partitions").unwrap();
    let first = text.lines().nth(2).unwrap();
    let mut fields = first.split_whitespace().map(str::parse::<u32>);
    (fields.next().unwrap().unwrap(), fields.next().unwrap().unwrap())
}

/// Red if a throttle lands in another file or on another device, or an update
/// does not lift it.
#[test]
fn block_throttles_are_set_changed_and_lifted() {
    let arena = Arena::new();
    let (major, minor) = block_device();
    let device = |rate: u64| format!(r#"[{{"major":{major},"minor":{minor},"rate":{rate}}}]"#);
    let lists = [
        ("throttleReadBpsDevice", "read_bps_device", 1_048_576),
        ("throttleWriteBpsDevice", "write_bps_device", 2_097_152),
        ("throttleReadIOPSDevice", "read_iops_device", 100),
        ("throttleWriteIOPSDevice", "write_iops_device", 200),
    ];
    let fields: Vec<_> =
        lists.iter().map(|(field, _, rate)| format!(r#""{field}":{}"#, device(*rate))).collect();
    let group = arena.create("c", &format!(r#"{{"blockIO":{{{}}}}}"#, fields.join(",")));
    if arena.on_v2() {
        let text = arena.text("io", "c/io.max");
        assert_eq!(text, format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200"));
    } else {
        for (_, file, rate) in lists {
            let text = arena.text("blkio", &format!("c/blkio.throttle.{file}"));
            assert_eq!(text, format!("{major}:{minor} {rate}"), "{file}");
        }
    }
    let update = |field: &str, rate| {
        group.update(&parse(&format!(r#"{{"blockIO":{{"{field}":{}}}}}"#, device(rate)))).unwrap();
    };
    update("throttleReadBpsDevice", 4096);
    update("throttleWriteIOPSDevice", 0);
    if arena.on_v2() {
        let text = arena.text("io", "c/io.max");
        assert_eq!(text, format!("{major}:{minor} rbps=4096 wbps=2097152 riops=100 wiops=max"));
    } else {
        let read = |file: &str| arena.text("blkio", &format!("c/blkio.throttle.{file}"));
        assert_eq!(read("read_bps_device"), format!("{major}:{minor} 4096"));
        assert_eq!(read("write_iops_device"), "");
        assert_eq!(read("read_iops_device"), format!("{major}:{minor} 100"));
    }
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// A directory on a disk, which `/tmp` may not be.
fn disk() -> &'static Path {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Where the tests are brought to another machine, there is nothing of the build.
    if built.is_dir() { built } else { Path::new("/var/tmp") }
}

/// Red if what a process read past the page cache is not counted, or in another unit.
///
/// The kernel makes a cgroup's account of a disk at the first request, with an allocation that
/// may not wait; where it fails, that request counts for the parent. So it is read again.
#[test]
fn block_io_is_counted() {
    let arena = Arena::new();
    let group = arena.create("c", "{}");
    let file = tempfile::NamedTempFile::new_in(disk()).unwrap();
    fs::write(&file, vec![7; 1 << 20]).unwrap();
    file.as_file().sync_all().unwrap();
    let read = format!("dd if={} of=/dev/null bs=64k iflag=direct 2>&1", file.path().display());
    let counted = || {
        let child = Child::shell(&group.join_files().unwrap(), &read);
        let output = child.output();
        assert!(output.contains("16+0 records in"), "{output}");
        child.wait();
        read_so_far(&group.stats().unwrap())
    };
    let mut so_far = counted();
    for _ in 1..10 {
        if so_far.0 >= 1 << 20 {
            break;
        }
        so_far = counted();
    }
    // Not exactly: the programs may have come from the disk as well.
    let (bytes, requests) = so_far;
    assert!((1 << 20..64 << 20).contains(&bytes), "{bytes} bytes");
    assert!(requests >= 16 && requests * 512 <= bytes, "{requests} requests, {bytes} bytes");
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Bytes and requests of all devices.
fn read_so_far(stats: &Stats) -> (u64, u64) {
    match stats {
        Stats::V1(stats) => {
            let blkio = stats.blkio.as_ref().unwrap();
            let reads = |list: &[BlkioEntry]| -> u64 {
                list.iter().filter(|e| e.op == "Read").map(|e| e.value).sum()
            };
            (reads(&blkio.io_service_bytes_recursive), reads(&blkio.io_serviced_recursive))
        }
        Stats::V2(stats) => {
            let usage = &stats.io.as_ref().unwrap().usage;
            (usage.iter().map(|e| e.rbytes).sum(), usage.iter().map(|e| e.rios).sum())
        }
    }
}

/// Red if the weight goes to a file that this kernel does not have, although
/// it has the other one.
#[test]
fn a_weight_goes_to_the_scheduler_there_is() {
    let arena = Arena::new();
    let result = arena.try_create("c", r#"{"blockIO":{"weight":321}}"#);
    let files = arena.either(["blkio.bfq.weight", "blkio.weight"], ["io.bfq.weight", "io.weight"]);
    match result {
        Ok(group) => {
            let file = files.into_iter().find(|f| arena.host("blkio", "c").join(f).exists());
            let file = file.unwrap();
            let text = arena.text("blkio", &format!("c/{file}"));
            // io.weight has another range, 1 to 10000 for 10 to 1000.
            let want = if file == "io.weight" { "3142" } else { "321" };
            assert_eq!(text.trim_start_matches("default "), want);
            group.delete(deadline()).unwrap();
        }
        // Neither scheduler: then it must say so by name.
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            let text = error.to_string();
            assert!(text.starts_with("linux.resources.blockIO.weight: "), "{text}");
            arena.create("c", "{}");
            assert!(!files.iter().any(|f| arena.host("blkio", "c").join(f).exists()), "{text}");
        }
    }
    let error = arena.try_create("d", r#"{"blockIO":{"leafWeight":300}}"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().starts_with("linux.resources.blockIO.leafWeight: "), "{error}");
}

/// Red if a limit whose controller this host does not have passes as set, on
/// any of its hierarchies.
#[test]
fn a_limit_without_its_controller_is_refused_by_name() {
    let cases = [
        (
            Controller::Hugetlb,
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
            "linux.resources.hugepageLimits[0]: ",
        ),
        (
            Controller::Rdma,
            r#"{"rdma":{"mlx5_0":{"hcaHandles":3}}}"#,
            "linux.resources.rdma.mlx5_0: ",
        ),
        (Controller::NetCls, r#"{"network":{"classID":7}}"#, "linux.resources.network.classID: "),
        (
            Controller::Misc,
            r#"{"unified":{"misc.max":"x 1"}}"#,
            "linux.resources.unified.misc.max: ",
        ),
    ];
    for arena in [Arena::new(), Arena::unified()] {
        for (controller, json, field) in cases {
            if arena.hierarchies.layout().index_of(controller).is_some() {
                continue;
            }
            let error = arena.try_create("c", json).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().starts_with(field), "{error}");
            arena.assert_clean();
        }
    }
}

/// Red if huge pages are not limited where this host can: in the hierarchy that
/// has the controller, which on a hybrid host may be v2.
#[test]
fn huge_pages_are_limited_where_the_controller_is() {
    let arena = Arena::new();
    let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
    let layout = arena.hierarchies.layout();
    let Some(index) = layout.index_of(Controller::Hugetlb) else {
        // That it is refused by name is the test above.
        return assert!(arena.try_create("c", json).is_err());
    };
    let group = arena.create("c", json);
    let (dir, file) = match layout.mounts[index].is_v2() {
        true => ("unified", "hugetlb.2MB.max"),
        false => ("hugetlb", "hugetlb.2MB.limit_in_bytes"),
    };
    assert_eq!(arena.text(dir, &format!("c/{file}")), "4194304");
    let counted = match group.stats().unwrap() {
        Stats::V1(stats) => stats.hugetlb.iter().any(|h| h.page_size == "2MB"),
        Stats::V2(stats) => {
            stats.hugetlb.iter().any(|h| h.page_size == "2MB" && h.max == 4_194_304)
        }
    };
    assert!(counted, "no figures of pages of 2 MiB");
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}

/// Red if `unified` does not reach the v2 files there are, or reaches those
/// that are the runtime's own.
#[test]
fn unified_sets_what_every_v2_cgroup_has() {
    for arena in [Arena::new(), Arena::unified()] {
        let json = r#"{"unified":{"cgroup.max.descendants":"5","cgroup.max.depth":"2"}}"#;
        let group = arena.create("c", json);
        let read = |file: &str| arena.text("unified", &format!("c/cgroup.max.{file}"));
        assert_eq!((read("descendants").as_str(), read("depth").as_str()), ("5", "2"));
        group.update(&parse(r#"{"unified":{"cgroup.max.depth":"3"}}"#)).unwrap();
        assert_eq!((read("descendants").as_str(), read("depth").as_str()), ("5", "3"));
        for (key, value, kind) in [
            ("cgroup.procs", "0", ErrorKind::InvalidInput),
            ("cgroup.max.depth", "many", ErrorKind::InvalidInput),
            ("nothing.here", "1", ErrorKind::Unsupported),
        ] {
            let json = format!(r#"{{"unified":{{"{key}":"{value}"}}}}"#);
            let error = group.update(&parse(&json)).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("linux.resources.unified.{key}: ")), "{text}");
        }
        group.delete(deadline()).unwrap();
        arena.assert_clean();
    }
}

/// Red if v2 figures are read from other files, or a missing controller's are shown as zeros.
#[test]
fn v2_stats_show_what_was_used() {
    let arena = Arena::unified();
    let group = arena.create("c", "{}");
    let work = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo ready; kill -STOP $$";
    let child = Child::shell(&group.join_files().unwrap(), work);
    child.await_output();
    let Stats::V2(stats) = group.stats().unwrap() else { panic!("a v2 host has v2 stats") };
    let cpu = stats.cpu;
    assert!(cpu.stat.usage_usec > 1000, "{cpu:?}");
    let parts = cpu.stat.user_usec + cpu.stat.system_usec;
    assert!(cpu.stat.usage_usec.abs_diff(parts) <= 2, "{cpu:?}");
    assert_eq!(cpu.pressure.is_some(), arena.dir("c/cpu.pressure").exists());
    assert_eq!(stats.memory.is_some(), arena.dir("c/memory.stat").exists());
    assert_eq!(stats.pids.is_some(), arena.dir("c/pids.current").exists());
    group.kill_all(deadline()).unwrap();
    child.wait();
    let Stats::V2(after) = group.stats().unwrap() else { panic!("a v2 host has v2 stats") };
    assert!(after.cpu.stat.usage_usec >= cpu.stat.usage_usec);
    group.delete(deadline()).unwrap();
    arena.assert_clean();
}
