//! Values of the command line: what each text must look like, judged while it is parsed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pontoon_nat::publish::{PublishSpec, Transport};
use pontoon_switch::MacAddr;
use serde::{Deserialize, Serialize};

use crate::api::LinkSpec;
use crate::control::DAEMON;

/// Longest name of a container or a network: one DNS label (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 63;

/// `PORT[/PROTO]`: a container's port; in JSON the text itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Exposed {
    /// First and last port.
    pub(crate) ports: (u16, u16),
    /// TCP unless said otherwise.
    pub(crate) protocol: Transport,
}

impl TryFrom<String> for Exposed {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<Exposed> for String {
    fn from(e: Exposed) -> Self {
        e.to_string()
    }
}

impl FromStr for Exposed {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if s.contains(':') {
            return Err("expected PORT[/tcp|/udp], a port of the container, without a host port".to_owned());
        }
        let spec: PublishSpec = s
            .parse()
            .map_err(|e: pontoon_nat::publish::BadSpec| e.to_string())?;
        Ok(Self {
            ports: spec.container_ports,
            protocol: spec.protocol,
        })
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.ports;
        if first == last {
            write!(f, "{first}/{}", self.protocol)
        } else {
            write!(f, "{first}-{last}/{}", self.protocol)
        }
    }
}

/// `NAME:IP`: a line of `/etc/hosts`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AddHost {
    /// The name.
    pub(crate) name: String,
    /// What it resolves to.
    pub(crate) ip: IpAddr,
}

impl FromStr for AddHost {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (name, ip) = s
            .split_once(':')
            .ok_or("expected NAME:IP, as db:10.0.2.9 or db:fd00::9")?;
        let ip = ip
            .strip_prefix('[')
            .and_then(|ip| ip.strip_suffix(']'))
            .unwrap_or(ip);
        Ok(Self {
            name: parse_domain(name)?,
            ip: ip.parse().map_err(|_| format!("`{ip}` is not an IP address"))?,
        })
    }
}

/// Where outgoing sockets are bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outbound {
    /// To an address of the host, for its family.
    Address(IpAddr),
    /// To an interface of the host.
    Interface(String),
}

impl FromStr for Outbound {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if let Ok(ip) = s.parse::<IpAddr>() {
            if ip.is_unspecified() || ip.is_multicast() {
                return Err(format!("{ip} is not an address to send from"));
            }
            return Ok(Self::Address(ip));
        }
        // IFNAMSIZ is 16 with the ending zero; see dev_valid_name in the kernel's net/core/dev.c.
        let valid = !s.is_empty()
            && s.len() < 16
            && !matches!(s, "." | "..")
            && !s
                .bytes()
                .any(|c| c == b'/' || c == b':' || c.is_ascii_whitespace());
        if valid {
            Ok(Self::Interface(s.to_owned()))
        } else {
            Err("expected an IP address or the name of an interface".to_owned())
        }
    }
}

/// A container's or a network's name: it is part of a socket's file name and a DNS label.
pub(crate) fn parse_name(s: &str) -> Result<String, String> {
    if s.is_empty() || s.len() > MAX_NAME {
        return Err(format!("a name has 1 to {MAX_NAME} characters"));
    }
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    if !s.as_bytes()[0].is_ascii_alphanumeric() || !s.bytes().all(inner) {
        return Err(
            "a name begins with a letter or digit and goes on with letters, digits, `_`, `.` or `-`"
                .to_owned(),
        );
    }
    Ok(s.to_owned())
}

/// The name of a network: one that `run --network` does not take for something else, and whose socket is not the daemon's.
pub(crate) fn parse_network(s: &str) -> Result<String, String> {
    unreserved(s).map(str::to_owned)
}

/// The name of a container to be: a private network is named after it.
pub(super) fn parse_container(s: &str) -> Result<String, String> {
    unreserved(s).map(str::to_owned)
}

