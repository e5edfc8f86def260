//! The ports of each address of the gateway's: which are reserved, which are held, and by whom.
//!
//! # Theory of operation
//!
//! A *pool* is what one address has for one protocol: its used ports as a set of bits, and for each range, the ports below 1024
//! and the others, how many are still free and how many each container holds. ICMP's identifiers are one range.
//!
//! One container that sends a packet from each of its ports would hold every port of a range for as long as its flows live.
//! Ranges are therefore shared as the host's descriptors are ([`crate::share`]), by the same dynamic threshold (Choudhury and Hahne):
//! a container may hold at most [`WEIGHT`] times as many as are free, one that is alone in its network [`ALONE`] times as many.
//! Of the 64,512 ports from 1024 on the first to take what it can gets 57,344 if there are others, and 64,008 if there are none.
//!
//! Reserved ports are no part of what is free. They are kept for each address, and for any; the two never overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hashbrown::{HashMap, HashSet};
use pontoon_switch::PortId;

use super::space::{Bits, Class};
use crate::flow::Protocol;
use crate::share::{ALONE, WEIGHT};

/// So many pools are kept though nobody holds a port of theirs.
const KEPT: usize = 16;

/// A number for each of a pool's ranges, by [`Class::range`].
type PerRange = [u32; Class::RANGES];

/// The ports that one address has for one protocol.
#[derive(Debug)]
struct Pool {
    used: Bits,
    /// Neither used nor reserved.
    free: PerRange,
    /// Of those used, by whom; containers that hold none are left out.
    held: HashMap<PortId, PerRange>,
}

/// The ports of every address, and who shares them.
#[derive(Debug, Default)]
pub(super) struct Pools {
    reserved: HashMap<(Protocol, IpAddr), Bits>,
    pools: HashMap<(Protocol, IpAddr), Pool>,
    containers: HashSet<PortId>,
}

/// Which ports of an address nobody else can have: reserved for any address, for this one, or used.
pub(super) struct Taken<'a>([Option<&'a Bits>; 3]);

impl Taken<'_> {
    /// The 64 ports from `64 * index` on.
    pub(super) fn word(&self, index: u16) -> u64 {
        self.0
            .iter()
            .flatten()
            .fold(0, |all, bits| all | bits.word(index))
    }

    pub(super) fn has(&self, port: u16) -> bool {
        self.0.iter().flatten().any(|bits| bits.has(port))
    }
}

impl Pools {
    /// There is a container at `port`.
    pub(super) fn attach(&mut self, port: PortId) {
        self.containers.insert(port);
    }

    /// The container at `port` is gone. What it still holds counts until it is given back.
    pub(super) fn detach(&mut self, port: PortId) {
        self.containers.remove(&port);
    }

    /// Keeps `external` from being taken. False, and nothing is done, if it is reserved already.
    pub(super) fn reserve(&mut self, protocol: Protocol, external: SocketAddr) -> bool {
        let (ip, port) = (external.ip(), external.port());
        let mut others = self.reserved.iter();
        if others.any(|(&(p, other), bits)| p == protocol && overlaps(other, ip) && bits.has(port)) {
            return false;
        }
        let bits = self.reserved.entry((protocol, ip)).or_default();
        bits.set(port, true);
        self.count_unused(protocol, external, |free| *free -= 1);
        true
    }

    /// Gives back what was reserved, by the same address. False if it was not.
    pub(super) fn unreserve(&mut self, protocol: Protocol, external: SocketAddr) -> bool {
        let key = (protocol, external.ip());
        let Some(bits) = self.reserved.get_mut(&key).filter(|b| b.has(external.port())) else {
            return false;
        };
        bits.set(external.port(), false);
        if bits.is_empty() {
            self.reserved.remove(&key);
        }
        self.count_unused(protocol, external, |free| *free += 1);
        true
    }

    /// Tells the pools in which `external` is not used how many are free now.
    fn count_unused(&mut self, protocol: Protocol, external: SocketAddr, change: impl Fn(&mut u32)) {
        let port = external.port();
        let Some(range) = Class::range_of(protocol, port) else {
            return;
        };
        for (&(p, ip), pool) in &mut self.pools {
            if p == protocol && overlaps(ip, external.ip()) && !pool.used.has(port) {
                change(&mut pool.free[range]);
            }
        }
    }

