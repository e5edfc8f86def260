//! Moments in four bytes.

use std::time::Duration;

use pontoon_switch::Instant;

/// Microseconds of a tick.
const MICROS: u64 = 10_000;

/// A moment in hundredths of a second, rounded down, which wraps around after 497 days: only what lies less than half of that
/// from another moment can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ticks(u32);

impl Ticks {
    /// The tick that `now` lies in.
    pub(super) const fn at(now: Instant) -> Self {
        Self((now.micros() / MICROS) as u32)
    }

    /// How many ticks are in `time`, which is less than half of what can be told.
    pub(super) const fn in_time(time: Duration) -> u32 {
        (time.as_millis() * 1000 / MICROS as u128) as u32
    }

    /// True if at least so many `ticks` have gone by between `earlier` and this.
    pub(super) const fn is_after(self, earlier: Self, ticks: u32) -> bool {
        self.0.wrapping_sub(earlier.0) as i32 >= ticks as i32
    }

    /// How many ticks before `later` it is; less than none if it is behind it.
    pub(super) const fn before(self, later: Self) -> i32 {
        later.0.wrapping_sub(self.0) as i32
    }

    /// The moment so many `ticks` after this one, of those that it may be the one nearest to `near`.
    pub(super) const fn instant(self, near: Instant, ticks: i32) -> Instant {
        let there = near.micros() / MICROS;
        let ahead = self.0.wrapping_sub(there as u32) as i32;
        Instant::from_micros(there.saturating_add_signed(ahead as i64 + ticks as i64) * MICROS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_wrap_around() {
        let year = Duration::from_secs(365 * 86_400);
        let days = Duration::from_secs(5 * 86_400);
        let ticks = Ticks::in_time(days);
        assert_eq!(ticks, 43_200_000);
        for years in 0..5 {
            let now = Instant::ZERO + year * years;
            let (then, later) = (Ticks::at(now), Ticks::at(now + days));
            assert_eq!(then.instant(now + days, 0), now);
            assert_eq!(then.instant(now, ticks as i32), now + days);
            assert_eq!(later.instant(now, 0), now + days);
            assert_eq!(
                (then.before(later), later.before(then)),
                (ticks as i32, -(ticks as i32))
            );
            assert!(later.is_after(then, ticks) && !later.is_after(then, ticks + 1));
            assert!(!then.is_after(later, 0), "time does not go back");
        }
    }
}
