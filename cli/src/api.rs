//! The words of the control socket: requests and answers as JSON.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/networks` | | `[NetworkInfo]` |
//! | `GET /v1/containers` | | `[ContainerInfo]` |
//! | `POST /v1/containers` | [`AttachRequest`] | [`ContainerInfo`] |
//! | `DELETE /v1/containers/NAME` | | |
//! | `POST /v1/containers/NAME/ports` | [`PublishRequest`] | `[PublishedPort]` |
//! | `DELETE /v1/containers/NAME/ports` | [`PublishRequest`] | `[PublishedPort]` |
//! | `GET /v1/flows?container=NAME` | | `[FlowInfo]` |
//! | `DELETE /v1/flows?container=NAME` | | [`Flushed`] |
//! | `GET /v1/fdb` | | `[FdbRow]` |
//! | `GET /v1/stats` | | [`Stats`] |
//!
//! An answer other than 2xx carries [`ApiError`]. Times are Unix seconds, ages seconds.

use std::net::IpAddr;

use pontoon_nat::publish::PublishSpec;
use pontoon_switch::MacAddr;
use serde::{Deserialize, Serialize};

/// A running network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkInfo {
    /// Its name.
    pub(crate) name: String,
    /// Addresses and gateways, IPv4 first.
    pub(crate) subnets: Vec<SubnetInfo>,
    /// The gateway's MAC address.
    pub(crate) gateway_mac: MacAddr,
    /// MTU of its ports, in bytes.
    pub(crate) mtu: u32,
    /// Domains to search for names without a dot.
    #[serde(default)]
    pub(crate) search: Vec<String>,
    /// When it started, in Unix seconds.
    pub(crate) since: u64,
    /// The front's process.
    pub(crate) front_pid: u32,
    /// The packet process.
    pub(crate) packet_pid: u32,
    /// Its containers.
    pub(crate) containers: Vec<ContainerInfo>,
}

/// One subnet of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SubnetInfo {
    /// Address range, e.g. `10.0.2.0/24`.
    pub(crate) subnet: ipnet::IpNet,
    /// The gateway's address in it.
    pub(crate) gateway: IpAddr,
}

/// A container on a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerInfo {
    /// Its name, unique on the network.
    pub(crate) name: String,
    /// The network's name.
    pub(crate) network: String,
    /// Its first process, in the front's PID namespace.
    pub(crate) pid: u32,
    /// The switch port.
    pub(crate) port: u32,
    /// MAC address of its interface.
    pub(crate) mac: MacAddr,
    /// Its addresses, IPv4 first.
    pub(crate) addresses: Vec<IpAddr>,
    /// What is published of it.
    pub(crate) published: Vec<PublishedPort>,
    /// When it was attached, in Unix seconds.
    pub(crate) since: u64,
}

/// One published port with the host port it really has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedPort {
    /// `tcp` or `udp`.
    pub(crate) protocol: pontoon_nat::publish::Transport,
    /// Where the host listens: an address, unspecified for all.
    pub(crate) host_ip: IpAddr,
    /// The host's port.
    pub(crate) host_port: u16,
    /// The container's port.
    pub(crate) container_port: u16,
}

/// Attach a container's network namespace to the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttachRequest {
    /// A process in the namespace; it must belong to the caller.
    pub(crate) pid: u32,
    /// Name wanted; made up if absent.
    pub(crate) name: Option<String>,
    /// IPv4 address wanted.
    pub(crate) ip: Option<IpAddr>,
    /// IPv6 address wanted.
    pub(crate) ip6: Option<IpAddr>,
    /// MAC address wanted.
    pub(crate) mac: Option<MacAddr>,
    /// Ports to publish; the attachment fails whole if one cannot be bound.
    #[serde(default)]
    pub(crate) publish: Vec<PublishSpec>,
    /// Names for the container's hosts file and DNS, `NAME:IP`.
    #[serde(default)]
    pub(crate) add_hosts: Vec<(String, IpAddr)>,
    /// Absolute path of a pcapng file for the container's port.
    pub(crate) capture: Option<std::path::PathBuf>,
}

/// Ports to publish or to take back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishRequest {
    /// The ports, in Docker's grammar.
    pub(crate) specs: Vec<PublishSpec>,
}

/// Flows ended by a flush.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Flushed {
    /// How many.
    pub(crate) flows: u64,
}

/// One entry of the conntrack table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FlowInfo {
    /// The container's name.
    pub(crate) container: String,
    /// The flow itself.
    #[serde(flatten)]
    pub(crate) flow: pontoon_nat::flow::FlowView,
}

/// One row of the switch's forwarding table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FdbRow {
    /// The network's name.
    pub(crate) network: String,
    /// Port number; `null` for the gateway.
    pub(crate) port: Option<u32>,
    /// The port's name.
    pub(crate) port_name: String,
    /// VLAN, 0 for untagged.
    pub(crate) vlan: u16,
    /// The address.
    pub(crate) mac: MacAddr,
    /// Seconds since it was last seen; `null` for a static entry.
    pub(crate) age: Option<u64>,
}

/// Counters of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// The network's name.
    pub(crate) network: String,
    /// Counters of each port.
    pub(crate) ports: Vec<PortStats>,
    /// Drops at the gateway that belong to no port, by reason.
    pub(crate) gateway_drops: std::collections::BTreeMap<String, u64>,
    /// Flows by protocol and state, e.g. `tcp/established`.
    pub(crate) flows: std::collections::BTreeMap<String, u64>,
    /// Flows now, and the most there may be.
    pub(crate) flows_total: u64,
    /// The bound on flows.
    pub(crate) flows_max: u64,
}

/// Counters of one port. Received means from the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PortStats {
    /// Port number.
    pub(crate) port: u32,
    /// The container's name.
    pub(crate) name: String,
    /// `tap`, `veth`, …
    pub(crate) kind: String,
    /// MTU in bytes.
    pub(crate) mtu: u32,
    /// Frames received.
    pub(crate) rx_frames: u64,
    /// Bytes received.
    pub(crate) rx_bytes: u64,
    /// Frames sent.
    pub(crate) tx_frames: u64,
    /// Bytes sent.
    pub(crate) tx_bytes: u64,
    /// Drops by reason.
    pub(crate) drops: std::collections::BTreeMap<String, u64>,
}

/// What an answer other than 2xx carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ApiError {
    /// What failed, on what, and what to do.
    pub(crate) error: String,
}
