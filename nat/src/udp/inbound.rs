//! From the host to containers: datagrams and errors.

use std::io;
use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{Checksum, DropReason, Gso, GsoKind, Offload};
use smoltcp::wire::IpProtocol;

use super::outbound::{HEADER, enter};
use super::{READ_BUDGET, READ_FAILURES, Relay};
use crate::config::{Filtering, HostLoopback};
use crate::cx::Cx;
use crate::flow::{Direction, Entry, FlowId, Protocol, State, Tuple};
use crate::fragment;
use crate::host::{HostError, Kind, MAX_BATCH, ROOM_BEFORE, Token, UdpBatch, UdpHost, UdpRecv, UdpSocket};
use crate::icmp::{self, IcmpError};
use crate::packet::{ETHERNET, IpRepr};
use crate::slab::Key;
use crate::sum;

/// Where a datagram from the host goes.
pub(super) struct Way {
    pub(super) flow: FlowId,
    pub(super) direction: Direction,
    /// The source that the container sees.
    pub(super) shown: SocketAddr,
    pub(super) container: SocketAddr,
}

impl<H: UdpHost> Relay<H> {
    /// Reads the socket under `token` until it is empty, or has had its turn.
    pub(super) fn read(&mut self, cx: &mut Cx<'_, H>, token: Token) {
        let mut batch = std::mem::take(&mut self.inbox);
        if !self.read_turn(cx, token, &mut batch) {
            self.leave(token);
        }
        self.inbox = batch;
    }

