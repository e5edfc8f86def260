//! What is heard of ARP and neighbour discovery on an uplink, and what is answered.

use std::net::{IpAddr, Ipv6Addr};

use pontoon_switch::{DropReason, Frame, Instant, MacAddr, Out};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

use super::addresses::{Claim, Origin};
use super::neighbours::Heard;
use super::receive::{icmpv6, verify};
use super::{Uplink, wire};
use crate::link::ndp;
use crate::packet::{ETHERNET, Packet};
use crate::routed::config::Addressing6;

impl Uplink {
    /// Takes an ARP message (RFC 826, RFC 5227).
    pub(super) fn arp(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        out: &mut dyn Out,
    ) -> Result<(), DropReason> {
        let message = frame.bytes().get(ETHERNET..).ok_or(DropReason::BadLength)?;
        let message = ArpPacket::new_checked(message).map_err(|_| DropReason::Malformed)?;
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr: sender,
            target_protocol_addr: target,
            ..
        }) = ArpRepr::parse(&message)
        else {
            return Err(DropReason::UnknownProtocol);
        };
        if self.addressing().0.is_none() {
            return Err(DropReason::UnknownProtocol);
        }
        let reply = match operation {
            ArpOperation::Reply => true,
            ArpOperation::Request => false,
            ArpOperation::Unknown(_) => return Err(DropReason::UnknownProtocol),
        };
        let mac = MacAddr::from(source_hardware_addr);
        if mac == self.config.mac {
            return Ok(());
        }
        if !mac.is_unicast() || sender.is_multicast() || sender.is_broadcast() || sender.is_loopback() {
            return Err(DropReason::BadSourceAddress);
        }
        let (sender, target) = (IpAddr::V4(sender), IpAddr::V4(target));
        // Who asks with no address of his own is about to take the target (RFC 5227 section 2.1.1): a conflict if we are
        // about to take it too. If it is ours already, the answer below tells him.
        let claimed = if sender.is_unspecified() && !self.owns(target) {
            target
        } else {
            sender
        };
        if self.claimed(now, claimed, mac, out) {
            return Ok(());
        }
        if !sender.is_unspecified() {
            let how = if reply && frame.dst() == self.config.mac {
                Heard::Answer
            } else {
                Heard::Claim
            };
            let waiting = self.neighbours.heard(now, sender, mac, how);
            self.release(waiting, mac, out);
        }
        if !reply
            && self.owns(target)
            && let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target)
        {
            self.wire(out).arp(ArpOperation::Reply, mac, target, mac, sender);
        }
        Ok(())
    }

    /// Takes a message of neighbour discovery (RFC 4861). False if the packet is none.
    pub(super) fn discovers(
        &mut self,
        now: Instant,
        packet: &Packet,
        frame: &Frame<'_>,
        out: &mut dyn Out,
    ) -> Result<bool, DropReason> {
        let Some((src, dst, body)) = icmpv6(packet, frame) else {
            return Ok(false);
        };
        if !matches!(body.first(), Some(ndp::ROUTER_SOLICIT..=ndp::REDIRECT)) {
            return Ok(false);
        }
        // RFC 4861 sections 6.1 and 7.1: hop limit 255 proves that the sender is on the link.
        if body.len() < 8 || body[1] != 0 || packet.hop_limit != 255 {
            return Err(DropReason::Malformed);
        }
        verify(packet, frame, body)?;
        if src.is_multicast() || self.owns(packet.src) {
            return Err(DropReason::BadSourceAddress);
        }
        match body[0] {
            // Routers answer it; here it is heard because it goes to all of them.
            ndp::ROUTER_SOLICIT => {}
            ndp::ROUTER_ADVERT => self.router_advertisement(now, src, packet.src_mac, body, out)?,
            ndp::NEIGHBOUR_SOLICIT => self.solicitation(now, packet.src_mac, src, dst, body, out)?,
            ndp::NEIGHBOUR_ADVERT => self.advertisement(now, packet.src_mac, dst, body, out)?,
            // Redirects are not followed: whoever sends one could have sent the packet on.
            _ => return Err(DropReason::Forbidden),
        }
        Ok(true)
    }

    fn solicitation(
        &mut self,
        now: Instant,
        src_mac: MacAddr,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        body: &[u8],
        out: &mut dyn Out,
    ) -> Result<(), DropReason> {
        let (target, options) = target(body)?;
        let source = ndp::link_layer(options, ndp::SOURCE_LINK_LAYER)?;
        let probe = src.is_unspecified();
        // Section 7.1.1: duplicate address detection goes to the solicited-node group and names no link-layer address.
        if probe && (source.is_some() || dst != ndp::solicited_node(target)) {
            return Err(DropReason::Malformed);
        }
        if let Some(mac) = source.filter(|mac| mac.is_unicast()) {
            let waiting = self.neighbours.heard(now, src.into(), mac, Heard::Claim);
            self.release(waiting, mac, out);
        }
        if !self.owns(target.into()) {
            // RFC 4862 section 5.4.3: somebody is about to take what we are about to take.
            if probe {
                self.claimed(now, target.into(), src_mac, out);
            }
            return Ok(());
        }
        // Section 7.2.4: to a probe the answer goes to all nodes, unsolicited.
        let all = ndp::ALL_NODES;
        let (to, mac, flags) = if probe {
            (all, ndp::group_mac(all), wire::OVERRIDE)
        } else {
            let mac = source.filter(|mac| mac.is_unicast()).unwrap_or(src_mac);
            (src, mac, wire::SOLICITED | wire::OVERRIDE)
        };
        self.wire(out).advertise(target, flags, mac, to);
        Ok(())
    }

    /// Section 7.2.5.
    fn advertisement(
        &mut self,
        now: Instant,
        src_mac: MacAddr,
        dst: Ipv6Addr,
        body: &[u8],
        out: &mut dyn Out,
    ) -> Result<(), DropReason> {
        let (target, options) = target(body)?;
        let named = ndp::link_layer(options, ndp::TARGET_LINK_LAYER)?;
        let flag = |flag: u8| body[4] & flag != 0;
        if dst.is_multicast() && flag(wire::SOLICITED) {
            return Err(DropReason::Malformed);
        }
        let mac = named.unwrap_or(src_mac);
        if !mac.is_unicast() {
            return Err(DropReason::BadSourceAddress);
        }
        let target = IpAddr::V6(target);
        if self.claimed(now, target, mac, out) {
            return Ok(());
        }
        let other = self.neighbours.mac(target).is_some_and(|known| known != mac);
        let how = match (flag(wire::SOLICITED), flag(wire::OVERRIDE)) {
            (true, true) => Heard::Answer,
            (true, false) if !other => Heard::Answer,
            (false, true) => Heard::Claim,
            (true | false, false) => Heard::Hint,
        };
        let waiting = self.neighbours.heard(now, target, mac, how);
        self.release(waiting, mac, out);
        if let (Some(discovery), IpAddr::V6(target)) = (&mut self.discovery, target)
            && !flag(wire::ROUTER)
        {
            discovery.no_router(now, target);
        }
        Ok(())
    }

    fn router_advertisement(
        &mut self,
        now: Instant,
        src: Ipv6Addr,
        src_mac: MacAddr,
        body: &[u8],
        out: &mut dyn Out,
    ) -> Result<(), DropReason> {
        let Some(discovery) = &mut self.discovery else {
            return Ok(());
        };
        let autonomous = discovery.advertisement(now, src, body)?;
        let router = IpAddr::V6(src);
        let known = discovery.routers().any(|r| r == router);
        let source = ndp::link_layer(&body[16..], ndp::SOURCE_LINK_LAYER)?;
        if matches!(self.addressing().1, Some(Addressing6::Slaac)) {
            for prefix in autonomous {
                let (addresses, events) = (&mut self.addresses, &mut self.events);
                addresses.advertised(now, prefix.prefix, self.config.mac, prefix.lifetimes, events);
            }
            self.listen(now);
        }
        if known {
            let mac = source.filter(|mac| mac.is_unicast()).unwrap_or(src_mac);
            let waiting = self.neighbours.introduce(now, router, mac);
            self.release(waiting, mac, out);
        }
        Ok(())
    }

    /// Somebody at `mac` uses `addr` or is about to. True if it is, or was, ours.
    fn claimed(&mut self, now: Instant, addr: IpAddr, mac: MacAddr, out: &mut dyn Out) -> bool {
        let mut wire = wire::Wire::new(self.port, self.config.mac, &mut *out);
        match self
            .addresses
            .claimed(now, addr, mac, &mut wire, &mut self.events)
        {
            Claim::None => return false,
            Claim::Defended => {}
            Claim::GivenUp(Origin::Dhcp) => {
                let said = self.dhcp.as_mut().and_then(|dhcp| dhcp.decline(now));
                if let Some(said) = said {
                    self.say(now, said, out);
                }
            }
            // The next advertisement tries again, and finds out the same for as long as it is so.
            Claim::GivenUp(Origin::Slaac | Origin::Static | Origin::LinkLocal) => self.listen(now),
        }
        true
    }
}

/// The target of a solicitation or advertisement, and its options.
fn target(body: &[u8]) -> Result<(Ipv6Addr, &[u8]), DropReason> {
    let address = body.get(8..).and_then(|b| b.first_chunk::<16>());
    let target = Ipv6Addr::from(*address.ok_or(DropReason::Malformed)?);
    if target.is_multicast() {
        return Err(DropReason::Malformed);
    }
    Ok((target, &body[24..]))
}
