//! Where hooks come from: annotations of `config.json`.
//!
//! | annotation | what |
//! |---|---|
//! | `post-start.boathook.dev/<container>` | a handler, run when the container's program runs |
//! | `pre-stop.boathook.dev/<container>` | a handler, run before the stop signal |
//! | `stop.boathook.dev/<container>` | `{"gracePeriodSeconds": n, "signal": "SIGTERM"}`, both optional |
//! | `post-start-order.boathook.dev/<container>` | `before-entrypoint`: before the program is executed |
//!
//! `<container>` is the container's name in its pod; outside of pods it is the
//! container's id or `self`. Where there are none and the configuration says
//! `lifecycle = "backstop"`, the kubelet's own annotations count.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Lifecycle};
use crate::handler::{ContainerPort, Handler};
use crate::{Error, Result, signal};

/// The grace period of a pod that names none (pkg/apis/core/v1/defaults.go).
pub const DEFAULT_GRACE: u64 = 30;

const DOMAIN: &str = ".boathook.dev/";
const BEFORE_ENTRYPOINT: &str = "before-entrypoint";
/// CRI-O writes the image's STOPSIGNAL here, and so may others.
const IMAGE_SIGNAL: &str = "org.opencontainers.image.stopSignal";
const CRI_TYPE: &str = "io.kubernetes.cri.container-type";
const CRI_NAME: &str = "io.kubernetes.cri.container-name";
const KUBELET_PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
const KUBELET_PORTS: &str = "io.kubernetes.container.ports";
const KUBELET_GRACE: [&str; 2] =
    ["io.kubernetes.pod.deletionGracePeriod", "io.kubernetes.pod.terminationGracePeriod"];

/// When the postStart hook runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Right after the program was executed; neither waits for the other.
    #[default]
    AfterStart,
    /// Before the program is executed, which waits for the hook's success.
    BeforeEntrypoint,
}

/// Who wrote the hooks down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Annotations of boathook.dev.
    #[default]
    Annotations,
    /// The kubelet's annotations.
    Kubelet,
}

/// What is to happen in the life of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Run at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_start: Option<Handler>,
    /// When exactly.
    #[serde(default)]
    pub order: Order,
    /// Run before the stop signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<Handler>,
    /// Seconds from the stop signal to the end.
    pub grace: u64,
    /// The signal that starts a stop, and that the program gets. None: no
    /// annotation says, so it is the image's, which the daemon knows
    /// ([`settle_signal`](Self::settle_signal)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Who wrote it down.
    pub origin: Origin,
    /// The container's ports, for names of ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// The container's name in its pod, or its id.
    pub container: String,
    /// `<name>_<namespace>(<uid>)`, empty outside of pods.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
}

impl Policy {
    /// Reads the annotations of the container `id`. `config` is asked only for
    /// a container that has annotations of the kubelet and none of ours.
    ///
    /// # Errors
    /// An annotation for this container that cannot be used, by name, or the
    /// configuration file.
    pub fn read(
        id: &str,
        annotations: &HashMap<String, String>,
        config: impl FnOnce() -> Result<Config>,
    ) -> Result<Option<Self>> {
        let Some(names) = Names::of(id, annotations) else { return Ok(None) };
        if let Some(own) = Own::of(&names, annotations)? {
            return own.policy(&names, annotations).map(Some);
        }
        let mut kubelet = std::iter::once(&KUBELET_PRE_STOP).chain(&KUBELET_GRACE);
        if !kubelet.any(|key| annotations.contains_key(*key)) {
            return Ok(None);
        }
        match config()?.lifecycle {
            Lifecycle::Annotations => Ok(None),
            Lifecycle::Backstop => backstop(&names, annotations).map(Some),
        }
    }

    /// The grace period that counts: as the kubelet has it for a pod's end, at
    /// least a second, so that a hook gets one even where none was meant
    /// (pkg/kubelet/pod_workers.go, calculateEffectiveGracePeriod).
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.max(1))
    }

    /// Fills in the stop signal where no annotation says: `told` by the
    /// daemon, which may not have answered. Then it is SIGTERM, except in pods:
    /// CRI will send the right one, whichever that is.
    pub fn settle_signal(&mut self, told: Option<i32>) {
        let unknown = || self.pod.is_empty().then_some(signal::TERM);
        self.signal = self.signal.or(told).or_else(unknown);
    }

    /// Whether this signal is one that starts a stop: the stop signal, or as
    /// long as that is not known any that can be one ([`signal::may_stop`]).
    pub fn stops(&self, number: i32) -> bool {
        match self.signal {
            Some(stop) => number == stop && number != signal::KILL,
            None => signal::may_stop(number),
        }
    }
}

