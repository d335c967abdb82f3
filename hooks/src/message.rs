//! The texts of pkg/kubelet/lifecycle/handlers.go, to the letter.

use crate::handler::Handler;

/// Whom a text is about.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// The container's name in its pod, or its id.
    pub container: &'a str,
    /// `<name>_<namespace>(<uid>)`, empty outside of pods.
    pub pod: &'a str,
}

/// Why a hook failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Anything but an exit code.
    Problem(String),
    /// The program of an exec ended with a code other than 0.
    Exit {
        /// The code.
        code: u32,
        /// What it wrote, up to a bound.
        stdout: Vec<u8>,
        /// The same for errors.
        stderr: Vec<u8>,
    },
}

/// The message of a failed hook.
pub fn failure(handler: &Handler, whose: Whose<'_>, reason: &Reason) -> String {
    let (container, pod) = (quote(whose.container.as_bytes()), quote(whose.pod.as_bytes()));
    let place = format!("for Container {container} in Pod {pod} failed - error");
    let (error, output) = match (reason, handler) {
        (Reason::Problem(problem), _) => (problem.clone(), Vec::new()),
        (Reason::Exit { code, stdout, stderr }, Handler::Exec(exec)) => {
            let said = String::from_utf8_lossy(stderr);
            let error = format!("command '{}' exited with {code}: {said}", exec.command.join(" "));
            (error, [stdout.as_slice(), stderr].concat())
        }
        (Reason::Exit { code, .. }, _) => (format!("exited with {code}"), Vec::new()),
    };
    match handler {
        Handler::Exec(exec) => format!(
            "Exec lifecycle hook ([{}]) {place}: {error}, message: {}",
            exec.command.join(" "),
            quote(&output)
        ),
        Handler::HttpGet(get) => format!("HTTP lifecycle hook ({}) {place}: {error}", get.path),
        Handler::Sleep(sleep) => {
            format!("Sleep lifecycle hook ({}) {place}: {error}", sleep.seconds)
        }
        Handler::TcpSocket(_) => {
            format!("Cannot run handler: invalid handler: {}", handler.to_json())
        }
    }
}

/// Go's `%q` of a string: quotes, backslash and control characters are
/// escaped, printable text stays, bytes that are no UTF-8 become `\xNN`.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

fn quote_char(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
        c if c.is_control() || (c.is_whitespace() && c != ' ') => {
            out.push_str(&format!("\\u{:04x}", c as u32));
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOSE: Whose<'_> = Whose { container: "web", pod: "p_ns(uid)" };

    fn handler(json: &str) -> Handler {
        Handler::parse(json, 30).unwrap()
    }

    #[test]
    fn exec_with_an_exit_code() {
        let exit = Reason::Exit { code: 3, stdout: b"out\n".into(), stderr: b"bad \"x\"\n".into() };
        let exec = handler(r#"{"exec":{"command":["sh","-c","exit 3"]}}"#);
        assert_eq!(
            failure(&exec, WHOSE, &exit),
            "Exec lifecycle hook ([sh -c exit 3]) for Container \"web\" in Pod \"p_ns(uid)\" failed - error: \
             command 'sh -c exit 3' exited with 3: bad \"x\"\n, message: \"out\\nbad \\\"x\\\"\\n\""
        );
    }

    #[test]
    fn the_others() {
        let problem = Reason::Problem("E".into());
        for (json, text) in [
            (
                r#"{"httpGet":{"path":"/stop","port":1}}"#,
                "HTTP lifecycle hook (/stop) for Container \"web\" in Pod \"p_ns(uid)\" failed - error: E",
            ),
            (
                r#"{"sleep":{"seconds":5}}"#,
                "Sleep lifecycle hook (5) for Container \"web\" in Pod \"p_ns(uid)\" failed - error: E",
            ),
            (
                r#"{"tcpSocket":{"port":1}}"#,
                "Cannot run handler: invalid handler: {\"tcpSocket\":{\"port\":1}}",
            ),
        ] {
            assert_eq!(failure(&handler(json), WHOSE, &problem), text);
        }
    }

    #[test]
    fn quoting_is_gos() {
        for (bytes, text) in [
            (&b"a\tb"[..], r#""a\tb""#),
            (b"\x00\x1b\x7f", r#""\x00\x1b\x7f""#),
            (b"\xffok", r#""\xffok""#),
            ("ä☃".as_bytes(), "\"ä☃\""),
            ("\u{85}\u{2028}".as_bytes(), r#""\u0085\u2028""#),
        ] {
            assert_eq!(quote(bytes), text);
        }
    }
}
