//! A disk of the simulator: a storage engine that outlives its node and watches what is written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use netdata_rs::base::number::Sample;
use netdata_rs::base::time::{UnixSeconds, UpdateEvery};
use netdata_rs::storage::{Metric, MetricKey, Mode, Reader, StorageEngine, StorageError, Writer};

type Slots = BTreeMap<i64, u32>;

#[derive(Default)]
struct Inner {
    series: BTreeMap<(String, String), Slots>,
    wrong: Option<String>,
}

/// One node's disk. Clones share it.
#[derive(Clone)]
pub(super) struct Disk {
    inner: Arc<Mutex<Inner>>,
    mode: Mode,
    /// Seconds kept behind the newest sample; 0 = everything.
    keeps: i64,
}

impl Disk {
    pub(super) fn new(mode: Mode, keeps: i64) -> Disk {
        Disk { inner: Arc::default(), mode, keeps }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn wipe(&self) {
        self.with(|inner| inner.series.clear());
    }

    /// A slot that was written twice, with different samples.
    pub(super) fn wrong(&self) -> Option<String> {
        self.with(|inner| inner.wrong.take())
    }

    /// Everything held, by chart and dimension.
    pub(super) fn all(&self) -> BTreeMap<(String, String), Slots> {
        self.with(|inner| inner.series.clone())
    }
}

struct End {
    disk: Disk,
    key: (String, String),
    every: i64,
}

impl StorageEngine for Disk {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn entries(&self) -> u32 {
        0
    }

    fn open(&self, key: &MetricKey, every: UpdateEvery) -> Result<Metric, StorageError> {
        let key = (key.chart.to_string(), key.dimension.to_string());
        let end = || End { disk: self.clone(), key: key.clone(), every: every.seconds() };
        Ok(Metric { writer: Box::new(end()), reader: Arc::new(end()) })
    }
}

impl Writer for End {
    fn store(&mut self, at: UnixSeconds, sample: Sample) {
        if sample.is_empty() {
            return;
        }
        let keeps = self.disk.keeps;
        self.disk.with(|inner| {
            let slots = inner.series.entry(self.key.clone()).or_default();
            let newest = slots.last_key_value().map_or(at.0, |(newest, _)| *newest).max(at.0);
            if keeps > 0 && at.0 <= newest - keeps {
                return;
            }
            let before = slots.insert(at.0, sample.0);
            if keeps > 0 {
                *slots = slots.split_off(&(newest - keeps + 1));
            }
            if before.is_some_and(|before| before != sample.0) {
                inner.wrong = Some(format!("{:?} at {} was stored as two samples", self.key, at.0));
            }
        });
    }

    fn clear(&mut self) {
        self.disk.with(|inner| inner.series.remove(&self.key));
    }
}

impl Reader for End {
    fn retention(&self) -> Option<(UnixSeconds, UnixSeconds)> {
        self.disk.with(|inner| {
            let slots = inner.series.get(&self.key)?;
            let (first, last) = (slots.first_key_value()?.0, slots.last_key_value()?.0);
            Some((UnixSeconds(*first), UnixSeconds(*last)))
        })
    }

    fn read(
        &self,
        after: UnixSeconds,
        before: UnixSeconds,
        visit: &mut dyn FnMut(UnixSeconds, Sample),
    ) {
        let Some((first, last)) = self.retention() else { return };
        let slots =
            self.disk.with(|inner| inner.series.get(&self.key).cloned().unwrap_or_default());
        let from = first.0.max((after.0.div_euclid(self.every) + 1) * self.every);
        let mut at = from;
        while at <= before.0.min(last.0) {
            visit(UnixSeconds(at), slots.get(&at).map_or(Sample::EMPTY, |bits| Sample(*bits)));
            at += self.every;
        }
    }
}