/// What the container is called.
struct Names<'a> {
    /// Under these an annotation is meant for it.
    own: Vec<&'a str>,
}

impl<'a> Names<'a> {
    /// None for the sandbox of a pod, which has no hooks.
    fn of(id: &'a str, annotations: &'a HashMap<String, String>) -> Option<Self> {
        match annotations.get(CRI_TYPE).map(String::as_str) {
            Some("sandbox") => None,
            Some(_) => {
                let name = annotations.get(CRI_NAME)?;
                Some(Self { own: vec![name] })
            }
            None => Some(Self { own: vec![id, "self"] }),
        }
    }

    fn container(&self) -> String {
        self.own.first().copied().unwrap_or_default().to_owned()
    }
}

/// The annotations of boathook.dev for one container, as they stand there.
#[derive(Default)]
struct Own<'a> {
    post_start: Option<(&'a str, &'a str)>,
    pre_stop: Option<(&'a str, &'a str)>,
    stop: Option<(&'a str, &'a str)>,
    order: Option<(&'a str, &'a str)>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Stop {
    grace_period_seconds: Option<i64>,
    signal: Option<String>,
}

impl<'a> Own<'a> {
    fn of(names: &Names<'_>, annotations: &'a HashMap<String, String>) -> Result<Option<Self>> {
        let mut own = Self::default();
        let mut any = false;
        for (key, value) in annotations {
            let Some((what, whose)) = key.split_once(DOMAIN) else { continue };
            if !names.own.contains(&whose) {
                continue;
            }
            any = true;
            let slot = match what {
                "post-start" => &mut own.post_start,
                "pre-stop" => &mut own.pre_stop,
                "stop" => &mut own.stop,
                "post-start-order" => &mut own.order,
                _ => {
                    let known = "post-start, post-start-order, pre-stop and stop";
                    let problem = format!("nobody knows this name, only {known}");
                    return Err(Error::annotation(key, problem));
                }
            };
            if let Some((other, _)) = slot.replace((key, value)) {
                let problem = format!("the same is said by {other:?}");
                return Err(Error::annotation(key, problem));
            }
        }
        Ok(any.then_some(own))
    }

    fn policy(self, names: &Names<'_>, annotations: &HashMap<String, String>) -> Result<Policy> {
        let (grace, signal) = match self.stop {
            Some((key, value)) => stop(value).map_err(|e| Error::annotation(key, e))?,
            None => (DEFAULT_GRACE, None),
        };
        let handler = |given: Option<(&str, &str)>| {
            let parse =
                |(key, value)| Handler::parse(value, grace).map_err(|e| Error::annotation(key, e));
            given.map(parse).transpose()
        };
        let order = match self.order {
            None => Order::AfterStart,
            Some((key, _)) if self.post_start.is_none() => {
                return Err(Error::annotation(key, "there is no post-start hook to be ordered"));
            }
            Some((_, BEFORE_ENTRYPOINT)) => Order::BeforeEntrypoint,
            Some((key, other)) => {
                let problem = format!(
                    "Unsupported value: {other:?}: supported values: {BEFORE_ENTRYPOINT:?}"
                );
                return Err(Error::annotation(key, problem));
            }
        };
        Ok(Policy {
            post_start: handler(self.post_start)?,
            order,
            pre_stop: handler(self.pre_stop)?,
            grace,
            signal: signal_of(signal, annotations)?,
            origin: Origin::Annotations,
            ports: ports(annotations)?,
            container: names.container(),
            pod: pod(annotations),
        })
    }
}

/// Grace and signal of a stop annotation.
fn stop(json: &str) -> Result<(u64, Option<i32>), String> {
    if !json.trim_start().starts_with('{') {
        return Err("Invalid value: must be an object".to_owned());
    }
    let stop: Stop = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let grace = match stop.grace_period_seconds {
        None => DEFAULT_GRACE,
        Some(seconds) => u64::try_from(seconds).map_err(|_| {
            format!(
                "gracePeriodSeconds: Invalid value: {seconds}: must be greater than or equal to 0"
            )
        })?,
    };
    let number = stop.signal.map(|name| {
        let number = signal::number(&name);
        number.ok_or_else(|| format!("signal: Invalid value: {name:?}: is not a signal"))
    });
    Ok((grace, number.transpose()?))
}

/// The stop signal: what our annotation says, else what one of the image's says.
fn signal_of(given: Option<i32>, annotations: &HashMap<String, String>) -> Result<Option<i32>> {
    if given.is_some() {
        return Ok(given);
    }
    match annotations.get(IMAGE_SIGNAL).filter(|name| !name.is_empty()) {
        Some(name) => match signal::number(name) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::annotation(IMAGE_SIGNAL, format!("{name:?} is not a signal"))),
        },
        None => Ok(None),
    }
}