    /// What is taken at `address`.
    pub(super) fn taken(&self, protocol: Protocol, address: IpAddr) -> Taken<'_> {
        let key = (protocol, address);
        Taken([
            self.reserved.get(&(protocol, any(address))),
            self.reserved.get(&key),
            self.pools.get(&key).map(|pool| &pool.used),
        ])
    }

    /// True if `container` may hold one port more of those at `address` that can stand for its port `own`.
    pub(super) fn allows(
        &mut self,
        protocol: Protocol,
        own: u16,
        address: IpAddr,
        container: PortId,
    ) -> bool {
        let Some(range) = Class::of(protocol, own).first().map(|class| class.range()) else {
            return false;
        };
        let alone = self.containers.iter().all(|&other| other == container);
        let weight = if alone { ALONE } else { WEIGHT };
        let pool = self.pool(protocol, address);
        let held = pool.held.get(&container).map_or(0, |held| held[range]);
        held < pool.free[range].saturating_mul(weight)
    }

    /// `container` holds `external` from now on, which was not taken.
    pub(super) fn take(&mut self, protocol: Protocol, external: SocketAddr, container: PortId) {
        let port = external.port();
        let pool = self.pool(protocol, external.ip());
        pool.used.set(port, true);
        if let Some(range) = Class::range_of(protocol, port) {
            pool.free[range] -= 1;
            pool.held.entry(container).or_default()[range] += 1;
        }
    }

    /// `container` holds `external` no more.
    pub(super) fn give_back(&mut self, protocol: Protocol, external: SocketAddr, container: PortId) {
        let (address, port) = (external.ip(), external.port());
        let Some(pool) = self.pools.get_mut(&(protocol, address)) else {
            return;
        };
        pool.used.set(port, false);
        if let Some(range) = Class::range_of(protocol, port) {
            let reserved = [any(address), address]
                .iter()
                .any(|&ip| self.reserved.get(&(protocol, ip)).is_some_and(|b| b.has(port)));
            // A rule of publishing may have come since the port was taken.
            if !reserved {
                pool.free[range] += 1;
            }
            if let Some(held) = pool.held.get_mut(&container) {
                held[range] -= 1;
                if held.iter().all(|&n| n == 0) {
                    pool.held.remove(&container);
                }
            }
        }
    }

    /// The pool of an address, which is made if there is none.
    fn pool(&mut self, protocol: Protocol, address: IpAddr) -> &mut Pool {
        let key = (protocol, address);
        if !self.pools.contains_key(&key) && self.pools.len() >= KEPT {
            // Of addresses that the gateway has no more; those that it has are made again when they are asked for.
            self.pools.retain(|_, pool| !pool.held.is_empty());
        }
        let Self { reserved, pools, .. } = self;
        pools.entry(key).or_insert_with(|| {
            let sets = [any(address), address].map(|ip| reserved.get(&(protocol, ip)));
            let taken = Taken([sets[0], sets[1], None]);
            let mut free = PerRange::default();
            for class in Class::ranges(protocol) {
                free[class.range()] = class.count_free(|word| taken.word(word));
            }
            Pool {
                used: Bits::default(),
                free,
                held: HashMap::new(),
            }
        })
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let shares = self.pools.values().map(|pool| pool.held.allocation_size());
        (self.reserved.len() + self.pools.len()) * Bits::MEMORY
            + self.reserved.allocation_size()
            + self.pools.allocation_size()
            + self.containers.allocation_size()
            + shares.sum::<usize>()
    }

    /// How many ports of `port`'s range each container holds at an address, and how many are free.
    #[cfg(test)]
    pub(super) fn shares(&self, protocol: Protocol, address: IpAddr, port: u16) -> (Vec<(PortId, u32)>, u32) {
        let range = Class::range_of(protocol, port).unwrap();
        let Some(pool) = self.pools.get(&(protocol, address)) else {
            return (Vec::new(), 0);
        };
        let held = pool.held.iter().map(|(&c, held)| (c, held[range]));
        let mut held: Vec<_> = held.filter(|&(_, n)| n > 0).collect();
        held.sort_unstable();
        (held, pool.free[range])
    }

    /// True if nobody holds any port.
    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        self.pools
            .values()
            .all(|p| p.held.is_empty() && p.used.is_empty())
    }

    /// How many pools there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pools.len()
    }
}

/// The unspecified address like `address`, which stands for any.
fn any(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// True if an address can be meant by both.
fn overlaps(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}
