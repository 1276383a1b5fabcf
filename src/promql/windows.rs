//! What functions make of the samples of one series in a window of time. Pure arithmetic.

/// The time of a step, and the window it looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at_ms: i64,
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
}

/// Samples of one window, never none.
pub(super) struct Window<'a> {
    pub(super) samples: &'a [(i64, f64)],
    pub(super) moment: Moment,
}

/// Whether a fall of the value is a counter that began anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// Whether the change is told as it is, or by the second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Per {
    Window,
    Second,
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// A sum with what each addition lost.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum {
    total: f64,
    lost: f64,
}

impl Sum {
    pub(super) fn add(&mut self, value: f64) {
        let new = self.total + value;
        if new.is_infinite() {
            self.lost = 0.0;
        } else if self.total.abs() >= value.abs() {
            self.lost += (self.total - new) + value;
        } else {
            self.lost += (value - new) + self.total;
        }
        self.total = new;
    }

    pub(super) fn total(self) -> f64 {
        self.total + self.lost
    }
}

impl Window<'_> {
    fn values(&self) -> impl Iterator<Item = f64> + Clone {
        self.samples.iter().map(|(_, value)| *value)
    }

    /// `rate`, `increase`, `delta`: the change between first and last sample, continued to the ends of the window where they
    /// are near, and half a distance beyond the samples where they are not; a counter not below zero.
    pub(super) fn extrapolated(&self, kind: Kind, per: Per) -> Option<f64> {
        let [(first_ms, first), .., (last_ms, last)] = *self.samples else { return None };
        let mut change = last - first;
        if kind == Kind::Counter {
            let falls = self.samples.windows(2).filter(|pair| pair[1].1 < pair[0].1);
            change += falls.map(|pair| pair[0].1).sum::<f64>();
        }
        let mut to_start = seconds(first_ms - self.moment.from_ms);
        let to_end = seconds(self.moment.to_ms - last_ms);
        let covered = seconds(last_ms - first_ms);
        let apart = covered / (self.samples.len() - 1) as f64;
        if kind == Kind::Counter && change > 0.0 && first >= 0.0 {
            to_start = to_start.min(covered * (first / change));
        }
        let near = apart * 1.1;
        let beyond = |distance: f64| if distance < near { distance } else { apart / 2.0 };
        let factor = (covered + beyond(to_start) + beyond(to_end)) / covered;
        Some(match per {
            Per::Window => change * factor,
            Per::Second => change * (factor / seconds(self.moment.to_ms - self.moment.from_ms)),
        })
    }

    /// `irate`, `idelta`: between the last two samples.
    pub(super) fn instant(&self, kind: Kind, per: Per) -> Option<f64> {
        let [.., (before_ms, before), (last_ms, last)] = *self.samples else { return None };
        let change = if kind == Kind::Counter && last < before { last } else { last - before };
        let covered = last_ms - before_ms;
        match per {
            _ if covered == 0 => None,
            Per::Window => Some(change),
            Per::Second => Some(change / seconds(covered)),
        }
    }

    /// Slope and value of the line through the samples, the latter at `origin_ms`.
    pub(super) fn line(&self, origin_ms: i64) -> Option<(f64, f64)> {
        let (_, first) = *self.samples.first().filter(|_| self.samples.len() >= 2)?;
        if self.values().all(|value| value == first) {
            return Some(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) });
        }
        let [mut x, mut y, mut xy, mut xx] = [Sum::default(); 4];
        for (at_ms, value) in self.samples {
            let at = seconds(at_ms - origin_ms);
            x.add(at);
            y.add(*value);
            xy.add(at * value);
            xx.add(at * at);
        }
        let n = self.samples.len() as f64;
        let (x, y) = (x.total(), y.total());
        let slope = (xy.total() - x * y / n) / (xx.total() - x * x / n);
        Some((slope, y / n - slope * x / n))
    }

    pub(super) fn derivative(&self) -> Option<f64> {
        Some(self.line(self.samples.first()?.0)?.0)
    }

    pub(super) fn count(&self) -> f64 {
        self.samples.len() as f64
    }

    pub(super) fn sum(&self) -> f64 {
        let mut sum = Sum::default();
        self.values().for_each(|value| sum.add(value));
        sum.total()
    }

    pub(super) fn average(&self) -> f64 {
        let direct = self.sum() / self.count();
        if direct.is_finite() {
            return direct;
        }
        // Where the sum is too large the mean need not be.
        let (mut mean, mut n) = (0.0, 0.0);
        for value in self.values() {
            n += 1.0;
            if f64::is_infinite(mean) && (value == mean || value.is_finite()) {
                continue;
            }
            mean += value / n - mean / n;
        }
        mean
    }

    pub(super) fn extreme(&self, better: impl Fn(f64, f64) -> bool) -> Option<f64> {
        self.values().reduce(|a, b| if better(b, a) || a.is_nan() { b } else { a })
    }

    pub(super) fn variance(&self) -> f64 {
        variance(self.values())
    }

    pub(super) fn quantile(&self, q: f64) -> f64 {
        quantile(q, &mut self.values().collect::<Vec<_>>())
    }

    pub(super) fn last(&self) -> Option<f64> {
        Some(self.samples.last()?.1)
    }

    pub(super) fn changes(&self) -> f64 {
        let differ = |pair: &&[(i64, f64)]| {
            let (a, b) = (pair[0].1, pair[1].1);
            a != b && !(a.is_nan() && b.is_nan())
        };
        self.samples.windows(2).filter(differ).count() as f64
    }

    pub(super) fn resets(&self) -> f64 {
        self.samples.windows(2).filter(|pair| pair[1].1 < pair[0].1).count() as f64
    }

    /// Double exponential smoothing.
    pub(super) fn smoothed(&self, smoothing: f64, trend_factor: f64) -> Option<f64> {
        let [(_, first), (_, second), ..] = *self.samples else { return None };
        let (mut before, mut level, mut trend) = (0.0, first, second - first);
        for (n, (_, value)) in self.samples.iter().enumerate().skip(1) {
            if n > 1 {
                trend = trend_factor * (level - before) + (1.0 - trend_factor) * trend;
            }
            let next = smoothing * value + (1.0 - smoothing) * (level + trend);
            (before, level) = (level, next);
        }
        Some(level)
    }
}

