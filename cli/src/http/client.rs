//! The client's side of a connection.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Broken, Framing, MAX_ANSWER, MAX_FIELDS, MAX_HEAD, Wire, framing, write_all};

/// How long an answer may take: an attachment starts a process and waits for it.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing listens there.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// The request could not be sent whole.
    #[error("cannot send the request: {0}")]
    Send(std::io::Error),
    /// The connection was closed without a byte of an answer.
    #[error("the connection was closed without an answer")]
    Closed,
    /// The answer is malformed, too large, late, or ended early.
    #[error("cannot read the answer: {0}")]
    Answer(String),
}

/// A connection to a control socket, for one request.
pub(crate) struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the socket at `path`.
    pub(crate) fn connect(path: &Path) -> Result<Self, ClientError> {
        UnixStream::connect(path)
            .map(|stream| Self { stream })
            .map_err(ClientError::Connect)
    }

    /// Makes a client of a connected socket.
    #[cfg(test)]
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Sends one request and reads its answer: status and body. `target` is encoded already.
    pub(crate) fn call(
        self,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
    ) -> Result<(u16, Vec<u8>), ClientError> {
        let stream = &self.stream;
        stream
            .set_write_timeout(Some(ANSWER_TIME))
            .map_err(ClientError::Send)?;
        let mut request =
            format!("{method} {target} HTTP/1.1\r\nHost: pontoon\r\nConnection: close\r\n").into_bytes();
        if let Some(body) = body {
            let fields = format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            );
            request.extend_from_slice(fields.as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body.unwrap_or_default());
        let sent = write_all(stream, &request);
        // A server that refuses early answers and closes: its answer says more than a broken pipe.
        let answer = read_answer(&mut Wire::new(stream, ANSWER_TIME), method == "HEAD");
        match (sent, answer) {
            (_, Ok(answer)) => Ok(answer),
            (_, Err(Broken::Closed)) => Err(ClientError::Closed),
            (Err(e), Err(_)) => Err(ClientError::Send(e)),
            (Ok(()), Err(e)) => Err(ClientError::Answer(e.to_string())),
        }
    }
}

fn read_answer(wire: &mut Wire<'_>, head_only: bool) -> Result<(u16, Vec<u8>), Broken> {
    loop {
        if !wire.buf.is_empty() {
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut parsed = httparse::Response::new(&mut fields);
            match parsed.parse(&wire.buf) {
                Ok(httparse::Status::Complete(used)) => {
                    let status = parsed.code.unwrap_or_default();
                    let framing = framing(parsed.headers)?.unwrap_or(Framing::Close);
                    wire.buf.drain(..used);
                    if (100..200).contains(&status) {
                        continue;
                    }
                    let none = head_only || matches!(status, 204 | 304);
                    let body = if none {
                        Vec::new()
                    } else {
                        wire.body(framing, MAX_ANSWER)?
                    };
                    return Ok((status, body));
                }
                Ok(httparse::Status::Partial) if wire.buf.len() > MAX_HEAD => {
                    return Err(Broken::Bad(
                        431,
                        format!("its head is larger than {MAX_HEAD} bytes"),
                    ));
                }
                Ok(httparse::Status::Partial) => {}
                Err(e) => return Err(Broken::Bad(400, format!("this is not an HTTP answer: {e}"))),
            }
        }
        wire.fill()?;
    }
}

/// `s` as one segment of a path or one value of a query.
pub(crate) fn encode(s: &str) -> String {
    s.bytes()
        .map(|c| match c {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(c).to_string(),
            c => format!("%{c:02X}"),
        })
        .collect()
}
