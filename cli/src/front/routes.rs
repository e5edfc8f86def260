//! Routes: to what is behind a router, and to other networks.
//!
//! A route by a router is told to the network's gateway, and if the router is on the network's own switch, its port is told that it
//! may send from there.
//!
//! Networks reach each other by a *cable* between their gateways, one for each pair in which the first opens flows to the second.
//! All routes from the one to the other share it, and it goes with the last. The second has a route back by its end, by which
//! nobody there can open anything.
//!
//! ```text
//!  A  10.30.0.0/24 ── gateway ══ cable ══ gateway ── B  10.31.0.0/24
//!     10.31.0.0/24 by it                  10.30.0.0/24 by it, answers only
//! ```

use std::net::IpAddr;

use anyhow::{Context, Result, anyhow};
use ipnet::IpNet;
use pontoon_nat::routed::{Route, Via};

use super::cables::Cable;
use super::judge::nets;
use super::registry::Front;
use super::{Refused, refused};
use crate::api::{RouteInfo, RouteRequest};
use crate::args::RouteVia;
use crate::packet::protocol::Command;

impl Front {
    /// The routes of a network, in the order in which they were added.
    pub(super) fn routes_of(&self, network: &str) -> Result<Vec<RouteInfo>, Refused> {
        self.network(network)?;
        let own = self.routes.iter().filter(|r| r.network == network);
        Ok(own.cloned().collect())
    }

    /// Adds a route.
    pub(super) fn add_route(&mut self, network: &str, request: RouteRequest) -> Result<RouteInfo, Refused> {
        let route = RouteInfo {
            network: network.to_owned(),
            to: request.to,
            via: request.via,
        };
        self.look_at_uplink(network);
        if let RouteVia::Network(other) = &route.via {
            self.look_at_uplink(other);
        }
        self.judge(&route)?;
        self.routes.push(route.clone());
        let done = self.apply_route(&route).and_then(|()| self.save_for_good());
        match done {
            Ok(()) => Ok(route),
            Err(e) => {
                self.routes.retain(|r| *r != route);
                self.unapply_route(&route);
                Err(e.context("cannot add the route").into())
            }
        }
    }

    /// Removes a route.
    pub(super) fn remove_route(&mut self, network: &str, to: IpNet) -> Result<(), Refused> {
        self.network(network)?;
        let is_it = |r: &RouteInfo| r.network == network && r.to == to;
        let Some(at) = self.routes.iter().position(is_it) else {
            return Err(refused(
                404,
                anyhow!("network {network} has no route to {to}: see `pontoon route {network} ls`"),
            ));
        };
        let standing = self.standing_on(at);
        if !standing.is_empty() {
            return Err(refused(
                409,
                anyhow!(
                    "other routes stand on this one: remove first {}",
                    standing.join(" and ")
                ),
            ));
        }
        let route = self.routes.remove(at);
        self.unapply_route(&route);
        self.save_for_good()?;
        Ok(())
    }

    /// Has the gateways take a route.
    fn apply_route(&mut self, route: &RouteInfo) -> Result<()> {
        match &route.via {
            RouteVia::Router(_) => {
                self.send_routes(&route.network)?;
                self.tell_routers(&route.network);
                Ok(())
            }
            RouteVia::Network(other) => {
                if !self.cables.iter().any(|c| c.is_between(&route.network, other)) {
                    self.cables.push(Cable::between(&route.network, other));
                    let last = self.cables.len() - 1;
                    self.lay(last)?;
                }
                self.send_routes(other)?;
                self.send_routes(&route.network)
            }
        }
    }

    /// Has the gateways forget a route that is in the list no more.
    fn unapply_route(&mut self, route: &RouteInfo) {
        if let RouteVia::Network(other) = &route.via
            && !self.has_routes(&route.network, other)
            && let Some(at) = self
                .cables
                .iter()
                .position(|c| c.is_between(&route.network, other))
        {
            self.pull(at);
            self.cables.remove(at);
            self.send_routes_or_log(other);
        }
        self.send_routes_or_log(&route.network);
        self.tell_routers(&route.network);
    }

    fn has_routes(&self, from: &str, to: &str) -> bool {
        let leads = |r: &RouteInfo| r.network == from && r.via == RouteVia::Network(to.to_owned());
        self.routes.iter().any(leads)
    }

