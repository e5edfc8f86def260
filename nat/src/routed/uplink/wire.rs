//! The frames that the gateway itself says on an uplink: ARP, and ICMPv6 of neighbour discovery and listener discovery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pontoon_switch::frame::HEADROOM;
use pontoon_switch::{Frame, MacAddr, Offload, Out, PortId};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetProtocol, Icmpv6Packet, IpProtocol, MldAddressRecordRepr,
    MldRecordType, MldRepr,
};

use super::neighbours::Ask;
use crate::link::ndp;
use crate::packet::{ETHERNET, IpRepr};
use crate::sum;

/// Bytes of an ARP message for IPv4 over Ethernet.
const ARP: usize = 28;
/// Bytes of a neighbour solicitation or advertisement with its option.
const NEIGHBOUR: usize = 32;
/// The advertisement's flags (RFC 4861 section 4.4).
pub(super) const SOLICITED: u8 = 0x40;
/// This address replaces one that is remembered.
pub(super) const OVERRIDE: u8 = 0x20;
/// The sender is a router.
pub(super) const ROUTER: u8 = 0x80;
/// All routers of the link (RFC 4291 section 2.7.1).
pub(super) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All routers that follow MLD (RFC 3810 section 5.2.14).
const ALL_LISTENING_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Reports of version 1 that a group is listened to, and no longer (RFC 2710 section 3.1).
const OLD_REPORT: u8 = 131;
const OLD_DONE: u8 = 132;
/// Bytes of a report of version 2 before its records, and of a record without sources (RFC 3810 section 5.2).
const REPORT: usize = 8;
const RECORD: usize = 20;
/// Hop-by-hop options: ICMPv6 follows; a router alert for MLD (RFC 2711 section 2.1), and padding.
const ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

/// The way onto the link.
pub(super) struct Wire<'a> {
    /// The uplink's port.
    port: PortId,
    /// The gateway's Ethernet address there.
    mac: MacAddr,
    /// The door.
    out: &'a mut dyn Out,
}

impl<'a> Wire<'a> {
    /// The way onto the link of `port`, from `mac`.
    pub(super) fn new(port: PortId, mac: MacAddr, out: &'a mut dyn Out) -> Self {
        Self { port, mac, out }
    }

    /// Asks who has what `ask` says. `sender` is an address of our own of that version: unspecified if there is none.
    pub(super) fn ask(&mut self, ask: Ask, sender: IpAddr) {
        match (ask.target, sender) {
            (IpAddr::V4(target), IpAddr::V4(sender)) => {
                let to = ask.mac.unwrap_or(MacAddr::BROADCAST);
                self.arp(ArpOperation::Request, to, sender, MacAddr::default(), target);
            }
            (IpAddr::V6(target), IpAddr::V6(sender)) => self.solicit(target, ask.mac, sender),
            // No address of that version: nothing can be asked.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
        }
    }

