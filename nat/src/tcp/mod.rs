//! The TCP relay: ends the container's TCP here and continues it on a host socket.
//!
//! # Theory of operation
//!
//! The relay holds no data, but for a few segments out of order: the kernel's socket buffers are the only buffers.
//!
//! *Container to host.* A segment in order goes from the frame straight to `send`. What the socket takes is
//! acknowledged; what it does not take is not, and the container sends it again. The window advertised follows the
//! socket's free space, so that it takes nearly everything. A gap is answered by a duplicate acknowledgement at once; of what
//! comes behind it a little is kept, as it may only have overtaken the rest ([`reorder`]). Acknowledgements of data in order coalesce over a batch of frames ([`Relay::flush`]); that of
//! less than two segments, or of a FIN, waits a moment for what the host has to say, which carries it.
//!
//! *Host to container.* Bytes are peeked at, at an offset, into the frame buffer behind ready-made headers, and sent as one
//! super-frame. They leave the host's socket only when the container has acknowledged them; a retransmission is another
//! peek. The sequence number `snd_una` is that of the first byte in the socket, so the offset of any other is a difference.
//!
//! *Opening.* The container's SYN is answered only when the host's connect has been: success gives SYN-ACK, refusal RST,
//! unreachable the ICMP error. Inbound, the client is connected before the container is asked; if that refuses or is
//! silent, the client gets a reset.
//!
//! *Closing.* FIN goes through both ways, separately and late, so a half-close lasts; RST goes through both ways. See
//! the diagram in `conn`. Nothing parks: each state has a timeout in the conntrack table or a count of tries.
//!
//! *Loss* on the way to the container happens only when its device's queue overflows. The window therefore has no
//! congestion bound until a loss; then NewReno (RFC 6582) without SACK.
//!
//! *Timers.* A connection has one timer, whose meaning follows from its state: SYN or SYN-ACK again, retransmission,
//! zero-window probe, keep-alive. All are in one queue; a timer that moves later stays where it is queued and is looked
//! at again then, so that acknowledgements cost nothing there.

mod conn;
mod input;
mod listen;
mod output;
mod reorder;
mod segment;
mod seq;
mod timer;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pontoon_switch::{DropReason, Frame, Instant, PortId, Ready};
use siphasher::sip::SipHasher13;

use crate::cx::Cx;
use crate::flow::{Entry, FlowId};
use crate::host::{Connect, Kind, TcpHost, TcpSocket, Token};
use crate::icmp::{self, IcmpError};
use crate::packet::{IpRepr, Packet};
use crate::slab::{Key, Slab};

use conn::{AckDue, Conn, Phase, Send};
use listen::Listener;
use reorder::Reorder;
use segment::{Draft, Flags, Segment};
use seq::Seq;

/// Our window scale: with it the window reaches 8 MiB, twice the kernel's default send buffer.
const WINDOW_SCALE: u8 = 7;

/// How long an acknowledgement may wait for something to be carried by (RFC 9293 section 3.8.6.3: less than half a second).
/// Far sides that are near answer within; a container whose next piece waits for it loses next to nothing.
const ACK_DELAY: Duration = Duration::from_millis(1);

/// Least MSS that is believed: that of the least IPv4 MTU, 68.
const MSS_MIN: u16 = 28;

/// The TCP relay of one gateway.
#[derive(Debug)]
pub struct Relay<H: TcpHost> {
    conns: Slab<Conn<H::Tcp>>,
    listeners: Slab<Listener<H::Listener>>,
    /// No listener is to be tried again before.
    retry_at: Option<Instant>,
    /// At most one record of each connection: when, and its key.
    timers: BTreeSet<(Instant, u32, u32)>,
    /// Connections that owe an acknowledgement at the end of the batch.
    due: Vec<Key>,
    /// Those that owe one by then, in the order of that.
    later: VecDeque<(Instant, Key)>,
    reorder: Reorder,
    secret: (u64, u64),
}

