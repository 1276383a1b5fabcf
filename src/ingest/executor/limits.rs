//! What one child may ask of a parent: named limits, beyond which its connection ends.
//!
//! Pure; time comes with each call. Plugins are our own and have none. The numbers are far above what any machine does, so
//! that whoever meets one is broken or means harm.

use super::commands::TIME_MAX;
use crate::base::time::{MICROS, UnixMicros};
use crate::metrics::{chart::DIMENSIONS_MAX, host};

/// Lines that define charts and dimensions: so many at once (all of them, when a child connects), and then so many a second.
const DEFINITIONS_BURST: u64 = 500_000;
const DEFINITIONS_PER_SECOND: u64 = 2_000;
/// Charts that the host did not have: each costs memory for as long as obsolete charts are kept, and a place in the catalog.
const NEW_CHARTS_BURST: u64 = 50_000;
const NEW_CHARTS_PER_SECOND: u64 = 20;
/// How far ahead of our clock a sample may be. What lies in the future outlives the retention of all others.
const FUTURE_MAX_S: i64 = 86_400;
/// A clock before the year 2020 is wrong, and no measure for others.
const CLOCK_MIN_S: i64 = 1_577_836_800;

/// So many at once, and then so many a second.
struct Budget {
    name: &'static str,
    per_second: u64,
    /// What one costs, and all of a burst, in time.
    cost_us: i64,
    burst_us: i64,
    /// When all that was taken is earned again.
    even_at: UnixMicros,
    last: UnixMicros,
}

impl Budget {
    const fn new(name: &'static str, burst: u64, per_second: u64) -> Budget {
        let cost_us = MICROS / per_second.cast_signed();
        let burst_us = cost_us * burst.cast_signed();
        let zero = UnixMicros(0);
        Budget { name, per_second, cost_us, burst_us, even_at: zero, last: zero }
    }

    fn take(&mut self, now: UnixMicros) -> Result<(), Exceeded> {
        if now < self.last {
            // The clock was set back: what was taken stays taken, and no more.
            self.even_at = self.even_at + (now - self.last);
        }
        self.last = now;
        self.even_at = self.even_at.max(now) + self.cost_us;
        if self.even_at - now <= self.burst_us {
            Ok(())
        } else {
            Err(Exceeded { limit: self.name, allowed: self.per_second })
        }
    }
}

/// Which limit, and what it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) limit: &'static str,
    pub(super) allowed: u64,
}

pub(super) struct Limits {
    definitions: Budget,
    new_charts: Budget,
}

impl Limits {
    pub(super) const fn new() -> Limits {
        const DEFINITIONS: &str = "DEFINITIONS_PER_SECOND";
        const NEW_CHARTS: &str = "NEW_CHARTS_PER_SECOND";
        Limits {
            definitions: Budget::new(DEFINITIONS, DEFINITIONS_BURST, DEFINITIONS_PER_SECOND),
            new_charts: Budget::new(NEW_CHARTS, NEW_CHARTS_BURST, NEW_CHARTS_PER_SECOND),
        }
    }

    /// A chart or dimension is defined.
    pub(super) fn definition(&mut self, now: UnixMicros) -> Result<(), Exceeded> {
        self.definitions.take(now)
    }

    /// Of these the host did not have the chart.
    pub(super) fn new_chart(&mut self, now: UnixMicros) -> Result<(), Exceeded> {
        self.new_charts.take(now)
    }
}

/// The latest end of a sample that is believed now, in seconds.
pub fn latest(now: i64) -> i64 {
    if now < CLOCK_MIN_S { TIME_MAX } else { now.saturating_add(FUTURE_MAX_S).min(TIME_MAX) }
}

pub(super) const FUTURE: Exceeded =
    Exceeded { limit: "FUTURE_MAX_S", allowed: FUTURE_MAX_S.unsigned_abs() };

/// What a host and a chart hold, whoever asks.
pub(super) const CHARTS_OF_HOST: Exceeded =
    Exceeded { limit: "CHARTS_MAX", allowed: host::CHARTS_MAX as u64 };
pub(super) const DIMENSIONS_OF_CHART: Exceeded =
    Exceeded { limit: "DIMENSIONS_MAX", allowed: DIMENSIONS_MAX as u64 };

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_800_000_000 * MICROS;

    #[test]
    fn a_burst_is_free_and_then_time_earns() {
        let mut budget = Budget::new("x", 100, 10);
        let now = |ms: i64| UnixMicros(T0 + ms * 1000);
        let taken = |budget: &mut Budget, ms: i64| {
            (0..1000).take_while(|_| budget.take(now(ms)).is_ok()).count()
        };
        assert_eq!(taken(&mut budget, 0), 100);
        let mut budget = Budget::new("x", 100, 10);
        (0..100).for_each(|_| budget.take(now(0)).unwrap());
        assert_eq!(taken(&mut budget, 1000), 10);
        let mut budget = Budget::new("x", 100, 10);
        (0..100).for_each(|_| budget.take(now(0)).unwrap());
        assert_eq!(taken(&mut budget, 3_600_000), 100, "not more than a burst");
        // Set back by an hour.
        let mut budget = Budget::new("x", 100, 10);
        (0..50).for_each(|_| budget.take(now(3_600_000)).unwrap());
        assert_eq!(taken(&mut budget, 0), 50);
    }

    #[test]
    fn the_future_is_a_day_unless_our_own_clock_is_wrong() {
        let now = T0 / MICROS;
        assert_eq!(latest(now), now + 86_400);
        assert_eq!(latest(TIME_MAX - 1), TIME_MAX);
        assert_eq!(latest(0), TIME_MAX);
    }
}
