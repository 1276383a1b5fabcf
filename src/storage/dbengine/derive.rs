//! Points of the higher tiers for what a flush brings: each tier from the one below, as far up as there are tiers.
//!
//! A point that reaches beyond the span that changed comes out as far as there are samples, and again when there are
//! more: nobody knows whether there will be. Runs on the flush thread.

use std::collections::BTreeMap;
use std::io;

use super::codec::Effort;
use super::files::SegmentName;
use super::segment::SegmentWriter;
use super::store::{Store, WINDOW, page_key, window_of};
use super::tiers::{Columns, Sum, as_stored};
use crate::base::number::Sample;
use crate::base::time::UnixSeconds;
use crate::storage::TierPoint;

/// Visits samples by ordinal, from the first to the last asked for; gaps may be left out.
pub(super) type ReadSamples<'a> = &'a mut dyn FnMut(i64, i64, &mut dyn FnMut(i64, Sample));

/// The segments of one flush, one per tier and window, written as metrics come.
pub(super) struct Derived<'a> {
    store: &'a Store,
    every: u32,
    writers: BTreeMap<(usize, u32), (SegmentName, SegmentWriter)>,
    sums: Vec<Sum>,
    /// Of the tier at hand, and of the one below.
    points: Vec<TierPoint>,
    below: Vec<TierPoint>,
    columns: Columns,
    payload: Vec<u8>,
}

impl<'a> Derived<'a> {
    pub(super) fn new(store: &'a Store, every: u32) -> Derived<'a> {
        Derived {
            store,
            every,
            writers: BTreeMap::new(),
            sums: Vec::new(),
            points: Vec::new(),
            below: Vec::new(),
            columns: Columns::default(),
            payload: Vec::new(),
        }
    }

    /// Adds the points that touch the slots `first..=last` of a metric.
    pub(super) fn add(
        &mut self,
        metric: u32,
        (first, last): (i64, i64),
        read: ReadSamples<'_>,
    ) -> io::Result<()> {
        if self.store.tiers_count() < 2 {
            return Ok(());
        }
        let per_point = i64::from(self.store.iterations(1));
        let (mut from, mut to) = points_of((first, last), per_point);
        self.begin(from, to);
        let sums = &mut self.sums;
        // Samples come in order: the point of the last one is most often that of the next.
        let (mut last, mut place) = (i64::MIN, 0);
        read((from - 1) * per_point + 1, to * per_point, &mut |ordinal, sample| {
            if ordinal > last || ordinal <= last.saturating_sub(per_point) {
                let point = (ordinal + per_point - 1).div_euclid(per_point);
                (last, place) = (point * per_point, point - from);
            }
            add_to(sums, place, |sum| sum.add_sample(sample));
        });
        self.write(1, metric, from)?;
        for tier in 2..self.store.tiers_count() {
            let per_point = i64::from(self.store.iterations(tier));
            let (upper_from, upper_to) = points_of((from, to), per_point);
            std::mem::swap(&mut self.points, &mut self.below);
            self.begin(upper_from, upper_to);
            let Some(below_every) = self.store.point_every(self.every, tier - 1) else {
                return Ok(());
            };
            let index = |ordinal: i64| (ordinal + per_point - 1).div_euclid(per_point) - upper_from;
            let (sums, below) = (&mut self.sums, &self.below);
            let own = |ordinal: i64| {
                let index = usize::try_from(ordinal - from).ok()?;
                below.get(index).filter(|point| point.count > 0)
            };
            // What is there already of the points' beginnings and ends, and wherever nothing is new.
            let reach = ((upper_from - 1) * per_point + 1, upper_to * per_point);
            if reach != (from, to) || below.iter().any(|point| point.count == 0) {
                let seconds = |ordinal: i64| ordinal * i64::from(below_every);
                let (after, until) = (seconds(reach.0 - 1), seconds(reach.1));
                let span = (after, until);
                self.store.points(metric, tier - 1, below_every, span, &mut |point| {
                    let ordinal = point.end.0.div_euclid(i64::from(below_every));
                    if own(ordinal).is_none() {
                        add_to(sums, index(ordinal), |sum| sum.add_point(&point));
                    }
                });
            }
            for (point, ordinal) in below.iter().zip(from..) {
                add_to(sums, index(ordinal), |sum| sum.add_point(point));
            }
            (from, to) = (upper_from, upper_to);
            self.write(tier, metric, from)?;
        }
        Ok(())
    }

    fn begin(&mut self, from: i64, to: i64) {
        self.sums.clear();
        self.sums.resize(usize::try_from(to - from + 1).unwrap_or(0), Sum::default());
    }

    /// Makes points of the sums, the first of which has ordinal `from`, and writes them, a page per window.
    fn write(&mut self, tier: usize, metric: u32, from: i64) -> io::Result<()> {
        self.points.clear();
        let Some(every) = self.store.point_every(self.every, tier) else { return Ok(()) };
        let end = |ordinal: i64| UnixSeconds(ordinal * i64::from(every));
        let points = self.sums.iter().zip(from..);
        self.points.extend(points.map(|(sum, ordinal)| as_stored(sum.point(end(ordinal)))));
        // The tier below may have been trimmed meanwhile: what is known of more samples stays.
        let to = from + self.points.len() as i64 - 1;
        let span = (end(from - 1).0, end(to).0);
        let points = &mut self.points;
        self.store.points(metric, tier, every, span, &mut |known| {
            let index = known.end.0.div_euclid(i64::from(every)) - from;
            if let Some(point) = usize::try_from(index).ok().and_then(|index| points.get_mut(index))
                && known.count > point.count
            {
                *point = known;
            }
        });
        let mut rest = (self.points.as_slice(), from);
        while !rest.0.is_empty() {
            let window = window_of(rest.1);
            let here = ((i64::from(window) + 1) * WINDOW + 1 - rest.1).max(1);
            let here = usize::try_from(here).unwrap_or(usize::MAX).min(rest.0.len());
            let (points, start) = (&rest.0[..here], rest.1);
            rest = (&rest.0[here..], start + here as i64);
            let held = |point: &TierPoint| point.count > 0;
            let (Some(first), Some(last)) =
                (points.iter().position(held), points.iter().rposition(held))
            else {
                continue;
            };
            let points = &points[first..=last];
            self.payload.clear();
            self.columns.encode(points, Effort::Quick, &mut self.payload);
            let key = page_key(metric, start + first as i64, every, points.len());
            let store = self.store;
            let writer = match self.writers.entry((tier, window)) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(store.new_segment(tier, every, window)?)
                }
            };
            writer.1.add(key, &self.payload)?;
        }
        Ok(())
    }

    /// Makes all of it visible.
    pub(super) fn publish(self) -> io::Result<()> {
        for ((tier, _), (name, writer)) in self.writers {
            self.store.publish(tier, writer, name)?;
        }
        Ok(())
    }
}

/// The points, `per_point` slots each, that slots `first..=last` lie in.
fn points_of((first, last): (i64, i64), per_point: i64) -> (i64, i64) {
    ((first - 1).div_euclid(per_point) + 1, (last - 1).div_euclid(per_point) + 1)
}

#[inline]
fn add_to(sums: &mut [Sum], index: i64, add: impl FnOnce(&mut Sum)) {
    if let Some(sum) = usize::try_from(index).ok().and_then(|index| sums.get_mut(index)) {
        add(sum);
    }
}
