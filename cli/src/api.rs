//! The words of the control socket: requests and answers as JSON.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/version` | | [`Version`] |
//! | `GET /v1/networks` | | `[NetworkInfo]` |
//! | `POST /v1/networks` | [`NetworkSpec`] | [`NetworkInfo`] |
//! | `DELETE /v1/networks` | | names of those that had no containers and are gone |
//! | `GET /v1/networks/NAME` | | [`NetworkInfo`] |
//! | `DELETE /v1/networks/NAME` | | |
//! | `POST /v1/networks/NAME/endpoints` | [`ConnectRequest`] | [`ContainerInfo`] |
//! | `DELETE /v1/networks/NAME/endpoints/CONTAINER` | | |
//! | `GET /v1/networks/NAME/routes` | | `[RouteInfo]` |
//! | `POST /v1/networks/NAME/routes` | [`RouteRequest`] | [`RouteInfo`] |
//! | `DELETE /v1/networks/NAME/routes/CIDR` | | |
//! | `GET /v1/containers` | | `[ContainerInfo]` |
//! | `POST /v1/containers` | [`AttachRequest`] | [`ContainerInfo`] |
//! | `GET /v1/containers/NAME` | | [`ContainerInfo`] |
//! | `DELETE /v1/containers/NAME` | | |
//! | `POST /v1/containers/NAME/ports` | [`PublishRequest`] | `[PublishedPort]` |
//! | `DELETE /v1/containers/NAME/ports` | [`PublishRequest`] | `[PublishedPort]` |
//! | `GET /v1/links` | | `[LinkInfo]` |
//! | `POST /v1/links` | [`LinkRequest`] | [`LinkInfo`] |
//! | `DELETE /v1/links/CLIENT/SERVER` | | |
//! | `GET /v1/rules` | | `[RuleInfo]` |
//! | `POST /v1/rules` | [`RuleRequest`] | [`RuleInfo`] |
//! | `DELETE /v1/rules/ID` | | |
//! | `GET /v1/wires` | | `[WireInfo]` |
//! | `POST /v1/wires` | [`WireRequest`] | [`WireInfo`] |
//! | `DELETE /v1/wires/A/B` | | |
//! | `GET /v1/flows?network=NAME&container=NAME` | | `[FlowInfo]` |
//! | `DELETE /v1/flows?network=NAME&container=NAME` | | [`Flushed`] |
//! | `GET /v1/fdb?network=NAME` | | `[FdbRow]` |
//! | `GET /v1/stats?network=NAME` | | `[Stats]` |
//! | `GET /metrics` | | the same counters in Prometheus' text format |
//!
//! The front of a private network and the daemon speak the same; a private network's front makes no further networks, and
//! ends with its last container. An answer other than 2xx carries [`ApiError`]. Times are Unix seconds, ages seconds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use pontoon_nat::publish::{PublishSpec, Transport};
use pontoon_switch::MacAddr;
use serde::{Deserialize, Serialize};

use crate::args::Exposed;
#[cfg(test)]
use crate::openapi::schema;

mod reach;
#[cfg(test)]
pub(crate) mod samples;
mod uplink;

pub(crate) use reach::{
    Action, LinkInfo, LinkRequest, LinkSpec, RuleInfo, RuleRequest, WireEnd, WireInfo, WireRequest,
};
pub(crate) use uplink::{AddressSource, EgressKind, RouteInfo, RouteRequest, UplinkInfo, UplinkSpec};

/// Who answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Version {
    /// The program's version.
    pub(crate) version: String,
    /// The front's process.
    pub(crate) pid: u32,
    /// Whether it is the daemon, and not a private network's front.
    pub(crate) daemon: bool,
}

/// Which gateway a network is to have.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GatewayChoice {
    /// One, at an address of our choice in each subnet.
    #[default]
    Auto,
    /// One, at these addresses; of our choice where there is none for a subnet.
    At(Vec<IpAddr>),
    /// None: the network is a switch and nothing else.
    None,
}

