//! In which way a daemon speaks to `start`, and the answer in the same way.
//!
//! containerd up to 2.2 puts the runtime options on stdin as an `Any` (or
//! nothing) and reads a line with the address; from 2.3 on it puts
//! `BootstrapParams` there and reads a `BootstrapResult`. Nothing says which
//! one it is, and each decodes as the other: an `Any`'s type URL lands in the
//! instance id. So a `BootstrapParams` counts as one only when the id and the
//! namespace in it are those of the command line.

use std::path::PathBuf;

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::args::Flags;
use crate::failure::{Failure, Result};
use crate::options::Options;

/// The task service announced. Version 3 would make containerd 2.x skip
/// `start` and `delete` for the other containers of a pod, and with `delete`
/// the only clean-up they have when this process is killed.
const TASK_VERSION: i32 = 2;

/// What stdin of `start` said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Answer with a `BootstrapResult` instead of a line.
    pub bootstrap: bool,
    /// Runtime options, if any were given.
    pub options: Options,
    /// The daemon's ttrpc socket, where it is given here.
    pub ttrpc_address: Option<String>,
    /// Directory the socket must be in, where it is given here.
    pub socket_dir: Option<PathBuf>,
    /// The daemon wants debug lines.
    pub debug: bool,
}

impl Request {
    /// Reads `stdin` in the dialect it is written in.
    ///
    /// # Errors
    /// Bytes that are neither of the two messages, and options this shim
    /// does not accept.
    pub fn parse(stdin: &[u8], flags: &Flags) -> Result<Self> {
        if stdin.is_empty() {
            return Ok(Self::default());
        }
        if let Some(params) = bootstrap_params(stdin, flags) {
            return Self::from_params(params);
        }
        let any = Any::parse_from_bytes(stdin).map_err(|e| {
            Failure::invalid(format!("stdin: neither BootstrapParams nor runtime options: {e}"))
        })?;
        let options = Options::from_any(&any).map_err(|e| e.context("stdin"))?.unwrap_or_default();
        Ok(Self { options, ..Self::default() })
    }

    fn from_params(params: BootstrapParams) -> Result<Self> {
        const DEBUG: i32 = -4;
        let mut request = Self {
            bootstrap: true,
            debug: params.log_level.value() <= DEBUG,
            ttrpc_address: Some(params.containerd_ttrpc_address).filter(|a| !a.is_empty()),
            socket_dir: params.socket_dir.filter(|d| !d.is_empty()).map(PathBuf::from),
            ..Self::default()
        };
        for extension in &params.extensions {
            // An extension is open to any message; only a runtime's options
            // are ours to read.
            if extension.value.type_url.ends_with(".Options")
                && let Some(options) = Options::from_any(&extension.value)?
            {
                request.options = options;
            }
        }
        Ok(request)
    }

    /// The reply that names `address`, in the dialect of the request.
    ///
    /// # Errors
    /// Never in practice: encoding into memory.
    pub fn reply(&self, address: &str) -> Result<Vec<u8>> {
        if !self.bootstrap {
            return Ok(address.as_bytes().to_vec());
        }
        let result = BootstrapResult {
            version: TASK_VERSION,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            ..BootstrapResult::default()
        };
        result.write_to_bytes().map_err(|e| Failure::invalid(format!("bootstrap result: {e}")))
    }
}

fn bootstrap_params(stdin: &[u8], flags: &Flags) -> Option<BootstrapParams> {
    BootstrapParams::parse_from_bytes(stdin)
        .ok()
        .filter(|p| p.instance_id == flags.id && p.namespace == flags.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::bootstrap_api::Extension;
    use containerd_shim_protos::shim::oci::Options as RuncOptions;

    fn flags() -> Flags {
        Flags { id: "abc".into(), namespace: "ns".into(), ..Flags::default() }
    }

    fn runc_any() -> Any {
        let options = RuncOptions { systemd_cgroup: true, ..RuncOptions::default() };
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Any::default()
        }
    }

    fn params(id: &str) -> Vec<u8> {
        let params = BootstrapParams {
            instance_id: id.into(),
            namespace: "ns".into(),
            containerd_ttrpc_address: "/run/c.ttrpc".into(),
            extensions: vec![Extension { value: Some(runc_any()).into(), ..Extension::default() }],
            ..BootstrapParams::default()
        };
        params.write_to_bytes().unwrap()
    }

    #[test]
    fn nothing_and_an_any_are_the_old_dialect() {
        assert_eq!(Request::parse(b"", &flags()).unwrap(), Request::default());
        let request = Request::parse(&runc_any().write_to_bytes().unwrap(), &flags()).unwrap();
        assert!(!request.bootstrap && request.options.systemd_cgroup);
        assert_eq!(request.reply("unix:///s").unwrap(), b"unix:///s");
    }

    #[test]
    fn params_of_this_container_are_the_new_dialect() {
        let request = Request::parse(&params("abc"), &flags()).unwrap();
        assert!(request.bootstrap && request.options.systemd_cgroup);
        assert_eq!(request.ttrpc_address.as_deref(), Some("/run/c.ttrpc"));
        let reply =
            BootstrapResult::parse_from_bytes(&request.reply("unix:///s").unwrap()).unwrap();
        assert_eq!((reply.version, reply.address.as_str()), (2, "unix:///s"));
        assert_eq!(reply.protocol, "ttrpc");
    }

    #[test]
    fn params_of_another_container_and_garbage_are_refused() {
        assert!(Request::parse(&params("other"), &flags()).is_err());
        for garbage in [&b"\xff\xff\xff\xff"[..], b"hello, world", b"{\"version\":2}"] {
            let error = Request::parse(garbage, &flags()).unwrap_err().to_string();
            assert!(error.contains("stdin"), "{error}");
        }
    }
}