    /// False if its turn was over before it was empty.
    fn read_turn(&mut self, cx: &mut Cx<'_, H>, token: Token, batch: &mut UdpBatch) -> bool {
        let (mut left, mut failures) = (READ_BUDGET, 0);
        while left > 0 {
            batch.ask(self.ask.min(left));
            let Some(socket) = self.socket(token) else {
                return true;
            };
            match socket.recv_many(batch) {
                Ok(()) => {
                    self.deliver_all(cx, token, batch);
                    let got = batch.received().len();
                    self.ask = next_ask(batch);
                    if got < batch.asked() {
                        return true;
                    }
                    left -= got;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => left -= 1,
                // An error of an earlier datagram, which the call takes off the socket; but no socket may fail for ever.
                Err(_) => {
                    cx.out.drop(None, DropReason::HostError);
                    failures += 1;
                    if failures == READ_FAILURES {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Delivers a batch, what can go as one super-frame together.
    fn deliver_all(&mut self, cx: &mut Cx<'_, H>, token: Token, batch: &mut UdpBatch) {
        let mut first = 0;
        while first < batch.received().len() {
            let together = alike(&batch.received()[first..]);
            let mut received = batch.received()[first];
            if let Some(container) = self.denied(cx, token, received.remote.ip()) {
                (0..together).for_each(|_| cx.drop(container, DropReason::Denied));
                first += together;
                continue;
            }
            if together > 1 {
                batch.join(first, first + together);
                let lens = batch.received()[first..first + together].iter().map(|r| r.len);
                received.segment = u16::try_from(received.len).ok();
                received.len = lens.sum();
            }
            let like = self.container(token).map_or(received.remote, |c| c);
            let before = Cx::<H>::payload_offset(like.ip()) + HEADER;
            let mut cx = cx.with_buf(&mut batch.room(first)[ROOM_BEFORE - before..]);
            if let Err(reason) = self.deliver(&mut cx, token, &received) {
                (0..together).for_each(|_| cx.out.drop(None, reason));
            }
            first += together;
        }
    }

    fn container(&self, token: Token) -> Option<SocketAddr> {
        match token.kind {
            Kind::UdpMapping => self
                .mappings
                .get(self.mappings.key_at(token.index)?)
                .map(|m| m.container),
            Kind::UdpPublished => self
                .published
                .get(self.published.key_at(token.index)?)
                .map(|p| p.container),
            Kind::Tcp | Kind::TcpListener | Kind::Ping | Kind::Dns => None,
        }
    }

    fn deliver(&mut self, cx: &mut Cx<'_, H>, token: Token, received: &UdpRecv) -> Result<(), DropReason> {
        let way = match token.kind {
            Kind::UdpMapping => {
                let key = self.mappings.key_at(token.index).ok_or(DropReason::NoFlow)?;
                self.answer(cx, key, received.remote)?
            }
            Kind::UdpPublished => {
                let key = self.published.key_at(token.index).ok_or(DropReason::NoFlow)?;
                self.client(cx, key, received)?
            }
            Kind::Tcp | Kind::TcpListener | Kind::Ping | Kind::Dns => return Err(DropReason::NoFlow),
        };
        let (packets, bytes) = forward(cx, &way, received)?;
        cx.flows.count(cx.now, way.flow, way.direction, packets, bytes);
        if way.direction == Direction::Reply
            && cx.flows.get(way.flow).is_some_and(|e| e.state() == State::UdpNew)
        {
            cx.flows.set_state(cx.now, way.flow, State::UdpReplied);
        }
        Ok(())
    }

    /// The flow of a datagram that `remote` sent to a mapping, if it may come in.
    fn answer(&mut self, cx: &mut Cx<'_, H>, key: Key, remote: SocketAddr) -> Result<Way, DropReason> {
        let mapping = self.mappings.get(key).ok_or(DropReason::NoFlow)?;
        let (container, port) = (mapping.container, mapping.port);
        let shown = SocketAddr::new(shown(cx, remote.ip())?, remote.port());
        let tuple = Tuple {
            protocol: Protocol::Udp,
            src: container,
            dst: shown,
        };
        let flow = match cx.flows.lookup(&tuple) {
            Some((id, Direction::Original)) => id,
            // A client of a published port that writes to the mapping instead.
            Some((_, Direction::Reply)) => return Err(DropReason::Filtered),
            None => {
                let allowed = match cx.config.filtering {
                    Filtering::EndpointIndependent => true,
                    // RFC 4787 REQ-8: any port of an address that the container has sent to.
                    Filtering::AddressDependent => self.peers.contains_key(&(key.index, shown.ip())),
                };
                if !allowed || shown.port() == 0 {
                    return Err(DropReason::Filtered);
                }
                let id = enter(cx, tuple, port, key.index, true)?;
                self.hold(key, shown.ip());
                id
            }
        };
        Ok(Way {
            flow,
            direction: Direction::Reply,
            shown,
            container,
        })
    }

    /// Tells containers of the errors that wait on the socket under `token`.
    pub(super) fn errors(&mut self, cx: &mut Cx<'_, H>, token: Token) {
        for _ in 0..READ_BUDGET {
            let mut scratch = std::mem::take(&mut self.scratch);
            let error = self.socket(token).map(|s| s.recv_error(&mut scratch));
            let told = match &error {
                Some(Ok(Some(error))) => self.tell(cx, token, error, &scratch),
                _ => None,
            };
            self.scratch = scratch;
            match error {
                Some(Ok(Some(_))) if told.is_none() => cx.out.drop(None, DropReason::NoFlow),
                Some(Ok(Some(_))) => {}
                Some(Ok(None) | Err(_)) | None => return,
            }
        }
        self.leave(token);
    }

    /// `None` if the error is about no flow.
    fn tell(&mut self, cx: &mut Cx<'_, H>, token: Token, error: &HostError, data: &[u8]) -> Option<()> {
        let container = self.container(token)?;
        let dst = match token.kind {
            Kind::UdpMapping => SocketAddr::new(shown(cx, error.remote.ip()).ok()?, error.remote.port()),
            Kind::UdpPublished => {
                let key = self.published.key_at(token.index)?;
                let client = self.clients.get(*self.by_client.get(&(key, error.remote))?)?;
                cx.flows.get(client.flow).map(Entry::tuple)?.src
            }
            Kind::Tcp | Kind::TcpListener | Kind::Ping | Kind::Dns => return None,
        };
        // RFC 5508 REQ-4: an error without a flow is dropped; REQ-6: one with a flow does not touch it.
        cx.flows.lookup(&Tuple {
            protocol: Protocol::Udp,
            src: container,
            dst,
        })?;
        let meaning = IcmpError::from_host(error)?;
        let offender = if error.offender == Some(error.remote.ip()) {
            Some(dst.ip())
        } else {
            error
                .offender
                .filter(|&o| !o.is_loopback() && !cx.config.on_link(o))
        };
        let quote = icmp::quote_udp(container, dst, &data[..error.len.min(data.len())]);
        icmp::send_error(cx, quote.as_ref(), offender, meaning);
        Some(())
    }
}

/// How many of the first of `received` can go as one super-frame: of one sender and kind, of one length but for the
/// last, which may be shorter, and none of them empty.
fn alike(received: &[UdpRecv]) -> usize {
    let Some(&first) = received.first() else { return 0 };
    if first.segment.is_some() || first.len == 0 || first.len > usize::from(u16::MAX) {
        return 1;
    }
    let mut total = first.len;
    let mut count = 1;
    for next in &received[1..] {
        let same = UdpRecv {
            len: first.len,
            ..*next
        } == first;
        total += next.len;
        if !same || next.len == 0 || next.len > first.len || total > LONGEST_JOINED {
            break;
        }
        count += 1;
        if next.len < first.len {
            break;
        }
    }
    count
}

/// Payload bytes of a super-frame of either IP version at most.
const LONGEST_JOINED: usize = 65_507;

/// How many datagrams to ask for after `batch`: as many again as there may be at once, but few of long ones, so that
/// they stay in the cache until they are sent on.
fn next_ask(batch: &UdpBatch) -> usize {
    if batch.received().iter().any(|r| r.len > LONG) {
        return FEWEST;
    }
    let got = batch.received().len();
    if got == batch.asked() {
        (got * 2).min(MAX_BATCH)
    } else {
        got.next_power_of_two().max(FEWEST)
    }
}

/// Datagrams asked for at least.
pub(super) const FEWEST: usize = 4;

/// Bytes of a datagram, or of several that the host joined, from which on few are taken at a time.
const LONG: usize = 4096;

/// How a container sees the host's `remote`: the host's loopback is behind the gateway's address, if anywhere.
pub(super) fn shown<H>(cx: &Cx<'_, H>, remote: IpAddr) -> Result<IpAddr, DropReason> {
    if remote.is_loopback() {
        return match cx.config.host_loopback {
            HostLoopback::ByGateway => cx.config.gateway_like(remote).ok_or(DropReason::Forbidden),
            HostLoopback::Unreachable => Err(DropReason::Forbidden),
        };
    }
    // An address of the link cannot be beyond it.
    if cx.config.on_link(remote) {
        Err(DropReason::Filtered)
    } else {
        Ok(remote)
    }
}

/// Sends what was received, which stands in the buffer behind room for its headers, to its container. Packets and bytes.
fn forward<H>(cx: &mut Cx<'_, H>, way: &Way, received: &UdpRecv) -> Result<(u64, u64), DropReason> {
    let ip = IpRepr {
        // The hop over this gateway; what has come so far is not dropped for it.
        hop_limit: received.hop_limit.map_or(64, |h| h.saturating_sub(1).max(1)),
        tos: received.tos,
        ..IpRepr::new(way.shown.ip(), way.container.ip(), IpProtocol::Udp)
    };
    let at = Cx::<H>::payload_offset(way.container.ip());
    let headers = ip.header_len() + HEADER;
    let size = received.segment.map_or(received.len, usize::from);
    let count = if size == 0 {
        1
    } else {
        received.len.div_ceil(size).max(1)
    };
    let bytes = (received.len + count * headers) as u64;
    if received.len > longest(way.container.ip()) && count == 1 {
        return Err(DropReason::TooBig);
    }
    if count > 1
        && size + headers <= usize::from(cx.config.mtu)
        && received.len <= longest(way.container.ip())
    {
        let len = HEADER + received.len;
        write_header(cx, way, at, len);
        let seed = sum::pseudo(ip.src, ip.dst, ip.protocol, len);
        cx.buf[at + 6..at + 8].copy_from_slice(&seed.to_be_bytes());
        let start = (ETHERNET + ip.header_len()) as u16;
        let gso = Gso {
            kind: GsoKind::UdpL4,
            size: size as u16,
            header_len: start + HEADER as u16,
            ecn: false,
        };
        let offload = Offload {
            checksum: Checksum::Partial { start, offset: 6 },
            gso: Some(gso),
        };
        cx.transmit(&ip, len, offload)?;
        return Ok((count as u64, bytes));
    }
    for n in 0..count {
        let piece = size.min(received.len - n * size);
        // Each header takes the place of the end of the datagram before, which has gone.
        write_header(cx, way, at + n * size, HEADER + piece);
        fragment::transmit(cx, &ip, at + n * size, HEADER + piece, 6)?;
    }
    Ok((count as u64, bytes))
}

fn write_header<H>(cx: &mut Cx<'_, H>, way: &Way, at: usize, len: usize) {
    let header = &mut cx.buf[at..at + HEADER];
    header[..2].copy_from_slice(&way.shown.port().to_be_bytes());
    header[2..4].copy_from_slice(&way.container.port().to_be_bytes());
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[6..8].fill(0);
}

/// Payload bytes of a datagram at most.
fn longest(addr: IpAddr) -> usize {
    match addr {
        IpAddr::V4(_) => 65_507,
        IpAddr::V6(_) => 65_527,
    }
}
