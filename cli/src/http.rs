//! HTTP/1.1 over a Unix stream socket, as much of it as the control socket needs (RFC 9112).
//!
//! A connection is served on the thread that calls [`serve`]: one request after the other, each whole in memory before
//! its handler sees it, each answer with its length. Everything a client sends is bounded: the head by [`MAX_HEAD`], a
//! body by [`MAX_BODY`], a whole request by [`REQUEST_TIME`] from its first byte. What is malformed or too large gets an
//! answer with the right status, and the connection is closed.
//!
//! [`Client`] is the other side.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;

mod client;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, ClientError, encode};
pub(crate) use server::{refuse, serve};

/// Longest request line with its header fields, in bytes.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// Most header fields.
const MAX_FIELDS: usize = 64;
/// Longest body of a request, in bytes.
pub(crate) const MAX_BODY: usize = 1024 * 1024;
/// Longest body of an answer, in bytes: a million flows fit.
const MAX_ANSWER: usize = 1 << 30;
/// How long a request may take from its first byte to its last, and a connection may stay idle.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(5);

/// A request as its handler sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    /// The method, as sent.
    pub(crate) method: String,
    /// The path's segments, decoded: `/v1/a%20b` is `["v1", "a b"]`.
    pub(crate) path: Vec<String>,
    /// The query's parameters, decoded, in their order.
    pub(crate) query: Vec<(String, String)>,
    /// The body, empty if there is none.
    pub(crate) body: Vec<u8>,
}

/// The content type of JSON.
const JSON: &str = "application/json";

/// An answer: a status and a body, JSON but for what is text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Its body, or nothing.
    pub(crate) body: Vec<u8>,
    /// What the body is.
    pub(crate) kind: &'static str,
    /// The methods to name in `Allow`, for 405.
    pub(crate) allow: Option<&'static str>,
}

impl Response {
    /// 200 with `value` as JSON.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        Self::with_status(200, value)
    }

    /// `status` with `value` as JSON.
    pub(crate) fn with_status(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status,
                body,
                kind: JSON,
                allow: None,
            },
            Err(e) => Self::error(500, format!("the answer cannot be written as JSON: {e}")),
        }
    }

    /// 200 with text of the content type `kind`.
    pub(crate) fn text(kind: &'static str, text: String) -> Self {
        Self {
            status: 200,
            body: text.into_bytes(),
            kind,
            allow: None,
        }
    }

    /// 204, with nothing to say.
    pub(crate) fn empty() -> Self {
        Self {
            status: 204,
            body: Vec::new(),
            kind: JSON,
            allow: None,
        }
    }

    /// `status` with an [`ApiError`](crate::api::ApiError).
    pub(crate) fn error(status: u16, message: impl Into<String>) -> Self {
        let error = serde_json::json!({ "error": message.into() });
        Self {
            status,
            body: error.to_string().into_bytes(),
            kind: JSON,
            allow: None,
        }
    }

    /// 405, naming the methods that the path has.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::error(405, format!("this path answers to {allow} only"))
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Why reading a message stopped.
#[derive(Debug, thiserror::Error)]
enum Broken {
    /// The other side closed between messages.
    #[error("the connection was closed")]
    Closed,
    /// The other side closed within a message.
    #[error("the message ended before it was complete")]
    Truncated,
    /// The other side took too long, having sent something or nothing.
    #[error("the other side took too long")]
    TimedOut {
        /// Whether a message had begun.
        begun: bool,
    },
    /// The message is malformed or too large.
    #[error("{1}")]
    Bad(u16, String),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How the end of a body is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    Length(usize),
    Chunked,
    /// To the end of the connection: answers only.
    Close,
}

/// The reading side of a connection, with what has been read too far.
struct Wire<'s> {
    stream: &'s UnixStream,
    buf: Vec<u8>,
    /// How long one message may take.
    limit: Duration,
    /// When the message that has begun must be complete.
    deadline: Option<Instant>,
}

impl<'s> Wire<'s> {
    fn new(stream: &'s UnixStream, limit: Duration) -> Self {
        Self {
            stream,
            buf: Vec::new(),
            limit,
            deadline: None,
        }
    }