impl<H: TcpHost> Relay<H> {
    /// A relay without connections. `secret` keys initial sequence numbers (RFC 6528): random, except in a test.
    pub fn new(secret: (u64, u64)) -> Self {
        Self {
            conns: Slab::default(),
            listeners: Slab::default(),
            retry_at: None,
            timers: BTreeSet::new(),
            due: Vec::new(),
            later: VecDeque::new(),
            reorder: Reorder::default(),
            secret,
        }
    }

    /// Connections now, those in TIME-WAIT among them.
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// The tuple that the far side sees in its replies (source and destination), for listing.
    pub fn reply_tuple(&self, entry: &Entry) -> Option<(SocketAddr, SocketAddr)> {
        let conn = self.conns.get(self.conns.key_at(entry.data())?)?;
        let local = conn.socket.as_ref()?.local_addr().ok()?;
        let tuple = entry.tuple();
        Some(if entry.outbound() {
            (tuple.dst, local)
        } else {
            (conn.container, tuple.src)
        })
    }

    /// Something happened at the host's socket of a connection.
    pub fn ready(&mut self, cx: &mut Cx<'_, H>, token: Token, ready: Ready) {
        let Some(key) = self
            .conns
            .key_at(token.index)
            .filter(|k| token.is_of(k.generation))
        else {
            return;
        };
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.readable |= ready.readable || ready.hangup || ready.error;
        conn.hangup |= ready.hangup;
        conn.failed |= ready.error;
        match conn.phase {
            Phase::Connecting => {
                if ready.writable && !ready.error && !ready.hangup {
                    // Nothing but a connected socket is writable and no more.
                    self.answer_syn(cx, key);
                } else if ready.writable || ready.error || ready.hangup {
                    self.connect_progress(cx, key);
                }
            }
            Phase::SynAckSent | Phase::SynSent | Phase::TimeWait => {}
            // The host's stream had ended in order already: nothing is left to read that would tell of the reset.
            Phase::Open if ready.error && conn.send != Send::Open => self.abort(cx, key),
            Phase::Open => {
                if ready.writable && conn.window_closed {
                    self.window_reopened(cx, key);
                }
                self.pump(cx, key);
            }
        }
    }

    /// A pending connect has become writable or failed.
    fn connect_progress(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let Some(socket) = conn.socket.as_mut() else {
            return;
        };
        match socket.connected() {
            Ok(true) => {
                conn.failed = false;
                self.answer_syn(cx, key);
            }
            Ok(false) => conn.failed = false,
            Err(e) => self.connect_failed(cx, key, &e),
        }
    }

    /// Tells the container how its connect failed, and forgets the connection.
    fn connect_failed(&mut self, cx: &mut Cx<'_, H>, key: Key, error: &io::Error) {
        let Some(conn) = self.conns.get(key) else { return };
        let (container, remote, seq) = (conn.container, conn.remote, conn.rcv_nxt);
        let port = cx.flows.get(conn.flow).map(Entry::container);
        self.forget(cx, key);
        refuse(cx, port, container, remote, seq, error);
    }

    /// Ends a batch: timers that are due, then the acknowledgements owed.
    pub fn flush(&mut self, cx: &mut Cx<'_, H>) {
        self.run_timers(cx);
        self.retry_listeners(cx);
        let mut due = std::mem::take(&mut self.due);
        for key in due.drain(..) {
            if self.conns.get(key).is_some_and(|c| c.ack_due == AckDue::Now) {
                self.acknowledge(cx, key);
            }
        }
        self.due = due;
        while let Some(&(at, key)) = self.later.front() {
            match self.conns.get(key).map(|c| c.ack_due) {
                Some(AckDue::By(by)) if by == at => {
                    if at > cx.now {
                        return;
                    }
                    self.later.pop_front();
                    self.acknowledge(cx, key);
                }
                // Something carried it.
                Some(AckDue::By(_) | AckDue::Now | AckDue::No) | None => {
                    self.later.pop_front();
                }
            }
        }
    }

