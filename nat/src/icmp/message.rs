//! What part an ICMP message plays, by its type.

use crate::flow::Protocol;

/// What an ICMP or ICMPv6 message is in its conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A question with an identifier: echo, and in IPv4 timestamp, information and address mask too (RFC 5508 section 1.1).
    Query,
    /// The answer to one, with its identifier.
    Answer,
    /// About another packet.
    Error,
    /// Something of the link's own, or unknown.
    Other,
}

impl Role {
    /// The role of a message of `protocol` whose type is `kind`.
    pub const fn of(protocol: Protocol, kind: u8) -> Self {
        match protocol {
            Protocol::Icmp => match kind {
                8 | 13 | 15 | 17 => Self::Query,
                0 | 14 | 16 | 18 => Self::Answer,
                3 | 4 | 5 | 11 | 12 => Self::Error,
                _ => Self::Other,
            },
            Protocol::Icmp6 => match kind {
                128 => Self::Query,
                129 => Self::Answer,
                // RFC 4443 section 2.1.
                0..128 => Self::Error,
                _ => Self::Other,
            },
            Protocol::Tcp | Protocol::Udp | Protocol::Other(_) => Self::Other,
        }
    }
}
