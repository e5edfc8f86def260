//! Who may talk to whom: ports that are isolated from the others, and the links between them.
//!
//! Between two ports everything passes, unless one of them is [`Peers::Linked`]: then only what a link lets through. A link has a
//! direction, from a client to a server, and names the server's services. It lets through
//!
//! - ARP and neighbour discovery between the two, by which they find each other;
//! - from the client to a service, and from a service back, as long as it opens no connection (a TCP segment with SYN and without
//!   ACK): the server cannot call the client;
//! - what such traffic brings along: ICMP errors, and later fragments, which without a first one come to nothing.
//!
//! Nothing else: no echo, no other protocol, no group but to find each other. A link that names no service has the first only. All of it
//! is decided frame by frame, without a table of connections, so a service may send datagrams to any port of its client.
//!
//! A first fragment must be long enough to show its ports and flags (RFC 1858): one that is not belongs to nothing.
//!
//! Frames to and from the station are none of this module's business.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::PortId;
use crate::headers::{self, Fragment, Network};

/// Which other ports a port may exchange frames with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peers {
    /// All that have nothing against it.
    #[default]
    All,
    /// Those that a link joins it to, and what the link lets through.
    Linked,
}

/// What carries a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port on which a server listens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Service {
    /// TCP or UDP.
    pub transport: Transport,
    /// The number.
    pub port: u16,
}

/// What a frame is, as far as links care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Matter {
    /// ARP, or a neighbour solicitation or advertisement.
    Neighbour,
    /// Of a TCP connection, or a UDP datagram.
    Flow {
        transport: Transport,
        from: u16,
        to: u16,
        /// Opens a connection.
        opens: bool,
    },
    /// What flows bring along: an ICMP error, a later fragment.
    Attendant,
    /// Anything else.
    Other,
}

impl Matter {
    /// What the frame `bytes` is.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        if headers::ethernet(bytes).is_some_and(|e| e.ethertype == headers::ARP) {
            return Self::Neighbour;
        }
        let Some(found) = headers::locate(bytes) else {
            return Self::Other;
        };
        let transport = bytes.get(found.transport..).unwrap_or_default();
        let kind = transport.first().copied();
        match (found.protocol, found.fragment, found.network) {
            (headers::TCP | headers::UDP, Fragment::Later, _) => Self::Attendant,
            (headers::ICMP, Fragment::Later, Network::V4 { .. }) => Self::Attendant,
            (headers::ICMPV6, Fragment::Later, Network::V6 { .. }) => Self::Attendant,
            (headers::TCP, _, _) => Self::tcp(transport).unwrap_or(Self::Other),
            (headers::UDP, _, _) => Self::udp(transport).unwrap_or(Self::Other),
            // Unreachable, time exceeded, parameter problem.
            (headers::ICMP, _, Network::V4 { .. }) if matches!(kind, Some(3 | 11 | 12)) => Self::Attendant,
            // The same, and packet too big.
            (headers::ICMPV6, _, Network::V6 { .. }) if matches!(kind, Some(1..=4)) => Self::Attendant,
            // Never in fragments (RFC 6980).
            (headers::ICMPV6, Fragment::Whole, Network::V6 { .. }) if matches!(kind, Some(135 | 136)) => {
                Self::Neighbour
            }
            _ => Self::Other,
        }
    }

    fn tcp(header: &[u8]) -> Option<Self> {
        const SYN: u8 = 0x02;
        const ACK: u8 = 0x10;
        Some(Self::Flow {
            transport: Transport::Tcp,
            from: headers::be16(header, 0)?,
            to: headers::be16(header, 2)?,
            opens: header.get(13)? & (SYN | ACK) == SYN,
        })
    }

    fn udp(header: &[u8]) -> Option<Self> {
        Some(Self::Flow {
            transport: Transport::Udp,
            from: headers::be16(header, 0)?,
            to: headers::be16(header, 2)?,
            opens: false,
        })
    }
}

/// The links of a switch.
#[derive(Debug, Default)]
pub(crate) struct Links(HashMap<(PortId, PortId), Vec<Service>>);

impl Links {
    /// Lets `client` use `services` of `server`, and none that a link before this one named.
    pub(crate) fn set(&mut self, client: PortId, server: PortId, services: &[Service]) {
        self.0.insert((client, server), services.to_vec());
    }

    /// Takes a link back; false if there was none.
    pub(crate) fn remove(&mut self, client: PortId, server: PortId) -> bool {
        self.0.remove(&(client, server)).is_some()
    }

    /// Forgets the links of a port that goes.
    pub(crate) fn remove_port(&mut self, port: PortId) {
        self.0
            .retain(|&(client, server), _| client != port && server != port);
    }

    /// Client, server and services of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PortId, PortId, &[Service])> {
        self.0
            .iter()
            .map(|(&(client, server), services)| (client, server, &services[..]))
    }

    /// Whether some link lets `matter` through between two ports. `group`: the frame's destination is a group.
    pub(crate) fn allow(&self, from: PortId, to: PortId, matter: Matter, group: bool) -> bool {
        let (ahead, back) = (self.0.get(&(from, to)), self.0.get(&(to, from)));
        if ahead.is_none() && back.is_none() {
            return false;
        }
        let has = |services: Option<&Vec<Service>>, service: Service| {
            services.is_some_and(|services| services.contains(&service))
        };
        let names_some = |services: Option<&Vec<Service>>| services.is_some_and(|s| !s.is_empty());
        match (matter, group) {
            (Matter::Neighbour, _) => true,
            (
                Matter::Flow {
                    transport,
                    from,
                    to,
                    opens,
                },
                false,
            ) => {
                let service = |port| Service { transport, port };
                has(ahead, service(to)) || (!opens && has(back, service(from)))
            }
            (Matter::Attendant, false) => names_some(ahead) || names_some(back),
            (Matter::Flow { .. } | Matter::Attendant, true) | (Matter::Other, _) => false,
        }
    }
}

#[cfg(test)]
mod tests;
