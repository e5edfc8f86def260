//! ARP for IPv4 over Ethernet (RFC 826), with the rules of RFC 5227 on probes and announcements.

use std::net::Ipv4Addr;

use pontoon_switch::frame::HEADROOM;
use pontoon_switch::{DropReason, Frame, MacAddr, Offload, PortId};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetProtocol};

use super::neighbours::Heard;
use crate::cx::Cx;
use crate::packet::ETHERNET;

/// Bytes of an ARP message for IPv4 over Ethernet.
const ARP: usize = 28;

/// Takes an ARP frame: learns its sender and answers a question for an address of the gateway's, in place.
pub(super) fn handle<H>(cx: &mut Cx<'_, H>, ingress: PortId, frame: &mut Frame<'_>) {
    if let Err(reason) = respond(cx, frame) {
        cx.drop(ingress, reason);
    }
}

fn respond<H>(cx: &mut Cx<'_, H>, frame: &mut Frame<'_>) -> Result<(), DropReason> {
    let bytes = frame.bytes();
    let message = bytes.get(ETHERNET..).ok_or(DropReason::BadLength)?;
    let message = ArpPacket::new_checked(message).map_err(|_| DropReason::Malformed)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr: sender,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&message).map_err(|_| DropReason::UnknownProtocol)?
    else {
        return Err(DropReason::UnknownProtocol);
    };
    let mac = MacAddr::from(source_hardware_addr);
    // A sender that is not who the frame says would have the answer sent to somebody else.
    if MacAddr::first(&bytes[6..]) != Some(mac) || !mac.is_unicast() {
        return Err(DropReason::BadSourceAddress);
    }
    let Some(subnet) = cx.config.subnet4 else {
        return Err(DropReason::UnknownProtocol);
    };
    // RFC 5227 section 2.1.1: a probe has no sender address; it is answered, so that the prober leaves ours alone.
    if !sender.is_unspecified() {
        match cx.learn(sender.into(), mac) {
            Heard::Accepted => {}
            Heard::Conflict => return Err(DropReason::BadSourceAddress),
            // An address off the link (an alias, say) may ask, but is not remembered.
            Heard::Ignored => {}
        }
    }
    match operation {
        ArpOperation::Request if subnet.is_gateway(target) => {
            let reply = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: cx.config.mac.into(),
                source_protocol_addr: target,
                target_hardware_addr: mac.into(),
                target_protocol_addr: sender,
            };
            let ours = cx.config.mac;
            let bytes = frame.bytes_mut();
            bytes[..6].copy_from_slice(&mac.0);
            bytes[6..12].copy_from_slice(&ours.0);
            reply.emit(&mut ArpPacket::new_unchecked(
                &mut bytes[ETHERNET..ETHERNET + ARP],
            ));
            frame.offload = Offload::NONE;
            cx.out.send(frame);
        }
        // For somebody else, an announcement, or the answer to a question of ours: it was for learning only.
        ArpOperation::Request | ArpOperation::Reply => {}
        ArpOperation::Unknown(_) => return Err(DropReason::UnknownProtocol),
    }
    Ok(())
}

/// Asks all who has `addr`.
pub(super) fn request<H>(cx: &mut Cx<'_, H>, addr: Ipv4Addr) {
    let Some(subnet) = cx.config.subnet4 else {
        return;
    };
    let mut buf = [0; HEADROOM + ETHERNET + ARP];
    let frame = &mut buf[HEADROOM..];
    frame[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    frame[6..12].copy_from_slice(&cx.config.mac.0);
    frame[12..14].copy_from_slice(&u16::from(EthernetProtocol::Arp).to_be_bytes());
    let question = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: cx.config.mac.into(),
        source_protocol_addr: subnet.gateway,
        target_hardware_addr: MacAddr::default().into(),
        target_protocol_addr: addr,
    };
    question.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
    let end = buf.len();
    cx.out
        .send(&mut Frame::new(&mut buf, HEADROOM, end, Offload::NONE));
}
