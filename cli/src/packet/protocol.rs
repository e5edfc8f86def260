//! What the front asks of the packet process, and what that answers: JSON over one `SOCK_SEQPACKET`.
//!
//! One command is on its way at a time and has one [`Reply`]; events come in between. Lists are asked for in pages, so
//! that each answer fits a message.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use pontoon_nat::config::{Config, Outbound};
use pontoon_nat::flow::FlowView;
use pontoon_nat::publish::Transport;
use pontoon_nat::routed::{Route, UplinkConfig, UplinkStatus};
use pontoon_switch::MacAddr;
use serde::{Deserialize, Serialize};

use crate::api::PortStats;
use crate::sandbox::SandboxOptions;

/// Entries in one page of a list.
pub(crate) const PAGE: usize = 256;

/// What a network is made of. Sent once, first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkConfig {
    /// The network's name, for the log.
    pub(crate) name: String,
    /// The gateway.
    pub(crate) gateway: Config,
    /// Where outgoing sockets are bound.
    pub(crate) outbound: Outbound,
    /// VLAN that the gateway is in; 0 for none.
    pub(crate) gateway_vlan: u16,
    /// How the process confines itself.
    pub(crate) sandbox: SandboxOptions,
}

/// One published socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// TCP or UDP.
    pub(crate) protocol: Transport,
    /// Where the socket is bound.
    pub(crate) host: SocketAddr,
    /// The container's port.
    pub(crate) container_port: u16,
}

/// What a port's descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PortKind {
    /// A TAP.
    Tap,
    /// A packet socket on an interface: the far end of a veth pair, or one of the host's.
    Packet,
    /// One end of a patch cable ([`pontoon_switch::port::patch`]): the other is another packet process's.
    Patch,
}

/// Who is behind a port, which decides what may come from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Behind {
    /// A container with one MAC address, and with these addresses; any if they are its own business.
    Container {
        /// The MAC address.
        mac: MacAddr,
        /// The addresses.
        addresses: Option<Vec<IpAddr>>,
    },
    /// Whoever is on the other side of an interface of the host.
    Anyone,
}

/// How a port is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PortSettings {
    /// The container's name, or the interface's.
    pub(crate) name: String,
    /// What the descriptor is.
    pub(crate) kind: PortKind,
    /// Who is behind it.
    pub(crate) behind: Behind,
    /// Its MTU in bytes.
    pub(crate) mtu: u32,
    /// Whether it reaches other ports without a link.
    pub(crate) icc: bool,
    /// Frames to everybody that it may send.
    pub(crate) storm: Storm,
    /// VLANs: one that it has access to, several that it carries, or every one as it comes.
    pub(crate) vlans: Vlans,
    /// What the gateway's DNS calls it.
    pub(crate) names: Vec<String>,
    /// Whether a capture file comes along.
    pub(crate) capture: bool,
}

/// A link of the gateway's besides the switch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UplinkSettings {
    /// What it is called in statistics.
    pub(crate) name: String,
    /// What the descriptor is.
    pub(crate) kind: PortKind,
    /// How it is addressed, and what is done with what leaves by it.
    pub(crate) config: UplinkConfig,
}

/// A bound on frames to everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Storm {
    /// The usual one.
    #[default]
    Default,
    /// None.
    Off,
    /// So many frames in a second.
    Frames(u32),
}

/// The VLANs of a port.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Vlans {
    /// Every one, as it comes.
    #[default]
    All,
    /// The network without tags only.
    Untagged,
    /// One, without a tag on the port.
    Access(u16),
    /// These, with tags on the port.
    Trunk(Vec<u16>),
}

/// A rule for the clients of a published port.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Whether they are led to the container.
    pub(crate) allow: bool,
    /// Who they are.
    pub(crate) net: IpNet,
}

/// Names, each with its addresses.
pub(crate) type NamedAddresses = Vec<(String, Vec<IpAddr>)>;

