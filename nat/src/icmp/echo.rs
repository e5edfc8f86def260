//! Echo requests of containers to the outside, and the answers.
//!
//! Each identifier of a container has one ping socket (RFC 5508 REQ-1: whatever the destination), whose identifier the
//! kernel chooses; the container's is put back in the answers. Where the host shuts ping sockets out, a raw socket of
//! the front's serves all containers, with identifiers given out here. Without one the container is told that echo is
//! prohibited.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{Checksum, DropReason, Frame, Instant, PortId, Ready, offload};
use rustix::io::Errno;
use smoltcp::wire::IpProtocol;

use super::{IcmpError, quote_echo, send_error};
use crate::cx::Cx;
use crate::flow::{Direction, Entry, FlowId, NewFlow, Protocol, State, Tuple};
use crate::fragment;
use crate::host::{IpVersion, Kind, PingError, PingHost, PingRecv, PingSend, PingSocket, Token};
use crate::packet::{IpRepr, Packet};
use crate::share::Ticket;
use crate::slab::{Key, Slab};
use crate::sum;

/// Bytes of an echo header.
const HEADER: usize = 8;

/// Replies read of one socket before the others have their turn.
const READ_BUDGET: usize = 64;

/// Failures of one socket's in one turn before it is left alone.
const READ_FAILURES: usize = 4;

/// Slots in tokens that mean the raw sockets.
const RAW_V4: u32 = u32::MAX;
const RAW_V6: u32 = u32::MAX - 1;

/// An identifier of a container.
#[derive(Debug)]
struct Mapping<S> {
    /// Its own socket; `None` if the raw one is used.
    socket: Option<S>,
    _ticket: Option<Ticket>,
    /// Identifier on the host's side, where the raw socket is used.
    raw_id: u16,
    container: IpAddr,
    id: u16,
    /// Of the last request: a local error does not say which request it is about.
    sequence: u16,
    /// Flows that use it; it goes with the last.
    flows: u32,
}

/// The echo relay of a gateway.
#[derive(Debug)]
pub struct EchoRelay<H: PingHost> {
    mappings: Slab<Mapping<H::Ping>>,
    by_container: HashMap<(IpAddr, u16), Key>,
    raw_v4: Option<H::Ping>,
    raw_v6: Option<H::Ping>,
    /// Identifiers given out on the raw sockets.
    raw_ids: HashMap<(IpVersion, u16), Key>,
    next_raw_id: u16,
    /// Sockets that were left before they were empty.
    unread: Vec<Token>,
    /// For data of the error queue.
    scratch: Box<[u8]>,
}

impl<H: PingHost> Default for EchoRelay<H> {
    fn default() -> Self {
        Self {
            mappings: Slab::default(),
            by_container: HashMap::new(),
            raw_v4: None,
            raw_v6: None,
            raw_ids: HashMap::new(),
            next_raw_id: 0,
            unread: Vec::new(),
            scratch: vec![0; 2048].into_boxed_slice(),
        }
    }
}

/// What an echo request says.
struct Request<'f> {
    id: u16,
    sequence: u16,
    data: &'f [u8],
}

impl<'f> Request<'f> {
    fn parse(packet: &Packet, frame: &'f Frame<'_>) -> Result<Self, DropReason> {
        let message = packet.transport(frame);
        let &[kind, code, _, _, a, b, c, d] = message.first_chunk::<HEADER>().ok_or(DropReason::Malformed)?;
        if !matches!(
            (packet.protocol, kind, code),
            (IpProtocol::Icmp, 8, 0) | (IpProtocol::Icmpv6, 128, 0)
        ) {
            return Err(DropReason::UnknownProtocol);
        }
        let right = match (frame.offload.checksum, packet.protocol) {
            (Checksum::Partial { .. } | Checksum::Valid, _) => true,
            (Checksum::Complete, IpProtocol::Icmpv6) => {
                sum::is_right(packet.src, packet.dst, IpProtocol::Icmpv6, message)
            }
            (Checksum::Complete, _) => offload::checksum(message) == 0,
        };
        if !right {
            return Err(DropReason::BadChecksum);
        }
        Ok(Self {
            id: u16::from_be_bytes([a, b]),
            sequence: u16::from_be_bytes([c, d]),
            data: &message[HEADER..],
        })
    }
}