fn unreserved(s: &str) -> Result<&str, String> {
    if matches!(s, "none" | "host" | "container" | DAEMON) || s.starts_with("container:") {
        return Err(format!("`{s}` is reserved: choose another name"));
    }
    parse_name(s)?;
    Ok(s)
}

pub(super) fn parse_hostname(s: &str) -> Result<String, String> {
    // The kernel's bound: __NEW_UTS_LEN in linux/utsname.h.
    if s.len() > 64 {
        return Err("a host name has at most 64 characters".to_owned());
    }
    parse_domain(s)
}

pub(super) fn parse_domain(s: &str) -> Result<String, String> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && l.bytes()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
    };
    if s.len() <= 253 && s.strip_suffix('.').unwrap_or(s).split('.').all(label) {
        Ok(s.to_owned())
    } else {
        Err(format!(
            "`{s}` is not a domain name: labels of letters, digits and `-`, with dots between"
        ))
    }
}

pub(crate) fn parse_mac(s: &str) -> Result<MacAddr, String> {
    let mac: MacAddr = s
        .parse()
        .map_err(|e: pontoon_switch::mac::BadMac| e.to_string())?;
    if mac.is_unicast() {
        Ok(mac)
    } else {
        Err(format!(
            "{mac} is no address for one interface: use a unicast one such as 02:00:5e:10:00:01"
        ))
    }
}

pub(super) fn parse_subnet(s: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = s
        .parse()
        .map_err(|_| "expected an IPv4 range such as 10.0.2.0/24".to_owned())?;
    if net.trunc() != net {
        return Err(format!(
            "{s} is an address in a range: the range is {}",
            net.trunc()
        ));
    }
    if net.prefix_len() > 30 {
        return Err(format!(
            "{net} has no room for a gateway and a container: use /30 or wider"
        ));
    }
    if net.prefix_len() < 8 {
        return Err(format!("{net} is too wide: use /8 or narrower"));
    }
    let ip = net.network();
    if ip.octets()[0] == 0 || ip.is_loopback() || ip.is_link_local() || ip.octets()[0] >= 224 {
        return Err(format!(
            "{net} is not a range for hosts: use a private one such as 10.0.2.0/24"
        ));
    }
    Ok(net)
}

pub(super) fn parse_subnet6(s: &str) -> Result<Ipv6Net, String> {
    let net: Ipv6Net = s
        .parse()
        .map_err(|_| "expected an IPv6 range such as fd00::/64".to_owned())?;
    if net.trunc() != net {
        return Err(format!(
            "{s} is an address in a range: the range is {}",
            net.trunc()
        ));
    }
    if net.prefix_len() > 126 {
        return Err(format!(
            "{net} has no room for a gateway and a container: use /126 or wider, best /64"
        ));
    }
    if net.prefix_len() < 16 {
        return Err(format!("{net} is too wide: use /16 or narrower, best /64"));
    }
    let ip = net.network();
    if ip.is_unspecified() || ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast() {
        return Err(format!(
            "{net} is not a range for hosts: use a unique local one such as fd00::/64"
        ));
    }
    Ok(net)
}

/// A range of either family for containers.
pub(super) fn parse_any_subnet(s: &str) -> Result<IpNet, String> {
    if s.contains(':') {
        parse_subnet6(s).map(IpNet::V6)
    } else {
        parse_subnet(s).map(IpNet::V4)
    }
}

/// A part of a subnet, or the addresses that a rule means: without host bits.
pub(super) fn parse_range(s: &str) -> Result<IpNet, String> {
    let net: IpNet = match s.parse::<IpAddr>() {
        Ok(ip) => ip.into(),
        Err(_) => s
            .parse()
            .map_err(|_| "expected a range such as 10.0.2.0/24 or fd00::/64".to_owned())?,
    };
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!(
            "{s} is an address in a range: the range is {}",
            net.trunc()
        ))
    }
}

/// An address that one host may have.
pub(super) fn parse_host(s: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = s.parse().map_err(|_| format!("`{s}` is not an IP address"))?;
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast {
        Err(format!("{ip} is not an address that a container can have"))
    } else {
        Ok(ip)
    }
}