/// Of a whole population.
pub(super) fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let (mut n, mut mean, mut squares) = (0.0, Sum::default(), Sum::default());
    for value in values {
        n += 1.0;
        let delta = value - mean.total();
        mean.add(delta / n);
        squares.add(delta * (value - mean.total()));
    }
    squares.total() / n
}

/// Between the two nearest values; NaN counts as the smallest.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    values.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.total_cmp(b),
        (a, b) => b.cmp(&a),
    });
    let rank = q * (values.len() - 1) as f64;
    let lower = (rank.floor() as usize).min(values.len() - 1);
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(samples: &[(i64, f64)], from: i64, to: i64) -> Window<'_> {
        Window { samples, moment: Moment { at_ms: to, from_ms: from, to_ms: to } }
    }

    #[test]
    fn a_counter_that_began_anew_goes_on_growing() {
        let samples = [(0, 10.0), (10_000, 20.0), (20_000, 5.0), (30_000, 15.0)];
        let all = window(&samples, 0, 30_000);
        assert_eq!(all.extrapolated(Kind::Counter, Per::Window), Some(25.0));
        assert_eq!(all.extrapolated(Kind::Gauge, Per::Window), Some(5.0));
        assert_eq!(all.instant(Kind::Counter, Per::Second), Some(1.0));
        assert_eq!((all.resets(), all.changes()), (1.0, 3.0));
        assert_eq!(window(&samples[..1], 0, 5).extrapolated(Kind::Gauge, Per::Window), None);
    }

    #[test]
    fn a_counter_was_never_below_zero() {
        let samples = [(20_000, 1.0), (30_000, 11.0)];
        // Ten seconds and one that it took from zero.
        let rate = window(&samples, 11_000, 30_000).extrapolated(Kind::Counter, Per::Window);
        assert_eq!(rate, Some(11.0));
    }

    #[test]
    fn sums_lose_nothing() {
        let samples = [(0, 1e100), (1, 1.0), (2, -1e100)];
        assert_eq!(window(&samples, 0, 2).sum(), 1.0);
        let large = [(0, f64::MAX), (1, f64::MAX)];
        assert_eq!(window(&large, 0, 2).average(), f64::MAX);
    }

    #[test]
    fn quantiles_lie_between_values() {
        assert_eq!(quantile(0.5, &mut [3.0, 1.0, 2.0, 4.0]), 2.5);
        assert_eq!(quantile(1.0, &mut [3.0, f64::NAN]), 3.0);
        assert_eq!(quantile(-0.1, &mut [3.0]), f64::NEG_INFINITY);
        assert!(quantile(0.5, &mut []).is_nan());
    }
}
