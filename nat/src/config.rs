//! What a gateway is told at its start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use pontoon_switch::{DropReason, MacAddr};
use serde::{Deserialize, Serialize};

/// Where the gateway answers DNS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameServer<A> {
    /// At its own address.
    #[default]
    Gateway,
    /// At another address, which is the gateway's for nothing but this and echo.
    At(A),
    /// Nowhere: whatever comes to this address is dropped without a word, but for echo, and clients are told of no name
    /// server.
    Silent(A),
}

impl<A: Copy + PartialEq> NameServer<A> {
    /// The address that is not the gateway's own.
    fn apart(self) -> Option<A> {
        match self {
            Self::Gateway => None,
            Self::At(a) | Self::Silent(a) => Some(a),
        }
    }

    /// The address that clients are told, if any, where the gateway has `gateway`.
    fn told(self, gateway: A) -> Option<A> {
        match self {
            Self::Gateway => Some(gateway),
            Self::At(a) => Some(a),
            Self::Silent(_) => None,
        }
    }
}

/// An IPv4 subnet and the gateway's addresses in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subnet4 {
    /// The containers' range.
    pub net: Ipv4Net,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// Its DNS server.
    pub dns: NameServer<Ipv4Addr>,
    /// First and last address that DHCP gives to those who have none assigned; unless said, of the subnet's last quarter.
    pub dhcp: Option<(Ipv4Addr, Ipv4Addr)>,
}

impl Subnet4 {
    /// A subnet whose gateway answers DNS at its own address.
    pub fn new(net: Ipv4Net, gateway: Ipv4Addr) -> Self {
        Self {
            net,
            gateway,
            dns: NameServer::Gateway,
            dhcp: None,
        }
    }

    /// The address of the name server, if there is one.
    pub fn name_server(&self) -> Option<Ipv4Addr> {
        self.dns.told(self.gateway)
    }

    /// True if `addr` is the gateway's own or its name server's.
    pub fn is_gateway(&self, addr: Ipv4Addr) -> bool {
        addr == self.gateway || self.dns.apart() == Some(addr)
    }
}

/// An IPv6 subnet and the gateway's addresses in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subnet6 {
    /// The containers' range.
    pub net: Ipv6Net,
    /// The gateway's address.
    pub gateway: Ipv6Addr,
    /// Its DNS server. At the gateway's own address it answers at the link-local one, too.
    pub dns: NameServer<Ipv6Addr>,
}

impl Subnet6 {
    /// A subnet whose gateway answers DNS at its own address.
    pub fn new(net: Ipv6Net, gateway: Ipv6Addr) -> Self {
        Self {
            net,
            gateway,
            dns: NameServer::Gateway,
        }
    }

    /// The address of the name server, if there is one.
    pub fn name_server(&self) -> Option<Ipv6Addr> {
        self.dns.told(self.gateway)
    }

    /// True if `addr` is the gateway's own or its name server's; its link-local one is not among them.
    pub fn is_gateway(&self, addr: Ipv6Addr) -> bool {
        addr == self.gateway || self.dns.apart() == Some(addr)
    }
}

/// Whether the gateway's address leads to the host's loopback.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostLoopback {
    /// The host's 127.0.0.1 and ::1 are out of reach.
    #[default]
    Unreachable,
    /// A connection to the gateway's address goes to the host's 127.0.0.1 or ::1.
    ByGateway,
}

/// Whether there is a way out of the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Egress {
    /// By the host's sockets.
    #[default]
    Host,
    /// By a link of the gateway's own, where packets are forwarded ([`crate::routed`]).
    Uplink,
    /// None: what goes beyond the link, the host's loopback included, is refused, names that are not the network's own are
    /// too, and no default route is offered.
    None,
}

/// Whether 169.254.0.0/16 (cloud metadata lives at 169.254.169.254) can be reached through the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkLocal {
    /// Refused.
    #[default]
    Refused,
    /// Allowed by name.
    Allowed,
}

/// Who may answer a container's UDP mapping (RFC 4787 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// Any port of an address that the container has sent to (REQ-8).
    #[default]
    AddressDependent,
    /// Anyone.
    EndpointIndependent,
}