/// A network to be made. What is left out is as `pontoon network create` has it without the option.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkSpec {
    /// Its name.
    pub(crate) name: String,
    /// Its ranges, one a family; of our choice if there are none.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<schema::Net>"))]
    pub(crate) subnets: Vec<IpNet>,
    /// Its gateway.
    #[serde(default)]
    pub(crate) gateway: GatewayChoice,
    /// Where in the subnets addresses are given from.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<schema::Net>"))]
    pub(crate) ip_ranges: Vec<IpNet>,
    /// Addresses that are given to nobody who does not ask for them.
    #[serde(default)]
    pub(crate) reserved: Vec<IpAddr>,
    /// Whether there is to be IPv6 although `subnets` has no range of it.
    #[serde(default)]
    pub(crate) ipv6: bool,
    /// MTU in bytes.
    #[serde(default = "default_mtu")]
    pub(crate) mtu: u16,
    /// Whether there is no way out, and nothing can be published.
    #[serde(default)]
    pub(crate) internal: bool,
    /// Whether containers reach each other without a link.
    #[serde(default = "yes")]
    pub(crate) icc: bool,
    /// Name servers to ask; the host's if there are none.
    #[serde(default)]
    pub(crate) dns: Vec<IpAddr>,
    /// Search list; the host's if it is empty.
    #[serde(default)]
    pub(crate) dns_search: Vec<String>,
    /// Where ports are published whose specification names no address.
    #[serde(default)]
    pub(crate) publish_address: Option<IpAddr>,
    /// A link of the gateway's own to the world, in the place of the host's sockets.
    #[serde(default)]
    pub(crate) uplink: Option<UplinkSpec>,
    /// Everything that is rarely wanted, by name: see `pontoon network create --help`.
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

fn default_mtu() -> u16 {
    1500
}

fn yes() -> bool {
    true
}

/// A running network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct NetworkInfo {
    /// Its name.
    pub(crate) name: String,
    /// Addresses and gateways, IPv4 first.
    pub(crate) subnets: Vec<SubnetInfo>,
    /// The gateway's MAC address; none without a gateway.
    #[cfg_attr(test, schemars(with = "Option<schema::Mac>"))]
    pub(crate) gateway_mac: Option<MacAddr>,
    /// MTU of its ports, in bytes.
    pub(crate) mtu: u32,
    /// Whether there is no way out.
    pub(crate) internal: bool,
    /// Whether containers reach each other without a link.
    pub(crate) icc: bool,
    /// Name servers that were asked for; the host's if there are none.
    pub(crate) dns: Vec<IpAddr>,
    /// Domains to search for names without a dot.
    pub(crate) search: Vec<String>,
    /// Where ports are published whose specification names no address; all addresses if none.
    pub(crate) publish_address: Option<IpAddr>,
    /// By what packets leave it.
    pub(crate) egress: EgressKind,
    /// The gateway's own link to the world, if it has one.
    pub(crate) uplink: Option<UplinkInfo>,
    /// The options it was made with.
    pub(crate) options: BTreeMap<String, String>,
    /// Whether it is the daemon's, and outlives its containers.
    pub(crate) persistent: bool,
    /// When it was made, in Unix seconds.
    pub(crate) since: u64,
    /// The front's process.
    pub(crate) front_pid: u32,
    /// The packet process.
    pub(crate) packet_pid: u32,
    /// Its containers' interfaces on it, by the containers' names.
    pub(crate) endpoints: Vec<EndpointInfo>,
}

/// One subnet of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SubnetInfo {
    /// Address range, e.g. `10.0.2.0/24`.
    #[cfg_attr(test, schemars(with = "schema::Net"))]
    pub(crate) subnet: IpNet,
    /// The gateway's address in it, or that of another router that containers use.
    pub(crate) gateway: Option<IpAddr>,
    /// Where in it addresses are given from, if not everywhere.
    #[cfg_attr(test, schemars(with = "Option<schema::Net>"))]
    pub(crate) range: Option<IpNet>,
    /// Addresses in it that are given to nobody who does not ask for them.
    pub(crate) reserved: Vec<IpAddr>,
}

/// A container's interface on a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EndpointInfo {
    /// The container's name.
    pub(crate) container: String,
    /// The network's name.
    pub(crate) network: String,
    /// The interface in the container.
    pub(crate) interface: String,
    /// What it is.
    pub(crate) kind: EndpointKind,
    /// The switch port.
    pub(crate) port: u32,
    /// MAC address of the interface.
    #[cfg_attr(test, schemars(with = "schema::Mac"))]
    pub(crate) mac: MacAddr,
    /// Its addresses, IPv4 first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Further names on this network.
    pub(crate) aliases: Vec<String>,
    /// The higher, the sooner the default route leads here.
    pub(crate) gw_priority: i32,
    /// Whether the container's default route leads here.
    pub(crate) default_route: bool,
    /// VLAN that the port has access to; 0 for none.
    pub(crate) vlan: u16,
}

/// What an endpoint's interface is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EndpointKind {
    /// A TAP in the container.
    #[default]
    Tap,
    /// One end of a veth pair.
    Veth,
}

