//! `pontoon network`: networks of the daemon, and who is on them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use clap::{ArgAction, Args, Subcommand};
use ipnet::IpNet;
use pontoon_switch::MacAddr;

use super::JsonArgs;
use super::network_arg::parse_vlan;
use super::run::MIN_MTU_IPV6;
use super::uplink::UplinkArgs;
use super::values::{
    Opt, parse_any_subnet, parse_domain, parse_host, parse_host4, parse_host6, parse_mac, parse_name,
    parse_network, parse_publish_address, parse_range, parse_server,
};
use crate::api::{ConnectRequest, EndpointKind, EndpointSpec, GatewayChoice, NetworkSpec, UplinkSpec};

/// `pontoon network`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Make a network, which the daemon keeps until it is removed
    ///
    /// A network is a switch with a gateway, in a process of its own. Containers on it reach each other, by name too; to
    /// containers elsewhere there is no way but through published ports. Ranges may overlap those of other networks and the
    /// host's.
    Create(Box<CreateArgs>),
    /// List networks
    Ls(JsonArgs),
    /// Print all that is known of networks: an array of JSON objects, in Docker's layout
    Inspect(InspectArgs),
    /// Remove networks that have no containers
    Rm(NamesArgs),
    /// Remove all networks that have no containers
    Prune(JsonArgs),
    /// Give a running container an interface on one more network
    Connect(ConnectArgs),
    /// Take a container's interface on a network away
    Disconnect(DisconnectArgs),
}

/// `pontoon network create`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Options by name, for -o KEY=VALUE:
  dhcp-range=FIRST-LAST       what DHCP gives to whom nothing else is given
  router=ADDR[,ADDR]          with --gateway none: the router that containers
                              are told of, one a family
  max-flows=N                 most flows at once
  max-flows-per-container=N   most flows at once of one container
  outbound=ADDR[,ADDR]|IFACE  source of outgoing connections: an address of the
                              host for each family, or an interface
  udp-filtering=WHO           who may answer a container's UDP port: address,
                              any port of an address it has sent to; endpoint,
                              anyone who knows the port
  host-loopback=true          the gateway's address leads to the host's 127.0.0.1
  link-local=true             containers reach link-local addresses, cloud
                              metadata at 169.254.169.254 among them
  storm=FRAMES                how many frames to all, or to an unknown address,
                              a container may send in a second; off for any
  parent=IFACE                an interface of the host is a port as well: with
                              --gateway none the containers stand on its LAN
  tap=NAME                    a TAP that is there already is a port as well, a
                              virtual machine's for instance
  host-tap=NAME               the host itself is on the network, by an interface
                              of this name; root only
  vlan=ID                     the VLAN that the gateway is in
  trunk=ID[,ID..]             the VLANs that the port of parent or tap carries
  uplink-nat=HOW              masquerade: what leaves by the uplink has the
                              gateway's address there; route: its own
  uplink-nat6=HOW             the same for IPv6
  mapping=HOW                 endpoint: a container's port is one port of the
                              gateway's, whomever it talks to; connection: one
                              for each connection
  uplink-mtu=N                MTU of the uplink [default: that of the link]

Docker's names for what has an option here are taken as well:
  com.docker.network.bridge.enable_icc=BOOL         --icc
  com.docker.network.bridge.host_binding_ipv4=ADDR  --publish-address
  com.docker.network.driver.mtu=N                   --mtu

Examples:
  pontoon network create shop
  pontoon network create --subnet 10.30.0.0/16 --gateway 10.30.0.1 \\
      --ip-range 10.30.5.0/24 --reserve 10.30.5.1 back
  pontoon network create --subnet 10.31.0.0/24 --subnet fd31::/64 \\
      --icc=false guarded
  pontoon network create --internal quiet
  sudo pontoon network create --uplink packet:eth1 edge
  sudo pontoon network create --uplink veth:wan0@router \\
      --uplink-address 192.0.2.9/24 --uplink-gateway 192.0.2.1 lab
  pontoon network create --uplink switch:shop inner
  sudo pontoon network create --subnet 192.0.2.0/24 --gateway none \\
      -o parent=eth1 -o router=192.0.2.1 lan")]
pub(crate) struct CreateArgs {
    /// The network's name
    #[arg(value_parser = parse_network)]
    pub(crate) name: String,

    /// Range of addresses [default: one that no other network of the daemon has]; one a family
    #[arg(long, value_name = "CIDR", value_parser = parse_any_subnet)]
    pub(crate) subnet: Vec<IpNet>,

    /// The gateway's address in a range, or `none` for a switch without one; one a family
    #[arg(long, value_name = "ADDR|none")]
    pub(crate) gateway: Vec<GatewayArg>,

    /// The part of a range that addresses are given from [default: all of it]; one a family
    #[arg(long, value_name = "CIDR", value_parser = parse_range)]
    pub(crate) ip_range: Vec<IpNet>,

