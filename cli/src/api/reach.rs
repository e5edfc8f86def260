//! Who reaches whom: links, rules for published ports, wires.

use std::net::IpAddr;

use ipnet::IpNet;
use pontoon_nat::publish::Transport;
use serde::{Deserialize, Serialize};

use crate::args::Exposed;
#[cfg(test)]
use crate::openapi::schema;

/// The server's side of a link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkSpec {
    /// The container that is reached.
    pub(crate) server: String,
    /// A name for it, for the client alone.
    #[serde(default)]
    pub(crate) alias: Option<String>,
    /// Its ports; those it exposes if none are named.
    #[serde(default)]
    pub(crate) ports: Vec<Exposed>,
}

/// Lets one container reach ports of another where containers do not reach each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkRequest {
    /// The container that reaches.
    pub(crate) client: String,
    /// The container that is reached.
    pub(crate) server: String,
    /// A name for it, for the client alone.
    #[serde(default)]
    pub(crate) alias: Option<String>,
    /// Its ports; those it exposes if none are named.
    #[serde(default)]
    pub(crate) ports: Vec<Exposed>,
}

impl LinkRequest {
    /// The server's side of it.
    pub(crate) fn spec(self) -> LinkSpec {
        LinkSpec {
            server: self.server,
            alias: self.alias,
            ports: self.ports,
        }
    }
}

/// A link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LinkInfo {
    /// The container that reaches.
    pub(crate) client: String,
    /// The container that is reached.
    pub(crate) server: String,
    /// The name that the client has for it.
    pub(crate) alias: String,
    /// The ports.
    pub(crate) ports: Vec<Exposed>,
    /// The server's addresses on networks that both are on.
    pub(crate) addresses: Vec<IpAddr>,
}

/// What becomes of a client of a published port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// It is led to the container.
    Allow,
    /// It is refused.
    Deny,
}

/// A rule for the clients of a published port. Rules apply in the order they were added; the first that fits decides, and
/// whom none fits is allowed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleRequest {
    /// Allowed or not.
    pub(crate) action: Action,
    /// The container, attached or still to come.
    pub(crate) container: String,
    /// Its port.
    pub(crate) port: u16,
    /// `tcp` or `udp`.
    #[cfg_attr(test, schemars(with = "schema::Transport"))]
    pub(crate) protocol: Transport,
    /// Clients meant.
    #[cfg_attr(test, schemars(with = "schema::Net"))]
    pub(crate) from: IpNet,
}

/// A rule that is in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RuleInfo {
    /// Its number.
    pub(crate) id: u32,
    /// Allowed or not.
    pub(crate) action: Action,
    /// The container.
    pub(crate) container: String,
    /// Its port.
    pub(crate) port: u16,
    /// `tcp` or `udp`.
    #[cfg_attr(test, schemars(with = "schema::Transport"))]
    pub(crate) protocol: Transport,
    /// Clients meant.
    #[cfg_attr(test, schemars(with = "schema::Net"))]
    pub(crate) from: IpNet,
}

/// A wire between two containers: one interface in each, and nothing between.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct WireRequest {
    /// One container.
    pub(crate) a: String,
    /// The other.
    pub(crate) b: String,
    /// Addresses of the first end and of the second; of our choice if there are none.
    #[serde(default)]
    pub(crate) addresses: Option<(IpAddr, IpAddr)>,
}

/// One end of a wire.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct WireEnd {
    /// The container.
    pub(crate) container: String,
    /// The interface in it.
    pub(crate) interface: String,
    /// Its address, which leads over the wire from the other end.
    pub(crate) address: IpAddr,
}

/// A wire.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct WireInfo {
    /// One end.
    pub(crate) a: WireEnd,
    /// The other.
    pub(crate) b: WireEnd,
    /// When it was made, in Unix seconds.
    pub(crate) since: u64,
}
