use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use super::*;

/// Says what it was asked; `/missing` is not there.
fn echo(request: Request) -> Response {
    if request.path == ["missing"] {
        return Response::error(404, "there is no such thing");
    }
    Response::json(&serde_json::json!({
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "length": request.body.len(),
        "body": String::from_utf8_lossy(&request.body[..request.body.len().min(100)]),
    }))
}

/// What a client that sends `bytes` and closes its side is answered.
fn answer(bytes: &[u8]) -> String {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || serve(&theirs, echo));
    // A server that refuses early does not read everything.
    let _ = ours.write_all(bytes);
    let _ = ours.shutdown(Shutdown::Write);
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    server.join().unwrap().unwrap();
    text
}

fn status(bytes: &[u8]) -> u16 {
    let text = answer(bytes);
    text.split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("{text:?}"))
        .parse()
        .unwrap()
}

fn body(text: &str) -> serde_json::Value {
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn a_request_is_taken_apart() {
    let text = answer(b"GET /v1/a%20b//c?x=1&y=%2f+z&w HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "),
        "{text}"
    );
    let json = body(&text);
    assert_eq!(json["path"], serde_json::json!(["v1", "a b", "c"]));
    assert_eq!(
        json["query"],
        serde_json::json!([["x", "1"], ["y", "/ z"], ["w", ""]])
    );
}

#[test]
fn bodies_by_length_and_in_chunks() {
    let text = answer(b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(body(&text)["body"], "hello");
    let text = answer(
        b"POST / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\n\
          5;ext=1\r\nhello\r\n7\r\n, world\r\n0\r\nTrailer: x\r\n\r\n",
    );
    assert_eq!(body(&text)["body"], "hello, world");
}

#[test]
fn a_connection_carries_several_requests() {
    let text = answer(
        b"GET /one HTTP/1.1\r\nHost:\r\n\r\nPOST /two HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\n\r\nhi\
          GET /three HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\nGET /four HTTP/1.1\r\nHost:\r\n\r\n",
    );
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
    assert!(text.contains("three") && !text.contains("four"));
    assert_eq!(text.matches("Connection: close").count(), 1);
}

#[test]
fn http_1_0_closes() {
    let text = answer(b"GET /one HTTP/1.0\r\n\r\nGET /two HTTP/1.0\r\n\r\n");
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 1, "{text}");
}

#[test]
fn a_client_may_ask_leave_to_send_its_body() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || serve(&theirs, echo));
    ours.write_all(b"POST / HTTP/1.1\r\nHost:\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .unwrap();
    let mut leave = [0u8; 25];
    ours.read_exact(&mut leave).unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    ours.write_all(b"hi").unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert_eq!(body(&text)["body"], "hi");
    server.join().unwrap().unwrap();
    let large = b"POST / HTTP/1.1\r\nHost:\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n";
    assert_eq!(status(large), 413);
}

#[test]
fn head_has_no_body() {
    let text = answer(b"HEAD / HTTP/1.1\r\nHost:\r\n\r\n");
    assert!(
        text.ends_with("\r\n\r\n") && !text.contains("Content-Length: 0"),
        "{text}"
    );
}

#[test]
fn wrong_requests_are_answered_by_what_is_wrong() {
    let fields = |n: usize| {
        let mut s = b"GET / HTTP/1.1\r\nHost:\r\n".to_vec();
        for i in 0..n {
            s.extend_from_slice(format!("X-{i}: y\r\n").as_bytes());
        }
        s.extend_from_slice(b"\r\n");
        s
    };
    let long = |n: usize| [b"GET /".as_slice(), &vec![b'a'; n], b" HTTP/1.1\r\nHost:\r\n\r\n"].concat();
    assert_eq!(status(&fields(60)), 200);
    assert_eq!(status(&long(15_000)), 200);
    assert_eq!(status(b"GET /missing HTTP/1.1\r\nHost:\r\n\r\n"), 404);
    for (bytes, expected) in [
        (b"GET / HT".to_vec(), 400),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 5\r\n\r\nhel".to_vec(),
            400,
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(), 400),
        (b"GET /%zz HTTP/1.1\r\nHost:\r\n\r\n".to_vec(), 400),
        (b"GET /%ff HTTP/1.1\r\nHost:\r\n\r\n".to_vec(), 400),
        (b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n".to_vec(), 400),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: -1\r\n\r\n".to_vec(),
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec(),
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_vec(),
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".to_vec(),
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n".to_vec(),
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: gzip\r\n\r\n".to_vec(),
            501,
        ),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n".to_vec(),
            413,
        ),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 1048577\r\n\r\n".to_vec(),
            413,
        ),
        (
            b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 99999999999999999999999\r\n\r\n".to_vec(),
            413,
        ),
        (b"POST / HTTP/1.1\r\nHost:\r\nExpect: magic\r\n\r\n".to_vec(), 417),
        (b"GET / HTTP/2.0\r\nHost:\r\n\r\n".to_vec(), 505),
        (fields(64), 431),
        (long(17_000), 431),
        (vec![b'A'; 1_000_000], 431),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
        assert_eq!(status(&bytes), expected, "{shown:?}");
    }
    let mut oversized = b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 2000000\r\n\r\n".to_vec();
    oversized.resize(2_000_000, b'x');
    assert_eq!(status(&oversized), 413);
}

