//! Which ports of the gateway stand for which of the containers.
//!
//! # Theory of operation
//!
//! A flow that leaves for the world gets an *external* endpoint for its *internal* one: an address of the gateway's and a port,
//! which is the container's own where that is free, and else another of its class ([`space`]) that cannot be foreseen (RFC 6056).
//! Identifiers of ICMP echo are ports without classes; other protocols have none and are told apart by addresses alone.
//!
//! By [`Mapping::EndpointIndependent`] an internal endpoint has one external port whomever it talks to (RFC 4787 REQ-1, RFC 5382
//! REQ-1), which is its own alone. It lives as long as one flow does ([`Ports::release`]). Which ports of an address are taken is a
//! set of bits, so that a free one is found in a thousand steps at most however few there are left. No container gets all of
//! them ([`pool`]).
//!
//! By [`Mapping::PerConnection`] a port is free if the conntrack table has no flow with the reply tuple that would come of it;
//! nothing is kept or counted here: a container that uses up the ports does so for what goes to one peer alone. After the
//! container's own port so many others are tried at random ([`TRIES`]).
//!
//! Ports of rules of publishing are *reserved*: they are allotted to nobody. A mapping that stands there when the rule is made keeps
//! its port as long as it lives.
//!
//! # Who may come in
//!
//! What comes from outside to a mapping and belongs to no flow is let in by [`Ports::inbound`] (RFC 4787 REQ-8):
//!
//! - of UDP, by [`Filtering::AddressDependent`] from any port of an address that the mapping has a flow with ([`peers`]), by
//!   [`Filtering::EndpointIndependent`] from anywhere;
//! - of TCP, by `EndpointIndependent` from anywhere, else from nobody: RFC 5382 REQ-3 leaves the choice, and recommends filtering
//!   by address where it is to be strict. That would take a record for each connection, for callers that hardly exist; a peer whose
//!   SYN crosses the container's belongs to the flow and is not filtered;
//! - of ICMP and of what has no ports, nobody: an identifier is no place where a host can be called, and 0 is one as others. An
//!   echo request from outside is for the gateway itself whatever its identifier.

mod peers;
mod pool;
mod space;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use hashbrown::HashTable;
use pontoon_switch::{DropReason, PortId};
use siphasher::sip::SipHasher13;

use super::Mapping;
use crate::config::Filtering;
use crate::flow::{Protocol, Table, Tuple};

use peers::Peers;
use pool::Pools;
use space::Class;

/// How many ports are tried for a connection besides the container's own, in each class.
const TRIES: usize = 128;

/// An internal endpoint and the external one that stands for it.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    protocol: Protocol,
    internal: SocketAddr,
    external: SocketAddr,
    container: PortId,
    /// Flows by it; a slot without any is free.
    flows: u32,
}

/// What stands at an external endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inbound {
    /// The container's endpoint.
    pub internal: SocketAddr,
    /// The container's port on the switch.
    pub container: PortId,
    /// True if the filter lets the remote one in.
    pub allowed: bool,
}

/// Every port of the gateway's that stands for a container's.
#[derive(Debug)]
pub struct Ports {
    key: (u64, u64),
    filtering: Filtering,
    pools: Pools,
    mapped: Vec<Mapped>,
    free: Vec<u32>,
    by_internal: HashTable<u32>,
    by_external: HashTable<u32>,
    peers: Peers,
    random: Random,
}

/// Numbers that cannot be foreseen without the key.
#[derive(Debug)]
struct Random {
    key: (u64, u64),
    drawn: u64,
}

impl Random {
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        SipHasher13::new_with_keys(self.key.0, self.key.1).hash(&self.drawn.to_be_bytes())
    }
}

impl Ports {
    /// None yet. `key` is the secret of hash tables and choices: random, except in a test.
    pub fn new(key: (u64, u64), filtering: Filtering) -> Self {
        Self {
            key,
            filtering,
            pools: Pools::default(),
            mapped: Vec::new(),
            free: Vec::new(),
            by_internal: HashTable::new(),
            by_external: HashTable::new(),
            peers: Peers::default(),
            random: Random {
                key: (key.1, key.0),
                drawn: 0,
            },
        }
    }

    /// There is a container at `port`: ports are shared with it.
    pub fn attach(&mut self, port: PortId) {
        self.pools.attach(port);
    }

