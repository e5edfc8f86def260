//! `pontoon run`: its options, and what follows of them.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ipnet::{Ipv4Net, Ipv6Net};
use pontoon_nat::publish::PublishSpec;
use pontoon_switch::MacAddr;

use super::network_arg::NetworkArg;
use super::uplink::{PortMapping, UplinkArgs, UplinkNat};
use super::values::{
    AddHost, Exposed, Outbound, parse_container, parse_domain, parse_hostname, parse_mac, parse_subnet,
    parse_subnet6,
};
use crate::api::{EndpointKind, EndpointSpec, LinkSpec};
use crate::ipam;
use crate::sandbox::SandboxArgs;

mod check;

/// The IPv4 range of a private network unless another is asked for.
pub(crate) const DEFAULT_SUBNET: &str = "10.0.2.0/24";
/// The IPv6 range of a private network unless another is asked for.
pub(crate) const DEFAULT_SUBNET6: &str = "fd00::/64";
/// Below this MTU there is no IPv6 (RFC 8200, section 5).
pub(crate) const MIN_MTU_IPV6: u32 = 1280;
/// Most flows at once of a network, unless told otherwise.
pub(crate) const DEFAULT_MAX_FLOWS: u32 = 262_144;
/// Most flows at once of a container, unless told otherwise.
pub(crate) const DEFAULT_PER_CONTAINER: u32 = 65_536;

/// Who may answer a container's UDP port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum UdpFiltering {
    /// Any port of an address that the container has sent to
    Address,
    /// Anyone who knows the port
    Endpoint,
}

/// `pontoon run`.
///
/// The command's exit status is ours, and signals are passed on to it. What it does to files it does to yours: only
/// the network is its own.
#[derive(Debug, Clone, Args)]
#[command(
    override_usage = "pontoon run [OPTIONS] [--] [CMD [ARG...]]",
    after_help = "\
Without --network the container gets a private network named after it, which lives until its last container ends. \
The options under \"Network\" describe that network and cannot be given for one that is already running.

--network NETWORK joins another: one of the daemon's (see `pontoon network create --help`), or the private one of a \
container that runs. Given several times, the container has an interface on each: eth0, eth1, … in their order. After a \
colon, KEY=VALUE with commas between say more of the interface:
  ip=ADDR, ip6=ADDR, mac=MAC  the addresses wanted
  alias=NAME                  a further name on that network; repeatable
  gw-priority=N               the default route leads to the highest; among
                              equals, to the first
  vlan=ID                     the VLAN that the interface is in

With --network none the container has the loopback only, with host the host's network, and with container:NAME that of \
another container, with its host name and its /etc/hosts and /etc/resolv.conf. It is then on no switch, and `pontoon ps` \
does not list it.

The exit status is the command's, or 128 and the number of the signal that killed it; 126 and 127 for a command that cannot \
be executed or is not there, 125 if `run` itself fails.

What `run` does not isolate: files. The command sees the host's files, with the rights of the user who started it; \
only /etc/resolv.conf, /etc/hosts, /etc/hostname and the directory of the control sockets are covered.

Examples:
  pontoon run -p 8080:80 -- python3 -m http.server 80
  pontoon run -p 127.0.0.1:5353:53/udp -p '[::1]::53/tcp' -- dnsmasq -d
  pontoon run -P --expose 80 --expose 443 -- nginx -g 'daemon off;'
  pontoon run --name web --network front:gw-priority=1 \\
      --network back:ip=10.30.0.7,alias=www -- nginx -g 'daemon off;'
  pontoon run --network back --link web:shop -- curl http://shop/
  sudo pontoon run --uplink packet:eth1 -p 80 -- nginx -g 'daemon off;'"
)]
pub(crate) struct RunArgs {
    /// The container's name [default: made up]
    #[arg(long, value_parser = parse_container)]
    pub(crate) name: Option<String>,

    /// Join a network instead of having a private one, or none, host, container:NAME; repeatable
    #[arg(long, visible_alias = "net", value_name = "NETWORK[:KEY=VALUE,..]")]
    pub(crate) network: Vec<NetworkArg>,

    /// Have veth pairs for interfaces instead of TAPs
    #[arg(long)]
    pub(crate) veth: bool,

    /// A further name of the container on its network; repeatable
    #[arg(long, value_name = "NAME", value_parser = parse_domain)]
    pub(crate) network_alias: Vec<String>,

    /// Know another container by its name and an alias, and reach the ports it exposes; repeatable
    ///
    /// The container has the names in /etc/hosts and the addresses and ports in its environment, in Docker's variables.
    /// Where containers do not reach each other (network create --icc=false), the exposed ports are opened to it.
    #[arg(long, value_name = "NAME[:ALIAS]")]
    pub(crate) link: Vec<LinkSpec>,

