//! Published ports of routed egress (DNAT): which of the gateway's ports lead to which container.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use pontoon_switch::PortId;

use crate::flow::Protocol;
use crate::publish::{RuleId, Transport};

/// One port of the gateway's that leads to a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoutedRule {
    /// The container's port on the switch.
    pub port: PortId,
    /// TCP or UDP.
    pub transport: Transport,
    /// The gateway's address and port; an unspecified address means whichever the gateway has.
    pub host: SocketAddr,
    /// The container's address and port, of the same IP version.
    pub container: SocketAddr,
}

impl RoutedRule {
    fn is_for(&self, address: IpAddr) -> bool {
        self.host.ip() == address || self.host.ip().is_unspecified()
    }

    /// The protocol of its flows.
    pub(super) fn protocol(&self) -> Protocol {
        match self.transport {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        }
    }
}

/// The transport protocol with ports that `protocol` is, if it is one.
pub(super) fn transport(protocol: Protocol) -> Option<Transport> {
    match protocol {
        Protocol::Tcp => Some(Transport::Tcp),
        Protocol::Udp => Some(Transport::Udp),
        Protocol::Icmp | Protocol::Icmp6 | Protocol::Other(_) => None,
    }
}

/// A rule that a packet falls under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// Its number.
    pub(super) id: RuleId,
    /// The container's port on the switch.
    pub(super) port: PortId,
    /// Where it leads.
    pub(super) container: SocketAddr,
}

/// By what a rule is found: protocol, IP version, the gateway's port.
type Key = (Transport, bool, u16);

/// All rules.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: BTreeMap<RuleId, RoutedRule>,
    index: HashMap<Key, Vec<RuleId>>,
    by_container: HashMap<(Transport, SocketAddr), Vec<RuleId>>,
}

impl Rules {
    fn key(rule: &RoutedRule) -> Key {
        (rule.transport, rule.host.is_ipv4(), rule.host.port())
    }

    /// False, and nothing done, if another rule has the port of that address already.
    pub(super) fn insert(&mut self, id: RuleId, rule: RoutedRule) -> bool {
        let ids = self.index.entry(Self::key(&rule)).or_default();
        let taken = ids.iter().any(|id| {
            self.rules
                .get(id)
                .is_some_and(|r| r.is_for(rule.host.ip()) || rule.host.ip().is_unspecified())
        });
        if !taken {
            ids.push(id);
            let there = (rule.transport, rule.container);
            self.by_container.entry(there).or_default().push(id);
            self.rules.insert(id, rule);
        }
        !taken
    }

    pub(super) fn remove(&mut self, id: RuleId) -> Option<RoutedRule> {
        let rule = self.rules.remove(&id)?;
        forget(&mut self.index, Self::key(&rule), id);
        forget(&mut self.by_container, (rule.transport, rule.container), id);
        Some(rule)
    }

    /// The rule that `to`, one of the gateway's own addresses and a port there, falls under.
    pub(super) fn find(&self, transport: Transport, to: SocketAddr) -> Option<Found> {
        let ids = self.index.get(&(transport, to.is_ipv4(), to.port()))?;
        let mut rules = ids.iter().filter_map(|&id| Some((id, self.rules.get(&id)?)));
        let (id, rule) = rules.find(|(_, r)| r.is_for(to.ip()))?;
        Some(Found {
            id,
            port: rule.port,
            container: rule.container,
        })
    }

    /// The number of a rule that leads to `to`, a container's address and port.
    pub(super) fn leading_to(&self, transport: Transport, to: SocketAddr) -> Option<RuleId> {
        self.by_container.get(&(transport, to))?.first().copied()
    }

    /// The endpoint at `address` that leads to `container`.
    pub(super) fn host_of(
        &self,
        transport: Transport,
        container: SocketAddr,
        address: IpAddr,
    ) -> Option<SocketAddr> {
        let ids = self.by_container.get(&(transport, container))?;
        let mut rules = ids.iter().filter_map(|id| self.rules.get(id));
        let rule = rules.find(|r| r.is_for(address) && r.host.is_ipv4() == address.is_ipv4())?;
        Some(SocketAddr::new(address, rule.host.port()))
    }

    /// Rules of the container at `port`.
    pub(super) fn of(&self, port: PortId) -> Vec<RuleId> {
        let own = self.rules.iter().filter(|(_, r)| r.port == port);
        own.map(|(&id, _)| id).collect()
    }
}

fn forget<K: Eq + Hash>(index: &mut HashMap<K, Vec<RuleId>>, key: K, id: RuleId) {
    if let Some(ids) = index.get_mut(&key) {
        ids.retain(|&i| i != id);
        if ids.is_empty() {
            index.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str, container: &str) -> RoutedRule {
        RoutedRule {
            port: PortId(3),
            transport: Transport::Tcp,
            host: host.parse().unwrap(),
            container: container.parse().unwrap(),
        }
    }

    #[test]
    fn a_port_of_an_address_leads_to_one_container() {
        let mut rules = Rules::default();
        assert!(rules.insert(RuleId(1), rule("0.0.0.0:80", "10.0.2.9:8080")));
        assert!(!rules.insert(RuleId(2), rule("192.0.2.1:80", "10.0.2.10:80")));
        assert!(!rules.insert(RuleId(2), rule("0.0.0.0:80", "10.0.2.10:80")));
        assert!(rules.insert(RuleId(2), rule("[::]:80", "[fd00::9]:80")));
        assert!(rules.insert(RuleId(3), rule("192.0.2.1:81", "10.0.2.10:80")));
        assert!(rules.insert(RuleId(4), rule("192.0.2.2:81", "10.0.2.11:80")));
        let find = |rules: &Rules, to: &str| {
            rules
                .find(Transport::Tcp, to.parse().unwrap())
                .map(|r| r.container)
        };
        assert_eq!(
            find(&rules, "192.0.2.7:80"),
            Some("10.0.2.9:8080".parse().unwrap())
        );
        assert_eq!(
            find(&rules, "192.0.2.2:81"),
            Some("10.0.2.11:80".parse().unwrap())
        );
        assert_eq!(find(&rules, "192.0.2.3:81"), None);
        assert_eq!(rules.find(Transport::Udp, "192.0.2.7:80".parse().unwrap()), None);
        let container = "10.0.2.9:8080".parse().unwrap();
        assert_eq!(rules.leading_to(Transport::Tcp, container), Some(RuleId(1)));
        let host = |address: &str| rules.host_of(Transport::Tcp, container, address.parse().unwrap());
        assert_eq!(host("192.0.2.7"), Some("192.0.2.7:80".parse().unwrap()));
        assert_eq!(host("2001:db8::1"), None);
        assert_eq!(rules.of(PortId(3)).len(), 4);
        assert!(rules.remove(RuleId(1)).is_some() && rules.remove(RuleId(1)).is_none());
        assert_eq!(find(&rules, "192.0.2.7:80"), None);
    }
}
