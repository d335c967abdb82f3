//! The stop signal of a container's image, as the daemon knows it. It stands
//! neither in `config.json` nor in any call to a shim, but in the daemon's
//! record of the container:
//!
//! | written by | where | what |
//! |---|---|---|
//! | CRI | extension `io.cri-containerd.container.metadata`, JSON | `Config.stop_signal`, else `StopSignal`, as its StopContainer has it (containerd, internal/cri/server/container_stop.go) |
//! | `ctr`, nerdctl | label `io.containerd.image.config.stop-signal` | the name (containerd, client/signals.go) |
//!
//! A record that names none means SIGTERM to both.

use std::time::Duration;

use boathook_hooks::signal;
use protobuf::CodedInputStream;
use protobuf::rt::WireType;
use serde::Deserialize;

use crate::failure::{Failure, Result};
use crate::grpc::Call;

const METHOD: &str = "/containerd.services.containers.v1.Containers/Get";
const METADATA: &str = "io.cri-containerd.container.metadata";
const LABEL: &str = "io.containerd.image.config.stop-signal";
/// The daemon waits for Create meanwhile; it answers this in a millisecond.
const LIMIT: Duration = Duration::from_secs(5);

/// Fields of containerd's messages (api/services/containers/v1/containers.proto).
mod field {
    /// `GetContainerRequest.id`
    pub(super) const ID: u32 = 1;
    /// `GetContainerResponse.container`
    pub(super) const CONTAINER: u32 = 1;
    pub(super) const LABELS: u32 = 2;
    pub(super) const EXTENSIONS: u32 = 10;
    /// `google.protobuf.Any.value`
    pub(super) const ANY_VALUE: u32 = 2;
}

/// A question that was put to the daemon.
#[derive(Debug)]
pub(crate) struct Question(Call);

impl Question {
    /// Asks the daemon at `address` for its record of a container.
    ///
    /// # Errors
    /// There is no daemon.
    pub(crate) fn ask(address: &str, namespace: &str, id: &str) -> Result<Self> {
        let mut request = Vec::new();
        let mut out = protobuf::CodedOutputStream::vec(&mut request);
        let written = out.write_string(field::ID, id).and_then(|()| out.flush());
        written.map_err(|e| Failure::invalid(format!("encode a request: {e}")))?;
        drop(out);
        Call::send(address, namespace, METHOD, &request, LIMIT).map(Self)
    }

    /// Waits for the answer: the number of the container's stop signal.
    ///
    /// # Errors
    /// The daemon does not answer, or what it says is no signal.
    pub(crate) fn answer(self) -> Result<i32> {
        of_record(&self.0.answer()?)
    }
}

/// What CRI writes down, as far as it matters here.
#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "Metadata")]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "Config")]
    config: Option<Config>,
    #[serde(rename = "StopSignal", default)]
    stop_signal: String,
}

#[derive(Deserialize)]
struct Config {
    /// Of the CRI's own numbering; 0 is the image's.
    #[serde(default)]
    stop_signal: i32,
}

/// The stop signal in a `GetContainerResponse`.
fn of_record(answer: &[u8]) -> Result<i32> {
    let container = parts(answer, field::CONTAINER)?;
    let container = container.first().copied().unwrap_or_default();
    if let Some(any) = entry(container, field::EXTENSIONS, METADATA)? {
        let json = parts(any, field::ANY_VALUE)?.first().copied().unwrap_or_default();
        let wrong = |e| Failure::invalid(format!("{METADATA}: {e}"));
        let Versioned { metadata } = serde_json::from_slice(json).map_err(wrong)?;
        return match metadata.config.map_or(0, |config| config.stop_signal) {
            0 => number(&metadata.stop_signal),
            code => signal::of_cri(code)
                .ok_or_else(|| Failure::invalid(format!("{METADATA}: stop_signal: {code}"))),
        };
    }
    let label = entry(container, field::LABELS, LABEL)?.unwrap_or_default();
    number(&String::from_utf8_lossy(label))
}

