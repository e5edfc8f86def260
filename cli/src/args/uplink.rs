//! `--uplink` and what goes with it: the link of a network's own to the world.
//!
//! ```text
//! LINK     packet:IFACE[,mac=MAC|,mac=host]   tap:NAME[,mac=MAC]   veth:PEER@NETNS[,mac=MAC]   switch:NETWORK[,mac=MAC]
//! NETNS    a name under /run/netns, an absolute path, a process id
//! ```
//!
//! The values are texts in JSON as well, so that there is one grammar. What must fit each other is judged by
//! [`UplinkSpec::check`], for the command line and for the control socket alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use ipnet::{Ipv4Net, Ipv6Net};
use pontoon_nat::routed::{Mapping, Nat};
use pontoon_switch::MacAddr;
use serde::{Deserialize, Serialize};

use super::values::{Outbound, parse_host, parse_mac, parse_name, parse_network};
use crate::api::UplinkSpec;

/// Where `ip netns` keeps the namespaces that it names.
const NAMED: &str = "/run/netns";

/// What `network create` and `run` say of an uplink.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UplinkArgs {
    /// A link of the gateway's own to the world, in the place of the host's sockets: packet:IFACE, tap:NAME, veth:PEER@NETNS,
    /// switch:NETWORK
    ///
    /// The gateway then stands on the link with an address of its own, and packets are translated and forwarded, not ended:
    /// packet:IFACE, a host interface (with ,mac=host by its own MAC address, where the host does not forward); tap:NAME, a
    /// TAP of the host, made if it is not there; veth:PEER@NETNS, a pair whose end PEER is in a network namespace, named as by
    /// `ip netns`, by an absolute path or by a process; switch:NETWORK, a port of another network of the daemon.
    #[arg(long, value_name = "LINK", help_heading = "Uplink")]
    pub(crate) uplink: Option<UplinkLink>,

    /// The gateway's IPv4 address on it [default: dhcp, unless there is --uplink-address6; on a switch the next free one]
    #[arg(long, value_name = "CIDR|dhcp", requires = "uplink", help_heading = "Uplink")]
    pub(crate) uplink_address: Option<UplinkAddress4>,

    /// The gateway's IPv6 address on it [default: none; on a switch the next free one]
    #[arg(long, value_name = "CIDR|slaac", requires = "uplink", help_heading = "Uplink")]
    pub(crate) uplink_address6: Option<UplinkAddress6>,

    /// The router on it, where the address is fixed; one a family
    #[arg(long, value_name = "ADDR", requires = "uplink", help_heading = "Uplink", value_parser = parse_host)]
    pub(crate) uplink_gateway: Vec<IpAddr>,
}

impl UplinkArgs {
    /// What the front is asked for, if there is to be an uplink.
    ///
    /// # Errors
    /// Values that do not fit each other.
    pub(crate) fn spec(&self) -> Result<Option<UplinkSpec>> {
        let Some(link) = &self.uplink else {
            return Ok(None);
        };
        let spec = UplinkSpec {
            link: link.clone(),
            address: self.uplink_address,
            address6: self.uplink_address6,
            gateways: self.uplink_gateway.clone(),
        };
        spec.check()?;
        Ok(Some(spec))
    }
}

/// What is done with the addresses of what leaves by the uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum UplinkNat {
    /// The source becomes the gateway's address there
    #[default]
    Masquerade,
    /// They stay as they are
    Route,
}

impl From<UplinkNat> for Nat {
    fn from(nat: UplinkNat) -> Self {
        match nat {
            UplinkNat::Masquerade => Self::Masquerade,
            UplinkNat::Route => Self::Route,
        }
    }
}

/// How a container's port becomes one of the gateway's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum PortMapping {
    /// One port, whomever it talks to
    #[default]
    Endpoint,
    /// One for each connection
    Connection,
}

impl From<PortMapping> for Mapping {
    fn from(mapping: PortMapping) -> Self {
        match mapping {
            PortMapping::Endpoint => Self::EndpointIndependent,
            PortMapping::Connection => Self::PerConnection,
        }
    }
}

/// A link to the world, and the gateway's MAC address on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct UplinkLink {
    /// What it is.
    pub(crate) to: LinkTo,
    /// The gateway's MAC address.
    pub(crate) mac: LinkMac,
}

/// What a link is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LinkTo {
    /// An interface of the host.
    Packet(String),
    /// A TAP of the host.
    Tap(String),
    /// A veth pair.
    Veth {
        /// The name of the end that is in the namespace.
        peer: String,
        /// The namespace.
        namespace: Netns,
    },
    /// A port of another network.
    Switch(String),
}

/// A network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Netns {
    /// That of a process.
    Pid(u32),
    /// The one at this path.
    Path(PathBuf),
}

/// The MAC address of a gateway on its uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum LinkMac {
    /// One of its own, made up once.
    #[default]
    Own,
    /// The interface's.
    Host,
    /// This one.
    Fixed(MacAddr),
}

