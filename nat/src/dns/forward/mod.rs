//! Questions on their way to the host's resolvers.
//!
//! # Theory of operation
//!
//! Each question is a slot with a timer of its own; none waits for another. It goes to the resolvers in order, by UDP from
//! a socket of the [`pool`], by TCP on a connection of its own ([`tcp`]).
//!
//! *Forged answers* (RFC 5452). An answer counts only from a resolver that was asked, to the socket that asked it, with the
//! identification and the question. Identifications are random for each question; so are ports, as the host chooses them,
//! for each question while there are few, and for no more than a few hundred while there are many.
//!
//! *Bounds.* Questions are bounded in all and for each container, which gets at most half of what is free, so that there is
//! always something left. When a container's share is used up, its oldest question gives way, with SERVFAIL, if it has
//! waited for longer than a resolver takes to answer: names whose servers are silent do not keep others from being asked
//! for. Else the new one is refused.

mod pool;
mod query;
mod tcp;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use pontoon_switch::{Instant, PortId, Ready};

use super::message::{self, Question, rcode};
use crate::host::{IpVersion, Kind, TcpHost, Token, UdpHost};
use crate::slab::{Key, Slab};
use pool::{Draw, Pool};
pub(super) use query::{Answer, Client, Refusal};
use query::{Attempt, Query, Upstream};
use tcp::{Moved, TcpQuery};

/// Questions outstanding at most, in all and of one container: so many that 5,000 a second of one container's may take
/// over half a second each. One has about 500 bytes.
pub(super) const OUTSTANDING: usize = 16_384;
pub(super) const SHARE: usize = 4096;
/// Sockets at most: of each IP version for UDP, and as many again that wait for their last answers; and connections for
/// TCP, of which a container may have half.
const POOL: usize = 32;
const STREAMS: usize = 128;
/// The same where descriptors are few.
const LEAST_POOL: usize = 2;
const LEAST_STREAMS: usize = 8;
/// How long a resolver has, by UDP and by TCP, before the next one is asked, and how long all have.
const UDP_WAIT: Duration = Duration::from_secs(2);
const TCP_WAIT: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(8);
/// Attempts at most for one question; a refusal makes one an attempt without a wait.
const ATTEMPTS: usize = 8;
/// The largest message.
const MESSAGE: usize = 65_535;
/// Messages and errors read of one socket before the others have their turn.
const READ_BUDGET: usize = 256;
/// In a token's index: it is that of a question with a connection of its own, not that of a socket of the pool.
const STREAM: u32 = 1 << 31;

/// What a container has outstanding.
#[derive(Debug, Default)]
struct Share {
    /// Since when, and where.
    questions: BTreeSet<(Instant, u32)>,
    /// Those by TCP.
    streams: usize,
}

/// What became of the questions, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ForwardStats {
    /// Messages sent to resolvers, repetitions included.
    pub sent: u64,
    /// Sockets opened for them.
    pub opened: u64,
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
    queries: Slab<Query<H::Tcp>>,
    pool: Pool<H::Udp>,
    streams: usize,
    most_streams: usize,
    timers: BTreeSet<(Instant, u32)>,
    shares: HashMap<PortId, Share>,
    /// Outstanding questions by UDP, to know a client's repetition.
    asking: HashMap<(SocketAddr, u16), Key>,
    /// Sockets of the pool that were left before they were empty.
    unread: Vec<Token>,
    resolvers: Vec<SocketAddr>,
    draw: Draw,
    scratch: Box<[u8]>,
    pub(super) stats: ForwardStats,
}

impl<H: UdpHost + TcpHost> Forwarder<H> {
    pub(super) fn new(resolvers: Vec<SocketAddr>) -> Self {
        Self {
            queries: Slab::default(),
            pool: Pool::new(POOL),
            streams: 0,
            most_streams: STREAMS,
            timers: BTreeSet::new(),
            shares: HashMap::new(),
            asking: HashMap::new(),
            unread: Vec::new(),
            resolvers,
            draw: Draw::default(),
            scratch: vec![0; MESSAGE].into(),
            stats: ForwardStats::default(),
        }
    }

