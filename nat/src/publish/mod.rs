//! Published ports (DNAT rules): what of a container the host's ports lead to.
//!
//! The grammar is Docker's: `[host-ip:][host-port[-range]]:container-port[-range][/tcp|/udp]`, IPv6 in brackets.
//!
//! | text | means |
//! |---|---|
//! | `8080:80` | port 8080 of every host address, IPv4 and IPv6, leads to the container's port 80 |
//! | `80` | the same with a host port chosen by the system |
//! | `127.0.0.1:8080:80/tcp` | port 8080 of one host address |
//! | `[::1]::53/udp` | a port of one host address chosen by the system |
//! | `7000-7010:80-90` | eleven ports, one to one |
//! | `8000-8010:80` | the first free host port of the eleven |
//!
//! A [`PublishSpec`] is one such text; in JSON it is the text itself, so that whatever has been deserialised has also
//! been checked. Which clients may come is said by [`SourceRule`]s.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod sources;
#[cfg(test)]
mod tests;

pub(crate) use sources::Target;
pub use sources::{SourceAction, SourceRule, Sources};

/// A transport protocol with ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Transport {
    type Err = BadSpec;
    fn from_str(s: &str) -> Result<Self, BadSpec> {
        if s.eq_ignore_ascii_case("tcp") {
            Ok(Self::Tcp)
        } else if s.eq_ignore_ascii_case("udp") {
            Ok(Self::Udp)
        } else {
            Err(BadSpec::Protocol(s.to_owned()))
        }
    }
}

/// One `-p`: a range of container ports and the host ports that lead to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublishSpec {
    /// The host's address; `None` for all, of both families.
    pub host_ip: Option<IpAddr>,
    /// First and last host port; `None` for one chosen by the system. A range longer than the container's means the
    /// first free one.
    pub host_ports: Option<(u16, u16)>,
    /// First and last container port.
    pub container_ports: (u16, u16),
    /// TCP or UDP.
    pub protocol: Transport,
}

/// Number of a publishing rule in its gateway.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RuleId(pub u32);

/// Why a text is not a [`PublishSpec`]; each names the part.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSpec {
    /// Nothing there.
    #[error("the container port is missing: write [host-ip:][host-port]:container-port[/tcp|/udp]")]
    NoContainerPort,
    /// After the slash is something else than `tcp` or `udp`.
    #[error("protocol `{0}` is not tcp or udp")]
    Protocol(String),
    /// The part before the first colon is no address.
    #[error("host address `{0}` is not an IP address")]
    HostAddress(String),
    /// An address that no host socket can listen on.
    #[error("host address `{0}` cannot be listened on: {1}")]
    UnusableAddress(IpAddr, &'static str),
    /// An IPv6 address without brackets, or with only one.
    #[error("`{0}` has too many colons: write an IPv6 host address in brackets, as [::1]:8080:80")]
    Brackets(String),
    /// An address where a port belongs.
    #[error("`{0}` stands where the host port belongs: write {0}::{1} to let the system choose the port")]
    AddressForPort(IpAddr, String),
    /// Not a number from 1 to 65535.
    #[error("{part} `{text}` is not a port from 1 to 65535")]
    Port {
        /// `host port` or `container port`.
        part: &'static str,
        /// What was there.
        text: String,
    },
    /// Last before first.
    #[error("{part} range {first}-{last} runs backwards")]
    Backwards {
        /// `host port` or `container port`.
        part: &'static str,
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// Ranges that do not fit each other.
    #[error(
        "the host port range has {host} ports and the container port range {container}: make them equally long, or \
         name one container port to take the first free host port"
    )]
    Lengths {
        /// Host ports.
        host: u32,
        /// Container ports.
        container: u32,
    },
}

const HOST: &str = "host port";
const CONTAINER: &str = "container port";

impl PublishSpec {
    /// One container port on a host port chosen by the system, on every host address.
    pub const fn random(container_port: u16, protocol: Transport) -> Self {
        Self {
            host_ip: None,
            host_ports: None,
            container_ports: (container_port, container_port),
            protocol,
        }
    }

