//! Samples of one metric as they are, and averages of its higher tiers where it holds no samples any more.

use crate::base::time::UnixSeconds;
use crate::storage::Reader;

/// First and last point of a metric, on whatever tier.
pub fn span(reader: &dyn Reader) -> Option<(i64, i64)> {
    let whole = reader.retention().map(|(first, last)| (first.0, last.0));
    let tiers = (1..reader.tiers()).filter_map(|tier| reader.tier_retention(tier));
    let tiers = tiers.map(|(_, first, last)| (first.0, last.0));
    whole.into_iter().chain(tiers).reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))
}

/// Calls `visit` for every value between `from` and `to` (seconds, both included), in order of time, with the end of its slot or point.
pub fn read(reader: &dyn Reader, from: i64, to: i64, visit: &mut dyn FnMut(i64, f64)) {
    // Tier, first and last second; the finest first.
    let mut pieces: Vec<(usize, i64, i64)> = Vec::new();
    let mut until = to;
    if let Some((first, _)) = reader.retention() {
        pieces.push((0, from.max(first.0), until));
        until = until.min(first.0 - 1);
    }
    for tier in 1..reader.tiers() {
        let Some((_, first, _)) = reader.tier_retention(tier) else { continue };
        pieces.push((tier, from.max(first.0), until));
        until = until.min(first.0 - 1);
    }
    for (tier, from, to) in pieces.into_iter().rev().filter(|(_, from, to)| from <= to) {
        let (after, before) = (UnixSeconds(from - 1), UnixSeconds(to));
        if tier == 0 {
            reader.read(after, before, &mut |at, sample| {
                if let Some(value) = sample.value() {
                    visit(at.0, value);
                }
            });
        } else {
            reader.read_tier(tier, after, before, &mut |point| {
                if point.count > 0 {
                    visit(point.end.0, point.sum / f64::from(point.count));
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::number::Sample;
    use crate::storage::TierPoint;

    /// Samples from 100 to 120, of which 110 is missing; minutes from 0 to 120.
    struct Held;

    impl Reader for Held {
        fn retention(&self) -> Option<(UnixSeconds, UnixSeconds)> {
            Some((UnixSeconds(100), UnixSeconds(120)))
        }

        fn read(
            &self,
            after: UnixSeconds,
            before: UnixSeconds,
            visit: &mut dyn FnMut(UnixSeconds, Sample),
        ) {
            for at in (100..=120).filter(|at| after.0 < *at && *at <= before.0) {
                let sample = if at == 110 { Sample::EMPTY } else { Sample::normal(1.0) };
                visit(UnixSeconds(at), sample);
            }
        }

        fn tiers(&self) -> usize {
            2
        }

        fn tier_retention(&self, _: usize) -> Option<(i64, UnixSeconds, UnixSeconds)> {
            Some((60, UnixSeconds(60), UnixSeconds(120)))
        }

        fn read_tier(
            &self,
            _: usize,
            after: UnixSeconds,
            before: UnixSeconds,
            visit: &mut dyn FnMut(TierPoint),
        ) {
            for at in [60, 120].into_iter().filter(|at| after.0 < *at && *at <= before.0) {
                let end = UnixSeconds(at);
                visit(TierPoint { sum: 120.0, count: 60, ..TierPoint::empty(end) });
            }
        }
    }

    #[track_caller]
    fn check(from: i64, to: i64, want: &[(i64, f64)]) {
        let mut found = Vec::new();
        read(&Held, from, to, &mut |at, value| found.push((at, value)));
        assert_eq!(found, want);
    }

    #[test]
    fn averages_stand_where_there_are_no_samples_any_more() {
        check(0, 101, &[(60, 2.0), (100, 1.0), (101, 1.0)]);
        check(109, 111, &[(109, 1.0), (111, 1.0)]);
        check(61, 99, &[]);
        assert_eq!(span(&Held), Some((60, 120)));
    }
}