    pub(super) fn set_resolvers(&mut self, resolvers: Vec<SocketAddr>) {
        self.resolvers = resolvers;
    }

    pub(super) fn limit(&mut self, sockets: usize) {
        self.pool.limit((sockets / 16).clamp(LEAST_POOL, POOL));
        self.most_streams = (sockets / 2).clamp(LEAST_STREAMS, STREAMS);
    }

    pub(super) fn outstanding(&self) -> usize {
        self.queries.len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        if !self.unread.is_empty() {
            return Some(Instant::ZERO);
        }
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
            && self.queries.get(at).is_some_and(|q| q.question == question)
        {
            // The client repeats itself; so do we, in our own time.
            return Ok(());
        }
        if self.resolvers.is_empty() {
            self.stats.failed += 1;
            done.push((client, message::error(query, rcode::SERVER_FAILURE)));
            return Ok(());
        }
        self.make_room(now, client, done)?;
        let mut framed = Vec::with_capacity(2 + query.len());
        framed.extend_from_slice(&(query.len() as u16).to_be_bytes());
        framed.extend_from_slice(query);
        message::set_id(&mut framed[2..], self.draw.next() as u16);
        let key = self.queries.insert(Query {
            client,
            client_id,
            question,
            framed,
            upstream: Upstream::None,
            asked: Vec::new(),
            attempts: 0,
            since: now,
            next: now,
        });
        let share = self.shares.entry(client.port()).or_default();
        share.questions.insert((now, key.index));
        match client {
            Client::Udp { addr, .. } => {
                self.asking.insert((addr, client_id), key);
            }
            Client::Tcp { .. } => {
                share.streams += 1;
                self.streams += 1;
            }
        }
        match self.attempt(host, now, key, done) {
            Attempt::Made | Attempt::GivenUp => Ok(()),
            Attempt::Exhausted => Err(Refusal::Exhausted),
        }
    }

    /// Sees to it that there is room for a question of `client`'s.
    fn make_room(&mut self, now: Instant, client: Client, done: &mut Vec<Answer>) -> Result<(), Refusal> {
        let free = OUTSTANDING - self.queries.len();
        let share = self.shares.get(&client.port());
        let (held, streams) = share.map_or((0, 0), |s| (s.questions.len(), s.streams));
        if let Client::Tcp { .. } = client {
            // Each is a descriptor. A client has few by TCP, and waits.
            if self.streams >= self.most_streams {
                return Err(Refusal::Full);
            }
            if streams >= self.most_streams / 2 {
                return Err(Refusal::Share);
            }
        }
        let refusal = if free == 0 {
            Refusal::Full
        } else if held >= SHARE.min(free / 2) {
            Refusal::Share
        } else {
            return Ok(());
        };
        match share.and_then(|s| s.questions.first().copied()) {
            Some((since, index)) if now.since(since) >= UDP_WAIT => {
                if let Some(key) = self.queries.key_at(index) {
                    self.give_up(key, done);
                }
                Ok(())
            }
            Some(_) | None => Err(refusal),
        }
    }

    /// A socket has something to say.
    pub(super) fn ready(
        &mut self,
        host: &mut H,
        now: Instant,
        token: Token,
        ready: Ready,
        done: &mut Vec<Answer>,
    ) {
        if token.index & STREAM == 0 {
            self.read(host, now, token, ready.error, done);
        } else {
            self.move_stream(host, now, token, done);
        }
    }