    /// Publish ports: [host-ip:][host-port[-range]]:container-port[-range][/tcp|/udp]; repeatable
    ///
    /// IPv6 host addresses are written in brackets. Without a host address the port is published on all, of both
    /// families; without a host port the system chooses one. Ranges must be equally long, or a range of host ports
    /// for one container port, which takes the first that is free.
    #[arg(short, long, value_name = "SPEC", help_heading = "Published ports")]
    pub(crate) publish: Vec<PublishSpec>,

    /// Publish each port named by --expose on a random host port
    #[arg(short = 'P', long, help_heading = "Published ports", requires = "expose")]
    pub(crate) publish_all: bool,

    /// A port that the container offers, for --publish-all and to those it is linked to; repeatable
    #[arg(long, value_name = "PORT[/PROTO]", help_heading = "Published ports")]
    pub(crate) expose: Vec<Exposed>,

    /// IPv4 range of the network [default: 10.0.2.0/24]
    #[arg(long, value_name = "CIDR", value_parser = parse_subnet, help_heading = "Network", conflicts_with = "network")]
    pub(crate) subnet: Option<Ipv4Net>,

    /// The gateway's IPv4 address [default: number 2 of the range]
    #[arg(
        long,
        value_name = "ADDR",
        help_heading = "Network",
        conflicts_with = "network"
    )]
    pub(crate) gateway: Option<Ipv4Addr>,

    /// IPv6 range of the network [default: fd00::/64]
    #[arg(long, value_name = "CIDR", value_parser = parse_subnet6, help_heading = "Network",
          conflicts_with_all = ["network", "no_ipv6"])]
    pub(crate) subnet6: Option<Ipv6Net>,

    /// No IPv6
    #[arg(long, help_heading = "Network", conflicts_with_all = ["network", "ip6"])]
    pub(crate) no_ipv6: bool,

    /// MTU of the network in bytes, 68 to 65520; below 1280 there is no IPv6
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(68..=65520),
          help_heading = "Network", conflicts_with = "network")]
    pub(crate) mtu: u32,

    /// Most flows at once on the network
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_FLOWS, help_heading = "Network", conflicts_with = "network",
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) max_flows: u32,

    /// Most flows at once of one container
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PER_CONTAINER, help_heading = "Network", conflicts_with = "network",
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub(crate) max_flows_per_container: u32,

    /// A DNS server the gateway asks, instead of the host's; repeatable
    #[arg(
        long,
        value_name = "ADDR",
        help_heading = "Network",
        conflicts_with = "network"
    )]
    pub(crate) dns: Vec<IpAddr>,

    /// Let the gateway's address lead to the host's 127.0.0.1
    #[arg(long, help_heading = "Network", conflicts_with = "network")]
    pub(crate) host_loopback: bool,

    /// Let containers reach link-local addresses, cloud metadata at 169.254.169.254 among them
    #[arg(long, help_heading = "Network", conflicts_with = "network")]
    pub(crate) link_local: bool,

    /// Who may answer a container's UDP port (RFC 4787, section 5)
    #[arg(
        long,
        value_name = "WHO",
        value_enum,
        default_value_t = UdpFiltering::Address,
        help_heading = "Network",
        conflicts_with = "network"
    )]
    pub(crate) udp_filtering: UdpFiltering,

    /// Source of outgoing connections: an address (one for each family) or an interface of the host; repeatable
    #[arg(
        long,
        value_name = "ADDR|IFACE",
        help_heading = "Network",
        conflicts_with = "network"
    )]
    pub(crate) outbound: Vec<Outbound>,

    #[command(flatten)]
    pub(crate) uplink: UplinkArgs,

    /// What becomes of IPv4 addresses that leave by the uplink
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        requires = "uplink",
        help_heading = "Uplink"
    )]
    pub(crate) uplink_nat: Option<UplinkNat>,

    /// What becomes of IPv6 addresses that leave by the uplink
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        requires = "uplink",
        help_heading = "Uplink"
    )]
    pub(crate) uplink_nat6: Option<UplinkNat>,

    /// How a container's port becomes one of the gateway's on the uplink (RFC 4787, section 4.1)
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        requires = "uplink",
        help_heading = "Uplink"
    )]
    pub(crate) mapping: Option<PortMapping>,

    /// MTU of the uplink in bytes [default: that of the link]
    #[arg(long, value_name = "N", requires = "uplink", value_parser = clap::value_parser!(u16).range(68..=65520),
          help_heading = "Uplink")]
    pub(crate) uplink_mtu: Option<u16>,

    /// The container's IPv4 address [default: the next free one]
    #[arg(long, value_name = "ADDR", help_heading = "Container")]
    pub(crate) ip: Option<Ipv4Addr>,

    /// The container's IPv6 address [default: the next free one]
    #[arg(long, value_name = "ADDR", help_heading = "Container")]
    pub(crate) ip6: Option<Ipv6Addr>,

    /// The container's MAC address [default: made up]
    #[arg(long, value_name = "MAC", value_parser = parse_mac, help_heading = "Container")]
    pub(crate) mac_address: Option<MacAddr>,

    /// The container's host name [default: its name]
    #[arg(long, value_name = "NAME", value_parser = parse_hostname, help_heading = "Container")]
    pub(crate) hostname: Option<String>,

    /// A domain to search for names without a dot; repeatable
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain, help_heading = "Container")]
    pub(crate) dns_search: Vec<String>,

    /// A further name for /etc/hosts and the gateway's DNS; repeatable
    #[arg(long, value_name = "NAME:IP", help_heading = "Container")]
    pub(crate) add_host: Vec<AddHost>,

    /// Write the frames of the container's port to this file, as pcapng
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub(crate) capture: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,

    /// The command and its arguments [default: $SHELL]
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

