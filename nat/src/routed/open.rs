//! The first packet of a flow: whether there may be one, and what becomes of its packets.

use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{DropReason, Frame, PortId};

use super::config::{LinkKind, Nat};
use super::forward::{Refusal, Seen, UNREACHABLE, check};
use super::ports::Inbound;
use super::routes::Way;
use super::{Between, Router, Side, rules, source_route};
use crate::config::Forbidden;
use crate::cx::Cx;
use crate::flow::{Flags, NewFlow, Protocol, Segment, State, Tuple};
use crate::icmp::IcmpError;
use crate::packet::Packet;
use crate::udp;

mod inward;

/// A flow that may be.
#[derive(Clone, Copy, Debug)]
struct Opening {
    /// The container's port.
    container: PortId,
    /// True if the container opens it.
    outbound: bool,
    /// Where its packets go: the destination as it is, or a container's behind a published port.
    dst: SocketAddr,
    /// The address that its source becomes, if it does.
    masquerade: Option<IpAddr>,
    /// Number of the rule that it comes by, or 0.
    mark: u32,
    /// True if it comes to a port that stands for a container's, as that has made it.
    by_mapping: bool,
}

/// What becomes of a packet that belongs to no flow.
enum Verdict {
    /// It opens one.
    Open(Opening),
    /// It is forwarded by itself: nothing of it is translated, and its answers need not come this way.
    Untracked,
    /// It was a ping of the gateway itself.
    Echo,
    /// It is kept, and answered later or never.
    Kept,
}

