//! The names that the gateway answers for: containers of the network, `--add-host`, its own, and those that one
//! container alone is to know.
//!
//! # Theory of operation
//!
//! Who asks is known by the port of the switch that the question came from. A name is looked for in this order:
//!
//! 1. *fixed* names, the gateway's own and those of the configuration: they win, as a line of /etc/hosts does;
//! 2. the containers' names; one that several containers have is answered with the addresses of all, another first each time;
//! 3. the asker's *view*: names of the other networks that it is on, which nobody else here gets to know;
//! 4. names that are ours though nobody has them: of the zone `pontoon.internal`, and of the link's addresses.
//!
//! Anything else is not for us to answer. That goes for names of one label, too: as Docker's, this server hands them to
//! the host's resolvers, which may know a machine of the host's network by one. (Docker keeps them back only where the
//! user has set `ndots`, of which the gateway learns nothing.) So it goes for names of containers whose addresses are not
//! known here.
//!
//! A container comes and goes without a look at the others: each name has a set of who has it.

mod index;
mod respond;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pontoon_switch::PortId;

use super::message::{self, Question, rcode};
use crate::config::Config;
use index::Index;
use respond::{Found, respond};

/// The gateway's own name and, where its address leads to the host's loopback, the host's; and the zone that is theirs alone.
/// `internal` is reserved for private use (ICANN, 2024).
const GATEWAY: &str = "gateway.pontoon.internal";
const HOST: &str = "host.pontoon.internal";
const ZONE: &[u8] = b"\x07pontoon\x08internal\x00";

/// Types and classes of questions (RFC 1035 section 3.2; RFC 3596).
mod kind {
    pub(super) const A: u16 = 1;
    pub(super) const PTR: u16 = 12;
    pub(super) const AAAA: u16 = 28;
    pub(super) const ANY: u16 = 255;
}
const IN: u16 = 1;
const ANY_CLASS: u16 = 255;

/// A name in wire form and lower case.
type Key = Box<[u8]>;

/// The names.
#[derive(Debug, Default)]
pub(super) struct Names {
    fixed: HashMap<Key, Vec<IpAddr>>,
    fixed_reverse: HashMap<IpAddr, String>,
    containers: Index,
    views: HashMap<PortId, Index>,
}

/// Text as a name in wire form and lower case; `None` if it is none.
fn key(text: &str) -> Option<Key> {
    let text = text.trim_end_matches('.');
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.split('.') {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        wire.push(label.len() as u8);
        wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
    }
    wire.push(0);
    (wire.len() <= 255).then(|| wire.into())
}

impl Names {
    pub(super) fn new(config: &Config) -> Self {
        let mut names = Self::default();
        names.set_hosts(config, &config.hosts);
        names
    }

    /// Replaces the names that are not containers': the gateway's own, and `hosts`.
    pub(super) fn set_hosts(&mut self, config: &Config, hosts: &[(String, IpAddr)]) {
        self.fixed.clear();
        self.fixed_reverse.clear();
        let own = [
            config.subnet4.map(|s| IpAddr::V4(s.gateway)),
            config.subnet6.map(|s| IpAddr::V6(s.gateway)),
        ];
        let own = own.into_iter().flatten();
        let host = own.clone().filter(|_| config.leads_to_loopback());
        let own = own.map(|a| (GATEWAY, a)).chain(host.map(|a| (HOST, a)));
        for (name, addr) in own.chain(hosts.iter().map(|(n, a)| (n.as_str(), *a))) {
            if let Some(k) = key(name) {
                self.fixed.entry(k).or_default().push(addr);
                self.fixed_reverse.entry(addr).or_insert_with(|| name.to_owned());
            }
        }
    }

    /// The container at `port` has these names and addresses from now on. Those that are no names are left out, and given
    /// back. Without an address it has no name here.
    pub(super) fn set(&mut self, port: PortId, names: &[String], addrs: &[IpAddr]) -> Vec<String> {
        self.containers.remove(port);
        let addrs: Option<&[IpAddr]> = (!addrs.is_empty()).then_some(addrs);
        let entries = names
            .iter()
            .filter_map(|n| addrs.map(|addrs| (n.as_str(), addrs)));
        self.containers.insert(port, entries)
    }

