//! Tables: config in, files out.

use super::*;

type Emit = fn(&LinuxResources, Purpose) -> Result<Vec<Write>>;

fn layout(mode: Mode) -> Layout {
    Layout { mode, mounts: Vec::new() }
}

fn v1_writes(resources: &LinuxResources, purpose: Purpose) -> Result<Vec<Write>> {
    writes(resources, &layout(Mode::V1), purpose)
}

fn v2_writes(resources: &LinuxResources, purpose: Purpose) -> Result<Vec<Write>> {
    writes(resources, &layout(Mode::V2), purpose)
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn lines(emit: Emit, json: &str) -> Vec<String> {
    let writes = emit(&resources(json), Purpose::Create).unwrap();
    writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect()
}

fn refusal(emit: Emit, json: &str) -> String {
    emit(&resources(json), Purpose::Create).unwrap_err().to_string()
}

#[test]
fn v1_files_by_field() {
    let table: &[(&str, &[&str])] = &[
        ("{}", &[]),
        (r#"{"cpu":{"shares":0,"quota":0,"period":0}}"#, &[]),
        (r#"{"cpu":{"shares":512}}"#, &["cpu.shares=512"]),
        (
            r#"{"cpu":{"period":50000,"quota":20000,"burst":1000,"idle":1}}"#,
            &[
                "cpu.cfs_period_us=50000",
                "cpu.cfs_quota_us=20000",
                "cpu.cfs_burst_us=1000",
                "cpu.idle=1",
            ],
        ),
        (r#"{"cpu":{"quota":-1}}"#, &["cpu.cfs_quota_us=-1"]),
        (r#"{"cpu":{"cpus":"0-1,3","mems":"0"}}"#, &["cpuset.cpus=0-1,3", "cpuset.mems=0"]),
        (
            r#"{"cpu":{"realtimePeriod":1000000,"realtimeRuntime":5000}}"#,
            &["cpu.rt_period_us=1000000", "cpu.rt_runtime_us=5000"],
        ),
        (
            r#"{"memory":{"limit":100,"swap":300,"reservation":50,"swappiness":10,"disableOOMKiller":true}}"#,
            &[
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=300",
                "memory.soft_limit_in_bytes=50",
                "memory.swappiness=10",
                "memory.oom_control=1",
            ],
        ),
        (
            r#"{"memory":{"limit":-1}}"#,
            &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"],
        ),
        (
            r#"{"memory":{"kernel":5,"kernelTCP":5,"useHierarchy":true,"disableOOMKiller":false}}"#,
            &[],
        ),
        (r#"{"pids":{"limit":0}}"#, &["pids.max=0"]),
        (r#"{"pids":{"limit":-1}}"#, &["pids.max=max"]),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
            &["hugetlb.2MB.limit_in_bytes=4194304", "hugetlb.2MB.rsvd.limit_in_bytes=4194304"],
        ),
        (
            r#"{"blockIO":{"weight":100,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}],
                "weightDevice":[{"major":8,"minor":0,"weight":10}]}}"#,
            &[
                "blkio.bfq.weight=100",
                "blkio.bfq.weight_device=8:0 10",
                "blkio.throttle.read_bps_device=8:0 7",
            ],
        ),
        (
            r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#,
            &["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"],
        ),
        (
            r#"{"rdma":{"mlx5_1":{"hcaHandles":2,"hcaObjects":9}}}"#,
            &["rdma.max=mlx5_1 hca_handle=2 hca_object=9"],
        ),
    ];
    for (json, want) in table {
        assert_eq!(lines(v1_writes, json), *want, "{json}");
    }
}

#[test]
fn v2_files_by_field() {
    let table: &[(&str, &[&str])] = &[
        (r#"{"cpu":{"shares":1024}}"#, &["cpu.weight=100"]),
        (
            r#"{"cpu":{"quota":20000,"burst":1000,"idle":0}}"#,
            &["cpu.max=20000 100000", "cpu.max.burst=1000", "cpu.idle=0"],
        ),
        (r#"{"cpu":{"period":50000}}"#, &["cpu.max=max 50000"]),
        (
            r#"{"memory":{"limit":100,"swap":300,"reservation":50}}"#,
            &["memory.swap.max=200", "memory.max=100", "memory.low=50"],
        ),
        (r#"{"memory":{"limit":-1}}"#, &["memory.swap.max=max", "memory.max=max"]),
        (r#"{"pids":{"limit":0}}"#, &["pids.max=1"]),
        (
            r#"{"blockIO":{"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#,
            &["io.max=8:0 wiops=max"],
        ),
        (r#"{"unified":{"memory.high":"7","cpu.weight":"3"}}"#, &["cpu.weight=3", "memory.high=7"]),
        (
            r#"{"unified":{"cgroup.max.depth":"2","not_yet.known":"a b"}}"#,
            &["cgroup.max.depth=2", "not_yet.known=a b"],
        ),
    ];
    for (json, want) in table {
        assert_eq!(lines(v2_writes, json), *want, "{json}");
    }
}

#[test]
fn wrong_values_name_their_field() {
    let both: &[(&str, &str)] = &[
        (r#"{"memory":{"limit":-2}}"#, "linux.resources.memory.limit: "),
        (r#"{"memory":{"limit":100,"swap":50}}"#, "linux.resources.memory.swap: "),
        (r#"{"memory":{"swap":50}}"#, "linux.resources.memory.swap: "),
        (r#"{"memory":{"limit":-1,"swap":50}}"#, "linux.resources.memory.swap: "),
        (r#"{"memory":{"swappiness":101}}"#, "linux.resources.memory.swappiness: "),
        (r#"{"pids":{"limit":-2}}"#, "linux.resources.pids.limit: "),
        (r#"{"cpu":{"quota":-5}}"#, "linux.resources.cpu.quota: "),
        (r#"{"cpu":{"quota":10,"burst":11}}"#, "linux.resources.cpu.burst: "),
        (r#"{"cpu":{"idle":2}}"#, "linux.resources.cpu.idle: "),
        (r#"{"cpu":{"cpus":"0-"}}"#, "linux.resources.cpu.cpus: "),
        (r#"{"cpu":{"cpus":"3-1"}}"#, "linux.resources.cpu.cpus: "),
        (r#"{"cpu":{"mems":"0,"}}"#, "linux.resources.cpu.mems: "),
        (r#"{"cpu":{"mems":"+1"}}"#, "linux.resources.cpu.mems: "),
        (r#"{"cpu":{"cpus":"0\n1"}}"#, "linux.resources.cpu.cpus: "),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MiB","limit":1}]}"#,
            "linux.resources.hugepageLimits[0].pageSize: ",
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#,
            "linux.resources.hugepageLimits[0].pageSize: ",
        ),
        (r#"{"blockIO":{"weight":9}}"#, "linux.resources.blockIO.weight: "),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":7}]}}"#,
            "linux.resources.blockIO.throttleReadBpsDevice[0]: ",
        ),
        (r#"{"rdma":{"a b":{"hcaHandles":2}}}"#, "linux.resources.rdma.a b: "),
        (r#"{"rdma":{"a":{}}}"#, "linux.resources.rdma.a: "),
    ];
    for (json, start) in both {
        for emit in [v1_writes as Emit, v2_writes] {
            let text = refusal(emit, json);
            assert!(text.starts_with(start), "{json}: {text}");
        }
    }
}

#[test]
fn what_one_generation_lacks_is_refused_by_it_alone() {
    let v1_only = [
        r#"{"network":{"classID":1}}"#,
        r#"{"cpu":{"realtimeRuntime":1}}"#,
        r#"{"memory":{"disableOOMKiller":true}}"#,
        r#"{"memory":{"swappiness":1}}"#,
        r#"{"blockIO":{"leafWeight":10}}"#,
    ];
    for json in v1_only {
        assert!(v1_writes(&resources(json), Purpose::Create).is_ok(), "{json}");
        assert!(refusal(v2_writes, json).contains("only on cgroup v1"), "{json}");
    }
    for key in ["memory.high", "cgroup.max.depth"] {
        let text = refusal(v1_writes, &format!(r#"{{"unified":{{"{key}":"1"}}}}"#));
        assert!(text.starts_with(&format!("linux.resources.unified.{key}: ")), "{text}");
    }
    assert!(lines(v1_writes, r#"{"unified":{}}"#).is_empty());
    let no_files = [
        "../x.y",
        "..",
        ".",
        ".x",
        "",
        "memory/high",
        "memory",
        "cgroup.procs",
        "cgroup.kill",
        "cgroup.subtree_control",
        "cgroup.freeze",
        "cgroup.type",
        "cgroup.threads",
    ];
    for key in no_files {
        let text = refusal(v2_writes, &format!(r#"{{"unified":{{"{key}":"1"}}}}"#));
        assert!(text.starts_with("linux.resources.unified."), "{text}");
    }
    // The kernel would clamp these v1 values in silence.
    assert!(refusal(v1_writes, r#"{"cpu":{"shares":1}}"#).contains("2–262144"));
    assert_eq!(lines(v2_writes, r#"{"cpu":{"shares":1}}"#), ["cpu.weight=1"]);
}

#[test]
fn an_update_may_change_swap_alone() {
    let json = r#"{"memory":{"swap":50}}"#;
    let writes = v1_writes(&resources(json), Purpose::Update).unwrap();
    assert_eq!(writes.len(), 1);
    assert!(writes[0].retry && writes[0].single && !writes[0].optional);
}

/// Red if changing one half of `cpu.max` resets the other.
#[test]
fn an_update_of_the_period_keeps_the_quota_and_the_reverse() {
    let update = |json: &str| v2_writes(&resources(json), Purpose::Update).unwrap().remove(0);
    let write = update(r#"{"cpu":{"period":50000}}"#);
    assert_eq!((write.value.as_str(), write.keep_first), ("50000", true));
    assert_eq!(write.field, "linux.resources.cpu.period");
    let write = update(r#"{"cpu":{"quota":20000}}"#);
    assert_eq!((write.value.as_str(), write.keep_first), ("20000", false));
    let write = update(r#"{"cpu":{"quota":-1,"period":50000}}"#);
    assert_eq!((write.value.as_str(), write.keep_first), ("max 50000", false));
}

/// Red if a controller's limit goes to the generation that does not have it.
#[test]
fn a_hybrid_host_writes_each_limit_where_its_controller_is() {
    let mounts = "\
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
    let mut layout = Layout::parse(mounts).unwrap();
    layout.mounts[1].controllers = [Controller::Hugetlb, Controller::Cpu].into_iter().collect();
    let lines = |json: &str| {
        let writes = writes(&resources(json), &layout, Purpose::Create).unwrap();
        writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect::<Vec<_>>()
    };
    let json = r#"{"memory":{"limit":5},"cpu":{"shares":1024,"cpus":"0"},
                   "hugepageLimits":[{"pageSize":"2MB","limit":7}],
                   "unified":{"hugetlb.1GB.max":"0","cgroup.max.depth":"3"}}"#;
    let want = [
        // cpuset is nowhere; that is found out by name later.
        "cpuset.cpus=0",
        "memory.limit_in_bytes=5",
        "cpu.weight=100",
        "hugetlb.2MB.max=7",
        "hugetlb.2MB.rsvd.max=7",
        "cgroup.max.depth=3",
        "hugetlb.1GB.max=0",
    ];
    assert_eq!(lines(json), want);
    let refused =
        writes(&resources(r#"{"unified":{"memory.high":"1"}}"#), &layout, Purpose::Create);
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
    assert!(error.to_string().starts_with("linux.resources.unified.memory.high: "), "{error}");
}

#[test]
fn what_asks_for_nothing_may_lack_its_file() {
    let optional = |emit: Emit, json: &str| {
        let writes = emit(&resources(json), Purpose::Create).unwrap();
        writes.iter().filter(|w| w.optional).map(|w| w.file.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(optional(v1_writes, r#"{"memory":{"limit":-1}}"#), ["memory.memsw.limit_in_bytes"]);
    assert!(optional(v1_writes, r#"{"memory":{"limit":5,"swap":5}}"#).is_empty());
    assert_eq!(optional(v2_writes, r#"{"memory":{"limit":5,"swap":5}}"#), ["memory.swap.max"]);
}
