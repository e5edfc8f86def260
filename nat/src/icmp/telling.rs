//! Building an error about a packet, for its sender: on the switch or on any other link.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use pontoon_switch::offload;
use smoltcp::wire::IpProtocol;

use super::IcmpError;
use crate::packet::IpRepr;
use crate::sum;

/// Bytes of an IPv4 packet with an error at most (RFC 1812 section 4.3.2.3), and of an IPv6 one (RFC 4443 section 2.4 c).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;

/// Bytes of an ICMP header.
const HEADER: usize = 8;

/// An error that may be told.
#[derive(Clone, Copy, Debug)]
pub struct Telling<'p> {
    packet: &'p [u8],
    from: IpAddr,
    to: IpAddr,
    error: IcmpError,
}

impl<'p> Telling<'p> {
    /// `error`, about `packet` (its bytes from the IP header on, as its sender knows it), in the name of `from`. `nets` are those of
    /// the gateway's own links.
    ///
    /// `None` where RFC 1122 section 3.2.2 and RFC 4443 section 2.4 e forbid it: about errors, later fragments, what went to many
    /// or came from nobody; and if `from` is of the other IP version or nobody's address.
    pub fn about(packet: &'p [u8], from: IpAddr, error: IcmpError, nets: &[Ipv4Net]) -> Option<Self> {
        let about = About::of(packet)?;
        let named = from.is_ipv4() == about.src.is_ipv4() && may_send(from);
        (named && about.may_be_told(error, nets)).then_some(Self {
            packet,
            from,
            to: about.src,
            error,
        })
    }

    /// Whom it is told.
    pub fn to(&self) -> IpAddr {
        self.to
    }

    /// Writes the ICMP message into `message`, for a link with an MTU of `mtu` bytes: the header that it needs, and its bytes.
    pub fn message(&self, mtu: usize, message: &mut [u8]) -> (IpRepr, usize) {
        let ((kind, code, rest), protocol, longest, tos) = match self.to {
            // RFC 1812 section 4.3.2.5: precedence 6, internetwork control.
            IpAddr::V4(_) => (self.error.as_v4(), IpProtocol::Icmp, LONGEST_V4, 0xc0),
            IpAddr::V6(_) => (self.error.as_v6(), IpProtocol::Icmpv6, LONGEST_V6, 0),
        };
        let ip = IpRepr {
            tos,
            ..IpRepr::new(self.from, self.to, protocol)
        };
        let quoted = self.packet.len().min(longest.min(mtu) - ip.header_len() - HEADER);
        let message = &mut message[..HEADER + quoted];
        message[..4].copy_from_slice(&[kind, code, 0, 0]);
        message[4..HEADER].copy_from_slice(&rest);
        message[HEADER..].copy_from_slice(&self.packet[..quoted]);
        let checksum = match protocol {
            IpProtocol::Icmpv6 => sum::whole(self.from, self.to, protocol, message),
            _ => offload::checksum(message),
        };
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        (ip, message.len())
    }

    /// Writes the whole IP packet into `buf`, which has room for 1280 bytes, for a link with an MTU of `mtu` bytes; `ident` is IPv4's
    /// identification. Its bytes.
    pub fn packet(&self, mtu: usize, ident: u16, buf: &mut [u8]) -> usize {
        let at = crate::packet::header_len(self.to);
        let (ip, len) = self.message(mtu, &mut buf[at..]);
        ip.emit(buf, len, ident);
        at + len
    }
}

/// The source of `packet`, if it is one.
pub(super) fn sender(packet: &[u8]) -> Option<IpAddr> {
    About::of(packet).map(|about| about.src)
}

/// What must be known of a packet to decide whether an error may be sent about it.
struct About {
    src: IpAddr,
    dst: IpAddr,
    /// It is an ICMP error itself.
    is_error: bool,
    /// It is a fragment other than the first.
    later_fragment: bool,
}

impl About {
    fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let h = packet.first_chunk::<20>()?;
                let later_fragment = u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0;
                let kind = packet.get(usize::from(h[0] & 15) * 4);
                Some(Self {
                    src: IpAddr::from([h[12], h[13], h[14], h[15]]),
                    dst: IpAddr::from([h[16], h[17], h[18], h[19]]),
                    is_error: h[9] == 1 && kind.is_none_or(|k| matches!(k, 3 | 4 | 5 | 11 | 12)),
                    later_fragment,
                })
            }
            6 => {
                let h = packet.first_chunk::<40>()?;
                let (protocol, at, later_fragment) = skip_extensions(packet, h[6]);
                Some(Self {
                    src: IpAddr::from(<[u8; 16]>::try_from(&h[8..24]).ok()?),
                    dst: IpAddr::from(<[u8; 16]>::try_from(&h[24..40]).ok()?),
                    is_error: protocol == 58
                        && !later_fragment
                        && packet.get(at).is_none_or(|&k| k < 128 || k == 137),
                    later_fragment,
                })
            }
            _ => None,
        }
    }

    fn may_be_told(&self, error: IcmpError, nets: &[Ipv4Net]) -> bool {
        // RFC 4443 section 2.4 e.3: a path's MTU is told of multicasts too.
        let to_group = match self.dst {
            IpAddr::V4(d) => d.is_multicast() || is_broadcast(nets, d),
            IpAddr::V6(d) => d.is_multicast() && !matches!(error, IcmpError::PacketTooBig(_)),
        };
        let source = match self.src {
            IpAddr::V4(s) => !is_broadcast(nets, s) && !s.is_loopback() && s.octets()[0] < 224,
            IpAddr::V6(_) => true,
        };
        source && may_send(self.src) && !to_group && !self.is_error && !self.later_fragment
    }
}

fn is_broadcast(nets: &[Ipv4Net], addr: Ipv4Addr) -> bool {
    let of = |net: &Ipv4Net| net.prefix_len() < 31 && net.broadcast() == addr;
    addr.is_broadcast() || nets.iter().any(of)
}

/// True for addresses that a packet may come from.
fn may_send(addr: IpAddr) -> bool {
    !addr.is_multicast() && !addr.is_unspecified()
}

/// Walks the extension headers of IPv6 `packet`, as far as they go: transport protocol, its offset, and whether this is
/// a later fragment.
pub(super) fn skip_extensions(packet: &[u8], first: u8) -> (u8, usize, bool) {
    walk_extensions(packet, first, |_, _| {})
}

/// As [`skip_extensions`], and shows `see` the number of each extension header, and what begins with it: eight bytes at least.
pub(super) fn walk_extensions(packet: &[u8], first: u8, mut see: impl FnMut(u8, &[u8])) -> (u8, usize, bool) {
    let (mut protocol, mut at) = (first, 40);
    loop {
        let Some(rest) = packet.get(at..) else {
            return (protocol, at, false);
        };
        let Some(header) = rest.first_chunk::<8>() else {
            return (protocol, at, false);
        };
        if matches!(protocol, 0 | 43 | 44 | 60) {
            see(protocol, rest);
        }
        match protocol {
            0 | 43 | 60 => at += 8 + usize::from(header[1]) * 8,
            44 if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 => {
                return (header[0], at + 8, true);
            }
            44 => at += 8,
            _ => return (protocol, at, false),
        }
        protocol = header[0];
    }
}

#[cfg(test)]
mod tests;