impl UplinkLink {
    /// The interface that it has on the host, if it has one.
    pub(crate) fn host_interface(&self) -> Option<&str> {
        match &self.to {
            LinkTo::Packet(interface) | LinkTo::Tap(interface) => Some(interface),
            LinkTo::Veth { .. } | LinkTo::Switch(_) => None,
        }
    }

    /// The network whose switch it is a port of, if it is that.
    pub(crate) fn switch(&self) -> Option<&str> {
        match &self.to {
            LinkTo::Switch(network) => Some(network),
            LinkTo::Packet(_) | LinkTo::Tap(_) | LinkTo::Veth { .. } => None,
        }
    }
}

impl FromStr for UplinkLink {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        const FORMS: &str = "expected packet:IFACE, tap:NAME, veth:PEER@NETNS or switch:NETWORK";
        // A path may have anything in it but this at its end.
        let (link, mac) = match s.rsplit_once(",mac=") {
            Some((link, "host")) => (link, LinkMac::Host),
            Some((link, mac)) => (link, LinkMac::Fixed(parse_mac(mac)?)),
            None => (s, LinkMac::Own),
        };
        let (kind, rest) = link.split_once(':').ok_or(FORMS)?;
        let to = match kind {
            "packet" => LinkTo::Packet(parse_interface(rest)?),
            "tap" => LinkTo::Tap(parse_interface(rest)?),
            "veth" => {
                let (peer, namespace) = rest.split_once('@').ok_or(
                    "expected veth:PEER@NETNS, as veth:wan0@router: the end PEER is in that namespace",
                )?;
                LinkTo::Veth {
                    peer: parse_interface(peer)?,
                    namespace: namespace.parse()?,
                }
            }
            "switch" => LinkTo::Switch(parse_network(rest)?),
            _ => return Err(FORMS.to_owned()),
        };
        match (&to, mac) {
            (LinkTo::Tap(_) | LinkTo::Veth { .. } | LinkTo::Switch(_), LinkMac::Host) => Err(
                "mac=host is for packet:IFACE alone: elsewhere there is no MAC address of the host's"
                    .to_owned(),
            ),
            (LinkTo::Packet(_), _) | (_, LinkMac::Own | LinkMac::Fixed(_)) => Ok(Self { to, mac }),
        }
    }
}

impl fmt::Display for UplinkLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            LinkTo::Packet(interface) => write!(f, "packet:{interface}")?,
            LinkTo::Tap(name) => write!(f, "tap:{name}")?,
            LinkTo::Veth { peer, namespace } => write!(f, "veth:{peer}@{namespace}")?,
            LinkTo::Switch(network) => write!(f, "switch:{network}")?,
        }
        match self.mac {
            LinkMac::Own => Ok(()),
            LinkMac::Host => f.write_str(",mac=host"),
            LinkMac::Fixed(mac) => write!(f, ",mac={mac}"),
        }
    }
}

impl FromStr for Netns {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if s.starts_with('/') {
            return Ok(Self::Path(s.into()));
        }
        if s.contains('/') {
            return Err(format!(
                "`{s}` is a relative path: name the namespace by an absolute one"
            ));
        }
        match s.parse() {
            Ok(0) => Err("0 is no process".to_owned()),
            Ok(pid) => Ok(Self::Pid(pid)),
            Err(_) => parse_name(s)
                .map(|name| Self::Path(PathBuf::from(NAMED).join(name)))
                .map_err(|e| format!("namespace `{s}`: {e}")),
        }
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "{pid}"),
            Self::Path(path) => {
                let named = path.strip_prefix(NAMED).ok().and_then(|name| name.to_str());
                // What a name would be taken for something else by stays a path.
                match named.filter(|name| name.parse::<Self>().is_ok_and(|read| read == *self)) {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", path.display()),
                }
            }
        }
    }
}

/// `CIDR|dhcp`: an IPv4 address on an uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum UplinkAddress4 {
    /// By DHCP.
    Dhcp,
    /// This one.
    Fixed(Ipv4Net),
}

impl FromStr for UplinkAddress4 {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if s == "dhcp" {
            return Ok(Self::Dhcp);
        }
        let net: Ipv4Net = s
            .parse()
            .map_err(|_| "expected an address with its prefix length as 192.0.2.9/24, or dhcp".to_owned())?;
        let address = net.addr();
        if !is_host4(address) {
            return Err(format!("{address} is not an address that a host can have"));
        }
        if net.prefix_len() == 0 {
            return Err(format!(
                "{net} has no network: every address would be on the link"
            ));
        }
        if net.prefix_len() < 31 && (address == net.network() || address == net.broadcast()) {
            return Err(format!(
                "{address} is the first or the last address of {}, which no host may have",
                net.trunc()
            ));
        }
        Ok(Self::Fixed(net))
    }
}

impl fmt::Display for UplinkAddress4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dhcp => f.write_str("dhcp"),
            Self::Fixed(net) => net.fmt(f),
        }
    }
}

