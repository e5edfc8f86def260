//! How many errors may be told.

use std::net::IpAddr;
use std::num::NonZeroUsize;

use lru::LruCache;
use pontoon_switch::Instant;

/// Errors a second that each may be told, and how many at once; the same for all together, where they are bounded.
const RATE: u64 = 1000;

/// How many rates are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How many errors each container, or each host of a link, may be told.
#[derive(Debug)]
pub struct RateLimiter {
    each: LruCache<IpAddr, Bucket>,
    all: Option<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u64,
    filled: Instant,
}

impl Default for RateLimiter {
    /// For containers, whose addresses are their own: each has a rate.
    fn default() -> Self {
        Self {
            each: LruCache::new(REMEMBERED),
            all: None,
        }
    }
}

impl RateLimiter {
    /// For a link to the world, whose hosts may give themselves any address: all of them together have a rate too.
    pub fn of_world() -> Self {
        Self {
            all: Some(Bucket::full(Instant::ZERO)),
            ..Self::default()
        }
    }

    /// True if `to` may be told one more, which then counts.
    pub fn allow(&mut self, now: Instant, to: IpAddr) -> bool {
        let each = self.each.get_or_insert_mut(to, || Bucket::full(now));
        each.fill(now);
        if let Some(all) = &mut self.all {
            all.fill(now);
        }
        let allowed = each.tokens > 0 && self.all.as_ref().is_none_or(|all| all.tokens > 0);
        for bucket in [Some(each), self.all.as_mut()].into_iter().flatten() {
            bucket.tokens -= u64::from(allowed);
        }
        allowed
    }
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self {
            tokens: RATE,
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let earned = now.since(self.filled).as_millis() as u64 * RATE / 1000;
        if earned > 0 {
            self.tokens = (self.tokens + earned).min(RATE);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limiter: &mut RateLimiter, now: Instant, to: impl Fn(u32) -> IpAddr) -> usize {
        (0..3000).filter(|&i| limiter.allow(now, to(i))).count()
    }

    #[test]
    fn each_has_a_rate_and_the_world_one_in_all() {
        let now = Instant::from_millis(5000);
        let one = |_| IpAddr::from([192, 0, 2, 1]);
        let other = |_| IpAddr::from([192, 0, 2, 2]);
        let many = |i: u32| IpAddr::from((i + (10 << 24)).to_be_bytes());
        let mut containers = RateLimiter::default();
        assert_eq!(allowed(&mut containers, now, one), 1000);
        assert_eq!(allowed(&mut containers, now, other), 1000);
        let mut world = RateLimiter::of_world();
        assert_eq!(allowed(&mut world, now, many), 1000);
        assert_eq!(allowed(&mut world, now, one), 0);
        let later = now + std::time::Duration::from_millis(500);
        assert_eq!(allowed(&mut world, later, one), 500);
    }
}
