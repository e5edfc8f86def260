//! Where the headers of a frame lie: just enough parsing for policy and segmentation, in borrowed bytes.
//!
//! Everything here is read from an attacker's bytes: each access is bounded, each walk is finite.

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET_LEN: usize = 14;
/// Ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub const IPV6: u16 = 0x86dd;
/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// Extension headers looked past; more is nothing that a host sends.
const MAX_EXTENSIONS: usize = 8;

/// True for the identifiers of VLAN tags: 802.1Q and 802.1ad.
pub const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8)
}

/// The ethertype behind up to two tags, and where its payload begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    /// The ethertype, or a length below 0x600.
    pub ethertype: u16,
    /// First byte behind it, from the frame's first.
    pub payload: usize,
}

/// Looks past the tags of a frame; `None` if it ends too soon.
pub fn ethernet(bytes: &[u8]) -> Option<Ethernet> {
    let mut at = 12;
    let mut ethertype = be16(bytes, at)?;
    for _ in 0..2 {
        if !is_vlan(ethertype) {
            break;
        }
        at += 4;
        ethertype = be16(bytes, at)?;
    }
    Some(Ethernet {
        ethertype,
        payload: at + 2,
    })
}

/// The IP header of a frame. Offsets are from the frame's first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// IPv4.
    V4 {
        /// First byte of its header.
        at: usize,
    },
    /// IPv6.
    V6 {
        /// First byte of its header.
        at: usize,
    },
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first of several: the transport header is in it.
    First,
    /// A later one: there is no transport header.
    Later,
}

/// The headers of an IP packet in a frame. Offsets are from the frame's first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers {
    /// The IP header.
    pub network: Network,
    /// The protocol behind it and its extension headers.
    pub protocol: u8,
    /// Where that begins; meaningless in a later fragment.
    pub transport: usize,
    /// Which part of a datagram this is.
    pub fragment: Fragment,
}

/// Finds the headers of the IP packet in a frame. `None` if it holds none, or one whose headers are cut short.
pub fn locate(bytes: &[u8]) -> Option<Headers> {
    let ethernet = ethernet(bytes)?;
    match ethernet.ethertype {
        IPV4 => locate_v4(bytes, ethernet.payload),
        IPV6 => locate_v6(bytes, ethernet.payload),
        _ => None,
    }
}

/// As [`locate`], for an IPv4 header at `at`.
pub fn locate_v4(bytes: &[u8], at: usize) -> Option<Headers> {
    let header = bytes.get(at..at + 20)?;
    let len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || len < 20 || at + len > bytes.len() {
        return None;
    }
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let fragment = match (flags & 0x1fff, flags & 0x2000 != 0) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        (_, _) => Fragment::Later,
    };
    Some(Headers {
        network: Network::V4 { at },
        protocol: header[9],
        transport: at + len,
        fragment,
    })
}

/// As [`locate`], for an IPv6 header at `at`.
pub fn locate_v6(bytes: &[u8], at: usize) -> Option<Headers> {
    let header = bytes.get(at..at + 40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let mut found = Headers {
        network: Network::V6 { at },
        protocol: header[6],
        transport: at + 40,
        fragment: Fragment::Whole,
    };
    for _ in 0..MAX_EXTENSIONS {
        let here = found.transport;
        let len = match found.protocol {
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6.
            0 | 43 | 60 | 135 | 139 | 140 => usize::from(*bytes.get(here + 1)?) * 8 + 8,
            // Authentication: counted in words of four bytes.
            51 => usize::from(*bytes.get(here + 1)?) * 4 + 8,
            // Fragment.
            44 => {
                let place = be16(bytes, here + 2)?;
                found.fragment = match (place & 0xfff8, place & 1) {
                    (0, 0) => found.fragment,
                    (0, _) => Fragment::First,
                    (_, _) => Fragment::Later,
                };
                8
            }
            _ => return Some(found),
        };
        if here + len > bytes.len() {
            return None;
        }
        found.protocol = bytes[here];
        found.transport = here + len;
        if found.fragment == Fragment::Later {
            return Some(found);
        }
    }
    None
}

/// The big-endian number at `at`.
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}