/// [`parse_host`] for IPv4.
pub(super) fn parse_host4(s: &str) -> Result<Ipv4Addr, String> {
    match parse_host(s)? {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => Err(format!("{ip} is an IPv6 address: it belongs to ip6")),
    }
}

/// [`parse_host`] for IPv6.
pub(super) fn parse_host6(s: &str) -> Result<Ipv6Addr, String> {
    match parse_host(s)? {
        IpAddr::V6(ip) => Ok(ip),
        IpAddr::V4(ip) => Err(format!("{ip} is an IPv4 address: it belongs to ip")),
    }
}

/// An address that ports can be published on: one of the host, or the unspecified one for all of its family.
pub(super) fn parse_publish_address(s: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = s.parse().map_err(|_| format!("`{s}` is not an IP address"))?;
    if ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast()) {
        Err(format!("{ip} is not an address that can be listened on"))
    } else {
        Ok(ip)
    }
}

/// A name server's address.
pub(super) fn parse_server(s: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = s.parse().map_err(|_| format!("`{s}` is not an IP address"))?;
    if ip.is_unspecified() || ip.is_multicast() {
        Err(format!("{ip} is not the address of a server"))
    } else {
        Ok(ip)
    }
}

impl FromStr for LinkSpec {
    type Err = String;
    /// `NAME[:ALIAS]`, with no port named.
    fn from_str(s: &str) -> Result<Self, String> {
        let (server, alias) = match s.split_once(':') {
            Some((server, alias)) => (server, Some(parse_name(alias)?)),
            None => (s, None),
        };
        Ok(Self {
            server: parse_name(server)?,
            alias,
            ports: Vec::new(),
        })
    }
}

/// `K=V`: an option by its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Opt {
    /// The name.
    pub(crate) key: String,
    /// The rest of the text.
    pub(crate) value: String,
}

impl FromStr for Opt {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            Some(_) | None => Err("expected KEY=VALUE, as parent=eth0".to_owned()),
        }
    }
}

/// `PID|NETNS-PATH`: where a container is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A process in it.
    Pid(u32),
    /// The path of its network namespace.
    Path(PathBuf),
}

impl FromStr for Target {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        if s.contains('/') {
            return Ok(Self::Path(s.into()));
        }
        match s.parse() {
            Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
            Ok(_) | Err(_) => Err(format!(
                "`{s}` is neither a process id nor the path of a network namespace such as /run/netns/NAME"
            )),
        }
    }
}

/// `A,B`: the addresses of a wire's ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ends(pub(crate) IpAddr, pub(crate) IpAddr);

impl FromStr for Ends {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (a, b) = s
            .split_once(',')
            .ok_or("expected two addresses with a comma between, as 10.1.1.1,10.1.1.2")?;
        let (a, b) = (parse_host(a)?, parse_host(b)?);
        if a == b {
            Err(format!(
                "both ends would have {a}: give each an address of its own"
            ))
        } else if a.is_ipv4() != b.is_ipv4() {
            Err(format!("{a} and {b} are of different families: give two of one"))
        } else {
            Ok(Self(a, b))
        }
    }
}

/// `CONTAINER:PORT[/PROTO]`: a port of a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PortOf {
    /// The container.
    pub(crate) container: String,
    /// Its port.
    pub(crate) port: u16,
    /// TCP unless said otherwise.
    pub(crate) protocol: Transport,
}

impl FromStr for PortOf {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (container, port) = s
            .split_once(':')
            .ok_or("expected CONTAINER:PORT[/tcp|/udp], as web:80")?;
        let exposed: Exposed = port.parse()?;
        if exposed.ports.0 != exposed.ports.1 {
            return Err(format!("`{exposed}` is a range: a rule is for one port"));
        }
        Ok(Self {
            container: parse_name(container)?,
            port: exposed.ports.0,
            protocol: exposed.protocol,
        })
    }
}
