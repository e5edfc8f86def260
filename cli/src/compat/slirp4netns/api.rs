//! The API's socket: one request a connection, one answer, and the end.
//!
//! The loop that serves it is not the one that moves packets. Nobody can hold it up: nothing is waited for but events, a
//! request is bounded in length and in time, and so are the connections, of which the one that has said nothing whole for the
//! longest makes room for a new one: at once where there are many, after a while where there is no descriptor for one more. An answer goes out as soon as the request is a whole JSON value, whether or not more
//! comes; what comes then is read and forgotten for a while, since a connection that is closed with something unread takes
//! the answer with it.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pontoon_switch::calls::Call;
use rustix::event::PollFlags;
use serde_json::Value;

use super::forwards::Refusal;
use super::target::remove_stale;
use crate::limits::{Blocking, Door, Exhausted};

/// A request that has as many bytes is too long.
const MAX_REQUEST: usize = 4096;
/// Connections at once.
const MAX_CLIENTS: usize = 64;
/// How long a request, and then its answer, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long, and how much of, what comes behind a request is read.
const LINGER: Duration = Duration::from_millis(500);
const MAX_LEFTOVER: usize = 1 << 20;
/// How long a client is heard though there is no descriptor for the next.
const HEARING: Duration = Duration::from_millis(100);
/// Longest path of a Unix socket: `sun_path` holds its zero, too.
const MAX_PATH: usize = 107;

/// The system calls of this.
pub(super) const CALLS: &[Call] = &[
    Call::any(libc::SYS_ppoll, "the API's loop waits"),
    #[cfg(target_arch = "x86_64")]
    Call::any(libc::SYS_poll, "likewise"),
    Call::any(libc::SYS_accept4, "a client of the API"),
    Call::any(libc::SYS_read, "its request"),
    Call::any(libc::SYS_recvfrom, "likewise"),
    Call::any(libc::SYS_write, "its answer; the byte that says ready"),
    Call::any(libc::SYS_sendto, "its answer"),
    Call::any(libc::SYS_shutdown, "the end of the answer"),
    Call::any(libc::SYS_close, "the end of a connection"),
    Call::any(libc::SYS_eventfd2, "the descriptor in reserve"),
];

/// The socket and its clients.
#[derive(Debug)]
pub(super) struct Server {
    listener: UnixListener,
    door: Door,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    state: State,
    came: Instant,
    until: Instant,
}

/// How far a client is.
#[derive(Debug)]
enum State {
    /// This much of the request has come.
    Asking(Vec<u8>),
    /// This much of the answer is still to go.
    Answering(Vec<u8>),
    /// The answer is out; this much has come since.
    Leaving(usize),
}

/// What became of a client's turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Stays,
    Goes,
}

impl Server {
    /// Listens at `path`, for the user that this process has alone. A socket that lies there is removed.
    pub(super) fn listen(path: &Path) -> Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        if path.as_os_str().as_bytes().len() > MAX_PATH {
            bail!(
                "the specified API socket path is too long (>= {}): {}",
                MAX_PATH + 1,
                path.display()
            );
        }
        let listen = || {
            remove_stale(path)?;
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok::<_, io::Error>(listener)
        };
        let listener = listen().with_context(|| format!("cannot listen at {}", path.display()))?;
        Ok(Self {
            listener,
            door: Door::default(),
            clients: Vec::new(),
        })
    }

    /// What is to be polled, for what: the listener first, unless it is to be left alone.
    pub(super) fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let clients = self.clients.iter().map(|c| {
            let flags = match c.state {
                State::Asking(_) | State::Leaving(_) => PollFlags::IN,
                State::Answering(_) => PollFlags::OUT,
            };
            (c.stream.as_fd(), flags)
        });
        let listener = self
            .door
            .is_open()
            .then(|| (self.listener.as_fd(), PollFlags::IN));
        listener.into_iter().chain(clients)
    }

    /// When [`Server::serve`] is to be called though nothing has happened.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let clients = self.clients.iter().map(|c| c.until);
        clients.chain(self.door.deadline()).min()
    }

    /// Goes on with whoever can be gone on with; `answer` answers requests.
    pub(super) fn serve(&mut self, now: Instant, mut answer: impl FnMut(&Value) -> Value) {
        self.clients
            .retain_mut(|client| client.go_on(now, &mut answer) == Then::Stays);
        self.door.prepare(now);
        while self.door.is_open() {
            let stream = match self.door.accept(&self.listener, Blocking::No) {
                Ok(Some(stream)) => stream,
                Ok(None) => return,
                Err(Exhausted) => match self.clients.first() {
                    Some(oldest) if now >= oldest.came + HEARING => {
                        self.clients.remove(0);
                        continue;
                    }
                    Some(_) | None => return self.door.shut(now),
                },
            };
            let mut client = Client {
                stream,
                state: State::Asking(Vec::new()),
                came: now,
                until: now + PATIENCE,
            };
            if client.go_on(now, &mut answer) == Then::Goes {
                continue;
            }
            if self.clients.len() >= MAX_CLIENTS {
                // In the order of their coming: the first has had the most time.
                self.clients.remove(0);
            }
            self.clients.push(client);
        }
    }
}

