//! Clients of DNS over TCP (RFC 7766): several questions on a connection, answered in any order, with bounds on
//! connections, questions, bytes and time.

use std::net::IpAddr;
use std::time::Duration;

use pontoon_switch::{DropReason, Frame, Instant, PortId};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use super::message;
use crate::config::Config;
use crate::cx::Cx;
use crate::local::Local;
use crate::packet::Packet;

const PORT: u16 = 53;
/// Sockets at most; of one container; and how many listen when nobody is connected.
const SOCKETS: usize = 32;
const SHARE: usize = 8;
const LISTENING: usize = 4;
/// Bytes of a socket's buffers.
const RECEIVE: usize = 4096;
const SEND: usize = 16_384;
/// Questions outstanding on one connection, and bytes of answers waiting, beyond which nothing more is read from it.
const PIPELINE: u32 = 16;
const BACKLOG: usize = 65_536;
/// A connection is closed after this time without a question (RFC 7766 section 6.2.3), and ended after another such time.
const IDLE: Duration = Duration::from_secs(10);

/// Names a client's connection; the generation tells it from a later one in the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ConnId {
    slot: usize,
    generation: u32,
}

/// A question that came by TCP.
pub(super) struct Asked {
    pub(super) conn: ConnId,
    /// The container's port on the switch.
    pub(super) port: PortId,
    pub(super) query: Vec<u8>,
}

/// Whose connection it is.
#[derive(Clone, Copy)]
struct Peer {
    addr: IpAddr,
    /// The port of the switch that its SYN came from, and all else must come from.
    port: PortId,
}

struct Conn {
    handle: SocketHandle,
    generation: u32,
    peer: Option<Peer>,
    received: Vec<u8>,
    /// Answers, framed, and how much of them smoltcp has taken.
    answers: Vec<u8>,
    taken: usize,
    outstanding: u32,
    active: Instant,
    closing: bool,
}

/// The connections.
pub(super) struct Streams {
    local: Local,
    conns: [Option<Conn>; SOCKETS],
    generation: u32,
}

impl Streams {
    pub(super) fn new(config: &Config) -> Self {
        let mut streams = Self {
            local: Local::new(config),
            conns: [const { None }; SOCKETS],
            generation: 0,
        };
        streams.top_up();
        streams
    }

