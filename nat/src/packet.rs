//! The IP packet in a frame: what the gateway needs to know of it, checked once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pontoon_switch::{DropReason, Frame, MacAddr, PortId, offload};
use smoltcp::wire::{EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet};

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET: usize = 14;

/// Where a fragment belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Offset of its payload in the whole, in bytes.
    pub offset: u32,
    /// True unless it is the last.
    pub more: bool,
}

/// The one routing header that is carried and whose last segment is known: segment routing (RFC 8754).
const SEGMENT_ROUTING: u8 = 4;
/// The routing header that nobody is to heed or to pass on (RFC 5095).
const DEPRECATED: u8 = 0;

/// An IP packet within a frame. Offsets are in bytes from the frame's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The port it came from.
    pub ingress: PortId,
    /// The sender's Ethernet address.
    pub src_mac: MacAddr,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Transport protocol, behind any IPv6 extension headers.
    pub protocol: IpProtocol,
    /// TTL or hop limit as it came.
    pub hop_limit: u8,
    /// TOS or traffic class, all eight bits.
    pub tos: u8,
    /// IPv4's DF; true for IPv6.
    pub dont_fragment: bool,
    /// Set if this is a fragment.
    pub fragment: Option<Fragment>,
    /// Where an IPv6 routing header with segments left stands. Who is named as destination processes it, and nobody else
    /// (RFC 8200 section 4.4); the packet goes on to others then.
    pub source_route: Option<usize>,
    /// Set if this was put together from fragments here: bytes of the largest, from its IP header on.
    pub largest_fragment: Option<u16>,
    /// Start of the IP header.
    pub ip: usize,
    /// Start of the transport header.
    pub payload: usize,
    /// End of the packet, by its own length field.
    pub end: usize,
}

impl Packet {
    /// Reads the packet in `frame`, whose ethertype says IPv4 or IPv6.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] for lengths, versions or headers that cannot be, [`DropReason::BadChecksum`] for a wrong IPv4
    /// header checksum, [`DropReason::UnknownProtocol`] for another ethertype.
    pub fn parse(ingress: PortId, frame: &Frame<'_>) -> Result<Self, DropReason> {
        let bytes = frame.bytes();
        let (Some(src_mac), Some(&[a, b])) = (bytes.get(6..).and_then(MacAddr::first), bytes.get(12..14))
        else {
            return Err(DropReason::BadLength);
        };
        match EthernetProtocol::from(u16::from_be_bytes([a, b])) {
            EthernetProtocol::Ipv4 => Self::parse_v4(ingress, src_mac, bytes),
            EthernetProtocol::Ipv6 => Self::parse_v6(ingress, src_mac, bytes),
            EthernetProtocol::Arp | EthernetProtocol::Unknown(_) => Err(DropReason::UnknownProtocol),
        }
    }

    fn parse_v4(ingress: PortId, src_mac: MacAddr, bytes: &[u8]) -> Result<Self, DropReason> {
        let ip = &bytes[ETHERNET..];
        let Some(h) = ip.first_chunk::<20>() else {
            return Err(DropReason::Malformed);
        };
        let word = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
        let (header_len, total_len) = (usize::from(h[0] & 0x0f) * 4, usize::from(word(2)));
        if h[0] >> 4 != 4 || header_len < 20 || header_len > total_len || total_len > ip.len() {
            return Err(DropReason::Malformed);
        }
        // The sum over a header with its checksum is all ones (RFC 1071, 2).
        if offload::header_sum(&ip[..header_len]) != 0xffff {
            return Err(DropReason::BadChecksum);
        }
        // DF, MF and the offset in units of eight bytes (RFC 791, 3.1).
        let place = word(6);
        let (offset, more) = (u32::from(place & 0x1fff) * 8, place & 0x2000 != 0);
        let fragment = (more || offset != 0).then(|| Fragment {
            id: u32::from(word(4)),
            offset,
            more,
        });
        Ok(Self {
            ingress,
            src_mac,
            src: Ipv4Addr::new(h[12], h[13], h[14], h[15]).into(),
            dst: Ipv4Addr::new(h[16], h[17], h[18], h[19]).into(),
            protocol: IpProtocol::from(h[9]),
            hop_limit: h[8],
            tos: h[1],
            dont_fragment: place & 0x4000 != 0,
            fragment,
            source_route: None,
            largest_fragment: None,
            ip: ETHERNET,
            payload: ETHERNET + header_len,
            end: ETHERNET + total_len,
        })
    }

    fn parse_v6(ingress: PortId, src_mac: MacAddr, bytes: &[u8]) -> Result<Self, DropReason> {
        let ip = Ipv6Packet::new_checked(&bytes[ETHERNET..]).map_err(|_| DropReason::Malformed)?;
        if ip.version() != 6 {
            return Err(DropReason::Malformed);
        }
        let end = ETHERNET + 40 + usize::from(ip.payload_len());
        let mut packet = Self {
            ingress,
            src_mac,
            src: ip.src_addr().into(),
            dst: ip.dst_addr().into(),
            protocol: ip.next_header(),
            hop_limit: ip.hop_limit(),
            tos: ip.traffic_class(),
            dont_fragment: true,
            fragment: None,
            source_route: None,
            largest_fragment: None,
            ip: ETHERNET,
            payload: ETHERNET + 40,
            end,
        };
        packet.skip_extensions(&bytes[..end])?;
        Ok(packet)
    }

