//! Who may use a published port: rules on the addresses of its clients.
//!
//! The rules of a container's port stand in order; the first that a client's address falls under decides, and one under
//! none may come. They apply to everything that leads to that port of the container, whichever host port it comes by,
//! published before them or after.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use pontoon_switch::PortId;
use serde::{Deserialize, Serialize};

use super::Transport;

/// What a rule says of the clients that it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceAction {
    /// They may come.
    Allow,
    /// They may not: TCP's are reset, UDP's not heard, and neither is told to the container.
    Deny,
}

/// A rule about clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SourceRule {
    /// What it says.
    pub action: SourceAction,
    /// Whom it is about, by the address that the host's socket sees. An IPv4-mapped network is one of IPv4.
    pub net: IpNet,
}

/// A container's port: where it is on the switch, and which of its ports.
pub(crate) type Target = (PortId, Transport, u16);

/// The rules of all published ports.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<Target, Vec<SourceRule>>);

impl Sources {
    /// These rules, in this order, apply to `target` from now on; none, if there are none.
    pub(crate) fn set(&mut self, target: Target, mut rules: Vec<SourceRule>) {
        if rules.is_empty() {
            self.0.remove(&target);
            return;
        }
        for rule in &mut rules {
            rule.net = canonical(rule.net);
        }
        self.0.insert(target, rules);
    }

    /// The container at `port` is gone.
    pub(crate) fn forget(&mut self, port: PortId) {
        self.0.retain(|&(p, ..), _| p != port);
    }

    /// True if `client` may not use `target`.
    pub(crate) fn denies(&self, target: Target, client: IpAddr) -> bool {
        // Where there are no rules at all nothing is looked up for each datagram.
        if self.0.is_empty() {
            return false;
        }
        let client = client.to_canonical();
        let rules = self.0.get(&target).map_or(&[][..], Vec::as_slice);
        let first = rules.iter().find(|rule| rule.net.contains(&client));
        first.is_some_and(|rule| match rule.action {
            SourceAction::Allow => false,
            SourceAction::Deny => true,
        })
    }
}

/// `net` as IPv4 if it is of IPv4-mapped addresses.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.prefix_len().checked_sub(96).zip(v6.addr().to_ipv4_mapped());
    mapped
        .and_then(|(len, addr)| Ipv4Net::new(addr, len).ok())
        .map_or(net, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = (PortId(3), Transport::Tcp, 80);

    fn rule(action: SourceAction, net: &str) -> SourceRule {
        let net = net.parse().unwrap();
        SourceRule { action, net }
    }

    fn denied(sources: &Sources, clients: &[&str]) -> Vec<bool> {
        let denies = |c: &&str| sources.denies(TARGET, c.parse().unwrap());
        clients.iter().map(denies).collect()
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_without_one_all_may_come() {
        use SourceAction::{Allow, Deny};
        let mut s = Sources::default();
        let clients = ["10.1.2.3", "10.9.9.9", "192.0.2.1", "2001:db8::1"];
        assert_eq!(denied(&s, &clients), [false; 4]);
        s.set(TARGET, vec![rule(Allow, "10.1.0.0/16"), rule(Deny, "10.0.0.0/8")]);
        assert_eq!(denied(&s, &clients), [false, true, false, false]);
        s.set(TARGET, vec![rule(Deny, "10.0.0.0/8"), rule(Allow, "10.1.0.0/16")]);
        assert_eq!(denied(&s, &clients), [true, true, false, false]);
        // Each version has an all of its own, as in iptables and ip6tables.
        s.set(TARGET, vec![rule(Allow, "10.9.9.9/32"), rule(Deny, "0.0.0.0/0")]);
        assert_eq!(denied(&s, &clients), [true, false, true, false]);
        s.set(TARGET, vec![rule(Deny, "::/0")]);
        assert_eq!(denied(&s, &clients), [false, false, false, true]);
        s.set(TARGET, Vec::new());
        assert_eq!(denied(&s, &clients), [false; 4]);
    }

    #[test]
    fn mapped_addresses_and_networks_are_ipv4() {
        let mut s = Sources::default();
        s.set(TARGET, vec![rule(SourceAction::Deny, "::ffff:10.0.0.0/104")]);
        assert_eq!(
            denied(&s, &["10.1.2.3", "::ffff:10.1.2.3", "11.0.0.1"]),
            [true, true, false]
        );
    }

    #[test]
    fn rules_are_of_one_port_of_one_container_and_go_with_it() {
        let mut s = Sources::default();
        let all = vec![rule(SourceAction::Deny, "0.0.0.0/0")];
        s.set(TARGET, all.clone());
        s.set((PortId(4), Transport::Tcp, 80), all);
        let client = "192.0.2.1".parse().unwrap();
        assert!(s.denies(TARGET, client));
        assert!(!s.denies((PortId(3), Transport::Udp, 80), client));
        assert!(!s.denies((PortId(3), Transport::Tcp, 81), client));
        s.forget(PortId(3));
        assert!(!s.denies(TARGET, client) && s.denies((PortId(4), Transport::Tcp, 80), client));
    }

    #[test]
    fn a_rule_is_readable_in_json() {
        let r = rule(SourceAction::Deny, "10.0.0.0/8");
        let json = serde_json::to_string(&r).unwrap();
        assert_eq!(json, r#"{"action":"deny","net":"10.0.0.0/8"}"#);
        assert_eq!(serde_json::from_str::<SourceRule>(&json).unwrap(), r);
    }
}
