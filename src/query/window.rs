//! Which rows a query answers: from `after`, `before`, `points` and `gtime` as a client gives them to row times.
//!
//! Pure arithmetic, in the steps and with the truncating divisions of the HTTP specification, section 7.4.

use super::options::Options;

/// Up to here (three years) a number of seconds is relative.
pub const RELATIVE_MAX: i64 = 3 * 365 * 86_400;
/// Rows of one answer, whatever was asked for. The left-over of a division may add rows, never more than as many again.
pub const ROWS_MAX: i64 = 86_400;
/// `after=0`, and the rows of a query that says nothing about them.
const DEFAULT_SPAN: i64 = 600;
const YEAR: i64 = 365 * 86_400;

/// The part of a request that is about time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    pub after: i64,
    pub before: i64,
    /// 0 = one row per stored sample.
    pub points: i64,
    /// Resampling time in seconds; 0 or less = none.
    pub gtime: i64,
    pub options: Options,
    /// Interval of the tier above 0 that was forced, if one was.
    pub forced_every: Option<i64>,
}

/// What the selected metrics hold, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub every: i64,
    pub first: i64,
    pub last: i64,
}

/// The rows of an answer: they end at `after - granularity + k * every`, the last one at `before`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// First second that is covered.
    pub after: i64,
    /// Time of the last row.
    pub before: i64,
    pub rows: usize,
    /// Units of `granularity` in a row.
    pub group: i64,
    pub granularity: i64,
    /// Seconds between rows.
    pub every: i64,
    /// What the sum of a row is divided by instead of the count of its values, when `gtime` asks for amounts per time.
    pub amount_divisor: Option<f64>,
    /// Rows lie on the samples, not between them.
    pub natural: bool,
}

/// Both ends given as absolute times?
pub fn is_absolute(after: i64, before: i64) -> bool {
    !is_relative(after) && !is_relative(before)
}

fn is_relative(seconds: i64) -> bool {
    seconds.saturating_abs() <= RELATIVE_MAX
}

/// Relative ends made absolute, ordered and not in the future. `now` is the current second minus one.
pub fn absolute(after: i64, before: i64, now: i64) -> (i64, i64) {
    let mut before = before;
    let mut after = after;
    if is_relative(before) {
        before = now - before.abs();
    }
    if is_relative(after) {
        let span = if after == 0 { DEFAULT_SPAN } else { after.abs() };
        after = before.saturating_sub(span).saturating_add(1);
    }
    if after > before {
        std::mem::swap(&mut after, &mut before);
    }
    if before > now {
        after = after.saturating_sub(before - now);
        before = now;
    }
    let clamp = |t: i64| t.clamp(now - 10 * YEAR, now + YEAR);
    (clamp(after), clamp(before))
}

