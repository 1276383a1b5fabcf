//! Points of the higher tiers: what many slots come to, and their pages.
//!
//! A point keeps sum, least, greatest, how many samples and how many of them anomalous. Least and greatest are so by
//! magnitude, as queries for a minimum or maximum compare on every tier; of equal ones the first is kept. Sums and bounds
//! are stored numbers like any sample; where sums need more digits than that, a page keeps averages instead.

use super::codec::{self, Damaged, Effort, Input};
use crate::base::number::{Sample, SampleFlags};
use crate::base::time::UnixSeconds;
use crate::storage::TierPoint;

/// A point under construction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum {
    sum: f64,
    min: f64,
    max: f64,
    count: u32,
    anomalous: u32,
}

impl Default for Sum {
    fn default() -> Self {
        Sum { sum: 0.0, min: f64::INFINITY, max: 0.0, count: 0, anomalous: 0 }
    }
}

impl Sum {
    pub(super) fn add_sample(&mut self, sample: Sample) {
        if let Some(value) = sample.value() {
            self.sum += value;
            self.bound(value, value);
            self.count += 1;
            self.anomalous += u32::from(sample.is_anomalous());
        }
    }

    pub(super) fn add_point(&mut self, point: &TierPoint) {
        if point.count > 0 {
            self.sum += point.sum;
            self.bound(point.min, point.max);
            self.count += point.count;
            self.anomalous += point.anomalous;
        }
    }

    fn bound(&mut self, min: f64, max: f64) {
        if min.abs() < self.min.abs() {
            self.min = min;
        }
        if max.abs() > self.max.abs() {
            self.max = max;
        }
    }

    /// The point that ends at `end`; an empty one if nothing was added.
    pub(super) fn point(&self, end: UnixSeconds) -> TierPoint {
        if self.count == 0 {
            return TierPoint::empty(end);
        }
        TierPoint {
            end,
            sum: self.sum,
            min: self.min,
            max: self.max,
            count: self.count,
            anomalous: self.anomalous,
        }
    }
}

/// What stands for the sum of a point in a page with sums that are no stored numbers: its average, marked as a reset is.
/// Rounded, an average still lies between the least and the greatest; a sum need not.
fn average(point: &TierPoint) -> Sample {
    let marked = SampleFlags { anomalous: false, reset: true };
    Sample::pack(point.sum / f64::from(point.count.max(1)), marked)
}

fn sum_of(sample: Sample, count: u32) -> Option<f64> {
    let times = if sample.is_reset() { f64::from(count) } else { 1.0 };
    sample.value().map(|value| value * times)
}

/// Appends the encoding of consecutive points to `out`.
pub(super) fn encode(points: &[TierPoint], effort: Effort, out: &mut Vec<u8>) {
    let column = |value: fn(&TierPoint) -> Sample, out: &mut Vec<u8>| {
        let samples: Vec<Sample> = points
            .iter()
            .map(|point| if point.count == 0 { Sample::EMPTY } else { value(point) })
            .collect();
        let mut bytes = Vec::new();
        codec::encode(&samples, effort, &mut bytes);
        codec::write_varint(bytes.len() as u64, out);
        out.extend_from_slice(&bytes);
    };
    let exact = points.iter().all(|point| Sample::normal(point.sum).unpack() == point.sum);
    column(if exact { |point| Sample::normal(point.sum) } else { average }, out);
    column(|point| Sample::normal(point.min), out);
    column(|point| Sample::normal(point.max), out);
    column(|point| Sample::normal(f64::from(point.count)), out);
    column(|point| Sample::normal(f64::from(point.anomalous)), out);
}

/// The `count` points of a page that starts with the one ending at `start`.
pub(super) fn decode(
    bytes: &[u8],
    count: usize,
    start: u32,
    every: u32,
    visit: &mut dyn FnMut(TierPoint),
) -> Result<(), Damaged> {
    let mut input = Input(bytes);
    let mut columns: [Vec<Sample>; 5] = Default::default();
    for column in &mut columns {
        let length = usize::try_from(input.varint()?).map_err(|_| Damaged)?;
        codec::decode(input.take(length)?, count, column)?;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are small whole numbers"
    )]
    let whole = |sample: Sample| sample.value().map_or(0, |value| value.clamp(0.0, 1e9) as u32);
    let [sums, mins, maxs, counts, anomalies] = &columns;
    for i in 0..count {
        let end = UnixSeconds(i64::from(start) + i as i64 * i64::from(every));
        let count = whole(counts[i]);
        visit(match sum_of(sums[i], count) {
            None => TierPoint::empty(end),
            Some(sum) => TierPoint {
                end,
                sum,
                min: mins[i].value().unwrap_or(0.0),
                max: maxs[i].value().unwrap_or(0.0),
                count,
                anomalous: whole(anomalies[i]),
            },
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_back_with_their_gaps() {
        let points: Vec<TierPoint> = (0..100)
            .map(|i| {
                let mut sum = Sum::default();
                if i % 7 != 3 {
                    for s in 0..60 {
                        sum.add_sample(Sample::normal(f64::from(i * s % 13) / 4.0));
                    }
                }
                sum.point(UnixSeconds(i64::from(i + 1) * 60))
            })
            .collect();
        let mut bytes = Vec::new();
        encode(&points, Effort::Small, &mut bytes);
        let mut back = Vec::new();
        decode(&bytes, 100, 60, 60, &mut |point| back.push(point)).unwrap();
        assert_eq!(back, points);
    }

    #[test]
    fn an_average_never_leaves_its_samples() {
        // The sum of three needs more digits than a stored number has.
        let points: Vec<TierPoint> = (0..50)
            .map(|i| {
                let mut sum = Sum::default();
                let first = 5_666_081 + i64::from(i) * 3;
                (first..first + 3).for_each(|n| sum.add_sample(Sample::normal(n as f64)));
                sum.point(UnixSeconds(i64::from(i + 1) * 3))
            })
            .collect();
        let mut bytes = Vec::new();
        encode(&points, Effort::Small, &mut bytes);
        let mut back = Vec::new();
        decode(&bytes, 50, 3, 3, &mut |point| back.push(point)).unwrap();
        for (back, point) in back.iter().zip(&points) {
            let average = back.sum / f64::from(back.count);
            assert!(back.min < average && average < back.max, "{back:?}");
            assert!((average - point.sum / 3.0).abs() < 0.5, "{back:?}");
        }
    }

    #[test]
    fn a_merged_point_weighs_every_sample_once() {
        let mut all = Sum::default();
        let mut halves = [Sum::default(), Sum::default()];
        for i in 0..10 {
            all.add_sample(Sample::normal(f64::from(i)));
            halves[usize::from(i > 2)].add_sample(Sample::normal(f64::from(i)));
        }
        let mut merged = Sum::default();
        for half in halves {
            merged.add_point(&half.point(UnixSeconds(1)));
        }
        assert_eq!(merged.point(UnixSeconds(1)), all.point(UnixSeconds(1)));
    }
}
