//! Errors by meaning, and how they are told.

use std::io;
use std::net::IpAddr;

use pontoon_switch::{DropReason, Offload};
use rustix::io::Errno;

use super::telling::{Telling, sender};
use crate::cx::Cx;
use crate::flow::Protocol;
use crate::host::{HostError, Origin};

/// An error to tell a container, by meaning: each has a type and code in ICMP (RFC 792, RFC 1191) and in ICMPv6
/// (RFC 4443).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpError {
    /// No route to the network.
    NetUnreachable,
    /// No way to the host.
    HostUnreachable,
    /// Nobody listens.
    PortUnreachable,
    /// The protocol is not spoken there.
    ProtocolUnreachable,
    /// Forbidden by policy.
    Prohibited,
    /// Too big for the next link, whose MTU in bytes this is.
    PacketTooBig(u32),
    /// Hop limit used up on the way.
    HopLimitExceeded,
    /// Reassembly took too long.
    ReassemblyExceeded,
    /// A header field was wrong; the byte it points at.
    ParameterProblem(u32),
}

impl IcmpError {
    /// The error that a message of `protocol` means, whose four bytes behind the checksum are `rest`. `None` for what is no
    /// error, and for redirects and source quenches, which nobody is to heed who is not on the link (RFC 6633).
    pub fn from_message(protocol: Protocol, kind: u8, code: u8, rest: [u8; 4]) -> Option<Self> {
        let [pointer, _, mtu @ ..] = rest;
        match protocol {
            // RFC 792: a pointer is one byte. RFC 1191: an MTU is two.
            Protocol::Icmp if kind == 12 => Self::from_v4(kind, code, u32::from(pointer)),
            Protocol::Icmp => Self::from_v4(kind, code, u32::from(u16::from_be_bytes(mtu))),
            Protocol::Icmp6 => Self::from_v6(kind, code, u32::from_be_bytes(rest)),
            Protocol::Tcp | Protocol::Udp | Protocol::Other(_) => None,
        }
    }

    /// The error that an ICMP message of `kind` and `code` means; `info` is its MTU or pointer. `None` for what is no error.
    pub fn from_v4(kind: u8, code: u8, info: u32) -> Option<Self> {
        Some(match (kind, code) {
            (3, 1 | 7 | 8 | 12 | 14 | 15) => Self::HostUnreachable,
            (3, 2) => Self::ProtocolUnreachable,
            (3, 3) => Self::PortUnreachable,
            (3, 4) => Self::PacketTooBig(info),
            (3, 9 | 10 | 13) => Self::Prohibited,
            (3, _) => Self::NetUnreachable,
            (11, 0) => Self::HopLimitExceeded,
            (11, 1) => Self::ReassemblyExceeded,
            (12, _) => Self::ParameterProblem(info),
            _ => return None,
        })
    }

    /// As [`IcmpError::from_v4`], for ICMPv6.
    pub fn from_v6(kind: u8, code: u8, info: u32) -> Option<Self> {
        Some(match (kind, code) {
            (1, 1 | 5 | 6) => Self::Prohibited,
            (1, 3) => Self::HostUnreachable,
            (1, 4) => Self::PortUnreachable,
            (1, _) => Self::NetUnreachable,
            (2, _) => Self::PacketTooBig(info),
            (3, 0) => Self::HopLimitExceeded,
            (3, 1) => Self::ReassemblyExceeded,
            (4, 1) => Self::ProtocolUnreachable,
            (4, _) => Self::ParameterProblem(info),
            _ => return None,
        })
    }

    /// What an entry of the host's error queue means for the container that sent the datagram.
    pub fn from_host(error: &HostError) -> Option<Self> {
        match error.origin {
            Origin::Icmp => Self::from_v4(error.kind, error.code, error.info),
            Origin::Icmp6 => Self::from_v6(error.kind, error.code, error.info),
            Origin::Local => Self::from_errno(error.errno, error.info),
        }
    }