    /// The connection owes the container an acknowledgement.
    fn owe_ack(&mut self, now: Instant, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        // RFC 9293 section 3.8.6.3: at least every second full-sized segment. Nor does one who may send no more wait.
        let much = conn.rcv_nxt.since(conn.rcv_acked) >= 2 * u32::from(conn.mss);
        let tight = !conn.rcv_edge.after(conn.rcv_nxt.plus(u32::from(conn.mss)));
        if much || tight {
            if conn.ack_due != AckDue::Now {
                conn.ack_due = AckDue::Now;
                self.due.push(key);
            }
        } else if conn.ack_due == AckDue::No {
            let by = now + ACK_DELAY;
            conn.ack_due = AckDue::By(by);
            self.later.push_back((by, key));
        }
    }

    /// When the relay next wants [`Relay::flush`] called.
    pub fn deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|&(at, _, _)| at);
        let ack = self.later.front().map(|&(at, _)| at);
        [timer, self.retry_at, ack].into_iter().flatten().min()
    }

    /// The container says that what was sent to it in `flow` did not fit a link of `mtu` bytes: segments are smaller
    /// from now on, and what was lost is sent again (RFC 1191).
    pub fn packet_too_big(&mut self, cx: &mut Cx<'_, H>, flow: FlowId, mtu: u32) {
        let key = cx.flows.get(flow).and_then(|e| self.conns.key_at(e.data()));
        let Some(key) = key else { return };
        let Some(conn) = self
            .conns
            .get_mut(key)
            .filter(|c| c.flow == flow && c.phase == Phase::Open)
        else {
            return;
        };
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let mss = link_mss(mtu, conn.container);
        if mss < conn.mss {
            conn.mss = mss;
            conn.snd_nxt = conn.snd_una;
            self.pump(cx, key);
        }
    }

    /// A flow of this relay was evicted or has been silent for its timeout: both sides are told by a reset.
    pub fn ended(&mut self, cx: &mut Cx<'_, H>, flow: FlowId, entry: &Entry) {
        let Some(key) = self.conns.key_at(entry.data()) else {
            return;
        };
        if self.conns.get(key).is_some_and(|c| c.flow == flow) {
            self.abort(cx, key);
        }
    }

    /// Resets every connection of the container at `port`, and closes what is published of it.
    pub fn detach(&mut self, cx: &mut Cx<'_, H>, port: PortId) {
        let listeners: Vec<Key> = self
            .listeners
            .iter()
            .filter(|(_, l)| l.port == port)
            .map(|(k, _)| k)
            .collect();
        for key in listeners {
            self.listeners.remove(key);
        }
        let flows = &*cx.flows;
        let gone: Vec<Key> = self
            .conns
            .iter()
            .filter(|(_, c)| flows.get(c.flow).is_none_or(|e| e.container() == port))
            .map(|(k, _)| k)
            .collect();
        for key in gone {
            self.abort(cx, key);
        }
    }

    /// Resets both sides and forgets the connection.
    fn abort(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        if let Some(conn) = self.conns.get_mut(key) {
            if let Some(socket) = conn.socket.as_mut() {
                socket.reset_on_drop();
            }
            match conn.phase {
                Phase::Connecting | Phase::TimeWait => {}
                Phase::SynAckSent | Phase::SynSent | Phase::Open => send_reset(cx, conn),
            }
        }
        self.forget(cx, key);
    }

    /// Resets the host's side only: the container has reset, refused, or is not there.
    fn abort_host(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        if let Some(socket) = self.conns.get_mut(key).and_then(|c| c.socket.as_mut()) {
            socket.reset_on_drop();
        }
        self.forget(cx, key);
    }

    /// Forgets the connection and its flow; the host's socket closes in order unless it was told otherwise.
    fn forget(&mut self, cx: &mut Cx<'_, H>, key: Key) {
        if let Some(conn) = self.take(key) {
            cx.flows.remove(conn.flow);
        }
    }

    /// Takes the connection out, and its timer out of the queue.
    fn take(&mut self, key: Key) -> Option<Conn<H::Tcp>> {
        let conn = self.conns.remove(key)?;
        self.reorder.forget(key);
        if let Some(at) = conn.queued {
            self.timers.remove(&(at, key.index, key.generation));
        }
        Some(conn)
    }

    /// Brings the flow's state up to date with the connection's.
    fn note_state(&self, cx: &mut Cx<'_, H>, key: Key) {
        if let Some(conn) = self.conns.get(key) {
            cx.flows.set_state(cx.now, conn.flow, conn.state());
        }
    }

    /// An initial sequence number by RFC 6528: a clock of 4 µs plus a keyed hash of the tuple.
    fn initial_seq(&self, now: Instant, container: SocketAddr, remote: SocketAddr) -> Seq {
        let mut bytes = [0u8; 36];
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
            IpAddr::V6(a) => a.octets(),
        };
        bytes[..16].copy_from_slice(&octets(container.ip()));
        bytes[16..32].copy_from_slice(&octets(remote.ip()));
        bytes[32..34].copy_from_slice(&container.port().to_be_bytes());
        bytes[34..].copy_from_slice(&remote.port().to_be_bytes());
        let hash = SipHasher13::new_with_keys(self.secret.0, self.secret.1).hash(&bytes);
        Seq((now.micros() / 4) as u32).plus(hash as u32)
    }
}

