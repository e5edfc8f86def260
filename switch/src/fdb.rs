//! The forwarding table: which port a MAC address was last seen on.
//!
//! Keyed by VLAN and address, bounded in all and for each port, so that no container can make the others' addresses
//! forgotten by inventing its own. The table is in order of last use as a source, so the entry to age out or to give
//! way is always at its end and neither costs a search. Static entries (a station's, a container's known address)
//! stand apart: they never age, move or give way.
//!
//! Addresses are chosen by attackers, so the hash is keyed by a secret of the process.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::{Instant, MacAddr, PortId};

/// How long an address is remembered after it was last seen (IEEE 802.1D, table 7-5).
pub const AGEING: Duration = Duration::from_secs(300);

/// Learned addresses in all.
pub const CAPACITY: usize = 8192;

/// Learned addresses of one port.
pub const CAPACITY_PER_PORT: u32 = 1024;

/// How an entry came into the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// From a frame's source address.
    Learned,
    /// By configuration.
    Static,
}

/// One line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FdbEntry {
    /// Where frames for the address go.
    pub port: PortId,
    /// The VLAN that frames of the address belong to; 0 on the network without tags.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddr,
    /// Since the address was last seen as a source; zero for a static entry.
    pub age: Duration,
    /// How it came here.
    pub origin: Origin,
}

/// What became of a source address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learn {
    /// It was there already.
    Known,
    /// It is new.
    New,
    /// It was on this other port until now.
    Moved(PortId),
    /// It belongs to another port for good.
    Taken(PortId),
    /// The port's share is used up: nothing was learned.
    Full,
}

/// What the table has seen so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FdbCounters {
    /// Addresses learned.
    pub learned: u64,
    /// Addresses that changed their port.
    pub moved: u64,
    /// Addresses forgotten for age.
    pub aged: u64,
    /// Addresses that gave way to a newer one in a full table.
    pub evicted: u64,
    /// Addresses not learned because their port's share was used up.
    pub refused: u64,
}

/// The table.
#[derive(Debug)]
pub struct Fdb {
    learned: LruCache<u64, Seen, Keyed>,
    fixed: HashMap<u64, PortId, Keyed>,
    /// Learned entries by port slot.
    shares: Vec<u32>,
    counters: FdbCounters,
    per_port: u32,
    /// The address learned last and what is in the table of it, while nothing else has changed: frames come in runs.
    last: Option<(u64, Seen)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    port: PortId,
    at: Instant,
}

impl Default for Fdb {
    fn default() -> Self {
        Self::new(CAPACITY, CAPACITY_PER_PORT)
    }
}

