//! Questions on their way to the host's resolvers.
//!
//! Each question has a socket of its own, so a source port of the host's random choice, and an identification of ours
//! (RFC 5452): an answer counts only from a resolver that was asked, to that port, with that identification and that
//! question. No question waits for another.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pontoon_switch::{Instant, MacAddr, Ready};

use super::message::{self, Question, rcode};
use super::stream::ConnId;
use crate::host::{Connect, IpVersion, Kind, TcpHost, TcpSocket, Token, UdpHost, UdpSend, UdpSocket};

/// Questions outstanding at most, in all and of one container.
pub(super) const OUTSTANDING: usize = 1024;
pub(super) const SHARE: u16 = 256;
/// The same where descriptors are few: each question has one.
const LEAST_OUTSTANDING: usize = 16;
/// How long a resolver has, by UDP and by TCP, before the next one is asked, and how long all have.
const UDP_WAIT: Duration = Duration::from_secs(2);
const TCP_WAIT: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(8);
/// Attempts at most for one question; a refusal makes one an attempt without a wait.
const ATTEMPTS: usize = 8;
/// The largest message.
const MESSAGE: usize = 65_535;

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Client {
    /// By UDP.
    Udp {
        /// Its Ethernet address.
        mac: MacAddr,
        /// Its address and port.
        addr: SocketAddr,
        /// The gateway's address that it asked.
        local: IpAddr,
    },
    /// By TCP.
    Tcp {
        /// Its Ethernet address.
        mac: MacAddr,
        /// Its connection.
        conn: ConnId,
    },
}

impl Client {
    fn mac(&self) -> MacAddr {
        match *self {
            Self::Udp { mac, .. } | Self::Tcp { mac, .. } => mac,
        }
    }
}

/// An answer to be delivered, with the client's own identification.
pub(super) type Answer = (Client, Vec<u8>);

/// Why a question was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// Too many are outstanding.
    Full,
    /// The container has too many outstanding.
    Share,
    /// The host has no socket left to ask by; the client has been told.
    Exhausted,
}

enum Upstream<H: UdpHost + TcpHost> {
    None,
    Udp(IpVersion, H::Udp),
    Tcp(TcpQuery<H::Tcp>),
}

struct TcpQuery<S> {
    socket: S,
    connected: bool,
    /// Bytes sent of the length and the message.
    sent: usize,
    received: Vec<u8>,
}

struct Query<H: UdpHost + TcpHost> {
    client: Client,
    client_id: u16,
    id: u16,
    question: Question,
    /// The client's message with our identification, behind its length.
    framed: Vec<u8>,
    upstream: Upstream<H>,
    asked: Vec<SocketAddr>,
    attempts: usize,
    /// When the present attempt ends.
    next: Instant,
    /// When all ends.
    end: Instant,
}

/// One place for a question; the generation tells a late event from one for the present question.
struct Slot<H: UdpHost + TcpHost> {
    generation: u32,
    query: Option<Query<H>>,
}

/// What became of the questions, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ForwardStats {
    /// Messages sent to resolvers, repetitions included.
    pub sent: u64,
    /// Questions answered by a resolver.
    pub answered: u64,
    /// Questions that ended in SERVFAIL.
    pub failed: u64,
    /// Attempts that ended by time.
    pub timeouts: u64,
    /// Messages received that answered nothing that was asked.
    pub mismatched: u64,
}

/// The questions that are outstanding.
pub(super) struct Forwarder<H: UdpHost + TcpHost> {
    slots: Vec<Slot<H>>,
    free: Vec<u32>,
    outstanding: usize,
    /// Bounds of that, in all and of one container.
    bounds: (usize, u16),
    timers: BTreeSet<(Instant, u32)>,
    shares: HashMap<MacAddr, u16>,
    /// Outstanding questions by UDP, to know a client's repetition.
    asking: HashMap<(SocketAddr, u16), u32>,
    resolvers: Vec<SocketAddr>,
    random: RandomState,
    drawn: u64,
    scratch: Box<[u8]>,
    pub(super) stats: ForwardStats,
}

