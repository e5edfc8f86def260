//! The beginning of a packet that is gone, rebuilt to be quoted in an error about it.

use std::net::{IpAddr, SocketAddr};

use pontoon_switch::offload;
use smoltcp::wire::IpProtocol;

use crate::packet::IpRepr;
use crate::sum;

/// Bytes of a rebuilt packet at most.
const LONGEST: usize = 576;

/// A rebuilt packet's beginning, from its IP header on.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    bytes: [u8; LONGEST],
    len: usize,
}

impl AsRef<[u8]> for Quote {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A UDP datagram of `src`, of whose payload `data` is known.
pub fn quote_udp(src: SocketAddr, dst: SocketAddr, data: &[u8]) -> Quote {
    let udp_len = u16::try_from(8 + data.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = [0; 8];
    header[..2].copy_from_slice(&src.port().to_be_bytes());
    header[2..4].copy_from_slice(&dst.port().to_be_bytes());
    header[4..6].copy_from_slice(&udp_len);
    build(src.ip(), dst.ip(), IpProtocol::Udp, &header, data, 6)
}

/// A TCP segment of `src` (a SYN, say), of which only the sequence number is known.
pub fn quote_tcp(src: SocketAddr, dst: SocketAddr, seq: u32) -> Quote {
    let mut header = [0; 20];
    header[..2].copy_from_slice(&src.port().to_be_bytes());
    header[2..4].copy_from_slice(&dst.port().to_be_bytes());
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = 2;
    build(src.ip(), dst.ip(), IpProtocol::Tcp, &header, &[], 16)
}

/// An echo request of `src`, of whose data `data` are known.
pub fn quote_echo(src: IpAddr, dst: IpAddr, id: u16, sequence: u16, data: &[u8]) -> Quote {
    let (kind, protocol) = match dst {
        IpAddr::V4(_) => (8, IpProtocol::Icmp),
        IpAddr::V6(_) => (128, IpProtocol::Icmpv6),
    };
    let mut header = [kind, 0, 0, 0, 0, 0, 0, 0];
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..8].copy_from_slice(&sequence.to_be_bytes());
    build(src, dst, protocol, &header, data, 2)
}

/// `checksum_at` is where the checksum stands in `header`; it is right if `data` is all there was.
fn build(
    src: IpAddr,
    dst: IpAddr,
    protocol: IpProtocol,
    header: &[u8],
    data: &[u8],
    checksum_at: usize,
) -> Quote {
    // The hop limit is as the last router would have seen it; the identification is not known.
    let ip = IpRepr {
        hop_limit: 1,
        ..IpRepr::new(src, dst, protocol)
    };
    let mut bytes = [0; LONGEST];
    let at = ip.header_len();
    let known = data.len().min(LONGEST - at - header.len());
    let len = at + header.len() + known;
    ip.emit(&mut bytes, header.len() + data.len(), 0);
    bytes[at..at + header.len()].copy_from_slice(header);
    bytes[at + header.len()..len].copy_from_slice(&data[..known]);
    let checksum = match protocol {
        IpProtocol::Icmp => offload::checksum(&bytes[at..len]),
        _ => sum::whole(src, dst, protocol, &bytes[at..len]),
    };
    bytes[at + checksum_at..at + checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    Quote { bytes, len }
}
