//! A lifecycle handler in the JSON shape of the Kubernetes API
//! (`LifecycleHandler` of core/v1), with the API's validation and texts
//! (pkg/apis/core/validation).
//!
//! The reading is strict: an unknown or repeated field, a list where an object
//! belongs, anything after the end is refused.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Exactly one thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Shape", into = "Shape")]
pub enum Handler {
    /// Run a program in the container.
    Exec(ExecAction),
    /// Ask a web server.
    HttpGet(HttpGetAction),
    /// Part of the API, and always a failure at run time.
    TcpSocket(TcpSocketAction),
    /// Let time go by.
    Sleep(SleepAction),
}

/// `exec`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecAction {
    /// Program and arguments; no shell, nothing is expanded.
    pub command: Vec<String>,
}

/// `httpGet`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpGetAction {
    /// Path and query; `/` when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Number or name of a port.
    pub port: Port,
    /// The pod's own address when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// `HTTP` when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scheme: String,
    /// In this order, duplicates kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<HttpHeader>,
}

/// One header of a request.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Without the value, which may be a secret.
impl fmt::Debug for HttpHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpHeader").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `tcpSocket`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpSocketAction {
    /// Number or name of a port.
    pub port: Port,
    /// The pod's own address when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// `sleep`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SleepAction {
    /// How long.
    pub seconds: i64,
}

/// The API's IntOrString.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "port: must be a 32-bit number or a string")]
pub enum Port {
    /// A number.
    Number(i32),
    /// The name of one of the container's ports, or digits.
    Name(String),
}

impl Default for Port {
    /// What the API takes a missing port for.
    fn default() -> Self {
        Self::Number(0)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// One entry of a container's `ports`; the other fields do not matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name, possibly empty.
    pub name: String,
    /// Its number.
    pub container_port: i32,
}

/// The object as it is written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Shape {
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<ExecAction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_get: Option<HttpGetAction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_socket: Option<TcpSocketAction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sleep: Option<SleepAction>,
}

impl From<Handler> for Shape {
    fn from(handler: Handler) -> Self {
        let mut shape = Self::default();
        match handler {
            Handler::Exec(action) => shape.exec = Some(action),
            Handler::HttpGet(action) => shape.http_get = Some(action),
            Handler::TcpSocket(action) => shape.tcp_socket = Some(action),
            Handler::Sleep(action) => shape.sleep = Some(action),
        }
        shape
    }
}

impl TryFrom<Shape> for Handler {
    type Error = &'static str;

    fn try_from(shape: Shape) -> Result<Self, Self::Error> {
        match (shape.exec, shape.http_get, shape.tcp_socket, shape.sleep) {
            (Some(action), None, None, None) => Ok(Self::Exec(action)),
            (None, Some(action), None, None) => Ok(Self::HttpGet(action)),
            (None, None, Some(action), None) => Ok(Self::TcpSocket(action)),
            (None, None, None, Some(action)) => Ok(Self::Sleep(action)),
            _ => Err("exactly one handler type must be specified"),
        }
    }
}

impl Handler {
    /// Reads and checks a handler. `grace` is the grace period in seconds,
    /// which bounds a sleep.
    ///
    /// # Errors
    /// Every problem, each with its field, in the API's form: one stands
    /// alone, several are listed in brackets.
    pub fn parse(json: &str, grace: u64) -> Result<Self, String> {
        let value: Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
        shape_of(&value, "", false)?;
        // Once more from the text: only this way a repeated field is seen.
        let mut shape: Shape = serde_json::from_str(json).map_err(|e| e.to_string())?;
        if let Some(http) = &mut shape.http_get {
            http.set_defaults();
        }
        let problems = shape.problems(grace);
        match problems.as_slice() {
            [] => Self::try_from(shape).map_err(str::to_owned),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    /// The name of its kind in the API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::HttpGet(_) => "httpGet",
            Self::TcpSocket(_) => "tcpSocket",
            Self::Sleep(_) => "sleep",
        }
    }

    /// The JSON of the API.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// serde reads a list as a struct, field by field. The API does not.
fn shape_of(value: &Value, path: &str, list: bool) -> Result<(), String> {
    let at = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            shape_of(value, &at(name), matches!(name.as_str(), "command" | "httpHeaders"))
        }),
        Value::Array(items) if list => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| shape_of(item, &format!("{path}[{index}]"), false)),
        Value::Array(_) => {
            let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
            Err(format!("{place}Invalid value: a list, must be an object"))
        }
        _ if path.is_empty() => Err("Invalid value: must be an object".to_owned()),
        _ => Ok(()),
    }
}