    /// The container at `port` is gone. What its flows hold is given back as they are released.
    pub fn detach(&mut self, port: PortId) {
        self.pools.detach(port);
    }

    /// Keeps `external` from being allotted: for a rule of publishing, or for the gateway itself. The unspecified address is any of
    /// its version. False, and nothing is done, if it is reserved already, be it for one address or any.
    pub fn reserve(&mut self, protocol: Protocol, external: SocketAddr) -> bool {
        self.pools.reserve(protocol, external)
    }

    /// Gives back what was reserved, by the same address. False if it was not.
    pub fn unreserve(&mut self, protocol: Protocol, external: SocketAddr) -> bool {
        self.pools.unreserve(protocol, external)
    }

    /// The external endpoint for a new flow of `container` with the original tuple `tuple`, whose source becomes `address` and whose
    /// packets go `to`: the tuple's destination, or what a published port or a mapping makes of it. It counts as a flow of its
    /// mapping from now on: [`Ports::release`] is due when it ends, [`Ports::take_back`] if it is not entered into `flows`.
    ///
    /// # Errors
    /// [`DropReason::PortsExhausted`] if no port is free, or none was found, or the container has its share.
    pub fn allot(
        &mut self,
        flows: &Table,
        tuple: &Tuple,
        to: SocketAddr,
        container: PortId,
        address: IpAddr,
        mapping: Mapping,
    ) -> Result<SocketAddr, DropReason> {
        match (tuple.protocol, mapping) {
            (Protocol::Other(_), _) => {
                let external = SocketAddr::new(address, 0);
                (!is_taken(flows, tuple.protocol, to, external))
                    .then_some(external)
                    .ok_or(DropReason::PortsExhausted)
            }
            (_, Mapping::PerConnection) => self.for_connection(flows, tuple, to, address),
            (_, Mapping::EndpointIndependent) => self.for_endpoint(tuple, container, address),
        }
    }

    /// The source of a flow whose source address is not translated: `tuple`'s own, as long as that makes the flow's reply tuple a new
    /// one, and another port of the same address where it does not. A client may use a port of its own for several published ports
    /// at a time, all of which lead `to` one of a container's; Linux keeps them apart in the same way (`get_unique_tuple` of
    /// `net/netfilter/nf_nat_core.c`). Nothing is counted.
    ///
    /// # Errors
    /// [`DropReason::PortsExhausted`] if none was found, or the protocol has no ports.
    pub fn keep_apart(
        &mut self,
        flows: &Table,
        tuple: &Tuple,
        to: SocketAddr,
    ) -> Result<SocketAddr, DropReason> {
        let fits = |external| !is_taken(flows, tuple.protocol, to, external);
        if fits(tuple.src) {
            return Ok(tuple.src);
        }
        if let Protocol::Other(_) = tuple.protocol {
            return Err(DropReason::PortsExhausted);
        }
        try_ports(&mut self.random, tuple, tuple.src.ip(), fits)
    }

    /// Undoes one [`Ports::allot`] that gave `external` for `tuple`, as its flow was not entered. A mapping that the flow called
    /// ([`Ports::adopt`]) is not touched.
    pub fn take_back(&mut self, tuple: &Tuple, external: SocketAddr) {
        self.leave(tuple.protocol, external, tuple.src, tuple.dst.ip());
    }

    /// A flow has ended: with its last one a mapping goes. `original` and `reply` are the flow's tuples; flows without a mapping
    /// may be told as well.
    pub fn release(&mut self, original: &Tuple, reply: &Tuple) {
        let protocol = original.protocol;
        // A container's flow to another one's external endpoint (hairpin) counts at both: at its own with whom it called, at the
        // called one's with its own external endpoint, which is the source that is seen there.
        self.leave(protocol, reply.dst, original.src, original.dst.ip());
        self.leave(protocol, original.dst, reply.src, reply.dst.ip());
    }

