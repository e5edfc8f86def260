//! Tuples: who talks to whom.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Protocol;

/// Which way a packet goes in its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the initiator.
    Original,
    /// To the initiator.
    Reply,
}

/// Source and destination of a flow's packets in one direction. Ports of a [`Protocol::Other`] are 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// The protocol.
    pub protocol: Protocol,
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port, of the same version.
    pub dst: SocketAddr,
}

impl Tuple {
    /// The tuple of the other direction.
    pub fn reversed(&self) -> Self {
        Self {
            protocol: self.protocol,
            src: self.dst,
            dst: self.src,
        }
    }
}

/// An address as it stands in a header, an IPv4 one mapped into IPv6.
pub(super) type Octets = [u32; 4];

/// A tuple in 36 bytes: both addresses, both ports. Words are those of memory: they are compared and hashed, not reckoned with.
#[derive(Clone, Copy, Eq, Debug, Default)]
pub(super) struct Packed([u32; 9]);

/// Word by word, since whoever compares tuples is looking one up.
impl PartialEq for Packed {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.words(), other.words());
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) == 0
    }
}

impl Packed {
    pub(super) fn new(tuple: &Tuple) -> Self {
        let end = |end: SocketAddr| (octets(end.ip()), end.port());
        Self::from_parts([end(tuple.src), end(tuple.dst)])
    }

    pub(super) fn reversed(&self) -> Self {
        let [a, b, c, d, e, f, g, h, ports] = self.0;
        Self([e, f, g, h, a, b, c, d, ports.rotate_left(16)])
    }

    /// Source address and port, then destination address and port.
    pub(super) fn parts(&self) -> [(Octets, u16); 2] {
        let [a, b, c, d, e, f, g, h, ports] = self.0;
        [([a, b, c, d], (ports >> 16) as u16), ([e, f, g, h], ports as u16)]
    }

    pub(super) fn from_parts([src, dst]: [(Octets, u16); 2]) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (src.0, dst.0);
        Self([a, b, c, d, e, f, g, h, u32::from(src.1) << 16 | u32::from(dst.1)])
    }

    /// The source address.
    pub(super) fn source(&self) -> IpAddr {
        let [(octets, _), _] = self.parts();
        address(octets)
    }

    pub(super) fn unpack(&self, protocol: Protocol) -> Tuple {
        let endpoint = |(octets, port)| SocketAddr::new(address(octets), port);
        let [src, dst] = self.parts().map(endpoint);
        Tuple { protocol, src, dst }
    }

    /// The same as five words, the last one half.
    pub(super) fn words(&self) -> [u64; 5] {
        let [a, b, c, d, e, f, g, h, ports] = self.0.map(u64::from);
        [a | b << 32, c | d << 32, e | f << 32, g | h << 32, ports]
    }
}

/// The address that stands there. (One of IPv6 that is mapped is never a destination, by `Config::destination`, so nothing is lost.)
fn address(octets: Octets) -> IpAddr {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(octets) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let v6 = Ipv6Addr::from(bytes);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

fn octets(addr: IpAddr) -> Octets {
    match addr {
        IpAddr::V4(a) => [
            0,
            0,
            const { u32::from_ne_bytes([0, 0, 0xff, 0xff]) },
            u32::from_ne_bytes(a.octets()),
        ],
        IpAddr::V6(a) => {
            let o = a.octets();
            let word = |at: usize| u32::from_ne_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]);
            [word(0), word(4), word(8), word(12)]
        }
    }
}