    /// An address that only who asks for it is given; repeatable
    #[arg(long, value_name = "ADDR", visible_alias = "aux-address", value_parser = parse_host)]
    pub(crate) reserve: Vec<IpAddr>,

    /// Have IPv6, in a range of our choice unless --subnet names one
    #[arg(long)]
    pub(crate) ipv6: bool,

    /// MTU in bytes, 68 to 65520; below 1280 there is no IPv6
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(68..=65520))]
    pub(crate) mtu: u16,

    /// No way out, and nothing can be published
    #[arg(long, conflicts_with = "publish_address")]
    pub(crate) internal: bool,

    /// Whether containers reach each other without a link
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    pub(crate) icc: bool,

    /// A DNS server the gateway asks, instead of the host's; repeatable
    #[arg(long, value_name = "ADDR", value_parser = parse_server)]
    pub(crate) dns: Vec<IpAddr>,

    /// A domain to search for names without a dot; repeatable
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    pub(crate) dns_search: Vec<String>,

    /// Where ports are published whose -p names no address [default: all addresses]
    #[arg(long, value_name = "ADDR", value_parser = parse_publish_address)]
    pub(crate) publish_address: Option<IpAddr>,

    #[command(flatten)]
    pub(crate) uplink: UplinkArgs,

    /// An option by its name, see below; repeatable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) opt: Vec<Opt>,

    /// Print the network as JSON instead of its name
    #[arg(long)]
    pub(crate) json: bool,
}

/// `--gateway` of `network create`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GatewayArg {
    /// `none`.
    None,
    /// An address.
    At(IpAddr),
}

impl FromStr for GatewayArg {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if s == "none" {
            return Ok(Self::None);
        }
        parse_host(s).map(Self::At)
    }
}

impl CreateArgs {
    /// What the daemon is asked for, once the values have been judged against each other.
    pub(crate) fn spec(&self) -> Result<NetworkSpec> {
        one_a_family("--subnet", &self.subnet)?;
        one_a_family("--ip-range", &self.ip_range)?;
        let ipv6 = self.ipv6 || self.subnet.iter().any(is_ipv6);
        ensure!(
            !ipv6 || u32::from(self.mtu) >= MIN_MTU_IPV6,
            "IPv6 needs an MTU of {MIN_MTU_IPV6} and more: raise --mtu {} or leave IPv6 out",
            self.mtu
        );
        let gateway = self.gateway()?;
        for range in &self.ip_range {
            let subnet = self.subnet_of("--ip-range", range, range.addr())?;
            ensure!(
                subnet.contains(range),
                "--ip-range {range} is not a part of --subnet {subnet}"
            );
        }
        for ip in &self.reserve {
            let subnet = self.subnet_of("--reserve", ip, *ip)?;
            check_host("--reserve", *ip, subnet)?;
        }
        Ok(NetworkSpec {
            name: self.name.clone(),
            subnets: self.subnet.clone(),
            gateway,
            ip_ranges: self.ip_range.clone(),
            reserved: self.reserve.clone(),
            ipv6,
            mtu: self.mtu,
            internal: self.internal,
            icc: self.icc,
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            publish_address: self.publish_address,
            uplink: self.uplink()?,
            options: self.options()?,
        })
    }

    fn uplink(&self) -> Result<Option<UplinkSpec>> {
        let spec = self.uplink.spec()?;
        if spec.is_some() {
            ensure!(
                !self.internal,
                "--uplink is a way out, and --internal means that there is none: leave one of them out"
            );
            ensure!(
                !self.gateway.contains(&GatewayArg::None),
                "--uplink is a link of the gateway's, and with --gateway none there is none: leave one of them out"
            );
            ensure!(
                self.publish_address.is_none(),
                "with --uplink ports are published at the gateway's address there: leave --publish-address out"
            );
        }
        Ok(spec)
    }

    fn gateway(&self) -> Result<GatewayChoice> {
        let mut addresses = Vec::new();
        for gateway in &self.gateway {
            match gateway {
                GatewayArg::None => {
                    ensure!(
                        self.gateway.len() == 1,
                        "--gateway none stands alone: leave it or the addresses out"
                    );
                    ensure!(
                        self.publish_address.is_none(),
                        "--publish-address has no meaning with --gateway none: it is the gateway that publishes"
                    );
                    return Ok(GatewayChoice::None);
                }
                GatewayArg::At(ip) => addresses.push(*ip),
            }
        }
        one_a_family(
            "--gateway",
            &addresses.iter().map(|&ip| ip.into()).collect::<Vec<_>>(),
        )?;
        for &ip in &addresses {
            let subnet = self.subnet_of("--gateway", &ip, ip)?;
            check_host("--gateway", ip, subnet)?;
            ensure!(
                !self.reserve.contains(&ip),
                "--reserve {ip} is the gateway's address, which nobody else is given anyway: leave it out"
            );
        }
        Ok(if addresses.is_empty() {
            GatewayChoice::Auto
        } else {
            GatewayChoice::At(addresses)
        })
    }

