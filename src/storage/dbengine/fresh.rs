//! Points of the higher tiers that no segment has yet: samples in hot rows and late samples become points when they are
//! flushed, and whoever asks before that has them derived for the one answer.
//!
//! A point that a segment has is derived again when some of its samples are fresh; of the two the one of more samples
//! counts, as the samples of the other may be gone by retention. Pure arithmetic over what the two closures read.

use super::tiers::Sum;
use crate::base::number::Sample;
use crate::base::time::UnixSeconds;
use crate::storage::TierPoint;

pub(super) type Visit<'a, T> = &'a mut dyn FnMut(T);
type ReadSamples<'a> = &'a dyn Fn(i64, i64, Visit<'_, (UnixSeconds, Sample)>);
type ReadPoints<'a> = &'a dyn Fn(usize, i64, i64, Visit<'_, TierPoint>);

/// One metric.
pub(super) struct Fresh<'a> {
    /// Seconds between points of each tier, the samples themselves being the first.
    pub(super) every: &'a [i64],
    /// Ends of the points of tier 1 that have fresh samples; made by [`touched`].
    pub(super) touched: &'a [i64],
    /// Reads the samples with `after < time <= until`, wherever they are.
    pub(super) samples: ReadSamples<'a>,
    /// Reads the points that segments have of a tier.
    pub(super) stored: ReadPoints<'a>,
}

/// The end of the point of length `every` that a time lies in.
pub(super) fn end_of(time: i64, every: i64) -> i64 {
    (time + every - 1).div_euclid(every) * every
}

/// The ends of the points of length `every` that these times lie in, each once, in order.
pub(super) fn touched(times: &[i64], every: i64) -> Vec<i64> {
    let mut ends: Vec<i64> = times.iter().map(|&time| end_of(time, every)).collect();
    ends.dedup();
    ends.sort_unstable();
    ends.dedup();
    ends
}

impl Fresh<'_> {
    /// The points of `tier` (1 and above) with `after < end <= until` that hold anything.
    pub(super) fn points(&self, tier: usize, after: i64, until: i64) -> Vec<TierPoint> {
        let mut points: Vec<TierPoint> = Vec::new();
        (self.stored)(tier, after, until, &mut |point| points.push(point));
        let every = self.every[tier];
        let ends = touched(self.touched, every);
        let ends: Vec<i64> =
            ends.into_iter().filter(|end| (after + 1..=until).contains(end)).collect();
        for run in ends.chunk_by(|a, b| b - a == every) {
            let (Some(&first), Some(&last)) = (run.first(), run.last()) else { continue };
            let mut sums = vec![Sum::default(); run.len()];
            let index = |time: i64| usize::try_from((end_of(time, every) - first) / every);
            if tier == 1 {
                (self.samples)(first - every, last, &mut |(time, sample)| {
                    if let Some(sum) = index(time.0).ok().and_then(|index| sums.get_mut(index)) {
                        sum.add_sample(sample);
                    }
                });
            } else {
                for point in &self.points(tier - 1, first - every, last) {
                    if let Some(sum) = index(point.end.0).ok().and_then(|index| sums.get_mut(index))
                    {
                        sum.add_point(point);
                    }
                }
            }
            for (sum, &end) in sums.iter().zip(run) {
                let point = sum.point(UnixSeconds(end));
                if point.count == 0 {
                    continue;
                }
                match points.binary_search_by_key(&end, |known| known.end.0) {
                    Ok(at) if point.count >= points[at].count => points[at] = point,
                    Ok(_) => {}
                    Err(at) => points.insert(at, point),
                }
            }
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> Sum {
        let mut sum = Sum::default();
        values.iter().for_each(|&value| sum.add_sample(Sample::normal(value)));
        sum
    }

    #[test]
    fn points_with_fresh_samples_are_derived_and_others_are_taken_as_they_are() {
        // One sample a second, its value the second; segments have tier 1 up to 20 and tier 2 up to 12.
        let samples = |after: i64, until: i64, visit: Visit<'_, (UnixSeconds, Sample)>| {
            for time in after + 1..=until.min(30) {
                visit((UnixSeconds(time), Sample::normal(time as f64)));
            }
        };
        let stored = |tier: usize, after: i64, until: i64, visit: Visit<'_, TierPoint>| {
            let (every, last) = if tier == 1 { (4, 20) } else { (12, 12) };
            for end in (every..=last).step_by(every as usize) {
                if end > after && end <= until {
                    visit(sum(&vec![end as f64; every as usize]).point(UnixSeconds(end)));
                }
            }
        };
        let late = touched(&[30, 3, 22, 21, 23, 29], 4);
        assert_eq!(late, [4, 24, 32]);
        let fresh =
            Fresh { every: &[1, 4, 12], touched: &late, samples: &samples, stored: &stored };
        let one = fresh.points(1, 0, 100);
        let sums: Vec<(i64, u32, f64)> =
            one.iter().map(|point| (point.end.0, point.count, point.sum)).collect();
        assert_eq!(
            sums,
            [
                (4, 4, 10.0),
                (8, 4, 32.0),
                (12, 4, 48.0),
                (16, 4, 64.0),
                (20, 4, 80.0),
                (24, 4, 90.0),
                (32, 2, 59.0)
            ]
        );
        let two = fresh.points(2, 12, 100);
        let sums: Vec<(i64, u32, f64)> =
            two.iter().map(|point| (point.end.0, point.count, point.sum)).collect();
        assert_eq!(sums, [(24, 12, 234.0), (36, 2, 59.0)]);
        assert_eq!(fresh.points(1, 4, 8).len(), 1);
    }
}