    /// Takes the answers that have come to a socket of the pool, and the errors if there are some.
    fn read(&mut self, host: &mut H, now: Instant, token: Token, errors: bool, done: &mut Vec<Answer>) {
        for _ in 0..READ_BUDGET {
            let Some((remote, len, asker)) = self.pool.recv(token, &mut self.scratch) else {
                if errors {
                    self.read_errors(host, now, token, done);
                }
                return;
            };
            let m = &self.scratch[..len];
            let asked = asker.and_then(|key| Some((key, self.queries.get(key)?)));
            match asked {
                Some((key, q)) if q.has_asked(remote) && message::answers(m, q.id(), &q.question) => {
                    let m = m.to_vec();
                    self.answered(host, now, key, m, done);
                }
                Some(_) | None => self.stats.mismatched += 1,
            }
        }
        if !self.unread.contains(&token) {
            self.unread.push(token);
        }
    }

    /// A resolver is out of reach: those that wait for it by the socket ask the next. An error names the question that it is
    /// about if the router that sent it has quoted enough of it; else it is about all.
    fn read_errors(&mut self, host: &mut H, now: Instant, token: Token, done: &mut Vec<Answer>) {
        for _ in 0..READ_BUDGET {
            let Some((remote, askers)) = self.pool.recv_error(token, &mut self.scratch) else {
                return;
            };
            for key in askers {
                // Only the resolver that is being waited for; the others have been given up already.
                let waits = |q: &Query<H::Tcp>| q.asked.last().is_some_and(|a| a.ip() == remote.ip());
                if self.queries.get(key).is_some_and(waits) {
                    self.attempt(host, now, key, done);
                }
            }
        }
    }

    fn move_stream(&mut self, host: &mut H, now: Instant, token: Token, done: &mut Vec<Answer>) {
        let key = self.queries.key_at(token.index & !STREAM);
        let Some(key) = key.filter(|k| token.is_of(k.generation)) else {
            return;
        };
        let Some(query) = self.queries.get_mut(key) else {
            return;
        };
        let id = query.id();
        let Upstream::Tcp(tcp) = &mut query.upstream else {
            return;
        };
        match tcp.advance(&query.framed, &mut self.scratch) {
            Moved::Wait => {}
            Moved::Failed => {
                self.attempt(host, now, key, done);
            }
            Moved::Answer(m) if message::answers(&m, id, &query.question) => {
                self.answered(host, now, key, m, done);
            }
            Moved::Answer(_) => {
                self.stats.mismatched += 1;
                self.attempt(host, now, key, done);
            }
        }
    }

    /// A resolver has answered a question.
    fn answered(&mut self, host: &mut H, now: Instant, key: Key, m: Vec<u8>, done: &mut Vec<Answer>) {
        let attempts = self.queries.get(key).map_or(0, |q| q.attempts);
        let unwilling = matches!(message::code(&m), rcode::SERVER_FAILURE | rcode::REFUSED);
        if unwilling && attempts < self.resolvers.len() {
            // Another resolver may know better.
            self.attempt(host, now, key, done);
        } else {
            self.stats.answered += 1;
            self.finish(key, m, done);
        }
    }

    /// Ends the attempts whose time is over, and reads on what was left.
    pub(super) fn flush(&mut self, host: &mut H, now: Instant, done: &mut Vec<Answer>) {
        for token in std::mem::take(&mut self.unread) {
            self.read(host, now, token, true, done);
        }
        while let Some(&(at, index)) = self.timers.first() {
            if at > now {
                break;
            }
            self.stats.timeouts += 1;
            match self.queries.key_at(index) {
                Some(key) => {
                    self.attempt(host, now, key, done);
                }
                None => {
                    self.timers.pop_first();
                }
            }
        }
    }