/// Where connections to the host's loopback come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopbackSource {
    /// The loopback itself, whatever the source of others is.
    #[default]
    Loopback,
    /// The source of all others.
    AsOthers,
}

/// Where outgoing sockets are bound.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outbound {
    /// Source address of IPv4 sockets.
    pub address4: Option<Ipv4Addr>,
    /// Source address of IPv6 sockets.
    pub address6: Option<Ipv6Addr>,
    /// Interface that sockets are bound to (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
    /// Source of those to the host's loopback.
    pub loopback: LoopbackSource,
}

/// A gateway's configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// IPv4, if the network has it.
    pub subnet4: Option<Subnet4>,
    /// IPv6, if the network has it.
    pub subnet6: Option<Subnet6>,
    /// MTU of the link in bytes, 68 to 65,520.
    pub mtu: u16,
    /// Upstream name servers, asked in order.
    pub resolvers: Vec<SocketAddr>,
    /// Search domains told by DHCP and RA.
    pub search: Vec<String>,
    /// Further names: name and address.
    pub hosts: Vec<(String, IpAddr)>,
    /// Way out.
    pub egress: Egress,
    /// Way to the host's loopback.
    pub host_loopback: HostLoopback,
    /// Way to link-local addresses.
    pub link_local: LinkLocal,
    /// Filtering of UDP.
    pub filtering: Filtering,
    /// Flows at most, of all containers.
    pub max_flows: u32,
    /// Flows at most, of each container.
    pub max_flows_per_container: u32,
}

impl Config {
    /// The link-local address of the gateway (EUI-64 of its MAC; RFC 4291 appendix A), source of its RAs.
    pub fn link_local6(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// False for a gateway that has no address and says nothing: whoever else is on the link answers for it.
    pub fn has_subnet(&self) -> bool {
        self.subnet4.is_some() || self.subnet6.is_some()
    }

    /// True if the gateway's address leads to the host's loopback.
    pub fn leads_to_loopback(&self) -> bool {
        match (self.egress, self.host_loopback) {
            (Egress::Host, HostLoopback::ByGateway) => true,
            (Egress::Host, HostLoopback::Unreachable) | (Egress::Uplink | Egress::None, _) => false,
        }
    }

    /// True if `addr` is one of the gateway's own.
    pub fn is_gateway(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => self.subnet4.is_some_and(|s| s.is_gateway(a)),
            IpAddr::V6(a) => self
                .subnet6
                .is_some_and(|s| s.is_gateway(a) || a == self.link_local6()),
        }
    }

