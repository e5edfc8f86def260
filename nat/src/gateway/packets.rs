//! Packets, sorted to the gateway's parts.

use std::net::IpAddr;

use pontoon_switch::{DropReason, Frame, Instant, Out, PortId};
use smoltcp::wire::IpProtocol;

use super::Gateway;
use crate::config::{Config, Forbidden};
use crate::cx::Cx;
use crate::dns;
use crate::flow::Protocol;
use crate::fragment::Lost;
use crate::host::Host;
use crate::icmp::{self, ContainerError, IcmpError};
use crate::link::{self, Due};
use crate::packet::Packet;
use crate::routed::Router;
use crate::udp::Datagram;

impl<H: Host> Gateway<H> {
    pub(super) fn ip(&mut self, now: Instant, ingress: PortId, frame: &mut Frame<'_>, out: &mut dyn Out) {
        let packet = match Packet::parse(ingress, frame) {
            Ok(packet) => packet,
            Err(reason) => return out.drop(Some(ingress), reason),
        };
        let mut cx = self.shared.cx(now, out);
        if packet.protocol == IpProtocol::Icmpv6
            && packet.fragment.is_none()
            && packet.source_route.is_none()
            && self.link.icmpv6_link(&mut cx, &packet, frame)
        {
            return;
        }
        if is_dhcp(&packet, frame) {
            return self.link.dhcp(&mut cx, &packet, frame);
        }
        if is_group(packet.dst) {
            // Flooded to all; the gateway's copy has been looked at.
            return;
        }
        self.unicast(now, packet, frame, out);
    }

    /// A whole packet to one destination.
    fn unicast(&mut self, now: Instant, packet: Packet, frame: &mut Frame<'_>, out: &mut dyn Out) {
        let mut cx = self.shared.cx(now, out);
        let to_gateway = cx.config.is_gateway(packet.dst);
        if packet.source_route.is_some() && !self.router.takes_elsewhere(cx.config, packet.dst) {
            // The gateway heeds no routing headers, and a host socket sends none.
            return cx.drop(packet.ingress, DropReason::Malformed);
        }
        let may_send = cx.config.on_link(packet.src)
            || (to_gateway && is_link_local(packet.src))
            || self.router.is_behind(cx.config, packet.src);
        if !may_send {
            return cx.drop(packet.ingress, DropReason::BadSourceAddress);
        }
        if packet.fragment.is_some() {
            let lost = &mut |what: Lost<'_>| lost(&mut cx, what);
            if let Some(mut whole) = self.fragments.packet(now, &packet, frame, lost) {
                let packet = whole.packet;
                self.unicast(now, packet, &mut whole.frame(), out);
            }
            return;
        }
        let is_echo = matches!(packet.protocol, IpProtocol::Icmp | IpProtocol::Icmpv6);
        if cx.config.is_silent(packet.dst) && !is_echo {
            return cx.drop(packet.ingress, DropReason::Forbidden);
        }
        if to_gateway {
            let answered = match packet.protocol {
                IpProtocol::Icmp | IpProtocol::Icmpv6
                    if packet.end - packet.ip > usize::from(cx.config.mtu) =>
                {
                    icmp::answer_echo(&mut cx, &packet, frame);
                    true
                }
                IpProtocol::Icmp | IpProtocol::Icmpv6 => {
                    self.link.echo(&mut cx, &packet, frame);
                    true
                }
                IpProtocol::Udp if is_dns(cx.config, &packet, frame) => {
                    match Datagram::parse(&packet, frame) {
                        Ok(d) => self.dns.query_udp(&mut cx, &packet, d.src.port(), d.data),
                        Err(reason) => cx.drop(packet.ingress, reason),
                    }
                    true
                }
                IpProtocol::Tcp if is_dns(cx.config, &packet, frame) => {
                    self.dns.segment(&mut cx, &packet, frame);
                    true
                }
                _ => false,
            };
            if answered {
                return;
            }
        } else if cx.config.on_link(packet.dst) {
            // A neighbour is asked for by its own Ethernet address, not by the gateway's.
            cx.drop(packet.ingress, DropReason::Forbidden);
            return icmp::send_error(&mut cx, packet.quoted(frame), None, IcmpError::HostUnreachable);
        } else if packet.hop_limit <= 1 && !self.router.is_own(cx.config, packet.dst) {
            cx.drop(packet.ingress, DropReason::HopLimit);
            return icmp::send_error(&mut cx, packet.quoted(frame), None, IcmpError::HopLimitExceeded);
        }
        if self.router.takes(cx.config, packet.dst) {
            return self.router.lan_packet(&mut cx, &packet, frame);
        }
        match packet.protocol {
            IpProtocol::Tcp => self.tcp.packet(&mut cx, &packet, frame),
            IpProtocol::Udp => self.udp.packet(&mut cx, &packet, frame),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => self.icmp(now, &packet, frame, out),
            _ => {
                let (reason, error) = match cx.config.destination(packet.dst) {
                    Err(Forbidden::NoEgress) if !to_gateway => (DropReason::NoEgress, IcmpError::Prohibited),
                    Ok(_) | Err(_) => (DropReason::UnknownProtocol, IcmpError::ProtocolUnreachable),
                };
                cx.drop(packet.ingress, reason);
                icmp::send_error(&mut cx, packet.quoted(frame), None, error);
            }
        }
    }

