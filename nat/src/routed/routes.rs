//! Where a packet goes next: the network's own link, a link to another network, or the world.

use std::net::IpAddr;

use ipnet::IpNet;

use super::config::{Route, Via};
use crate::config::{Config, Egress};

/// The way that a destination is reached by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// On the switch, by this neighbour.
    Lan(IpAddr),
    /// By the link to another network that has this port.
    Peer(u32),
    /// By the link to the world, by this router if a route names one.
    World(Option<IpAddr>),
    /// By none of the gateway's own links: by the host's sockets, or not at all.
    Elsewhere,
}

/// The routes, the longest prefix first.
#[derive(Debug, Default)]
pub(super) struct Routes(Vec<Route>);

impl Routes {
    /// Replaces all routes.
    pub(super) fn set(&mut self, mut routes: Vec<Route>) {
        routes.sort_by_key(|r| std::cmp::Reverse(r.net.prefix_len()));
        self.0 = routes;
    }

    /// True if there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The way to `dst`.
    pub(super) fn way(&self, config: &Config, dst: IpAddr) -> Way {
        if config.on_link(dst) {
            return Way::Lan(dst);
        }
        match self.0.iter().find(|r| r.net.contains(&dst)).map(|r| r.via) {
            Some(Via::Link(port)) => Way::Peer(port),
            Some(Via::Router(router)) if config.on_link(router) => Way::Lan(router),
            Some(Via::Router(router)) => Way::World(Some(router)),
            None => match config.egress {
                Egress::Uplink => Way::World(None),
                Egress::Host | Egress::None => Way::Elsewhere,
            },
        }
    }

    /// Subnets behind routers on the switch, each with its router.
    pub(super) fn behind_neighbours(&self, config: &Config) -> Vec<(IpNet, IpAddr)> {
        let behind = |r: &Route| match r.via {
            Via::Router(router) if config.on_link(router) => Some((r.net, router)),
            Via::Router(_) | Via::Link(_) => None,
        };
        self.0.iter().filter_map(behind).collect()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }
}
