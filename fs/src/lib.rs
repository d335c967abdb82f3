//! Mount flags, mounts by file descriptor, overlay plans and safe paths.