impl<H: UdpHost + TcpHost> Forwarder<H> {
    pub(super) fn new(resolvers: Vec<SocketAddr>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            outstanding: 0,
            bounds: (OUTSTANDING, SHARE),
            timers: BTreeSet::new(),
            shares: HashMap::new(),
            asking: HashMap::new(),
            resolvers,
            random: RandomState::new(),
            drawn: 0,
            scratch: vec![0; MESSAGE].into(),
            stats: ForwardStats::default(),
        }
    }

    pub(super) fn set_resolvers(&mut self, resolvers: Vec<SocketAddr>) {
        self.resolvers = resolvers;
    }

    pub(super) fn limit(&mut self, questions: usize) {
        let all = questions.clamp(LEAST_OUTSTANDING, OUTSTANDING);
        self.bounds = (all, SHARE.min(all as u16 / 4));
    }

    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    /// Sends `query` on its way, or puts its failure into `done`.
    pub(super) fn ask(
        &mut self,
        host: &mut H,
        now: Instant,
        client: Client,
        query: &[u8],
        question: Question,
        done: &mut Vec<Answer>,
    ) -> Result<(), Refusal> {
        let client_id = message::id(query);
        if let Client::Udp { addr, .. } = client
            && let Some(&at) = self.asking.get(&(addr, client_id))
            && self.slots[at as usize]
                .query
                .as_ref()
                .is_some_and(|q| q.question == question)
        {
            // The client repeats itself; so do we, in our own time.
            return Ok(());
        }
        if self.resolvers.is_empty() {
            self.stats.failed += 1;
            done.push((client, message::error(query, rcode::SERVER_FAILURE)));
            return Ok(());
        }
        let (all, of_one) = self.bounds;
        if self.outstanding >= all {
            return Err(Refusal::Full);
        }
        let share = self.shares.entry(client.mac()).or_default();
        if *share >= of_one {
            return Err(Refusal::Share);
        }
        *share += 1;
        self.outstanding += 1;

        self.drawn += 1;
        let id = self.random.hash_one(self.drawn) as u16;
        let mut framed = Vec::with_capacity(2 + query.len());
        framed.extend_from_slice(&(query.len() as u16).to_be_bytes());
        framed.extend_from_slice(query);
        message::set_id(&mut framed[2..], id);
        let query = Query {
            client,
            client_id,
            id,
            question,
            framed,
            upstream: Upstream::None,
            asked: Vec::new(),
            attempts: 0,
            next: now,
            end: now + PATIENCE,
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                query: None,
            });
            (self.slots.len() - 1) as u32
        });
        self.slots[at as usize].query = Some(query);
        if let Client::Udp { addr, .. } = client {
            self.asking.insert((addr, client_id), at);
        }
        match self.attempt(host, now, at, done) {
            Attempt::Made | Attempt::GivenUp => Ok(()),
            Attempt::Exhausted => Err(Refusal::Exhausted),
        }
    }

    /// A socket of a question has something to say.
    pub(super) fn ready(
        &mut self,
        host: &mut H,
        now: Instant,
        token: Token,
        ready: Ready,
        done: &mut Vec<Answer>,
    ) {
        let Some(slot) = self.slots.get_mut(token.index as usize) else {
            return;
        };
        if !token.is_of(slot.generation) {
            return;
        }
        let Some(query) = slot.query.as_mut() else {
            return;
        };
        let outcome = match &mut query.upstream {
            Upstream::None => return,
            Upstream::Udp(_, socket) => {
                let heard = Heard {
                    id: query.id,
                    question: &query.question,
                    asked: &query.asked,
                };
                receive_udp(socket, ready, &heard, &mut self.scratch, &mut self.stats)
            }
            Upstream::Tcp(tcp) => {
                let moved = move_tcp(tcp, &query.framed, &mut self.scratch);
                match moved {
                    Outcome::Answer(m) if !message::answers(&m, query.id, &query.question) => {
                        self.stats.mismatched += 1;
                        Outcome::Failed
                    }
                    Outcome::Answer(_) | Outcome::Failed | Outcome::Wait => moved,
                }
            }
        };
        match outcome {
            Outcome::Wait => {}
            Outcome::Failed => {
                self.attempt(host, now, token.index, done);
            }
            Outcome::Answer(m) => {
                let unwilling = matches!(message::code(&m), rcode::SERVER_FAILURE | rcode::REFUSED);
                if unwilling && query.attempts < self.resolvers.len() {
                    // Another resolver may know better.
                    self.attempt(host, now, token.index, done);
                } else {
                    self.stats.answered += 1;
                    self.finish(token.index, m, done);
                }
            }
        }
    }

    /// Ends the attempts whose time is over.
    pub(super) fn flush(&mut self, host: &mut H, now: Instant, done: &mut Vec<Answer>) {
        while let Some(&(at, index)) = self.timers.first() {
            if at > now {
                break;
            }
            self.stats.timeouts += 1;
            self.attempt(host, now, index, done);
        }
    }

    /// Asks the next resolver, or gives up and answers so.
    fn attempt(&mut self, host: &mut H, now: Instant, at: u32, done: &mut Vec<Answer>) -> Attempt {
        let slot = &mut self.slots[at as usize];
        let token = Token {
            kind: Kind::Dns,
            index: at,
            generation: slot.generation,
        };
        let Some(query) = slot.query.as_mut() else {
            return Attempt::GivenUp;
        };
        let mut came_to = Attempt::GivenUp;
        self.timers.remove(&(query.next, at));
        while query.attempts < ATTEMPTS && now < query.end && !self.resolvers.is_empty() {
            let resolver = self.resolvers[query.attempts % self.resolvers.len()];
            query.attempts += 1;
            let (sent, wait) = match query.client {
                Client::Udp { .. } => (ask_udp(host, token, query, resolver), UDP_WAIT),
                Client::Tcp { .. } => (ask_tcp(host, token, query, resolver), TCP_WAIT),
            };
            if let Err(error) = sent {
                tracing::debug!(%resolver, %error, "name server is out of reach");
                if is_exhaustion(&error) {
                    came_to = Attempt::Exhausted;
                }
                continue;
            }
            self.stats.sent += 1;
            if !query.asked.contains(&resolver) {
                query.asked.push(resolver);
            }
            query.next = (now + wait).min(query.end);
            self.timers.insert((query.next, at));
            return Attempt::Made;
        }
        let mut failure = message::error(&query.framed[2..], rcode::SERVER_FAILURE);
        message::set_id(&mut failure, query.client_id);
        self.stats.failed += 1;
        self.finish(at, failure, done);
        came_to
    }

    /// Frees the question's place and hands `response` on.
    fn finish(&mut self, at: u32, mut response: Vec<u8>, done: &mut Vec<Answer>) {
        let slot = &mut self.slots[at as usize];
        let Some(query) = slot.query.take() else {
            return;
        };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(at);
        self.outstanding -= 1;
        self.timers.remove(&(query.next, at));
        if let Client::Udp { addr, .. } = query.client
            && self.asking.get(&(addr, query.client_id)) == Some(&at)
        {
            self.asking.remove(&(addr, query.client_id));
        }
        let mac = query.client.mac();
        if let Some(share) = self.shares.get_mut(&mac) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(&mac);
            }
        }
        message::set_id(&mut response, query.client_id);
        done.push((query.client, response));
    }
}