    /// A whole ICMP packet to beyond the link: an echo request, or an error about what the container got.
    fn icmp(&mut self, now: Instant, packet: &Packet, frame: &Frame<'_>, out: &mut dyn Out) {
        let mut cx = self.shared.cx(now, out);
        match icmp::from_container(&cx, packet, frame) {
            // The container's link has become narrower than its MSS said.
            Ok(ContainerError {
                flow,
                tuple,
                error: IcmpError::PacketTooBig(mtu),
            }) if tuple.protocol == Protocol::Tcp => {
                self.tcp.packet_too_big(&mut cx, flow, mtu);
            }
            // No host socket can send an error on.
            Ok(_) => cx.drop(packet.ingress, DropReason::HostUnsupported),
            Err(DropReason::UnknownProtocol) => self.echo.packet(&mut cx, packet, frame),
            Err(reason) => cx.drop(packet.ingress, reason),
        }
    }
}

/// Does what is due for packets that wait for a neighbour: asks once more, or has their senders told.
pub(super) fn ask_again<H>(cx: &mut Cx<'_, H>, router: &mut Router) {
    while let Some(due) = cx.neighbours.due(cx.now) {
        match due {
            Due::Ask(addr) => link::solicit_again(cx, addr),
            Due::GiveUp(packets) => {
                for mut packet in packets {
                    cx.out.drop(None, DropReason::NoNeighbour);
                    router.undelivered(cx, &mut packet.frame());
                }
            }
        }
    }
}

/// Counts what never became whole, and tells its sender if its time was up.
pub(super) fn lost<H>(cx: &mut Cx<'_, H>, what: Lost<'_>) {
    cx.drop(what.ingress, DropReason::Reassembly);
    if let Some(first) = what.exceeded {
        icmp::send_error(cx, first, None, IcmpError::ReassemblyExceeded);
    }
}

/// True for a packet to a DHCP server: UDP to port 67, whatever its addresses.
fn is_dhcp(packet: &Packet, frame: &Frame<'_>) -> bool {
    packet.protocol == IpProtocol::Udp
        && packet.fragment.is_none()
        && packet.dst.is_ipv4()
        && packet.transport(frame).get(2..4) == Some(&[0, 67])
}

/// True for a packet, of UDP or TCP, to the DNS server.
fn is_dns(config: &Config, packet: &Packet, frame: &Frame<'_>) -> bool {
    packet.transport(frame).get(2..4) == Some(&dns::PORT.to_be_bytes()) && config.is_name_server(packet.dst)
}

fn is_group(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast(),
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}
