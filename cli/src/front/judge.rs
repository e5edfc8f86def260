//! Which routes can be: what is refused, and what has to stay while other routes stand on it.
//!
//! Three things are seen to. Nobody gets to send as a container of the network: a router on the switch may send from what is behind
//! it ([`Front::tell_routers`]), so that must not be the network itself. What is answered comes back: the network that a route
//! leads to has a way back by the same cable, and nothing else of its may lead to the same addresses. And a route via a network leads
//! to where that network itself knows a way.

use std::net::IpAddr;

use anyhow::anyhow;
use ipnet::IpNet;

use super::network::Network;
use super::registry::Front;
use super::{Refused, refused};
use crate::api::RouteInfo;
use crate::args::{RouteVia, check_destination};

impl Front {
    /// Whether a route can be.
    pub(super) fn judge(&self, route: &RouteInfo) -> Result<(), Refused> {
        let RouteInfo {
            network: name,
            to,
            via,
        } = route;
        let network = self.network(name)?;
        let wrong = |why: String| Err(refused(400, anyhow!(why)));
        if let Err(why) = check_destination(*to) {
            return wrong(why);
        }
        if !network.plan.gateway {
            return wrong(format!("network {name} has no gateway, so it has no routes"));
        }
        if network.plan.internal {
            return wrong(format!(
                "network {name} is internal: its containers have no way out, so it has no routes"
            ));
        }
        if self.routes.iter().any(|r| r.network == *name && r.to == *to) {
            return Err(refused(
                409,
                anyhow!("network {name} has a route to {to} already: remove it first"),
            ));
        }
        if let Some(own) = nets(network).find(|own| own.contains(to)) {
            return wrong(format!("{to} is in the network's own subnet {own}"));
        }
        match via {
            RouteVia::Router(router) => {
                judge_router(network, *to, *router)?;
                self.judge_behind(network, *to)
            }
            RouteVia::Network(other) => self.judge_network(network, *to, other),
        }
    }

    fn judge_network(&self, network: &Network, to: IpNet, other: &str) -> Result<(), Refused> {
        let name = network.name();
        let wrong = |why: String| Err(refused(400, anyhow!(why)));
        if !self.is_daemon() {
            return wrong(format!(
                "{name} is a private network, which has no routes to others: make networks by `pontoon network create`"
            ));
        }
        if other == name {
            return wrong(format!(
                "a route of network {name} leads to another network or by a router"
            ));
        }
        let there = self.network(other)?;
        if !there.plan.gateway || there.plan.internal {
            return wrong(format!(
                "network {other} {}, so no route leads there",
                if there.plan.gateway {
                    "is internal: its containers answer nobody beyond it"
                } else {
                    "has no gateway"
                }
            ));
        }
        for ours in nets(network) {
            if let Some(theirs) = nets(there).find(|theirs| overlaps(&ours, theirs)) {
                return wrong(format!(
                    "the subnets of {name} and {other} overlap ({ours} and {theirs}), so nobody could say where an address is: \
                     make one of them with another --subnet"
                ));
            }
        }
        if !self.reached_at(there, None).iter().any(|net| net.contains(&to)) {
            return wrong(format!(
                "{to} is neither in a subnet of network {other} ({}) nor behind a router that it has a route by",
                nets(there).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
            ));
        }
        if !nets(network).any(|ours| is_ipv4(&ours) == is_ipv4(&to)) {
            return wrong(format!(
                "network {name} has no addresses of the IP version of {to}"
            ));
        }
        self.judge_way_back(network, there)
    }