/// What the front asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Command {
    /// Make the network; the first command. Descriptors: raw ICMP sockets, for hosts that shut ping sockets out.
    Configure(Box<NetworkConfig>),
    /// Add a port. Descriptors: the TAP or packet socket, then the capture file if there is one.
    AddPort(Box<PortSettings>),
    /// Let one port reach ports of another, where they do not reach each other.
    SetLink {
        /// The client's port on the switch.
        client: u32,
        /// The server's.
        server: u32,
        /// The server's transport ports; none takes the link away.
        ports: Option<Vec<(Transport, u16)>>,
    },
    /// What the gateway's DNS calls a container has changed.
    SetNames {
        /// The container's port.
        port: u32,
        /// Its names, all of them.
        names: Vec<String>,
    },
    /// The names that the gateway's DNS has for one container alone have changed.
    SetView {
        /// The container's port.
        port: u32,
        /// The names, all of them.
        names: NamedAddresses,
    },
    /// The rules for clients of a container's published port have changed.
    SetSources {
        /// The container's port on the switch.
        port: u32,
        /// TCP or UDP.
        protocol: Transport,
        /// The container's transport port.
        container_port: u16,
        /// The rules, all of them, in order.
        sources: Vec<Source>,
    },
    /// Remove a port and all its flows and rules, or an uplink, whose flows wait for the next one.
    RemovePort {
        /// Its number.
        port: u32,
    },
    /// Publish ports of a container. Descriptors: a socket for each rule, in order.
    Publish {
        /// The container's port on the switch.
        port: u32,
        /// The rules.
        rules: Vec<Rule>,
    },
    /// Publish ports of a container at the gateway's address on the link to the world: no socket comes along. The address of
    /// [`Rule::host`] is that address, or unspecified for whatever it is.
    PublishRouted {
        /// The container's port on the switch.
        port: u32,
        /// The rules.
        rules: Vec<Rule>,
    },
    /// Give the gateway a link of its own. Descriptor: the TAP, packet socket or end of a patch cable. Answered with its number,
    /// by which [`Command::RemovePort`] takes it away.
    AddUplink(Box<UplinkSettings>),
    /// The carrier of such a link has been gone and is back: it may lead elsewhere.
    UplinkUp {
        /// Its number.
        port: u32,
    },
    /// Routes beyond the network's own subnets, all of them.
    SetRoutes {
        /// The routes.
        routes: Vec<Route>,
    },
    /// A container is a router, or is none any more: it may send from addresses in these networks, beside its own. All of them.
    SetBehind {
        /// The container's port on the switch.
        port: u32,
        /// The networks behind it.
        nets: Vec<IpNet>,
    },
    /// The links of the gateway's own as they are now.
    Uplinks,
    /// Take rules back, and close their sockets.
    Unpublish {
        /// Their numbers.
        rules: Vec<u32>,
    },
    /// The host's resolvers have changed.
    SetResolvers {
        /// The new ones.
        resolvers: Vec<SocketAddr>,
    },
    /// The names of `--add-host` have changed.
    SetHosts {
        /// The new ones, all of them.
        hosts: Vec<(String, IpAddr)>,
    },
    /// A page of flows.
    Flows {
        /// Of one port only.
        port: Option<u32>,
        /// Where the last page said to go on, or 0.
        from: u32,
    },
    /// End flows.
    FlushFlows {
        /// Of one port only.
        port: Option<u32>,
    },
    /// A page of the forwarding table.
    Fdb {
        /// Rows to pass over.
        offset: usize,
    },
    /// Counters, with a page of ports.
    Stats {
        /// Ports to pass over.
        offset: usize,
    },
    /// Nothing but an answer.
    Ping,
}

/// One row of the forwarding table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FdbEntry {
    /// The port; `None` for the gateway.
    pub(crate) port: Option<u32>,
    /// VLAN, 0 for untagged.
    pub(crate) vlan: u16,
    /// The address.
    pub(crate) mac: MacAddr,
    /// Seconds since it was last seen; `None` for a static entry.
    pub(crate) age: Option<u64>,
}

/// Counters of the network, with a page of its ports.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// A page of ports.
    pub(crate) ports: Vec<PortStats>,
    /// Drops at the gateway that belong to no port.
    pub(crate) gateway_drops: BTreeMap<String, u64>,
    /// Flows by protocol and state.
    pub(crate) flows: BTreeMap<String, u64>,
    /// Flows now.
    pub(crate) flows_total: u64,
    /// The bound on flows.
    pub(crate) flows_max: u64,
}

/// The answer to a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// It failed, for this reason.
    Failed(String),
    /// The new port's number.
    Port(u32),
    /// Numbers of the new rules.
    Rules(Vec<u32>),
    /// A page of flows.
    Flows {
        /// Each with its port.
        flows: Vec<(u32, FlowView)>,
        /// Where the next page begins; none after the last.
        next: Option<u32>,
    },
    /// The links of the gateway's own, each with its number.
    Uplinks(Vec<(u32, UplinkStatus)>),
    /// How many flows were ended.
    Flushed(u64),
    /// A page of the forwarding table. A page that is not full is the last.
    Fdb(Vec<FdbEntry>),
    /// Counters.
    Stats(Box<Counters>),
}

/// What the packet process says unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Event {
    /// A port's device is gone.
    PortClosed {
        /// Its number.
        port: u32,
        /// What reading it said.
        error: String,
    },
}

/// Any message of the packet process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Message {
    /// An answer.
    Reply(Reply),
    /// An event.
    Event(Event),
}
