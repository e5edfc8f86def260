//! What a port may send and whom it may reach: the answer to spoofed addresses, rogue DHCP servers, routers and bridges, and
//! floods.
//!
//! A policy is data; the switch compiles what a frame says of its sender once into a [`Guard`] and holds every frame of the port
//! against that. The cheapest test comes first: a frame from the wrong MAC address costs one comparison. The rest of a policy
//! has modules of its own: [`crate::vlan`], [`crate::isolation`], [`crate::storm`].
//!
//! Addresses are held against the sender fields of ARP, the source of IPv4 and IPv6, and the target of neighbour
//! advertisements, behind VLAN tags as well. Always allowed, because hosts need them to get an address at all: 0.0.0.0 as
//! a DHCP client and in ARP probes (RFC 5227), `::` in ICMPv6 (duplicate address detection, RFC 4862), and
//! link-local IPv6. A container that makes itself addresses in its network's /64 (SLAAC, RFC 8981) needs the prefix
//! in its policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::headers::{self, Fragment, Headers};
use crate::isolation::Peers;
use crate::storm::StormLimit;
use crate::vlan::VlanMode;
use crate::{DropReason, MacAddr};

/// Which source MAC addresses a port may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MacPolicy {
    /// Any that is not another's for good.
    #[default]
    Any,
    /// This one. It is bound to the port by a static entry, and the port gets no unknown unicast for others.
    Only(MacAddr),
}

/// Which source IP addresses a port may use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum AddressPolicy {
    /// Any.
    #[default]
    Any,
    /// Those inside these networks (a single address is one of full length), and what every host may use.
    Only(Vec<IpNet>),
}

impl AddressPolicy {
    /// These addresses only.
    pub fn only(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::Only(addresses.into_iter().map(IpNet::from).collect())
    }
}

/// Whether something is let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Permission {
    /// Let through.
    #[default]
    Allow,
    /// Dropped and counted.
    Deny,
}

/// What a port may send, and whom it may reach. By default: anything, and anyone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// Source MAC addresses.
    pub mac: MacPolicy,
    /// Source IP addresses.
    pub addresses: AddressPolicy,
    /// The messages of a DHCP or DHCPv6 server.
    pub dhcp_server: Permission,
    /// Router advertisements and redirects.
    pub router_advertisements: Permission,
    /// What bridges tell each other: see [`is_bridge_group`]. (Spanning tree's own group is forwarded for nobody.)
    pub bridge_protocols: Permission,
    /// The VLANs it is on.
    pub vlan: VlanMode,
    /// The ports it may exchange frames with.
    pub peers: Peers,
    /// How much of what goes to many ports it may send.
    pub storm: Option<StormLimit>,
}

impl Policy {
    /// The policy for a container that was given `mac` and `addresses`, and no other role. It is on the network without tags, may
    /// reach every port, and is held to [`StormLimit::CONTAINER`].
    pub fn container(mac: MacAddr, addresses: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            mac: MacPolicy::Only(mac),
            addresses: AddressPolicy::Only(addresses.into_iter().collect()),
            dhcp_server: Permission::Deny,
            router_advertisements: Permission::Deny,
            bridge_protocols: Permission::Deny,
            vlan: VlanMode::Transparent,
            peers: Peers::All,
            storm: Some(StormLimit::CONTAINER),
        }
    }

    /// The one MAC address that it allows, if it binds one.
    pub fn bound_mac(&self) -> Option<MacAddr> {
        match self.mac {
            MacPolicy::Any => None,
            MacPolicy::Only(mac) => Some(mac),
        }
    }
}

/// True for the groups of bridge protocols that a bridge which does not speak them passes on: 01:80:c2:00:00:2x (MVRP, GVRP: who
/// wants which VLAN) and Cisco's 01:00:0c:cc:cc:cc and :cd (CDP, VTP and DTP; PVST+).
pub fn is_bridge_group(dst: MacAddr) -> bool {
    matches!(
        dst.0,
        [0x01, 0x80, 0xc2, 0, 0, 0x20..=0x2f] | [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc | 0xcd]
    )
}

/// A policy made ready for frames.
#[derive(Clone, Debug)]
pub struct Guard {
    mac: Option<MacAddr>,
    addresses: Option<Prefixes>,
    dhcp_server: Permission,
    router: Permission,
    bridge: Permission,
    /// Nothing in IP packets to hold against the policy.
    shallow: bool,
}

#[derive(Clone, Debug, Default)]
struct Prefixes {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Prefixes {
    fn new(networks: &[IpNet]) -> Self {
        let mut prefixes = Self::default();
        for network in networks {
            match network {
                IpNet::V4(n) => prefixes.v4.push((n.network().to_bits(), n.netmask().to_bits())),
                IpNet::V6(n) => prefixes.v6.push((n.network().to_bits(), n.netmask().to_bits())),
            }
        }
        prefixes
    }

    fn has_v4(&self, address: Ipv4Addr) -> bool {
        self.v4
            .iter()
            .any(|&(network, mask)| address.to_bits() & mask == network)
    }

    fn has_v6(&self, address: Ipv6Addr) -> bool {
        address.is_unicast_link_local()
            || self
                .v6
                .iter()
                .any(|&(network, mask)| address.to_bits() & mask == network)
    }
}

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_SERVER: u16 = 547;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

impl Guard {
    /// Makes `policy` ready.
    pub fn new(policy: &Policy) -> Self {
        let addresses = match &policy.addresses {
            AddressPolicy::Any => None,
            AddressPolicy::Only(networks) => Some(Prefixes::new(networks)),
        };
        let (dhcp_server, router) = (policy.dhcp_server, policy.router_advertisements);
        let shallow = addresses.is_none() && dhcp_server == Permission::Allow && router == Permission::Allow;
        Self {
            mac: policy.bound_mac(),
            addresses,
            dhcp_server,
            router,
            bridge: policy.bridge_protocols,
            shallow,
        }
    }