/// Answers an echo request to the gateway itself whose answer does not fit the link's MTU.
pub fn answer_echo<H>(cx: &mut Cx<'_, H>, packet: &Packet, frame: &Frame<'_>) {
    let request = match Request::parse(packet, frame) {
        Ok(request) => request,
        Err(reason) => return cx.drop(packet.ingress, reason),
    };
    let at = Cx::<H>::payload_offset(packet.src);
    cx.buf[at + HEADER..at + HEADER + request.data.len()].copy_from_slice(request.data);
    let ip = IpRepr {
        tos: packet.tos,
        ..IpRepr::new(packet.dst, packet.src, packet.protocol)
    };
    // Without a neighbour it is counted there.
    let _ = send_reply(cx, &ip, request.id, request.sequence, request.data.len());
}

/// Sends an echo reply whose `len` bytes of data stand in the buffer behind room for its headers. Bytes of the packet.
fn send_reply<H>(
    cx: &mut Cx<'_, H>,
    ip: &IpRepr,
    id: u16,
    sequence: u16,
    len: usize,
) -> Result<u64, DropReason> {
    let at = Cx::<H>::payload_offset(ip.dst);
    let kind = if ip.protocol == IpProtocol::Icmp { 0 } else { 129 };
    let header = &mut cx.buf[at..at + HEADER];
    header.copy_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..].copy_from_slice(&sequence.to_be_bytes());
    fragment::transmit(cx, ip, at, HEADER + len, 2)?;
    Ok((ip.header_len() + HEADER + len) as u64)
}

impl<H: PingHost> EchoRelay<H> {
    /// Uses `socket`, a raw one, where the host shuts ping sockets out.
    ///
    /// # Errors
    /// The poll refuses the socket.
    pub fn set_raw(&mut self, host: &mut H, version: IpVersion, mut socket: H::Ping) -> io::Result<()> {
        host.ping_register(&mut socket, raw_token(version))?;
        *self.raw(version) = Some(socket);
        Ok(())
    }

    /// Takes a container's whole ICMP packet to somewhere beyond the link. Only echo requests go on.
    pub fn packet(&mut self, cx: &mut Cx<'_, H>, packet: &Packet, frame: &Frame<'_>) {
        let request = match Request::parse(packet, frame) {
            Ok(request) => request,
            Err(reason) => return cx.drop(packet.ingress, reason),
        };
        if let Err((reason, error)) = self.relay(cx, packet, &request) {
            cx.drop(packet.ingress, reason);
            if let Some(error) = error {
                send_error(cx, packet.quoted(frame), None, error);
            }
        }
    }

    fn relay(
        &mut self,
        cx: &mut Cx<'_, H>,
        packet: &Packet,
        request: &Request<'_>,
    ) -> Result<(), (DropReason, Option<IcmpError>)> {
        let remote = cx
            .config
            .destination(packet.dst)
            .map_err(|why| (why.reason(), Some(IcmpError::Prohibited)))?;
        let tuple = tuple(packet.src, request.id, packet.dst);
        let flow = match cx.flows.lookup_original(&tuple) {
            Some(flow) => flow,
            None => self.open(cx, tuple, packet.ingress)?,
        };
        let nothing = || (DropReason::NoFlow, None);
        let slot = cx.flows.get(flow).map(Entry::data).ok_or_else(nothing)?;
        let key = self.mappings.key_at(slot).ok_or_else(nothing)?;
        let mapping = self.mappings.get_mut(key).ok_or_else(nothing)?;
        mapping.sequence = request.sequence;
        let how = PingSend {
            remote,
            id: mapping.raw_id,
            sequence: request.sequence,
            hop_limit: Some(packet.hop_limit.saturating_sub(1).max(1)),
            tos: packet.tos,
            dont_fragment: packet.dont_fragment,
        };
        let (socket, token) = match &mut mapping.socket {
            Some(socket) => (Some(socket), token(key)),
            None => {
                let version = IpVersion::of(packet.src);
                (self.raw(version).as_mut(), raw_token(version))
            }
        };
        let socket = socket.ok_or_else(nothing)?;
        match socket.send(&how, request.data) {
            Ok(()) => {
                cx.flows.count(
                    cx.now,
                    flow,
                    Direction::Original,
                    1,
                    (packet.end - packet.ip) as u64,
                );
                Ok(())
            }
            Err(error) => {
                // One that is too big has its MTU in the error queue, and the container hears of it from there.
                self.errors(cx, token, Some(how.id));
                Err((reason(&error), IcmpError::from_io(&error)))
            }
        }
    }

