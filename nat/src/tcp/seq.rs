//! Sequence numbers: arithmetic modulo 2³² (RFC 9293 section 3.4).

/// A TCP sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Seq(pub(super) u32);

impl Seq {
    /// The number `n` bytes on.
    pub(super) fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// Bytes from `earlier` to here, assuming that it is not later.
    pub(super) fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// True if this comes after `other`.
    pub(super) fn after(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) > 0
    }
}