    /// The networks with routes to this one.
    pub(super) fn routed_to(&self, other: &str) -> Vec<&str> {
        let mut from: Vec<&str> = self
            .routes
            .iter()
            .filter(|r| r.via == RouteVia::Network(other.to_owned()))
            .map(|r| r.network.as_str())
            .collect();
        from.sort_unstable();
        from.dedup();
        from
    }

    /// A network goes, and its own routes with it.
    pub(super) fn give_up_routes(&mut self, network: &str) {
        self.routes.retain(|r| r.network != network);
        while let Some(at) = self.cables.iter().position(|c| c.touches(network)) {
            self.pull(at);
            let cable = self.cables.remove(at);
            self.send_routes_or_log(cable.beyond(network));
        }
    }

    /// Tells a gateway its routes, if there is anything to tell.
    fn send_routes(&mut self, name: &str) -> Result<()> {
        let routes = self.routes_for(name);
        let network = self.networks.get_mut(name).context("the network is gone")?;
        if routes == network.told_routes {
            return Ok(());
        }
        network.call(
            &Command::SetRoutes {
                routes: routes.clone(),
            },
            &[],
        )?;
        network.told_routes = routes;
        Ok(())
    }

    pub(super) fn send_routes_or_log(&mut self, name: &str) {
        if self.networks.get(name).is_none_or(|n| n.packet_fd().is_none()) {
            return;
        }
        if let Err(e) = self.send_routes(name) {
            tracing::error!("cannot change the routes of network {name}: {e:#}");
        }
    }

    /// What a gateway is told: its own routes, as far as there is a way, and those back to networks that have routes to it.
    fn routes_for(&self, name: &str) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        for route in self.routes.iter().filter(|r| r.network == name) {
            let via = match &route.via {
                RouteVia::Router(router) => Some(Via::Router(*router)),
                RouteVia::Network(other) => {
                    let cable = self.cables.iter().find(|c| c.is_between(name, other));
                    cable.and_then(|c| c.end_at(name)).map(Via::Link)
                }
            };
            routes.extend(via.map(|via| Route { net: route.to, via }));
        }
        for cable in self.cables.iter().filter(|c| c.to == name) {
            let (Some(end), Some(from)) = (cable.end_at(name), self.networks.get(&cable.from)) else {
                continue;
            };
            for net in nets(from) {
                // A route the other way leads there already.
                if !routes.iter().any(|r| r.net == net) {
                    routes.push(Route {
                        net,
                        via: Via::Link(end),
                    });
                }
            }
        }
        routes
    }

    /// Has the addresses that a network's routes lead to given to nobody who does not ask for them: a route is about a machine, and
    /// whoever came after it would inherit what it may send.
    pub(super) fn keep_routers(&mut self, name: &str) {
        let own = self.routes.iter().filter(|r| r.network == name);
        let routers: Vec<IpAddr> = own
            .filter_map(|r| match r.via {
                RouteVia::Router(router) => Some(router),
                RouteVia::Network(_) => None,
            })
            .collect();
        if let Some(network) = self.networks.get_mut(name) {
            network.keep_routers(&routers);
        }
    }

    /// Tells the switch of a network which of its ports are routers, and so may send from what is behind them.
    pub(super) fn tell_routers(&mut self, name: &str) {
        self.keep_routers(name);
        let members = self
            .members(name)
            .map(|(_, e)| (e.info.port, e.info.addresses.clone()));
        let ports: Vec<(u32, Vec<IpAddr>)> = members.chain(self.patched_ports(name)).collect();
        let behind = |addresses: &[IpAddr]| -> Vec<IpNet> {
            let own = self.routes.iter().filter(|r| r.network == name);
            own.filter(|r| matches!(&r.via, RouteVia::Router(router) if addresses.contains(router)))
                .map(|r| r.to)
                .collect()
        };
        let told: Vec<(u32, Vec<IpNet>)> = ports
            .iter()
            .map(|(port, addresses)| (*port, behind(addresses)))
            .collect();
        let Some(network) = self.networks.get_mut(name) else {
            return;
        };
        for (port, nets) in told {
            let before = network.told_behind.get(&port);
            if before.map_or(nets.is_empty(), |before| *before == nets) {
                continue;
            }
            match network.call(
                &Command::SetBehind {
                    port,
                    nets: nets.clone(),
                },
                &[],
            ) {
                Ok(_) => drop(network.told_behind.insert(port, nets)),
                Err(e) => tracing::error!("port {port} of network {name} cannot be a router: {e:#}"),
            }
        }
    }
}
