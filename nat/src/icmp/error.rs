//! Errors by meaning, and how they are told.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;

use lru::LruCache;
use pontoon_switch::{DropReason, Instant, Offload, offload};
use rustix::io::Errno;
use smoltcp::wire::IpProtocol;

use crate::config::Config;
use crate::cx::Cx;
use crate::host::{HostError, Origin};
use crate::packet::IpRepr;
use crate::sum;

/// Errors a second that each container may be told, and how many at once.
const RATE: u64 = 1000;

/// How many containers' rates are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Bytes of an IPv4 packet with an error at most (RFC 1812 section 4.3.2.3), and of an IPv6 one (RFC 4443 section 2.4 c).
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;

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
    fn as_v4(self) -> (u8, u8, [u8; 4]) {
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
    fn as_v6(self) -> (u8, u8, [u8; 4]) {
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

/// How many errors each container may be told.
#[derive(Debug)]
pub struct RateLimiter(LruCache<IpAddr, Bucket>);

#[derive(Debug)]
struct Bucket {
    tokens: u64,
    filled: Instant,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self(LruCache::new(REMEMBERED))
    }
}

impl RateLimiter {
    /// True if `container` may be told one more, which then counts.
    pub fn allow(&mut self, now: Instant, container: IpAddr) -> bool {
        let bucket = self.0.get_or_insert_mut(container, || Bucket {
            tokens: RATE,
            filled: now,
        });
        let earned = now.since(bucket.filled).as_millis() as u64 * RATE / 1000;
        if earned > 0 {
            bucket.tokens = (bucket.tokens + earned).min(RATE);
            bucket.filled = now;
        }
        let allowed = bucket.tokens > 0;
        bucket.tokens -= u64::from(allowed);
        allowed
    }
}

/// Tells the sender of `packet` (its bytes from the IP header on, as it came or as it is rebuilt) of `error`, in the
/// name of `from` (the gateway, if `None`). Nothing is sent where RFC 1122 section 3.2.2 and RFC 4443 section 2.4 forbid
/// it, or beyond the rate limit.
pub fn send_error<H>(cx: &mut Cx<'_, H>, packet: &[u8], from: Option<IpAddr>, error: IcmpError) {
    let Some(about) = About::of(packet) else { return };
    let from = from.filter(|f| f.is_ipv4() == about.src.is_ipv4() && may_send(*f));
    let Some(from) = from.or_else(|| cx.config.gateway_like(about.src)) else {
        return;
    };
    if !about.may_be_told(cx.config, error) {
        return;
    }
    if !cx.errors.allow(cx.now, about.src) {
        cx.out.drop(None, DropReason::RateLimited);
        return;
    }
    let ((kind, code, rest), protocol, longest, tos) = match about.src {
        // RFC 1812 section 4.3.2.5: precedence 6, internetwork control.
        IpAddr::V4(_) => (error.as_v4(), IpProtocol::Icmp, LONGEST_V4, 0xc0),
        IpAddr::V6(_) => (error.as_v6(), IpProtocol::Icmpv6, LONGEST_V6, 0),
    };
    let ip = IpRepr {
        tos,
        ..IpRepr::new(from, about.src, protocol)
    };
    let longest = longest.min(usize::from(cx.config.mtu));
    let quoted = packet.len().min(longest - ip.header_len() - 8);
    let message = &mut cx.payload(about.src)[..8 + quoted];
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    message[4..8].copy_from_slice(&rest);
    message[8..].copy_from_slice(&packet[..quoted]);
    let checksum = match protocol {
        IpProtocol::Icmpv6 => sum::whole(from, about.src, protocol, message),
        _ => offload::checksum(message),
    };
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let len = message.len();
    // Without a neighbour it is counted there, and there is nobody to tell.
    let _ = cx.transmit(&ip, len, Offload::NONE);
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

    fn may_be_told(&self, config: &Config, error: IcmpError) -> bool {
        // RFC 4443 section 2.4 e.3: a path's MTU is told of multicasts too.
        let to_group = match self.dst {
            IpAddr::V4(d) => d.is_multicast() || is_broadcast(config, d),
            IpAddr::V6(d) => d.is_multicast() && !matches!(error, IcmpError::PacketTooBig(_)),
        };
        let source = match self.src {
            IpAddr::V4(s) => !is_broadcast(config, s) && !s.is_loopback() && s.octets()[0] < 224,
            IpAddr::V6(_) => true,
        };
        source && may_send(self.src) && !to_group && !self.is_error && !self.later_fragment
    }
}

fn is_broadcast(config: &Config, addr: Ipv4Addr) -> bool {
    addr.is_broadcast()
        || config
            .subnet4
            .is_some_and(|s| s.net.prefix_len() < 31 && s.net.broadcast() == addr)
}

/// True for addresses that a packet may come from.
fn may_send(addr: IpAddr) -> bool {
    !addr.is_multicast() && !addr.is_unspecified()
}

/// Walks the extension headers of IPv6 `packet`, as far as they go: transport protocol, its offset, and whether this is
/// a later fragment.
pub(super) fn skip_extensions(packet: &[u8], first: u8) -> (u8, usize, bool) {
    let (mut protocol, mut at) = (first, 40);
    loop {
        let Some(header) = packet.get(at..).and_then(|h| h.first_chunk::<8>()) else {
            return (protocol, at, false);
        };
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