    /// What stands at `external`, for a packet from `remote` that belongs to no flow; nothing if nothing does, and always for
    /// protocols without ports.
    pub fn inbound(&self, protocol: Protocol, external: SocketAddr, remote: SocketAddr) -> Option<Inbound> {
        if !has_ports(protocol) {
            return None;
        }
        let mapped = &self.mapped[self.at_external(protocol, external)? as usize];
        let allowed = match self.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => {
                protocol == Protocol::Udp && self.peers.has(self.print(protocol, external, remote.ip()))
            }
        };
        Some(Inbound {
            internal: mapped.internal,
            container: mapped.container,
            allowed,
        })
    }

    /// Counts a new flow from `remote`, which [`Ports::inbound`] let in, as one of the mapping at `external`. False if there is none.
    pub fn adopt(&mut self, protocol: Protocol, external: SocketAddr, remote: SocketAddr) -> bool {
        let Some(index) = self
            .at_external(protocol, external)
            .filter(|_| has_ports(protocol))
        else {
            return false;
        };
        self.join(index, remote.ip());
        true
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.pools.memory()
            + self.mapped.capacity() * size_of::<Mapped>()
            + self.free.capacity() * size_of::<u32>()
            + self.by_internal.allocation_size()
            + self.by_external.allocation_size()
            + self.peers.memory()
    }

    /// A port that makes the flow's reply tuple a new one.
    fn for_connection(
        &mut self,
        flows: &Table,
        tuple: &Tuple,
        to: SocketAddr,
        address: IpAddr,
    ) -> Result<SocketAddr, DropReason> {
        let taken = self.pools.taken(tuple.protocol, address);
        let fits = |external: SocketAddr| {
            !taken.has(external.port()) && !is_taken(flows, tuple.protocol, to, external)
        };
        try_ports(&mut self.random, tuple, address, fits)
    }

    /// The port of the flow's internal endpoint.
    fn for_endpoint(
        &mut self,
        tuple: &Tuple,
        container: PortId,
        address: IpAddr,
    ) -> Result<SocketAddr, DropReason> {
        let (protocol, internal) = (tuple.protocol, tuple.src);
        let index = match self.at_internal(protocol, internal, address) {
            Some(index) => index,
            None => {
                let own = internal.port();
                let port = (self.pools.allows(protocol, own, address, container))
                    .then(|| self.free_port(protocol, own, address))
                    .flatten()
                    .ok_or(DropReason::PortsExhausted)?;
                self.open(Mapped {
                    protocol,
                    internal,
                    external: SocketAddr::new(address, port),
                    container,
                    flows: 0,
                })
            }
        };
        self.join(index, tuple.dst.ip());
        Ok(self.mapped[index as usize].external)
    }

    /// A port of `address` that nobody has, `own` if it can be.
    fn free_port(&mut self, protocol: Protocol, own: u16, address: IpAddr) -> Option<u16> {
        let taken = self.pools.taken(protocol, address);
        if keeps(protocol, own) && !taken.has(own) {
            return Some(own);
        }
        let random = self.random.draw();
        Class::of(protocol, own)
            .iter()
            .find_map(|class| class.free(class.pick(random), |word| taken.word(word)))
    }

    /// Enters a mapping without flows.
    fn open(&mut self, mapped: Mapped) -> u32 {
        let index = match self.free.pop() {
            Some(index) => {
                self.mapped[index as usize] = mapped;
                index
            }
            None => {
                self.mapped.push(mapped);
                self.mapped.len() as u32 - 1
            }
        };
        self.pools
            .take(mapped.protocol, mapped.external, mapped.container);
        let (key, all) = (self.key, &self.mapped);
        let internal = |&i: &u32| all[i as usize].internal_hash(key);
        (self.by_internal).insert_unique(internal(&index), index, internal);
        let external = |&i: &u32| all[i as usize].external_hash(key);
        (self.by_external).insert_unique(external(&index), index, external);
        index
    }

    /// One more flow of a mapping, with `remote`.
    fn join(&mut self, index: u32, remote: IpAddr) {
        let mapped = &mut self.mapped[index as usize];
        mapped.flows += 1;
        let Mapped {
            protocol, external, ..
        } = *mapped;
        if self.is_filtered(protocol) {
            self.peers.add(self.print(protocol, external, remote));
        }
    }

    /// A flow with `remote` less of the mapping at `external`, if that is for `internal`.
    fn leave(&mut self, protocol: Protocol, external: SocketAddr, internal: SocketAddr, remote: IpAddr) {
        let Some(index) = self.at_external(protocol, external) else {
            return;
        };
        let mapped = &mut self.mapped[index as usize];
        if mapped.internal != internal {
            return;
        }
        mapped.flows -= 1;
        let mapped = *mapped;
        if self.is_filtered(protocol) {
            self.peers.remove(self.print(protocol, external, remote));
        }
        if mapped.flows > 0 {
            return;
        }
        for (table, hash) in [
            (&mut self.by_internal, mapped.internal_hash(self.key)),
            (&mut self.by_external, mapped.external_hash(self.key)),
        ] {
            if let Ok(found) = table.find_entry(hash, |&i| i == index) {
                found.remove();
            }
        }
        self.free.push(index);
        self.pools.give_back(protocol, external, mapped.container);
    }

    /// True if who may come in depends on whom a mapping has flows with.
    fn is_filtered(&self, protocol: Protocol) -> bool {
        protocol == Protocol::Udp && self.filtering == Filtering::AddressDependent
    }

    fn at_internal(&self, protocol: Protocol, internal: SocketAddr, address: IpAddr) -> Option<u32> {
        let hash = hash(self.key, protocol, internal, Some(address));
        let same = |&i: &u32| {
            let m = &self.mapped[i as usize];
            m.protocol == protocol && m.internal == internal && m.external.ip() == address
        };
        self.by_internal.find(hash, same).copied()
    }

    fn at_external(&self, protocol: Protocol, external: SocketAddr) -> Option<u32> {
        let hash = hash(self.key, protocol, external, None);
        let same = |&i: &u32| {
            let m = &self.mapped[i as usize];
            m.protocol == protocol && m.external == external
        };
        self.by_external.find(hash, same).copied()
    }

    fn print(&self, protocol: Protocol, external: SocketAddr, remote: IpAddr) -> u64 {
        hash(self.key, protocol, external, Some(remote))
    }
}

