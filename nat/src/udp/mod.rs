//! The UDP relay: containers' datagrams by host sockets, out and published.
//!
//! # Theory of operation
//!
//! Out: each address and port of a container has one host socket, its *mapping*, whoever it talks to (RFC 4787 REQ-1). The
//! socket is never connected, so its port is the same for all. Who may answer is decided here ([`Filtering`]), by the
//! addresses that the container has flows to. A mapping lives as long as one of its flows does; the conntrack
//! table's timeouts are the mapping's timer.
//!
//! Published: the front's socket is bound to the host's port. Each client is a flow, with the client's real address as its
//! source, unless the container could not answer to that: the host itself (its loopback, or the address that was
//! asked), an address within the container's subnet, or one taken by another flow. Such a client appears as the gateway, with
//! a port of its own.
//!
//! Both ways TTL, TOS, DF and super-frames are carried over. Errors come from the sockets' error queues, are matched with a
//! flow, and told to the container about its packet, rebuilt. They never refresh or end a flow.
//!
//! Datagrams go in batches: what a container sends within a batch of frames waits in the [`Outbox`] for its end.
//!
//! Sockets are edge-triggered: one is read until it is empty, but not without end. What is left is remembered and read on
//! in [`Relay::flush`].
//!
//! [`Filtering`]: crate::config::Filtering

mod inbound;
mod outbound;
mod outbox;
mod published;

pub(crate) use outbound::{Datagram, first_state};

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{DropReason, Instant, PortId, Ready};

use crate::cx::Cx;
use crate::flow::{Entry, FlowId};
use crate::host::{Kind, Token, UdpBatch, UdpHost, UdpSocket};
use crate::publish::{Target, Transport};
use crate::share::Ticket;
use crate::slab::{Key, Slab};
use outbox::Outbox;

/// Datagrams read of one socket before the others have their turn.
const READ_BUDGET: usize = 64;

/// Failures of one socket's in one turn before it is left alone.
const READ_FAILURES: usize = 4;

/// A container's address and port, and the host socket that stands for it.
#[derive(Debug)]
struct Mapping<S> {
    socket: S,
    _ticket: Ticket,
    container: SocketAddr,
    port: PortId,
    /// Flows that use it; it goes with the last.
    flows: u32,
}

/// A published port.
#[derive(Debug)]
struct Published<S> {
    socket: S,
    container: SocketAddr,
    port: PortId,
}

impl<S> Published<S> {
    /// What it leads to.
    fn target(&self) -> Target {
        (self.port, Transport::Udp, self.container.port())
    }
}

/// A client of a published port.
#[derive(Clone, Copy, Debug)]
struct Client {
    published: Key,
    remote: SocketAddr,
    /// The host's address that it sent to, from which the answers go.
    local: Option<IpAddr>,
    flow: FlowId,
}

/// The UDP relay of a gateway.
#[derive(Debug)]
pub struct Relay<H: UdpHost> {
    mappings: Slab<Mapping<H::Udp>>,
    by_container: HashMap<SocketAddr, Key>,
    /// How many flows a mapping has to an address.
    peers: HashMap<(u32, IpAddr), u32>,
    published: Slab<Published<H::Udp>>,
    clients: Slab<Client>,
    by_client: HashMap<(Key, SocketAddr), Key>,
    /// Sockets that were left before they were empty.
    unread: Vec<Token>,
    /// For data of the error queue.
    scratch: Box<[u8]>,
    /// What containers have sent within this batch.
    outbox: Outbox,
    /// For what is read of a socket at once, and how many datagrams that is to be next.
    inbox: UdpBatch,
    ask: usize,
}

impl<H: UdpHost> Default for Relay<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: UdpHost> Relay<H> {
    /// A relay without flows.
    pub fn new() -> Self {
        Self {
            mappings: Slab::default(),
            by_container: HashMap::new(),
            peers: HashMap::new(),
            published: Slab::default(),
            clients: Slab::default(),
            by_client: HashMap::new(),
            unread: Vec::new(),
            scratch: vec![0; 2048].into_boxed_slice(),
            outbox: Outbox::default(),
            inbox: UdpBatch::default(),
            ask: inbound::FEWEST,
        }
    }

