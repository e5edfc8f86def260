//! A packet that is longer than the link it leaves by is.
//!
//! # Theory of operation
//!
//! Who may be told of a path's MTU is told: a packet with DF, and any of IPv6, that does not fit is [`TooBig`]. Others are cut:
//!
//! - an IPv4 packet without DF, by RFC 791 section 3.2: options that are to be copied go into each piece, others into the first;
//! - a packet that was put together here ([`Packet::largest_fragment`]), if its pieces fitted: its sender cannot know that they
//!   ever were one. It leaves in pieces no larger than it came in, even where it would fit whole, so that those keep DF which
//!   had it and the sender's search for the path's MTU goes on; IPv6 by RFC 8200 section 4.5.
//!
//! A super-frame fits if its segments do. One that does not, and may be cut, is cut into segments and those into fragments. A
//! partial checksum is filled in before, as each piece leaves without its end.
//!
//! Pieces are copies of the packet as it stands, Ethernet header and all: it is cut last of all. The identification is given
//! anew for each packet: those of several containers meet under one address (RFC 6864 section 5.3).

use std::convert::Infallible;
use std::net::IpAddr;

use pontoon_switch::frame::{HEADROOM, MAX_FRAME};
use pontoon_switch::offload::{self, Sums};
use pontoon_switch::{Frame, Offload};
use smoltcp::wire::{IpProtocol, Ipv4Packet};

use crate::fragment::FRAGMENT_HEADER;
use crate::packet::Packet;

/// What every link of IPv6 takes (RFC 8200 section 5).
const IPV6_MIN_MTU: usize = 1280;

/// Bytes that every fragment but the last has a multiple of.
const UNIT: usize = 8;

/// A packet that neither fits nor may be cut: its sender is to be told of this MTU, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("longer than the link's MTU of {0} bytes")]
pub struct TooBig(pub u32);

/// Whether `packet` can leave by a link with an MTU of `mtu` bytes, whole or cut. To be asked before it is rewritten, as an error
/// about it quotes it as it came.
///
/// # Errors
/// [`TooBig`] if not.
pub fn check(frame: &Frame<'_>, packet: &Packet, mtu: u16) -> Result<(), TooBig> {
    way(frame, packet, mtu).map(|_| ())
}

/// Sends packets as a link's MTU asks. It keeps the buffers in which they are cut, made when first needed.
#[derive(Debug, Default)]
pub struct Cutter {
    segment: Vec<u8>,
    piece: Vec<u8>,
}

impl Cutter {
    /// Gives `frame`, rewritten and with its Ethernet addresses, to `send` as it is if it fits an MTU of `mtu` bytes, and its pieces
    /// otherwise. `ident` is the identification last given to a packet that was cut, of which IPv4 takes the lower half.
    ///
    /// # Errors
    /// [`TooBig`], with nothing sent, as [`check`] says.
    pub fn send(
        &mut self,
        frame: &mut Frame<'_>,
        packet: &Packet,
        mtu: u16,
        ident: &mut u32,
        send: &mut dyn FnMut(&mut Frame<'_>),
    ) -> Result<(), TooBig> {
        let limit = match way(frame, packet, mtu)? {
            Way::Whole => {
                send(frame);
                return Ok(());
            }
            Way::Cut { limit } => limit,
        };
        let mut cut = |frame: &Frame<'_>, packet: &Packet, scratch: &mut Vec<u8>| {
            *ident = ident.wrapping_add(1);
            let scratch = buffer(scratch);
            match packet.src {
                IpAddr::V4(_) => cut_v4(frame.bytes(), packet, limit, *ident as u16, scratch, send),
                IpAddr::V6(_) => cut_v6(frame.bytes(), packet, limit, *ident, scratch, send),
            }
        };
        if frame.offload.gso.is_none() {
            offload::complete(frame);
            cut(frame, packet, &mut self.piece);
            return Ok(());
        }
        let (segments, pieces) = (buffer(&mut self.segment), &mut self.piece);
        // The last may fit: one piece is what it is cut into.
        let Ok(()) = offload::segment(frame, Sums::Filled, segments, |segment| {
            let end = segment.len();
            cut(segment, &Packet { end, ..*packet }, pieces);
            Ok::<(), Infallible>(())
        });
        Ok(())
    }
}

fn buffer(buffer: &mut Vec<u8>) -> &mut [u8] {
    if buffer.is_empty() {
        *buffer = vec![0; HEADROOM + MAX_FRAME];
    }
    buffer
}

/// How a packet leaves.
enum Way {
    /// As it is.
    Whole,
    /// In pieces of `limit` bytes at most, from their IP headers on.
    Cut { limit: usize },
}

fn way(frame: &Frame<'_>, packet: &Packet, mtu: u16) -> Result<Way, TooBig> {
    let too_big = TooBig(u32::from(mtu));
    let mtu = usize::from(mtu);
    let largest = packet.largest_fragment.map(usize::from);
    let limit = match (largest, packet.src) {
        (None, _) => mtu,
        (Some(largest), IpAddr::V4(_)) => mtu.min(largest),
        (Some(largest), IpAddr::V6(_)) => mtu.min(largest.max(IPV6_MIN_MTU)),
    };
    if packet_len(frame, packet) <= limit {
        return Ok(Way::Whole);
    }
    let may_be_cut =
        largest.is_some_and(|largest| largest <= mtu) || (packet.src.is_ipv4() && !packet.dont_fragment);
    // Where extension headers leave no room, no piece could carry anything.
    let headers = match packet.src {
        IpAddr::V4(_) => packet.payload - packet.ip,
        IpAddr::V6(_) => unfragmentable(&frame.bytes()[packet.ip..packet.end]).end + FRAGMENT_HEADER,
    };
    if !may_be_cut || headers + UNIT > limit {
        return Err(too_big);
    }
    Ok(Way::Cut { limit })
}

