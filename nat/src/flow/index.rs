//! The hash index: from a tuple to its entry.

use super::entry::{Entry, Flags};
use super::translation::Addresses;
use super::tuple::Packed;
use super::{Direction, FlowId, Table, Tuple, sip};

/// In an index record: the tuple is the reply's.
pub(super) const REPLY_BIT: u32 = 1 << 31;

impl Table {
    /// Finds the flow that a packet with `tuple` belongs to, and the packet's direction in it.
    pub fn lookup(&self, tuple: &Tuple) -> Option<(FlowId, Direction)> {
        let packed = Packed::new(tuple);
        let number = tuple.protocol.number();
        self.find(&packed, number).or_else(|| {
            let (id, direction) = self.find(&packed.reversed(), number)?;
            // A tuple of the replies, reversed, is one that nobody sends in a translated flow.
            let relayed = !self.entries[id.index as usize].flags.has(Flags::REPLY);
            (direction == Direction::Original && relayed).then_some((id, Direction::Reply))
        })
    }

    /// Finds the flow whose initiator sends `tuple`.
    pub fn lookup_original(&self, tuple: &Tuple) -> Option<FlowId> {
        self.find(&Packed::new(tuple), tuple.protocol.number())
            .and_then(|(id, direction)| (direction == Direction::Original).then_some(id))
    }

    pub(super) fn find(&self, packed: &Packed, number: u8) -> Option<(FlowId, Direction)> {
        let hash = hash(self.key, packed, number);
        let record = *self.index.find(hash, |&r| {
            let e = &self.entries[(r & !REPLY_BIT) as usize];
            e.protocol == number
                && if r & REPLY_BIT == 0 {
                    e.original == *packed
                } else {
                    self.addresses.reply(&e.original, &e.translation) == *packed
                }
        })?;
        let index = record & !REPLY_BIT;
        let direction = if record & REPLY_BIT == 0 {
            Direction::Original
        } else {
            Direction::Reply
        };
        Some((self.id(index), direction))
    }

    pub(super) fn index_insert(&mut self, record: u32) {
        let (key, entries, addresses) = (self.key, &self.entries, &self.addresses);
        let hash_of = |r: &u32| record_hash(key, addresses, &entries[(*r & !REPLY_BIT) as usize], *r);
        let h = hash_of(&record);
        self.index.insert_unique(h, record, hash_of);
    }

    pub(super) fn index_remove(&mut self, record: u32) {
        let e = &self.entries[(record & !REPLY_BIT) as usize];
        let h = record_hash(self.key, &self.addresses, e, record);
        if let Ok(found) = self.index.find_entry(h, |&r| r == record) {
            found.remove();
        }
    }
}

/// The hash of the tuple that an index record stands for.
fn record_hash(key: (u64, u64), addresses: &Addresses, e: &Entry, record: u32) -> u64 {
    if record & REPLY_BIT == 0 {
        hash(key, &e.original, e.protocol)
    } else {
        hash(key, &addresses.reply(&e.original, &e.translation), e.protocol)
    }
}

fn hash(key: (u64, u64), packed: &Packed, number: u8) -> u64 {
    sip::hash((key.0, key.1 ^ u64::from(number)), packed.words())
}