impl Fdb {
    /// An empty table for `capacity` learned addresses (at least one), `per_port` of them from one port.
    pub fn new(capacity: usize, per_port: u32) -> Self {
        let keyed = Keyed::random();
        Self {
            learned: LruCache::with_hasher(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN), keyed),
            fixed: HashMap::with_hasher(keyed),
            shares: Vec::new(),
            counters: FdbCounters::default(),
            per_port,
            last: None,
        }
    }

    /// Notes that `mac` sent from `port`.
    pub fn learn(&mut self, now: Instant, vlan: u16, mac: MacAddr, port: PortId) -> Learn {
        let key = key(vlan, mac);
        let this = Some((key, Seen { port, at: now }));
        if self.last == this {
            return Learn::Known;
        }
        if !self.fixed.is_empty()
            && let Some(&owner) = self.fixed.get(&key)
        {
            return if owner == port {
                Learn::Known
            } else {
                Learn::Taken(owner)
            };
        }
        self.last = None;
        let Some(seen) = self.learned.get_mut(&key) else {
            return self.insert(now, key, port);
        };
        let before = *seen;
        if before.port == port {
            seen.at = now;
            self.last = this;
            return Learn::Known;
        }
        if self.share(port) >= self.per_port {
            self.counters.refused += 1;
            return Learn::Full;
        }
        if let Some(seen) = self.learned.peek_mut(&key) {
            *seen = Seen { port, at: now };
        }
        *self.share_mut(before.port) -= 1;
        *self.share_mut(port) += 1;
        if now.since(before.at) > AGEING {
            self.counters.aged += 1;
            self.counters.learned += 1;
            return Learn::New;
        }
        self.counters.moved += 1;
        Learn::Moved(before.port)
    }

    fn insert(&mut self, now: Instant, key: u64, port: PortId) -> Learn {
        // At most two for each new address: what is old goes faster than it came, and no frame pays for a sweep.
        for _ in 0..2 {
            match self.learned.peek_lru() {
                Some((_, seen)) if now.since(seen.at) > AGEING => {
                    self.forget_oldest();
                    self.counters.aged += 1;
                }
                Some(_) | None => break,
            }
        }
        if self.share(port) >= self.per_port {
            self.counters.refused += 1;
            return Learn::Full;
        }
        if self.learned.len() >= self.learned.cap().get() {
            self.forget_oldest();
            self.counters.evicted += 1;
        }
        self.learned.put(key, Seen { port, at: now });
        *self.share_mut(port) += 1;
        self.counters.learned += 1;
        Learn::New
    }

    fn forget_oldest(&mut self) {
        if let Some((_, seen)) = self.learned.pop_lru() {
            *self.share_mut(seen.port) -= 1;
        }
    }

    /// The port that `mac` is on, if that is known.
    pub fn lookup(&self, now: Instant, vlan: u16, mac: MacAddr) -> Option<PortId> {
        let key = key(vlan, mac);
        if !self.fixed.is_empty()
            && let Some(&port) = self.fixed.get(&key)
        {
            return Some(port);
        }
        self.learned
            .peek(&key)
            .filter(|seen| now.since(seen.at) <= AGEING)
            .map(|seen| seen.port)
    }

    /// Binds `mac` to `port` until the port goes or the entry is taken back.
    pub fn set_static(&mut self, vlan: u16, mac: MacAddr, port: PortId) {
        let key = key(vlan, mac);
        self.last = None;
        if let Some(seen) = self.learned.pop(&key) {
            *self.share_mut(seen.port) -= 1;
        }
        self.fixed.insert(key, port);
    }

    /// Takes a static entry back; false if there was none.
    pub fn remove_static(&mut self, vlan: u16, mac: MacAddr) -> bool {
        self.fixed.remove(&key(vlan, mac)).is_some()
    }

    /// Forgets everything about `port`.
    pub fn remove_port(&mut self, port: PortId) {
        self.fixed.retain(|_, p| *p != port);
        self.forget_learned(port);
    }

    /// Forgets what was learned on `port`.
    pub fn forget_learned(&mut self, port: PortId) {
        self.last = None;
        self.learned.retain(|_, seen| seen.port != port);
        *self.share_mut(port) = 0;
    }

    /// The entries that are not too old, static ones first.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = FdbEntry> + '_ {
        let fixed = self.fixed.iter().map(|(&key, &port)| {
            let (vlan, mac) = unkey(key);
            FdbEntry {
                port,
                vlan,
                mac,
                age: Duration::ZERO,
                origin: Origin::Static,
            }
        });
        let learned = self
            .learned
            .iter()
            .filter(move |(_, seen)| now.since(seen.at) <= AGEING);
        fixed.chain(learned.map(move |(&key, seen)| {
            let (vlan, mac) = unkey(key);
            FdbEntry {
                port: seen.port,
                vlan,
                mac,
                age: now.since(seen.at),
                origin: Origin::Learned,
            }
        }))
    }

    /// Learned entries in the table, old ones among them.
    pub fn len(&self) -> usize {
        self.learned.len()
    }

    /// True if nothing is learned.
    pub fn is_empty(&self) -> bool {
        self.learned.is_empty()
    }

    /// What the table has seen so far.
    pub fn counters(&self) -> FdbCounters {
        self.counters
    }

    /// Learned entries of `port`.
    pub fn share(&self, port: PortId) -> u32 {
        self.shares.get(port.slot()).copied().unwrap_or(0)
    }

    fn share_mut(&mut self, port: PortId) -> &mut u32 {
        let slot = port.slot();
        if slot >= self.shares.len() {
            self.shares.resize(slot + 1, 0);
        }
        &mut self.shares[slot]
    }
}

fn key(vlan: u16, mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    let [v, w] = vlan.to_be_bytes();
    u64::from_be_bytes([v, w, a, b, c, d, e, f])
}

fn unkey(key: u64) -> (u16, MacAddr) {
    let [v, w, a, b, c, d, e, f] = key.to_be_bytes();
    (u16::from_be_bytes([v, w]), MacAddr([a, b, c, d, e, f]))
}

/// A keyed multiply-and-fold hash of one 64-bit number: two multiplications, secret factors.
#[derive(Clone, Copy, Debug)]
struct Keyed(u64, u64);

impl Keyed {
    fn random() -> Self {
        // The standard library's keys are the operating system's randomness.
        let secret = || std::hash::RandomState::new().hash_one(0u64);
        Self(secret(), secret() | 1)
    }
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;
    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { keys: *self, hash: 0 }
    }
}

struct KeyedHasher {
    keys: Keyed,
    hash: u64,
}

impl Hasher for KeyedHasher {
    fn finish(&self) -> u64 {
        self.hash
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }
    fn write_u64(&mut self, n: u64) {
        let mix = |n: u64, k: u64| {
            let wide = u128::from(n) * u128::from(k);
            wide as u64 ^ (wide >> 64) as u64
        };
        self.hash = mix(
            mix(self.hash ^ n ^ self.keys.0, self.keys.1) ^ self.keys.0,
            self.keys.1,
        );
    }
}

#[cfg(test)]
mod tests;
