//! The server's side of a connection.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::{
    Broken, Framing, MAX_BODY, MAX_FIELDS, MAX_HEAD, REQUEST_TIME, Request, Response, Wire, framing, lists,
    reason, write_all,
};

/// Serves one connection until the client closes it, asks to, errs, or is silent for [`REQUEST_TIME`].
///
/// Blocks. An error is one of the socket: what the client did wrong has been answered, and is no error here.
pub(crate) fn serve(stream: &UnixStream, mut handler: impl FnMut(Request) -> Response) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    let mut wire = Wire::new(stream, REQUEST_TIME);
    loop {
        let (response, head_only, close) = match read_request(&mut wire) {
            Ok(Incoming { request, keep_alive }) => {
                wire.done();
                let head_only = request.method == "HEAD";
                (handler(request), head_only, !keep_alive)
            }
            Err(Broken::Closed | Broken::TimedOut { begun: false }) => return Ok(()),
            Err(e) => {
                let response = match e {
                    Broken::Bad(status, message) => Response::error(status, message),
                    Broken::TimedOut { begun: true } => Response::error(
                        408,
                        format!("the request was not complete after {} s", REQUEST_TIME.as_secs()),
                    ),
                    Broken::Truncated => Response::error(400, "the request ended before it was complete"),
                    Broken::Io(e) => return Err(e),
                    Broken::Closed | Broken::TimedOut { begun: false } => return Ok(()),
                };
                (response, false, true)
            }
        };
        match write_response(stream, &response, head_only, close) {
            Ok(()) => {}
            // The client is gone or does not read; what was asked has been done all the same.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::BrokenPipe
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(());
            }
            Err(e) => return Err(e),
        }
        if close {
            linger(stream);
            return Ok(());
        }
    }
}

/// Answers a connection that is not served with 403 and closes it. Nothing that the peer sends is looked at.
pub(crate) fn refuse(stream: &UnixStream, message: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    write_response(stream, &Response::error(403, message), false, true)?;
    linger(stream);
    Ok(())
}

struct Incoming {
    request: Request,
    keep_alive: bool,
}