/// Bytes of the packet, of a super-frame its largest segment, from the IP header on.
fn packet_len(frame: &Frame<'_>, packet: &Packet) -> usize {
    let end = match frame.offload.gso {
        Some(gso) => packet
            .end
            .min(usize::from(gso.header_len) + usize::from(gso.size)),
        None => packet.end,
    };
    end.saturating_sub(packet.ip)
}

/// Cuts the IPv4 packet in `bytes`.
fn cut_v4(
    bytes: &[u8],
    packet: &Packet,
    limit: usize,
    ident: u16,
    scratch: &mut [u8],
    send: &mut dyn FnMut(&mut Frame<'_>),
) {
    let (first, payload) = bytes[..packet.end].split_at(packet.payload);
    let mut later = first[..packet.ip + 20].to_vec();
    copied_options(&first[packet.ip + 20..], &mut later);
    let words = (later.len() - packet.ip) / 4;
    later[packet.ip] = 0x40 | words as u8;
    let mut offset = 0;
    while offset < payload.len() {
        let header = if offset == 0 { first } else { &later };
        let room = (limit - (header.len() - packet.ip)) / UNIT * UNIT;
        let len = payload.len() - offset;
        // The last piece need be no multiple of anything.
        let fits = header.len() - packet.ip + len <= limit;
        let len = if fits { len } else { room };
        let piece = put(scratch, &[header, &payload[offset..offset + len]]);
        let mut ip = Ipv4Packet::new_unchecked(&mut scratch[HEADROOM + packet.ip..piece]);
        ip.set_total_len((piece - HEADROOM - packet.ip) as u16);
        ip.set_ident(ident);
        ip.set_dont_frag(packet.dont_fragment);
        ip.set_more_frags(!fits);
        ip.set_frag_offset(offset as u16);
        ip.fill_checksum();
        send(&mut Frame::new(scratch, HEADROOM, piece, Offload::NONE));
        offset += len;
    }
}

/// Adds those of an IPv4 header's `options` to `header` that are in every fragment (RFC 791 section 3.1), padded to whole words.
fn copied_options(options: &[u8], header: &mut Vec<u8>) {
    const COPIED: u8 = 0x80;
    let mut rest = options;
    loop {
        match rest {
            // No operation.
            [1, after @ ..] => rest = after,
            [kind, len, ..] if *kind != 0 && (2..=rest.len()).contains(&usize::from(*len)) => {
                let (option, after) = rest.split_at(usize::from(*len));
                if kind & COPIED != 0 {
                    header.extend_from_slice(option);
                }
                rest = after;
            }
            // The end, or what cannot be.
            _ => break,
        }
    }
    // The Ethernet header's 14 bytes make no whole words.
    while !(header.len() - crate::packet::ETHERNET).is_multiple_of(4) {
        header.push(0);
    }
}

/// Cuts the IPv6 packet in `bytes`.
fn cut_v6(
    bytes: &[u8],
    packet: &Packet,
    limit: usize,
    ident: u32,
    scratch: &mut [u8],
    send: &mut dyn FnMut(&mut Frame<'_>),
) {
    let Unfragmentable { end, names } = unfragmentable(&bytes[packet.ip..packet.end]);
    let (header, payload) = bytes[..packet.end].split_at(packet.ip + end);
    let names = packet.ip + names;
    let room = limit - end - FRAGMENT_HEADER;
    let mut offset = 0;
    while offset < payload.len() {
        let rest = payload.len() - offset;
        let more = rest > room;
        let len = if more { room / UNIT * UNIT } else { rest };
        let [a, b] = (offset as u16 | u16::from(more)).to_be_bytes();
        let [c, d, e, f] = ident.to_be_bytes();
        let fragment = [header[names], 0, a, b, c, d, e, f];
        let piece = put(scratch, &[header, &fragment, &payload[offset..offset + len]]);
        let out = &mut scratch[HEADROOM..piece];
        out[names] = u8::from(IpProtocol::Ipv6Frag);
        let payload_len = (out.len() - packet.ip - 40) as u16;
        out[packet.ip + 4..packet.ip + 6].copy_from_slice(&payload_len.to_be_bytes());
        send(&mut Frame::new(scratch, HEADROOM, piece, Offload::NONE));
        offset += len;
    }
}

/// The part of an IPv6 packet that is in each fragment. Both in bytes from the IP header's first.
struct Unfragmentable {
    /// Where it ends.
    end: usize,
    /// The byte that names what follows it.
    names: usize,
}

/// RFC 8200 section 4.5: all headers up to the routing header if there is one, else the hop-by-hop header if there is one.
/// `packet` was found whole.
fn unfragmentable(packet: &[u8]) -> Unfragmentable {
    let mut found = Unfragmentable { end: 40, names: 6 };
    let (mut at, mut kind) = (40, IpProtocol::from(packet[6]));
    while matches!(
        kind,
        IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts
    ) {
        let end = at + 8 + usize::from(packet[at + 1]) * 8;
        if kind != IpProtocol::Ipv6Opts {
            found = Unfragmentable { end, names: at };
        }
        kind = IpProtocol::from(packet[at]);
        at = end;
    }
    found
}

/// Puts `parts` one behind another behind the headroom of `scratch`; where they end.
fn put(scratch: &mut [u8], parts: &[&[u8]]) -> usize {
    let mut end = HEADROOM;
    for part in parts {
        scratch[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    end
}

#[cfg(test)]
mod tests;
