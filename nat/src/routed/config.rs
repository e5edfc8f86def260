//! What routed egress is told: its links, and the routes by them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pontoon_switch::{MacAddr, PortId};
use serde::{Deserialize, Serialize};

/// The gateway's IPv4 address on the link to the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing4 {
    /// A fixed one.
    Static {
        /// The address with its prefix.
        address: Ipv4Net,
        /// The router, if there is one.
        gateway: Option<Ipv4Addr>,
    },
    /// By DHCP (RFC 2131).
    Dhcp,
}

/// The gateway's IPv6 address on the link to the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing6 {
    /// A fixed one.
    Static {
        /// The address with its prefix.
        address: Ipv6Net,
        /// The router; that of a router advertisement if there is none.
        gateway: Option<Ipv6Addr>,
    },
    /// By router advertisements (RFC 4862).
    Slaac,
}

/// What is done with the addresses of what leaves for the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nat {
    /// The source becomes the gateway's address on the link.
    #[default]
    Masquerade,
    /// They stay: the world knows the way back to the containers.
    Route,
}

/// How a container's port is mapped to one of the gateway's (RFC 4787 section 4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mapping {
    /// To one, whomever it talks to (REQ-1).
    #[default]
    EndpointIndependent,
    /// To one for each connection, as the kernel's masquerade does: one port of the gateway's serves several containers that talk
    /// to different peers.
    PerConnection,
}

/// What is at the other end of a link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// The world.
    World {
        /// The address of IPv4, if there is IPv4.
        ipv4: Option<Addressing4>,
        /// The address of IPv6, if there is IPv6.
        ipv6: Option<Addressing6>,
        /// What is done with IPv4 addresses.
        nat4: Nat,
        /// What is done with IPv6 addresses.
        nat6: Nat,
        /// How ports are mapped.
        mapping: Mapping,
    },
    /// The gateway of another network, which has this Ethernet address on the link.
    Peer {
        /// The other gateway's address.
        mac: MacAddr,
        /// Who opens flows by it: our containers to theirs, or theirs to ours.
        ours_open: bool,
    },
}

/// A link of the gateway's besides its switch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UplinkConfig {
    /// The gateway's Ethernet address on it.
    pub mac: MacAddr,
    /// MTU in bytes of an IP packet.
    pub mtu: u16,
    /// What is at the other end.
    pub kind: LinkKind,
}

/// Where packets to a network are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// To a router, which is a container on the switch or on the link to the world: wherever its address lies.
    Router(IpAddr),
    /// By a link to another network, to the gateway there. The number is that of the link's port.
    Link(u32),
}

impl Via {
    /// The port of the link, if it is one.
    pub fn link(self) -> Option<PortId> {
        match self {
            Self::Link(port) => Some(PortId(port)),
            Self::Router(_) => None,
        }
    }
}

/// A route beyond the network's own subnets; among several the one with the longest prefix counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Route {
    /// The destinations.
    pub net: IpNet,
    /// The next hop.
    pub via: Via,
}
