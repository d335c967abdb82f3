//! containerd-shim-boathook-v2: the shim binary.
fn main() {}
