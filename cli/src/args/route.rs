//! `pontoon route`: where a network's gateway sends what is not on the network itself.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::JsonArgs;
use super::uplink::as_text;
use super::values::{parse_host, parse_network, parse_range};
use crate::api::RouteRequest;

/// `pontoon route`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
A route via an address leads to a router on the network itself, a container for instance, or on its uplink. A route via a \
network lets containers reach addresses there by their own addresses, untranslated; answers come back, and nothing there \
can open a connection the other way unless there is a route the other way. Routes go with their network; one that routes of \
others lead to cannot be removed before these.

Examples:
  pontoon route shop add 10.31.0.0/24 via back
                            shop's containers reach those of back, which
                            reach no container of shop's by themselves
  pontoon route shop add 192.168.7.0/24 via 10.30.0.9
                            behind the container 10.30.0.9 is more
  pontoon route shop ls
  pontoon route shop del 10.31.0.0/24")]
pub(crate) struct RouteArgs {
    /// The network
    #[arg(value_parser = parse_network)]
    pub(crate) network: String,
    #[command(subcommand)]
    pub(crate) command: RouteCommand,
}

/// What is done with routes.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum RouteCommand {
    /// Add a route: CIDR via ADDR|NETWORK
    Add(RouteAddArgs),
    /// List routes
    Ls(JsonArgs),
    /// Remove a route
    #[command(visible_alias = "rm")]
    Del(RouteDelArgs),
}

/// `pontoon route NETWORK add`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RouteAddArgs {
    /// The destinations: a range, or one address
    #[arg(value_name = "CIDR", value_parser = parse_destination)]
    pub(crate) to: IpNet,
    /// The word `via`
    #[arg(value_name = "via", value_parser = ["via"], hide_possible_values = true)]
    pub(crate) word: String,
    /// A router's address, or another network of the daemon
    #[arg(value_name = "ADDR|NETWORK")]
    pub(crate) via: RouteVia,
    /// Print the route as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl RouteAddArgs {
    /// What the front is asked for.
    pub(crate) fn request(&self) -> RouteRequest {
        RouteRequest {
            to: self.to,
            via: self.via.clone(),
        }
    }
}

/// `pontoon route NETWORK del`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RouteDelArgs {
    /// The destinations, as they were given
    #[arg(value_name = "CIDR", value_parser = parse_destination)]
    pub(crate) to: IpNet,
}

/// `ADDR|NETWORK`: where a route leads.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum RouteVia {
    /// To a router, on the network itself or on its uplink.
    Router(IpAddr),
    /// To the gateway of another network.
    Network(String),
}

impl FromStr for RouteVia {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.parse::<IpAddr>() {
            Ok(_) => parse_host(s).map(Self::Router),
            Err(_) => parse_network(s).map(Self::Network),
        }
    }
}

impl fmt::Display for RouteVia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router(address) => address.fmt(f),
            Self::Network(name) => f.write_str(name),
        }
    }
}

as_text!(RouteVia);

/// The destinations of a route: a range, or one address.
pub(crate) fn parse_destination(s: &str) -> Result<IpNet, String> {
    let net = parse_range(s)?;
    check_destination(net).map(|()| net)
}

/// Whether routes can lead to a range.
///
/// # Errors
/// Why not.
pub(crate) fn check_destination(net: IpNet) -> Result<(), String> {
    if net.trunc() != net {
        return Err(format!(
            "{net} is an address in a range: the range is {}",
            net.trunc()
        ));
    }
    let address = net.addr();
    let unusable = address.is_multicast()
        || address.is_loopback()
        || (address.is_unspecified() && net.prefix_len() == net.max_prefix_len());
    if unusable {
        return Err(format!("{net} is not a range that routes lead to"));
    }
    Ok(())
}
