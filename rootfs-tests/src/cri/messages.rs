//! The messages of CRI v1 that the suites use, with the field numbers of
//! kubernetes/cri-api `pkg/apis/runtime/v1/api.proto`. Fields nobody here reads are left out;
//! docs/decisions/0006 says why these are written by hand.

#![allow(missing_docs, reason = "the names and meanings are those of the interface")]

use std::collections::HashMap;

/// Declares messages; each field is `name: type = "prost attribute"`.
macro_rules! messages {
    ($($(#[$meta:meta])* $message:ident { $($field:ident : $type:ty = ($($attr:tt)+)),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, PartialEq, prost::Message)]
            pub struct $message {
                $(#[prost($($attr)+)] pub $field: $type,)*
            }
        )*
    };
}

type Map = HashMap<String, String>;

messages! {
    /// An answer without content.
    Nothing {}
    /// The many requests and answers that hold one id.
    IdMessage { id: String = (string, tag = "1") }
    /// PodSandboxStatusRequest and ContainerStatusRequest.
    StatusOfRequest { id: String = (string, tag = "1"), verbose: bool = (bool, tag = "2") }

    VersionRequest { version: String = (string, tag = "1") }
    VersionResponse {
        version: String = (string, tag = "1"),
        runtime_name: String = (string, tag = "2"),
        runtime_version: String = (string, tag = "3"),
        runtime_api_version: String = (string, tag = "4"),
    }
    StatusRequest { verbose: bool = (bool, tag = "1") }
    StatusResponse {
        status: Option<RuntimeStatus> = (message, optional, tag = "1"),
        info: Map = (map = "string, string", tag = "2"),
        runtime_handlers: Vec<RuntimeHandler> = (message, repeated, tag = "3"),
    }
    RuntimeStatus { conditions: Vec<RuntimeCondition> = (message, repeated, tag = "1") }
    RuntimeCondition {
        r#type: String = (string, tag = "1"),
        status: bool = (bool, tag = "2"),
        reason: String = (string, tag = "3"),
        message: String = (string, tag = "4"),
    }
    RuntimeHandler {
        name: String = (string, tag = "1"),
        features: Option<RuntimeHandlerFeatures> = (message, optional, tag = "2"),
    }
    RuntimeHandlerFeatures {
        recursive_read_only_mounts: bool = (bool, tag = "1"),
        user_namespaces: bool = (bool, tag = "2"),
    }

    PodSandboxMetadata {
        name: String = (string, tag = "1"),
        uid: String = (string, tag = "2"),
        namespace: String = (string, tag = "3"),
        attempt: u32 = (uint32, tag = "4"),
    }
    DnsConfig {
        servers: Vec<String> = (string, repeated, tag = "1"),
        searches: Vec<String> = (string, repeated, tag = "2"),
        options: Vec<String> = (string, repeated, tag = "3"),
    }
    PodSandboxConfig {
        metadata: Option<PodSandboxMetadata> = (message, optional, tag = "1"),
        hostname: String = (string, tag = "2"),
        log_directory: String = (string, tag = "3"),
        dns_config: Option<DnsConfig> = (message, optional, tag = "4"),
        labels: Map = (map = "string, string", tag = "6"),
        annotations: Map = (map = "string, string", tag = "7"),
        linux: Option<LinuxPodSandboxConfig> = (message, optional, tag = "8"),
    }
    LinuxPodSandboxConfig {
        cgroup_parent: String = (string, tag = "1"),
        security_context: Option<LinuxSandboxSecurityContext> = (message, optional, tag = "2"),
        sysctls: Map = (map = "string, string", tag = "3"),
        overhead: Option<LinuxContainerResources> = (message, optional, tag = "4"),
        resources: Option<LinuxContainerResources> = (message, optional, tag = "5"),
    }
    LinuxSandboxSecurityContext {
        namespace_options: Option<NamespaceOption> = (message, optional, tag = "1"),
        run_as_user: Option<Int64Value> = (message, optional, tag = "3"),
        run_as_group: Option<Int64Value> = (message, optional, tag = "8"),
        readonly_rootfs: bool = (bool, tag = "4"),
        supplemental_groups: Vec<i64> = (int64, repeated, tag = "5"),
        privileged: bool = (bool, tag = "6"),
        seccomp: Option<SecurityProfile> = (message, optional, tag = "9"),
    }
    NamespaceOption {
        network: i32 = (enumeration = "NamespaceMode", tag = "1"),
        pid: i32 = (enumeration = "NamespaceMode", tag = "2"),
        ipc: i32 = (enumeration = "NamespaceMode", tag = "3"),
        target_id: String = (string, tag = "4"),
        userns_options: Option<UserNamespace> = (message, optional, tag = "5"),
    }
    UserNamespace {
        mode: i32 = (enumeration = "NamespaceMode", tag = "1"),
        uids: Vec<IdMapping> = (message, repeated, tag = "2"),
        gids: Vec<IdMapping> = (message, repeated, tag = "3"),
    }
    IdMapping {
        host_id: u32 = (uint32, tag = "1"),
        container_id: u32 = (uint32, tag = "2"),
        length: u32 = (uint32, tag = "3"),
    }
    Int64Value { value: i64 = (int64, tag = "1") }
    UInt64Value { value: u64 = (uint64, tag = "1") }
    SecurityProfile {
        profile_type: i32 = (enumeration = "ProfileType", tag = "1"),
        localhost_ref: String = (string, tag = "2"),
    }
    RunPodSandboxRequest {
        config: Option<PodSandboxConfig> = (message, optional, tag = "1"),
        runtime_handler: String = (string, tag = "2"),
    }
    PodSandboxStatusResponse {
        status: Option<PodSandboxStatus> = (message, optional, tag = "1"),
        info: Map = (map = "string, string", tag = "2"),
    }
    PodSandboxStatus {
        id: String = (string, tag = "1"),
        metadata: Option<PodSandboxMetadata> = (message, optional, tag = "2"),
        state: i32 = (enumeration = "PodSandboxState", tag = "3"),
        created_at: i64 = (int64, tag = "4"),
        network: Option<PodSandboxNetworkStatus> = (message, optional, tag = "5"),
        labels: Map = (map = "string, string", tag = "7"),
        annotations: Map = (map = "string, string", tag = "8"),
        runtime_handler: String = (string, tag = "9"),
    }
    PodSandboxNetworkStatus { ip: String = (string, tag = "1") }
    ListPodSandboxRequest { filter: Option<PodSandboxFilter> = (message, optional, tag = "1") }
    PodSandboxFilter {
        id: String = (string, tag = "1"),
        state: Option<PodSandboxStateValue> = (message, optional, tag = "2"),
        label_selector: Map = (map = "string, string", tag = "3"),
    }
    PodSandboxStateValue { state: i32 = (enumeration = "PodSandboxState", tag = "1") }
    ListPodSandboxResponse { items: Vec<PodSandbox> = (message, repeated, tag = "1") }
    PodSandbox {
        id: String = (string, tag = "1"),
        metadata: Option<PodSandboxMetadata> = (message, optional, tag = "2"),
        state: i32 = (enumeration = "PodSandboxState", tag = "3"),
        created_at: i64 = (int64, tag = "4"),
        labels: Map = (map = "string, string", tag = "5"),
        annotations: Map = (map = "string, string", tag = "6"),
        runtime_handler: String = (string, tag = "7"),
    }

    ContainerMetadata { name: String = (string, tag = "1"), attempt: u32 = (uint32, tag = "2") }
    ImageSpec { image: String = (string, tag = "1"), annotations: Map = (map = "string, string", tag = "2") }
    KeyValue { key: String = (string, tag = "1"), value: String = (string, tag = "2") }
    Mount {
        container_path: String = (string, tag = "1"),
        host_path: String = (string, tag = "2"),
        readonly: bool = (bool, tag = "3"),
        selinux_relabel: bool = (bool, tag = "4"),
        propagation: i32 = (enumeration = "MountPropagation", tag = "5"),
        uid_mappings: Vec<IdMapping> = (message, repeated, tag = "6"),
        gid_mappings: Vec<IdMapping> = (message, repeated, tag = "7"),
        recursive_read_only: bool = (bool, tag = "8"),
    }
    Device {
        container_path: String = (string, tag = "1"),
        host_path: String = (string, tag = "2"),
        permissions: String = (string, tag = "3"),
    }
    ContainerConfig {
        metadata: Option<ContainerMetadata> = (message, optional, tag = "1"),
        image: Option<ImageSpec> = (message, optional, tag = "2"),
        command: Vec<String> = (string, repeated, tag = "3"),
        args: Vec<String> = (string, repeated, tag = "4"),
        working_dir: String = (string, tag = "5"),
        envs: Vec<KeyValue> = (message, repeated, tag = "6"),
        mounts: Vec<Mount> = (message, repeated, tag = "7"),
        devices: Vec<Device> = (message, repeated, tag = "8"),
        labels: Map = (map = "string, string", tag = "9"),
        annotations: Map = (map = "string, string", tag = "10"),
        log_path: String = (string, tag = "11"),
        stdin: bool = (bool, tag = "12"),
        stdin_once: bool = (bool, tag = "13"),
        tty: bool = (bool, tag = "14"),
        linux: Option<LinuxContainerConfig> = (message, optional, tag = "15"),
    }
    LinuxContainerConfig {
        resources: Option<LinuxContainerResources> = (message, optional, tag = "1"),
        security_context: Option<LinuxContainerSecurityContext> = (message, optional, tag = "2"),
    }
    LinuxContainerResources {
        cpu_period: i64 = (int64, tag = "1"),
        cpu_quota: i64 = (int64, tag = "2"),
        cpu_shares: i64 = (int64, tag = "3"),
        memory_limit_in_bytes: i64 = (int64, tag = "4"),
        oom_score_adj: i64 = (int64, tag = "5"),
        cpuset_cpus: String = (string, tag = "6"),
        cpuset_mems: String = (string, tag = "7"),
        unified: Map = (map = "string, string", tag = "9"),
        memory_swap_limit_in_bytes: i64 = (int64, tag = "10"),
    }
    LinuxContainerSecurityContext {
        capabilities: Option<Capability> = (message, optional, tag = "1"),
        privileged: bool = (bool, tag = "2"),
        namespace_options: Option<NamespaceOption> = (message, optional, tag = "3"),
        run_as_user: Option<Int64Value> = (message, optional, tag = "5"),
        run_as_username: String = (string, tag = "6"),
        readonly_rootfs: bool = (bool, tag = "7"),
        supplemental_groups: Vec<i64> = (int64, repeated, tag = "8"),
        no_new_privs: bool = (bool, tag = "11"),
        run_as_group: Option<Int64Value> = (message, optional, tag = "12"),
        masked_paths: Vec<String> = (string, repeated, tag = "13"),
        readonly_paths: Vec<String> = (string, repeated, tag = "14"),
        seccomp: Option<SecurityProfile> = (message, optional, tag = "15"),
    }
    Capability {
        add_capabilities: Vec<String> = (string, repeated, tag = "1"),
        drop_capabilities: Vec<String> = (string, repeated, tag = "2"),
        add_ambient_capabilities: Vec<String> = (string, repeated, tag = "3"),
    }
    CreateContainerRequest {
        pod_sandbox_id: String = (string, tag = "1"),
        config: Option<ContainerConfig> = (message, optional, tag = "2"),
        sandbox_config: Option<PodSandboxConfig> = (message, optional, tag = "3"),
    }
    StopContainerRequest {
        container_id: String = (string, tag = "1"),
        timeout: i64 = (int64, tag = "2"),
    }
    ListContainersRequest { filter: Option<ContainerFilter> = (message, optional, tag = "1") }
    ContainerFilter {
        id: String = (string, tag = "1"),
        state: Option<ContainerStateValue> = (message, optional, tag = "2"),
        pod_sandbox_id: String = (string, tag = "3"),
        label_selector: Map = (map = "string, string", tag = "4"),
    }
    ContainerStateValue { state: i32 = (enumeration = "ContainerState", tag = "1") }
    ListContainersResponse { containers: Vec<Container> = (message, repeated, tag = "1") }
    Container {
        id: String = (string, tag = "1"),
        pod_sandbox_id: String = (string, tag = "2"),
        metadata: Option<ContainerMetadata> = (message, optional, tag = "3"),
        image: Option<ImageSpec> = (message, optional, tag = "4"),
        image_ref: String = (string, tag = "5"),
        state: i32 = (enumeration = "ContainerState", tag = "6"),
        created_at: i64 = (int64, tag = "7"),
        labels: Map = (map = "string, string", tag = "8"),
        annotations: Map = (map = "string, string", tag = "9"),
    }
    ContainerStatusResponse {
        status: Option<ContainerStatus> = (message, optional, tag = "1"),
        info: Map = (map = "string, string", tag = "2"),
    }
    ContainerStatus {
        id: String = (string, tag = "1"),
        metadata: Option<ContainerMetadata> = (message, optional, tag = "2"),
        state: i32 = (enumeration = "ContainerState", tag = "3"),
        created_at: i64 = (int64, tag = "4"),
        started_at: i64 = (int64, tag = "5"),
        finished_at: i64 = (int64, tag = "6"),
        exit_code: i32 = (int32, tag = "7"),
        image: Option<ImageSpec> = (message, optional, tag = "8"),
        image_ref: String = (string, tag = "9"),
        reason: String = (string, tag = "10"),
        message: String = (string, tag = "11"),
        labels: Map = (map = "string, string", tag = "12"),
        annotations: Map = (map = "string, string", tag = "13"),
        mounts: Vec<Mount> = (message, repeated, tag = "14"),
        log_path: String = (string, tag = "15"),
    }
    ExecSyncRequest {
        container_id: String = (string, tag = "1"),
        cmd: Vec<String> = (string, repeated, tag = "2"),
        timeout: i64 = (int64, tag = "3"),
    }
    ExecSyncResponse {
        stdout: Vec<u8> = (bytes = "vec", tag = "1"),
        stderr: Vec<u8> = (bytes = "vec", tag = "2"),
        exit_code: i32 = (int32, tag = "3"),
    }
    ExecRequest {
        container_id: String = (string, tag = "1"),
        cmd: Vec<String> = (string, repeated, tag = "2"),
        tty: bool = (bool, tag = "3"),
        stdin: bool = (bool, tag = "4"),
        stdout: bool = (bool, tag = "5"),
        stderr: bool = (bool, tag = "6"),
    }
    AttachRequest {
        container_id: String = (string, tag = "1"),
        stdin: bool = (bool, tag = "2"),
        tty: bool = (bool, tag = "3"),
        stdout: bool = (bool, tag = "4"),
        stderr: bool = (bool, tag = "5"),
    }
    PortForwardRequest {
        pod_sandbox_id: String = (string, tag = "1"),
        port: Vec<i32> = (int32, repeated, packed = "true", tag = "2"),
    }
    /// ExecResponse, AttachResponse and PortForwardResponse.
    UrlResponse { url: String = (string, tag = "1") }
    ContainerEventResponse {
        container_id: String = (string, tag = "1"),
        container_event_type: i32 = (enumeration = "ContainerEventType", tag = "2"),
        created_at: i64 = (int64, tag = "3"),
        pod_sandbox_status: Option<PodSandboxStatus> = (message, optional, tag = "4"),
        containers_statuses: Vec<ContainerStatus> = (message, repeated, tag = "5"),
    }
    UpdateContainerResourcesRequest {
        container_id: String = (string, tag = "1"),
        linux: Option<LinuxContainerResources> = (message, optional, tag = "2"),
    }

    PullImageRequest { image: Option<ImageSpec> = (message, optional, tag = "1") }
    PullImageResponse { image_ref: String = (string, tag = "1") }
    ImageStatusRequest { image: Option<ImageSpec> = (message, optional, tag = "1") }
    ImageStatusResponse { image: Option<Image> = (message, optional, tag = "1") }
    Image { id: String = (string, tag = "1") }

    ContainerStatsResponse { stats: Option<ContainerStats> = (message, optional, tag = "1") }
    ListContainerStatsRequest { filter: Option<ContainerStatsFilter> = (message, optional, tag = "1") }
    ContainerStatsFilter {
        id: String = (string, tag = "1"),
        pod_sandbox_id: String = (string, tag = "2"),
        label_selector: Map = (map = "string, string", tag = "3"),
    }
    ListContainerStatsResponse { stats: Vec<ContainerStats> = (message, repeated, tag = "1") }
    ContainerStats {
        attributes: Option<ContainerAttributes> = (message, optional, tag = "1"),
        cpu: Option<CpuUsage> = (message, optional, tag = "2"),
        memory: Option<MemoryUsage> = (message, optional, tag = "3"),
        writable_layer: Option<FilesystemUsage> = (message, optional, tag = "4"),
    }
    ContainerAttributes {
        id: String = (string, tag = "1"),
        metadata: Option<ContainerMetadata> = (message, optional, tag = "2"),
        labels: Map = (map = "string, string", tag = "3"),
        annotations: Map = (map = "string, string", tag = "4"),
    }
    PodSandboxStatsRequest { pod_sandbox_id: String = (string, tag = "1") }
    PodSandboxStatsResponse { stats: Option<PodSandboxStats> = (message, optional, tag = "1") }
    ListPodSandboxStatsRequest {
        filter: Option<PodSandboxStatsFilter> = (message, optional, tag = "1"),
    }
    PodSandboxStatsFilter {
        id: String = (string, tag = "1"),
        label_selector: Map = (map = "string, string", tag = "2"),
    }
    ListPodSandboxStatsResponse { stats: Vec<PodSandboxStats> = (message, repeated, tag = "1") }
    PodSandboxStats {
        attributes: Option<PodSandboxAttributes> = (message, optional, tag = "1"),
        linux: Option<LinuxPodSandboxStats> = (message, optional, tag = "2"),
    }
    PodSandboxAttributes { id: String = (string, tag = "1") }
    LinuxPodSandboxStats {
        cpu: Option<CpuUsage> = (message, optional, tag = "1"),
        memory: Option<MemoryUsage> = (message, optional, tag = "2"),
        network: Option<NetworkUsage> = (message, optional, tag = "3"),
        process: Option<ProcessUsage> = (message, optional, tag = "4"),
        containers: Vec<ContainerStats> = (message, repeated, tag = "5"),
    }
    NetworkUsage {
        timestamp: i64 = (int64, tag = "1"),
        default_interface: Option<NetworkInterfaceUsage> = (message, optional, tag = "2"),
    }
    NetworkInterfaceUsage {
        name: String = (string, tag = "1"),
        rx_bytes: Option<UInt64Value> = (message, optional, tag = "2"),
        tx_bytes: Option<UInt64Value> = (message, optional, tag = "4"),
    }
    ProcessUsage {
        timestamp: i64 = (int64, tag = "1"),
        process_count: Option<UInt64Value> = (message, optional, tag = "2"),
    }
    CpuUsage {
        timestamp: i64 = (int64, tag = "1"),
        usage_core_nano_seconds: Option<UInt64Value> = (message, optional, tag = "2"),
        usage_nano_cores: Option<UInt64Value> = (message, optional, tag = "3"),
    }
    MemoryUsage {
        timestamp: i64 = (int64, tag = "1"),
        working_set_bytes: Option<UInt64Value> = (message, optional, tag = "2"),
        available_bytes: Option<UInt64Value> = (message, optional, tag = "3"),
        usage_bytes: Option<UInt64Value> = (message, optional, tag = "4"),
        rss_bytes: Option<UInt64Value> = (message, optional, tag = "5"),
        page_faults: Option<UInt64Value> = (message, optional, tag = "6"),
        major_page_faults: Option<UInt64Value> = (message, optional, tag = "7"),
    }
    FilesystemUsage {
        timestamp: i64 = (int64, tag = "1"),
        used_bytes: Option<UInt64Value> = (message, optional, tag = "3"),
        inodes_used: Option<UInt64Value> = (message, optional, tag = "4"),
    }
}

/// With whom a namespace is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    Pod = 0,
    Container = 1,
    Node = 2,
    Target = 3,
}

/// Where a seccomp or AppArmor profile comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ProfileType {
    RuntimeDefault = 0,
    Unconfined = 1,
    Localhost = 2,
}

/// How mounts travel between host and container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum MountPropagation {
    Private = 0,
    HostToContainer = 1,
    Bidirectional = 2,
}

/// Whether a pod can take containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    Ready = 0,
    NotReady = 1,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerState {
    Created = 0,
    Running = 1,
    Exited = 2,
    Unknown = 3,
}

/// What happened to a container or sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum ContainerEventType {
    Created = 0,
    Started = 1,
    Stopped = 2,
    Deleted = 3,
}

impl IdMessage {
    /// A message for this id.
    #[must_use]
    pub fn of(id: &str) -> Self {
        Self { id: id.to_owned() }
    }
}