fn ports(annotations: &HashMap<String, String>) -> Result<Vec<ContainerPort>> {
    let Some(json) = annotations.get(KUBELET_PORTS) else { return Ok(Vec::new()) };
    serde_json::from_str(json).map_err(|e| Error::annotation(KUBELET_PORTS, e.to_string()))
}

/// pkg/kubelet/util/format/pod.go.
fn pod(annotations: &HashMap<String, String>) -> String {
    let get = |key: &str| annotations.get(&format!("io.kubernetes.cri.sandbox-{key}"));
    match get("name") {
        Some(name) => {
            let or_empty = |key| get(key).map(String::as_str).unwrap_or_default();
            format!("{name}_{}({})", or_empty("namespace"), or_empty("uid"))
        }
        None => String::new(),
    }
}

/// What the kubelet wrote down for the case that it has to stop a container
/// that it knows nothing of any more (pkg/kubelet/kuberuntime/labels.go).
fn backstop(names: &Names<'_>, annotations: &HashMap<String, String>) -> Result<Policy> {
    let mut grace = DEFAULT_GRACE;
    // The first one wins, so it is read last.
    for key in KUBELET_GRACE.iter().rev() {
        if let Some(text) = annotations.get(*key) {
            let problem = || Error::annotation(key, format!("{text:?} is not a number of seconds"));
            let seconds: i64 = text.parse().map_err(|_| problem())?;
            // pod_workers.go takes what is below zero for one.
            grace = u64::try_from(seconds).unwrap_or(1);
        }
    }
    let pre_stop = annotations.get(KUBELET_PRE_STOP).map(|json| {
        // The API has checked a sleep against the pod's own grace period.
        Handler::parse(json, u64::MAX).map_err(|e| Error::annotation(KUBELET_PRE_STOP, e))
    });
    Ok(Policy {
        post_start: None,
        order: Order::AfterStart,
        pre_stop: pre_stop.transpose()?,
        grace,
        signal: signal_of(None, annotations)?,
        origin: Origin::Kubelet,
        ports: ports(annotations)?,
        container: names.container(),
        pod: pod(annotations),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLEEP: &str = r#"{"sleep":{"seconds":1}}"#;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Policy>> {
        Policy::read("c1", &map(pairs), || panic!("the configuration was asked for"))
    }

    fn read_with(lifecycle: Lifecycle, pairs: &[(&str, &str)]) -> Option<Policy> {
        Policy::read("c1", &map(pairs), || Ok(Config { lifecycle })).unwrap()
    }

    #[test]
    fn no_annotation_means_no_policy_and_no_question() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("pre-stop.boathook.dev/other", SLEEP)]), Ok(None));
        assert_eq!(
            read(&[("boathook.dev/c1", "x"), ("io.kubernetes.cri.sandbox-id", "y")]),
            Ok(None)
        );
        let sandbox = (CRI_TYPE, "sandbox");
        assert_eq!(read(&[sandbox, ("pre-stop.boathook.dev/self", "{")]), Ok(None));
    }

    #[test]
    fn a_bare_container_is_its_id_or_self() {
        for key in ["pre-stop.boathook.dev/c1", "pre-stop.boathook.dev/self"] {
            let mut policy = read(&[(key, SLEEP)]).unwrap().unwrap();
            assert_eq!((policy.grace, policy.signal), (30, None), "{key}");
            assert!(policy.pre_stop.is_some());
            // The daemon did not say.
            policy.settle_signal(None);
            assert!(policy.stops(15) && !policy.stops(1) && !policy.stops(9));
        }
        let both = [("pre-stop.boathook.dev/c1", SLEEP), ("pre-stop.boathook.dev/self", SLEEP)];
        assert!(read(&both).unwrap_err().to_string().contains("the same is said by"));
    }

    #[test]
    fn in_a_pod_only_the_name_counts() {
        let pod = [
            (CRI_TYPE, "container"),
            (CRI_NAME, "web"),
            ("io.kubernetes.cri.sandbox-name", "p"),
            ("io.kubernetes.cri.sandbox-namespace", "ns"),
            ("io.kubernetes.cri.sandbox-uid", "u-1"),
        ];
        let with = |key| read(&[&pod[..], &[(key, SLEEP)]].concat()).unwrap();
        assert_eq!(with("post-start.boathook.dev/self"), None);
        assert_eq!(with("post-start.boathook.dev/c1"), None);
        let mut policy = with("post-start.boathook.dev/web").unwrap();
        assert_eq!((policy.container.as_str(), policy.pod.as_str()), ("web", "p_ns(u-1)"));
        // As long as it is not known, the image's STOPSIGNAL is what CRI will send.
        policy.settle_signal(None);
        assert!(policy.stops(15) && policy.stops(3) && !policy.stops(9));
        // These are no image's, and whoever sends them wants no end.
        assert!([17, 18, 19, 20, 21, 22, 23].iter().all(|number| !policy.stops(*number)));
        policy.settle_signal(Some(3));
        assert!(policy.stops(3) && !policy.stops(15) && !policy.stops(1));
        policy.settle_signal(Some(15));
        assert_eq!(policy.signal, Some(3), "it was known");
    }

    #[test]
    fn stop_says_how_long_and_which_signal() {
        let key = "stop.boathook.dev/self";
        let policy =
            read(&[(key, r#"{"gracePeriodSeconds":0,"signal":"quit"}"#)]).unwrap().unwrap();
        assert_eq!((policy.grace, policy.signal), (0, Some(3)));
        assert_eq!(policy.grace(), Duration::from_secs(1), "a pod's end has a second at least");
        let policy = read(&[(key, "{}"), (IMAGE_SIGNAL, "SIGUSR1")]).unwrap().unwrap();
        assert_eq!((policy.grace, policy.signal), (30, Some(10)));
        for (json, part) in [
            ("", "must be an object"),
            ("[5]", "must be an object"),
            (r#"{"grace":1}"#, "grace"),
            (r#"{"gracePeriodSeconds":-1}"#, "gracePeriodSeconds: Invalid value: -1"),
            (r#"{"gracePeriodSeconds":1.5}"#, "1.5"),
            (r#"{"signal":"SIGNOPE"}"#, "signal: Invalid value: \"SIGNOPE\""),
        ] {
            let error = read(&[(key, json)]).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(key), "{json}: {error}");
        }
    }

    #[test]
    fn wrong_annotations_are_named() {
        for (key, value, part) in [
            ("pre-stop.boathook.dev/self", "{}", "must specify a handler type"),
            ("pre-stop.boathook.dev/self", r#"{"sleep":{"seconds":31}}"#, "(30)"),
            ("prestop.boathook.dev/self", SLEEP, "nobody knows this name"),
            ("post-start-order.boathook.dev/self", "before-entrypoint", "no post-start hook"),
        ] {
            let error = read(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(key), "{error}");
        }
        let start = ("post-start.boathook.dev/self", SLEEP);
        let order = "post-start-order.boathook.dev/self";
        let policy = read(&[start, (order, "before-entrypoint")]).unwrap().unwrap();
        assert_eq!(policy.order, Order::BeforeEntrypoint);
        assert!(read(&[start, (order, "later")]).unwrap_err().to_string().contains("later"));
        // A sleep is bounded by the grace of the same container.
        let stop = ("stop.boathook.dev/self", r#"{"gracePeriodSeconds":60}"#);
        let long = ("pre-stop.boathook.dev/self", r#"{"sleep":{"seconds":31}}"#);
        assert!(read(&[stop, long]).is_ok());
    }

    #[test]
    fn the_kubelets_annotations_count_only_as_a_backstop() {
        let kubelet = [
            (CRI_TYPE, "container"),
            (CRI_NAME, "web"),
            (KUBELET_PRE_STOP, r#"{"httpGet":{"path":"/stop","port":"http"}}"#),
            (KUBELET_PORTS, r#"[{"name":"http","containerPort":8080,"protocol":"TCP"}]"#),
            ("io.kubernetes.pod.terminationGracePeriod", "7"),
        ];
        assert_eq!(read_with(Lifecycle::Annotations, &kubelet), None);
        let policy = read_with(Lifecycle::Backstop, &kubelet).unwrap();
        assert_eq!((policy.grace, policy.origin), (7, Origin::Kubelet));
        assert_eq!(policy.ports[0].container_port, 8080);
        let deleted = [&kubelet[..], &[("io.kubernetes.pod.deletionGracePeriod", "3")]].concat();
        assert_eq!(read_with(Lifecycle::Backstop, &deleted).unwrap().grace, 3);
        // Ours come first.
        let ours = [&kubelet[..], &[("stop.boathook.dev/web", "{}")]].concat();
        let policy = read_with(Lifecycle::Backstop, &ours).unwrap();
        assert_eq!((policy.origin, policy.grace), (Origin::Annotations, 30));
        assert_eq!(policy.pre_stop, None);
    }
}
