//! Storm control: how many frames a second a port may have copied to every other.
//!
//! A frame for a group, or for an address that nobody knows, costs as many writes as there are ports: it is the one thing by
//! which a container sets others to work that it does not talk to. Each port with a limit has a bucket of one second's worth.
//!
//! What finds the bucket empty is copied to no port (`storm`). The station still gets its one copy of what is for everybody: it
//! costs no more than a frame for the station alone, which nothing limits, and by it a container that makes noise can still ask
//! for its gateway and its address.

use crate::Instant;

/// Frames a second that a port may send to more than one other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct StormLimit(u32);

impl StormLimit {
    /// What a container gets. One that looks for all 254 neighbours of a /24 within the same second, by ARP and by ND, sends 508
    /// such frames, and nothing that runs in one is known to need more; mDNS sends a few. With 200 ports it is 100,000 writes a
    /// second at most, a fraction of what a worker does, while a flood is a hundred times as much.
    pub const CONTAINER: Self = Self(512);

    /// `frames` a second, and as many at once. Zero: none at all.
    pub const fn per_second(frames: u32) -> Self {
        Self(frames)
    }

    /// Frames a second.
    pub const fn frames(self) -> u32 {
        self.0
    }
}

/// A second, and a frame, in the bucket's measure.
const SECOND: u64 = 1_000_000;

/// What is left of a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    limit: StormLimit,
    /// In millionths of a frame, so that a microsecond of any limit is a whole number.
    left: u64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(limit: StormLimit) -> Self {
        Self {
            limit,
            left: u64::from(limit.0) * SECOND,
            at: Instant::ZERO,
        }
    }

    /// What it was made for.
    pub(crate) fn limit(&self) -> StormLimit {
        self.limit
    }

    /// Takes a frame out; false if there is none left.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let full = u64::from(self.limit.0) * SECOND;
        let since = now.micros().saturating_sub(self.at.micros()).min(SECOND);
        self.at = now;
        self.left = (self.left + since * u64::from(self.limit.0)).min(full);
        let enough = self.left >= SECOND;
        if enough {
            self.left -= SECOND;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_s_worth_at_once_and_then_at_its_pace() {
        let mut bucket = Bucket::new(StormLimit::per_second(100));
        let mut taken = |at: u64| {
            (0..1000)
                .filter(|_| bucket.take(Instant::from_millis(at)))
                .count()
        };
        assert_eq!([0, 0, 5, 10, 30, 5000].map(&mut taken), [100, 0, 0, 1, 2, 100]);
        assert!(!Bucket::new(StormLimit::per_second(0)).take(Instant::from_millis(9000)));
        let mut most = Bucket::new(StormLimit::per_second(u32::MAX));
        assert!(most.take(Instant::from_micros(u64::MAX)) && most.take(Instant::ZERO));
    }

    proptest! {
        /// Never more than its pace and one second's worth; and what comes at its pace is taken.
        #[test]
        fn holds_its_pace(limit in 1u32..2000, waits in proptest::collection::vec(0u64..20_000, 1..400)) {
            let mut bucket = Bucket::new(StormLimit::per_second(limit));
            let (mut now, mut taken) = (Instant::ZERO, 0u64);
            for wait in waits {
                now += std::time::Duration::from_micros(wait);
                let first = bucket.take(now);
                prop_assert!(first || wait * u64::from(limit) < SECOND);
                taken += u64::from(first) + u64::from(bucket.take(now)) + u64::from(bucket.take(now));
                let most = u64::from(limit) * (now.micros() + SECOND) / SECOND;
                prop_assert!(taken <= most, "{taken} of at most {most}");
            }
        }
    }
}
