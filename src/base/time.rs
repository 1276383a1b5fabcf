//! Time as the agent sees it: wall-clock seconds and microseconds as distinct types, and a clock that tests can move.
//!
//! No thread, no lock beyond an atomic. Nothing else in the library may ask the operating system for the time.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, UNIX_EPOCH};

pub const MICROS: i64 = 1_000_000;

/// Wall-clock seconds since 1970; zero means "never".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

/// Wall-clock microseconds since 1970; zero means "never".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMicros(pub i64);

/// Seconds between two samples of a chart; never zero, so code may divide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpdateEvery(NonZeroU32);

impl UnixSeconds {
    /// The latest slot boundary at or before `self`.
    pub fn floor_to(self, every: UpdateEvery) -> Self {
        UnixSeconds(self.0.saturating_sub(self.0.rem_euclid(every.seconds())))
    }

    pub fn micros(self) -> UnixMicros {
        UnixMicros(self.0.saturating_mul(MICROS))
    }
}

impl UnixMicros {
    pub fn seconds(self) -> UnixSeconds {
        UnixSeconds(self.0.div_euclid(MICROS))
    }

    /// Microseconds inside the second, 0..1 000 000.
    pub fn subsecond(self) -> i64 {
        self.0.rem_euclid(MICROS)
    }
}

impl UpdateEvery {
    pub const SECOND: UpdateEvery = UpdateEvery(NonZeroU32::MIN);

    /// At least one second, at most a day, whatever was asked for.
    pub fn clamped(seconds: i64) -> Self {
        let bounded = u32::try_from(seconds.clamp(1, 86_400)).unwrap_or(1);
        UpdateEvery(NonZeroU32::new(bounded).unwrap_or(NonZeroU32::MIN))
    }

    pub fn seconds(self) -> i64 {
        i64::from(self.0.get())
    }

    pub fn micros(self) -> i64 {
        self.seconds() * MICROS
    }
}

impl Add<i64> for UnixSeconds {
    type Output = UnixSeconds;
    fn add(self, seconds: i64) -> UnixSeconds {
        UnixSeconds(self.0.saturating_add(seconds))
    }
}

impl Sub<i64> for UnixSeconds {
    type Output = UnixSeconds;
    fn sub(self, seconds: i64) -> UnixSeconds {
        UnixSeconds(self.0.saturating_sub(seconds))
    }
}

impl Sub for UnixSeconds {
    type Output = i64;
    fn sub(self, other: UnixSeconds) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

impl Add<i64> for UnixMicros {
    type Output = UnixMicros;
    fn add(self, micros: i64) -> UnixMicros {
        UnixMicros(self.0.saturating_add(micros))
    }
}

impl Sub for UnixMicros {
    type Output = i64;
    fn sub(self, other: UnixMicros) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where "now" comes from. Cheap to clone; every holder sees the same time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System { started: Instant },
    Manual(Arc<ManualTime>),
}

#[derive(Default)]
struct ManualTime {
    wall_us: AtomicI64,
    monotonic_us: AtomicI64,
}

impl Clock {
    pub fn system() -> Self {
        Clock(Source::System { started: Instant::now() })
    }

    /// A clock that stands still until [`Clock::advance`] moves it. For tests and simulations.
    pub fn manual(wall: UnixMicros) -> Self {
        let time = ManualTime::default();
        time.wall_us.store(wall.0, Ordering::Relaxed);
        Clock(Source::Manual(Arc::new(time)))
    }

    /// Moves a manual clock forward; a system clock ignores it.
    pub fn advance(&self, micros: i64) {
        if let Source::Manual(time) = &self.0 {
            time.wall_us.fetch_add(micros, Ordering::Relaxed);
            time.monotonic_us.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// The wall clock; may jump when the operator sets it.
    pub fn now(&self) -> UnixMicros {
        match &self.0 {
            Source::System { .. } => {
                #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
                let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
                UnixMicros(since.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
            }
            Source::Manual(time) => UnixMicros(time.wall_us.load(Ordering::Relaxed)),
        }
    }

    pub fn now_seconds(&self) -> UnixSeconds {
        self.now().seconds()
    }

    /// Microseconds since the clock was made; never jumps back. For time-outs and durations.
    pub fn monotonic_us(&self) -> i64 {
        match &self.0 {
            Source::System { started } => {
                i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX)
            }
            Source::Manual(time) => time.monotonic_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_end_at_multiples_of_update_every() {
        let every = UpdateEvery::clamped(10);
        assert_eq!(UnixSeconds(1_000_009).floor_to(every), UnixSeconds(1_000_000));
        assert_eq!(UnixSeconds(1_000_000).floor_to(every), UnixSeconds(1_000_000));
    }

    #[test]
    fn update_every_is_never_zero() {
        assert_eq!(UpdateEvery::clamped(0).seconds(), 1);
        assert_eq!(UpdateEvery::clamped(-5).seconds(), 1);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(UnixMicros(5));
        clock.advance(10);
        assert_eq!((clock.now(), clock.monotonic_us()), (UnixMicros(15), 10));
    }
}
