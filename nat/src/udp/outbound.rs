//! From containers to the host.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{Checksum, DropReason, Frame, GsoKind, PortId};
use smoltcp::wire::IpProtocol;

use super::outbox::{LONGEST, Parcel, Run};
use super::{Mapping, Relay, reason};
use crate::cx::Cx;
use crate::flow::{Direction, Entry, FlowId, NewFlow, Protocol, State, Tuple};
use crate::host::{IpVersion, Kind, MAX_RUN, Token, UdpHost, UdpSend, UdpSocket, nth};
use crate::icmp::{self, IcmpError};
use crate::packet::Packet;
use crate::share::Ticket;
use crate::slab::Key;
use crate::sum;

/// How many ports are tried for one of the right parity.
const PARITY_ATTEMPTS: u16 = 4;

/// Bytes of a UDP header.
pub(super) const HEADER: usize = 8;

/// A datagram as it stands in its frame.
pub(crate) struct Datagram<'f> {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) data: &'f [u8],
    /// Segment size of a super-frame.
    segment: Option<u16>,
}

impl<'f> Datagram<'f> {
    /// The datagram in `packet`, its checksum verified unless the frame says that it is good.
    pub(crate) fn parse(packet: &Packet, frame: &'f Frame<'_>) -> Result<Self, DropReason> {
        let udp = packet.transport(frame);
        let h = udp.first_chunk::<HEADER>().ok_or(DropReason::Malformed)?;
        let word = |i: usize| u16::from_be_bytes([h[i], h[i + 1]]);
        let (sport, dport, checksum) = (word(0), word(2), word(6));
        let segment = match frame.offload.gso {
            Some(gso) if gso.kind == GsoKind::UdpL4 && gso.size > 0 => Some(gso.size),
            Some(_) => return Err(DropReason::BadOffload),
            None => None,
        };
        // The length field of a super-frame is not worth looking at: each segment gets its own.
        let len = if segment.is_some() {
            udp.len()
        } else {
            usize::from(word(4))
        };
        if len < HEADER || len > udp.len() || sport == 0 || dport == 0 {
            return Err(DropReason::Malformed);
        }
        let verified = match frame.offload.checksum {
            Checksum::Partial { .. } | Checksum::Valid => true,
            // RFC 768: zero is none; RFC 8200 section 8.1: not over IPv6.
            Checksum::Complete if checksum == 0 => packet.src.is_ipv4(),
            Checksum::Complete => sum::is_right(packet.src, packet.dst, IpProtocol::Udp, &udp[..len]),
        };
        if !verified {
            return Err(DropReason::BadChecksum);
        }
        Ok(Self {
            src: SocketAddr::new(packet.src, sport),
            dst: SocketAddr::new(packet.dst, dport),
            data: &udp[HEADER..len],
            segment,
        })
    }

    /// Datagrams that this stands for.
    fn count(&self) -> u64 {
        self.segment.map_or(1, |size| {
            self.data.len().div_ceil(usize::from(size)).max(1) as u64
        })
    }
}

impl<H: UdpHost> Relay<H> {
    /// Takes a container's whole UDP packet to somewhere beyond the link, or to a client that appears as the gateway.
    pub fn packet(&mut self, cx: &mut Cx<'_, H>, packet: &Packet, frame: &Frame<'_>) {
        let datagram = match Datagram::parse(packet, frame) {
            Ok(datagram) => datagram,
            Err(reason) => return cx.drop(packet.ingress, reason),
        };
        if let Err((reason, error)) = self.relay(cx, packet, &datagram) {
            cx.drop(packet.ingress, reason);
            if let Some(error) = error {
                icmp::send_error(cx, packet.quoted(frame), None, error);
            }
        }
    }

