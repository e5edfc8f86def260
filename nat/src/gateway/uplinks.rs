//! Links of the gateway's own, and the routes by them.

use pontoon_switch::{Instant, Out, PortId};

use super::{Gateway, Lead, Rule};
use crate::host::Host;
use crate::publish::RuleId;
use crate::routed::{Route, RoutedRule, UplinkConfig, UplinkStatus};

impl<H: Host> Gateway<H> {
    /// Stands on one more link, by which the worker has been given `port` ([`pontoon_switch::Network::add_uplink`]).
    pub fn add_uplink(&mut self, now: Instant, port: PortId, config: UplinkConfig) {
        self.router.add_link(now, port, config);
    }

    /// Leaves the link of `port`: flows by a link to another network end, those by one to the world wait for the next such link. A
    /// lease is given back. False if there is none.
    pub fn remove_uplink(&mut self, port: PortId, out: &mut dyn Out) -> bool {
        self.router.remove_link(&mut self.shared.flows, port, out)
    }

    /// The links as they are now.
    pub fn uplinks(&self) -> Vec<(PortId, UplinkStatus)> {
        self.router.links().collect()
    }

    /// Routes beyond the network's own subnets from now on.
    pub fn set_routes(&mut self, now: Instant, routes: Vec<Route>, out: &mut dyn Out) {
        self.router.set_routes(&mut self.shared.cx(now, out), routes);
    }

    /// Leads clients of one of the gateway's ports on its link to the world to a container. `None` if another rule has
    /// that port.
    pub fn publish_routed(&mut self, rule: RoutedRule) -> Option<RuleId> {
        if !self.router.publish(RuleId(self.next_rule), rule) {
            return None;
        }
        Some(self.add_rule(Rule {
            port: rule.port,
            lead: Lead::Routed,
        }))
    }
}
