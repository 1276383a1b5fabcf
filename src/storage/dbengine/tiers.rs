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

/// All points that hold anything have the same count, which stands in the head.
const ONE_COUNT: u8 = 1;
/// No sample was anomalous.
const ALL_NORMAL: u8 = 2;

/// What encoding and decoding need between pages, so that a run of them allocates once.
#[derive(Default)]
pub(super) struct Columns {
    samples: Vec<Sample>,
    bytes: Vec<u8>,
    decoded: [Vec<Sample>; 5],
}

impl Columns {
    fn write(
        &mut self,
        points: &[TierPoint],
        effort: Effort,
        value: fn(&TierPoint) -> Sample,
        out: &mut Vec<u8>,
    ) {
        self.samples.clear();
        self.samples.extend(points.iter().map(|point| match point.count {
            0 => Sample::EMPTY,
            _ => value(point),
        }));
        self.bytes.clear();
        codec::encode(&self.samples, effort, &mut self.bytes);
        codec::write_varint(self.bytes.len() as u64, out);
        out.extend_from_slice(&self.bytes);
    }

    /// Appends the encoding of consecutive points to `out`: a head, then the columns it does not spare.
    pub(super) fn encode(&mut self, points: &[TierPoint], effort: Effort, out: &mut Vec<u8>) {
        let mut held = points.iter().filter(|point| point.count > 0);
        let count = held.next().map_or(0, |point| point.count);
        let one_count = held.all(|point| point.count == count);
        let all_normal = points.iter().all(|point| point.anomalous == 0);
        out.push((u8::from(one_count) * ONE_COUNT) | (u8::from(all_normal) * ALL_NORMAL));
        let exact = points.iter().all(|point| Sample::normal(point.sum).unpack() == point.sum);
        let sum = if exact { |point: &TierPoint| Sample::normal(point.sum) } else { average };
        self.write(points, effort, sum, out);
        self.write(points, effort, |point| Sample::normal(point.min), out);
        self.write(points, effort, |point| Sample::normal(point.max), out);
        if one_count {
            codec::write_varint(u64::from(count), out);
        } else {
            self.write(points, effort, |point| Sample::normal(f64::from(point.count)), out);
        }
        if !all_normal {
            self.write(points, effort, |point| Sample::normal(f64::from(point.anomalous)), out);
        }
    }

    /// Visits the points of a page that hold anything; the first one of its `count` ends at `start`.
    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        count: usize,
        (start, every): (u32, u32),
        visit: &mut dyn FnMut(TierPoint),
    ) -> Result<(), Damaged> {
        let mut input = Input(bytes);
        let head = input.byte()?;
        let [sums, mins, maxs, counts, anomalies] = &mut self.decoded;
        let read = |input: &mut Input<'_>, column: &mut Vec<Sample>| {
            column.clear();
            let length = usize::try_from(input.varint()?).map_err(|_| Damaged)?;
            codec::decode(input.take(length)?, count, 0..count, column)
        };
        read(&mut input, sums)?;
        read(&mut input, mins)?;
        read(&mut input, maxs)?;
        let one_count = if head & ONE_COUNT == 0 {
            read(&mut input, counts)?;
            None
        } else {
            Some(u32::try_from(input.varint()?).map_err(|_| Damaged)?)
        };
        if head & ALL_NORMAL == 0 {
            read(&mut input, anomalies)?;
        }
        for i in 0..count {
            let count = one_count.unwrap_or_else(|| counts.get(i).copied().map_or(0, whole));
            let Some(sum) = sum_of(sums[i], count) else { continue };
            visit(TierPoint {
                end: UnixSeconds(i64::from(start) + i as i64 * i64::from(every)),
                sum,
                min: mins[i].value().unwrap_or(0.0),
                max: maxs[i].value().unwrap_or(0.0),
                count,
                anomalous: if head & ALL_NORMAL == 0 { whole(anomalies[i]) } else { 0 },
            });
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are small whole numbers"
)]
fn whole(sample: Sample) -> u32 {
    sample.value().map_or(0, |value| value.clamp(0.0, 1e9) as u32)
}

/// The point as a page keeps it: its bounds are stored numbers, its sum as near as its page allows.
pub(super) fn as_stored(point: TierPoint) -> TierPoint {
    let stored = |value| Sample::normal(value).unpack();
    TierPoint { min: stored(point.min), max: stored(point.max), ..point }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::number::SampleFlags;

    #[test]
    fn points_come_back_with_their_gaps() {
        check(&mut |_| 0, &mut |i| if i % 7 == 3 { 0 } else { 60 });
    }

    #[test]
    fn counts_and_anomalies_come_back() {
        check(&mut |i| i % 3, &mut |i| i % 50);
    }

    #[track_caller]
    fn check(anomalous: &mut dyn FnMut(i32) -> i32, samples: &mut dyn FnMut(i32) -> i32) {
        let points: Vec<TierPoint> = (0..100)
            .map(|i| {
                let mut sum = Sum::default();
                let anomalous = anomalous(i);
                for s in 0..samples(i) {
                    let flags = SampleFlags { anomalous: s < anomalous, reset: false };
                    sum.add_sample(Sample::pack(f64::from(i * s % 13) / 4.0, flags));
                }
                sum.point(UnixSeconds(i64::from(i + 1) * 60))
            })
            .collect();
        for effort in [Effort::Quick, Effort::Small] {
            let mut bytes = Vec::new();
            let mut columns = Columns::default();
            columns.encode(&points, effort, &mut bytes);
            let mut back = Vec::new();
            columns.decode(&bytes, 100, (60, 60), &mut |point| back.push(point)).unwrap();
            let held: Vec<_> = points.iter().filter(|point| point.count > 0).copied().collect();
            assert_eq!(back, held);
        }
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
        let (mut bytes, mut back, mut columns) = (Vec::new(), Vec::new(), Columns::default());
        columns.encode(&points, Effort::Small, &mut bytes);
        columns.decode(&bytes, 50, (3, 3), &mut |point| back.push(point)).unwrap();
        assert_eq!(back.len(), 50);
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