/// The token under which the host's socket of a connection reports.
fn token(key: Key) -> Token {
    Token {
        kind: Kind::Tcp,
        index: key.index,
        generation: key.generation,
    }
}

/// Our MSS towards a container: the link's MTU less the headers (the MSS clamp).
fn link_mss(mtu: u16, container: SocketAddr) -> u16 {
    let headers = crate::packet::header_len(container.ip()) + segment::HEADER;
    mtu.saturating_sub(headers as u16).max(MSS_MIN)
}

/// Resets the container's side of a connection.
fn send_reset<H, S>(cx: &mut Cx<'_, H>, conn: &Conn<S>) {
    let reset = if conn.phase == Phase::SynSent {
        Draft::reset(conn.remote, conn.container, conn.snd_max, None)
    } else {
        Draft::reset(conn.remote, conn.container, conn.bare_seq(), Some(conn.rcv_nxt))
    };
    // Without a neighbour there is nobody to reset.
    let _ = reset.send(cx);
}

/// Tells the container that the connection it asked for with a SYN numbered just before `next` cannot be had.
fn refuse<H>(
    cx: &mut Cx<'_, H>,
    port: Option<PortId>,
    container: SocketAddr,
    remote: SocketAddr,
    next: Seq,
    error: &io::Error,
) {
    let exhausted = || error.raw_os_error().is_some_and(is_exhaustion);
    let icmp = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => None,
        io::ErrorKind::NetworkUnreachable => Some(IcmpError::NetUnreachable),
        io::ErrorKind::PermissionDenied => Some(IcmpError::Prohibited),
        _ if exhausted() => {
            cx.out.drop(port, DropReason::HostExhausted);
            // RFC 5508 REQ-8: want of resources is told as prohibited.
            Some(IcmpError::Prohibited)
        }
        // No route, no neighbour, a time-out, or no address of that version on the host.
        _ => Some(IcmpError::HostUnreachable),
    };
    let Some(icmp) = icmp else {
        let _ = Draft::reset(remote, container, Seq(0), Some(next)).send(cx);
        return;
    };
    // The SYN itself is gone by now: what of it an error must quote is known.
    let ip = IpRepr::new(container.ip(), remote.ip(), smoltcp::wire::IpProtocol::Tcp);
    let at = ip.header_len();
    let mut quoted = [0u8; 60];
    ip.emit(&mut quoted, segment::HEADER, 0);
    quoted[at..at + 2].copy_from_slice(&container.port().to_be_bytes());
    quoted[at + 2..at + 4].copy_from_slice(&remote.port().to_be_bytes());
    quoted[at + 4..at + 8].copy_from_slice(&next.plus(u32::MAX).0.to_be_bytes());
    quoted[at + 12] = 5 << 4;
    quoted[at + 13] = 2;
    icmp::send_error(cx, &quoted[..at + segment::HEADER], None, icmp);
}

/// True for the errors of a host that has no descriptor, port or memory left.
fn is_exhaustion(errno: i32) -> bool {
    use rustix::io::Errno;
    [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
    ]
    .iter()
    .any(|e| e.raw_os_error() == errno)
}
