//! What becomes of a flow's addresses, in eight bytes.
//!
//! The addresses that stand for others are few, and are the gateway's and the containers' own, never what a peer chose: they
//! are kept once, counted by the flows that use them, and a flow has their numbers. Its reply tuple is put together from these
//! and its original tuple when it is compared.

use hashbrown::HashMap;

use super::tuple::{Octets, Packed};

/// Number of an address that is that of the original tuple.
const SAME: u16 = u16::MAX;

/// How a flow's reply tuple differs from its original one reversed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Translation {
    /// Number of the replies' source address: the translated destination.
    src: u16,
    /// Number of the replies' destination address: the translated source.
    dst: u16,
    src_port: u16,
    dst_port: u16,
}

impl Translation {
    /// Of a flow whose reply tuple is not in the table.
    pub(super) const NONE: Self = Self {
        src: SAME,
        dst: SAME,
        src_port: 0,
        dst_port: 0,
    };
}

#[derive(Debug)]
struct Slot {
    octets: Octets,
    /// How often it is in use.
    uses: u32,
}

/// The addresses that flows are translated to.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    slots: Vec<Slot>,
    numbers: HashMap<Octets, u16>,
    free: Vec<u16>,
}

impl Addresses {
    /// How to come from `original` to `reply`; nothing if there are more addresses than can be told apart.
    pub(super) fn translate(&mut self, original: &Packed, reply: &Packed) -> Option<Translation> {
        let [(from, _), (to, _)] = original.parts();
        let [(src, src_port), (dst, dst_port)] = reply.parts();
        let number = |all: &mut Self, octets, same| {
            if octets == same {
                Some(SAME)
            } else {
                all.take(octets)
            }
        };
        let src = number(self, src, to)?;
        let Some(dst) = number(self, dst, from) else {
            self.give_back(src);
            return None;
        };
        Some(Translation {
            src,
            dst,
            src_port,
            dst_port,
        })
    }

    /// The reply tuple of the flow with the `original` tuple.
    pub(super) fn reply(&self, original: &Packed, translation: &Translation) -> Packed {
        let [(from, _), (to, _)] = original.parts();
        let octets = |number: u16, same| match self.slots.get(usize::from(number)) {
            // `SAME` is no slot.
            None => same,
            Some(slot) => slot.octets,
        };
        Packed::from_parts([
            (octets(translation.src, to), translation.src_port),
            (octets(translation.dst, from), translation.dst_port),
        ])
    }

    /// A flow with that translation has ended.
    pub(super) fn release(&mut self, translation: &Translation) {
        self.give_back(translation.src);
        self.give_back(translation.dst);
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.numbers.allocation_size()
            + self.free.capacity() * size_of::<u16>()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    fn take(&mut self, octets: Octets) -> Option<u16> {
        if let Some(&number) = self.numbers.get(&octets) {
            self.slots[usize::from(number)].uses += 1;
            return Some(number);
        }
        let slot = Slot { octets, uses: 1 };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[usize::from(number)] = slot;
                number
            }
            None => {
                let number = u16::try_from(self.slots.len()).ok().filter(|&n| n != SAME)?;
                self.slots.push(slot);
                number
            }
        };
        self.numbers.insert(octets, number);
        Some(number)
    }

    fn give_back(&mut self, number: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(number)) else {
            return;
        };
        slot.uses -= 1;
        if slot.uses == 0 {
            self.numbers.remove(&slot.octets);
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(src: u32, dst: u32) -> Packed {
        Packed::from_parts([([7, 7, 7, src], 1), ([7, 7, 7, dst], 2)])
    }

    #[test]
    fn addresses_are_kept_as_long_as_a_flow_uses_them_and_refused_beyond_what_can_be_told_apart() {
        let mut all = Addresses::default();
        let original = packed(1, 2);
        let reply = |n: u32| packed(2, 10 + n);
        let last = u32::from(SAME);
        let mut taken: Vec<Translation> = (0..last)
            .map(|n| all.translate(&original, &reply(n)).expect("a number is free"))
            .collect();
        assert!(all.translate(&original, &reply(last)).is_none());
        for (n, t) in taken.iter().enumerate() {
            assert_eq!(all.reply(&original, t), reply(n as u32));
        }
        let shared = all.translate(&original, &reply(7)).expect("it is there already");
        all.release(&taken.swap_remove(7));
        assert_eq!(all.reply(&original, &shared), reply(7), "another flow uses it");
        assert!(all.translate(&original, &reply(last)).is_none());
        all.release(&shared);
        let t = all
            .translate(&original, &reply(last))
            .expect("a number is free again");
        assert_eq!(all.reply(&original, &t), reply(last));
        // Both addresses change, and only one of them has a number left.
        all.release(&taken[0]);
        assert!(all.translate(&original, &packed(last + 50, last + 51)).is_none());
        assert!(
            all.translate(&original, &packed(last + 50, 1)).is_some(),
            "nothing is lost"
        );
    }

    #[test]
    fn what_stays_the_same_needs_no_address() {
        let mut all = Addresses::default();
        let original = packed(1, 2);
        let t = all.translate(&original, &original.reversed()).unwrap();
        assert_eq!((all.reply(&original, &t), all.len()), (original.reversed(), 0));
    }
}