    /// What a failed call of the host's means, if that is something to tell. One that is too big has no MTU in it: the
    /// error queue has.
    pub fn from_io(error: &io::Error) -> Option<Self> {
        error
            .raw_os_error()
            .filter(|&n| n != Errno::MSGSIZE.raw_os_error())
            .and_then(|n| Self::from_errno(n, 0))
    }

    fn from_errno(errno: i32, info: u32) -> Option<Self> {
        Some(match Errno::from_raw_os_error(errno) {
            // EADDRNOTAVAIL is what connecting gives without an address of that version.
            Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT => {
                Self::NetUnreachable
            }
            Errno::HOSTUNREACH | Errno::HOSTDOWN => Self::HostUnreachable,
            Errno::CONNREFUSED => Self::PortUnreachable,
            Errno::ACCESS | Errno::PERM | Errno::INVAL => Self::Prohibited,
            Errno::MSGSIZE => Self::PacketTooBig(info),
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::ADDRINUSE => Self::Prohibited,
            _ => return None,
        })
    }

    /// Type, code and the four bytes behind the checksum, in ICMP.
    pub(super) fn as_v4(self) -> (u8, u8, [u8; 4]) {
        match self {
            Self::NetUnreachable => (3, 0, [0; 4]),
            Self::HostUnreachable => (3, 1, [0; 4]),
            Self::ProtocolUnreachable => (3, 2, [0; 4]),
            Self::PortUnreachable => (3, 3, [0; 4]),
            Self::PacketTooBig(mtu) => {
                // RFC 1191 section 4: the next-hop MTU is in the low 16 bits.
                let [a, b] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
                (3, 4, [0, 0, a, b])
            }
            Self::Prohibited => (3, 13, [0; 4]),
            Self::HopLimitExceeded => (11, 0, [0; 4]),
            Self::ReassemblyExceeded => (11, 1, [0; 4]),
            Self::ParameterProblem(at) => (12, 0, [at.min(255) as u8, 0, 0, 0]),
        }
    }

    /// Type, code and the four bytes behind the checksum, in ICMPv6.
    pub(super) fn as_v6(self) -> (u8, u8, [u8; 4]) {
        match self {
            Self::NetUnreachable => (1, 0, [0; 4]),
            Self::Prohibited => (1, 1, [0; 4]),
            Self::HostUnreachable => (1, 3, [0; 4]),
            Self::PortUnreachable => (1, 4, [0; 4]),
            Self::PacketTooBig(mtu) => (2, 0, mtu.to_be_bytes()),
            Self::HopLimitExceeded => (3, 0, [0; 4]),
            Self::ReassemblyExceeded => (3, 1, [0; 4]),
            Self::ParameterProblem(at) => (4, 0, at.to_be_bytes()),
            // RFC 4443 section 3.4: an unrecognized next header, which an IPv6 header names in its byte 6.
            Self::ProtocolUnreachable => (4, 1, 6u32.to_be_bytes()),
        }
    }
}

/// Tells the sender of `packet` (its bytes from the IP header on, as it came or as it is rebuilt), which is on the switch, of
/// `error`, in the name of `from` (the gateway, if `None`). Nothing is sent where it may not be ([`Telling::about`]), or beyond the
/// rate limit.
pub fn send_error<H>(cx: &mut Cx<'_, H>, packet: &[u8], from: Option<IpAddr>, error: IcmpError) {
    let net = cx.config.subnet4.map(|s| s.net);
    let about = |from| Telling::about(packet, from, error, net.as_slice());
    let gateway = || cx.config.gateway_like(sender(packet)?);
    let Some(telling) = from.and_then(about).or_else(|| about(gateway()?)) else {
        return;
    };
    if !cx.errors.allow(cx.now, telling.to()) {
        cx.out.drop(None, DropReason::RateLimited);
        return;
    }
    let mtu = usize::from(cx.config.mtu);
    let (ip, len) = telling.message(mtu, cx.payload(telling.to()));
    // Without a neighbour it is counted there, and there is nobody to tell.
    let _ = cx.transmit(&ip, len, Offload::NONE);
}
