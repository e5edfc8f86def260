//! What an ICMP error says, and about which packet.

use std::net::{IpAddr, SocketAddr};

use pontoon_switch::{Checksum, DropReason, Frame, offload};
use smoltcp::wire::IpProtocol;

use super::telling::{skip_extensions, walk_extensions};
use super::{IcmpError, Role};
use crate::flow::{Protocol, Tuple};
use crate::packet::{self, Packet};
use crate::sum;

/// Bytes of an ICMP header, before the packet that an error quotes.
const HEADER: usize = 8;

/// Bytes of a quoted packet that are there at least where something follows it (RFC 4884 section 4.6).
const EXTENDED: usize = 128;

/// An ICMP error that was held against RFC 5508 REQ-3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// What it says.
    pub error: IcmpError,
    /// The tuple of the packet that it quotes, as it stands there: the packet's sender is the source.
    pub tuple: Tuple,
    /// Where the quoted packet would have gone in the end, if a routing header with segments left says so.
    pub(crate) last: Option<IpAddr>,
    /// Where the quoted packet begins, in bytes from the frame's first.
    pub(crate) ip: usize,
    /// Where its transport header begins.
    pub(crate) transport: usize,
    /// Where what is quoted ends.
    pub(crate) end: usize,
}

/// Reads the ICMP error in `packet`. The quoted packet may be cut short behind the first eight bytes of its transport header;
/// its transport checksum is not looked at (RFC 5508 REQ-3 c).
///
/// # Errors
/// [`DropReason::UnknownProtocol`] if it is no error that is for anybody beyond the link, [`DropReason::Malformed`] and
/// [`DropReason::BadChecksum`] for what is not well made, [`DropReason::NoFlow`] if it is about a packet that belongs to no flow: a
/// later fragment, or a message that is no query.
pub fn quoted(packet: &Packet, frame: &Frame<'_>) -> Result<Quoted, DropReason> {
    let message = packet.transport(frame);
    let Some(&[kind, code, _, _, rest @ ..]) = message.first_chunk::<HEADER>() else {
        return Err(DropReason::Malformed);
    };
    let protocol = Protocol::of(packet.protocol.into(), packet.src);
    let error = IcmpError::from_message(protocol, kind, code, rest).ok_or(DropReason::UnknownProtocol)?;
    if !is_right(packet, frame) {
        return Err(DropReason::BadChecksum);
    }
    // RFC 4884 section 4.1, 4.2: the length of the quoted packet, in words of four bytes or of eight.
    let length = match protocol {
        Protocol::Icmp6 => usize::from(rest[0]) * 8,
        _ => usize::from(rest[1]) * 4,
    };
    let has_length = !matches!((protocol, kind), (Protocol::Icmp6, 2 | 4));
    let mut inner = &message[HEADER..];
    if has_length && length >= EXTENDED && length < inner.len() {
        inner = &inner[..length];
    }
    let (tuple, transport) = read(inner, packet.src)?;
    let ip = packet.payload + HEADER;
    let last = match packet.src {
        IpAddr::V4(_) => None,
        IpAddr::V6(_) => last_segment(inner),
    };
    Ok(Quoted {
        error,
        tuple,
        last,
        ip,
        transport: ip + transport,
        end: ip + inner.len(),
    })
}

/// RFC 5508 REQ-3: true if the error's own checksum is right.
fn is_right(packet: &Packet, frame: &Frame<'_>) -> bool {
    let message = packet.transport(frame);
    match (frame.offload.checksum, packet.protocol) {
        (Checksum::Valid, _) => true,
        (Checksum::Partial { start, offset: 2 }, _) if usize::from(start) == packet.payload => true,
        (_, IpProtocol::Icmp) => offload::checksum(message) == 0,
        (_, protocol) => sum::is_right(packet.src, packet.dst, protocol, message),
    }
}

/// The tuple of the packet of which `inner` is the beginning, and where its transport header begins in it. It must be of
/// `outer`'s IP version.
fn read(inner: &[u8], outer: IpAddr) -> Result<(Tuple, usize), DropReason> {
    let (number, src, dst, at) = match outer {
        IpAddr::V4(_) => read_v4(inner),
        IpAddr::V6(_) => read_v6(inner),
    }?;
    let protocol = Protocol::of(number, src);
    let transport = inner.get(at..).ok_or(DropReason::Malformed)?;
    let word = |at: usize| -> Result<u16, DropReason> {
        let header = transport.first_chunk::<8>().ok_or(DropReason::Malformed)?;
        Ok(u16::from_be_bytes([header[at], header[at + 1]]))
    };
    let (sport, dport) = match protocol {
        Protocol::Tcp | Protocol::Udp => (word(0)?, word(2)?),
        Protocol::Icmp | Protocol::Icmp6 => {
            let id = word(4)?;
            match Role::of(protocol, transport[0]) {
                Role::Query => (id, 0),
                Role::Answer => (0, id),
                Role::Error | Role::Other => return Err(DropReason::NoFlow),
            }
        }
        Protocol::Other(_) => (0, 0),
    };
    let tuple = Tuple {
        protocol,
        src: SocketAddr::new(src, sport),
        dst: SocketAddr::new(dst, dport),
    };
    Ok((tuple, at))
}

/// The last segment of the IPv6 packet that `inner` is the beginning of, if it has segments left.
fn last_segment(inner: &[u8]) -> Option<IpAddr> {
    let mut route = None;
    walk_extensions(inner, inner[6], |kind, header| {
        if kind == u8::from(IpProtocol::Ipv6Route) && header[3] != 0 {
            route.get_or_insert_with(|| packet::last_segment(header));
        }
    });
    route.flatten()
}

/// Protocol, source, destination and where the transport header begins.
type Place = (u8, IpAddr, IpAddr, usize);

fn read_v4(inner: &[u8]) -> Result<Place, DropReason> {
    let h = inner.first_chunk::<20>().ok_or(DropReason::Malformed)?;
    let at = usize::from(h[0] & 15) * 4;
    let header = inner.get(..at).ok_or(DropReason::Malformed)?;
    if h[0] >> 4 != 4 || at < 20 {
        return Err(DropReason::Malformed);
    }
    // RFC 5508 REQ-3 a.
    if offload::header_sum(header) != 0xffff {
        return Err(DropReason::BadChecksum);
    }
    if u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0 {
        return Err(DropReason::NoFlow);
    }
    let src = IpAddr::from([h[12], h[13], h[14], h[15]]);
    let dst = IpAddr::from([h[16], h[17], h[18], h[19]]);
    Ok((h[9], src, dst, at))
}

fn read_v6(inner: &[u8]) -> Result<Place, DropReason> {
    let h = inner.first_chunk::<40>().ok_or(DropReason::Malformed)?;
    if h[0] >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    let (number, at, later) = skip_extensions(inner, h[6]);
    if later {
        return Err(DropReason::NoFlow);
    }
    // The extension headers are cut short.
    if matches!(number, 0 | 43 | 44 | 60) {
        return Err(DropReason::Malformed);
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&h[at..at + 16]);
        IpAddr::from(octets)
    };
    Ok((number, address(8), address(24), at))
}
