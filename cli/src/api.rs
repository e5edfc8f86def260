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
pub struct NetworkInfo {
    /// Its name.
    pub name: String,
    /// Addresses and gateways, IPv4 first.
    pub subnets: Vec<SubnetInfo>,
    /// The gateway's MAC address.
    pub gateway_mac: MacAddr,
    /// MTU of its ports, in bytes.
    pub mtu: u32,
    /// When it started, in Unix seconds.
    pub since: u64,
    /// The front's process.
    pub front_pid: u32,
    /// The packet process.
    pub packet_pid: u32,
    /// Its containers.
    pub containers: Vec<ContainerInfo>,
}

/// One subnet of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubnetInfo {
    /// Address range, e.g. `10.0.2.0/24`.
    pub subnet: ipnet::IpNet,
    /// The gateway's address in it.
    pub gateway: IpAddr,
}

/// A container on a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Its name, unique on the network.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// Its first process, in the front's PID namespace.
    pub pid: u32,
    /// The switch port.
    pub port: u32,
    /// MAC address of its interface.
    pub mac: MacAddr,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// What is published of it.
    pub published: Vec<PublishedPort>,
    /// When it was attached, in Unix seconds.
    pub since: u64,
}

/// One published port with the host port it really has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// `tcp` or `udp`.
    pub protocol: pontoon_nat::publish::Transport,
    /// Where the host listens: an address, unspecified for all.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
}

/// Attach a container's network namespace to the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachRequest {
    /// A process in the namespace; it must belong to the caller.
    pub pid: u32,
    /// Name wanted; made up if absent.
    pub name: Option<String>,
    /// IPv4 address wanted.
    pub ip: Option<IpAddr>,
    /// IPv6 address wanted.
    pub ip6: Option<IpAddr>,
    /// MAC address wanted.
    pub mac: Option<MacAddr>,
    /// Ports to publish; the attachment fails whole if one cannot be bound.
    #[serde(default)]
    pub publish: Vec<PublishSpec>,
    /// Names for the container's hosts file and DNS, `NAME:IP`.
    #[serde(default)]
    pub add_hosts: Vec<(String, IpAddr)>,
    /// Absolute path of a pcapng file for the container's port.
    pub capture: Option<std::path::PathBuf>,
}

/// Ports to publish or to take back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublishRequest {
    /// The ports, in Docker's grammar.
    pub specs: Vec<PublishSpec>,
}

/// Flows ended by a flush.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Flushed {
    /// How many.
    pub flows: u64,
}

/// One entry of the conntrack table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlowInfo {
    /// The container's name.
    pub container: String,
    /// The flow itself.
    #[serde(flatten)]
    pub flow: pontoon_nat::flow::FlowView,
}

/// One row of the switch's forwarding table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FdbRow {
    /// The network's name.
    pub network: String,
    /// Port number; `null` for the gateway.
    pub port: Option<u32>,
    /// The port's name.
    pub port_name: String,
    /// VLAN, 0 for untagged.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddr,
    /// Seconds since it was last seen; `null` for a static entry.
    pub age: Option<u64>,
}

/// Counters of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// The network's name.
    pub network: String,
    /// Counters of each port.
    pub ports: Vec<PortStats>,
    /// Drops at the gateway that belong to no port, by reason.
    pub gateway_drops: std::collections::BTreeMap<String, u64>,
    /// Flows by protocol and state, e.g. `tcp/established`.
    pub flows: std::collections::BTreeMap<String, u64>,
    /// Flows now, and the most there may be.
    pub flows_total: u64,
    /// The bound on flows.
    pub flows_max: u64,
}

/// Counters of one port. Received means from the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortStats {
    /// Port number.
    pub port: u32,
    /// The container's name.
    pub name: String,
    /// `tap`, `veth`, …
    pub kind: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Drops by reason.
    pub drops: std::collections::BTreeMap<String, u64>,
}

/// What an answer other than 2xx carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApiError {
    /// What failed, on what, and what to do.
    pub error: String,
}