    /// Takes a segment for port 53.
    pub(super) fn receive<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        packet: &Packet,
        frame: &Frame<'_>,
        asked: &mut Vec<Asked>,
    ) -> Result<(), DropReason> {
        // Answers go to whoever has the address, so it must be the sender.
        if cx.neighbours.lookup(packet.src) != Some(packet.src_mac) {
            cx.learn(packet.src, packet.src_mac);
            if cx.neighbours.lookup(packet.src) != Some(packet.src_mac) {
                return Err(DropReason::BadSourceAddress);
            }
        }
        let syn = packet
            .transport(frame)
            .get(13)
            .is_some_and(|flags| flags & 0x12 == 0x02);
        if syn && self.share(packet.ingress) >= SHARE {
            return Err(DropReason::QuotaFull);
        }
        // Nor may another container speak in its name: who asks is known by the port.
        let mut peers = self.conns.iter().flatten().filter_map(|c| c.peer);
        if peers.any(|p| p.addr == packet.src && p.port != packet.ingress) {
            return Err(DropReason::BadSourceAddress);
        }
        self.local.receive(cx, packet, frame)?;
        self.greet(cx.now, packet);
        self.service(cx, asked);
        Ok(())
    }

    /// Notes whose connection a socket has become by `packet`.
    fn greet(&mut self, now: Instant, packet: &Packet) {
        for conn in self.conns.iter_mut().flatten().filter(|c| c.peer.is_none()) {
            if self.local.socket(conn.handle).remote_endpoint().is_some() {
                conn.peer = Some(Peer {
                    addr: packet.src,
                    port: packet.ingress,
                });
                conn.active = now;
            }
        }
    }

    /// Connections of the container at `port`.
    fn share(&self, port: PortId) -> usize {
        self.conns
            .iter()
            .flatten()
            .filter(|c| c.peer.is_some_and(|p| p.port == port))
            .count()
    }

    /// Forgets the connections of the container at `port`, which is gone: another may have its address next.
    pub(super) fn detach(&mut self, port: PortId) {
        for slot in &mut self.conns {
            if let Some(conn) = slot
                && conn.peer.is_some_and(|p| p.port == port)
            {
                self.local.remove(conn.handle);
                *slot = None;
            }
        }
        self.top_up();
    }

    /// Puts an answer on its way; one whose connection is gone is forgotten.
    pub(super) fn answer(&mut self, id: ConnId, response: &[u8]) {
        let Some(Some(conn)) = self.conns.get_mut(id.slot) else {
            return;
        };
        let Ok(length) = u16::try_from(response.len()) else {
            return;
        };
        if conn.generation == id.generation {
            conn.outstanding = conn.outstanding.saturating_sub(1);
            conn.answers.extend_from_slice(&length.to_be_bytes());
            conn.answers.extend_from_slice(response);
        }
    }

    /// Moves bytes both ways, closes what is over, and sends what there is to send. Questions go into `asked`.
    pub(super) fn service<H>(&mut self, cx: &mut Cx<'_, H>, asked: &mut Vec<Asked>) {
        for slot in 0..SOCKETS {
            let Some(conn) = &mut self.conns[slot] else {
                continue;
            };
            let socket = self.local.socket(conn.handle);
            let state = socket.state();
            match state {
                tcp::State::Listen => continue,
                // Removed below, once its reset is sent.
                tcp::State::Closed => continue,
                _ => {}
            }
            if state == tcp::State::SynReceived {
                if cx.now.since(conn.active) >= IDLE {
                    socket.abort();
                }
                continue;
            }
            let id = ConnId {
                slot,
                generation: conn.generation,
            };
            conn.serve(cx.now, socket, id, asked);
        }
        self.local.poll(cx);
        for conn in &mut self.conns {
            if let Some(c) = conn
                && self.local.socket(c.handle).state() == tcp::State::Closed
            {
                self.local.remove(c.handle);
                *conn = None;
            }
        }
        self.top_up();
    }

    /// Does what is due by time.
    pub(super) fn flush<H>(&mut self, cx: &mut Cx<'_, H>, asked: &mut Vec<Asked>) {
        if self.deadline().is_some_and(|at| at <= cx.now) {
            self.local.poll(cx);
            self.service(cx, asked);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let idle = self
            .conns
            .iter()
            .flatten()
            .filter(|c| c.peer.is_some())
            .map(Conn::deadline)
            .min();
        match (idle, self.local.deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Connections, listening sockets left out.
    pub(super) fn connected(&self) -> usize {
        self.conns.iter().flatten().filter(|c| c.peer.is_some()).count()
    }

    /// Keeps a few sockets listening, as long as there is room.
    fn top_up(&mut self) {
        let listening = self.conns.iter().flatten().filter(|c| c.peer.is_none()).count();
        let wanted = LISTENING.saturating_sub(listening);
        for slot in self.conns.iter_mut().filter(|c| c.is_none()).take(wanted) {
            self.generation = self.generation.wrapping_add(1);
            *slot = Some(Conn {
                handle: self.local.listen(PORT, RECEIVE, SEND, IDLE),
                generation: self.generation,
                peer: None,
                received: Vec::new(),
                answers: Vec::new(),
                taken: 0,
                outstanding: 0,
                active: Instant::ZERO,
                closing: false,
            });
        }
    }
}

impl Conn {
    /// True if nobody waits for anything.
    fn quiet(&self) -> bool {
        self.outstanding == 0 && self.answers.is_empty()
    }

    fn deadline(&self) -> Instant {
        self.active
            + match (self.closing, self.quiet()) {
                (true, _) => IDLE * 2,
                (false, true) => IDLE,
                (false, false) => IDLE * 3,
            }
    }

    fn serve(&mut self, now: Instant, socket: &mut tcp::Socket<'static>, id: ConnId, asked: &mut Vec<Asked>) {
        while !self.closing {
            if self.take_queries(now, id, asked).is_err() {
                socket.abort();
                return;
            }
            if !socket.can_recv() || self.outstanding >= PIPELINE || self.answers.len() >= BACKLOG {
                break;
            }
            let read = socket.recv(|bytes| {
                self.received.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            if !read.is_ok_and(|n| n > 0) {
                break;
            }
        }
        if self.taken < self.answers.len() {
            if let Ok(n) = socket.send_slice(&self.answers[self.taken..]) {
                self.taken += n;
                if n > 0 {
                    self.active = now;
                }
            }
            if self.taken == self.answers.len() {
                self.answers.clear();
                self.taken = 0;
            }
        }
        let over = !socket.may_recv() || now.since(self.active) >= IDLE;
        if self.quiet() && over && !self.closing {
            self.closing = true;
            socket.close();
        } else if now >= self.deadline() {
            socket.abort();
        }
    }

    /// Takes the whole queries off what was received.
    fn take_queries(&mut self, now: Instant, id: ConnId, asked: &mut Vec<Asked>) -> Result<(), ()> {
        let mut at = 0;
        while self.outstanding < PIPELINE
            && let Some(length) = self.received[at..].first_chunk::<2>()
        {
            let length = usize::from(u16::from_be_bytes(*length));
            if !(message::HEADER..=message::LARGEST_QUERY).contains(&length) {
                return Err(());
            }
            let Some(query) = self.received.get(at + 2..at + 2 + length) else {
                break;
            };
            self.outstanding += 1;
            if let Some(peer) = self.peer {
                asked.push(Asked {
                    conn: id,
                    port: peer.port,
                    query: query.to_vec(),
                });
            }
            self.active = now;
            at += 2 + length;
        }
        self.received.drain(..at);
        Ok(())
    }
}
