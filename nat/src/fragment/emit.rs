//! Cutting packets to the link's MTU.

use std::net::IpAddr;

use pontoon_switch::{Checksum, DropReason, Offload, offload};
use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::FRAGMENT_HEADER;
use crate::cx::Cx;
use crate::packet::{ETHERNET, IpRepr};
use crate::sum;

/// Sends the `len` transport bytes in [`Cx::buf`] from `at` on, which is [`Cx::payload_offset`] or later, to the neighbour
/// that has `ip.dst`, in fragments if the link's MTU asks for them. Their checksum is filled in here or, of TCP and UDP, left to the device:
/// it belongs at `checksum_at` of them, where the bytes are ignored.
///
/// # Errors
/// [`DropReason::NoNeighbour`], already counted.
pub fn transmit<H>(
    cx: &mut Cx<'_, H>,
    ip: &IpRepr,
    at: usize,
    len: usize,
    checksum_at: usize,
) -> Result<(), DropReason> {
    let Some(mac) = cx.neighbours.lookup(ip.dst) else {
        crate::link::solicit(cx, ip.dst);
        cx.out.drop(None, DropReason::NoNeighbour);
        return Err(DropReason::NoNeighbour);
    };
    let mtu = usize::from(cx.config.mtu);
    let field = at + checksum_at..at + checksum_at + 2;
    let fits = ip.header_len() + len <= mtu;
    if fits && !matches!(ip.protocol, IpProtocol::Icmp | IpProtocol::Icmpv6) {
        cx.buf[field].copy_from_slice(&sum::pseudo(ip.src, ip.dst, ip.protocol, len).to_be_bytes());
        let checksum = Checksum::Partial {
            start: (ETHERNET + ip.header_len()) as u16,
            offset: checksum_at as u16,
        };
        cx.transmit_at(mac, ip, at, len, Offload { checksum, gso: None });
        return Ok(());
    }
    cx.buf[field.clone()].fill(0);
    let checksum = match ip.protocol {
        IpProtocol::Icmp => offload::checksum(&cx.buf[at..at + len]),
        _ => sum::whole(ip.src, ip.dst, ip.protocol, &cx.buf[at..at + len]),
    };
    // RFC 768: zero would mean `none`; the other zero is as good.
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    cx.buf[field].copy_from_slice(&checksum.to_be_bytes());
    if fits {
        cx.transmit_at(mac, ip, at, len, Offload::NONE);
        return Ok(());
    }
    *cx.ident = cx.ident.wrapping_add(1);
    let extra = match ip.dst {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => FRAGMENT_HEADER,
    };
    // RFC 791, RFC 8200: all pieces but the last are multiples of eight bytes.
    let piece = (mtu - ip.header_len() - extra) & !7;
    let mut offset = 0;
    while offset < len {
        let n = piece.min(len - offset);
        let more = offset + n < len;
        let start = match ip.dst {
            IpAddr::V4(_) => header_v4(cx, ip, at + offset, n, offset, more),
            IpAddr::V6(_) => header_v6(cx, ip, at + offset, n, offset, more),
        };
        cx.send_packet(mac, ip.dst, start, at + offset + n, Offload::NONE);
        offset += n;
    }
    Ok(())
}

/// Writes the header of the `len` bytes at `at`; where it starts.
fn header_v4<H>(cx: &mut Cx<'_, H>, ip: &IpRepr, at: usize, len: usize, offset: usize, more: bool) -> usize {
    let start = at - ip.header_len();
    let ident = *cx.ident;
    let buf = &mut cx.buf[start..at + len];
    ip.emit(buf, len, ident);
    let mut header = Ipv4Packet::new_unchecked(buf);
    header.set_dont_frag(false);
    header.set_more_frags(more);
    header.set_frag_offset(offset as u16);
    header.fill_checksum();
    start
}

/// Writes the IPv6 and fragment headers of the `len` bytes at `at`; where they start.
fn header_v6<H>(cx: &mut Cx<'_, H>, ip: &IpRepr, at: usize, len: usize, offset: usize, more: bool) -> usize {
    let start = at - FRAGMENT_HEADER - ip.header_len();
    // The clock's upper bits keep a wrapped counter from repeating within a reassembly's time.
    let ident = (cx.now.millis() as u32 >> 10) << 16 | u32::from(*cx.ident);
    let outer = IpRepr {
        protocol: IpProtocol::Ipv6Frag,
        ..*ip
    };
    outer.emit(&mut cx.buf[start..], FRAGMENT_HEADER + len, 0);
    let header = &mut cx.buf[at - FRAGMENT_HEADER..at];
    header[0] = u8::from(ip.protocol);
    header[1] = 0;
    header[2..4].copy_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
    header[4..].copy_from_slice(&ident.to_be_bytes());
    start
}
