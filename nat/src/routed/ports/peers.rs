//! Which addresses mappings have flows with: what filtering by address asks (RFC 4787 section 5).
//!
//! A pair of mapping and address is kept as 64 bits of a keyed hash, which nobody without the key can make two pairs share, and
//! which among a million pairs come out the same once in tens of millions of tables. With its counter it is twelve bytes.

use hashbrown::HashTable;

/// Pairs of mapping and address, each with the number of its flows.
#[derive(Debug, Default)]
pub(super) struct Peers(HashTable<Pair>);

#[derive(Clone, Copy, Debug)]
struct Pair {
    /// Two halves, so that a pair needs to be aligned to four bytes only.
    print: [u32; 2],
    flows: u32,
}

impl Pair {
    fn hash(&self) -> u64 {
        u64::from(self.print[0]) << 32 | u64::from(self.print[1])
    }
}

impl Peers {
    /// One more flow of the pair.
    pub(super) fn add(&mut self, print: u64) {
        if let Some(pair) = self.0.find_mut(print, |pair| pair.hash() == print) {
            pair.flows += 1;
            return;
        }
        let pair = Pair {
            print: [(print >> 32) as u32, print as u32],
            flows: 1,
        };
        self.0.insert_unique(print, pair, Pair::hash);
    }

    /// One flow of the pair less.
    pub(super) fn remove(&mut self, print: u64) {
        if let Ok(mut found) = self.0.find_entry(print, |pair| pair.hash() == print) {
            found.get_mut().flows -= 1;
            if found.get().flows == 0 {
                found.remove();
            }
        }
    }

    /// True if the pair has a flow.
    pub(super) fn has(&self, print: u64) -> bool {
        self.0.find(print, |pair| pair.hash() == print).is_some()
    }

    /// How many pairs there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.0.allocation_size()
    }
}
