//! Adjusting Internet checksums by what has changed under them.

use pontoon_switch::offload;

/// The ones' complement difference between new and old bytes, to be added to a sum over the old ones.
///
/// Of zero's two forms in ones' complement, 0 and 0xffff, either means that nothing changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Delta(u16);

impl Delta {
    /// No difference.
    pub(super) const NONE: Self = Self(0);

    /// Of `new` in the place of `old`: an even number of bytes, from an even place of what is summed on.
    pub(super) fn of<const N: usize>(old: &[u8; N], new: &[u8; N]) -> Self {
        Self(offload::add(!sum(old), sum(new)))
    }

    /// Both differences.
    pub(super) fn and(self, other: Self) -> Self {
        Self(offload::add(self.0, other.0))
    }

    /// The same at an odd place of what is summed (RFC 1071 section 2, B).
    pub(super) fn swapped(self) -> Self {
        Self(self.0.swap_bytes())
    }

    /// `checksum` over the old bytes as one over the new bytes: HC' = ~(~HC + ~m + m'), RFC 1624 equation 3.
    pub(super) fn checksum(self, checksum: u16) -> u16 {
        !self.sum(!checksum)
    }

    /// `sum`, not complemented, over the old bytes as one over the new bytes.
    pub(super) fn sum(self, sum: u16) -> u16 {
        match self.0 {
            0 | 0xffff => sum,
            delta => offload::add(sum, delta),
        }
    }

    /// Adjusts the checksum at `at` of `bytes`.
    pub(super) fn adjust(self, bytes: &mut [u8], at: usize) {
        let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        bytes[at..at + 2].copy_from_slice(&self.checksum(old).to_be_bytes());
    }
}

/// The ones' complement sum of a few bytes, whose number the compiler knows, as words in the network's order.
fn sum<const N: usize>(bytes: &[u8; N]) -> u16 {
    const { assert!(N.is_multiple_of(2)) };
    let (words, _) = bytes.as_chunks::<2>();
    // Added as they lie in memory: the sum does not mind (RFC 1071 section 2, B).
    let total: u32 = words
        .iter()
        .map(|&word| u32::from(u16::from_ne_bytes(word)))
        .sum();
    let [low, high] = [total as u16, (total >> 16) as u16];
    u16::from_be(offload::add(low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1624 section 4's example, on which equation 2 of RFC 1141 gives the other zero.
    #[test]
    fn rfc1624_section4_example() {
        let delta = Delta::of(&[0x55, 0x55], &[0x32, 0x85]);
        assert_eq!(delta.checksum(0xdd2f), 0x0000);
        assert_eq!(Delta::of(&[0x32, 0x85], &[0x55, 0x55]).checksum(0x0000), 0xdd2f);
    }

    #[test]
    fn nothing_changes_nothing() {
        for checksum in [0, 1, 0x8000, 0xffff] {
            assert_eq!(Delta::NONE.checksum(checksum), checksum);
            assert_eq!(
                Delta::of(&[1, 2, 3, 4], &[3, 4, 1, 2]).checksum(checksum),
                checksum
            );
        }
    }
}