impl Client {
    fn go_on(&mut self, now: Instant, answer: &mut impl FnMut(&Value) -> Value) -> Then {
        loop {
            match &mut self.state {
                State::Asking(request) => {
                    let end = match read(&mut self.stream, request) {
                        Ok(end) => end || now >= self.until,
                        Err(_) => return Then::Goes,
                    };
                    let Some(said) = understood(request, end) else {
                        return Then::Stays;
                    };
                    let value = match said {
                        Ok(request) => answer(&request),
                        Err(refusal) => refusal.answer(),
                    };
                    self.state = State::Answering(value.to_string().into_bytes());
                    self.until = now + PATIENCE;
                }
                State::Answering(text) => match self.stream.write(text) {
                    Ok(n) if n == text.len() => {
                        if self.stream.shutdown(Shutdown::Write).is_err() {
                            return Then::Goes;
                        }
                        self.state = State::Leaving(0);
                        self.until = now + LINGER;
                    }
                    Ok(n) => drop(text.drain(..n)),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock && now < self.until => {
                        return Then::Stays;
                    }
                    Err(_) => return Then::Goes,
                },
                State::Leaving(left) => match self.stream.read(&mut [0; 4096]) {
                    Ok(n) if n > 0 && *left < MAX_LEFTOVER => *left += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock && now < self.until => {
                        return Then::Stays;
                    }
                    Ok(_) | Err(_) => return Then::Goes,
                },
            }
        }
    }
}