    /// Walks IPv6 extension headers (RFC 8200 section 4) up to the transport header, or to the first fragment header.
    fn skip_extensions(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        loop {
            let header = &bytes[self.payload..];
            let length = match self.protocol {
                IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
                    let &[_, len, ..] = header else {
                        return Err(DropReason::Malformed);
                    };
                    if self.protocol == IpProtocol::Ipv6Route {
                        self.note_route(header)?;
                    }
                    8 + usize::from(len) * 8
                }
                IpProtocol::Ipv6Frag => {
                    let Some(h) = header.first_chunk::<8>() else {
                        return Err(DropReason::Malformed);
                    };
                    let word = u16::from_be_bytes([h[2], h[3]]);
                    let id = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
                    let (offset, more) = (u32::from(word & !7), word & 1 != 0);
                    // RFC 6946: an atomic fragment is a whole packet.
                    if offset != 0 || more {
                        self.fragment = Some(Fragment { id, offset, more });
                    }
                    8
                }
                _ => return Ok(()),
            };
            if header.len() < length {
                return Err(DropReason::Malformed);
            }
            self.protocol = IpProtocol::from(header[0]);
            self.payload += length;
            if self.fragment.is_some() {
                return Ok(());
            }
        }
    }

    /// Notes the routing header that `header` begins with, if it has segments left. RFC 8200 section 4.1: there is one at most.
    fn note_route(&mut self, header: &[u8]) -> Result<(), DropReason> {
        match *header {
            [_, _, _, 0, ..] => Ok(()),
            [_, _, kind, _, ..] if kind != DEPRECATED && self.source_route.is_none() => {
                self.source_route = Some(self.payload);
                Ok(())
            }
            _ => Err(DropReason::Malformed),
        }
    }

    /// Where the packet is in the end, which is what its transport checksum covers (RFC 8200 section 8.1). `None` if that cannot be
    /// told, for the routing header is of an unknown type.
    pub fn last_destination(&self, frame: &Frame<'_>) -> Option<IpAddr> {
        match self.source_route {
            None => Some(self.dst),
            Some(at) => last_segment(&frame.bytes()[at..self.payload]),
        }
    }

    /// The transport header and what follows it.
    pub fn transport<'f>(&self, frame: &'f Frame<'_>) -> &'f [u8] {
        &frame.bytes()[self.payload..self.end]
    }

    /// The packet from its IP header on, as an ICMP error quotes it.
    pub fn quoted<'f>(&self, frame: &'f Frame<'_>) -> &'f [u8] {
        &frame.bytes()[self.ip..self.end]
    }
}

/// The last of the segments in a routing header with segments left, if its type is known: the list begins with the last
/// (RFC 8754 section 2).
pub fn last_segment(header: &[u8]) -> Option<IpAddr> {
    let &[_, _, SEGMENT_ROUTING, left, ..] = header else {
        return None;
    };
    let header = header.get(..8 + usize::from(header[1]) * 8)?;
    let last = header.get(8..)?.first_chunk::<16>().filter(|_| left != 0)?;
    Some(IpAddr::from(*last))
}

/// The IP header of a packet to be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpRepr {
    /// Source.
    pub src: IpAddr,
    /// Destination, of the same version.
    pub dst: IpAddr,
    /// Transport protocol.
    pub protocol: IpProtocol,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4's DF bit; without meaning for IPv6.
    pub dont_fragment: bool,
}

impl IpRepr {
    /// A packet of the gateway's own making: hop limit 64, no TOS, may be fragmented.
    pub fn new(src: IpAddr, dst: IpAddr, protocol: IpProtocol) -> Self {
        Self {
            src,
            dst,
            protocol,
            hop_limit: 64,
            tos: 0,
            dont_fragment: false,
        }
    }

    /// Bytes of the IP header: 20 or 40.
    pub fn header_len(&self) -> usize {
        header_len(self.dst)
    }

    /// Writes the IP header for `payload_len` bytes at the start of `buf`; `ident` is IPv4's identification.
    pub fn emit(&self, buf: &mut [u8], payload_len: usize, ident: u16) {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.emit_v4(buf, src, dst, payload_len, ident),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.emit_v6(buf, src, dst, payload_len),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("source and destination of one version")
            }
        }
    }

    fn emit_v4(&self, buf: &mut [u8], src: Ipv4Addr, dst: Ipv4Addr, payload_len: usize, ident: u16) {
        let mut ip = Ipv4Packet::new_unchecked(buf);
        ip.set_version(4);
        ip.set_header_len(20);
        ip.set_total_len((20 + payload_len) as u16);
        ip.set_ident(ident);
        ip.clear_flags();
        ip.set_dont_frag(self.dont_fragment);
        ip.set_frag_offset(0);
        ip.set_hop_limit(self.hop_limit);
        ip.set_next_header(self.protocol);
        ip.set_src_addr(src);
        ip.set_dst_addr(dst);
        ip.set_dscp(self.tos >> 2);
        ip.set_ecn(self.tos & 3);
        ip.fill_checksum();
    }

    fn emit_v6(&self, buf: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr, payload_len: usize) {
        let mut ip = Ipv6Packet::new_unchecked(buf);
        ip.set_version(6);
        ip.set_flow_label(0);
        ip.set_traffic_class(self.tos);
        ip.set_payload_len(payload_len as u16);
        ip.set_next_header(self.protocol);
        ip.set_hop_limit(self.hop_limit);
        ip.set_src_addr(src);
        ip.set_dst_addr(dst);
    }
}

/// Bytes of an IP header without options, of `addr`'s version.
pub fn header_len(addr: IpAddr) -> usize {
    match addr {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}