impl Router {
    /// A packet that belongs to no flow.
    pub(super) fn open<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        from: Side,
        packet: &mut Packet,
        frame: &mut Frame<'_>,
        seen: &Seen,
    ) -> Result<(), Refusal> {
        let verdict = match from {
            Side::Lan => self.outward(cx, packet, seen),
            Side::Link(at) => self.inward(cx, at, packet, frame, seen),
        };
        let opening = match verdict? {
            Verdict::Open(opening) => opening,
            Verdict::Untracked => {
                let exit = self.exit(cx, packet.dst)?;
                check(packet, frame, exit.mtu)?;
                self.leave(cx, exit, packet, frame, seen, &seen.tuple);
                return Ok(());
            }
            Verdict::Echo => {
                self.answer_echo(cx, from, packet, frame);
                return Ok(());
            }
            Verdict::Kept => return Ok(()),
        };
        let exit = self.exit(cx, source_route::next(packet, opening.dst.ip()))?;
        check(packet, frame, exit.mtu)?;
        let to = self.enter(cx, from, exit.side, seen, opening)?;
        self.leave(cx, exit, packet, frame, seen, &to);
        Ok(())
    }

    /// Enters the flow in the table; the tuple that its first packet leaves with.
    fn enter<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        from: Side,
        to_side: Side,
        seen: &Seen,
        opening: Opening,
    ) -> Result<Tuple, Refusal> {
        // RFC 5508 REQ-8: a refusal for want of resources is told as prohibited.
        let refused = |reason| match from {
            Side::Lan => Refusal::told(reason, IcmpError::Prohibited),
            Side::Link(_) => Refusal::silent(reason),
        };
        let tuple = seen.tuple;
        let to = Tuple {
            dst: opening.dst,
            ..tuple
        };
        let src = match opening.masquerade {
            None => (self.ports.keep_apart(cx.flows, &tuple, to.dst)).map_err(refused)?,
            Some(address) => {
                let own = self.published_as(cx, &tuple, to.dst, address);
                let allotted = match own {
                    Some(external) => Ok(external),
                    None => {
                        let (container, mapping) = (opening.container, self.mapping());
                        self.ports
                            .allot(cx.flows, &tuple, to.dst, container, address, mapping)
                    }
                };
                allotted.map_err(refused)?
            }
        };
        let to = Tuple { src, ..to };
        let between = Between {
            from: self.links.number(from),
            to: self.links.number(to_side),
        };
        let flow = NewFlow {
            tuple,
            reply: Some(to.reversed()),
            container: opening.container,
            outbound: opening.outbound,
            state: first_state(&tuple),
            data: between.data(),
            shares_socket: false,
            mark: opening.mark,
            track: seen.segment,
        };
        match cx.flows.insert(cx.now, flow) {
            Ok(id) => {
                cx.flows.count(
                    cx.now,
                    id,
                    crate::flow::Direction::Original,
                    seen.packets,
                    seen.bytes,
                );
                if opening.by_mapping {
                    self.ports.adopt(tuple.protocol, tuple.dst, to.src);
                }
                if tuple.protocol == Protocol::Tcp {
                    self.unsolicited.answered(&to.reversed());
                }
                Ok(to)
            }
            Err(reason) => {
                if opening.masquerade.is_some() {
                    self.ports.take_back(&tuple, to.src);
                }
                Err(refused(reason))
            }
        }
    }

    /// A container's packet.
    fn outward<H>(&self, cx: &Cx<'_, H>, packet: &Packet, seen: &Seen) -> Result<Verdict, Refusal> {
        let Tuple { src, dst, .. } = seen.tuple;
        if self.is_own(cx.config, dst.ip()) {
            return self.hairpin(cx, packet, seen);
        }
        let way = self.routes.way(cx.config, dst.ip());
        if matches!(way, Way::Lan(_)) {
            return Ok(Verdict::Untracked);
        }
        opens(seen)?;
        let masquerade = match way {
            Way::Lan(_) | Way::Elsewhere => return Err(UNREACHABLE),
            Way::Peer(port) => {
                let link = self.links.of(PortId(port)).ok_or(UNREACHABLE)?;
                match self.links[link].config().kind {
                    LinkKind::Peer { ours_open: true, .. } => None,
                    LinkKind::Peer { ours_open: false, .. } | LinkKind::World { .. } => {
                        return Err(Refusal::told(DropReason::Forbidden, IcmpError::Prohibited));
                    }
                }
            }
            Way::World(_) => {
                if let Err(forbidden) = cx.config.destination(dst.ip()) {
                    return Err(refused_as(forbidden));
                }
                let link = &self.links[self.links.world().ok_or(UNREACHABLE)?];
                match nat_of(&link.config().kind, dst.ip()) {
                    Nat::Masquerade => Some(link.address(dst.ip()).ok_or(UNREACHABLE)?),
                    Nat::Route => None,
                }
            }
        };
        if src.ip().is_unspecified() {
            return Err(Refusal::silent(DropReason::BadSourceAddress));
        }
        Ok(Verdict::Open(Opening {
            container: packet.ingress,
            outbound: true,
            dst,
            masquerade,
            mark: 0,
            by_mapping: false,
        }))
    }

    /// A container's packet to one of the gateway's own addresses: to a published port, its own or another's, or to what a
    /// mapping shows of another container (RFC 4787 REQ-9). The source becomes what the world would see.
    fn hairpin<H>(&self, cx: &Cx<'_, H>, packet: &Packet, seen: &Seen) -> Result<Verdict, Refusal> {
        let Tuple { protocol, dst, .. } = seen.tuple;
        if let Some(rule) = self.rule_for(cx, seen)? {
            return Ok(Verdict::Open(Opening {
                container: packet.ingress,
                outbound: true,
                dst: rule.container,
                masquerade: Some(dst.ip()),
                mark: rule.id.0,
                by_mapping: self.stands_for(protocol, dst, rule.container),
            }));
        }
        let as_seen = SocketAddr::new(dst.ip(), 0);
        match self.mapped(protocol, dst, as_seen) {
            Some(inbound) if inbound.allowed => {
                opens(seen)?;
                Ok(Verdict::Open(Opening {
                    container: packet.ingress,
                    outbound: true,
                    dst: inbound.internal,
                    masquerade: Some(dst.ip()),
                    mark: 0,
                    by_mapping: true,
                }))
            }
            Some(_) => Err(Refusal::silent(DropReason::Filtered)),
            None if seen.is_ping => Ok(Verdict::Echo),
            None => Err(nobody_there(protocol)),
        }
    }

    /// The rule of publishing that the first packet of a flow to one of the gateway's own addresses falls under, if there is one.
    fn rule_for<H>(&self, cx: &Cx<'_, H>, seen: &Seen) -> Result<Option<rules::Found>, Refusal> {
        let Tuple { protocol, src, dst } = seen.tuple;
        let Some(transport) = rules::transport(protocol) else {
            return Ok(None);
        };
        let Some(rule) = self.rules.find(transport, dst) else {
            return Ok(None);
        };
        let target = (rule.port, transport, rule.container.port());
        if cx.sources.denies(target, src.ip()) {
            return Err(denied(protocol));
        }
        opens(seen)?;
        Ok(Some(rule))
    }

    /// The container's port that has `addr`, or that of the router that leads to it.
    fn owner<H>(&self, cx: &Cx<'_, H>, addr: IpAddr) -> PortId {
        let router = match self.routes.way(cx.config, addr) {
            Way::Lan(router) => router,
            Way::Peer(_) | Way::World(_) | Way::Elsewhere => addr,
        };
        self.owners.get(&router).copied().unwrap_or(PortId::STATION)
    }

    /// What stands at one of the gateway's ports as a container has made it. (Queries of ICMP have no port at this end.)
    fn mapped(&self, protocol: Protocol, at: SocketAddr, remote: SocketAddr) -> Option<Inbound> {
        rules::transport(protocol)?;
        self.ports.inbound(protocol, at, remote)
    }

    /// True if the container's endpoint that a rule leads to has made a mapping of the very port of the rule.
    fn stands_for(&self, protocol: Protocol, at: SocketAddr, container: SocketAddr) -> bool {
        self.mapped(protocol, at, at)
            .is_some_and(|m| m.internal == container)
    }

    /// The gateway's endpoint that a container's own is published as, if that makes a new reply tuple: what a server sends of itself
    /// comes from where its clients find it.
    fn published_as<H>(
        &self,
        cx: &Cx<'_, H>,
        tuple: &Tuple,
        to: SocketAddr,
        address: IpAddr,
    ) -> Option<SocketAddr> {
        let transport = rules::transport(tuple.protocol)?;
        let host = self.rules.host_of(transport, tuple.src, address)?;
        let reply = Tuple {
            protocol: tuple.protocol,
            src: to,
            dst: host,
        };
        cx.flows.lookup(&reply).is_none().then_some(host)
    }

    fn mapping(&self) -> super::Mapping {
        let world = self.links.world().map(|at| &self.links[at].config().kind);
        match world {
            Some(LinkKind::World { mapping, .. }) => *mapping,
            Some(LinkKind::Peer { .. }) | None => super::Mapping::default(),
        }
    }
}

