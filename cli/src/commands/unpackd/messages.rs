//! The messages of containerd's `api/services/diff/v1/diff.proto` and of the types it uses, by
//! their field numbers. Fields that nobody here reads are left out, and skipped on the wire.

/// A layer to apply to a snapshot.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ApplyRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) diff: Option<Descriptor>,
    #[prost(message, repeated, tag = "2")]
    pub(super) mounts: Vec<Mount>,
    // 3 is input of stream processors, which CRI sends with every layer; what they are for has
    // media types of its own, which are refused.
    #[prost(bool, tag = "4")]
    pub(super) sync_fs: bool,
}

/// What the layer came to.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ApplyResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) applied: Option<Descriptor>,
}

/// `containerd.types.Descriptor`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Descriptor {
    #[prost(string, tag = "1")]
    pub(super) media_type: String,
    #[prost(string, tag = "2")]
    pub(super) digest: String,
    #[prost(int64, tag = "3")]
    pub(super) size: i64,
}

/// `containerd.types.Mount`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Mount {
    #[prost(string, tag = "1")]
    pub(super) r#type: String,
    #[prost(string, tag = "2")]
    pub(super) source: String,
    #[prost(string, tag = "3")]
    pub(super) target: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) options: Vec<String>,
}

/// A request of which nothing is read.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Unread {}
