//! The way of a network to the world and to other networks: uplinks and routes.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use pontoon_switch::MacAddr;
use serde::{Deserialize, Serialize};

use crate::args::{RouteVia, UplinkAddress4, UplinkAddress6, UplinkLink};
#[cfg(test)]
use crate::openapi::schema;

/// By what packets leave a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EgressKind {
    /// The host's sockets.
    Host,
    /// A link of the gateway's own.
    Uplink,
    /// Nothing: the network is internal, or has no gateway of ours.
    None,
}

/// A link of the gateway's own to the world, as it is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct UplinkSpec {
    /// What it is.
    #[cfg_attr(test, schemars(with = "schema::UplinkLink"))]
    pub(crate) link: UplinkLink,
    /// The gateway's IPv4 address on it: with its prefix length, or `dhcp`. If neither this nor `address6` is there, `dhcp`; on a
    /// switch the next free one.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) address: Option<UplinkAddress4>,
    /// The gateway's IPv6 address on it: with its prefix length, or `slaac`.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub(crate) address6: Option<UplinkAddress6>,
    /// The routers, where addresses are fixed; one a family.
    #[serde(default)]
    pub(crate) gateways: Vec<IpAddr>,
}

/// Who gives addresses on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AddressSource {
    /// A DHCP server, those of IPv4.
    Dhcp,
    /// Router advertisements, those of IPv6.
    Slaac,
}

impl fmt::Display for AddressSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dhcp => "DHCP",
            Self::Slaac => "router advertisements",
        })
    }
}

/// A link of the gateway's own as it is now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct UplinkInfo {
    /// What it is.
    #[cfg_attr(test, schemars(with = "schema::UplinkLink"))]
    pub(crate) link: UplinkLink,
    /// The gateway's MAC address on it; `null` while it is to be that of an interface which is not there.
    #[cfg_attr(test, schemars(with = "Option<schema::Mac>"))]
    pub(crate) mac: Option<MacAddr>,
    /// Whether it is there. While it is not, it is tried again.
    pub(crate) up: bool,
    /// Why it is not there, or what is wrong with what the link has given. One that is not there and has no such reason is being made.
    pub(crate) error: Option<String>,
    /// Whether the interface has a carrier, where it is there and one of the host's: a cable, with something on its other end. One that
    /// has been taken down has none.
    pub(crate) carrier: Option<bool>,
    /// Since when it is there, or has had a carrier again: seconds since 1970.
    pub(crate) since: Option<u64>,
    /// Its MTU in bytes, if it is there.
    pub(crate) mtu: Option<u16>,
    /// The gateway's addresses on it with their prefix lengths.
    #[cfg_attr(test, schemars(with = "Vec<schema::Net>"))]
    pub(crate) addresses: Vec<IpNet>,
    /// By what it is to be given further ones, and has not been yet.
    pub(crate) awaits: Vec<AddressSource>,
    /// The routers on it.
    pub(crate) gateways: Vec<IpAddr>,
    /// The name servers that DHCP and router advertisements tell.
    pub(crate) resolvers: Vec<IpAddr>,
}

/// A route to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteRequest {
    /// The destinations.
    #[cfg_attr(test, schemars(with = "schema::Net"))]
    pub(crate) to: IpNet,
    /// A router's address, or the name of another network.
    #[cfg_attr(test, schemars(with = "schema::RouteVia"))]
    pub(crate) via: RouteVia,
}

/// A route of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RouteInfo {
    /// The network.
    pub(crate) network: String,
    /// The destinations.
    #[cfg_attr(test, schemars(with = "schema::Net"))]
    pub(crate) to: IpNet,
    /// A router's address, or the name of another network.
    #[cfg_attr(test, schemars(with = "schema::RouteVia"))]
    pub(crate) via: RouteVia,
}
