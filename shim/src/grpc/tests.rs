//! A call against servers that say what a test tells them; the root tests
//! make the same call to real daemons.

use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

/// A server that says this to the first client and returns what it heard.
fn server(listener: UnixListener, said: Vec<u8>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The client may have gone already.
        let _ = stream.write_all(&said);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        heard
    })
}

fn call(said: &[Vec<u8>], limit: Duration) -> (Result<Vec<u8>>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let server = server(UnixListener::bind(&path).unwrap(), said.concat());
    let address = path.to_str().unwrap();
    let sent = Call::send(address, "ns", "/a.B/C", b"request", limit);
    let answer = sent.and_then(Call::answer);
    (answer, server.join().unwrap())
}

fn part(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind, flags, stream, payload).unwrap()
}

fn message(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], text].concat()
}

#[test]
fn an_answer_in_pieces_among_other_frames() {
    let body = message(b"an answer");
    let (answer, heard) = call(
        &[
            part(kind::SETTINGS, 0, CONNECTION, &[0, 3, 0, 0, 0, 9]),
            part(kind::SETTINGS, flag::ACK, CONNECTION, &[]),
            part(kind::PING, 0, CONNECTION, b"12345678"),
            part(kind::HEADERS, flag::END_HEADERS, CALL, &[0x88]),
            part(kind::DATA, 0, CALL, &body[..3]),
            part(kind::DATA, flag::PADDED, CALL, &[&[2], &body[3..], &[0, 0]].concat()),
            part(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, CALL, &[0x88]),
        ],
        LIMIT,
    );
    assert_eq!(answer.unwrap(), b"an answer");
    let has = |wanted: &[u8]| heard.windows(wanted.len()).any(|found| found == wanted);
    assert!(heard.starts_with(PREFACE) && has(b"\x05:path\x06/a.B/C") && has(b"\x02ns"));
    assert!(has(&message(b"request")), "{heard:?}");
    assert!(has(&part(kind::PING, flag::ACK, CONNECTION, b"12345678")), "no answer to the ping");
    assert!(has(&part(kind::SETTINGS, flag::ACK, CONNECTION, &[])), "settings not acknowledged");
}

#[test]
fn what_is_no_answer() {
    let end = |body: &[u8]| part(kind::DATA, flag::END_STREAM, CALL, body);
    let refusal = part(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, CALL, &[0x88]);
    let mut compressed = message(b"x");
    compressed[0] = 1;
    for (said, why) in [
        (vec![], "closed"),
        (vec![refusal], "refused"),
        (vec![end(&message(b"x")[..5])], "not one message"),
        (vec![end(&compressed)], "not one message"),
        (vec![part(kind::RST_STREAM, 0, CALL, &[0; 4])], "broken off"),
        (vec![part(kind::GOAWAY, 0, CONNECTION, &[0; 8])], "broken off"),
        (vec![part(kind::DATA, flag::PADDED, CALL, &[9, 0])], "padding"),
        (vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], "a frame of"),
        (vec![part(kind::DATA, 0, CALL, &[0; MAX_FRAME]); 300], "more than"),
    ] {
        let error = call(&said, LIMIT).0.unwrap_err().to_string();
        assert!(error.contains(why), "{why:?}: {error}");
    }
}

#[test]
fn silence_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let address = path.to_str().unwrap();
    let sent = Call::send(address, "ns", "/a.B/C", b"", Duration::from_millis(50));
    // What is sent without an end is no answer either.
    let (mut stream, _) = listener.accept().unwrap();
    let chatter = std::thread::spawn(move || {
        while stream.write_all(&part(kind::WINDOW_UPDATE, 0, CONNECTION, &[0; 4])).is_ok() {}
    });
    assert!(sent.and_then(Call::answer).is_err());
    chatter.join().unwrap();
    drop(listener);
    let refused = Call::send(address, "ns", "/a.B/C", b"", LIMIT).unwrap_err().to_string();
    assert!(refused.contains(address), "{refused}");
}