    /// Reads more into `buf`; an end within a message is [`Broken::Truncated`].
    fn fill(&mut self) -> Result<(), Broken> {
        let begun = self.deadline.is_some() || !self.buf.is_empty();
        if begun && self.deadline.is_none() {
            self.deadline = Some(Instant::now() + self.limit);
        }
        let mut chunk = [0u8; 16 * 1024];
        loop {
            let left = self
                .deadline
                .map_or(self.limit, |d| d.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(Broken::TimedOut { begun });
            }
            self.stream.set_read_timeout(Some(left))?;
            match (&mut &*self.stream).read(&mut chunk) {
                Ok(0) if begun => return Err(Broken::Truncated),
                Ok(0) => return Err(Broken::Closed),
                Ok(n) => {
                    self.buf.extend_from_slice(&chunk[..n]);
                    if self.deadline.is_none() {
                        self.deadline = Some(Instant::now() + self.limit);
                    }
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Broken::TimedOut { begun });
                }
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(if begun { Broken::Truncated } else { Broken::Closed });
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Takes `n` bytes that are in `buf`.
    fn take(&mut self, n: usize) -> Vec<u8> {
        let rest = self.buf.split_off(n);
        std::mem::replace(&mut self.buf, rest)
    }

    /// The message is complete; what is left in `buf` begins the next one.
    fn done(&mut self) {
        self.deadline = None;
    }

    /// Reads a body of at most `max` bytes.
    fn body(&mut self, framing: Framing, max: usize) -> Result<Vec<u8>, Broken> {
        let too_large = || Broken::Bad(413, format!("the body is larger than {max} bytes"));
        match framing {
            Framing::Length(n) if n > max => Err(too_large()),
            Framing::Length(n) => {
                while self.buf.len() < n {
                    self.fill()?;
                }
                Ok(self.take(n))
            }
            Framing::Chunked => {
                let mut body = Vec::new();
                loop {
                    let size = self.chunk_size()?;
                    if size == 0 {
                        self.trailers()?;
                        return Ok(body);
                    }
                    if size > (max - body.len()) as u64 {
                        return Err(too_large());
                    }
                    let size = size as usize;
                    while self.buf.len() < size + 2 {
                        self.fill()?;
                    }
                    if self.buf[size..size + 2] != *b"\r\n" {
                        return Err(Broken::Bad(
                            400,
                            "a chunk is longer than its size says".to_owned(),
                        ));
                    }
                    body.extend_from_slice(&self.buf[..size]);
                    self.buf.drain(..size + 2);
                }
            }
            Framing::Close => loop {
                if self.buf.len() > max {
                    return Err(too_large());
                }
                match self.fill() {
                    Ok(()) => {}
                    Err(Broken::Truncated | Broken::Closed) => return Ok(std::mem::take(&mut self.buf)),
                    Err(e) => return Err(e),
                }
            },
        }
    }

    fn chunk_size(&mut self) -> Result<u64, Broken> {
        loop {
            match httparse::parse_chunk_size(&self.buf) {
                Ok(httparse::Status::Complete((used, size))) => {
                    self.buf.drain(..used);
                    return Ok(size);
                }
                Ok(httparse::Status::Partial) if self.buf.len() > 1024 => {
                    return Err(Broken::Bad(
                        400,
                        "a chunk's size takes more than 1024 bytes".to_owned(),
                    ));
                }
                Ok(httparse::Status::Partial) => self.fill()?,
                Err(e) => return Err(Broken::Bad(400, format!("bad chunk: {e}"))),
            }
        }
    }

    /// Skips the fields after the last chunk.
    fn trailers(&mut self) -> Result<(), Broken> {
        let mut skipped = 0;
        loop {
            match self.buf.windows(2).position(|w| w == b"\r\n") {
                Some(end) => {
                    self.buf.drain(..end + 2);
                    skipped += end + 2;
                    if end == 0 {
                        return Ok(());
                    }
                }
                None if self.buf.len() + skipped > MAX_HEAD => {
                    return Err(Broken::Bad(
                        431,
                        format!("trailer fields larger than {MAX_HEAD} bytes"),
                    ));
                }
                None => self.fill()?,
            }
            if skipped > MAX_HEAD {
                return Err(Broken::Bad(
                    431,
                    format!("trailer fields larger than {MAX_HEAD} bytes"),
                ));
            }
        }
    }
}

/// How the body is framed according to the header fields; `None` if they name nothing.
fn framing(headers: &[httparse::Header<'_>]) -> Result<Option<Framing>, Broken> {
    let bad = |status, message: &str| Err(Broken::Bad(status, message.to_owned()));
    let mut found = None;
    let mut encoded = false;
    for h in headers {
        if h.name.eq_ignore_ascii_case("transfer-encoding") {
            if encoded || !h.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return bad(501, "no transfer encoding but `chunked` is understood");
            }
            encoded = true;
        } else if h.name.eq_ignore_ascii_case("content-length") {
            let text = h.value.trim_ascii();
            if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
                return bad(400, "Content-Length is not a number");
            }
            // Digits only, so what does not fit is too large for any bound.
            let n = std::str::from_utf8(text)
                .ok()
                .and_then(|t| t.parse().ok())
                .unwrap_or(usize::MAX);
            match found {
                Some(Framing::Length(m)) if m != n => return bad(400, "two Content-Length fields disagree"),
                _ => found = Some(Framing::Length(n)),
            }
        }
    }
    match (encoded, found) {
        // A message with both is how requests are smuggled past proxies (RFC 9112, section 6.1).
        (true, Some(_)) => bad(400, "both Transfer-Encoding and Content-Length"),
        (true, None) => Ok(Some(Framing::Chunked)),
        (false, found) => Ok(found),
    }
}

/// Whether a field such as `Connection` lists `token`.
fn lists(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    headers
        .iter()
        .filter(|h| h.name.eq_ignore_ascii_case(name))
        .flat_map(|h| h.value.split(|&c| c == b','))
        .any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn write_all(mut stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}
