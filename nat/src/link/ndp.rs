//! Neighbour discovery for IPv6 (RFC 4861): solicitations for the gateway's addresses, and what they and the
//! advertisements tell of neighbours.

use std::net::Ipv6Addr;

use pontoon_switch::{DropReason, MacAddr};
use smoltcp::wire::IpProtocol;

use super::neighbours::Heard;
use crate::cx::Cx;
use crate::packet::{IpRepr, Packet};

/// Router solicitation (RFC 4861 section 4.1).
pub(crate) const ROUTER_SOLICIT: u8 = 133;
/// Router advertisement (section 4.2).
pub(crate) const ROUTER_ADVERT: u8 = 134;
/// Neighbour solicitation (section 4.3).
pub(crate) const NEIGHBOUR_SOLICIT: u8 = 135;
/// Neighbour advertisement (section 4.4).
pub(crate) const NEIGHBOUR_ADVERT: u8 = 136;
/// Redirect (section 4.5).
pub(crate) const REDIRECT: u8 = 137;

/// Source link-layer address option (section 4.6.1).
pub(crate) const SOURCE_LINK_LAYER: u8 = 1;
/// Target link-layer address option.
pub(crate) const TARGET_LINK_LAYER: u8 = 2;

/// All nodes of the link.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The advertisement's flags (section 4.4): router, solicited, override.
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// The Ethernet address of an IPv6 group (RFC 2464 section 7).
pub(crate) fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// The group that `addr` is solicited at (RFC 4291 section 2.7.1).
pub(crate) fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The link-layer address in the first option of `kind`; `Ok(None)` if there is none.
///
/// # Errors
/// [`DropReason::Malformed`] for an option of length zero or beyond the end (RFC 4861 section 7.1).
pub(crate) fn link_layer(mut options: &[u8], kind: u8) -> Result<Option<MacAddr>, DropReason> {
    let mut found = None;
    while !options.is_empty() {
        let &[k, units, ..] = options else {
            return Err(DropReason::Malformed);
        };
        let len = usize::from(units) * 8;
        if len == 0 || options.len() < len {
            return Err(DropReason::Malformed);
        }
        if k == kind && found.is_none() {
            found = MacAddr::first(&options[2..]);
        }
        options = &options[len..];
    }
    Ok(found)
}

fn target(body: &[u8]) -> Result<(Ipv6Addr, &[u8]), DropReason> {
    let address = body
        .get(8..24)
        .and_then(|b| b.first_chunk::<16>())
        .ok_or(DropReason::Malformed)?;
    let address = Ipv6Addr::from(*address);
    if address.is_multicast() {
        return Err(DropReason::Malformed);
    }
    Ok((address, &body[24..]))
}

/// Answers a neighbour solicitation `body` (ICMPv6 from its type on; hop limit, code and checksum have been checked).
pub(super) fn solicitation<H>(
    cx: &mut Cx<'_, H>,
    packet: &Packet,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    body: &[u8],
) -> Result<(), DropReason> {
    let (target, options) = target(body)?;
    let source = link_layer(options, SOURCE_LINK_LAYER)?;
    let probe = src.is_unspecified();
    if probe {
        // Section 7.1.1: duplicate address detection goes to the solicited-node group and names no link-layer address.
        if source.is_some() || dst != solicited_node(target) {
            return Err(DropReason::Malformed);
        }
    } else if let Some(mac) = source {
        if mac != packet.src_mac {
            return Err(DropReason::BadSourceAddress);
        }
        if cx.learn(src.into(), mac) == Heard::Conflict {
            return Err(DropReason::BadSourceAddress);
        }
    }
    if !cx.config.is_gateway(target.into()) {
        return Ok(());
    }
    // Section 7.2.4: to a probe the answer goes to all nodes, unsolicited.
    let (to, mac, flags) = if probe {
        (ALL_NODES, group_mac(ALL_NODES), ROUTER | OVERRIDE)
    } else {
        (src, packet.src_mac, ROUTER | SOLICITED | OVERRIDE)
    };
    let ours = cx.config.mac;
    send(cx, mac, target, to, |b| {
        b[0] = NEIGHBOUR_ADVERT;
        b[1..8].copy_from_slice(&[0, 0, 0, flags, 0, 0, 0]);
        b[8..24].copy_from_slice(&target.octets());
        b[24..26].copy_from_slice(&[TARGET_LINK_LAYER, 1]);
        b[26..32].copy_from_slice(&ours.0);
        32
    });
    Ok(())
}

/// Learns from a neighbour advertisement (section 7.1.2).
pub(super) fn advertisement<H>(
    cx: &mut Cx<'_, H>,
    packet: &Packet,
    dst: Ipv6Addr,
    body: &[u8],
) -> Result<(), DropReason> {
    let (target, options) = target(body)?;
    let named = link_layer(options, TARGET_LINK_LAYER)?;
    if dst.is_multicast() && body[4] & SOLICITED != 0 {
        return Err(DropReason::Malformed);
    }
    if named.is_some_and(|mac| mac != packet.src_mac) {
        return Err(DropReason::BadSourceAddress);
    }
    match cx.learn(target.into(), packet.src_mac) {
        Heard::Conflict => Err(DropReason::BadSourceAddress),
        Heard::Accepted | Heard::Ignored => Ok(()),
    }
}

/// Asks the solicited-node group who has `addr`.
pub(super) fn request<H>(cx: &mut Cx<'_, H>, addr: Ipv6Addr) {
    let Some(subnet) = cx.config.subnet6 else {
        return;
    };
    let src = if addr.is_unicast_link_local() {
        cx.config.link_local6()
    } else {
        subnet.gateway
    };
    let group = solicited_node(addr);
    // The packet that lacks a neighbour may still stand in `cx.buf`: this one is made elsewhere.
    let mut body = [0; 32];
    body[0] = NEIGHBOUR_SOLICIT;
    body[8..24].copy_from_slice(&addr.octets());
    body[24..26].copy_from_slice(&[SOURCE_LINK_LAYER, 1]);
    body[26..32].copy_from_slice(&cx.config.mac.0);
    super::send_small(cx, group_mac(group), src, group, &mut body);
}

/// Sends an ICMPv6 message of `src` to `dst` at `mac` with hop limit 255, as neighbour discovery asks. `build` writes it
/// from its type on, leaves the checksum alone and says how long it is.
pub(super) fn send<H>(
    cx: &mut Cx<'_, H>,
    mac: MacAddr,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    build: impl FnOnce(&mut [u8]) -> usize,
) {
    let buf = cx.payload(dst.into());
    let len = build(buf);
    super::icmpv6_checksum(&mut buf[..len], src, dst);
    let mut ip = IpRepr::new(src.into(), dst.into(), IpProtocol::Icmpv6);
    ip.hop_limit = 255;
    cx.transmit_to(mac, &ip, len, pontoon_switch::Offload::NONE);
}