/// A first packet of TCP is a SYN, one of ICMP is a query; of the others it is any.
fn opens(seen: &Seen) -> Result<(), Refusal> {
    match seen.segment {
        None if seen.is_answer => Err(Refusal::silent(DropReason::NoFlow)),
        Some(segment) if segment.flags.has(Flags::RST) => Err(Refusal::silent(DropReason::NoFlow)),
        Some(segment) if !is_opening(&segment) => Err(Refusal::reset(DropReason::NoFlow)),
        Some(_) | None => Ok(()),
    }
}

/// True for the SYN of who opens a connection.
fn is_opening(segment: &Segment) -> bool {
    segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK.with(Flags::RST).with(Flags::FIN))
}

pub(super) fn refused_as(forbidden: Forbidden) -> Refusal {
    Refusal::told(forbidden.reason(), IcmpError::Prohibited)
}

/// A client that a rule denies: as with the sockets of the other egress, TCP's are reset and UDP's not heard.
fn denied(protocol: Protocol) -> Refusal {
    match protocol {
        Protocol::Tcp => Refusal::reset(DropReason::Denied),
        Protocol::Udp | Protocol::Icmp | Protocol::Icmp6 | Protocol::Other(_) => {
            Refusal::silent(DropReason::Denied)
        }
    }
}

/// The gateway is a host on which nobody listens.
fn nobody_there(protocol: Protocol) -> Refusal {
    match protocol {
        Protocol::Tcp => Refusal::reset(DropReason::NoFlow),
        Protocol::Udp => Refusal::told(DropReason::NoFlow, IcmpError::PortUnreachable),
        Protocol::Icmp | Protocol::Icmp6 => Refusal::silent(DropReason::NoFlow),
        Protocol::Other(_) => Refusal::told(DropReason::UnknownProtocol, IcmpError::ProtocolUnreachable),
    }
}

fn nat_of(kind: &LinkKind, like: IpAddr) -> Nat {
    match (kind, like) {
        (LinkKind::World { nat4, .. }, IpAddr::V4(_)) => *nat4,
        (LinkKind::World { nat6, .. }, IpAddr::V6(_)) => *nat6,
        (LinkKind::Peer { .. }, _) => Nat::Route,
    }
}

/// True for an address that somebody elsewhere can have.
fn may_be_client(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => !a.is_loopback() && a.octets()[0] != 0 && a.octets()[0] < 224,
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unspecified() && !a.is_multicast(),
    }
}

fn first_state(tuple: &Tuple) -> State {
    match tuple.protocol {
        Protocol::Tcp => State::SynSent,
        Protocol::Udp => udp::first_state(tuple.dst.port()),
        Protocol::Icmp | Protocol::Icmp6 => State::Echo,
        Protocol::Other(_) => State::Other,
    }
}
