//! Tuples: who talks to whom.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A protocol whose flows are tracked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo; the source port is its identifier, the destination port 0.
    Icmp,
    /// ICMPv6 echo, likewise.
    Icmp6,
}

impl Protocol {
    /// Its name, as listed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Icmp6 => "icmpv6",
        }
    }
}

/// Which way a packet goes in its flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the initiator.
    Original,
    /// To the initiator.
    Reply,
}

/// Source and destination of a flow's packets in one direction.
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

/// A tuple in 36 bytes: both addresses (IPv4 mapped into IPv6), both ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packed(pub(super) [u8; 36]);

impl Default for Packed {
    fn default() -> Self {
        Self([0; 36])
    }
}

impl Packed {
    pub(super) fn new(tuple: &Tuple) -> Self {
        let mut b = [0; 36];
        b[..16].copy_from_slice(&octets(tuple.src.ip()));
        b[16..32].copy_from_slice(&octets(tuple.dst.ip()));
        b[32..34].copy_from_slice(&tuple.src.port().to_be_bytes());
        b[34..].copy_from_slice(&tuple.dst.port().to_be_bytes());
        Self(b)
    }

    pub(super) fn reversed(&self) -> Self {
        let mut b = [0; 36];
        b[..16].copy_from_slice(&self.0[16..32]);
        b[16..32].copy_from_slice(&self.0[..16]);
        b[32..34].copy_from_slice(&self.0[34..]);
        b[34..].copy_from_slice(&self.0[32..34]);
        Self(b)
    }

    pub(super) fn unpack(&self, protocol: Protocol) -> Tuple {
        let address = |at: usize| {
            let mut o = [0; 16];
            o.copy_from_slice(&self.0[at..at + 16]);
            let v6 = Ipv6Addr::from(o);
            // A mapped address is never a container's destination (`Config::destination`), so this loses nothing.
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        };
        let port = |at: usize| u16::from_be_bytes([self.0[at], self.0[at + 1]]);
        Tuple {
            protocol,
            src: SocketAddr::new(address(0), port(32)),
            dst: SocketAddr::new(address(16), port(34)),
        }
    }
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}
