//! The way of a packet through the router.
//!
//! Whatever may be refused is found out before the first byte is changed, so that an error quotes the packet as it came.

use std::net::IpAddr;

use pontoon_switch::{Checksum, DropReason, Frame, Offload, PortId};
use smoltcp::wire::{EthernetProtocol, IpProtocol};

use super::links::{Between, Links};
use super::rewrite::{self, Subject};
use super::routes::Way;
use super::{Router, Side, cut, source_route};
use crate::cx::Cx;
use crate::flow::{Direction, Entry, Flags, FlowId, Protocol, Segment, State, Tuple};
use crate::icmp::IcmpError;
use crate::packet::{ETHERNET, Packet};
use crate::sum;

/// A packet that is not forwarded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    /// The counter for it.
    pub(super) reason: DropReason,
    /// What its sender is told.
    pub(super) answer: Answer,
}

/// What the sender of a refused packet is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Nothing.
    Silence,
    /// An ICMP error.
    Error(IcmpError),
    /// A TCP reset.
    Reset,
}

impl Refusal {
    pub(super) fn silent(reason: DropReason) -> Self {
        let answer = Answer::Silence;
        Self { reason, answer }
    }

    pub(super) fn told(reason: DropReason, error: IcmpError) -> Self {
        let answer = Answer::Error(error);
        Self { reason, answer }
    }

    pub(super) fn reset(reason: DropReason) -> Self {
        let answer = Answer::Reset;
        Self { reason, answer }
    }
}

/// There is no way there.
pub(super) const UNREACHABLE: Refusal = Refusal {
    reason: DropReason::NoEgress,
    answer: Answer::Error(IcmpError::NetUnreachable),
};

/// Where a packet leaves, and for which neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Exit {
    pub(super) side: Side,
    pub(super) hop: IpAddr,
    pub(super) mtu: u16,
}