    /// Asks the next resolver, or gives up and answers so.
    fn attempt(&mut self, host: &mut H, now: Instant, key: Key, done: &mut Vec<Answer>) -> Attempt {
        let mut came_to = Attempt::GivenUp;
        while let Some(query) = self.queries.get_mut(key) {
            self.timers.remove(&(query.next, key.index));
            if query.attempts >= ATTEMPTS || now >= query.end() || self.resolvers.is_empty() {
                break;
            }
            let resolver = self.resolvers[query.attempts % self.resolvers.len()];
            query.attempts += 1;
            let (sent, wait) = match query.client {
                Client::Udp { .. } => (self.ask_udp(host, now, key, resolver), UDP_WAIT),
                Client::Tcp { .. } => (self.ask_tcp(host, key, resolver), TCP_WAIT),
            };
            if let Err(error) = sent {
                tracing::debug!(%resolver, %error, "name server is out of reach");
                if is_exhaustion(&error) {
                    came_to = Attempt::Exhausted;
                }
                continue;
            }
            let Some(query) = self.queries.get_mut(key) else {
                break;
            };
            self.stats.sent += 1;
            if !query.asked.contains(&resolver) {
                query.asked.push(resolver);
            }
            query.next = (now + wait).min(query.end());
            self.timers.insert((query.next, key.index));
            return Attempt::Made;
        }
        self.give_up(key, done);
        came_to
    }

    fn ask_udp(&mut self, host: &mut H, now: Instant, key: Key, resolver: SocketAddr) -> io::Result<()> {
        let version = IpVersion::of(resolver.ip());
        let Some(query) = self.queries.get_mut(key) else {
            return Ok(());
        };
        let place = match query.upstream {
            // A repetition goes the same way if it can: a late answer to the first counts too.
            Upstream::Udp(place) if place.version == version && self.pool.holds(place, now) => place,
            Upstream::Udp(_) | Upstream::Tcp(_) | Upstream::None => {
                if let Upstream::Udp(old) = std::mem::replace(&mut query.upstream, Upstream::None) {
                    self.pool.release(old);
                }
                let place = self.pool.place(host, now, version, key, &mut self.draw)?;
                self.stats.opened += u64::from(place.opened);
                message::set_id(&mut query.framed[2..], place.id);
                query.upstream = Upstream::Udp(place);
                place
            }
        };
        match self.pool.send(place, resolver, &query.framed[2..]) {
            // As good as lost on the way: the repetition mends it.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }

    fn ask_tcp(&mut self, host: &mut H, key: Key, resolver: SocketAddr) -> io::Result<()> {
        let Some(query) = self.queries.get_mut(key) else {
            return Ok(());
        };
        // Closed first, so that a question never has two descriptors.
        query.upstream = Upstream::None;
        let token = Token {
            kind: Kind::Dns,
            index: key.index | STREAM,
            generation: key.generation,
        };
        self.stats.opened += 1;
        query.upstream = Upstream::Tcp(TcpQuery::connect(host, token, resolver, &query.framed)?);
        Ok(())
    }

    /// Tells the client that no resolver has answered.
    fn give_up(&mut self, key: Key, done: &mut Vec<Answer>) {
        let Some(query) = self.queries.get(key) else {
            return;
        };
        let failure = message::error(&query.framed[2..], rcode::SERVER_FAILURE);
        self.stats.failed += 1;
        self.finish(key, failure, done);
    }

    /// Frees the question's place and hands `response` on.
    fn finish(&mut self, key: Key, mut response: Vec<u8>, done: &mut Vec<Answer>) {
        let Some(query) = self.queries.remove(key) else {
            return;
        };
        self.timers.remove(&(query.next, key.index));
        if let Upstream::Udp(place) = query.upstream {
            self.pool.release(place);
        }
        let port = query.client.port();
        if let Some(share) = self.shares.get_mut(&port) {
            share.questions.remove(&(query.since, key.index));
            if let Client::Tcp { .. } = query.client {
                share.streams -= 1;
            }
            if share.questions.is_empty() {
                self.shares.remove(&port);
            }
        }
        match query.client {
            Client::Udp { addr, .. } => {
                if self.asking.get(&(addr, query.client_id)) == Some(&key) {
                    self.asking.remove(&(addr, query.client_id));
                }
            }
            Client::Tcp { .. } => self.streams -= 1,
        }
        message::set_id(&mut response, query.client_id);
        done.push((query.client, response));
    }
}

/// True for the errors of a host that has no descriptor or memory left.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}
