//! Whether a child's connection is alive: what decides between a child that comes back and its own ghost.
//!
//! A plain state machine. The receiver tells it when bytes arrive; whoever wants to take the child's place asks it.
//! 1.37 keeps a silent connection for 30 s. Here a child that used to speak every second is missed much sooner.

use crate::base::time::MICROS;

/// Silence that nobody keeps, whatever the child's habits.
const SILENCE_MAX_US: i64 = 30 * MICROS;
/// Silence that everybody may keep.
const SILENCE_MIN_US: i64 = 3 * MICROS;
/// Arrivals closer to each other than this are one burst.
const BURST_US: i64 = MICROS / 20;
/// From so many pauses on, a child has habits.
const PAUSES_KNOWN: u32 = 3;

/// When bytes came, and how long the pauses between usually are. All times are monotonic microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    last: i64,
    pauses: u32,
    /// The longest pause lately.
    longest: i64,
}

impl Rhythm {
    /// A connection that was made at `now`.
    pub fn new(now: i64) -> Rhythm {
        Rhythm { last: now, pauses: 0, longest: 0 }
    }

    /// Bytes arrived.
    pub fn beat(&mut self, now: i64) {
        let pause = now - self.last;
        self.last = now;
        if pause >= BURST_US {
            self.pauses = self.pauses.saturating_add(1);
            // Old pauses fade, so a change of habits is learnt.
            self.longest = pause.max(self.longest - self.longest / 8);
        }
    }

    /// Microseconds since bytes came, or since the connection was made.
    pub fn age(&self, now: i64) -> i64 {
        now - self.last
    }

    /// Silent for at least so long and for much longer than it used to be; never of who has no habits.
    pub fn is_missed(&self, now: i64, least_us: i64) -> bool {
        self.pauses >= PAUSES_KNOWN && self.age(now) > least_us.max(self.longest * 5 / 2)
    }

    /// So silent that it must be dead.
    pub fn is_silent(&self, now: i64) -> bool {
        let patience = if self.pauses >= PAUSES_KNOWN {
            (self.longest * 5 / 2).clamp(SILENCE_MIN_US, SILENCE_MAX_US)
        } else {
            SILENCE_MAX_US
        };
        self.age(now) > patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(times_ms: &[i64]) -> Rhythm {
        let mut rhythm = Rhythm::new(0);
        for ms in times_ms {
            rhythm.beat(ms * 1000);
        }
        rhythm
    }

    #[track_caller]
    fn check(rhythm: Rhythm, silent_from_ms: i64) {
        let last = rhythm.last;
        assert!(!rhythm.is_silent(last + silent_from_ms * 1000));
        assert!(rhythm.is_silent(last + silent_from_ms * 1000 + 1));
    }

    #[test]
    fn a_child_without_habits_is_given_half_a_minute() {
        check(beats(&[]), 30_000);
        check(beats(&[1, 2, 3, 4, 5]), 30_000);
        check(beats(&[1000]), 30_000);
    }

    #[test]
    fn a_child_that_spoke_every_second_is_missed_after_three() {
        check(beats(&[1, 1000, 1001, 2000, 2001, 3000]), 3_000);
    }

    #[test]
    fn who_has_no_habits_or_long_pauses_is_not_missed_soon() {
        let missed =
            |rhythm: Rhythm, ms: i64| rhythm.is_missed(rhythm.last + ms * 1000, 6 * MICROS);
        let steady = beats(&[1000, 2000, 3000]);
        assert!(!missed(steady, 6000) && missed(steady, 6001));
        let loaded = beats(&[1000, 2000, 6000, 7000]);
        assert!(!missed(loaded, 8000) && missed(loaded, 10_001));
        assert!(!missed(beats(&[1000]), 600_000));
    }

    #[test]
    fn a_slow_child_is_given_more_and_forgotten_pauses_fade() {
        check(beats(&[5_000, 10_000, 15_000]), 12_500);
        check(beats(&[20_000, 40_000, 60_000]), 30_000);
        let mut rhythm = beats(&[20_000, 40_000, 60_000]);
        for second in 61..200 {
            rhythm.beat(second * MICROS);
        }
        check(rhythm, 3_000);
    }
}