impl HttpGetAction {
    /// pkg/apis/core/v1/defaults.go, SetDefaults_HTTPGetAction.
    fn set_defaults(&mut self) {
        if self.path.is_empty() {
            "/".clone_into(&mut self.path);
        }
        if self.scheme.is_empty() {
            "HTTP".clone_into(&mut self.scheme);
        }
    }
}

impl Shape {
    /// validateHandler of pkg/apis/core/validation.
    fn problems(&self, grace: u64) -> Vec<String> {
        let mut problems = Vec::new();
        let mut found = 0;
        let mut first = |field: &str, problems: &mut Vec<String>| {
            found += 1;
            if found > 1 {
                problems
                    .push(format!("{field}: Forbidden: may not specify more than 1 handler type"));
            }
            found == 1
        };
        if let Some(action) = &self.exec
            && first("exec", &mut problems)
            && action.command.is_empty()
        {
            problems.push("exec.command: Required value".to_owned());
        }
        if let Some(action) = &self.http_get
            && first("httpGet", &mut problems)
        {
            http_problems(action, &mut problems);
        }
        if let Some(action) = &self.tcp_socket
            && first("tcpSocket", &mut problems)
        {
            port_problems("tcpSocket.port", &action.port, &mut problems);
        }
        if let Some(SleepAction { seconds }) = &self.sleep
            && first("sleep", &mut problems)
            && u64::try_from(*seconds).map_or(true, |seconds| seconds > grace)
        {
            problems.push(format!(
                "sleep: Invalid value: {seconds}: must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            ));
        }
        if found == 0 {
            problems.push("Required value: must specify a handler type".to_owned());
        }
        problems
    }
}

fn http_problems(action: &HttpGetAction, problems: &mut Vec<String>) {
    port_problems("httpGet.port", &action.port, problems);
    if !matches!(action.scheme.as_str(), "HTTP" | "HTTPS") {
        problems.push(format!(
            "httpGet.scheme: Unsupported value: {:?}: supported values: \"HTTP\", \"HTTPS\"",
            action.scheme
        ));
    }
    for (index, header) in action.http_headers.iter().enumerate() {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if header.name.is_empty() || !header.name.bytes().all(good) {
            problems.push(format!(
                "httpGet.httpHeaders[{index}].name: Invalid value: {:?}: a valid HTTP header must consist of \
                 alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
                header.name
            ));
        }
        // Not a rule of the API: there the client refuses it when it is too late.
        if header.value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            problems.push(format!(
                "httpGet.httpHeaders[{index}].value: Invalid value: must be one line"
            ));
        }
    }
}

/// ValidatePortNumOrName; the rules of a name are IsValidPortName's.
fn port_problems(field: &str, port: &Port, problems: &mut Vec<String>) {
    let name = match port {
        Port::Number(number) => {
            if !(1..=65535).contains(number) {
                problems.push(format!(
                    "{field}: Invalid value: {number}: must be between 1 and 65535, inclusive"
                ));
            }
            return;
        }
        Port::Name(name) => name,
    };
    let mut wrong = |rule: &str| problems.push(format!("{field}: Invalid value: {name:?}: {rule}"));
    if name.len() > 15 {
        wrong("must be no more than 15 characters");
    }
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || !name.bytes().all(fine) {
        wrong("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        wrong("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        wrong("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        wrong("must not begin or end with a hyphen");
    }
}

/// The number of a port: a number, else the first of the container's ports of
/// that name, else the name read as a number.
///
/// # Errors
/// The kubelet's text (resolvePort of pkg/kubelet/lifecycle).
pub fn resolve_port(port: &Port, ports: &[ContainerPort]) -> Result<u16, String> {
    let number = match port {
        Port::Number(number) => *number,
        Port::Name(name) => match ports.iter().find(|p| p.name == *name) {
            Some(found) => found.container_port,
            None => name.parse().map_err(|_| format!("couldn't find port: {name:?}"))?,
        },
    };
    match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("invalid port number: {number}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        Handler::parse(json, 30).unwrap_err()
    }

    #[test]
    fn the_shapes_of_the_api() {
        let exec = Handler::parse(r#"{"exec":{"command":["sh","-c","a \u0026\u0026 b"]}}"#, 30);
        let command = vec!["sh".into(), "-c".into(), "a && b".into()];
        assert_eq!(exec, Ok(Handler::Exec(ExecAction { command })));
        let http = r#"{"httpGet":{"path":"/stop","port":8080,"host":"127.0.0.1","scheme":"HTTP",
            "httpHeaders":[{"name":"X","value":"1"}]}}"#;
        let Ok(Handler::HttpGet(http)) = Handler::parse(http, 30) else { panic!() };
        assert_eq!((http.port, http.http_headers.len()), (Port::Number(8080), 1));
        let Ok(Handler::HttpGet(http)) = Handler::parse(r#"{"httpGet":{"port":"web"}}"#, 30) else {
            panic!()
        };
        assert_eq!((http.path.as_str(), http.scheme.as_str()), ("/", "HTTP"));
        let tcp = Handler::parse(r#"{"tcpSocket":{"port":"http","host":"h"}}"#, 30);
        assert!(matches!(tcp, Ok(Handler::TcpSocket(_))));
        for seconds in [0, 30] {
            let sleep = Handler::parse(&format!(r#"{{"sleep":{{"seconds":{seconds}}}}}"#), 30);
            assert_eq!(sleep, Ok(Handler::Sleep(SleepAction { seconds })));
        }
        let null = Handler::parse(r#"{"exec":null,"sleep":{"seconds":1}}"#, 30);
        assert!(matches!(null, Ok(Handler::Sleep(_))));
    }

    #[test]
    fn what_is_written_reads_back() {
        for json in [
            r#"{"exec":{"command":["a","b"]}}"#,
            r#"{"httpGet":{"path":"/p?q=1","port":"web","scheme":"HTTPS"}}"#,
            r#"{"tcpSocket":{"port":1}}"#,
            r#"{"sleep":{"seconds":5}}"#,
        ] {
            assert_eq!(Handler::parse(json, 30).unwrap().to_json(), json);
        }
    }

    #[test]
    fn texts_of_the_api() {
        for (json, text) in [
            ("{}", "Required value: must specify a handler type"),
            (r#"{"exec":{}}"#, "exec.command: Required value"),
            (r#"{"exec":{"command":[]}}"#, "exec.command: Required value"),
            (
                r#"{"exec":{"command":["a"]},"sleep":{"seconds":1}}"#,
                "sleep: Forbidden: may not specify more than 1 handler type",
            ),
            (
                r#"{"httpGet":{}}"#,
                "httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                r#"{"httpGet":{"port":70000,"scheme":"ftp"}}"#,
                "[httpGet.port: Invalid value: 70000: must be between 1 and 65535, inclusive, \
                 httpGet.scheme: Unsupported value: \"ftp\": supported values: \"HTTP\", \"HTTPS\"]",
            ),
            (
                r#"{"tcpSocket":{"port":"80"}}"#,
                "tcpSocket.port: Invalid value: \"80\": must contain at least one letter (a-z)",
            ),
            (
                r#"{"sleep":{"seconds":31}}"#,
                "sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ),
            (
                r#"{"sleep":{"seconds":-1}}"#,
                "sleep: Invalid value: -1: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ),
        ] {
            assert_eq!(error(json), text, "{json}");
        }
    }

    #[test]
    fn what_is_not_the_shape_is_refused() {
        for (json, part) in [
            ("", "EOF"),
            ("[]", "must be an object"),
            ("3", "must be an object"),
            (r#"{"exec":[["sh"]]}"#, "exec: Invalid value: a list"),
            (r#"{"exec":{"command":["a"]}} x"#, "trailing"),
            (r#"{"exec":{"command":["a"],"args":[]}}"#, "args"),
            (r#"{"grpc":{"port":1}}"#, "grpc"),
            (r#"{"exec":{"command":["a"]},"exec":{"command":["b"]}}"#, "duplicate field"),
            (r#"{"exec":{"command":"a"}}"#, "invalid type"),
            (r#"{"sleep":{"seconds":1.5}}"#, "1.5"),
            (r#"{"httpGet":{"port":80,"httpHeaders":[{"name":"a b"}]}}"#, "httpHeaders[0].name"),
            (
                r#"{"httpGet":{"port":80,"httpHeaders":[{"name":"A","value":"x\r\nB: y"}]}}"#,
                "httpHeaders[0].value",
            ),
            (r#"{"httpGet":{"port":80,"httpHeaders":[["A","b"]]}}"#, "httpHeaders[0]: Invalid"),
            (r#"{"httpGet":{"port":99999999999}}"#, "port"),
        ] {
            let error = error(json);
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn ports_by_name_and_number() {
        let named = |name: &str, port| ContainerPort { name: name.into(), container_port: port };
        let ports = [named("web", 80), named("web", 81), named("low", 0)];
        let name = |name: &str| Port::Name(name.into());
        assert_eq!(resolve_port(&name("web"), &ports), Ok(80));
        assert_eq!(resolve_port(&name("8080"), &ports), Ok(8080));
        assert_eq!(resolve_port(&Port::Number(65535), &[]), Ok(65535));
        assert_eq!(resolve_port(&name("low"), &ports), Err("invalid port number: 0".into()));
        assert_eq!(
            resolve_port(&Port::Number(65536), &[]),
            Err("invalid port number: 65536".into())
        );
        assert!(resolve_port(&name("nope"), &ports).unwrap_err().contains("nope"));
    }
}