#[test]
fn nothing_sent_gets_nothing() {
    assert_eq!(answer(b""), "");
}

#[test]
fn half_a_request_times_out_and_is_told_so() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let begun = Instant::now();
        serve(&theirs, echo).unwrap();
        begun.elapsed()
    });
    // One byte now and then does not extend the time.
    let mut text = String::new();
    let mut reader = ours.try_clone().unwrap();
    let dripping = thread::spawn(move || {
        for byte in b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
            if ours.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(250));
        }
    });
    reader.read_to_string(&mut text).unwrap();
    drop(reader);
    assert!(text.starts_with("HTTP/1.1 408"), "{text:?}");
    let took = server.join().unwrap();
    assert!(took >= REQUEST_TIME && took < REQUEST_TIME * 2, "{took:?}");
    dripping.join().unwrap();
}

#[test]
fn the_client_reads_what_the_server_writes() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || serve(&theirs, echo));
    let target = format!("/v1/{}", encode("ä/b"));
    let (status, body) = Client::new(ours).call("POST", &target, Some(b"{}")).unwrap();
    assert_eq!(status, 200);
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["path"], serde_json::json!(["v1", "ä/b"]));
    assert_eq!(json["body"], "{}");
    server.join().unwrap().unwrap();
}

/// What the client makes of a server that answers `bytes` and closes.
fn called(bytes: &'static [u8]) -> Result<(u16, Vec<u8>), ClientError> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let _ = (&mut &theirs).read(&mut [0; 4096]).unwrap();
        theirs.write_all(bytes).unwrap();
    });
    let answer = Client::new(ours).call("GET", "/", None);
    server.join().unwrap();
    answer
}

#[test]
fn the_client_takes_other_servers_answers() {
    let ok = |bytes| called(bytes).unwrap();
    assert_eq!(
        ok(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        (200, b"abc".to_vec())
    );
    assert_eq!(ok(b"HTTP/1.0 200 OK\r\n\r\nabc"), (200, b"abc".to_vec()));
    assert_eq!(
        ok(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
        (204, vec![])
    );
    for bytes in [
        b"HTTP".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"SSH-2.0-x\r\n",
    ] {
        let e = called(bytes).unwrap_err();
        assert!(e.to_string().starts_with("cannot read the answer: "), "{e}");
    }
}

#[test]
fn a_refused_peer_is_told_so_unheard() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || refuse(&theirs, "not you"));
    let (status, body) = Client::new(ours).call("GET", "/", None).unwrap();
    assert_eq!(
        (status, body.as_slice()),
        (403, br#"{"error":"not you"}"#.as_slice())
    );
    server.join().unwrap().unwrap();
}

#[test]
fn curl_is_understood_and_understands() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let large = dir.path().join("large");
    // Curl asks leave to send a body as long as this.
    std::fs::write(&large, vec![b'x'; MAX_BODY]).unwrap();
    let larger = dir.path().join("larger");
    std::fs::write(&larger, vec![b'x'; MAX_BODY + 1]).unwrap();
    let data = |path: &std::path::Path| format!("@{}", path.display());
    let (large, larger) = (data(&large), data(&larger));
    for (arguments, status, contained) in [
        (
            &["http://pontoon/v1/networks?x=y"][..],
            "200",
            r#""path":["v1","networks"]"#,
        ),
        (&["http://pontoon/missing"], "404", "no such thing"),
        (
            &["-X", "DELETE", "-H", "Host:", "http://pontoon/"],
            "400",
            "0 Host fields",
        ),
        (&["-H", "Host;", "http://pontoon/"], "200", r#""method":"GET""#),
        (&["--data", "{}", "http://pontoon/"], "200", r#""body":"{}""#),
        (
            &[
                "--data",
                "{}",
                "-H",
                "Transfer-Encoding: chunked",
                "http://pontoon/",
            ],
            "200",
            r#""body":"{}""#,
        ),
        (
            &["--data-binary", &large, "http://pontoon/"],
            "200",
            r#""length":1048576"#,
        ),
        (
            &["--data-binary", &larger, "http://pontoon/"],
            "413",
            "larger than 1048576 bytes",
        ),
        (
            &["-0", "http://pontoon/", "http://pontoon/"],
            "200",
            r#""method":"GET""#,
        ),
    ] {
        let mut curl = std::process::Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--write-out",
                "\n%{http_code}",
                "--unix-socket",
            ])
            .arg(&socket)
            .args(arguments)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("this test needs curl");
        let connections = if arguments.contains(&"-0") { 2 } else { 1 };
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            serve(&stream, echo).unwrap();
        }
        let mut text = String::new();
        curl.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(curl.wait().unwrap().success(), "{arguments:?}: {text:.300}");
        assert!(
            text.ends_with(&format!("\n{status}")),
            "{arguments:?}: {text:.300}"
        );
        assert!(text.contains(contained), "{arguments:?}: {text:.300}");
    }
}
