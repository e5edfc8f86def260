//! Names and their addresses, each by who brought it, so that it can be taken back without a look at the rest.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use pontoon_switch::PortId;

use super::{Key, key, kind};

/// Addresses in one answer at most; the others have their turn in the next.
const MOST: usize = 256;

/// Names and addresses of containers.
#[derive(Debug, Default)]
pub(super) struct Index {
    names: HashMap<Key, Named>,
    reverse: HashMap<IpAddr, (PortId, String)>,
    /// What each container has brought.
    brought: HashMap<PortId, Vec<(Key, Vec<IpAddr>)>>,
}

/// A name: who has it, under which addresses.
#[derive(Debug, Default)]
struct Named {
    v4: Holders,
    v6: Holders,
    /// How many containers have it, those without an address among them.
    holders: usize,
}

#[derive(Debug, Default)]
struct Holders {
    addrs: BTreeSet<(PortId, IpAddr)>,
    /// Whose turn it is to be the first.
    turn: usize,
}

impl Holders {
    /// The addresses, another first each time.
    fn next(&mut self) -> impl Iterator<Item = IpAddr> + '_ {
        let first = self.turn.checked_rem(self.addrs.len()).unwrap_or(0);
        self.turn = first + 1;
        let addrs = self.addrs.iter().skip(first);
        addrs
            .chain(self.addrs.iter().take(first))
            .map(|&(_, a)| a)
            .take(MOST)
    }
}

impl Named {
    fn of(&mut self, addr: IpAddr) -> &mut Holders {
        match addr {
            IpAddr::V4(_) => &mut self.v4,
            IpAddr::V6(_) => &mut self.v6,
        }
    }
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Takes the names of `port`, of which there are none here yet. An address is called by the first name that has it. Gives
    /// those back that are no names.
    pub(super) fn insert<'n>(
        &mut self,
        port: PortId,
        names: impl Iterator<Item = (&'n str, &'n [IpAddr])>,
    ) -> Vec<String> {
        let mut refused = Vec::new();
        let mut brought: Vec<(Key, Vec<IpAddr>)> = Vec::new();
        for (text, addrs) in names {
            let Some(key) = key(text) else {
                refused.push(text.to_owned());
                continue;
            };
            let named = self.names.entry(key.clone()).or_default();
            named.holders += 1;
            for &addr in addrs {
                named.of(addr).addrs.insert((port, addr));
                let known = self.reverse.get(&addr).is_some_and(|&(p, _)| p == port);
                if !known {
                    self.reverse.insert(addr, (port, text.to_owned()));
                }
            }
            brought.push((key, addrs.to_vec()));
        }
        if !brought.is_empty() {
            self.brought.insert(port, brought);
        }
        refused
    }

    /// Forgets the names of `port`.
    pub(super) fn remove(&mut self, port: PortId) {
        for (key, addrs) in self.brought.remove(&port).unwrap_or_default() {
            if let Some(named) = self.names.get_mut(&key) {
                named.holders -= 1;
                for &addr in &addrs {
                    named.of(addr).addrs.remove(&(port, addr));
                }
                if named.holders == 0 {
                    self.names.remove(&key);
                }
            }
            for addr in addrs {
                if self.reverse.get(&addr).is_some_and(|&(p, _)| p == port) {
                    self.reverse.remove(&addr);
                }
            }
        }
    }

    /// The addresses of `name` that a question of this kind asks for, another first each time; `None` if there is no such
    /// name.
    pub(super) fn addresses(&mut self, name: &[u8], kind: u16) -> Option<Vec<IpAddr>> {
        let named = self.names.get_mut(name)?;
        Some(match kind {
            kind::A => named.v4.next().collect(),
            kind::AAAA => named.v6.next().collect(),
            kind::ANY => named.v4.next().chain(named.v6.next()).collect(),
            // NODATA (RFC 2308 section 2.2): the name is there, but not of this type.
            _ => Vec::new(),
        })
    }

    /// What `addr` is called.
    pub(super) fn name_of(&self, addr: IpAddr) -> Option<&str> {
        self.reverse.get(&addr).map(|(_, name)| name.as_str())
    }
}