    /// Asks whether somebody else has `addr`: an ARP probe (RFC 5227 section 2.1.1), or a solicitation of duplicate address
    /// detection (RFC 4862 section 5.4.2).
    pub(super) fn probe(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(addr) => {
                let (to, nobody) = (MacAddr::BROADCAST, Ipv4Addr::UNSPECIFIED);
                self.arp(ArpOperation::Request, to, nobody, MacAddr::default(), addr);
            }
            IpAddr::V6(addr) => self.solicit(addr, None, Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Tells all that `addr` is ours: an ARP announcement (RFC 5227 section 2.3), or an unsolicited advertisement (RFC 4861
    /// section 7.2.6).
    pub(super) fn announce(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(addr) => {
                let (to, ours) = (MacAddr::BROADCAST, MacAddr::default());
                self.arp(ArpOperation::Request, to, addr, ours, addr);
            }
            IpAddr::V6(addr) => {
                let all = ndp::ALL_NODES;
                self.advertise(addr, OVERRIDE, ndp::group_mac(all), all);
            }
        }
    }

    /// An ARP message from our Ethernet address.
    pub(super) fn arp(
        &mut self,
        operation: ArpOperation,
        to: MacAddr,
        sender: Ipv4Addr,
        target_mac: MacAddr,
        target: Ipv4Addr,
    ) {
        let message = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: self.mac.into(),
            source_protocol_addr: sender,
            target_hardware_addr: target_mac.into(),
            target_protocol_addr: target,
        };
        let mut buf = [0; HEADROOM + ETHERNET + ARP];
        message.emit(&mut ArpPacket::new_unchecked(&mut buf[HEADROOM + ETHERNET..]));
        self.send(&mut buf, to, EthernetProtocol::Arp);
    }

    /// A neighbour advertisement for our address `addr`.
    pub(super) fn advertise(&mut self, addr: Ipv6Addr, flags: u8, mac: MacAddr, to: Ipv6Addr) {
        let mut body = [0; NEIGHBOUR];
        body[0] = ndp::NEIGHBOUR_ADVERT;
        body[4] = flags;
        body[8..24].copy_from_slice(&addr.octets());
        body[24..26].copy_from_slice(&[ndp::TARGET_LINK_LAYER, 1]);
        body[26..].copy_from_slice(&self.mac.0);
        self.icmpv6(mac, addr, to, &mut body);
    }

    /// A router solicitation from our link-local address (RFC 4861 section 4.1).
    pub(super) fn solicit_routers(&mut self, from: Ipv6Addr) {
        let mut body = [0; 16];
        body[0] = ndp::ROUTER_SOLICIT;
        body[8..10].copy_from_slice(&[ndp::SOURCE_LINK_LAYER, 1]);
        body[10..].copy_from_slice(&self.mac.0);
        self.icmpv6(ndp::group_mac(ALL_ROUTERS), from, ALL_ROUTERS, &mut body);
    }

    /// What is to be said of groups, in version 2 (RFC 3810 section 5.2); nothing is sent if that is nothing.
    pub(super) fn report(&mut self, from: Ipv6Addr, records: &[(MldRecordType, Ipv6Addr)]) {
        if records.is_empty() {
            return;
        }
        let records = records
            .iter()
            .map(|&(kind, group)| MldAddressRecordRepr::new(kind, group));
        let records: Vec<_> = records.collect();
        let mut body = vec![0; REPORT + RECORD * records.len()];
        MldRepr::ReportRecordReprs(&records).emit(&mut Icmpv6Packet::new_unchecked(&mut body[..]));
        self.icmpv6_alerting(from, ALL_LISTENING_ROUTERS, &mut body);
    }

    /// That `group` is listened to, or no longer, in version 1 (RFC 2710 section 3).
    pub(super) fn report_old(&mut self, from: Ipv6Addr, group: Ipv6Addr, joined: bool) {
        let (kind, to) = if joined {
            (OLD_REPORT, group)
        } else {
            (OLD_DONE, ALL_ROUTERS)
        };
        let mut body = [0; 24];
        body[0] = kind;
        body[8..].copy_from_slice(&group.octets());
        self.icmpv6_alerting(from, to, &mut body);
    }

    /// A neighbour solicitation: to `mac` alone if it is known, else to the target's group. Duplicate address detection has
    /// no source, and so no link-layer address either.
    fn solicit(&mut self, target: Ipv6Addr, mac: Option<MacAddr>, src: Ipv6Addr) {
        let mut body = [0; NEIGHBOUR];
        body[0] = ndp::NEIGHBOUR_SOLICIT;
        body[8..24].copy_from_slice(&target.octets());
        body[24..26].copy_from_slice(&[ndp::SOURCE_LINK_LAYER, 1]);
        body[26..].copy_from_slice(&self.mac.0);
        let len = if src.is_unspecified() { 24 } else { NEIGHBOUR };
        let group = ndp::solicited_node(target);
        let (mac, dst) = mac.map_or((ndp::group_mac(group), group), |mac| (mac, target));
        self.icmpv6(mac, src, dst, &mut body[..len]);
    }

    /// Sends the ICMPv6 message `body`, of at most 64 bytes and its checksum to be filled in, with hop limit 255.
    fn icmpv6(&mut self, mac: MacAddr, src: Ipv6Addr, dst: Ipv6Addr, body: &mut [u8]) {
        let mut buf = [0; HEADROOM + ETHERNET + 40 + 64];
        let end = HEADROOM + ETHERNET + 40 + body.len();
        let whole = sum::whole(src.into(), dst.into(), IpProtocol::Icmpv6, body);
        body[2..4].copy_from_slice(&whole.to_be_bytes());
        let mut ip = IpRepr::new(src.into(), dst.into(), IpProtocol::Icmpv6);
        ip.hop_limit = 255;
        ip.emit(&mut buf[HEADROOM + ETHERNET..end], body.len(), 0);
        buf[end - body.len()..end].copy_from_slice(body);
        self.send(&mut buf[..end], mac, EthernetProtocol::Ipv6);
    }

    /// Sends the ICMPv6 message `body`, its checksum to be filled in, to the group `to`, with hop limit 1 and a router alert as
    /// MLD asks (RFC 3810 section 5).
    fn icmpv6_alerting(&mut self, from: Ipv6Addr, to: Ipv6Addr, body: &mut [u8]) {
        let whole = sum::whole(from.into(), to.into(), IpProtocol::Icmpv6, body);
        body[2..4].copy_from_slice(&whole.to_be_bytes());
        let mut ip = IpRepr::new(from.into(), to.into(), IpProtocol::HopByHop);
        ip.hop_limit = 1;
        let len = ALERT.len() + body.len();
        let mut buf = vec![0; HEADROOM + ETHERNET + 40];
        buf.extend(ALERT);
        buf.extend_from_slice(body);
        ip.emit(&mut buf[HEADROOM + ETHERNET..], len, 0);
        self.send(&mut buf, ndp::group_mac(to), EthernetProtocol::Ipv6);
    }

    /// Sends what stands behind [`HEADROOM`] and the room for an Ethernet header in `buf`.
    pub(super) fn send(&mut self, buf: &mut [u8], to: MacAddr, ethertype: EthernetProtocol) {
        let end = buf.len();
        let header = &mut buf[HEADROOM..HEADROOM + ETHERNET];
        header[..6].copy_from_slice(&to.0);
        header[6..12].copy_from_slice(&self.mac.0);
        header[12..].copy_from_slice(&u16::from(ethertype).to_be_bytes());
        let mut frame = Frame::new(buf, HEADROOM, end, Offload::NONE);
        self.out.send_by(self.port, &mut frame);
    }
}