    /// Whether what `there` answers to containers of `network` comes back: nothing else of its may have their addresses.
    fn judge_way_back(&self, network: &Network, there: &Network) -> Result<(), Refused> {
        let (name, other) = (network.name(), there.name());
        let clash = |what: String| Err(refused(409, anyhow!("{what}, so answers would not come back")));
        for ours in nets(network) {
            for third in self.routed_to(other).into_iter().filter(|third| *third != name) {
                let subnets = self.networks.get(third).into_iter().flat_map(nets);
                if let Some(theirs) = subnets.into_iter().find(|theirs| overlaps(&ours, theirs)) {
                    return clash(format!(
                        "network {third} has routes to {other} too, and its subnet {theirs} and {ours} of {name} overlap"
                    ));
                }
            }
            let leads_away = |r: &&RouteInfo| {
                let elsewhere = r.via != RouteVia::Network(name.to_owned());
                // One that is less specific gives way.
                r.network == other && elsewhere && ours.contains(&r.to)
            };
            if let Some(route) = self.routes.iter().find(leads_away) {
                return clash(format!(
                    "network {other} has a route to {} via {}, which is in the subnet {ours} of {name}",
                    route.to, route.via
                ));
            }
            let on_uplink = there.uplink_addresses();
            if let Some(on_link) = on_uplink
                .iter()
                .map(IpNet::trunc)
                .find(|net| overlaps(&ours, net))
            {
                return clash(format!(
                    "the uplink of network {other} is on {on_link}, which overlaps the subnet {ours} of {name}"
                ));
            }
        }
        Ok(())
    }

    /// Whether a route of `network` by a router leads away what it is to answer to other networks.
    fn judge_behind(&self, network: &Network, to: IpNet) -> Result<(), Refused> {
        let name = network.name();
        for client in self.routed_to(name) {
            let subnets = self.networks.get(client).into_iter().flat_map(nets);
            if let Some(theirs) = subnets.into_iter().find(|theirs| theirs.contains(&to)) {
                return Err(refused(
                    409,
                    anyhow!(
                        "{to} is in {theirs}, the subnet of network {client}, which has routes to {name}, so answers would not come \
                         back: remove those first"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// What routes via a network may lead to: its subnets, and what is behind routers that it has routes by, but for the route
    /// number `without`.
    fn reached_at(&self, there: &Network, without: Option<usize>) -> Vec<IpNet> {
        let by_routers = self.routes.iter().enumerate().filter(|(i, r)| {
            r.network == there.name() && matches!(r.via, RouteVia::Router(_)) && Some(*i) != without
        });
        nets(there).chain(by_routers.map(|(_, r)| r.to)).collect()
    }

    /// The routes of other networks that lead to what only the route number `at` leads to, in words.
    pub(super) fn standing_on(&self, at: usize) -> Vec<String> {
        let route = &self.routes[at];
        let Some(network) = self.networks.get(&route.network) else {
            return Vec::new();
        };
        let left = self.reached_at(network, Some(at));
        let via = RouteVia::Network(route.network.clone());
        let stands = |r: &&RouteInfo| {
            r.via == via && route.to.contains(&r.to) && !left.iter().any(|net| net.contains(&r.to))
        };
        let standing = self.routes.iter().filter(stands);
        standing
            .map(|r| format!("that of {} to {}", r.network, r.to))
            .collect()
    }
}

fn judge_router(network: &Network, to: IpNet, router: IpAddr) -> Result<(), Refused> {
    let name = network.name();
    let wrong = |why: String| Err(refused(400, anyhow!(why)));
    if router.is_ipv4() != is_ipv4(&to) {
        return wrong(format!("{router} and {to} are of different IP versions"));
    }
    if network.routers().contains(&router) || network.uplink_addresses().iter().any(|a| a.addr() == router) {
        return wrong(format!(
            "{router} is the gateway of network {name} itself: name another router"
        ));
    }
    let on_link: Vec<IpNet> = nets(network)
        .chain(network.uplink_addresses().iter().map(IpNet::trunc))
        .collect();
    if !on_link.iter().any(|net| net.contains(&router)) {
        let list: Vec<String> = on_link.iter().map(ToString::to_string).collect();
        return wrong(format!(
            "{router} is neither on network {name} nor on its uplink, as far as that is known: {}",
            list.join(", ")
        ));
    }
    // The router's port may send from there, and so as any container.
    if nets(network).any(|net| net.contains(&router))
        && let Some(own) = nets(network).find(|own| overlaps(own, &to))
    {
        return wrong(format!(
            "{to} overlaps the network's own subnet {own}, whose addresses a router on the network is not to send from: name the \
             ranges that are behind {router}"
        ));
    }
    Ok(())
}

/// The subnets of a network.
pub(super) fn nets(network: &Network) -> impl Iterator<Item = IpNet> + '_ {
    network.plan.subnets.iter().map(|s| s.net)
}

/// Whether two ranges have addresses in common.
pub(super) fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn is_ipv4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}