/// What came of asking a resolver.
enum Attempt {
    /// It has been asked.
    Made,
    /// None is left to be asked; the client has been told.
    GivenUp,
    /// The same, as the host has no socket left.
    Exhausted,
}

fn ask_udp<H: UdpHost + TcpHost>(
    host: &mut H,
    token: Token,
    query: &mut Query<H>,
    resolver: SocketAddr,
) -> io::Result<()> {
    let version = IpVersion::of(resolver.ip());
    // The socket is kept for a repetition: a late answer to the first counts too.
    let mut socket = match std::mem::replace(&mut query.upstream, Upstream::None) {
        Upstream::Udp(v, socket) if v == version => socket,
        Upstream::Udp(..) | Upstream::Tcp(_) | Upstream::None => host.udp_open(token, version, None)?,
    };
    let sent = match socket.send(&UdpSend::to(resolver), &query.framed[2..]) {
        // As good as lost on the way: the repetition mends it.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
        sent => sent,
    };
    query.upstream = Upstream::Udp(version, socket);
    sent
}

fn ask_tcp<H: UdpHost + TcpHost>(
    host: &mut H,
    token: Token,
    query: &mut Query<H>,
    resolver: SocketAddr,
) -> io::Result<()> {
    // Closed first, so that a question never has two descriptors.
    query.upstream = Upstream::None;
    let (socket, connect) = host.tcp_connect(token, resolver)?;
    let mut tcp = TcpQuery {
        socket,
        connected: connect == Connect::Done,
        sent: 0,
        received: Vec::new(),
    };
    if tcp.connected {
        send_tcp(&mut tcp, &query.framed)?;
    }
    query.upstream = Upstream::Tcp(tcp);
    Ok(())
}

