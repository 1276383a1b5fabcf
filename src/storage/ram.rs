//! Engines `ram` and `alloc`: one ring of 32-bit samples per metric, in memory only.
//!
//! A slot's place follows from its time (`time / every mod entries`), so samples may arrive in any order and a late one
//! simply lands where it belongs. Samples are kept XOR the pattern of an empty slot: memory that was never written
//! reads as empty, not as zeros.
//!
//! Locks: none. The only writer is the dimension, under its chart's lock. A reader may meet a slot just being
//! overwritten by one a whole ring newer; `head` is raised before the slot is written, so the reader can tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use super::map::zeroed_slots;
use super::{Metric, MetricKey, Mode, Reader, StorageEngine, StorageError, Writer};
use crate::base::number::Sample;
use crate::base::time::{UnixSeconds, UpdateEvery};

pub struct RamEngine {
    mode: Mode,
    entries: u32,
}

impl RamEngine {
    /// `wanted` entries per metric, rounded as `mode` ([`Mode::Ram`] or [`Mode::Alloc`]) does.
    pub fn new(mode: Mode, wanted: i64) -> Self {
        RamEngine { mode, entries: mode.entries(wanted).max(1) }
    }
}

impl StorageEngine for RamEngine {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn entries(&self) -> u32 {
        self.entries
    }

    fn open(&self, key: &MetricKey, every: UpdateEvery) -> Result<Metric, StorageError> {
        let ring = Ring::new(self.entries, every).ok_or_else(|| StorageError::OutOfMemory {
            chart: Arc::clone(&key.chart),
            dimension: Arc::clone(&key.dimension),
            entries: self.entries,
        })?;
        let ring = Arc::new(ring);
        Ok(Metric { writer: Box::new(RingWriter(Arc::clone(&ring))), reader: ring })
    }
}

/// The samples of one metric. Times are slot ends in seconds, multiples of `every`.
struct Ring {
    slots: Box<[AtomicU32]>,
    every: i64,
    /// First slot ever stored; the readable retention may start later. 0 = nothing stored.
    first: AtomicI64,
    /// Newest slot that can be read.
    last: AtomicI64,
    /// Newest slot being written; slots a ring older than this are gone.
    head: AtomicI64,
}

impl Ring {
    fn new(entries: u32, every: UpdateEvery) -> Option<Ring> {
        Some(Ring {
            slots: zeroed_slots(entries as usize)?,
            every: every.seconds(),
            first: AtomicI64::new(0),
            last: AtomicI64::new(0),
            head: AtomicI64::new(0),
        })
    }

    fn span(&self) -> i64 {
        self.every.saturating_mul(self.slots.len() as i64)
    }

    fn slot(&self, at: i64) -> &AtomicU32 {
        let index = at.div_euclid(self.every).rem_euclid(self.slots.len() as i64) as usize;
        &self.slots[index]
    }

    fn put(&self, at: i64, sample: Sample) {
        self.slot(at).store(sample.0 ^ Sample::EMPTY.0, Ordering::Release);
    }

    fn get(&self, at: i64) -> Sample {
        Sample(self.slot(at).load(Ordering::Acquire) ^ Sample::EMPTY.0)
    }

    fn store(&self, at: i64, sample: Sample) {
        let at = at - at.rem_euclid(self.every);
        let last = self.last.load(Ordering::Relaxed);
        if at <= 0 {
            return;
        }
        if last == 0 {
            self.head.store(at, Ordering::Release);
            self.put(at, sample);
            self.first.store(at, Ordering::Release);
            self.last.store(at, Ordering::Release);
        } else if at > last {
            self.head.store(at, Ordering::Release);
            let skipped_from = (last + self.every).max(at - self.span() + self.every);
            let mut skipped = skipped_from;
            while skipped < at {
                self.put(skipped, Sample::EMPTY);
                skipped += self.every;
            }
            self.put(at, sample);
            self.last.store(at, Ordering::Release);
        } else if at > last - self.span() {
            self.put(at, sample);
            if at < self.first.load(Ordering::Relaxed) {
                self.first.store(at, Ordering::Release);
            }
        }
    }

    fn clear(&self) {
        self.first.store(0, Ordering::Release);
        self.last.store(0, Ordering::Release);
        self.head.store(0, Ordering::Release);
        for slot in &self.slots {
            if slot.load(Ordering::Relaxed) != 0 {
                slot.store(0, Ordering::Relaxed);
            }
        }
    }
}

struct RingWriter(Arc<Ring>);