    /// A socket of this relay has something to say.
    pub fn ready(&mut self, cx: &mut Cx<'_, H>, token: Token, ready: Ready) {
        if ready.error {
            self.errors(cx, token);
        }
        self.read(cx, token);
    }

    /// Sends what containers have sent within this batch, and reads on what was left.
    pub fn flush(&mut self, cx: &mut Cx<'_, H>) {
        self.send_waiting(cx);
        for token in std::mem::take(&mut self.unread) {
            self.errors(cx, token);
            self.read(cx, token);
        }
    }

    /// When it next wants [`Relay::flush`].
    pub fn deadline(&self) -> Option<Instant> {
        (!self.unread.is_empty()).then_some(Instant::ZERO)
    }

    /// A flow is out of the table: what only it used goes.
    pub fn ended(&mut self, id: FlowId, entry: &Entry) {
        if entry.outbound() {
            self.release(entry);
            return;
        }
        let Some(key) = self.clients.key_at(entry.data()) else {
            return;
        };
        if self.clients.get(key).is_some_and(|c| c.flow == id)
            && let Some(client) = self.clients.remove(key)
        {
            self.by_client.remove(&(client.published, client.remote));
        }
    }

    /// The container at `port` is gone: its mappings close, what was published of it too.
    pub fn detach(&mut self, cx: &mut Cx<'_, H>, port: PortId) {
        self.send_waiting(cx);
        let doomed: Vec<FlowId> = cx
            .flows
            .of_container(port)
            .filter(|(_, e)| e.protocol() == crate::flow::Protocol::Udp && !e.is_forwarded())
            .map(|(id, _)| id)
            .collect();
        for id in doomed {
            if let Some(entry) = cx.flows.remove(id) {
                self.ended(id, &entry);
            }
        }
        let published: Vec<Key> = self
            .published
            .iter()
            .filter(|(_, p)| p.port == port)
            .map(|(key, _)| key)
            .collect();
        for key in published {
            self.published.remove(key);
        }
    }

    /// The translated tuple of `entry`'s replies: who answers, and the host's own address and port.
    pub fn reply_tuple(&self, entry: &Entry) -> Option<(SocketAddr, SocketAddr)> {
        let tuple = entry.tuple();
        if entry.outbound() {
            let key = self.mappings.key_at(entry.data())?;
            let local = self.mappings.get(key)?.socket.local_addr().ok()?;
            return Some((tuple.dst, local));
        }
        let client = self.clients.get(self.clients.key_at(entry.data())?)?;
        Some((tuple.dst, client.remote))
    }

    /// Mappings now.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// Clients of published ports now.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Notes that the socket under `token` is to be read on.
    fn leave(&mut self, token: Token) {
        if !self.unread.contains(&token) {
            self.unread.push(token);
        }
    }

    fn socket(&mut self, token: Token) -> Option<&mut H::Udp> {
        match token.kind {
            Kind::UdpMapping => {
                let key = self
                    .mappings
                    .key_at(token.index)
                    .filter(|k| token.is_of(k.generation))?;
                self.mappings.get_mut(key).map(|m| &mut m.socket)
            }
            Kind::UdpPublished => {
                let key = self
                    .published
                    .key_at(token.index)
                    .filter(|k| token.is_of(k.generation))?;
                self.published.get_mut(key).map(|p| &mut p.socket)
            }
            Kind::Tcp | Kind::TcpListener | Kind::Ping | Kind::Dns => None,
        }
    }
}

/// The counter for a failed call of the host's.
fn reason(error: &std::io::Error) -> DropReason {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::AGAIN) => DropReason::HostFull,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRINUSE) => {
            DropReason::HostExhausted
        }
        _ if error.kind() == std::io::ErrorKind::WouldBlock => DropReason::HostFull,
        _ => DropReason::HostError,
    }
}
