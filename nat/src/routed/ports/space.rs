//! The ports of one address, as bits.

use crate::flow::Protocol;

/// Words of 64 ports.
const WORDS: usize = 1 << 10;

/// A set of ports, or of ICMP identifiers.
#[derive(Clone, Debug)]
pub(super) struct Bits {
    words: Box<[u64; WORDS]>,
    len: u32,
}

impl Default for Bits {
    fn default() -> Self {
        Self {
            words: Box::new([0; WORDS]),
            len: 0,
        }
    }
}

impl Bits {
    /// Bytes of a set.
    pub(super) const MEMORY: usize = WORDS * size_of::<u64>();

    pub(super) fn has(&self, port: u16) -> bool {
        self.words[usize::from(port / 64)] >> (port % 64) & 1 == 1
    }

    pub(super) fn set(&mut self, port: u16, on: bool) {
        if self.has(port) != on {
            self.words[usize::from(port / 64)] ^= 1 << (port % 64);
            self.len = if on { self.len + 1 } else { self.len - 1 };
        }
    }

    /// The 64 ports from `64 * index` on.
    pub(super) fn word(&self, index: u16) -> u64 {
        self.words[usize::from(index)]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Ports among which one may stand for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class {
    first: u16,
    last: u16,
    /// Which of each 64.
    parity: u64,
}

impl Class {
    const ALL: u64 = u64::MAX;
    const EVEN: u64 = 0x5555_5555_5555_5555;

    const LOW: Self = Self::new(1, 1023, Self::ALL);
    const HIGH: Self = Self::new(1024, u16::MAX, Self::ALL);
    // RFC 4787 REQ-4: parity is kept; where none of it is left, the other is better than nothing (the RFC recommends it, no more).
    const LOW_EVEN: &[Self] = &[Self::new(1, 1023, Self::EVEN), Self::LOW];
    const LOW_ODD: &[Self] = &[Self::new(1, 1023, !Self::EVEN), Self::LOW];
    const HIGH_EVEN: &[Self] = &[Self::new(1024, u16::MAX, Self::EVEN), Self::HIGH];
    const HIGH_ODD: &[Self] = &[Self::new(1024, u16::MAX, !Self::EVEN), Self::HIGH];
    const IDENTIFIERS: &[Self] = &[Self::new(0, u16::MAX, Self::ALL)];

    const fn new(first: u16, last: u16, parity: u64) -> Self {
        Self { first, last, parity }
    }

    /// The classes in which a port for `port` is looked for, the first first.
    pub(super) fn of(protocol: Protocol, port: u16) -> &'static [Self] {
        let even = port.is_multiple_of(2);
        match (protocol, port) {
            // RFC 4787 REQ-3 a: a port of 0 to 1023 stays one. A source port of 0 says that no answer is wanted; it is never
            // preserved, and gets what costs least.
            (Protocol::Udp, 1..=1023) if even => Self::LOW_EVEN,
            (Protocol::Udp, 1..=1023) => Self::LOW_ODD,
            (Protocol::Udp, _) if even => Self::HIGH_EVEN,
            (Protocol::Udp, _) => Self::HIGH_ODD,
            (Protocol::Tcp, 1..=1023) => &[Self::LOW],
            (Protocol::Tcp, _) => &[Self::HIGH],
            (Protocol::Icmp | Protocol::Icmp6, _) => Self::IDENTIFIERS,
            (Protocol::Other(_), _) => &[],
        }
    }

    /// How many ranges a protocol has at most.
    pub(super) const RANGES: usize = 2;

    /// The classes that make up all ports which `protocol` can be allotted, none in two of them.
    pub(super) fn ranges(protocol: Protocol) -> &'static [Self] {
        match protocol {
            Protocol::Tcp | Protocol::Udp => &[Self::LOW, Self::HIGH],
            Protocol::Icmp | Protocol::Icmp6 => Self::IDENTIFIERS,
            Protocol::Other(_) => &[],
        }
    }

    /// Which of its protocol's ranges the class lies in.
    pub(super) fn range(self) -> usize {
        usize::from(self.last != Self::LOW.last)
    }

    /// The range of a port that can be allotted.
    pub(super) fn range_of(protocol: Protocol, port: u16) -> Option<usize> {
        let ranges = Self::ranges(protocol).iter();
        ranges
            .filter(|class| class.has(port))
            .map(|class| class.range())
            .next()
    }

    /// How many ports of the class are in no word of `taken`.
    pub(super) fn count_free(self, taken: impl Fn(u16) -> u64) -> u32 {
        (self.first / 64..=self.last / 64)
            .map(|word| (!taken(word) & self.within(word)).count_ones())
            .sum()
    }

    /// The port of the class that `random` falls on, about evenly.
    pub(super) fn pick(self, random: u64) -> u16 {
        let size = u64::from(self.last - self.first) + 1;
        let port = self.first + (random % size) as u16;
        if self.has(port) {
            return port;
        }
        // Of two neighbours one has the parity.
        if port < self.last { port + 1 } else { port - 1 }
    }

    /// The first port of the class from `start` on, around its end, that is in no word of `taken`.
    pub(super) fn free(self, start: u16, taken: impl Fn(u16) -> u64) -> Option<u16> {
        let (first, last) = (self.first / 64, self.last / 64);
        let words = last - first + 1;
        let (begin, below) = (start / 64 - first, (1_u64 << (start % 64)) - 1);
        // The word of the start is looked at twice: from the start on first, up to it last.
        (0..=words).find_map(|i| {
            let word = first + (begin + i) % words;
            let part = match i {
                0 => !below,
                _ if i == words => below,
                _ => Self::ALL,
            };
            let free = !taken(word) & self.within(word) & part;
            (free != 0).then(|| word * 64 + free.trailing_zeros() as u16)
        })
    }

    fn has(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port) && self.parity >> (port % 64) & 1 == 1
    }

    /// Which of the 64 ports from `64 * word` on are of the class.
    fn within(self, word: u16) -> u64 {
        let mut mask = self.parity;
        if word == self.first / 64 {
            mask &= Self::ALL << (self.first % 64);
        }
        if word == self.last / 64 {
            mask &= Self::ALL >> (63 - self.last % 64);
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_free_port_of_a_class_is_found_and_no_other() {
        for (protocol, port) in [
            (Protocol::Udp, 2),
            (Protocol::Udp, 53),
            (Protocol::Udp, 5000),
            (Protocol::Udp, 5001),
            (Protocol::Tcp, 22),
            (Protocol::Tcp, 40_000),
            (Protocol::Icmp, 0),
        ] {
            let class = Class::of(protocol, port)[0];
            let all: Vec<u16> = (0..=u16::MAX).filter(|&p| class.has(p)).collect();
            for random in 0..3_000 {
                let start = class.pick(random * 0x9e37_79b9);
                assert!(class.has(start), "{start}");
                assert_eq!(class.free(start, |_| 0), Some(start));
            }
            // All but one are taken.
            for &left in all.iter().step_by(all.len() / 9) {
                let mut bits = Bits::default();
                all.iter().for_each(|&p| bits.set(p, p != left));
                for &start in all.iter().step_by(all.len() / 50) {
                    assert_eq!(class.free(start, |w| bits.word(w)), Some(left), "from {start}");
                }
                bits.set(left, true);
                assert_eq!(class.free(all[0], |w| bits.word(w)), None);
            }
        }
    }
}