/// A container: a network namespace with interfaces on our networks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ContainerInfo {
    /// Its name.
    pub(crate) name: String,
    /// A process in it, in the front's PID namespace, if it was named by one.
    pub(crate) pid: Option<u32>,
    /// The path of its network namespace, if it was named by that.
    pub(crate) namespace: Option<PathBuf>,
    /// Its interfaces, in the order they came.
    pub(crate) endpoints: Vec<EndpointInfo>,
    /// What is published of it.
    pub(crate) published: Vec<PublishedPort>,
    /// Ports that it offers to those it is linked to.
    pub(crate) exposed: Vec<Exposed>,
    /// Those that it was linked to.
    pub(crate) links: Vec<LinkInfo>,
    /// When it was attached, in Unix seconds.
    pub(crate) since: u64,
}

/// One published port with the host port it really has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PublishedPort {
    /// `tcp` or `udp`.
    #[cfg_attr(test, schemars(with = "schema::Transport"))]
    pub(crate) protocol: Transport,
    /// Where the host listens: an address, unspecified for all.
    pub(crate) host_ip: IpAddr,
    /// The host's port.
    pub(crate) host_port: u16,
    /// The container's port.
    pub(crate) container_port: u16,
}

/// An interface on a network, as it is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointSpec {
    /// The network.
    pub(crate) network: String,
    /// IPv4 address wanted.
    #[serde(default)]
    pub(crate) ip: Option<IpAddr>,
    /// IPv6 address wanted.
    #[serde(default)]
    pub(crate) ip6: Option<IpAddr>,
    /// MAC address wanted.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<schema::Mac>"))]
    pub(crate) mac: Option<MacAddr>,
    /// Further names on this network.
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    /// The higher, the sooner the default route leads here; among equals, to the first.
    #[serde(default)]
    pub(crate) gw_priority: i32,
    /// What the interface is to be.
    #[serde(default)]
    pub(crate) kind: EndpointKind,
    /// VLAN that the port is to have access to.
    #[serde(default)]
    pub(crate) vlan: Option<u16>,
}

/// Attach a container's network namespace to networks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct AttachRequest {
    /// A process in the namespace; it must belong to the caller.
    #[serde(default)]
    pub(crate) pid: Option<u32>,
    /// In its place, the path of the namespace, which must belong to the caller.
    #[serde(default)]
    pub(crate) namespace: Option<PathBuf>,
    /// Name wanted; made up if absent.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// The interfaces. A private network's front takes none for one on its network.
    #[serde(default)]
    pub(crate) endpoints: Vec<EndpointSpec>,
    /// Ports to publish; the attachment fails whole if one cannot be bound.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<schema::Publish>"))]
    pub(crate) publish: Vec<PublishSpec>,
    /// Ports that it offers to those it is linked to.
    #[serde(default)]
    pub(crate) expose: Vec<Exposed>,
    /// Containers to link it to, as their client.
    #[serde(default)]
    pub(crate) links: Vec<LinkSpec>,
    /// Names for the container's hosts file and DNS, `NAME:IP`.
    #[serde(default)]
    pub(crate) add_hosts: Vec<(String, IpAddr)>,
    /// Absolute path of a pcapng file for the container's first port.
    #[serde(default)]
    pub(crate) capture: Option<PathBuf>,
}

/// Connect a container that is attached already to one more network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectRequest {
    /// The container.
    pub(crate) container: String,
    /// The interface.
    pub(crate) endpoint: EndpointSpec,
}

/// Ports to publish or to take back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishRequest {
    /// The ports, in Docker's grammar.
    #[cfg_attr(test, schemars(with = "Vec<schema::Publish>"))]
    pub(crate) specs: Vec<PublishSpec>,
}

/// Flows ended by a flush.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Flushed {
    /// How many.
    pub(crate) flows: u64,
}

/// One entry of the conntrack table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct FlowInfo {
    /// The network's name.
    pub(crate) network: String,
    /// The container's name.
    pub(crate) container: String,
    /// The flow itself.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "schema::Flow"))]
    pub(crate) flow: pontoon_nat::flow::FlowView,
}

/// One row of the switch's forwarding table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    #[cfg_attr(test, schemars(with = "schema::Mac"))]
    pub(crate) mac: MacAddr,
    /// Seconds since it was last seen; `null` for a static entry.
    pub(crate) age: Option<u64>,
}

/// Counters of a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ApiError {
    /// What failed, on what, and what to do.
    pub(crate) error: String,
}
