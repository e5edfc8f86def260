//! ICMP errors in transit, errors and resets that arise here, and pings of the gateway itself.
//!
//! An error is about a packet that its sender got, so it goes the opposite way of that packet's flow: the quoted packet,
//! reversed, is looked up as if the error's sender answered it. What is quoted then becomes what the error's receiver once
//! sent. Both directions are the same, and so are both sides. An error neither refreshes nor ends a flow (RFC 5508 REQ-6).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use pontoon_switch::frame::HEADROOM;
use pontoon_switch::{DropReason, Frame, Offload, PortId};
use smoltcp::wire::{IpProtocol, TcpPacket};

use super::forward::{Exit, Refusal, check};
use super::rewrite::{self, Subject};
use super::routes::Way;
use super::{LinkKind, Router, Side, opposite, source_route};
use crate::config::Config;
use crate::cx::Cx;
use crate::flow::{Direction, Flags, FlowId, Segment};
use crate::fragment::Lost;
use crate::icmp::{self, IcmpError, Telling};
use crate::packet::{ETHERNET, IpRepr, Packet};
use crate::sum;

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;

impl Router {
    /// An ICMP error on its way.
    pub(super) fn carry_error<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        from: Side,
        packet: &mut Packet,
        frame: &mut Frame<'_>,
    ) -> Result<(), Refusal> {
        let quoted = rewrite::quoted(packet, frame).map_err(Refusal::silent)?;
        // RFC 5508 REQ-4, REQ-5: silently, where there is no such flow.
        let no_flow = Refusal::silent(DropReason::NoFlow);
        let about = source_route::about(from, &quoted);
        let (id, direction) = cx.flows.lookup(&about.reversed()).ok_or(no_flow)?;
        let entry = cx.flows.get(id).ok_or(no_flow)?;
        if !entry.is_forwarded() {
            return Err(no_flow);
        }
        if !self.may_send(entry, from, direction, packet) {
            return Err(Refusal::silent(DropReason::BadSourceAddress));
        }
        let inner = cx.flows.translated(id, direction).ok_or(no_flow)?.reversed();
        // The other end of the flow is known there by another address; a container is, whatever address it speaks by.
        let translated = inner.dst.ip() != about.dst.ip();
        let src = if packet.src == about.dst.ip() || (from == Side::Lan && translated) {
            inner.dst.ip()
        } else {
            packet.src
        };
        let dst = inner.src.ip();
        let exit = self.exit_of(cx, entry, direction, dst)?;
        let exit = self.checked(exit, packet.src, src)?;
        check(packet, frame, exit.mtu)?;
        rewrite::translate_error(frame, packet, &quoted, src, dst, &inner);
        self.next_hop(cx, exit, packet, frame);
        Ok(())
    }

    /// Tells the sender of `packet` (its bytes from the IP header on, as it came from `side`) of `error`, in the name of the
    /// gateway.
    pub(super) fn tell<H>(&mut self, cx: &mut Cx<'_, H>, side: Side, packet: &[u8], error: IcmpError) {
        let at = match side {
            Side::Lan => return icmp::send_error(cx, packet, None, error),
            Side::Link(at) => at,
        };
        let Some(sender) = sender(packet) else { return };
        if !self.told.allow(cx.now, sender) {
            return cx.out.drop(None, DropReason::RateLimited);
        }
        let Some(own) = self.own_address(cx, at, sender) else {
            return;
        };
        let nets = self.broadcast_nets(cx.config);
        let Some(telling) = Telling::about(packet, own, error, &nets) else {
            return;
        };
        *cx.ident = cx.ident.wrapping_add(1);
        let mtu = self.links[at].mtu(own);
        let len = telling.packet(mtu.into(), *cx.ident, &mut cx.buf[HEADROOM + ETHERNET..]);
        self.send_own(cx, at, telling.to(), len);
    }

    /// The IPv4 subnets of all links: no error is sent about what went to one of their broadcast addresses.
    fn broadcast_nets(&self, config: &Config) -> Vec<Ipv4Net> {
        let beyond = self.links.iter().flat_map(|link| link.status().addresses);
        let beyond = beyond.filter_map(|net| match net {
            IpNet::V4(net) => Some(net),
            IpNet::V6(_) => None,
        });
        beyond.chain(config.subnet4.map(|s| s.net)).collect()
    }

    /// Answers a segment that belongs to no connection with a reset (RFC 9293 section 3.10.7.1).
    pub(super) fn reset<H>(&mut self, cx: &mut Cx<'_, H>, side: Side, packet: &Packet, frame: &Frame<'_>) {
        let Some(segment) = Segment::parse(packet.transport(frame)) else {
            return;
        };
        let Some(ports) = packet.transport(frame).first_chunk::<4>().copied() else {
            return;
        };
        if segment.flags.has(Flags::RST) {
            return;
        }
        let ip = IpRepr::new(packet.dst, packet.src, IpProtocol::Tcp);
        let at = HEADROOM + ETHERNET + ip.header_len();
        let [a, b, c, d] = ports;
        let tcp = &mut cx.buf[at..at + TCP_HEADER];
        tcp.fill(0);
        tcp[..4].copy_from_slice(&[c, d, a, b]);
        let mut header = TcpPacket::new_unchecked(&mut *tcp);
        header.set_header_len(TCP_HEADER as u8);
        header.set_rst(true);
        if segment.flags.has(Flags::ACK) {
            tcp[4..8].copy_from_slice(&segment.ack.to_be_bytes());
        } else {
            header.set_ack(true);
            tcp[8..12].copy_from_slice(&segment.end().to_be_bytes());
        }
        let checksum = sum::whole(ip.src, ip.dst, IpProtocol::Tcp, tcp);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        match side {
            Side::Lan => {
                if cx.errors.allow(cx.now, packet.src) {
                    // Without a neighbour it is counted there.
                    let _ = cx.transmit(&ip, TCP_HEADER, Offload::NONE);
                }
            }
            Side::Link(_) if !self.told.allow(cx.now, packet.src) => {
                cx.out.drop(None, DropReason::RateLimited);
            }
            Side::Link(link) => {
                *cx.ident = cx.ident.wrapping_add(1);
                ip.emit(&mut cx.buf[HEADROOM + ETHERNET..], TCP_HEADER, *cx.ident);
                self.send_own(cx, link, packet.src, ip.header_len() + TCP_HEADER);
            }
        }
    }

    /// Answers a ping of one of the gateway's own addresses, in place.
    pub(super) fn answer_echo<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        from: Side,
        packet: &mut Packet,
        frame: &mut Frame<'_>,
    ) {
        let Ok(exit) = self.exit_to_sender(cx, from, packet.src) else {
            return cx.drop(packet.ingress, DropReason::NoEgress);
        };
        rewrite::turn_echo(frame, packet);
        self.emit(cx, exit, packet, frame);
    }

    /// The way back to the sender of a packet that came from `from`.
    fn exit_to_sender<H>(&self, cx: &Cx<'_, H>, from: Side, sender: IpAddr) -> Result<Exit, Refusal> {
        match from {
            Side::Lan => self.exit(cx, sender),
            Side::Link(at) => self.exit_by(at, sender),
        }
    }

    /// Sends the packet of the gateway's making that stands behind the Ethernet header in [`Cx::buf`], `len` bytes long, to `dst`
    /// by the link at `at`.
    fn send_own<H>(&mut self, cx: &mut Cx<'_, H>, at: usize, dst: IpAddr, len: usize) {
        let link = &mut self.links[at];
        let Some(hop) = link.hop(dst) else {
            return cx.out.drop(None, DropReason::NoEgress);
        };
        let end = HEADROOM + ETHERNET + len;
        let mut frame = Frame::new(cx.buf, HEADROOM, end, Offload::NONE);
        link.transmit(cx.now, &mut frame, hop, cx.out);
    }

    /// The gateway's address for what it sends of itself to `peer` by the link at `at`.
    fn own_address<H>(&self, cx: &Cx<'_, H>, at: usize, peer: IpAddr) -> Option<IpAddr> {
        match self.links[at].config().kind {
            LinkKind::World { .. } => self.links[at].address(peer),
            LinkKind::Peer { .. } => cx.config.gateway_like(peer),
        }
    }

    /// A frame that was to leave, by a link or by the switch, and whose neighbour does not answer: the packet's sender is told
    /// (RFC 1812 section 4.3.3.1, RFC 4861 section 7.2.2). What was not forwarded here is none of it, and is left alone.
    pub fn undelivered<H>(&mut self, cx: &mut Cx<'_, H>, frame: &mut Frame<'_>) {
        let Ok(mut packet) = Packet::parse(PortId::STATION, frame) else {
            return;
        };
        let Some((id, direction)) = self.flow_of_sent(cx, &packet, frame) else {
            // It was forwarded as it is, unless the gateway made it.
            let own = cx.config.is_gateway(packet.src);
            if !own && matches!(self.routes.way(cx.config, packet.src), Way::Lan(_)) {
                self.tell(cx, Side::Lan, packet.quoted(frame), IcmpError::HostUnreachable);
            }
            return;
        };
        let Some(entry) = cx.flows.get(id).filter(|entry| entry.is_forwarded()) else {
            return;
        };
        let came = cx.flows.translated(id, opposite(direction)).map(|t| t.reversed());
        let Some(came) = came else { return };
        let Ok(Exit { side, .. }) = self.exit_of(cx, entry, opposite(direction), came.src.ip()) else {
            return;
        };
        rewrite::translate(frame, &mut packet, &came);
        self.tell(cx, side, packet.quoted(frame), IcmpError::HostUnreachable);
    }

    /// The flow that a packet as it leaves belongs to, and its direction in it.
    fn flow_of_sent<H>(
        &self,
        cx: &Cx<'_, H>,
        packet: &Packet,
        frame: &Frame<'_>,
    ) -> Option<(FlowId, Direction)> {
        let tuple = match rewrite::tuple(packet, frame).ok()? {
            Subject::Flow(tuple) | Subject::Answer(tuple) => tuple,
            Subject::Error => return None,
        };
        let found = cx.flows.lookup(&tuple.reversed()).or_else(|| {
            // One with segments left may be of the flow to the last of them.
            let tuple = source_route::to_the_last(&tuple, packet, frame)?;
            cx.flows.lookup(&tuple.reversed())
        });
        found.map(|(id, answers)| (id, opposite(answers)))
    }

    /// A packet that came by the link at `at`.
    pub(super) fn beyond_packet<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        at: usize,
        packet: &Packet,
        frame: &mut Frame<'_>,
    ) {
        let own = self.is_own(cx.config, packet.dst);
        let ours = matches!(self.routes.way(cx.config, packet.dst), Way::Lan(_));
        if own && packet.source_route.is_some() {
            return cx.drop(packet.ingress, DropReason::Malformed);
        }
        if !own && !ours && self.links.world() == Some(at) {
            // Somebody takes the gateway for a router that it is not.
            return cx.drop(packet.ingress, DropReason::Forbidden);
        }
        if packet.fragment.is_some() {
            let now = cx.now;
            let lost = &mut |lost: Lost<'_>| cx.drop(lost.ingress, DropReason::Reassembly);
            let whole = self.links[at].fragments.packet(now, packet, frame, lost);
            if let Some(mut whole) = whole {
                let packet = whole.packet;
                self.beyond_packet(cx, at, &packet, &mut whole.frame());
            }
            return;
        }
        self.forward(cx, Side::Link(at), packet, frame);
    }

    /// Fragments from beyond the links whose time is up.
    pub(super) fn expire_fragments<H>(&mut self, cx: &mut Cx<'_, H>) {
        let mut told = Vec::new();
        let now = cx.now;
        for link in self.links.iter_mut() {
            link.fragments.expire(now, &mut |lost| {
                cx.drop(lost.ingress, DropReason::Reassembly);
                told.extend(lost.exceeded.map(|packet| (lost.ingress, packet.to_vec())));
            });
        }
        for (ingress, packet) in told {
            if let Some(at) = self.links.of(ingress) {
                self.tell(cx, Side::Link(at), &packet, IcmpError::ReassemblyExceeded);
            }
        }
    }
}

/// The sender of a packet, which begins with its IP header.
fn sender(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(12..16)?.first_chunk::<4>().map(|&a| a.into()),
        6 => packet.get(8..24)?.first_chunk::<16>().map(|&a| a.into()),
        _ => None,
    }
}