    /// Enters a flow, with a new mapping if the identifier has none.
    fn open(
        &mut self,
        cx: &mut Cx<'_, H>,
        tuple: Tuple,
        port: PortId,
    ) -> Result<FlowId, (DropReason, Option<IcmpError>)> {
        let (container, id) = (tuple.src.ip(), tuple.src.port());
        let known = self.by_container.get(&(container, id)).copied();
        let key = known.unwrap_or_else(|| self.mappings.next_key());
        let refused = |reason| (reason, Some(IcmpError::Prohibited));
        // Before the flow is entered: it might be the first to go for another's sake.
        let ticket = match known {
            None => Some(cx.ticket(port).map_err(refused)?),
            Some(_) => None,
        };
        let flow = NewFlow {
            tuple,
            reply: None,
            container: port,
            outbound: true,
            state: State::Echo,
            data: key.index,
            shares_socket: known.is_some(),
            mark: 0,
            track: None,
        };
        let flow = cx.flows.insert(cx.now, flow).map_err(refused)?;
        if let Some(ticket) = ticket
            && let Err((reason, error)) = self.open_mapping(cx, key, ticket, container, id)
        {
            cx.flows.remove(flow);
            return Err((reason, Some(error)));
        }
        if let Some(mapping) = self.mappings.get_mut(key) {
            mapping.flows += 1;
        }
        Ok(flow)
    }

