//! Published ports (DNAT rules): what of a container the host's ports lead to.
//!
//! The grammar is Docker's: `[host-ip:][host-port[-range]]:container-port[-range][/tcp|/udp]`, IPv6 in brackets.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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

/// One `-p`: a range of container ports and the host ports that lead to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