fn read_request(wire: &mut Wire<'_>) -> Result<Incoming, Broken> {
    let head = read_head(wire)?;
    if head.expect_continue && wire.buf.is_empty() {
        // Whoever waits for leave to send an oversized body is refused before sending it.
        if matches!(head.framing, Framing::Length(n) if n > MAX_BODY) {
            return Err(Broken::Bad(
                413,
                format!("the body is larger than {MAX_BODY} bytes"),
            ));
        }
        write_all(wire.stream, b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = wire.body(head.framing, MAX_BODY)?;
    let Head {
        method,
        path,
        query,
        keep_alive,
        ..
    } = head;
    Ok(Incoming {
        request: Request {
            method,
            path,
            query,
            body,
        },
        keep_alive,
    })
}

struct Head {
    method: String,
    path: Vec<String>,
    query: Vec<(String, String)>,
    framing: Framing,
    expect_continue: bool,
    keep_alive: bool,
}

fn read_head(wire: &mut Wire<'_>) -> Result<Head, Broken> {
    let too_large = || Broken::Bad(431, format!("the request's head is larger than {MAX_HEAD} bytes"));
    loop {
        if !wire.buf.is_empty() {
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut parsed = httparse::Request::new(&mut fields);
            match parsed.parse(&wire.buf) {
                Ok(httparse::Status::Complete(used)) if used <= MAX_HEAD => {
                    let head = judge(&parsed)?;
                    wire.buf.drain(..used);
                    return Ok(head);
                }
                Ok(httparse::Status::Complete(_)) => return Err(too_large()),
                Ok(httparse::Status::Partial) if wire.buf.len() > MAX_HEAD => return Err(too_large()),
                Ok(httparse::Status::Partial) => {}
                Err(httparse::Error::TooManyHeaders) => {
                    return Err(Broken::Bad(431, format!("more than {MAX_FIELDS} header fields")));
                }
                Err(httparse::Error::Version) => {
                    return Err(Broken::Bad(505, "HTTP/1.1 is spoken here".to_owned()));
                }
                Err(e) => return Err(Broken::Bad(400, format!("this is not an HTTP request: {e}"))),
            }
        }
        wire.fill()?;
    }
}

fn judge(parsed: &httparse::Request<'_, '_>) -> Result<Head, Broken> {
    let bad = |message: String| Broken::Bad(400, message);
    let headers = &*parsed.headers;
    let target = parsed.path.unwrap_or_default();
    let is_1_1 = parsed.version == Some(1);
    // Docker's client sends the field with nothing in it, which is allowed; to leave it out is not.
    let hosts = headers
        .iter()
        .filter(|h| h.name.eq_ignore_ascii_case("host"))
        .count();
    if hosts > 1 || (is_1_1 && hosts == 0) {
        return Err(bad(format!("{hosts} Host fields: send one, which may be empty")));
    }
    let expect_continue = lists(headers, "expect", "100-continue");
    if !expect_continue && headers.iter().any(|h| h.name.eq_ignore_ascii_case("expect")) {
        return Err(Broken::Bad(
            417,
            "no expectation but `100-continue` is understood".to_owned(),
        ));
    }
    let keep_alive = if is_1_1 {
        !lists(headers, "connection", "close")
    } else {
        lists(headers, "connection", "keep-alive")
    };
    // The absolute form is for proxies, but a server must take it (RFC 9112, section 3.2.2).
    let origin = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    if !origin.starts_with('/') {
        return Err(bad(format!("`{target}` is not a path: it begins with a slash")));
    }
    let origin = origin.split_once('#').map_or(origin, |(before, _)| before);
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    let decode = |s: &str, plus| decode(s, plus).ok_or_else(|| bad(format!("`{s}` is badly encoded")));
    Ok(Head {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path
            .split('/')
            .filter(|s| !s.is_empty())
            .map(|s| decode(s, false))
            .collect::<Result<_, _>>()?,
        query: query
            .split('&')
            .filter(|s| !s.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(key, true)?, decode(value, true)?))
            })
            .collect::<Result<_, Broken>>()?,
        framing: framing(headers)?.unwrap_or(Framing::Length(0)),
        expect_continue: expect_continue && is_1_1,
        keep_alive,
    })
}

/// Undoes percent-encoding; `None` if it is broken or the result is not UTF-8.
fn decode(s: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = s.bytes();
    let mut out = Vec::with_capacity(s.len());
    while let Some(c) = bytes.next() {
        out.push(match c {
            b'%' => {
                let (high, low) = (bytes.next()?, bytes.next()?);
                let digit = |c: u8| char::from(c).to_digit(16);
                (digit(high)? * 16 + digit(low)?) as u8
            }
            b'+' if plus_is_space => b' ',
            c => c,
        });
    }
    String::from_utf8(out).ok()
}

fn write_response(stream: &UnixStream, response: &Response, head_only: bool, close: bool) -> io::Result<()> {
    use std::fmt::Write as _;
    let Response {
        status,
        body,
        kind,
        allow,
    } = response;
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(*status));
    // Writing to a string cannot fail.
    if *status != 204 {
        let _ = write!(head, "Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    }
    if let Some(allow) = allow {
        let _ = write!(head, "Allow: {allow}\r\n");
    }
    if close {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if !head_only && *status != 204 {
        bytes.extend_from_slice(body);
    }
    write_all(stream, &bytes)
}

/// Takes and forgets what the client is still sending, within bounds, so that it gets to read its answer: closing a
/// Unix socket with unread data resets it.
fn linger(stream: &UnixStream) {
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let deadline = Instant::now() + REQUEST_TIME / 5;
    let mut sink = [0u8; 16 * 1024];
    let mut budget = 8 * MAX_BODY;
    while budget > 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match (&mut &*stream).read(&mut sink) {
            Ok(0) | Err(_) => return,
            Ok(n) => budget = budget.saturating_sub(n),
        }
    }
}