    /// The one MAC address that the port may use, if it is bound to one.
    pub fn bound_mac(&self) -> Option<MacAddr> {
        self.mac
    }

    /// Whether the port may send to the group `dst`.
    pub fn admit_group(&self, dst: MacAddr) -> Result<(), DropReason> {
        match self.bridge {
            Permission::Deny if is_bridge_group(dst) => Err(DropReason::Reserved),
            Permission::Deny | Permission::Allow => Ok(()),
        }
    }

    /// Whether the port may send the frame `bytes`, which has an Ethernet header.
    pub fn admit(&self, src: MacAddr, bytes: &[u8]) -> Result<(), DropReason> {
        if self.mac.is_some_and(|mac| mac != src) {
            return Err(DropReason::Spoofed);
        }
        if self.shallow && self.mac.is_none() {
            return Ok(());
        }
        let ethernet = headers::ethernet(bytes).ok_or(DropReason::Malformed)?;
        match ethernet.ethertype {
            headers::IPV4 | headers::IPV6 if self.shallow => Ok(()),
            headers::IPV4 => self
                .admit_v4(bytes, ethernet.payload)
                .unwrap_or(Err(DropReason::Malformed)),
            headers::IPV6 => self
                .admit_v6(bytes, ethernet.payload)
                .unwrap_or(Err(DropReason::Malformed)),
            headers::ARP => self
                .admit_arp(src, bytes, ethernet.payload)
                .unwrap_or(Err(DropReason::Malformed)),
            // A third tag: what is behind it cannot be held against anything.
            tag if headers::is_vlan(tag) => Err(DropReason::Malformed),
            _ => Ok(()),
        }
    }

    /// `None` if the packet is malformed.
    fn admit_arp(&self, src: MacAddr, bytes: &[u8], at: usize) -> Option<Result<(), DropReason>> {
        let arp = bytes.get(at..at + 28)?;
        // Ethernet and IPv4 addresses, six and four bytes long (RFC 826).
        if arp[..6] != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        if self.mac.is_some() && arp[8..14] != src.0 {
            return Some(Err(DropReason::Spoofed));
        }
        let sender = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
        let good = sender.is_unspecified() || self.addresses.as_ref().is_none_or(|a| a.has_v4(sender));
        Some(if good {
            Ok(())
        } else {
            Err(DropReason::BadSourceAddress)
        })
    }

    fn admit_v4(&self, bytes: &[u8], at: usize) -> Option<Result<(), DropReason>> {
        let found = headers::locate_v4(bytes, at)?;
        let ports = match udp_ports(bytes, &found) {
            Ok(ports) => ports,
            Err(CutShort) => return None,
        };
        if self.dhcp_server == Permission::Deny && ports.is_some_and(|(from, _)| from == DHCP_SERVER) {
            return Some(Err(DropReason::RogueDhcp));
        }
        let source = Ipv4Addr::from(*bytes[at + 12..].first_chunk::<4>()?);
        let good = self.addresses.as_ref().is_none_or(|a| a.has_v4(source))
            || (source.is_unspecified() && ports == Some((DHCP_CLIENT, DHCP_SERVER)));
        Some(if good {
            Ok(())
        } else {
            Err(DropReason::BadSourceAddress)
        })
    }

    fn admit_v6(&self, bytes: &[u8], at: usize) -> Option<Result<(), DropReason>> {
        let found = headers::locate_v6(bytes, at)?;
        let ports = match udp_ports(bytes, &found) {
            Ok(ports) => ports,
            Err(CutShort) => return None,
        };
        if self.dhcp_server == Permission::Deny && ports.is_some_and(|(from, _)| from == DHCPV6_SERVER) {
            return Some(Err(DropReason::RogueDhcp));
        }
        let icmp = found.protocol == headers::ICMPV6;
        let source = Ipv6Addr::from(*bytes[at + 8..].first_chunk::<16>()?);
        let good =
            self.addresses.as_ref().is_none_or(|a| a.has_v6(source)) || (source.is_unspecified() && icmp);
        if !good {
            return Some(Err(DropReason::BadSourceAddress));
        }
        if icmp && found.fragment != Fragment::Later {
            let message = &bytes[found.transport..];
            match *message.first()? {
                ROUTER_ADVERTISEMENT | REDIRECT if self.router == Permission::Deny => {
                    return Some(Err(DropReason::RogueRouter));
                }
                NEIGHBOUR_ADVERTISEMENT => {
                    let target = Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?);
                    if self.addresses.as_ref().is_some_and(|a| !a.has_v6(target)) {
                        return Some(Err(DropReason::BadSourceAddress));
                    }
                }
                _ => {}
            }
        }
        Some(Ok(()))
    }
}

/// The packet ends before the ports that it must have.
struct CutShort;

/// Source and destination port, if the packet is UDP and has them.
fn udp_ports(bytes: &[u8], found: &Headers) -> Result<Option<(u16, u16)>, CutShort> {
    if found.protocol != headers::UDP || found.fragment == Fragment::Later {
        return Ok(None);
    }
    let port = |at| headers::be16(bytes, at).ok_or(CutShort);
    Ok(Some((port(found.transport)?, port(found.transport + 2)?)))
}

#[cfg(test)]
mod tests;