    /// True if DNS is answered at `addr`.
    pub fn is_name_server(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => self.subnet4.is_some_and(|s| s.name_server() == Some(a)),
            IpAddr::V6(a) => self.subnet6.is_some_and(|s| {
                s.name_server() == Some(a) || (s.dns == NameServer::Gateway && a == self.link_local6())
            }),
        }
    }

    /// True if nothing but echo is answered at `addr`, and nothing refused.
    pub fn is_silent(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => self.subnet4.is_some_and(|s| s.dns == NameServer::Silent(a)),
            IpAddr::V6(a) => self.subnet6.is_some_and(|s| s.dns == NameServer::Silent(a)),
        }
    }

    /// True if `addr` is the name server's and not the gateway's own.
    fn is_name_server_apart(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => self.subnet4.is_some_and(|s| s.dns.apart() == Some(a)),
            IpAddr::V6(a) => self.subnet6.is_some_and(|s| s.dns.apart() == Some(a)),
        }
    }

    /// The gateway's address of the same version as `like`, if the network has that version.
    pub fn gateway_like(&self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.subnet4.map(|s| s.gateway.into()),
            IpAddr::V6(_) => self.subnet6.map(|s| s.gateway.into()),
        }
    }

    /// True if `addr` is a container's address by its subnet.
    pub fn on_link(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => self.subnet4.is_some_and(|s| s.net.contains(&a)),
            IpAddr::V6(a) => self.subnet6.is_some_and(|s| s.net.contains(&a)),
        }
    }

    /// Where the host is asked to go for a container's destination, or why it may not.
    ///
    /// The gateway's own address leads to the host's loopback if that is allowed, that of a name server beside it never;
    /// loopback, unspecified and IPv4-mapped addresses never leave the gateway, whatever is allowed.
    pub fn destination(&self, dst: IpAddr) -> Result<IpAddr, Forbidden> {
        if self.egress == Egress::None {
            return Err(Forbidden::NoEgress);
        }
        if self.is_name_server_apart(dst) {
            return Err(Forbidden::HostLoopback);
        }
        if self.is_gateway(dst) {
            return match self.host_loopback {
                HostLoopback::Unreachable => Err(Forbidden::HostLoopback),
                HostLoopback::ByGateway => Ok(match dst {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                }),
            };
        }
        match dst {
            IpAddr::V4(a) if a.is_loopback() || a.octets()[0] == 0 => Err(Forbidden::HostLoopback),
            IpAddr::V4(a) if a.is_broadcast() || a.is_multicast() || a.octets()[0] >= 240 => {
                Err(Forbidden::NotUnicast)
            }
            IpAddr::V4(a) if a.is_link_local() => match self.link_local {
                LinkLocal::Refused => Err(Forbidden::LinkLocal),
                LinkLocal::Allowed => Ok(dst),
            },
            IpAddr::V4(_) => Ok(dst),
            IpAddr::V6(a) if a.is_loopback() || a.is_unspecified() => Err(Forbidden::HostLoopback),
            // ::ffff:0:0/96 (mapped), ::/96 (compatible) and ::ffff:0:0:0/96 would reach IPv4 behind its checks.
            IpAddr::V6(a) if a.segments()[..4] == [0; 4] => Err(Forbidden::HostLoopback),
            IpAddr::V6(a) if a.is_multicast() => Err(Forbidden::NotUnicast),
            IpAddr::V6(a) if a.is_unicast_link_local() => Err(Forbidden::LinkLocal),
            // 64:ff9b::/96 and 2002::/16 embed IPv4: where the host translates them, the embedded address counts.
            IpAddr::V6(a) => match embedded(a) {
                Some(v4) => self.destination(v4.into()).map(|_| dst),
                None => Ok(dst),
            },
        }
    }
}

/// The IPv4 address that an address of NAT64's well-known prefix (RFC 6052) or of 6to4 (RFC 3056) stands for.
fn embedded(a: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = a.segments();
    let v4 = |hi: u16, lo: u16| Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo));
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        Some(v4(s[6], s[7]))
    } else if s[0] == 0x2002 {
        Some(v4(s[1], s[2]))
    } else {
        None
    }
}

/// Why a destination is out of a container's reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forbidden {
    /// The host's loopback, or an address that the host's kernel would take for it.
    HostLoopback,
    /// Link-local and metadata addresses.
    LinkLocal,
    /// Broadcast, multicast or reserved.
    NotUnicast,
    /// There is no way out of the network.
    NoEgress,
}

