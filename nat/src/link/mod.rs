//! What the gateway does for its link: ARP, neighbour discovery, DHCP, router advertisements, and echo to itself.
//!
//! # Theory of operation
//!
//! All of it answers at once, from the frame at hand, to the Ethernet address that the frame came from: nothing here
//! sends more than it was sent to anybody but the asker, so nothing amplifies. What is remembered is bounded: neighbours
//! ([`Neighbours`]) and leases ([`dhcp`]). Everything in a frame is a claim of its sender. An address of the gateway, of an
//! attached container or of a lease cannot be claimed by another; such a frame is dropped and counted as
//! [`DropReason::BadSourceAddress`].

mod arp;
mod dhcp;
mod echo;
pub(crate) mod ndp;
mod neighbours;
mod ra;
#[cfg(test)]
mod tests;
mod waiting;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pontoon_switch::frame::{Checksum, HEADROOM};
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Offload, PortId};
use smoltcp::wire::{EthernetProtocol, Icmpv6Packet, IpProtocol};

pub use dhcp::Lease;
pub use neighbours::{Heard, Neighbours};
pub(crate) use waiting::Due;

use crate::config::Config;
use crate::cx::Cx;
use crate::packet::{ETHERNET, IpRepr, Packet};

/// The gateway's part in the life of its link.
#[derive(Debug)]
pub struct Link {
    advertiser: ra::Advertiser,
    dhcp: dhcp::Server,
}

impl Link {
    /// A link as `config` describes it, on which nobody has been heard yet. The first router advertisement is due at once.
    pub fn new(config: &Config) -> Self {
        Self {
            advertiser: ra::Advertiser::new(config),
            dhcp: dhcp::Server::new(config),
        }
    }

    /// Takes an ARP frame.
    pub fn arp<H>(&mut self, cx: &mut Cx<'_, H>, ingress: PortId, frame: &mut Frame<'_>) {
        arp::handle(cx, ingress, frame);
    }

    /// Takes an ICMPv6 packet if it is one of the link's own (neighbour discovery, types 133 to 137). True if it was;
    /// what is wrong with it is counted here.
    pub fn icmpv6_link<H>(&mut self, cx: &mut Cx<'_, H>, packet: &Packet, frame: &Frame<'_>) -> bool {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else {
            return false;
        };
        let body = packet.transport(frame);
        let Some(&kind) = body.first() else {
            return false;
        };
        if packet.protocol != IpProtocol::Icmpv6
            || packet.fragment.is_some()
            || !(ndp::ROUTER_SOLICIT..=ndp::REDIRECT).contains(&kind)
        {
            return false;
        }
        if let Err(reason) = discovery(cx, packet, frame.offload, src, dst, body) {
            cx.drop(packet.ingress, reason);
        }
        true
    }

    /// Takes a UDP packet to port 67 of the gateway or of all. What is wrong with it is counted here.
    pub fn dhcp<H>(&mut self, cx: &mut Cx<'_, H>, packet: &Packet, frame: &Frame<'_>) {
        if let Err(reason) = self.dhcp.handle(cx, packet, frame) {
            cx.drop(packet.ingress, reason);
        }
    }

    /// Answers a ping of the gateway's own address, in place, at any size. True if `packet` was one; what is wrong with it
    /// is counted here.
    pub fn echo<H>(&mut self, cx: &mut Cx<'_, H>, packet: &Packet, frame: &mut Frame<'_>) -> bool {
        echo::handle(cx, packet, frame)
    }

    /// Lets DHCP give `addr` to `mac`, an attached container, and to nobody else.
    pub fn assign(&mut self, mac: MacAddr, addr: Ipv4Addr) {
        self.dhcp.assign(mac, addr);
    }

    /// Undoes [`Link::assign`].
    pub fn unassign(&mut self, mac: MacAddr) {
        self.dhcp.unassign(mac);
    }

    /// First and last of the addresses that DHCP gives to those who have none assigned; address management had better
    /// leave them alone.
    pub fn dhcp_range(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        self.dhcp.range()
    }

