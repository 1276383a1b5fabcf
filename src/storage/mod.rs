//! L2: where samples live, behind three small traits.
//!
//! A [`StorageEngine`] belongs to a host and opens one metric per dimension. What it gives back is split: the
//! [`Writer`] is owned by the dimension and used under its chart's lock; the [`Reader`] is shared with queries and
//! takes no lock that a writer needs. Engines know nothing of charts, only of a metric's name, its interval and its
//! slots, and nothing in the traits assumes that slots arrive in time order.

use std::sync::Arc;

use self::records::ChartRecord;
use crate::base::ids::MachineGuid;
use crate::base::number::Sample;
use crate::base::time::{UnixSeconds, UpdateEvery};

pub mod none;
pub mod ring;
pub mod dbengine;
pub mod engines;
pub mod records;
pub mod metadata;
mod map;
#[cfg(test)]
mod fixtures;

/// `[db] mode`, with the numeric ids of metadata and file headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    None = 0,
    Ram = 1,
    Map = 2,
    Save = 3,
    Alloc = 4,
    Dbengine = 5,
}

impl Mode {
    pub fn parse(word: &str) -> Option<Mode> {
        Some(match word {
            "none" => Mode::None,
            "ram" => Mode::Ram,
            "map" => Mode::Map,
            "save" => Mode::Save,
            "alloc" => Mode::Alloc,
            "dbengine" => Mode::Dbengine,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Mode::None => "none",
            Mode::Ram => "ram",
            Mode::Map => "map",
            Mode::Save => "save",
            Mode::Alloc => "alloc",
            Mode::Dbengine => "dbengine",
        }
    }

    /// The mode of a numeric id.
    pub fn from_id(id: i64) -> Option<Mode> {
        use Mode::{Alloc, Dbengine, Map, None, Ram, Save};
        [None, Ram, Map, Save, Alloc, Dbengine].into_iter().find(|mode| *mode as i64 == id)
    }

    /// Whether samples of this mode are there after a restart.
    pub fn persists(self) -> bool {
        matches!(self, Mode::Save | Mode::Map | Mode::Dbengine)
    }

    /// Entries a ring of this mode really has for a wish of `wanted`: at least 5, at most a year of seconds, rounded
    /// so that whole pages are used (databases specification, section 1).
    pub fn entries(self, wanted: i64) -> u32 {
        const PAGE: i64 = 4096;
        const HEADER: i64 = 400;
        let wanted = wanted.clamp(5, 31_536_000);
        let pages = |bytes: i64| (bytes + PAGE - 1) / PAGE * PAGE;
        let entries = match self {
            Mode::None => 5,
            Mode::Dbengine => 0,
            Mode::Alloc => wanted,
            Mode::Ram => pages(wanted * 4) / 4,
            Mode::Save | Mode::Map => (pages(HEADER + wanted * 4) - HEADER) / 4,
        };
        u32::try_from(entries).unwrap_or(u32::MAX)
    }
}

/// The name of a metric, complete in itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MetricKey {
    pub host: MachineGuid,
    /// `type.id`
    pub chart: Arc<str>,
    pub dimension: Arc<str>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    #[error("cannot allocate a ring of {entries} entries for '{chart}.{dimension}'")]
    OutOfMemory { chart: Arc<str>, dimension: Arc<str>, entries: u32 },
    #[error("cannot give '{chart}.{dimension}' a number in the store")]
    Catalog {
        chart: Arc<str>,
        dimension: Arc<str>,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Both ends of an opened metric.
pub struct Metric {
    pub writer: Box<dyn Writer>,
    pub reader: Arc<dyn Reader>,
}

/// A point of a higher tier: what the samples of many slots come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierPoint {
    pub end: UnixSeconds,
    /// Of all samples in it; the average is `sum / count`.
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    /// Samples in it; 0 = a gap.
    pub count: u32,
    pub anomalous: u32,
}

impl TierPoint {
    pub fn empty(end: UnixSeconds) -> TierPoint {
        TierPoint { end, sum: 0.0, min: 0.0, max: 0.0, count: 0, anomalous: 0 }
    }
}

pub trait StorageEngine: Send + Sync {
    fn mode(&self) -> Mode;

    /// Slots kept per metric, as `/api/v1/charts` shows it; 0 where a ring has no meaning.
    fn entries(&self) -> u32;

    /// Called once per dimension, off the hot path; storing then costs no look-up and no lock.
    fn open(&self, key: &MetricKey, every: UpdateEvery) -> Result<Metric, StorageError>;

    /// What was stored of a metric earlier, for reading alone; `None` where nothing was. Never on a hot path.
    fn reader(&self, key: &MetricKey, every: UpdateEvery) -> Option<Arc<dyn Reader>> {
        let _ = (key, every);
        None
    }

    /// Notes what a host is called, for engines whose files describe themselves. False when it has to be said again.
    fn describe_host(&self, host: MachineGuid, hostname: &str) -> bool {
        let _ = (host, hostname);
        true
    }

    /// Notes a chart's definition and its dimensions, in the same way.
    fn describe_chart(&self, host: MachineGuid, chart: &ChartRecord) -> bool {
        let _ = (host, chart);
        true
    }

    /// The host is not to be listed any more. Its samples go when it is their time.
    fn forget_host(&self, host: MachineGuid) {
        let _ = host;
    }

    /// Writes what lives in memory and belongs on the disk (mode save); others have nothing to do.
    fn save(&self) {}

    /// Deletes the files of a chart, or of all charts, of an engine that has files of its own.
    fn delete(&self, chart: Option<&str>) {
        let _ = chart;
    }
}

pub trait Writer: Send {
    /// Stores the sample of the slot that ends at `at`, in any order of time; the last one stored for a slot wins.
    /// Slots skipped between the newest one and a newer `at` become empty.
    fn store(&mut self, at: UnixSeconds, sample: Sample);

    /// Forgets everything stored so far.
    fn clear(&mut self);
}

pub trait Reader: Send + Sync {
    /// First and last slot that can be read now; `None` when nothing was ever stored.
    fn retention(&self) -> Option<(UnixSeconds, UnixSeconds)>;

    /// Calls `visit` for every slot with `after < end <= before` that lies within the retention, in time order, empty
    /// ones included.
    fn read(
        &self,
        after: UnixSeconds,
        before: UnixSeconds,
        visit: &mut dyn FnMut(UnixSeconds, Sample),
    );

    /// Tiers kept, the samples themselves being the first.
    fn tiers(&self) -> usize {
        1
    }

    /// Seconds a point of `tier` (1 and above) covers, and the first and last point held.
    fn tier_retention(&self, tier: usize) -> Option<(i64, UnixSeconds, UnixSeconds)> {
        let _ = tier;
        None
    }

    /// As [`Reader::read`], for the points of `tier` (1 and above). Points that hold nothing may be left out.
    fn read_tier(
        &self,
        tier: usize,
        after: UnixSeconds,
        before: UnixSeconds,
        visit: &mut dyn FnMut(TierPoint),
    ) {
        let _ = (tier, after, before, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_rounded_to_whole_pages_as_operators_know_them() {
        assert_eq!(Mode::Ram.entries(3600), 4096);
        assert_eq!(Mode::Ram.entries(1000), 1024);
        assert_eq!(Mode::Save.entries(1000), 1948);
        assert_eq!(Mode::Map.entries(10), 924);
        assert_eq!(Mode::Save.entries(3600), 3996);
        assert_eq!(Mode::Alloc.entries(3601), 3601);
        assert_eq!(Mode::Ram.entries(-7), 1024);
    }
}