/// What of a packet is looked at more than once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) tuple: Tuple,
    /// Its segment, if it is of TCP.
    pub(super) segment: Option<Segment>,
    /// It is the answer to an ICMP query, and opens nothing.
    pub(super) is_answer: bool,
    /// It is an echo request.
    pub(super) is_ping: bool,
    /// MTU of the side that it came from.
    mtu: u16,
    /// IP packets that it stands for, and their bytes.
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Router {
    /// Forwards a whole packet that came from `from`, or refuses it.
    pub(super) fn forward<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        from: Side,
        packet: &Packet,
        frame: &mut Frame<'_>,
    ) {
        // What is behind the packet is padding of a short frame.
        frame.truncate(packet.end);
        let mut as_it_goes = *packet;
        if let Err(refusal) = self.try_forward(cx, from, &mut as_it_goes, frame) {
            // Nothing has been changed yet.
            self.refuse(cx, from, packet, frame, refusal);
        }
    }

    fn try_forward<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        from: Side,
        packet: &mut Packet,
        frame: &mut Frame<'_>,
    ) -> Result<(), Refusal> {
        // RFC 4291 section 2.5.6: link-local packets stay on their link, and on it the gateway is asked for no more than an echo.
        if is_link_local(packet.src) || is_link_local(packet.dst) {
            if is_ping(packet, frame) && self.is_own(cx.config, packet.dst) {
                self.answer_echo(cx, from, packet, frame);
                return Ok(());
            }
            return Err(Refusal::silent(DropReason::Forbidden));
        }
        let mut subject = rewrite::tuple(packet, frame).map_err(Refusal::silent)?;
        if packet.source_route.is_some() {
            subject = self.with_segments(cx, from, packet, frame, subject)?;
        }
        let tuple = match subject {
            Subject::Flow(tuple) | Subject::Answer(tuple) => tuple,
            Subject::Error => return self.carry_error(cx, from, packet, frame),
        };
        let segment = match tuple.protocol {
            Protocol::Tcp => Some(segment(packet, frame).map_err(Refusal::silent)?),
            Protocol::Udp | Protocol::Icmp | Protocol::Icmp6 | Protocol::Other(_) => None,
        };
        let (packets, bytes) = extent(packet, frame);
        let seen = Seen {
            tuple,
            segment,
            is_answer: matches!(subject, Subject::Answer(_)),
            is_ping: is_ping(packet, frame),
            mtu: match from {
                Side::Lan => cx.config.mtu,
                Side::Link(at) => self.links[at].mtu(packet.src),
            },
            packets,
            bytes,
        };
        match cx.flows.lookup(&tuple) {
            Some((id, direction)) => self.pass(cx, from, packet, frame, &seen, id, direction),
            None => self.open(cx, from, packet, frame, &seen),
        }
    }

    /// A packet of a flow that is there.
    #[expect(clippy::too_many_arguments, reason = "the way of a packet, in one piece")]
    fn pass<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        from: Side,
        packet: &mut Packet,
        frame: &mut Frame<'_>,
        seen: &Seen,
        id: FlowId,
        direction: Direction,
    ) -> Result<(), Refusal> {
        let (Some(entry), Some(to)) = (cx.flows.get(id), cx.flows.translated(id, direction)) else {
            return Err(Refusal::silent(DropReason::NoFlow));
        };
        if !entry.is_forwarded() {
            return Err(Refusal::silent(DropReason::NoFlow));
        }
        if !self.may_send(entry, from, direction, packet) {
            return Err(Refusal::silent(DropReason::BadSourceAddress));
        }
        // RFC 4787 REQ-5 c: a flow that both sides go on with lasts longer than a question and its answer.
        let goes_on =
            entry.state() == State::UdpNew && direction == Direction::Original && entry.is_answered();
        let next = source_route::next(packet, to.dst.ip());
        let exit = self
            .exit_of(cx, entry, direction, next)
            .and_then(|exit| self.checked(exit, seen.tuple.src.ip(), to.src.ip()));
        if exit.is_err()
            && let Some(segment) = seen.segment.as_ref().filter(|s| s.flags.has(Flags::RST))
        {
            // Whoever ends a connection does not wait for a way: it is over, whether the other end hears of it or not.
            let _ = cx.flows.follow(cx.now, id, direction, segment);
        }
        let exit = exit?;
        check(packet, frame, exit.mtu)?;
        match &seen.segment {
            Some(segment) => {
                let followed = cx.flows.follow(cx.now, id, direction, segment);
                followed.map_err(Refusal::silent)?;
            }
            None if goes_on => cx.flows.set_state(cx.now, id, State::UdpReplied),
            None => {}
        }
        cx.flows.count(cx.now, id, direction, seen.packets, seen.bytes);
        self.leave(cx, exit, packet, frame, seen, &to);
        Ok(())
    }

    /// Rewrites a packet and sends it on.
    pub(super) fn leave<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        exit: Exit,
        packet: &mut Packet,
        frame: &mut Frame<'_>,
        seen: &Seen,
        to: &Tuple,
    ) {
        if seen.segment.is_some_and(|s| s.flags.has(Flags::SYN)) {
            // RFC 879: without IP and TCP headers. The narrower of the two links counts, whichever way it is crossed.
            let mtu = exit.mtu.min(seen.mtu);
            let headers = if packet.src.is_ipv4() { 40 } else { 60 };
            rewrite::clamp_mss(frame, packet, mtu.saturating_sub(headers));
        }
        rewrite::translate(frame, packet, to);
        self.next_hop(cx, exit, packet, frame);
    }

    /// Sends a packet on that has crossed the gateway.
    pub(super) fn next_hop<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        exit: Exit,
        packet: &mut Packet,
        frame: &mut Frame<'_>,
    ) {
        match rewrite::hop(frame, packet) {
            Ok(()) => self.emit(cx, exit, packet, frame),
            Err(reason) => cx.drop(packet.ingress, reason),
        }
    }

    /// Sends a packet that is as it is to be, but for the Ethernet header, in pieces if it must be.
    pub(super) fn emit<H>(&mut self, cx: &mut Cx<'_, H>, exit: Exit, packet: &Packet, frame: &mut Frame<'_>) {
        let Self {
            links, cutter, ident, ..
        } = self;
        let sent = cutter.send(frame, packet, exit.mtu, ident, &mut |frame| {
            send(links, cx, exit, frame)
        });
        if sent.is_err() {
            // Whoever is to be told was told before it was rewritten; this is of the gateway's own.
            cx.drop(packet.ingress, DropReason::TooBig);
        }
    }

    /// True if a packet that came from `from` may be one of the flow's in that direction. Whoever is on another link may know the
    /// flow's addresses, and is none of its ends; a container speaks for itself only (the other side of a hairpin is another one).
    pub(super) fn may_send(&self, entry: &Entry, from: Side, direction: Direction, packet: &Packet) -> bool {
        let between = Between::of(entry);
        let side = match direction {
            Direction::Original => between.from,
            Direction::Reply => between.to,
        };
        let of_container = entry.outbound() == (direction == Direction::Original);
        let foreign = from == Side::Lan && of_container && entry.container() != packet.ingress;
        self.links.number(from) == side && !foreign
    }

    /// Where a packet of a flow leaves that came in `direction` and is for `dst` now: by the link that the other direction comes
    /// by, whatever else has that address.
    pub(super) fn exit_of<H>(
        &self,
        cx: &Cx<'_, H>,
        entry: &Entry,
        direction: Direction,
        dst: IpAddr,
    ) -> Result<Exit, Refusal> {
        let between = Between::of(entry);
        let number = match direction {
            Direction::Original => between.to,
            Direction::Reply => between.from,
        };
        let routed = self.exit(cx, dst);
        match routed {
            // A route may name the router.
            Ok(exit) if self.links.number(exit.side) == number => Ok(exit),
            Ok(_) | Err(_) if number == 0 => Err(UNREACHABLE),
            Ok(_) | Err(_) => self.exit_by(self.links.numbered(number).ok_or(UNREACHABLE)?, dst),
        }
    }

    /// The exit of a flow's packet from `came`, if it may leave there as from `leaves`.
    pub(super) fn checked(&self, exit: Exit, came: IpAddr, leaves: IpAddr) -> Result<Exit, Refusal> {
        let may_leave = self.links.may_leave(exit.side, came, leaves);
        may_leave.then_some(exit).ok_or(UNREACHABLE)
    }

    /// The way to `dst` by the link at `at`.
    pub(super) fn exit_by(&self, at: usize, dst: IpAddr) -> Result<Exit, Refusal> {
        let hop = self.links[at].hop(dst).ok_or(UNREACHABLE)?;
        Ok(Exit {
            side: Side::Link(at),
            hop,
            mtu: self.links[at].mtu(hop),
        })
    }

    /// Where a packet to `dst` leaves.
    pub(super) fn exit<H>(&self, cx: &Cx<'_, H>, dst: IpAddr) -> Result<Exit, Refusal> {
        match self.routes.way(cx.config, dst) {
            Way::Lan(hop) => Ok(Exit {
                side: Side::Lan,
                hop,
                mtu: cx.config.mtu,
            }),
            Way::Peer(port) => self.exit_by(self.links.of(PortId(port)).ok_or(UNREACHABLE)?, dst),
            Way::World(router) => {
                let at = self.links.world().ok_or(UNREACHABLE)?;
                self.exit_by(at, router.unwrap_or(dst))
            }
            Way::Elsewhere => Err(UNREACHABLE),
        }
    }

    /// Counts a packet that is not forwarded, and tells its sender.
    pub(super) fn refuse<H>(
        &mut self,
        cx: &mut Cx<'_, H>,
        from: Side,
        packet: &Packet,
        frame: &Frame<'_>,
        refusal: Refusal,
    ) {
        cx.drop(packet.ingress, refusal.reason);
        match refusal.answer {
            Answer::Silence => {}
            Answer::Error(error) => self.tell(cx, from, packet.quoted(frame), error),
            // Who is named as destination is not the other end.
            Answer::Reset if packet.source_route.is_some() => {}
            Answer::Reset => self.reset(cx, from, packet, frame),
        }
    }
}