    /// Whether the parts fit each other; what [`FromStr`] gives always does.
    pub fn validate(&self) -> Result<(), BadSpec> {
        check_range(CONTAINER, self.container_ports)?;
        if let Some(host) = self.host_ports {
            check_range(HOST, host)?;
            let (host, container) = (length(host), length(self.container_ports));
            if host != container && container != 1 {
                return Err(BadSpec::Lengths { host, container });
            }
        }
        match self.host_ip {
            Some(ip) if ip.is_multicast() => Err(BadSpec::UnusableAddress(ip, "it is a multicast address")),
            Some(IpAddr::V4(ip)) if ip.is_broadcast() => {
                Err(BadSpec::UnusableAddress(ip.into(), "it is the broadcast address"))
            }
            Some(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => Err(BadSpec::UnusableAddress(
                ip.into(),
                "write the IPv4 address itself",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// How many container ports it publishes.
    pub fn len(&self) -> u32 {
        length(self.container_ports)
    }

    /// False: a spec names at least one port.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How many host sockets it takes: one for each port and family.
    pub fn sockets(&self) -> u32 {
        self.len() * if self.host_ip.is_none() { 2 } else { 1 }
    }

    /// Each container port with the host ports to try for it in order, `0..=0` standing for the system's choice.
    pub fn bindings(&self) -> impl Iterator<Item = (u16, RangeInclusive<u16>)> + '_ {
        let (first, last) = self.container_ports;
        (first..=last).map(move |port| {
            let host = match self.host_ports {
                None => 0..=0,
                Some((low, high)) if first == last => low..=high,
                Some((low, _)) => {
                    let one = low + (port - first);
                    one..=one
                }
            };
            (port, host)
        })
    }
}

fn length((first, last): (u16, u16)) -> u32 {
    u32::from(last) + 1 - u32::from(first).min(u32::from(last))
}

fn check_range(part: &'static str, (first, last): (u16, u16)) -> Result<(), BadSpec> {
    if first == 0 {
        Err(BadSpec::Port {
            part,
            text: first.to_string(),
        })
    } else if last < first {
        Err(BadSpec::Backwards { part, first, last })
    } else {
        Ok(())
    }
}

fn port(part: &'static str, text: &str) -> Result<u16, BadSpec> {
    // `u16::from_str` would take a leading plus sign.
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits => Ok(port),
        Ok(_) | Err(_) => Err(BadSpec::Port {
            part,
            text: text.to_owned(),
        }),
    }
}

fn range(part: &'static str, text: &str) -> Result<(u16, u16), BadSpec> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (port(part, first)?, port(part, last)?);
    check_range(part, range)?;
    Ok(range)
}

impl FromStr for PublishSpec {
    type Err = BadSpec;

    fn from_str(s: &str) -> Result<Self, BadSpec> {
        let (ports, protocol) = match s.split_once('/') {
            Some((ports, protocol)) => (ports, protocol.parse()?),
            None => (s, Transport::Tcp),
        };
        let too_many = || BadSpec::Brackets(s.to_owned());
        let (host_ip, host, container) = if let Some(rest) = ports.strip_prefix('[') {
            let (ip, rest) = rest.split_once(']').ok_or_else(too_many)?;
            let ip: std::net::Ipv6Addr = ip.parse().map_err(|_| BadSpec::HostAddress(ip.to_owned()))?;
            let rest = rest.strip_prefix(':').ok_or(BadSpec::NoContainerPort)?;
            let (host, container) = rest.split_once(':').ok_or_else(|| match port(CONTAINER, rest) {
                Ok(_) => BadSpec::AddressForPort(ip.into(), rest.to_owned()),
                Err(e) => e,
            })?;
            (Some(IpAddr::V6(ip)), host, container)
        } else {
            let parts: Vec<&str> = ports.split(':').collect();
            match parts[..] {
                [container] => (None, "", container),
                [host, container] => {
                    if let Ok(ip) = host.parse() {
                        return Err(BadSpec::AddressForPort(ip, container.to_owned()));
                    }
                    (None, host, container)
                }
                [ip, host, container] => {
                    let ip: std::net::Ipv4Addr =
                        ip.parse().map_err(|_| BadSpec::HostAddress(ip.to_owned()))?;
                    (Some(IpAddr::V4(ip)), host, container)
                }
                _ => return Err(too_many()),
            }
        };
        if container.is_empty() {
            return Err(BadSpec::NoContainerPort);
        }
        let spec = Self {
            host_ip,
            // `0` is how Docker's users write the system's choice.
            host_ports: if matches!(host, "" | "0") {
                None
            } else {
                Some(range(HOST, host)?)
            },
            container_ports: range(CONTAINER, container)?,
            protocol,
        };
        spec.validate()?;
        Ok(spec)
    }
}

impl fmt::Display for PublishSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        if let Some(ports) = self.host_ports {
            write_range(f, ports)?;
        }
        if self.host_ip.is_some() || self.host_ports.is_some() {
            f.write_str(":")?;
        }
        write_range(f, self.container_ports)?;
        write!(f, "/{}", self.protocol)
    }
}

fn write_range(f: &mut fmt::Formatter<'_>, (first, last): (u16, u16)) -> fmt::Result {
    if first == last {
        write!(f, "{first}")
    } else {
        write!(f, "{first}-{last}")
    }
}

impl TryFrom<String> for PublishSpec {
    type Error = BadSpec;
    fn try_from(s: String) -> Result<Self, BadSpec> {
        s.parse()
    }
}

impl From<PublishSpec> for String {
    fn from(s: PublishSpec) -> Self {
        s.to_string()
    }
}