/// Reads what there is, as far as it matters; true at the end of what comes.
fn read(stream: &mut UnixStream, request: &mut Vec<u8>) -> io::Result<bool> {
    let mut buf = [0; MAX_REQUEST];
    while request.len() < MAX_REQUEST {
        match stream.read(&mut buf) {
            Ok(0) => return Ok(true),
            Ok(n) => request.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

/// The request, once it is whole, or what is wrong with it; `end` says that no more will come.
fn understood(request: &[u8], end: bool) -> Option<Result<Value, Refusal>> {
    if request.len() >= MAX_REQUEST {
        let detail = format!("a request has less than {MAX_REQUEST} bytes");
        return Some(Err(Refusal::new("too large message", detail)));
    }
    let bad = |detail: &str| Some(Err(Refusal::new("cannot parse JSON", detail)));
    match serde_json::Deserializer::from_slice(request)
        .into_iter::<Value>()
        .next()
    {
        Some(Ok(value)) => Some(Ok(value)),
        Some(Err(e)) if e.is_eof() && end => bad("the request is not whole"),
        None if end => bad("there is no request"),
        Some(Err(e)) if e.is_eof() => None,
        None => None,
        Some(Err(e)) => bad(&e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    struct Api {
        server: Server,
        directory: tempfile::TempDir,
    }

    impl Api {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("directory");
            let server = Server::listen(&directory.path().join("api")).expect("listen");
            Self { server, directory }
        }

        fn connect(&self) -> UnixStream {
            let stream = UnixStream::connect(self.directory.path().join("api")).expect("connect");
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("timeout");
            stream
        }

        fn serve(&mut self, now: Instant) {
            self.server
                .serve(now, |request| serde_json::json!({"return": request}));
        }

        /// What the client is told, when the loop has had its turns.
        fn told(&mut self, client: &mut UnixStream) -> String {
            let mut text = String::new();
            self.serve(Instant::now());
            client.read_to_string(&mut text).expect("an answer and its end");
            text
        }
    }

    #[test]
    fn an_answer_comes_at_once_without_the_end_of_what_is_asked() {
        let mut api = Api::new();
        let mut client = api.connect();
        client.write_all(br#"{"a": 1}"#).expect("write");
        assert_eq!(api.told(&mut client), r#"{"return":{"a":1}}"#);
        drop(client);
        api.serve(Instant::now());
        assert!(api.server.clients.is_empty());
    }

    #[test]
    fn a_request_may_come_in_pieces() {
        let mut api = Api::new();
        let mut client = api.connect();
        for piece in ["{\"a\"", ": ", "1"] {
            client.write_all(piece.as_bytes()).expect("write");
            api.serve(Instant::now());
            assert!(matches!(api.server.clients[0].state, State::Asking(_)));
        }
        client.write_all(b"}\n").expect("write");
        assert_eq!(api.told(&mut client), r#"{"return":{"a":1}}"#);
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        let mut api = Api::new();
        for (said, end, words) in [
            ("badjson\n".to_owned(), false, "bad request: cannot parse JSON"),
            ("{\"execute\"".to_owned(), true, "bad request: cannot parse JSON"),
            (String::new(), true, "bad request: cannot parse JSON"),
            ("\0".repeat(MAX_REQUEST), false, "bad request: too large message"),
            (" ".repeat(100_000), false, "bad request: too large message"),
        ] {
            let mut client = api.connect();
            client.write_all(said.as_bytes()).expect("write");
            if end {
                client.shutdown(Shutdown::Write).expect("shutdown");
            }
            let told: Value = serde_json::from_str(&api.told(&mut client)).expect("JSON");
            assert_eq!(told["error"]["desc"], words);
        }
    }

    #[test]
    fn the_silent_and_the_many_hold_up_nobody() {
        let mut api = Api::new();
        let begun = Instant::now();
        let mut silent: Vec<UnixStream> = Vec::new();
        for _ in 0..1000 {
            silent.push(api.connect());
            api.serve(begun);
        }
        assert_eq!(api.server.clients.len(), MAX_CLIENTS);
        let mut client = api.connect();
        client.write_all(b"[]").expect("write");
        api.serve(begun);
        let mut text = [0; 13];
        client.read_exact(&mut text).expect("an answer");
        assert_eq!(&text, br#"{"return":[]}"#);
        assert_eq!(api.server.deadline(), Some(begun + LINGER));
        api.serve(begun + PATIENCE);
        let mut told = String::new();
        let last = silent.last_mut().expect("a thousand");
        last.read_to_string(&mut told).expect("an answer");
        assert!(told.contains("cannot parse JSON"), "{told}");
        api.serve(begun + PATIENCE + LINGER);
        assert!(api.server.clients.is_empty());
    }

    /// The listener is not polled while nothing can be done for who waits there, and is again when it is time.
    #[test]
    fn clients_for_whom_there_is_no_descriptor_wait() {
        let mut api = Api::new();
        let mut client = api.connect();
        client.write_all(b"[]").expect("write");
        let begun = Instant::now();
        api.server.door.shut(begun);
        api.serve(begun);
        assert_eq!(api.server.interests().count(), 0);
        let again = api.server.deadline().expect("a time to look again");
        assert!(again > begun && api.server.clients.is_empty());
        api.serve(again);
        assert_eq!(api.server.interests().count(), 2);
        assert_eq!(api.told(&mut client), r#"{"return":[]}"#);
    }

    /// Whatever the caller's umask is.
    #[test]
    fn only_the_owner_may_connect() {
        let api = Api::new();
        let file = std::fs::metadata(api.directory.path().join("api")).expect("a file");
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_socket_that_nobody_listens_at_is_replaced_and_a_file_is_not() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("api");
        drop(UnixListener::bind(&path).expect("bind"));
        let server = Server::listen(&path).expect("listen");
        let (fd, flags) = server.interests().next().expect("the listener");
        assert_eq!(flags, PollFlags::IN);
        assert_eq!(
            poll(
                &mut [PollFd::from_borrowed_fd(fd, flags)],
                Some(&Timespec::default())
            ),
            Ok(0)
        );
        let file = directory.path().join("file");
        std::fs::write(&file, "mine").expect("write");
        assert!(Server::listen(&file).is_err());
        assert_eq!(std::fs::read(&file).expect("still there"), b"mine");
        let long = directory.path().join("x".repeat(200));
        let e = Server::listen(&long).expect_err("too long").to_string();
        assert!(e.contains("API socket path is too long"), "{e}");
    }
}
