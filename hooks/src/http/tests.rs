//! The client against servers that behave and servers that do not.

use std::io::BufReader;
use std::io::prelude::*;
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::*;

/// Serves the connections of one test, one after the other, each with its own
/// answer; returns what was asked.
fn serve(answers: Vec<Vec<u8>>) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let mut text = String::new();
            // A TLS greeting has no lines; its first bytes are enough.
            if reader.fill_buf().unwrap().first() == Some(&0x16) {
                text.push_str("TLS");
                let count = reader.buffer().len();
                reader.consume(count);
            } else {
                while reader.read_line(&mut text).unwrap() > 2 {}
            }
            asked.push(text);
            let _ = (&stream).write_all(&answer);
        }
        asked
    });
    (port, server)
}

fn request(port: u16, path: &str) -> Request {
    let host = "127.0.0.1".to_owned();
    Request { https: false, host, port, path: path.into(), headers: Vec::new() }
}

fn ask(request: &Request) -> Report {
    get(request, || Err("nobody asks for the pod's address".into()))
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[test]
fn any_answer_is_success() {
    for status in ["200 OK", "404 Not Found", "500 Oops", "204 No Content", "304 Not Modified"] {
        let (port, server) = serve(vec![format!("HTTP/1.1 {status}\r\n\r\n").into_bytes()]);
        assert_eq!(ask(&request(port, "/p")), Report::Answered, "{status}");
        assert!(server.join().unwrap()[0].starts_with("GET /p HTTP/1.1\r\n"));
    }
}

#[test]
fn nobody_there_is_failure() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let expected = format!(
        "Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
    );
    assert_eq!(ask(&request(port, "/")), Report::Failed(expected));
}

#[test]
fn redirects_of_the_same_host_are_followed() {
    let done = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (port, server) = serve(vec![redirect("/b"), redirect("c?d"), done]);
    assert_eq!(ask(&request(port, "/a/x")), Report::Answered);
    let asked = server.join().unwrap();
    let lines: Vec<_> = asked.iter().map(|a| a.lines().next().unwrap()).collect();
    assert_eq!(lines, ["GET /a/x HTTP/1.1", "GET /b HTTP/1.1", "GET /c?d HTTP/1.1"]);
}

#[test]
fn redirects_to_others_are_an_answer() {
    let (port, server) = serve(vec![redirect("http://192.0.2.1/")]);
    assert_eq!(ask(&request(port, "/")), Report::Answered);
    server.join().unwrap();
}

#[test]
fn circles_end() {
    let (port, server) = serve(vec![redirect("/"); 10]);
    let Report::Failed(text) = ask(&request(port, "/")) else { panic!() };
    assert!(text.ends_with("stopped after 10 redirects"), "{text}");
    assert_eq!(server.join().unwrap().len(), 10);
}

#[test]
fn a_plain_server_on_an_https_hook_is_asked_again_without_secrets() {
    let refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    let (port, server) = serve(vec![refusal.clone(), refusal]);
    let header = |name: &str| HttpHeader { name: name.into(), value: "v".into() };
    let headers = vec![header("authorization"), header("X-A")];
    let report = ask(&Request { https: true, headers, ..request(port, "/") });
    assert_eq!(report, Report::AnsweredWithoutTls(format!("127.0.0.1:{port}")));
    let asked = server.join().unwrap();
    assert_eq!(asked[0], "TLS");
    assert!(asked[1].contains("X-A: v") && !asked[1].contains("uthorization"), "{}", asked[1]);
}

#[test]
fn garbage_is_failure() {
    for (https, answer) in
        [(false, &b"\x16\x03\x01garbage"[..]), (true, b"\x00\x01\x02\x03\x04\x05\x06")]
    {
        let (port, server) = serve(vec![answer.to_vec()]);
        let report = ask(&Request { https, ..request(port, "/") });
        assert!(matches!(report, Report::Failed(_)), "{report:?}");
        server.join().unwrap();
    }
}

#[test]
fn an_endless_body_is_cut() {
    let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    answer.resize(8 << 20, b'x');
    let (port, server) = serve(vec![answer]);
    assert_eq!(ask(&request(port, "/")), Report::Answered);
    server.join().unwrap();
}