    /// The subnet of the family of `ip`, which is (in) the `what` of an option.
    fn subnet_of(&self, option: &str, what: &impl std::fmt::Display, ip: IpAddr) -> Result<IpNet> {
        let Some(subnet) = self.subnet.iter().find(|s| is_ipv6(s) == ip.is_ipv6()) else {
            bail!("{option} {what} needs a --subnet that it is in");
        };
        ensure!(
            subnet.contains(&ip),
            "{option} {what} is not in --subnet {subnet}"
        );
        Ok(*subnet)
    }

    fn options(&self) -> Result<BTreeMap<String, String>> {
        let mut options = BTreeMap::new();
        for Opt { key, value } in &self.opt {
            ensure!(
                options.insert(key.clone(), value.clone()).is_none(),
                "-o {key} is given twice: several values go into one, with commas between"
            );
        }
        Ok(options)
    }
}

fn is_ipv6(net: &IpNet) -> bool {
    net.addr().is_ipv6()
}

fn one_a_family(option: &str, nets: &[IpNet]) -> Result<()> {
    for (family, ipv6) in [("IPv4", false), ("IPv6", true)] {
        ensure!(
            nets.iter().filter(|net| is_ipv6(net) == ipv6).count() <= 1,
            "{option} is given twice for {family}: a network has one range of each family"
        );
    }
    Ok(())
}

fn check_host(option: &str, ip: IpAddr, subnet: IpNet) -> Result<()> {
    match subnet {
        IpNet::V4(_) => ensure!(
            ip != subnet.network() && ip != subnet.broadcast(),
            "{option} {ip} is the first or the last address of {subnet}, which no host may have: choose another"
        ),
        IpNet::V6(_) => ensure!(
            ip != subnet.network(),
            "{option} {ip} is the routers' anycast address of {subnet}: choose another"
        ),
    }
    Ok(())
}

/// `pontoon network inspect`.
#[derive(Debug, Clone, Args)]
pub(crate) struct InspectArgs {
    /// The networks
    #[arg(value_name = "NAME", required = true, value_parser = parse_network)]
    pub(crate) names: Vec<String>,
    /// Print JSON, which it does anyway
    #[arg(long, hide = true)]
    pub(crate) json: bool,
}

/// `pontoon network rm`.
#[derive(Debug, Clone, Args)]
pub(crate) struct NamesArgs {
    /// The networks
    #[arg(value_name = "NAME", required = true, value_parser = parse_network)]
    pub(crate) names: Vec<String>,
}

/// `pontoon network connect`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Example:
  pontoon network connect --ip 10.30.0.7 --alias www back web")]
pub(crate) struct ConnectArgs {
    /// The network
    #[arg(value_parser = parse_network)]
    pub(crate) network: String,
    /// The container
    #[arg(value_parser = parse_name)]
    pub(crate) container: String,
    /// IPv4 address wanted [default: the next free one]
    #[arg(long, value_name = "ADDR", value_parser = parse_host4)]
    pub(crate) ip: Option<Ipv4Addr>,
    /// IPv6 address wanted [default: the next free one]
    #[arg(long, value_name = "ADDR", value_parser = parse_host6)]
    pub(crate) ip6: Option<Ipv6Addr>,
    /// MAC address wanted [default: made up]
    #[arg(long, value_name = "MAC", alias = "mac-address", value_parser = parse_mac)]
    pub(crate) mac: Option<MacAddr>,
    /// A further name on this network; repeatable
    #[arg(long, value_name = "NAME", value_parser = parse_domain)]
    pub(crate) alias: Vec<String>,
    /// The default route leads to the highest; among equals, to the first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) gw_priority: i32,
    /// The VLAN that the interface is in
    #[arg(long, value_name = "N", value_parser = parse_vlan)]
    pub(crate) vlan: Option<u16>,
    /// Have a veth pair for interface instead of a TAP
    #[arg(long)]
    pub(crate) veth: bool,
    /// Print the container as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl ConnectArgs {
    /// What the network's front is asked for.
    pub(crate) fn request(&self) -> ConnectRequest {
        ConnectRequest {
            container: self.container.clone(),
            endpoint: EndpointSpec {
                network: self.network.clone(),
                ip: self.ip.map(IpAddr::V4),
                ip6: self.ip6.map(IpAddr::V6),
                mac: self.mac,
                aliases: self.alias.clone(),
                gw_priority: self.gw_priority,
                kind: if self.veth {
                    EndpointKind::Veth
                } else {
                    EndpointKind::Tap
                },
                vlan: self.vlan,
            },
        }
    }
}

/// `pontoon network disconnect`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DisconnectArgs {
    /// The network
    #[arg(value_parser = parse_network)]
    pub(crate) network: String,
    /// The container
    #[arg(value_parser = parse_name)]
    pub(crate) container: String,
}