/// Writes the Ethernet header and sends the frame.
fn send<H>(links: &mut Links, cx: &mut Cx<'_, H>, exit: Exit, frame: &mut Frame<'_>) {
    match exit.side {
        Side::Link(at) => links[at].transmit(cx.now, frame, exit.hop, cx.out),
        Side::Lan => {
            let ethertype = match exit.hop {
                IpAddr::V4(_) => EthernetProtocol::Ipv4,
                IpAddr::V6(_) => EthernetProtocol::Ipv6,
            };
            let known = cx.neighbours.lookup(exit.hop);
            let header = &mut frame.bytes_mut()[..ETHERNET];
            header[..6].copy_from_slice(&known.unwrap_or_default().0);
            header[6..12].copy_from_slice(&cx.config.mac.0);
            header[12..].copy_from_slice(&u16::from(ethertype).to_be_bytes());
            if known.is_some() {
                return cx.out.send(frame);
            }
            let kept = cx.neighbours.keep(cx.now, exit.hop, frame.bytes(), frame.offload);
            crate::link::solicit(cx, exit.hop);
            for _ in 0..kept.unwrap_or(1) {
                cx.out.drop(None, DropReason::NoNeighbour);
            }
        }
    }
}

/// Whether a packet may be forwarded to a link with that MTU: it has a hop left, and fits or may be cut. (RFC 1812 section 5.3.1;
/// RFC 1191, RFC 8201.)
pub(super) fn check(packet: &Packet, frame: &Frame<'_>, mtu: u16) -> Result<(), Refusal> {
    if packet.hop_limit <= 1 {
        return Err(Refusal::told(DropReason::HopLimit, IcmpError::HopLimitExceeded));
    }
    cut::check(frame, packet, mtu)
        .map_err(|cut::TooBig(mtu)| Refusal::told(DropReason::TooBig, IcmpError::PacketTooBig(mtu)))
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// The TCP segment in a packet. Those that change a connection's state must be whole; what is wrong with data is for its receiver
/// to find.
fn segment(packet: &Packet, frame: &Frame<'_>) -> Result<Segment, DropReason> {
    let tcp = packet.transport(frame);
    let segment = Segment::parse(tcp).ok_or(DropReason::Malformed)?;
    let changes = segment.flags.has(Flags::SYN.with(Flags::FIN).with(Flags::RST));
    if changes
        && frame.offload.checksum == Checksum::Complete
        && let Some(dst) = packet.last_destination(frame)
        && !sum::is_right(packet.src, dst, packet.protocol, tcp)
    {
        return Err(DropReason::BadChecksum);
    }
    Ok(segment)
}

/// True for an echo request (RFC 792, RFC 4443 section 4.1).
fn is_ping(packet: &Packet, frame: &Frame<'_>) -> bool {
    let kind = packet.transport(frame).first();
    match packet.protocol {
        IpProtocol::Icmp => kind == Some(&8),
        IpProtocol::Icmpv6 => kind == Some(&128),
        _ => false,
    }
}

/// IP packets that a frame stands for, and their bytes together.
fn extent(packet: &Packet, frame: &Frame<'_>) -> (u64, u64) {
    let bytes = packet.end - packet.ip;
    let Offload { gso: Some(gso), .. } = frame.offload else {
        return (1, bytes as u64);
    };
    let headers = usize::from(gso.header_len).saturating_sub(packet.ip);
    let data = bytes.saturating_sub(headers);
    let packets = data.div_ceil(usize::from(gso.size).max(1)).max(1);
    (packets as u64, (data + packets * headers) as u64)
}