    /// The container at `port` is answered these names besides, as [`Gateway::set_view`](crate::Gateway::set_view) says.
    pub(super) fn set_view(&mut self, port: PortId, names: &[(String, Vec<IpAddr>)]) -> Vec<String> {
        let mut view = Index::default();
        let entries = names.iter().map(|(n, addrs)| (n.as_str(), addrs.as_slice()));
        let refused = view.insert(port, entries);
        if view.is_empty() {
            self.views.remove(&port);
        } else {
            self.views.insert(port, view);
        }
        refused
    }

    /// The container at `port` is gone, and its view with it.
    pub(super) fn remove(&mut self, port: PortId) {
        self.containers.remove(port);
        self.views.remove(&port);
    }

    /// The response to the `query` of the container at `asker`, if its name is ours to answer for. By UDP it is truncated
    /// to what the client takes.
    pub(super) fn answer(
        &mut self,
        config: &Config,
        asker: PortId,
        query: &[u8],
        q: &Question,
        udp: bool,
    ) -> Option<Vec<u8>> {
        if q.class != IN && q.class != ANY_CLASS {
            return None;
        }
        let found = self.find(config, asker, q)?;
        Some(respond(query, q, &found, udp).unwrap_or_else(|| message::error(query, rcode::FORMAT_ERROR)))
    }

    fn find(&mut self, config: &Config, asker: PortId, q: &Question) -> Option<Found<'_>> {
        let mut view = self.views.get_mut(&asker);
        if let Some(addrs) = self.fixed.get(q.name()) {
            return Some(Found::Addresses(addrs.clone()));
        }
        let indices = [Some(&mut self.containers), view.as_deref_mut()];
        for index in indices.into_iter().flatten() {
            if let Some(addrs) = index.addresses(q.name(), q.kind) {
                return Some(Found::Addresses(addrs));
            }
        }
        if let Some(addr) = reversed(q.name()) {
            let name = self
                .containers
                .name_of(addr)
                .or_else(|| self.fixed_reverse.get(&addr).map(String::as_str))
                .or_else(|| view.and_then(|v| v.name_of(addr)));
            return match name {
                Some(name) => Some(Found::Name(name)),
                // RFC 6303: whom a private address belongs to is nobody else's business.
                None if config.on_link(addr) => Some(Found::Nothing),
                None => None,
            };
        }
        in_zone(q.name()).then_some(Found::Nothing)
    }
}

fn in_zone(name: &[u8]) -> bool {
    let mut rest = name;
    while let &[len, ref tail @ ..] = rest {
        if rest == ZONE {
            return true;
        }
        match tail.get(usize::from(len)..) {
            Some(next) if len > 0 => rest = next,
            _ => return false,
        }
    }
    false
}

/// The address that a name of `in-addr.arpa` (RFC 1035 section 3.5) or `ip6.arpa` (RFC 3596 section 2.5) stands for.
fn reversed(name: &[u8]) -> Option<IpAddr> {
    let mut labels: [&[u8]; 34] = [&[]; 34];
    let mut count = 0;
    let mut rest = name;
    while let &[len, ref tail @ ..] = rest {
        if len == 0 {
            break;
        }
        let (label, next) = tail.split_at_checked(len.into())?;
        *labels.get_mut(count)? = label;
        count += 1;
        rest = next;
    }
    match &labels[..count] {
        [d, c, b, a, b"in-addr", b"arpa"] => {
            let byte = |l: &[u8]| std::str::from_utf8(l).ok()?.parse::<u8>().ok();
            Some(Ipv4Addr::new(byte(a)?, byte(b)?, byte(c)?, byte(d)?).into())
        }
        [nibbles @ .., b"ip6", b"arpa"] if nibbles.len() == 32 => {
            let mut n = 0u128;
            for label in nibbles.iter().rev() {
                let &[digit] = *label else {
                    return None;
                };
                n = (n << 4) | u128::from(char::from(digit).to_digit(16)?);
            }
            Some(Ipv6Addr::from(n).into())
        }
        _ => None,
    }
}
