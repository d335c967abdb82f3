//! `containerd.services.diff.v1.Diff`: Apply is done here, Diff is left to others.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boathook_fs::ErrorKind;
use boathook_fs::layer::Report;
use boathook_image::{Differ, MountText, Refusal, Request};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Response, Status};
use tonic_prost::ProstCodec;

use super::log;
use super::messages::{ApplyRequest, ApplyResponse, Descriptor, Unread};

/// The type that containerd's own differ says its result has.
const APPLIED: &str = "application/vnd.oci.image.layer.v1.tar";

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves the calls of a connection.
#[derive(Debug, Clone)]
pub(super) struct Service {
    differ: Arc<Differ>,
}

impl Service {
    pub(super) fn new(differ: Arc<Differ>) -> Self {
        Self { differ }
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let differ = Arc::clone(&self.differ);
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/containerd.services.diff.v1.Diff/Apply" => {
                    let mut grpc = Grpc::new(ProstCodec::<ApplyResponse, ApplyRequest>::default());
                    grpc.unary(Apply(differ), request).await
                }
                // Of any other call nothing is known, Diff included: "not implemented" is the
                // answer that has containerd ask its own differ.
                other => {
                    let status = Status::unimplemented(format!("boathook: no {other} here"));
                    let mut grpc = Grpc::new(ProstCodec::<Unread, Unread>::default());
                    grpc.unary(Refuse(status), request).await
                }
            })
        })
    }
}

struct Refuse(Status);

impl UnaryService<Unread> for Refuse {
    type Response = Unread;
    type Future = Answer<Result<Response<Unread>, Status>>;

    fn call(&mut self, _: tonic::Request<Unread>) -> Self::Future {
        let status = self.0.clone();
        Box::pin(async move { Err(status) })
    }
}

struct Apply(Arc<Differ>);

impl UnaryService<ApplyRequest> for Apply {
    type Response = ApplyResponse;
    type Future = Answer<Result<Response<ApplyResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<ApplyRequest>) -> Self::Future {
        let differ = Arc::clone(&self.0);
        Box::pin(async move {
            let request = checked(request.into_inner())?;
            // When the caller is gone, this future is dropped and the layer is not needed.
            let caller = Caller::default();
            let stop = Arc::clone(&caller.gone);
            let work = tokio::task::spawn_blocking(move || {
                let result = differ.apply(&request, &stop);
                told(&request, &result);
                result
            });
            let result = work.await.map_err(|e| Status::internal(e.to_string()))?;
            drop(caller);
            let found = result.map_err(|refusal| status(&refusal))?.found;
            let applied = Descriptor {
                media_type: APPLIED.to_owned(),
                digest: found.diff_id.to_string(),
                size: i64::try_from(found.diff_size).unwrap_or(i64::MAX),
            };
            Ok(Response::new(ApplyResponse { applied: Some(applied) }))
        })
    }
}

#[derive(Default)]
struct Caller {
    gone: Arc<AtomicBool>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

fn checked(request: ApplyRequest) -> Result<Request, Status> {
    let missing = || Status::invalid_argument("boathook: diff: missing");
    let Descriptor { media_type, digest, size } = request.diff.ok_or_else(missing)?;
    let size = u64::try_from(size)
        .map_err(|_| Status::invalid_argument(format!("boathook: diff.size: {size}")))?;
    let mounts = request.mounts.into_iter().map(|mount| MountText {
        kind: mount.r#type,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    });
    Ok(Request { digest, media_type, size, mounts: mounts.collect(), sync: request.sync_fs })
}

fn told(request: &Request, result: &Result<Report, Refusal>) {
    let digest = &request.digest;
    match result {
        Ok(report) => {
            let left_out = report.warnings.count;
            log(&format!("{digest}: applied, {} entries, {left_out} warnings", report.entries));
            for warning in &report.warnings.texts {
                log(&format!("{digest}: {warning}"));
            }
        }
        Err(Refusal::NotOurs(why)) => log(&format!("{digest}: not done here: {why}")),
        Err(Refusal::Failed(error)) => log(&format!("{digest}: {error}")),
    }
}

/// containerd goes on to its next differ after "not implemented" and after nothing else.
fn status(refusal: &Refusal) -> Status {
    let (code, text) = match refusal {
        Refusal::NotOurs(why) => (Code::Unimplemented, why.clone()),
        Refusal::Failed(error) => (code(error.kind()), error.to_string()),
    };
    Status::new(code, format!("boathook: {text}"))
}

/// "Not implemented" is said of a directory that is empty again, so another differ may have it.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Io => Code::Internal,
    }
}
