//! Another tuple for a packet.

use std::net::IpAddr;

use pontoon_switch::{Checksum, Frame, offload};

use super::delta::Delta;
use crate::flow::{Protocol, Tuple};
use crate::icmp::Role;
use crate::packet::Packet;

/// Writes the addresses and the ports or identifier of `to` into a packet that has a tuple ([`super::tuple()`]), and adjusts its
/// checksums. `to` is of the packet's protocol and IP version. A packet with segments left stays on its way: its destination is that
/// of the next of them, and its checksum covers the last.
pub fn translate(frame: &mut Frame<'_>, packet: &mut Packet, to: &Tuple) {
    let partial = match frame.offload.checksum {
        Checksum::Partial { start, offset } if usize::from(start) == packet.payload => {
            checksum_at(to.protocol) == Some(usize::from(offset))
        }
        Checksum::Partial { .. } | Checksum::Complete | Checksum::Valid => false,
    };
    let bytes = &mut frame.bytes_mut()[..packet.end];
    let (header, transport) = bytes[packet.ip..].split_at_mut(packet.payload - packet.ip);
    let dst = match packet.source_route {
        Some(_) => packet.dst,
        None => to.dst.ip(),
    };
    let addresses = put_addresses(header, to.src.ip(), dst);
    let ends = put_ends(transport, to);
    let pseudo = if has_pseudo_header(to.protocol) {
        addresses
    } else {
        Delta::NONE
    };
    if partial {
        put_partial(transport, to.protocol, pseudo);
    } else {
        put_whole(transport, to.protocol, pseudo.and(ends));
    }
    (packet.src, packet.dst) = (to.src.ip(), dst);
}

/// Writes addresses into an IP header, with its checksum if it has one. The difference to what was there.
pub(super) fn put_addresses(header: &mut [u8], src: IpAddr, dst: IpAddr) -> Delta {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut new = [0; 8];
            new[..4].copy_from_slice(&src.octets());
            new[4..].copy_from_slice(&dst.octets());
            let delta = put(header, 12, &new);
            delta.adjust(header, 10);
            delta
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut new = [0; 32];
            new[..16].copy_from_slice(&src.octets());
            new[16..].copy_from_slice(&dst.octets());
            put(header, 8, &new)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("source and destination of one version")
        }
    }
}

/// Writes the ports or the identifier of `to` into a transport header, of which eight bytes are there if its protocol has such. The
/// difference to what was there.
pub(super) fn put_ends(transport: &mut [u8], to: &Tuple) -> Delta {
    match to.protocol {
        Protocol::Tcp | Protocol::Udp => {
            let ([a, b], [c, d]) = (to.src.port().to_be_bytes(), to.dst.port().to_be_bytes());
            put(transport, 0, &[a, b, c, d])
        }
        Protocol::Icmp | Protocol::Icmp6 => {
            let id = match transport.first().map(|&kind| Role::of(to.protocol, kind)) {
                Some(Role::Query) => to.src.port(),
                Some(Role::Answer) => to.dst.port(),
                Some(Role::Error | Role::Other) | None => return Delta::NONE,
            };
            put(transport, 4, &id.to_be_bytes())
        }
        Protocol::Other(_) => Delta::NONE,
    }
}

/// Writes `new` at `at`, an even place, if there is room; the difference to what was there.
fn put<const N: usize>(bytes: &mut [u8], at: usize, new: &[u8; N]) -> Delta {
    let Some(old) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) else {
        return Delta::NONE;
    };
    let delta = Delta::of(old, new);
    *old = *new;
    delta
}

/// Adjusts a whole checksum, as far as it is there, by what has changed in the transport header and the pseudo-header.
pub(super) fn put_whole(transport: &mut [u8], protocol: Protocol, change: Delta) {
    let Some(at) = checksum_at(protocol).filter(|at| at + 2 <= transport.len()) else {
        return;
    };
    let old = u16::from_be_bytes([transport[at], transport[at + 1]]);
    // RFC 768: zero means that there is none (in IPv6 too, RFC 6936).
    if old == 0 && protocol == Protocol::Udp {
        return;
    }
    let new = match (change.checksum(old), protocol) {
        // RFC 768, RFC 3828: a computed zero is the other zero.
        (0, Protocol::Udp | Protocol::Other(UDP_LITE)) => 0xffff,
        // The one message whose checksum is the other zero: it has not one bit set (RFC 1624 section 3).
        (0, Protocol::Icmp) if is_zero_but(transport, at) => 0xffff,
        (new, _) => new,
    };
    transport[at..at + 2].copy_from_slice(&new.to_be_bytes());
}

/// Adjusts a partial checksum by what has changed in the pseudo-header.
fn put_partial(transport: &mut [u8], protocol: Protocol, change: Delta) {
    let Some(field) = checksum_at(protocol).and_then(|at| transport.get_mut(at..at + 2)) else {
        return;
    };
    let new = change.sum(u16::from_be_bytes([field[0], field[1]]));
    field.copy_from_slice(&new.to_be_bytes());
}

/// IP protocol numbers of DCCP (RFC 4340) and UDP-Lite (RFC 3828).
const DCCP: u8 = 33;
const UDP_LITE: u8 = 136;

/// Where the checksum stands in a protocol's header, if it covers anything that a translation changes.
pub(super) const fn checksum_at(protocol: Protocol) -> Option<usize> {
    match protocol {
        Protocol::Tcp => Some(16),
        Protocol::Udp | Protocol::Other(DCCP | UDP_LITE) => Some(6),
        Protocol::Icmp | Protocol::Icmp6 => Some(2),
        // SCTP's covers itself only; a tunnel's, what is within.
        Protocol::Other(_) => None,
    }
}

/// True if a protocol's checksum covers the addresses.
pub(super) const fn has_pseudo_header(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp | Protocol::Udp | Protocol::Icmp6 | Protocol::Other(DCCP | UDP_LITE) => true,
        Protocol::Icmp | Protocol::Other(_) => false,
    }
}

/// True if all of `bytes` is zero but for the two at `at`.
fn is_zero_but(bytes: &[u8], at: usize) -> bool {
    offload::sum(&bytes[..at]) == 0 && offload::sum(&bytes[at + 2..]) == 0
}