/// `CIDR|slaac`: an IPv6 address on an uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum UplinkAddress6 {
    /// By router advertisements.
    Slaac,
    /// This one.
    Fixed(Ipv6Net),
}

impl FromStr for UplinkAddress6 {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if s == "slaac" {
            return Ok(Self::Slaac);
        }
        let net: Ipv6Net = s.parse().map_err(|_| {
            "expected an address with its prefix length as 2001:db8::9/64, or slaac".to_owned()
        })?;
        let address = net.addr();
        if !is_host6(address) || address.is_unicast_link_local() {
            return Err(format!(
                "{address} is not an address that the gateway can have there"
            ));
        }
        if net.prefix_len() == 0 {
            return Err(format!(
                "{net} has no network: every address would be on the link"
            ));
        }
        if net.prefix_len() < 127 && address == net.network() {
            return Err(format!(
                "{address} is the routers' anycast address of {}",
                net.trunc()
            ));
        }
        Ok(Self::Fixed(net))
    }
}

impl fmt::Display for UplinkAddress6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slaac => f.write_str("slaac"),
            Self::Fixed(net) => net.fmt(f),
        }
    }
}

/// A type whose JSON is its text.
macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = String;
            fn try_from(s: String) -> Result<Self, String> {
                s.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

pub(super) use as_text;

as_text!(UplinkLink);
as_text!(UplinkAddress4);
as_text!(UplinkAddress6);

impl UplinkSpec {
    /// Judges the values against each other.
    ///
    /// # Errors
    /// What does not fit, and what to do.
    pub(crate) fn check(&self) -> Result<()> {
        let on_switch = matches!(self.link.to, LinkTo::Switch(_));
        ensure!(
            !on_switch || self.address != Some(UplinkAddress4::Dhcp),
            "--uplink-address dhcp has no meaning on a switch, whose network gives the address: leave it out"
        );
        ensure!(
            !on_switch || self.address6 != Some(UplinkAddress6::Slaac),
            "--uplink-address6 slaac has no meaning on a switch, whose network gives the address: leave it out"
        );
        for (i, gateway) in self.gateways.iter().enumerate() {
            ensure!(
                !on_switch,
                "--uplink-gateway {gateway}: on a switch the router is the gateway of that network: leave it out"
            );
            ensure!(
                self.gateways[..i]
                    .iter()
                    .all(|g| g.is_ipv4() != gateway.is_ipv4()),
                "--uplink-gateway is given twice for one IP version: give one"
            );
            match gateway {
                IpAddr::V4(gateway) => self.check_gateway4(*gateway)?,
                IpAddr::V6(gateway) => self.check_gateway6(*gateway)?,
            }
        }
        Ok(())
    }

    fn check_gateway4(&self, gateway: Ipv4Addr) -> Result<()> {
        let Some(UplinkAddress4::Fixed(net)) = self.address else {
            anyhow::bail!(
                "--uplink-gateway {gateway} goes with a fixed --uplink-address: DHCP tells the router"
            );
        };
        ensure!(
            net.contains(&gateway),
            "--uplink-gateway {gateway} is not in {}, the network of --uplink-address",
            net.trunc()
        );
        ensure!(
            gateway != net.addr(),
            "--uplink-gateway {gateway} is the --uplink-address itself: name the router's"
        );
        ensure!(
            net.prefix_len() >= 31 || gateway != net.network() && gateway != net.broadcast(),
            "--uplink-gateway {gateway} is the first or the last address of {}, which no host may have",
            net.trunc()
        );
        Ok(())
    }

    fn check_gateway6(&self, gateway: Ipv6Addr) -> Result<()> {
        let Some(UplinkAddress6::Fixed(net)) = self.address6 else {
            anyhow::bail!(
                "--uplink-gateway {gateway} goes with a fixed --uplink-address6: router advertisements tell the router"
            );
        };
        ensure!(
            net.contains(&gateway) || gateway.is_unicast_link_local(),
            "--uplink-gateway {gateway} is neither in {}, the network of --uplink-address6, nor link-local",
            net.trunc()
        );
        ensure!(
            gateway != net.addr(),
            "--uplink-gateway {gateway} is the --uplink-address6 itself: name the router's"
        );
        Ok(())
    }
}

fn is_host4(a: Ipv4Addr) -> bool {
    !(a.octets()[0] == 0 || a.is_loopback() || a.is_multicast() || a.octets()[0] >= 240)
}

fn is_host6(a: Ipv6Addr) -> bool {
    !(a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.to_ipv4_mapped().is_some())
}

fn parse_interface(s: &str) -> Result<String, String> {
    match s.parse() {
        Ok(Outbound::Interface(name)) if !name.contains([',', '@']) => Ok(name),
        Ok(Outbound::Interface(_) | Outbound::Address(_)) | Err(_) => {
            Err(format!("`{s}` is not the name of an interface"))
        }
    }
}
