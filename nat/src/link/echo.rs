//! Echo replies for the gateway's own addresses (RFC 792; RFC 4443 section 4.2), made of the request itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pontoon_switch::frame::Checksum;
use pontoon_switch::{DropReason, Frame, Offload};
use smoltcp::wire::{Icmpv4Packet, IpProtocol, Ipv4Packet, Ipv6Packet};

use crate::cx::Cx;
use crate::packet::{ETHERNET, Packet};

/// The types: request and reply, in ICMP and ICMPv6.
const REQUEST4: u8 = 8;
const REPLY4: u8 = 0;
const REQUEST6: u8 = 128;
const REPLY6: u8 = 129;
/// Bytes of an echo message without data.
const HEADER: usize = 8;

/// Turns a ping of the gateway into its answer and sends it. False if `packet` is something else.
pub(super) fn handle<H>(cx: &mut Cx<'_, H>, packet: &Packet, frame: &mut Frame<'_>) -> bool {
    if packet.fragment.is_some() || !cx.config.is_gateway(packet.dst) {
        return false;
    }
    let kind = packet.transport(frame).first().copied();
    let turned = match (packet.src, packet.dst, packet.protocol, kind) {
        (IpAddr::V4(src), IpAddr::V4(dst), IpProtocol::Icmp, Some(REQUEST4)) => {
            turn4(packet, frame, src, dst)
        }
        (IpAddr::V6(src), IpAddr::V6(dst), IpProtocol::Icmpv6, Some(REQUEST6)) => {
            turn6(packet, frame, src, dst)
        }
        _ => return false,
    };
    if let Err(reason) = turned {
        cx.drop(packet.ingress, reason);
        return true;
    }
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&packet.src_mac.0);
    bytes[6..12].copy_from_slice(&cx.config.mac.0);
    frame.offload = Offload::NONE;
    cx.out.send(frame);
    true
}

fn turn4(packet: &Packet, frame: &mut Frame<'_>, src: Ipv4Addr, dst: Ipv4Addr) -> Result<(), DropReason> {
    if src.is_unspecified() || src.is_broadcast() || src.is_multicast() || src == dst {
        return Err(DropReason::BadSourceAddress);
    }
    let verify = frame.offload.checksum == Checksum::Complete;
    let bytes = frame.bytes_mut();
    let message = &mut bytes[packet.payload..packet.end];
    if message.len() < HEADER {
        return Err(DropReason::Malformed);
    }
    let mut icmp = Icmpv4Packet::new_unchecked(message);
    if verify && !icmp.verify_checksum() {
        return Err(DropReason::BadChecksum);
    }
    icmp.set_msg_type(REPLY4.into());
    icmp.fill_checksum();
    let mut ip = Ipv4Packet::new_unchecked(&mut bytes[ETHERNET..]);
    ip.set_src_addr(dst);
    ip.set_dst_addr(src);
    ip.set_hop_limit(64);
    ip.fill_checksum();
    Ok(())
}

fn turn6(packet: &Packet, frame: &mut Frame<'_>, src: Ipv6Addr, dst: Ipv6Addr) -> Result<(), DropReason> {
    if src.is_unspecified() || src.is_multicast() || src == dst {
        return Err(DropReason::BadSourceAddress);
    }
    let verify = frame.offload.checksum == Checksum::Complete;
    let bytes = frame.bytes_mut();
    let length = packet.end - packet.payload;
    if length < HEADER {
        return Err(DropReason::Malformed);
    }
    if verify && !super::icmpv6_checksum_ok(&bytes[packet.payload..packet.end], src, dst) {
        return Err(DropReason::BadChecksum);
    }
    // The request's extension headers were for the request.
    let body = ETHERNET + 40;
    bytes.copy_within(packet.payload..packet.end, body);
    bytes[body] = REPLY6;
    super::icmpv6_checksum(&mut bytes[body..body + length], dst, src);
    let mut ip = Ipv6Packet::new_unchecked(&mut bytes[ETHERNET..]);
    ip.set_src_addr(dst);
    ip.set_dst_addr(src);
    ip.set_hop_limit(64);
    ip.set_next_header(IpProtocol::Icmpv6);
    ip.set_payload_len(length as u16);
    Ok(())
}