impl RunArgs {
    /// The interfaces that the container is to have: on the networks that it joins, or on the `private` one. None where it
    /// shares a namespace or has loopback only.
    pub(crate) fn endpoints(&self, private: &str) -> Vec<EndpointSpec> {
        let mut endpoints: Vec<EndpointSpec> = if self.network.is_empty() {
            vec![EndpointSpec {
                network: private.to_owned(),
                ..EndpointSpec::default()
            }]
        } else {
            self.joined().cloned().collect()
        };
        if let [one] = endpoints.as_mut_slice() {
            one.ip = one.ip.or(self.ip.map(IpAddr::V4));
            one.ip6 = one.ip6.or(self.ip6.map(IpAddr::V6));
            one.mac = one.mac.or(self.mac_address);
            one.aliases.extend(self.network_alias.iter().cloned());
        }
        if self.veth {
            for endpoint in &mut endpoints {
                endpoint.kind = EndpointKind::Veth;
            }
        }
        endpoints
    }

    /// What `--network` says of interfaces.
    fn joined(&self) -> impl Iterator<Item = &EndpointSpec> {
        self.network.iter().filter_map(|network| match network {
            NetworkArg::Join(endpoint) => Some(endpoint),
            NetworkArg::None | NetworkArg::Host | NetworkArg::Container(_) => None,
        })
    }

    /// Most flows of one container; a lower bound for the network lowers the default.
    pub(crate) fn flows_per_container(&self) -> u32 {
        self.max_flows_per_container.min(self.max_flows)
    }

    /// IPv4 range of the private network.
    pub(crate) fn subnet(&self) -> Ipv4Net {
        self.subnet
            .unwrap_or_else(|| DEFAULT_SUBNET.parse().expect("a constant"))
    }

    /// The private network's IPv4 gateway.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.gateway
            .unwrap_or_else(|| match ipam::default_gateway(self.subnet().into()) {
                IpAddr::V4(address) => address,
                IpAddr::V6(_) => unreachable!("the subnet is of IPv4"),
            })
    }

    /// IPv6 range of the private network, `None` without IPv6.
    pub(crate) fn subnet6(&self) -> Option<Ipv6Net> {
        (!self.no_ipv6 && self.mtu >= MIN_MTU_IPV6).then(|| {
            self.subnet6
                .unwrap_or_else(|| DEFAULT_SUBNET6.parse().expect("a constant"))
        })
    }

    /// The private network's IPv6 gateway; `None` without IPv6.
    pub(crate) fn gateway6(&self) -> Option<Ipv6Addr> {
        self.subnet6().map(|net| match ipam::default_gateway(net.into()) {
            IpAddr::V6(address) => address,
            IpAddr::V4(_) => unreachable!("the subnet is of IPv6"),
        })
    }

    /// What to publish: `-p`, and with `-P` the exposed ports that `-p` does not name already.
    pub(crate) fn publish_specs(&self) -> Vec<PublishSpec> {
        let mut specs = self.publish.clone();
        if self.publish_all {
            for exposed in &self.expose {
                for port in exposed.ports.0..=exposed.ports.1 {
                    let named = |s: &PublishSpec| {
                        s.protocol == exposed.protocol
                            && (s.container_ports.0..=s.container_ports.1).contains(&port)
                    };
                    if !specs.iter().any(named) {
                        specs.push(PublishSpec::random(port, exposed.protocol));
                    }
                }
            }
        }
        specs
    }
}