/// The rows for what was asked of metrics that hold `held`. `clock` is the current second; `rows_max` bounds the
/// answer further than [`ROWS_MAX`].
pub fn resolve(asked: &Asked, held: Held, clock: i64, rows_max: i64) -> Window {
    let now = clock - 1;
    let held_every = held.every.max(1);
    let automatic = asked.points <= 0;
    let natural = (asked.options.contains(Options::NATURAL_POINTS)
        || automatic
        || is_relative(asked.after)
        || is_relative(asked.before))
        && !asked.options.contains(Options::VIRTUAL_POINTS);

    let ends_at_last = asked.before == 0;
    let mut points = asked.points.max(0);
    let mut after = if asked.after == 0 { held.first } else { asked.after };
    let mut before = if ends_at_last { held.last } else { asked.before };
    if points == 0 && (asked.after == 0 || ends_at_last) {
        points = (held.last - held.first) / held_every;
    }
    if points <= 0 {
        points = DEFAULT_SPAN;
    }
    (after, before) = absolute(after, before, now);

    let granularity = match asked.forced_every {
        _ if !natural => 1,
        Some(every) => every.max(1),
        None => held_every,
    };
    before -= before % granularity;
    after -= after % granularity;
    if automatic {
        points = ((before - after + 1) / granularity).max(1);
    }

    let mut duration = before - after;
    let gtime = asked.gtime.clamp(0, 10 * YEAR);
    if gtime > duration {
        after = before - gtime;
        duration = gtime;
    }
    if gtime > granularity && duration % gtime > gtime / 10 {
        after -= gtime - duration % gtime;
        duration = before - after;
    }

    let available = ((duration + 1) / granularity).max(1);
    points = points.min(available).min(ROWS_MAX).min(rows_max.max(1));
    let mut group = (available / points).max(1);
    if available % points > points / 2 {
        group += 1;
    }
    if points * group * granularity < duration {
        points = available / group;
        if points * group < available {
            points += 1;
        }
        points = points.max(1);
    }
    let mut amount_divisor = None;
    if gtime > granularity {
        let per = (gtime + granularity - 1) / granularity;
        group = group.max(per);
        group = (group + per - 1) / per * per;
        amount_divisor = Some((group * granularity) as f64 / gtime as f64);
    }

    let every = group * granularity;
    if !asked.options.contains(Options::UNALIGNED) && before % every != 0 {
        before -= before % every;
        if !ends_at_last {
            before += every;
        }
    }
    Window {
        after: before - points * every + granularity,
        before,
        rows: usize::try_from(points).unwrap_or(1),
        group,
        granularity,
        every,
        amount_divisor,
        natural,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: i64 = 1_700_000_000;
    const HELD: Held = Held { every: 1, first: T0 + 1, last: T0 + 900 };
    const NOW: i64 = T0 + 50_000_000;

    /// (after, before, points, gtime, options) → (row interval, after, before, rows); times below 100000 count from T0.
    #[track_caller]
    fn check(asked: (i64, i64, i64, i64, &str), want: (i64, i64, i64, usize)) {
        let shift = |t: i64| if (1..100_000).contains(&t) { t + T0 } else { t };
        let (after, before, points, gtime, options) = asked;
        let asked = Asked {
            after: shift(after),
            before: shift(before),
            points,
            gtime,
            options: Options::parse(options),
            forced_every: None,
        };
        let w = resolve(&asked, HELD, NOW, ROWS_MAX);
        assert_eq!((w.every, w.after - T0, w.before - T0, w.rows), want);
    }

    #[test]
    fn the_windows_that_clients_rely_on() {
        check((101, 160, 0, 0, ""), (1, 101, 160, 60));
        check((101, 160, 60, 0, ""), (1, 101, 160, 60));
        check((101, 160, 1000, 0, ""), (1, 101, 160, 60));
        check((101, 160, 6, 0, ""), (10, 101, 160, 6));
        check((101, 160, 1, 0, ""), (60, 101, 160, 1));
        check((81, 140, 1, 0, ""), (60, 101, 160, 1));
        check((101, 160, 1, 0, "unaligned"), (60, 101, 160, 1));
        check((101, 163, 6, 0, ""), (10, 101, 170, 7));
        check((101, 163, 6, 0, "unaligned"), (10, 94, 163, 7));
        check((101, 160, 7, 0, ""), (9, 101, 163, 7));
        check((101, 160, 40, 0, ""), (1, 101, 160, 60));
        check((101, 160, 25, 0, ""), (2, 101, 160, 30));
        check((160, 101, 6, 0, ""), (10, 101, 160, 6));
        check((101, 101, 0, 0, ""), (1, 101, 101, 1));
        check((101, 160, 6, 20, ""), (20, 41, 160, 6));
        check((101, 160, 3, 7, ""), (21, 107, 169, 3));
        check((-60, 160, 6, 0, ""), (10, 101, 160, 6));
        check((-59, 160, 6, 0, ""), (10, 101, 160, 6));
        check((101, 160, 6, 0, "natural-points"), (10, 101, 160, 6));
        check((0, 160, 16, 0, ""), (10, 1, 160, 16));
        check((840, 0, 6, 0, ""), (10, 841, 900, 6));
        check((843, 0, 4, 0, ""), (14, 821, 890, 5));
    }

    #[test]
    fn after_and_before_may_both_be_relative() {
        assert_eq!(absolute(-10, -5, 1_000_000_000), (999_999_986, 999_999_995));
        assert_eq!(absolute(10, 5, 1_000_000_000), (999_999_986, 999_999_995));
        assert_eq!(absolute(0, 0, 1_000_000_000), (999_999_401, 1_000_000_000));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_the_window_is_bounded_and_ends_at_before(
            after: i64, before: i64, points: i64, gtime: i64, bits: u32, every in 1i64..3600, forced in proptest::option::of(1i64..100_000),
        ) {
            let held = Held { every, first: T0, last: T0 + 1000 * every };
            let asked = Asked { after, before, points, gtime, options: Options::from_bits_truncate(bits), forced_every: forced };
            let w = resolve(&asked, held, NOW, ROWS_MAX);
            prop_assert!(w.rows >= 1 && w.rows as i64 <= 2 * ROWS_MAX, "{} rows", w.rows);
            prop_assert_eq!(w.after - w.granularity + w.rows as i64 * w.every, w.before);
            prop_assert_eq!(w.every, w.group * w.granularity);
        }
    }
}