/// True for the errors of a host that has no descriptor or memory left.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

enum Outcome {
    Wait,
    Failed,
    Answer(Vec<u8>),
}

/// What an answer is held against.
struct Heard<'a> {
    id: u16,
    question: &'a Question,
    asked: &'a [SocketAddr],
}

impl Heard<'_> {
    fn is_asked(&self, remote: SocketAddr) -> bool {
        self.asked
            .iter()
            .any(|a| a.ip() == remote.ip() && a.port() == remote.port())
    }
}

fn receive_udp<S: UdpSocket>(
    socket: &mut S,
    ready: Ready,
    heard: &Heard<'_>,
    scratch: &mut [u8],
    stats: &mut ForwardStats,
) -> Outcome {
    loop {
        match socket.recv(scratch) {
            Ok(got) => {
                let m = &scratch[..got.len.min(scratch.len())];
                if heard.is_asked(got.remote) && message::answers(m, heard.id, heard.question) {
                    return Outcome::Answer(m.to_vec());
                }
                stats.mismatched += 1;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let mut refused = false;
    if ready.error {
        while let Ok(Some(error)) = socket.recv_error(scratch) {
            // Only the resolver that is being waited for; the others have been given up already.
            refused |= heard.asked.last().is_some_and(|a| a.ip() == error.remote.ip());
        }
    }
    if refused { Outcome::Failed } else { Outcome::Wait }
}

fn send_tcp<S: TcpSocket>(tcp: &mut TcpQuery<S>, framed: &[u8]) -> io::Result<()> {
    while tcp.sent < framed.len() {
        match tcp.socket.send(&framed[tcp.sent..]) {
            Ok(0) => break,
            Ok(n) => tcp.sent += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn move_tcp<S: TcpSocket>(tcp: &mut TcpQuery<S>, framed: &[u8], scratch: &mut [u8]) -> Outcome {
    if !tcp.connected {
        match tcp.socket.connected() {
            Ok(true) => tcp.connected = true,
            Ok(false) => return Outcome::Wait,
            Err(_) => return Outcome::Failed,
        }
    }
    if send_tcp(tcp, framed).is_err() {
        return Outcome::Failed;
    }
    loop {
        match tcp.socket.peek(0, scratch) {
            Ok(0) => return Outcome::Failed,
            Ok(n) => {
                tcp.received.extend_from_slice(&scratch[..n]);
                if tcp.socket.consume(n).is_err() {
                    return Outcome::Failed;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Outcome::Wait,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Outcome::Failed,
        }
        if let Some(length) = tcp.received.first_chunk::<2>() {
            let end = 2 + usize::from(u16::from_be_bytes(*length));
            if tcp.received.len() >= end {
                return Outcome::Answer(tcp.received[2..end].to_vec());
            }
        }
    }
}
