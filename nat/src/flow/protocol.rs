//! Protocols whose flows are tracked.

use std::borrow::Cow;
use std::net::IpAddr;

/// A protocol whose flows are tracked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo; the source port is its identifier, the destination port 0.
    Icmp,
    /// ICMPv6 echo, likewise.
    Icmp6,
    /// Any other, by its number in the IP header and by addresses alone: both ports are 0. Made by
    /// [`Protocol::of`], so that no protocol has two values.
    Other(u8),
}

impl Protocol {
    /// The protocol that IP headers, of `addr`'s version, call `number`. ICMP is that of its version only.
    pub const fn of(number: u8, addr: IpAddr) -> Self {
        match (number, addr) {
            (6, _) => Self::Tcp,
            (17, _) => Self::Udp,
            (1, IpAddr::V4(_)) => Self::Icmp,
            (58, IpAddr::V6(_)) => Self::Icmp6,
            (number, _) => Self::Other(number),
        }
    }

    /// Its number in the IP header, as IANA assigns it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmp6 => 58,
            Self::Other(number) => number,
        }
    }

    /// Its name, as listed; the number where it has none that is well known.
    pub fn name(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Icmp6 => "icmpv6",
            Self::Other(2) => "igmp",
            Self::Other(4) => "ipip",
            Self::Other(33) => "dccp",
            Self::Other(41) => "ipv6",
            Self::Other(47) => "gre",
            Self::Other(50) => "esp",
            Self::Other(51) => "ah",
            Self::Other(89) => "ospf",
            Self::Other(103) => "pim",
            Self::Other(112) => "vrrp",
            Self::Other(115) => "l2tp",
            Self::Other(132) => "sctp",
            Self::Other(136) => "udplite",
            Self::Other(number) => return Cow::Owned(number.to_string()),
        })
    }
}
