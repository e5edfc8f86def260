//! The names that the gateway answers for: containers of the network, `--add-host`, its own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record};

use super::message::{self, HEADER, Question, rcode};
use crate::config::Config;

/// The gateway's own name, and the zone that is its alone. `internal` is reserved for private use (ICANN, 2024).
const GATEWAY: &str = "gateway.pontoon.internal";
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

/// Seconds for which a local answer may be kept: containers come and go.
const TTL: u32 = 5;
/// UDP payload that is offered by EDNS and fits any path (RFC 9715).
const EDNS_PAYLOAD: u16 = 1232;
/// UDP payload for clients without EDNS (RFC 1035 section 2.3.4).
const PLAIN_PAYLOAD: u16 = 512;

/// A name in wire form and lower case.
type Key = Box<[u8]>;

/// The names.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// From the configuration: these win, as a line of /etc/hosts does.
    fixed: HashMap<Key, (String, Vec<IpAddr>)>,
    containers: HashMap<Key, (String, Vec<IpAddr>)>,
    reverse: HashMap<IpAddr, String>,
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
        let own = [
            config.subnet4.map(|s| IpAddr::V4(s.gateway)),
            config.subnet6.map(|s| IpAddr::V6(s.gateway)),
        ];
        let own = own.into_iter().flatten().map(|a| (GATEWAY, a));
        for (name, addr) in own.chain(hosts.iter().map(|(n, a)| (n.as_str(), *a))) {
            if let Some(k) = key(name) {
                self.fixed
                    .entry(k)
                    .or_insert_with(|| (name.to_owned(), Vec::new()))
                    .1
                    .push(addr);
            }
        }
        self.index();
    }

    pub(super) fn set(&mut self, name: &str, addrs: Vec<IpAddr>) -> bool {
        let Some(k) = key(name) else {
            return false;
        };
        self.containers.insert(k, (name.to_owned(), addrs));
        self.index();
        true
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(k) = key(name) {
            self.containers.remove(&k);
            self.index();
        }
    }

    fn index(&mut self) {
        self.reverse.clear();
        // Containers last, so that an address's name is its container's.
        for (name, addrs) in self.fixed.values().chain(self.containers.values()) {
            for &addr in addrs {
                self.reverse.insert(addr, name.clone());
            }
        }
    }

    /// The response to `query`, if its name is ours to answer for. By UDP it is truncated to what the client takes.
    pub(super) fn answer(&self, config: &Config, query: &[u8], q: &Question, udp: bool) -> Option<Vec<u8>> {
        if q.class != IN && q.class != ANY_CLASS {
            return None;
        }
        let found =
            if let Some((_, addrs)) = self.fixed.get(q.name()).or_else(|| self.containers.get(q.name())) {
                Found::Addresses(addrs)
            } else if let Some(addr) = reversed(q.name()) {
                match self.reverse.get(&addr) {
                    Some(name) => Found::Name(name),
                    // RFC 6303: whom a private address belongs to is nobody else's business.
                    None if config.on_link(addr) => Found::Nothing,
                    None => return None,
                }
            } else if in_zone(q.name()) {
                Found::Nothing
            } else {
                return None;
            };
        Some(respond(query, q, found, udp).unwrap_or_else(|| message::error(query, rcode::FORMAT_ERROR)))
    }
}

/// What is known of a name.
enum Found<'a> {
    Addresses(&'a [IpAddr]),
    Name(&'a str),
    Nothing,
}

/// Writes the response; `None` if `query` does not parse as a whole.
fn respond(query: &[u8], q: &Question, found: Found<'_>, udp: bool) -> Option<Vec<u8>> {
    debug_assert!(query.len() >= HEADER);
    let request = Message::from_vec(query).ok()?;
    let asked = request.queries.first()?.clone();
    let mut response = Message::response(request.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.authoritative = true;
    let name = asked.name().clone();
    response.add_query(asked);
    match found {
        Found::Addresses(addrs) => {
            for addr in addrs {
                let data = match addr {
                    IpAddr::V4(a) if q.kind == kind::A || q.kind == kind::ANY => RData::A(A(*a)),
                    IpAddr::V6(a) if q.kind == kind::AAAA || q.kind == kind::ANY => RData::AAAA(AAAA(*a)),
                    // NODATA (RFC 2308 section 2.2): the name is there, but not of this type.
                    IpAddr::V4(_) | IpAddr::V6(_) => continue,
                };
                response.add_answer(Record::from_rdata(name.clone(), TTL, data));
            }
        }
        Found::Name(text) => {
            if q.kind == kind::PTR || q.kind == kind::ANY {
                let mut target = Name::from_ascii(text).ok()?;
                target.set_fqdn(true);
                response.add_answer(Record::from_rdata(name, TTL, RData::PTR(PTR(target))));
            }
        }
        Found::Nothing => response.metadata.response_code = ResponseCode::NXDomain,
    }
    let mut limit = PLAIN_PAYLOAD;
    if let Some(edns) = &request.edns {
        limit = edns.max_payload().max(PLAIN_PAYLOAD);
        let mut ours = Edns::new();
        ours.set_max_payload(EDNS_PAYLOAD);
        response.set_edns(ours);
    }
    let bytes = response.to_vec().ok()?;
    if udp && bytes.len() > usize::from(limit) {
        Some(message::truncated(&bytes))
    } else {
        Some(bytes)
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