impl Mapped {
    fn internal_hash(&self, key: (u64, u64)) -> u64 {
        hash(key, self.protocol, self.internal, Some(self.external.ip()))
    }

    fn external_hash(&self, key: (u64, u64)) -> u64 {
        hash(key, self.protocol, self.external, None)
    }
}

/// The source port of `tuple`, or else one of its class at random, with which `address` `fits`.
fn try_ports(
    random: &mut Random,
    tuple: &Tuple,
    address: IpAddr,
    fits: impl Fn(SocketAddr) -> bool,
) -> Result<SocketAddr, DropReason> {
    let (protocol, own) = (tuple.protocol, tuple.src.port());
    let external = SocketAddr::new(address, own);
    if keeps(protocol, own) && fits(external) {
        return Ok(external);
    }
    let mut tries = Class::of(protocol, own)
        .iter()
        .flat_map(|class| std::iter::repeat_n(class, TRIES));
    tries
        .find_map(|class| {
            let external = SocketAddr::new(address, class.pick(random.draw()));
            fits(external).then_some(external)
        })
        .ok_or(DropReason::PortsExhausted)
}

/// True if a flow's own port may stand for itself.
fn keeps(protocol: Protocol, own: u16) -> bool {
    own != 0 || matches!(protocol, Protocol::Icmp | Protocol::Icmp6)
}

/// True for protocols whose endpoints can be called.
fn has_ports(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp | Protocol::Udp => true,
        Protocol::Icmp | Protocol::Icmp6 | Protocol::Other(_) => false,
    }
}

/// True if the table has a flow with the reply tuple of one that goes `to` and comes from `external`.
fn is_taken(flows: &Table, protocol: Protocol, to: SocketAddr, external: SocketAddr) -> bool {
    let reply = Tuple {
        protocol,
        src: to,
        dst: external,
    };
    flows.lookup(&reply).is_some()
}

/// A keyed hash of an endpoint and an address.
fn hash(key: (u64, u64), protocol: Protocol, end: SocketAddr, address: Option<IpAddr>) -> u64 {
    let octets = |ip| match ip {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    };
    let mut bytes = [0; 36];
    bytes[..16].copy_from_slice(&octets(end.ip()));
    bytes[16..18].copy_from_slice(&end.port().to_be_bytes());
    bytes[18] = protocol.number();
    if let Some(address) = address {
        bytes[19] = 1;
        bytes[20..].copy_from_slice(&octets(address));
    }
    SipHasher13::new_with_keys(key.0, key.1).hash(&bytes)
}
