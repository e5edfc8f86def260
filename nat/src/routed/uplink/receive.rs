//! Sorting what comes by an uplink: what is the link's own business, what is the router's, what is nobody's.

use std::net::{IpAddr, Ipv6Addr};

use pontoon_switch::frame::Checksum;
use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Out};
use smoltcp::wire::{EthernetProtocol, IpProtocol};

use super::{Uplink, dhcp};
use crate::packet::{ETHERNET, Packet};
use crate::routed::config::LinkKind;
use crate::sum;

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// It was the link's business, or nobody's: there is no more to do.
    Done,
    /// It is an IP packet for the router: from a host that is not us, to a host, in a frame to our Ethernet address. Its
    /// destination is an address of ours, or one beyond, to be forwarded or refused.
    Packet(Packet),
}

impl Uplink {
    /// Takes a frame that came by the link. What is wrong with it, or not spoken here, is counted; frames for others are
    /// passed over.
    pub fn receive(&mut self, now: Instant, frame: &mut Frame<'_>, out: &mut dyn Out) -> Received {
        self.sort(now, frame, out).unwrap_or_else(|reason| {
            out.drop(Some(self.port), reason);
            Received::Done
        })
    }

    fn sort(&mut self, now: Instant, frame: &Frame<'_>, out: &mut dyn Out) -> Result<Received, DropReason> {
        let Some(header) = frame.bytes().first_chunk::<ETHERNET>() else {
            return Err(DropReason::BadLength);
        };
        let ethertype = EthernetProtocol::from(u16::from_be_bytes([header[12], header[13]]));
        let (to, from) = (frame.dst(), frame.src());
        match self.config.kind {
            LinkKind::Peer { .. } => {}
            // A packet socket shows us the frames of others, and our own.
            LinkKind::World { .. } if from == self.config.mac => return Ok(Received::Done),
            LinkKind::World { .. } if to != self.config.mac && !to.is_group() => return Ok(Received::Done),
            LinkKind::World { .. } => {}
        }
        if frame.vlan().is_some() {
            return Err(DropReason::Vlan);
        }
        if !from.is_unicast() {
            return Err(DropReason::BadSource);
        }
        let peer = matches!(self.config.kind, LinkKind::Peer { .. });
        match ethertype {
            EthernetProtocol::Arp if !peer => {
                self.arp(now, frame, out)?;
                Ok(Received::Done)
            }
            EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6 => {
                let packet = Packet::parse(self.port, frame)?;
                if peer {
                    return Ok(Received::Packet(packet));
                }
                self.packet(now, packet, to, frame, out)
            }
            EthernetProtocol::Arp | EthernetProtocol::Unknown(_) => Err(DropReason::UnknownProtocol),
        }
    }

    fn packet(
        &mut self,
        now: Instant,
        packet: Packet,
        to: MacAddr,
        frame: &Frame<'_>,
        out: &mut dyn Out,
    ) -> Result<Received, DropReason> {
        let (ipv4, ipv6) = self.addressing();
        let spoken = match packet.dst {
            IpAddr::V4(_) => ipv4.is_some(),
            IpAddr::V6(_) => ipv6.is_some(),
        };
        if !spoken {
            return Err(DropReason::UnknownProtocol);
        }
        // What is to go on to others is not the link's own business.
        let local = packet.source_route.is_none();
        let taken = local
            && (self.leases(now, &packet, frame)?
                || self.discovers(now, &packet, frame, out)?
                || self.queries(now, &packet, frame)?);
        if taken {
            return Ok(Received::Done);
        }
        if self.addresses.has(packet.src) || !self.is_host(packet.src) {
            return Err(DropReason::BadSourceAddress);
        }
        // RFC 1122 section 3.3.6: what was sent to all on the link is not for one, and is never forwarded.
        if to.is_group() || !self.is_host(packet.dst) {
            return Err(DropReason::Forbidden);
        }
        // RFC 4291 section 2.5.6: link-local packets stay on their link.
        let local = |addr: IpAddr| matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local());
        if (local(packet.src) || local(packet.dst)) && !self.owns(packet.dst) {
            return Err(DropReason::Forbidden);
        }
        Ok(Received::Packet(packet))
    }

    /// Takes a DHCP server's message. False if it is none, or if there is no client.
    fn leases(&mut self, now: Instant, packet: &Packet, frame: &Frame<'_>) -> Result<bool, DropReason> {
        let Some(client) = &mut self.dhcp else {
            return Ok(false);
        };
        if packet.protocol != IpProtocol::Udp || packet.fragment.is_some() || packet.src.is_ipv6() {
            return Ok(false);
        }
        let datagram = packet.transport(frame);
        let Some(&[a, b, c, d, e, f, g, h]) = datagram.first_chunk::<8>() else {
            return Ok(false);
        };
        if [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])] != [dhcp::SERVER, dhcp::CLIENT] {
            return Ok(false);
        }
        let len = usize::from(u16::from_be_bytes([e, f]));
        let Some(datagram) = datagram.get(..len).filter(|_| len >= 8) else {
            return Err(DropReason::Malformed);
        };
        if [g, h] != [0, 0] {
            verify(packet, frame, datagram)?;
        }
        client.input(now, packet.src_mac, packet.quoted(frame), &datagram[8..]);
        Ok(true)
    }
}

/// The ends of an ICMPv6 message and its bytes from the type on; none if the packet is another or a fragment.
pub(super) fn icmpv6<'a>(packet: &Packet, frame: &'a Frame<'_>) -> Option<(Ipv6Addr, Ipv6Addr, &'a [u8])> {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else {
        return None;
    };
    let is_one = packet.protocol == IpProtocol::Icmpv6 && packet.fragment.is_none();
    is_one.then(|| (src, dst, packet.transport(frame)))
}

/// Sees that the checksum of `message`, a packet's UDP datagram or ICMPv6 message, is right. Whoever is on this machine leaves it to
/// the card.
pub(super) fn verify(packet: &Packet, frame: &Frame<'_>, message: &[u8]) -> Result<(), DropReason> {
    let summed = frame.offload.checksum == Checksum::Complete;
    if summed && !sum::is_right(packet.src, packet.dst, packet.protocol, message) {
        return Err(DropReason::BadChecksum);
    }
    Ok(())
}