    fn relay(
        &mut self,
        cx: &mut Cx<'_, H>,
        packet: &Packet,
        datagram: &Datagram<'_>,
    ) -> Result<(), (DropReason, Option<IcmpError>)> {
        let tuple = Tuple {
            protocol: Protocol::Udp,
            src: datagram.src,
            dst: datagram.dst,
        };
        let bytes = (packet.end - packet.ip) as u64;
        let mut how = UdpSend {
            // One hop is this gateway's own; to the gateway itself a packet with the last one may go.
            hop_limit: Some(packet.hop_limit.saturating_sub(1).max(1)),
            tos: packet.tos,
            segment: datagram.segment,
            dont_fragment: packet.dont_fragment,
            ..UdpSend::to(datagram.dst)
        };
        let (id, direction, token) = match cx.flows.lookup(&tuple) {
            Some((id, Direction::Reply)) => {
                // A flow that the other side opened is one of a published port.
                let client = cx
                    .flows
                    .get(id)
                    .filter(|e| !e.outbound())
                    .and_then(|e| self.clients.get(self.clients.key_at(e.data())?).copied());
                let Some(client) = client else {
                    return Err((DropReason::NoFlow, None));
                };
                how.remote = client.remote;
                how.local = client.local;
                (id, Direction::Reply, published_token(client.published))
            }
            found => {
                let ip = cx
                    .config
                    .destination(datagram.dst.ip())
                    .map_err(|why| (why.reason(), Some(IcmpError::Prohibited)))?;
                how.remote.set_ip(ip);
                let id = match found {
                    Some((id, _)) => id,
                    None => self.open(cx, packet, tuple)?,
                };
                let slot = cx.flows.get(id).map_or(u32::MAX, Entry::data);
                let Some(key) = self.mappings.key_at(slot) else {
                    return Err((DropReason::NoFlow, None));
                };
                (id, Direction::Original, mapping_token(key))
            }
        };
        if datagram.segment.is_none() && (1..=LONGEST).contains(&datagram.data.len()) {
            if !self.outbox.has_room() {
                self.send_waiting(cx);
            }
            let parcel = Parcel {
                token,
                how,
                flow: id,
                direction,
                ingress: packet.ingress,
                src: datagram.src,
                dst: datagram.dst,
                header: packet.payload + HEADER - packet.ip,
            };
            self.outbox.push(&parcel, datagram.data);
            return Ok(());
        }
        if self.outbox.holds(id) {
            self.send_waiting(cx);
        }
        let Some(socket) = self.socket(token) else {
            return Err((DropReason::NoFlow, None));
        };
        match socket.send(&how, datagram.data) {
            Ok(()) => {
                sent(cx, id, direction, datagram.count(), bytes);
                Ok(())
            }
            Err(error) => {
                // One that is too big has its MTU in the error queue, and the container hears of it from there.
                self.errors(cx, token);
                Err((reason(&error), IcmpError::from_io(&error)))
            }
        }
    }

    /// Sends what waits in the outbox.
    pub(super) fn send_waiting(&mut self, cx: &mut Cx<'_, H>) {
        if self.outbox.is_empty() {
            return;
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        for run in outbox.runs() {
            let mut parts = [IoSlice::new(&[]); MAX_RUN];
            let n = outbox.parts(run, &mut parts);
            self.send_run(cx, run, &parts[..n]);
        }
        outbox.clear();
        self.outbox = outbox;
    }

    /// Sends a run of datagrams. Those that the host does not take are told to the container one by one, as if each had
    /// been sent by itself.
    fn send_run(&mut self, cx: &mut Cx<'_, H>, run: &Run, parts: &[IoSlice<'_>]) {
        let (mut next, mut failed, mut failed_len) = (0, 0, 0);
        while next < run.count {
            let Some(socket) = self.socket(run.parcel.token) else {
                (next..run.count).for_each(|_| cx.drop(run.parcel.ingress, DropReason::NoFlow));
                return;
            };
            let Err((at, error)) = socket.send_run(&run.parcel.how, run.size, parts, next) else {
                break;
            };
            self.errors(cx, run.parcel.token);
            let reason = reason(&error);
            if reason == DropReason::HostFull {
                // The rest finds no more room than this one.
                (at..run.count).for_each(|_| cx.drop(run.parcel.ingress, reason));
                failed += run.count - at;
                failed_len += run.len - at * run.size;
                break;
            }
            cx.drop(run.parcel.ingress, reason);
            let data = nth(parts, run.size, at);
            if let Some(error) = IcmpError::from_io(&error) {
                icmp::send_error(
                    cx,
                    icmp::quote_udp(run.parcel.src, run.parcel.dst, data).as_ref(),
                    None,
                    error,
                );
            }
            failed += 1;
            failed_len += data.len();
            next = at + 1;
        }
        let count = run.count - failed;
        if count > 0 {
            let bytes = run.len - failed_len + count * run.parcel.header;
            sent(
                cx,
                run.parcel.flow,
                run.parcel.direction,
                count as u64,
                bytes as u64,
            );
        }
    }

    /// Enters a flow to a new destination, with a new mapping if the container's port has none.
    fn open(
        &mut self,
        cx: &mut Cx<'_, H>,
        packet: &Packet,
        tuple: Tuple,
    ) -> Result<FlowId, (DropReason, Option<IcmpError>)> {
        // RFC 4787 REQ-1: the mapping is the same whatever the destination.
        let known = self.by_container.get(&tuple.src).copied();
        let key = known.unwrap_or_else(|| self.mappings.next_key());
        let refused = |reason| (reason, Some(IcmpError::Prohibited));
        // Before the flow is entered: it might be the first to go for another's sake.
        let ticket = match known {
            None => Some(cx.ticket(packet.ingress).map_err(refused)?),
            Some(_) => None,
        };
        let id = enter(cx, tuple, packet.ingress, key.index, known.is_some()).map_err(refused)?;
        if let Some(ticket) = ticket
            && let Err(why) = self.open_mapping(cx, key, ticket, packet.ingress, tuple.src)
        {
            cx.flows.remove(id);
            return Err(why);
        }
        self.hold(key, tuple.dst.ip());
        Ok(id)
    }