    fn open_mapping(
        &mut self,
        cx: &mut Cx<'_, H>,
        key: Key,
        ticket: Ticket,
        container: IpAddr,
        id: u16,
    ) -> Result<(), (DropReason, IcmpError)> {
        let version = IpVersion::of(container);
        let (socket, raw_id) = match cx.host.ping_open(token(key), version) {
            Ok(socket) => (Some(socket), 0),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                if self.raw(version).is_none() {
                    return Err((DropReason::HostUnsupported, IcmpError::Prohibited));
                }
                let raw_id = self
                    .free_raw_id(version, id)
                    .ok_or((DropReason::HostExhausted, IcmpError::Prohibited))?;
                self.raw_ids.insert((version, raw_id), key);
                (None, raw_id)
            }
            Err(e) => {
                return Err((
                    reason(&e),
                    IcmpError::from_io(&e).unwrap_or(IcmpError::NetUnreachable),
                ));
            }
        };
        let inserted = self.mappings.insert(Mapping {
            // The raw socket is one for all.
            _ticket: socket.is_some().then_some(ticket),
            socket,
            raw_id,
            container,
            id,
            sequence: 0,
            flows: 0,
        });
        debug_assert_eq!(inserted, key);
        self.by_container.insert((container, id), key);
        Ok(())
    }

    /// The container's own identifier on a raw socket, or the next that is free.
    fn free_raw_id(&mut self, version: IpVersion, id: u16) -> Option<u16> {
        if !self.raw_ids.contains_key(&(version, id)) {
            return Some(id);
        }
        for _ in 0..=u16::MAX {
            self.next_raw_id = self.next_raw_id.wrapping_add(1);
            if !self.raw_ids.contains_key(&(version, self.next_raw_id)) {
                return Some(self.next_raw_id);
            }
        }
        None
    }

    /// A socket of this relay has something to say.
    pub fn ready(&mut self, cx: &mut Cx<'_, H>, token: Token, ready: Ready) {
        if ready.error {
            self.errors(cx, token, None);
        }
        self.read(cx, token);
    }

    /// Reads on what was left.
    pub fn flush(&mut self, cx: &mut Cx<'_, H>) {
        for token in std::mem::take(&mut self.unread) {
            self.errors(cx, token, None);
            self.read(cx, token);
        }
    }

    /// When it next wants [`EchoRelay::flush`].
    pub fn deadline(&self) -> Option<Instant> {
        (!self.unread.is_empty()).then_some(Instant::ZERO)
    }

    /// A flow is out of the table: a mapping goes with its last.
    pub fn ended(&mut self, entry: &Entry) {
        let Some(key) = self.mappings.key_at(entry.data()) else {
            return;
        };
        let src = entry.tuple().src;
        let Some(mapping) = self.mappings.get_mut(key) else {
            return;
        };
        if (mapping.container, mapping.id) != (src.ip(), src.port()) {
            return;
        }
        mapping.flows -= 1;
        if mapping.flows == 0 {
            if mapping.socket.is_none() {
                self.raw_ids.remove(&(IpVersion::of(src.ip()), mapping.raw_id));
            }
            self.by_container.remove(&(src.ip(), src.port()));
            self.mappings.remove(key);
        }
    }

    /// The container at `port` is gone: its identifiers too.
    pub fn detach(&mut self, cx: &mut Cx<'_, H>, port: PortId) {
        let echo = |e: &Entry| matches!(e.protocol(), Protocol::Icmp | Protocol::Icmp6) && !e.is_forwarded();
        let doomed: Vec<FlowId> = cx
            .flows
            .of_container(port)
            .filter(|(_, e)| echo(e))
            .map(|(id, _)| id)
            .collect();
        for id in doomed {
            if let Some(entry) = cx.flows.remove(id) {
                self.ended(&entry);
            }
        }
    }

    /// The translated tuple of `entry`'s replies: who answers, and the identifier on the host.
    pub fn reply_tuple(&self, entry: &Entry) -> Option<(SocketAddr, SocketAddr)> {
        let tuple = entry.tuple();
        let mapping = self.mappings.get(self.mappings.key_at(entry.data())?)?;
        let id = match &mapping.socket {
            Some(socket) => socket.id()?,
            None => mapping.raw_id,
        };
        let unspecified = match tuple.src.ip() {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        Some((tuple.dst, SocketAddr::new(unspecified, id)))
    }

    /// Identifiers mapped now.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    fn raw(&mut self, version: IpVersion) -> &mut Option<H::Ping> {
        match version {
            IpVersion::V4 => &mut self.raw_v4,
            IpVersion::V6 => &mut self.raw_v6,
        }
    }

    fn socket(&mut self, token: Token) -> Option<&mut H::Ping> {
        match token.index {
            RAW_V4 => self.raw_v4.as_mut(),
            RAW_V6 => self.raw_v6.as_mut(),
            index => {
                let key = self
                    .mappings
                    .key_at(index)
                    .filter(|k| token.is_of(k.generation))?;
                self.mappings.get_mut(key)?.socket.as_mut()
            }
        }
    }

    /// The mapping that something under `token` with the host's identifier `id` is for.
    fn mapping(&self, token: Token, id: Option<u16>) -> Option<&Mapping<H::Ping>> {
        let key = match token.index {
            RAW_V4 => *self.raw_ids.get(&(IpVersion::V4, id?))?,
            RAW_V6 => *self.raw_ids.get(&(IpVersion::V6, id?))?,
            index => self.mappings.key_at(index)?,
        };
        self.mappings.get(key)
    }

    /// Reads the socket under `token` until it is empty, or has had its turn.
    fn read(&mut self, cx: &mut Cx<'_, H>, token: Token) {
        let mut failures = 0;
        for _ in 0..READ_BUDGET {
            let Some(like) = self.version_of(token) else {
                return;
            };
            let Some(socket) = self.socket(token) else { return };
            let at = Cx::<H>::payload_offset(like);
            match socket.recv(&mut cx.buf[at..]) {
                Ok(reply) => {
                    if let Err(reason) = self.deliver(cx, token, at, &reply) {
                        cx.out.drop(None, reason);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // An error of an earlier datagram, which the call takes off the socket; but no socket may fail for ever.
                Err(_) => {
                    cx.out.drop(None, DropReason::HostError);
                    failures += 1;
                    if failures == READ_FAILURES {
                        return;
                    }
                }
            }
        }
        self.leave(token);
    }

    /// Notes that the socket under `token` is to be read on.
    fn leave(&mut self, token: Token) {
        if !self.unread.contains(&token) {
            self.unread.push(token);
        }
    }

    /// An address of the version that the socket under `token` has.
    fn version_of(&self, token: Token) -> Option<IpAddr> {
        match token.index {
            RAW_V4 => Some(IpAddr::from([0; 4])),
            RAW_V6 => Some(IpAddr::from([0; 16])),
            index => self
                .mappings
                .get(self.mappings.key_at(index)?)
                .map(|m| m.container),
        }
    }

    /// Sends a reply, which was read into the buffer from `at` on, to the container that asked.
    fn deliver(
        &mut self,
        cx: &mut Cx<'_, H>,
        token: Token,
        at: usize,
        reply: &PingRecv,
    ) -> Result<(), DropReason> {
        let raw = matches!(token.index, RAW_V4 | RAW_V6);
        let Some(mapping) = self.mapping(token, Some(reply.id)) else {
            // A raw socket hears the answers to everybody's requests; these are the host's own.
            return if raw { Ok(()) } else { Err(DropReason::NoFlow) };
        };
        let (container, id) = (mapping.container, mapping.id);
        let tuple = tuple(container, id, reply.remote);
        let Some(flow) = cx.flows.lookup_original(&tuple) else {
            return if raw { Ok(()) } else { Err(DropReason::Filtered) };
        };
        let protocol = match container {
            IpAddr::V4(_) => IpProtocol::Icmp,
            IpAddr::V6(_) => IpProtocol::Icmpv6,
        };
        let from = at + reply.offset;
        if from != at + HEADER {
            cx.buf.copy_within(from..from + reply.len, at + HEADER);
        }
        let ip = IpRepr {
            hop_limit: reply.hop_limit.map_or(64, |h| h.saturating_sub(1).max(1)),
            tos: reply.tos,
            ..IpRepr::new(reply.remote, container, protocol)
        };
        let bytes = send_reply(cx, &ip, id, reply.sequence, reply.len)?;
        cx.flows.count(cx.now, flow, Direction::Reply, 1, bytes);
        Ok(())
    }

    /// Tells containers of the errors that wait on the socket under `token`; one of the host's own that does not say
    /// which request it is about is about that with the identifier `attempted`.
    fn errors(&mut self, cx: &mut Cx<'_, H>, token: Token, attempted: Option<u16>) {
        for _ in 0..READ_BUDGET {
            let mut scratch = std::mem::take(&mut self.scratch);
            let error = self.socket(token).map(|s| s.recv_error(&mut scratch));
            let told = match &error {
                Some(Ok(Some(error))) => self.tell(cx, token, error, attempted, &scratch),
                _ => None,
            };
            self.scratch = scratch;
            match error {
                // A raw socket hears of everybody's errors.
                Some(Ok(Some(_))) if told.is_none() && !matches!(token.index, RAW_V4 | RAW_V6) => {
                    cx.out.drop(None, DropReason::NoFlow);
                }
                Some(Ok(Some(_))) => {}
                Some(Ok(None) | Err(_)) | None => return,
            }
        }
        self.leave(token);
    }

    /// `None` if the error is about no flow.
    fn tell(
        &mut self,
        cx: &mut Cx<'_, H>,
        token: Token,
        error: &PingError,
        attempted: Option<u16>,
        data: &[u8],
    ) -> Option<()> {
        let mapping = self.mapping(token, error.echo.map(|(id, _)| id).or(attempted))?;
        let (container, id) = (mapping.container, mapping.id);
        let sequence = error.echo.map_or(mapping.sequence, |(_, sequence)| sequence);
        let remote = error.error.remote.ip();
        // RFC 5508 REQ-5: an error without a flow is dropped; REQ-6: one with a flow does not touch it.
        cx.flows.lookup_original(&tuple(container, id, remote))?;
        let meaning = IcmpError::from_host(&error.error)?;
        let data = data.get(error.offset..)?;
        let quote = quote_echo(
            container,
            remote,
            id,
            sequence,
            &data[..error.error.len.min(data.len())],
        );
        let offender = error
            .error
            .offender
            .filter(|&o| !o.is_loopback() && !cx.config.on_link(o));
        send_error(cx, quote.as_ref(), offender, meaning);
        Some(())
    }
}

fn tuple(container: IpAddr, id: u16, remote: IpAddr) -> Tuple {
    let protocol = match remote {
        IpAddr::V4(_) => Protocol::Icmp,
        IpAddr::V6(_) => Protocol::Icmp6,
    };
    Tuple {
        protocol,
        src: SocketAddr::new(container, id),
        dst: SocketAddr::new(remote, 0),
    }
}

fn token(key: Key) -> Token {
    Token {
        kind: Kind::Ping,
        index: key.index,
        generation: key.generation,
    }
}

fn raw_token(version: IpVersion) -> Token {
    let index = match version {
        IpVersion::V4 => RAW_V4,
        IpVersion::V6 => RAW_V6,
    };
    Token {
        kind: Kind::Ping,
        index,
        generation: 0,
    }
}

/// The counter for a failed call of the host's.
fn reason(error: &io::Error) -> DropReason {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::AGAIN) => DropReason::HostFull,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => DropReason::HostExhausted,
        _ => DropReason::HostError,
    }
}