impl Writer for RingWriter {
    fn store(&mut self, at: UnixSeconds, sample: Sample) {
        self.0.store(at.0, sample);
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

impl Reader for Ring {
    fn retention(&self) -> Option<(UnixSeconds, UnixSeconds)> {
        let last = self.last.load(Ordering::Acquire);
        let oldest = self.head.load(Ordering::Acquire) - self.span() + self.every;
        let first = self.first.load(Ordering::Acquire).max(oldest);
        (last != 0 && first <= last).then_some((UnixSeconds(first), UnixSeconds(last)))
    }

    fn read(
        &self,
        after: UnixSeconds,
        before: UnixSeconds,
        visit: &mut dyn FnMut(UnixSeconds, Sample),
    ) {
        let Some((first, last)) = self.retention() else { return };
        let mut at = after.0 - after.0.rem_euclid(self.every) + self.every;
        if at < first.0 {
            at = first.0;
        }
        let end = before.0.min(last.0);
        while at <= end {
            let sample = self.get(at);
            let overwritten = at <= self.head.load(Ordering::Acquire) - self.span();
            visit(UnixSeconds(at), if overwritten { Sample::EMPTY } else { sample });
            at += self.every;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn open(entries: i64, every: i64) -> Metric {
        let key =
            MetricKey { host: MachineGuid::random(), chart: "a.b".into(), dimension: "d".into() };
        RamEngine::new(Mode::Alloc, entries).open(&key, UpdateEvery::clamped(every)).unwrap()
    }

    use crate::base::ids::MachineGuid;

    fn slots(metric: &Metric, after: i64, before: i64) -> Vec<(i64, Option<f64>)> {
        let mut seen = Vec::new();
        metric.reader.read(UnixSeconds(after), UnixSeconds(before), &mut |at, s| {
            seen.push((at.0, s.value()))
        });
        seen
    }

    #[test]
    fn skipped_slots_read_as_gaps_and_can_be_filled_later() {
        let mut metric = open(10, 1);
        for at in [100, 103] {
            metric.writer.store(UnixSeconds(at), Sample::normal(at as f64));
        }
        assert_eq!(
            slots(&metric, 99, 200),
            [(100, Some(100.0)), (101, None), (102, None), (103, Some(103.0))]
        );
        metric.writer.store(UnixSeconds(101), Sample::normal(1.0));
        metric.writer.store(UnixSeconds(98), Sample::normal(2.0));
        assert_eq!(
            slots(&metric, 0, 102),
            [(98, Some(2.0)), (99, None), (100, Some(100.0)), (101, Some(1.0)), (102, None)]
        );
    }

    #[test]
    fn a_jump_over_the_whole_ring_leaves_only_gaps_behind() {
        let mut metric = open(5, 10);
        metric.writer.store(UnixSeconds(100), Sample::normal(1.0));
        metric.writer.store(UnixSeconds(1000), Sample::normal(2.0));
        assert_eq!(
            slots(&metric, 0, 2000),
            [(960, None), (970, None), (980, None), (990, None), (1000, Some(2.0))]
        );
    }

    #[test]
    fn nothing_is_readable_before_the_first_sample_and_after_a_clear() {
        let mut metric = open(5, 1);
        assert_eq!(metric.reader.retention(), None);
        metric.writer.store(UnixSeconds(7), Sample::normal(0.0));
        assert_eq!(metric.reader.retention(), Some((UnixSeconds(7), UnixSeconds(7))));
        metric.writer.clear();
        assert_eq!(metric.reader.retention(), None);
        metric.writer.store(UnixSeconds(9), Sample::normal(0.0));
        assert_eq!(slots(&metric, 0, 100), [(9, Some(0.0))]);
    }

    proptest! {
        /// Whatever the order of arrival, a ring holds what a plain map of the newest `entries` slots would hold.
        #[test]
        fn a_ring_is_a_window_over_a_map(stores in proptest::collection::vec((1i64..80, 0u32..1000), 1..60), every in 1i64..4) {
            const ENTRIES: i64 = 16;
            let mut metric = open(ENTRIES, every);
            let mut model: BTreeMap<i64, f64> = BTreeMap::new();
            let mut newest = 0;
            for (slot, value) in stores {
                let at = slot * every;
                if at > newest - ENTRIES * every {
                    model.insert(at, f64::from(value));
                }
                newest = newest.max(at);
                model.retain(|&t, _| t > newest - ENTRIES * every);
                metric.writer.store(UnixSeconds(at), Sample::normal(f64::from(value)));
            }
            let held: Vec<_> = slots(&metric, 0, 10_000).into_iter().filter_map(|(t, v)| v.map(|v| (t, v))).collect();
            prop_assert_eq!(held, model.into_iter().collect::<Vec<_>>());
        }
    }
}