    fn open_mapping(
        &mut self,
        cx: &mut Cx<'_, H>,
        key: Key,
        ticket: Ticket,
        port: PortId,
        container: SocketAddr,
    ) -> Result<(), (DropReason, Option<IcmpError>)> {
        let socket = open_socket(cx.host, mapping_token(key), container)
            .map_err(|error| (reason(&error), IcmpError::from_io(&error)))?;
        let mapping = Mapping {
            socket,
            _ticket: ticket,
            container,
            port,
            flows: 0,
        };
        let inserted = self.mappings.insert(mapping);
        debug_assert_eq!(inserted, key);
        self.by_container.insert(container, key);
        Ok(())
    }

    /// One more flow of the mapping at `key`, to `peer`.
    pub(super) fn hold(&mut self, key: Key, peer: IpAddr) {
        if let Some(mapping) = self.mappings.get_mut(key) {
            mapping.flows += 1;
            *self.peers.entry((key.index, peer)).or_insert(0) += 1;
        }
    }

    /// One flow less of a mapping, which goes with the last.
    pub(super) fn release(&mut self, entry: &Entry) {
        let Some(key) = self.mappings.key_at(entry.data()) else {
            return;
        };
        let tuple = entry.tuple();
        let Some(mapping) = self.mappings.get_mut(key).filter(|m| m.container == tuple.src) else {
            return;
        };
        mapping.flows -= 1;
        let last = mapping.flows == 0;
        let peer = (key.index, tuple.dst.ip());
        if let Some(n) = self.peers.get_mut(&peer) {
            *n -= 1;
            if *n == 0 {
                self.peers.remove(&peer);
            }
        }
        if last {
            self.by_container.remove(&tuple.src);
            self.mappings.remove(key);
        }
    }
}

/// Counts what has been sent of a flow. RFC 4787 REQ-6: outbound packets refresh the mapping.
fn sent<H>(cx: &mut Cx<'_, H>, flow: FlowId, direction: Direction, packets: u64, bytes: u64) {
    cx.flows.count(cx.now, flow, direction, packets, bytes);
    if direction == Direction::Reply {
        cx.flows.set_state(cx.now, flow, State::UdpReplied);
    }
}

/// The state of a flow to `port` that has seen no answer yet.
///
/// RFC 4787 REQ-5 a: a mapping that talks to a well-known port may go sooner. Questions to DNS and NTP servers come
/// from ever new ports, and each may be a descriptor.
pub(crate) fn first_state(port: u16) -> State {
    match port {
        53 | 123 => State::UdpTransaction,
        _ => State::UdpNew,
    }
}

/// Enters an outbound flow whose slot is `data`; its mapping may be there for others already.
pub(super) fn enter<H>(
    cx: &mut Cx<'_, H>,
    tuple: Tuple,
    container: PortId,
    data: u32,
    shares_socket: bool,
) -> Result<FlowId, DropReason> {
    let state = first_state(tuple.dst.port());
    cx.flows.insert(
        cx.now,
        NewFlow {
            tuple,
            reply: None,
            container,
            outbound: true,
            state,
            data,
            shares_socket,
            mark: 0,
            track: None,
        },
    )
}

pub(super) fn mapping_token(key: Key) -> Token {
    Token {
        kind: Kind::UdpMapping,
        index: key.index,
        generation: key.generation,
    }
}

pub(super) fn published_token(key: Key) -> Token {
    Token {
        kind: Kind::UdpPublished,
        index: key.index,
        generation: key.generation,
    }
}

/// A socket for `container`, on its own port where that takes none from the host's services, else on one of the same
/// parity.
fn open_socket<H: UdpHost>(host: &mut H, token: Token, container: SocketAddr) -> io::Result<H::Udp> {
    let version = IpVersion::of(container.ip());
    let (first, last) = host.ephemeral_ports();
    let port = container.port();
    // RFC 4787 section 4.2.1: port preservation, without overloading (REQ-3): a taken port is not shared.
    if (first..=last).contains(&port) {
        match host.udp_open(token, version, Some(port)) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            done => return done,
        }
    }
    let socket = host.udp_open(token, version, None)?;
    // RFC 4787 REQ-4: keep the parity where a port nearby is free; one descriptor more is used for a moment only.
    let got = socket.local_addr().map_or(port, |a| a.port());
    if got % 2 == port % 2 {
        return Ok(socket);
    }
    let nearby = (0..PARITY_ATTEMPTS)
        .map(|n| got.wrapping_add(1 + 2 * n))
        .filter(|p| (first..=last).contains(p));
    for other in nearby {
        match host.udp_open(token, version, Some(other)) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            Err(_) => break,
            done => return done,
        }
    }
    Ok(socket)
}