fn number(name: &str) -> Result<i32> {
    match name {
        "" => Ok(signal::TERM),
        name => signal::number(name)
            .ok_or_else(|| Failure::invalid(format!("the image's stop signal {name:?}"))),
    }
}

/// The value of a key in a map of strings or messages.
fn entry<'a>(message: &'a [u8], map: u32, key: &str) -> Result<Option<&'a [u8]>> {
    for entry in parts(message, map)? {
        if parts(entry, 1)?.first().is_some_and(|found| *found == key.as_bytes()) {
            return Ok(Some(parts(entry, 2)?.first().copied().unwrap_or_default()));
        }
    }
    Ok(None)
}

/// The contents of a field of strings, bytes or messages, as often as it is there.
fn parts(message: &[u8], wanted: u32) -> Result<Vec<&[u8]>> {
    let wrong = |e: protobuf::Error| Failure::invalid(format!("a container's record: {e}"));
    let mut found = Vec::new();
    let mut input = CodedInputStream::from_bytes(message);
    while let Some(tag) = input.read_raw_tag_or_eof().map_err(wrong)? {
        if tag != wanted << 3 | WireType::LengthDelimited as u32 {
            protobuf::rt::skip_field_for_tag(tag, &mut input).map_err(wrong)?;
            continue;
        }
        let length = input.read_raw_varint32().map_err(wrong)?;
        let from = usize::try_from(input.pos()).unwrap_or(usize::MAX);
        let whole = message.get(from..).and_then(|rest| rest.get(..length as usize));
        found.push(whole.ok_or_else(|| Failure::invalid("a container's record that is cut off"))?);
        input.skip_raw_bytes(length).map_err(wrong)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths take two bytes here, which is more than most need and allowed.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let [low, high] = u16::try_from(content.len() << 1).unwrap().to_le_bytes();
        [&[number << 3 | 2, low >> 1 | 0x80, high], content].concat()
    }

    fn pair(key: &str, value: &[u8]) -> Vec<u8> {
        [field(1, key.as_bytes()), field(2, value)].concat()
    }

    /// A record with a label and, perhaps, what CRI has written down.
    fn record(label: &str, metadata: Option<&str>) -> Vec<u8> {
        let mut container = field(1, b"id");
        container.extend(field(2, &pair("a", b"b")));
        if !label.is_empty() {
            container.extend(field(2, &pair(LABEL, label.as_bytes())));
        }
        // A time, as a message that nobody asks for, and a number.
        container.extend([0x42, 2, 8, 1, 0x58, 7]);
        if let Some(json) = metadata {
            let any = [field(1, b"type"), field(2, json.as_bytes())].concat();
            container.extend(field(10, &pair(METADATA, &any)));
        }
        field(1, &container)
    }

    #[test]
    fn the_signal_of_either_client() {
        let cri = |rest: &str| format!(r#"{{"Version":"v1","Metadata":{{{rest}}}}}"#);
        for (label, metadata, expected) in [
            ("", None, 15),
            ("SIGQUIT", None, 3),
            ("", Some(cri("")), 15),
            ("", Some(cri(r#""StopSignal":"SIGUSR1""#)), 10),
            ("", Some(cri(r#""Config":{},"StopSignal":"37""#)), 37),
            ("", Some(cri(r#""Config":{"stop_signal":8},"StopSignal":"3""#)), 1),
        ] {
            let found = of_record(&record(label, metadata.as_deref()));
            assert_eq!(found, Ok(expected), "{label:?} {metadata:?}");
        }
        // CRI does not look at the label.
        let both = record("SIGQUIT", Some(r#"{"Metadata":{}}"#));
        assert_eq!(of_record(&both), Ok(15));
    }

    #[test]
    fn what_is_no_signal_is_an_error() {
        for (answer, part) in [
            (record("SIGNOPE", None), "SIGNOPE"),
            (record("", Some("{")), METADATA),
            (record("", Some(r#"{"Metadata":{"Config":{"stop_signal":66}}}"#)), "66"),
            (vec![0x0a, 9, 1], "record"),
            (vec![0x0a, 3, 0x12, 9, 1], "record"),
        ] {
            let error = of_record(&answer).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