    /// The leases of DHCP's range.
    pub fn leases(&self) -> impl Iterator<Item = Lease> + '_ {
        self.dhcp.leases()
    }

    /// Does what is due: router advertisements, ageing of neighbours and leases.
    pub fn flush<H>(&mut self, cx: &mut Cx<'_, H>) {
        self.advertiser.flush(cx);
        cx.neighbours.expire(cx.now);
        self.dhcp.expire(cx.now, cx.neighbours);
    }

    /// When [`Link::flush`] is next due, apart from what waits for a neighbour ([`Neighbours::waiting_until`]). Neighbours age at
    /// the next flush after [`Neighbours::deadline`].
    pub fn deadline(&self) -> Option<Instant> {
        match (self.advertiser.deadline(), self.dhcp.deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Asks who has `addr`, at most once a second for each. What stands in [`Cx::buf`] is left alone.
pub fn solicit<H>(cx: &mut Cx<'_, H>, addr: IpAddr) {
    if is_on_link(cx.config, addr) && cx.neighbours.may_ask(cx.now, addr) {
        ask(cx, addr);
    }
}

/// Asks who has `addr` once more, for those that wait for it ([`Due::Ask`]).
pub(crate) fn solicit_again<H>(cx: &mut Cx<'_, H>, addr: IpAddr) {
    if is_on_link(cx.config, addr) {
        ask(cx, addr);
    }
}

/// True if a neighbour may have `addr`: nobody is asked for others.
fn is_on_link(config: &Config, addr: IpAddr) -> bool {
    let local = matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local() && config.subnet6.is_some());
    (local || config.on_link(addr)) && !config.is_gateway(addr)
}

fn ask<H>(cx: &mut Cx<'_, H>, addr: IpAddr) {
    match addr {
        IpAddr::V4(a) => arp::request(cx, a),
        IpAddr::V6(a) => ndp::request(cx, a),
    }
}

fn discovery<H>(
    cx: &mut Cx<'_, H>,
    packet: &Packet,
    offload: Offload,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    body: &[u8],
) -> Result<(), DropReason> {
    if cx.config.subnet6.is_none() {
        return Err(DropReason::UnknownProtocol);
    }
    // RFC 4861 sections 6.1 and 7.1: hop limit 255 proves that the sender is on the link.
    if body.len() < 8 || body[1] != 0 || packet.hop_limit != 255 {
        return Err(DropReason::Malformed);
    }
    if offload.checksum == Checksum::Complete && !icmpv6_checksum_ok(body, src, dst) {
        return Err(DropReason::BadChecksum);
    }
    if cx.config.is_gateway(src.into()) || src.is_multicast() {
        return Err(DropReason::BadSourceAddress);
    }
    match body[0] {
        ndp::ROUTER_SOLICIT => ra::solicitation(cx, packet, src, body),
        ndp::NEIGHBOUR_SOLICIT => ndp::solicitation(cx, packet, src, dst, body),
        ndp::NEIGHBOUR_ADVERT => ndp::advertisement(cx, packet, dst, body),
        // There is one router on this link, and it sends no redirects.
        _ => Err(DropReason::Forbidden),
    }
}

fn icmpv6_checksum_ok(body: &[u8], src: Ipv6Addr, dst: Ipv6Addr) -> bool {
    Icmpv6Packet::new_unchecked(body).verify_checksum(&src, &dst)
}

fn icmpv6_checksum(body: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) {
    Icmpv6Packet::new_unchecked(body).fill_checksum(&src, &dst);
}

/// Sends the ICMPv6 message `body` (checksum to be filled in, at most 64 bytes) without use of [`Cx::buf`].
fn send_small<H>(cx: &mut Cx<'_, H>, mac: MacAddr, src: Ipv6Addr, dst: Ipv6Addr, body: &mut [u8]) {
    let mut buf = [0; HEADROOM + ETHERNET + 40 + 64];
    let end = HEADROOM + ETHERNET + 40 + body.len();
    let frame = &mut buf[HEADROOM..end];
    icmpv6_checksum(body, src, dst);
    frame[..6].copy_from_slice(&mac.0);
    frame[6..12].copy_from_slice(&cx.config.mac.0);
    frame[12..14].copy_from_slice(&u16::from(EthernetProtocol::Ipv6).to_be_bytes());
    let mut ip = IpRepr::new(src.into(), dst.into(), IpProtocol::Icmpv6);
    ip.hop_limit = 255;
    ip.emit(&mut frame[ETHERNET..], body.len(), 0);
    frame[ETHERNET + 40..].copy_from_slice(body);
    cx.out
        .send(&mut Frame::new(&mut buf, HEADROOM, end, Offload::NONE));
}

/// Search domains as RFC 1035 section 3.1 writes names, uncompressed, as many as fit `limit` bytes. A domain that is no
/// name is left out.
fn encode_domains(domains: &[String], limit: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for domain in domains {
        let mut name = Vec::new();
        let labels: Vec<&str> = domain.trim_end_matches('.').split('.').collect();
        if labels.iter().any(|l| l.is_empty() || l.len() > 63) {
            continue;
        }
        for label in labels {
            name.push(label.len() as u8);
            name.extend_from_slice(label.as_bytes());
        }
        name.push(0);
        if name.len() > 255 {
            continue;
        }
        if all.len() + name.len() > limit {
            break;
        }
        all.extend_from_slice(&name);
    }
    all
}