impl Forbidden {
    /// The counter for what goes there.
    pub fn reason(self) -> DropReason {
        match self {
            Self::HostLoopback | Self::LinkLocal | Self::NotUnicast => DropReason::Forbidden,
            Self::NoEgress => DropReason::NoEgress,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(host_loopback: HostLoopback, link_local: LinkLocal) -> Config {
        Config {
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
            subnet4: Some(Subnet4::new(
                "10.0.2.0/24".parse().unwrap(),
                "10.0.2.2".parse().unwrap(),
            )),
            subnet6: Some(Subnet6::new(
                "fd00::/64".parse().unwrap(),
                "fd00::2".parse().unwrap(),
            )),
            mtu: 1500,
            resolvers: Vec::new(),
            search: Vec::new(),
            hosts: Vec::new(),
            egress: Egress::Host,
            host_loopback,
            link_local,
            filtering: Filtering::AddressDependent,
            max_flows: 10,
            max_flows_per_container: 10,
        }
    }

    #[test]
    fn no_way_of_writing_loopback_leads_to_the_host() {
        for host_loopback in [HostLoopback::Unreachable, HostLoopback::ByGateway] {
            let c = config(host_loopback, LinkLocal::Allowed);
            for addr in [
                "127.0.0.1",
                "127.255.0.1",
                "0.0.0.0",
                "0.1.2.3",
                "::",
                "::1",
                "::127.0.0.1",
                "::ffff:127.0.0.1",
                "::ffff:0:127.0.0.1",
                "::ffff:192.0.2.1",
                "64:ff9b::7f00:1",
                "2002:7f00:1::1",
            ] {
                let got = c.destination(addr.parse().unwrap());
                assert_eq!(got, Err(Forbidden::HostLoopback), "{addr}");
            }
        }
    }

    #[test]
    fn the_gateways_address_leads_to_loopback_only_if_told_so() {
        let shut = config(HostLoopback::Unreachable, LinkLocal::Refused);
        let open = config(HostLoopback::ByGateway, LinkLocal::Refused);
        for (addr, to) in [("10.0.2.2", "127.0.0.1"), ("fd00::2", "::1")] {
            assert_eq!(
                shut.destination(addr.parse().unwrap()),
                Err(Forbidden::HostLoopback)
            );
            assert_eq!(open.destination(addr.parse().unwrap()), Ok(to.parse().unwrap()));
        }
    }

    #[test]
    fn a_name_server_beside_the_gateway_leads_nowhere() {
        let mut c = config(HostLoopback::ByGateway, LinkLocal::Refused);
        let dns: IpAddr = "10.0.2.3".parse().unwrap();
        assert!(!c.is_gateway(dns));
        let s = c.subnet4.as_mut().unwrap();
        s.dns = NameServer::At("10.0.2.3".parse().unwrap());
        let gateway = IpAddr::V4(s.gateway);
        assert!(c.is_gateway(dns) && c.is_name_server(dns) && !c.is_name_server(gateway));
        assert_eq!(c.destination(dns), Err(Forbidden::HostLoopback));
        assert!(c.destination(gateway).is_ok());
        c.subnet4.as_mut().unwrap().dns = NameServer::Silent("10.0.2.3".parse().unwrap());
        assert!(c.is_gateway(dns) && c.is_silent(dns) && !c.is_name_server(dns) && !c.is_silent(gateway));
        assert_eq!(c.subnet4.unwrap().name_server(), None);
        // Of the other version nothing has changed.
        assert!(c.is_name_server("fd00::2".parse().unwrap()) && c.is_name_server(c.link_local6().into()));
    }

    #[test]
    fn metadata_is_refused_unless_allowed_by_name() {
        let metadata = "169.254.169.254".parse().unwrap();
        let refused = config(HostLoopback::ByGateway, LinkLocal::Refused);
        assert_eq!(refused.destination(metadata), Err(Forbidden::LinkLocal));
        let allowed = config(HostLoopback::Unreachable, LinkLocal::Allowed);
        assert_eq!(allowed.destination(metadata), Ok(metadata));
    }

    #[test]
    fn without_a_way_out_nothing_is_a_destination() {
        let mut c = config(HostLoopback::ByGateway, LinkLocal::Allowed);
        c.egress = Egress::None;
        for addr in [
            "198.51.100.1",
            "2001:db8::1",
            "10.0.2.2",
            "fd00::2",
            "127.0.0.1",
            "169.254.169.254",
        ] {
            assert_eq!(
                c.destination(addr.parse().unwrap()),
                Err(Forbidden::NoEgress),
                "{addr}"
            );
        }
        assert_eq!(Forbidden::NoEgress.reason(), DropReason::NoEgress);
        assert!(!c.leads_to_loopback());
    }

    #[test]
    fn groups_are_no_destination_and_the_world_is() {
        let c = config(HostLoopback::Unreachable, LinkLocal::Refused);
        for addr in ["255.255.255.255", "224.0.0.1", "240.0.0.1", "ff02::1"] {
            assert_eq!(
                c.destination(addr.parse().unwrap()),
                Err(Forbidden::NotUnicast),
                "{addr}"
            );
        }
        for addr in ["198.51.100.1", "2001:db8::1", "64:ff9b::c633:6401"] {
            assert!(c.destination(addr.parse().unwrap()).is_ok(), "{addr}");
        }
    }
}
