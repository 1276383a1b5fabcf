//! The store: what opens a metric, what reads it, and the chores that turn hot rows into segments, merge and delete them.
//!
//! Where several places have a sample of the same slot, the one that came last wins: hot rows first, then segments in
//! order of their sequence, then late samples. An empty slot never hides a sample. So merging, flushing twice and
//! crashing in between are all harmless.
//!
//! Locks: the list of segments of a tier (taken by readers to copy it, by the flush thread to change it), then those of
//! `hot`, `late` and `catalog`. None that a writer or reader takes is held during disk writes, the catalog's excepted.
//! Readers look at late samples, then at hot rows, then at segments: samples move in that direction only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::backfill::Backfill;
use super::catalog::{Catalog, CatalogError, Record};
use super::codec::{self, Effort};
use super::files::{self, SegmentName, tier_directory};
use super::fresh::{self, Fresh};
use super::hot::{Block, COLUMNS, Hot, Place, ROWS, block_of};
use super::late::Late;
use super::names;
use super::segment::{OpenError, PageKey, Segment, SegmentWriter};
use super::tiers::{self, Sum};
use crate::base::ids::MachineGuid;
use crate::base::number::Sample;
use crate::base::sys;
use crate::base::threads::{self, StopToken};
use crate::base::time::{Clock, UnixSeconds, UpdateEvery};
use crate::storage::records::ChartRecord;
use crate::storage::{
    Metric, MetricKey, Mode, Reader, StorageEngine, StorageError, TierPoint, Writer,
};

/// Slots of a window: segments hold pages of one window only, and a merged page is at most this long.
const WINDOW: i64 = 12 * ROWS as i64;
/// Segments of one window and level that are merged into one of the next.
const MERGE_AT: usize = 12;
/// Merging stops below the largest size a segment's offsets reach.
const MERGE_BYTES_MAX: u64 = 3 << 30;
/// A merge that failed is tried again after this.
const MERGE_AGAIN_US: i64 = 10 * 1_000_000;
/// Late samples are flushed when the oldest is this old.
const LATE_AGE_US: i64 = 60 * 1_000_000;
/// Samples that arrive older than the retention allows are kept so long all the same: somebody has just brought them, to look
/// at them or to pass them on. The limit of size holds for them too.
const LATE_KEPT_S: i64 = 3600;
/// Files deleted for retention in one round: a store that was just copied loses nothing at once.
const DELETE_PER_ROUND: usize = 1;

#[derive(Clone, Debug)]
pub struct Settings {
    /// The cache directory; each tier has a directory below it.
    pub cache: PathBuf,
    /// The first is the samples themselves; its `iterations` is 1.
    pub tiers: Vec<TierSettings>,
    /// Seconds between writes that a power cut cannot undo.
    pub sync_every: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct TierSettings {
    /// Points of the tier below that make one of this tier.
    pub iterations: u32,
    /// Bytes on disk; 0 = no limit.
    pub bytes_max: u64,
    /// Seconds kept; 0 = no limit.
    pub seconds_max: i64,
}

/// What a tier holds.
#[derive(Clone, Copy, Debug)]
pub struct TierStats {
    /// Slots of tier 0 in one of its points.
    pub grouping: u32,
    pub files: usize,
    pub metrics: u32,
    pub bytes: u64,
    /// 0 = no limit.
    pub bytes_max: u64,
    /// About when its first and last point are.
    pub span: Option<(i64, i64)>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot use the directory '{path}'")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the store in '{0}' is in use by another agent")]
    Locked(PathBuf),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// What higher tiers are to be brought up to.
#[derive(Clone, Debug)]
struct Span {
    every: u32,
    metrics: Vec<u32>,
    after: i64,
    until: i64,
}

/// What service threads do that a disk can refuse.
#[derive(Clone, Copy, Debug)]
enum Chore {
    Open = 1,
    Write = 2,
    Sync = 4,
    Flush = 8,
    Merge = 16,
    Note = 32,
}

impl Chore {
    fn verb(self) -> &'static str {
        match self {
            Chore::Open => "make hot blocks",
            Chore::Write => "write late samples",
            Chore::Sync => "sync",
            Chore::Flush => "flush",
            Chore::Merge => "merge",
            Chore::Note => "note names",
        }
    }
}

struct Tier {
    directory: PathBuf,
    settings: TierSettings,
    /// Slots of tier 0 in one point of this one.
    grouping: u32,
    /// Sorted by interval, window, sequence.
    segments: RwLock<Vec<Arc<Segment>>>,
}

pub struct Store {
    tiers: Vec<Tier>,
    catalog: Catalog,
    hot: Hot,
    late: Late,
    clock: Clock,
    sync_every_us: i64,
    next_sequence: AtomicU64,
    /// Raised with every change of a segment list.
    generation: AtomicU64,
    /// A block of this run was flushed: retention may begin.
    settled: AtomicBool,
    /// The chores that failed the last time, a bit each: said once, until all of them work again.
    failing: AtomicU32,
    /// Monotonic microseconds before which no merge is tried.
    merge_after_us: AtomicI64,
    /// Spans whose points could not be written to the higher tiers.
    underived: Mutex<Vec<Span>>,
    backfill: Backfill,
    _lock: File,
}

impl Store {
    pub fn open(settings: &Settings, clock: Clock) -> Result<Arc<Store>, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Directory { path, source }
        };
        let first = tier_directory(&settings.cache, 0);
        fs::create_dir_all(&first).map_err(failed(&first))?;
        // Before anything is touched: another agent may be at work in there.
        let lock_path = first.join(files::LOCK);
        let lock = files::create(&lock_path).map_err(failed(&lock_path))?;
        if !sys::lock(&lock).map_err(failed(&lock_path))? {
            return Err(StoreError::Locked(first));
        }
        let mut tiers = Vec::new();
        let mut grouping = 1u32;
        let mut highest = 0;
        for (number, tier) in settings.tiers.iter().enumerate() {
            let directory = tier_directory(&settings.cache, number);
            fs::create_dir_all(&directory).map_err(failed(&directory))?;
            grouping = grouping.saturating_mul(tier.iterations.max(1));
            let segments = open_segments(&directory).map_err(failed(&directory))?;
            highest = segments.iter().map(|segment| segment.name.sequence).fold(highest, u64::max);
            tiers.push(Tier {
                directory,
                settings: *tier,
                grouping,
                segments: RwLock::new(segments),
            });
        }
        let catalog = Catalog::open(&first)?;
        let hot = Hot::open(&first).map_err(failed(&first))?;
        let late = Late::open(&first).map_err(failed(&first))?;
        // The catalog may have lost what the samples were stored under: those numbers stay unused.
        let in_segments = tiers.iter().flat_map(|tier| {
            let segments = tier.segments.read();
            segments.iter().map(|segment| segment.highest_metric()).max()
        });
        let used = in_segments.chain([hot.highest_metric(), late.highest_metric()]).max();
        catalog.reserve(used.unwrap_or(0));
        let groupings: Vec<u32> = tiers.iter().map(|tier| tier.grouping).collect();
        let backfill = Backfill::plan(&settings.cache, &groupings, || {
            let held = tiers.first().map(|tier| tier.segments.read().clone()).unwrap_or_default();
            let windows = held.iter().map(|segment| (window_end(&segment.name), segment.name));
            // In order of time, whatever the interval.
            let windows: BTreeSet<_> =
                windows.map(|(end, name)| (end, name.every, name.window)).collect();
            windows.into_iter().map(|(_, every, window)| (every, window)).collect()
        });
        Ok(Arc::new(Store {
            tiers,
            catalog,
            hot,
            late,
            clock,
            sync_every_us: settings.sync_every.max(1) * 1_000_000,
            next_sequence: AtomicU64::new(highest + 1),
            generation: AtomicU64::new(1),
            settled: AtomicBool::new(false),
            failing: AtomicU32::new(0),
            merge_after_us: AtomicI64::new(i64::MIN),
            underived: Mutex::default(),
            backfill,
            _lock: lock,
        }))
    }

    /// False when the disk did not take it.
    fn note(&self, record: &Record) -> bool {
        let noted = self.catalog.note(record).map_err(io::Error::other);
        let done = noted.is_ok();
        self.report(Chore::Note, noted);
        done
    }

    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Bytes on disk, per tier, hot blocks not counted.
    pub fn disk_bytes(&self) -> Vec<u64> {
        self.tiers
            .iter()
            .map(|tier| tier.segments.read().iter().map(|segment| segment.bytes()).sum())
            .collect()
    }

    pub fn stats(&self) -> Vec<TierStats> {
        let (now, metrics) = (self.clock.now_seconds().0, self.catalog.metrics());
        let stats = |tier: &Tier| {
            let segments = tier.segments.read();
            let first = segments.iter().map(|segment| window_start(&segment.name)).min();
            let last = segments.iter().map(|segment| window_end(&segment.name)).max();
            TierStats {
                grouping: tier.grouping,
                files: segments.len(),
                metrics,
                bytes: segments.iter().map(|segment| segment.bytes()).sum(),
                bytes_max: tier.settings.bytes_max,
                span: first.zip(last.map(|last| last.min(now))),
            }
        };
        self.tiers.iter().map(stats).collect()
    }

    // --- threads ---------------------------------------------------------------------------------

    /// Starts the service threads; they end with `stop`. Afterwards call [`Store::close`].
    pub fn start(
        self: &Arc<Self>,
        stop: &StopToken,
    ) -> io::Result<Vec<std::thread::JoinHandle<()>>> {
        let (seal, seal_stop) = (Arc::clone(self), stop.child());
        let (sync, sync_stop) = (Arc::clone(self), stop.child());
        let (flush, flush_stop) = (Arc::clone(self), stop.child());
        let sync_every = Duration::from_micros(self.sync_every_us.unsigned_abs());
        Ok(vec![
            threads::spawn("DBENGINE[seal]", move || {
                while !seal_stop.wait(Duration::from_millis(250)) {
                    seal.keep_safe();
                }
            })?,
            threads::spawn("DBENGINE[sync]", move || {
                // At once, as the run before may have been killed with much unsynced; then early enough for what takes time.
                sync.sync();
                while !sync_stop.wait(sync_every * 3 / 4) {
                    sync.sync();
                }
            })?,
            threads::spawn("DBENGINE[flush]", move || {
                while !flush_stop.wait(Duration::from_secs(1)) {
                    flush.chores(&flush_stop);
                }
            })?,
        ])
    }

    /// Seals and checks rows, and hands late samples to the kernel: after this a kill costs nothing.
    pub fn keep_safe(&self) {
        self.hot.seal(self.clock.now_seconds().0);
        self.report(Chore::Write, self.late.write());
        self.report(Chore::Open, self.hot.refused());
    }

    /// Puts everything on the disk: after this a power cut costs nothing. A part that fails does not hold up the others.
    pub fn sync(&self) {
        let _ = self.hot.rescue();
        self.report(Chore::Open, self.hot.refused());
        // Numbers first, then what is stored under them, then the names of new files.
        let mut result = self.catalog.sync();
        for block in self.hot.all_blocks() {
            result = result.and(block.sync());
        }
        result = result.and(self.late.sync());
        for tier in &self.tiers {
            result = result.and(files::sync_directory(&tier.directory.join(files::LOCK)));
        }
        self.report(Chore::Sync, result);
    }

    /// One round of flushing, merging and deleting.
    pub fn chores(&self, stop: &StopToken) {
        self.report(Chore::Flush, self.flush_due(false).and_then(|()| self.backfill_one()));
        let now = self.clock.monotonic_us();
        while !stop.is_stopped() && now >= self.merge_after_us.load(Ordering::Relaxed) {
            match self.merge_one() {
                Ok(true) => {}
                Ok(false) => {
                    self.report(Chore::Merge, Ok(()));
                    break;
                }
                Err(error) => {
                    // A merge needs room: trying all the time would take it from those that need less.
                    self.merge_after_us.store(now + MERGE_AGAIN_US, Ordering::Relaxed);
                    self.report(Chore::Merge, Err(error));
                    break;
                }
            }
        }
        if self.settled.load(Ordering::Acquire) {
            self.delete_old();
        }
        let (late, blocks) = (self.late.take_dropped(), self.hot.take_dropped());
        if late > 0 || blocks > 0 {
            log::error!(
                "DBENGINE: the disk takes none for too long: {late} late samples and {blocks} blocks in memory were dropped"
            );
        }
    }

    /// Flushes everything, for a clean stop. The store must not be written afterwards.
    pub fn close(&self) -> io::Result<()> {
        self.hot.seal_all();
        self.report(Chore::Flush, self.flush_due(true));
        self.sync();
        self.catalog.close()
    }

    fn report(&self, chore: Chore, result: io::Result<()>) {
        let bit = chore as u32;
        match result {
            Ok(()) => {
                if self.failing.fetch_and(!bit, Ordering::AcqRel) == bit {
                    log::info!("DBENGINE: the disk takes writes again");
                }
            }
            Err(error) => {
                if self.failing.fetch_or(bit, Ordering::AcqRel) == 0 {
                    log::error!(
                        "DBENGINE: cannot {} in '{}': {error}. Collecting goes on; it will be tried again.",
                        chore.verb(),
                        self.hot.directory.display()
                    );
                }
            }
        }
    }

    // --- flushing --------------------------------------------------------------------------------

    /// Turns sealed blocks and, when it is time, late samples into segments.
    pub fn flush_due(&self, everything: bool) -> io::Result<()> {
        let mut due: BTreeMap<(u32, u32), Vec<Arc<Block>>> = BTreeMap::new();
        for block in self.hot.all_blocks() {
            if block.is_sealed() && !block.derived.load(Ordering::Acquire) {
                due.entry((block.name.every, block.name.block)).or_default().push(block);
            }
        }
        let age = if everything { i64::MIN } else { LATE_AGE_US };
        let late_is_due = self.late.wants_flush(self.clock.monotonic_us(), age);
        if due.is_empty() && !late_is_due && self.underived.lock().is_empty() {
            return Ok(());
        }
        // A segment outlives everything, so the numbers in it must.
        self.catalog.sync()?;
        self.derive_again()?;
        for ((every, number), blocks) in due {
            let regular = blocks.iter().any(|block| !block.recovered);
            self.flush_blocks(every, number, &blocks)?;
            self.settled.fetch_or(regular, Ordering::AcqRel);
        }
        self.hot.drop_flushed();
        if late_is_due {
            self.flush_late()?;
        }
        self.late.drop_flushed();
        Ok(())
    }

    /// Brings the higher tiers up to what they could not be brought up to before. While there is something left, the
    /// logs of late samples stay, so that a restart does it too.
    fn derive_again(&self) -> io::Result<()> {
        let spans = std::mem::take(&mut *self.underived.lock());
        for (number, span) in spans.iter().enumerate() {
            if let Err(error) = self.derive(span) {
                self.underived.lock().extend_from_slice(&spans[number..]);
                return Err(error);
            }
        }
        Ok(())
    }

    /// All blocks of one span become one segment.
    fn flush_blocks(&self, every: u32, number: u32, blocks: &[Arc<Block>]) -> io::Result<()> {
        let first_ordinal = i64::from(number) * i64::from(ROWS) + 1;
        let metrics = self.write_blocks(every, first_ordinal, blocks)?;
        let after = (first_ordinal - 1) * i64::from(every);
        let until = (first_ordinal + i64::from(ROWS) - 1) * i64::from(every);
        self.derive(&Span { every, metrics, after, until })?;
        for block in blocks {
            block.derived.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Writes the segment, unless that was done and only the rest failed; gives the metrics in it.
    fn write_blocks(
        &self,
        every: u32,
        first_ordinal: i64,
        blocks: &[Arc<Block>],
    ) -> io::Result<Vec<u32>> {
        let window = window_of(first_ordinal);
        let name = SegmentName { every, window, sequence: self.sequence(), level: 0 };
        let known = self.segments_in(0, every, window);
        let mut writer = SegmentWriter::create(&self.tiers[0].directory, name)?;
        let mut metrics = Vec::new();
        let mut columns: [Vec<Sample>; 16] = Default::default();
        let mut payload = Vec::new();
        for block in blocks {
            let written = block.flushed.load(Ordering::Acquire);
            for first_column in (0..COLUMNS).step_by(16) {
                if (first_column..first_column + 16).all(|column| block.metric(column).is_none()) {
                    continue;
                }
                block.gather(first_column, &mut columns);
                for (offset, slots) in columns.iter_mut().enumerate() {
                    let Some(metric) = block.metric(first_column + offset) else { continue };
                    if slots.iter().all(|sample| sample.is_empty()) {
                        continue;
                    }
                    metrics.push(metric);
                    if written {
                        continue;
                    }
                    // Late samples of these slots, flushed already, came after the row was sealed.
                    overlay(&known, metric, every, first_ordinal, slots);
                    let Some((from, slots)) = trimmed(slots) else { continue };
                    payload.clear();
                    codec::encode(slots, Effort::Quick, &mut payload);
                    writer.add(
                        page_key(metric, first_ordinal + from as i64, every, slots.len()),
                        &payload,
                    )?;
                }
            }
        }
        self.publish(0, writer, name)?;
        for block in blocks {
            block.flushed.store(true, Ordering::Release);
        }
        metrics.sort_unstable();
        metrics.dedup();
        Ok(metrics)
    }

    fn flush_late(&self) -> io::Result<()> {
        let taken = self.late.take();
        let mut done = BTreeSet::new();
        let result = self.write_late(&taken, &mut done);
        match result {
            Ok(()) => self.late.flushed(),
            Err(_) => {
                let is_done = |(_, every): super::late::Series, time: u32| {
                    let window = window_of(i64::from(time) / i64::from(every.max(1)));
                    done.contains(&(every, window))
                };
                self.late.failed(self.clock.monotonic_us(), &is_done);
            }
        }
        result?;
        self.derive_again()
    }

    /// One segment per interval and window, each of which is noted in `done` and is to be derived from then.
    fn write_late(
        &self,
        samples: &super::late::Samples,
        done: &mut BTreeSet<(u32, u32)>,
    ) -> io::Result<()> {
        // By interval and window, then by metric, then by time.
        let mut sorted: BTreeMap<(u32, u32), BTreeMap<u32, BTreeMap<i64, Sample>>> =
            BTreeMap::new();
        for (&(metric, every), of_metric) in samples {
            for &(time, sample) in of_metric {
                let ordinal = i64::from(time) / i64::from(every);
                let window = sorted.entry((every, window_of(ordinal))).or_default();
                window.entry(metric).or_default().insert(ordinal, sample);
            }
        }
        for ((every, window), metrics) in sorted {
            let name = SegmentName { every, window, sequence: self.sequence(), level: 0 };
            let mut writer = SegmentWriter::create(&self.tiers[0].directory, name)?;
            let mut payload = Vec::new();
            let (mut first, mut last) = (i64::MAX, i64::MIN);
            for (&metric, slots) in &metrics {
                let (Some((&from, _)), Some((&to, _))) =
                    (slots.first_key_value(), slots.last_key_value())
                else {
                    continue;
                };
                (first, last) = (first.min(from), last.max(to));
                let filled: Vec<Sample> = (from..=to)
                    .map(|ordinal| slots.get(&ordinal).copied().unwrap_or(Sample::EMPTY))
                    .collect();
                payload.clear();
                codec::encode(&filled, Effort::Quick, &mut payload);
                writer.add(page_key(metric, from, every, filled.len()), &payload)?;
            }
            self.publish(0, writer, name)?;
            let metrics: Vec<u32> = metrics.into_keys().collect();
            let every_s = i64::from(every);
            let (after, until) = ((first - 1) * every_s, last * every_s);
            self.underived.lock().push(Span { every, metrics, after, until });
            done.insert((every, window));
        }
        Ok(())
    }

    /// Derives the points of all higher tiers that touch the span `after..=until` (seconds). One that reaches beyond it
    /// comes out as far as there are samples, and again when there are more: nobody knows whether there will be.
    fn derive(&self, span: &Span) -> io::Result<()> {
        let Span { every, ref metrics, mut after, mut until } = *span;
        for tier in 1..self.tiers.len() {
            let point_every = i64::from(every) * i64::from(self.tiers[tier].grouping);
            let Ok(tier_every) = u32::try_from(point_every) else { return Ok(()) };
            let first = after.div_euclid(point_every) + 1;
            let last = (until + point_every - 1).div_euclid(point_every);
            if last < first {
                return Ok(());
            }
            // A span of late samples may reach over several windows.
            for window in window_of(first)..=window_of(last) {
                let from = first.max(i64::from(window) * WINDOW + 1);
                let to = last.min((i64::from(window) + 1) * WINDOW);
                self.derive_window(tier, every, tier_every, metrics, from, to, window)?;
            }
            after = (first - 1) * point_every;
            until = last * point_every;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a span of a tier, spelled out")]
    fn derive_window(
        &self,
        tier: usize,
        every: u32,
        tier_every: u32,
        metrics: &[u32],
        from: i64,
        to: i64,
        window: u32,
    ) -> io::Result<()> {
        let name = SegmentName { every: tier_every, window, sequence: self.sequence(), level: 0 };
        let mut writer = SegmentWriter::create(&self.tiers[tier].directory, name)?;
        let point_every = i64::from(tier_every);
        let (after, until) = ((from - 1) * point_every, to * point_every);
        let mut payload = Vec::new();
        let mut scratch = Scratch::default();
        for &metric in metrics {
            let mut sums = vec![Sum::default(); usize::try_from(to - from + 1).unwrap_or(0)];
            let index = |end: i64| {
                usize::try_from((end + point_every - 1).div_euclid(point_every) - from)
                    .unwrap_or(usize::MAX)
            };
            if tier == 1 {
                self.samples(
                    metric,
                    every,
                    Sources::Segments,
                    after,
                    until,
                    &mut scratch,
                    &mut |end, sample| {
                        if let Some(sum) = sums.get_mut(index(end.0)) {
                            sum.add_sample(sample);
                        }
                    },
                );
            } else {
                let below = every * self.tiers[tier - 1].grouping;
                self.points(metric, tier - 1, below, after, until, &mut |point| {
                    if let Some(sum) = sums.get_mut(index(point.end.0)) {
                        sum.add_point(&point);
                    }
                });
            }
            let mut points: Vec<TierPoint> = sums
                .iter()
                .zip(from..)
                .map(|(sum, ordinal)| sum.point(UnixSeconds(ordinal * point_every)))
                .collect();
            // The tier below may have been trimmed meanwhile: what is known of more samples stays.
            self.points(metric, tier, tier_every, after, until, &mut |known| {
                if let Some(point) = points.get_mut(index(known.end.0))
                    && known.count > point.count
                {
                    *point = known;
                }
            });
            let held = |point: &TierPoint| point.count > 0;
            let (Some(start), Some(end)) =
                (points.iter().position(held), points.iter().rposition(held))
            else {
                continue;
            };
            payload.clear();
            tiers::encode(&points[start..=end], Effort::Small, &mut payload);
            writer.add(
                page_key(metric, from + start as i64, tier_every, end - start + 1),
                &payload,
            )?;
        }
        self.publish(tier, writer, name)
    }

    fn publish(&self, tier: usize, writer: SegmentWriter, name: SegmentName) -> io::Result<()> {
        if writer.is_empty() {
            return Ok(());
        }
        let path = writer.finish()?;
        let segment = Segment::open(&path, name).map_err(io::Error::other)?;
        let segment = segment.flushed_at(self.clock.now_seconds().0);
        let mut segments = self.tiers[tier].segments.write();
        segments.push(Arc::new(segment));
        segments.sort_by_key(|segment| order(&segment.name));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn sequence(&self) -> u64 {
        self.next_sequence.fetch_add(1, Ordering::AcqRel)
    }

    fn segments_in(&self, tier: usize, every: u32, window: u32) -> Vec<Arc<Segment>> {
        let segments = self.tiers[tier].segments.read();
        let from = segments.partition_point(|s| (s.name.every, s.name.window) < (every, window));
        segments[from..]
            .iter()
            .take_while(|s| (s.name.every, s.name.window) == (every, window))
            .cloned()
            .collect()
    }

    /// Derives the higher tiers for one window that lacks them, if there is one.
    fn backfill_one(&self) -> io::Result<()> {
        let Some((every, window)) = self.backfill.next() else {
            return self.backfill.mark_when_complete();
        };
        let mut metrics = Vec::new();
        for segment in self.segments_in(0, every, window) {
            segment.metrics(&mut metrics);
        }
        metrics.sort_unstable();
        metrics.dedup();
        let after = i64::from(window) * WINDOW * i64::from(every);
        let until = after + WINDOW * i64::from(every);
        self.derive(&Span { every, metrics, after, until })?;
        self.backfill.done()
    }

    // --- merging ---------------------------------------------------------------------------------

    /// Merges the segments of one window and level that have become many; false when there are none.
    pub fn merge_one(&self) -> io::Result<bool> {
        for tier in 0..self.tiers.len() {
            let mut counts: BTreeMap<(u8, u32, u32), Vec<Arc<Segment>>> = BTreeMap::new();
            for segment in &*self.tiers[tier].segments.read() {
                let name = segment.name;
                counts
                    .entry((name.level, name.every, name.window))
                    .or_default()
                    .push(Arc::clone(segment));
            }
            let due = counts.into_iter().find(|(_, segments)| {
                segments.len() >= MERGE_AT
                    && segments.iter().map(|s| s.bytes()).sum::<u64>() < MERGE_BYTES_MAX
            });
            if let Some((_, segments)) = due {
                self.merge(tier, &segments)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn merge(&self, tier: usize, inputs: &[Arc<Segment>]) -> io::Result<()> {
        let Some(newest) =
            inputs.iter().map(|segment| segment.name).max_by_key(|name| name.sequence)
        else {
            return Ok(());
        };
        let name = SegmentName { level: newest.level.saturating_add(1), ..newest };
        let mut metrics: Vec<u32> = Vec::new();
        for input in inputs {
            input.metrics(&mut metrics);
        }
        metrics.sort_unstable();
        metrics.dedup();
        let mut writer = SegmentWriter::create(&self.tiers[tier].directory, name)?;
        let first = i64::from(name.window) * WINDOW + 1;
        let mut payload = Vec::new();
        let mut slots = Vec::new();
        for metric in metrics {
            payload.clear();
            if tier == 0 {
                slots.clear();
                slots.resize(WINDOW as usize, Sample::EMPTY);
                overlay(inputs, metric, name.every, first, &mut slots);
                let Some((from, slots)) = trimmed(&slots) else { continue };
                codec::encode(slots, Effort::Small, &mut payload);
                writer.add(
                    page_key(metric, first + from as i64, name.every, slots.len()),
                    &payload,
                )?;
            } else {
                let mut points: BTreeMap<i64, TierPoint> = BTreeMap::new();
                overlay_points(inputs, metric, i64::MIN, i64::MAX, &mut points);
                let every = i64::from(name.every);
                let (Some((&from, _)), Some((&to, _))) =
                    (points.first_key_value(), points.last_key_value())
                else {
                    continue;
                };
                let filled: Vec<TierPoint> = (from / every..=to / every)
                    .map(|ordinal| {
                        let end = ordinal * every;
                        points.get(&end).copied().unwrap_or(TierPoint::empty(UnixSeconds(end)))
                    })
                    .collect();
                tiers::encode(&filled, Effort::Small, &mut payload);
                writer.add(page_key(metric, from / every, name.every, filled.len()), &payload)?;
            }
        }
        let path = writer.finish()?;
        let merged = Segment::open(&path, name).map_err(io::Error::other)?;
        let newest = inputs.iter().map(|segment| segment.flushed_s()).max().unwrap_or(0);
        let merged = Arc::new(merged.flushed_at(newest));
        {
            let mut segments = self.tiers[tier].segments.write();
            segments.retain(|segment| !inputs.iter().any(|input| Arc::ptr_eq(input, segment)));
            segments.push(merged);
            segments.sort_by_key(|segment| order(&segment.name));
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
        for input in inputs {
            remove(input.path());
        }
        Ok(())
    }

    // --- retention -------------------------------------------------------------------------------

    /// Deletes the oldest segments of tiers that hold too much, a few at a time.
    fn delete_old(&self) {
        let now = self.clock.now_seconds().0;
        for tier in &self.tiers {
            for _ in 0..DELETE_PER_ROUND {
                let oldest = {
                    let segments = tier.segments.read();
                    let bytes: u64 = segments.iter().map(|segment| segment.bytes()).sum();
                    let too_large = tier.settings.bytes_max > 0
                        && bytes > tier.settings.bytes_max
                        && segments.len() > 1;
                    segments
                        .iter()
                        .min_by_key(|segment| window_end(&segment.name))
                        .filter(|segment| {
                            let seconds_max = tier.settings.seconds_max;
                            let too_old = seconds_max > 0
                                && now - window_end(&segment.name) > seconds_max
                                && now - segment.flushed_s() > LATE_KEPT_S;
                            too_large || too_old
                        })
                        .cloned()
                };
                let Some(oldest) = oldest else { break };
                tier.segments.write().retain(|segment| !Arc::ptr_eq(segment, &oldest));
                self.generation.fetch_add(1, Ordering::AcqRel);
                match fs::remove_file(oldest.path()) {
                    Ok(()) => log::info!(
                        "DBENGINE: removed '{}' to keep within the retention",
                        oldest.path().display()
                    ),
                    Err(error) => log::error!(
                        "DBENGINE: cannot remove '{}': {error}",
                        oldest.path().display()
                    ),
                }
            }
        }
    }

    // --- reading ---------------------------------------------------------------------------------

    /// Visits the slots with `after < time <= until`, in time order, gaps included.
    #[expect(clippy::too_many_arguments, reason = "a span of a metric, spelled out")]
    fn samples(
        &self,
        metric: u32,
        every: u32,
        sources: Sources<'_>,
        after: i64,
        until: i64,
        scratch: &mut Scratch,
        visit: &mut dyn FnMut(UnixSeconds, Sample),
    ) {
        let every_s = i64::from(every);
        let first = after.div_euclid(every_s) + 1;
        let last = until.div_euclid(every_s);
        if last < first {
            return;
        }
        scratch.late.clear();
        scratch.hot.clear();
        if let Sources::All(place) = sources {
            self.late.read((metric, every), &mut |time, sample| {
                let ordinal = i64::from(time) / every_s;
                if (first..=last).contains(&ordinal) {
                    scratch.late.push((ordinal, sample));
                }
            });
            self.hot.blocks_of(metric, place, &mut |block, column| {
                if block.name.every != every
                    || block.first() > last
                    || block.first() + i64::from(ROWS) <= first
                {
                    return;
                }
                for row in 0..ROWS {
                    let sample = block.get(row, column);
                    if !sample.is_empty() {
                        scratch.hot.push((block.first() + i64::from(row), sample));
                    }
                }
            });
        }
        // Last of all: what leaves the others meanwhile is in a segment by then.
        let all = self.tiers[0].segments.read().clone();
        let mut base = first;
        while base <= last {
            let window = window_of(base);
            let end = last.min((i64::from(window) + 1) * WINDOW);
            let count = usize::try_from(end - base + 1).unwrap_or(0);
            let slots = &mut scratch.slots;
            slots.clear();
            slots.resize(count, Sample::EMPTY);
            let put = |slots: &mut Vec<Sample>, ordinal: i64, sample: Sample| {
                if let Some(slot) =
                    usize::try_from(ordinal - base).ok().and_then(|index| slots.get_mut(index))
                {
                    *slot = sample;
                }
            };
            for segment in all.iter().filter(|segment| segment.name.every != every) {
                other_interval(
                    segment,
                    metric,
                    (base - 1) * every_s,
                    end * every_s,
                    every_s,
                    &mut |ordinal, sample| {
                        put(slots, ordinal, sample);
                    },
                );
            }
            for &(ordinal, sample) in &scratch.hot {
                put(slots, ordinal, sample);
            }
            let from = all.partition_point(|s| (s.name.every, s.name.window) < (every, window));
            let here =
                all[from..].iter().take_while(|s| (s.name.every, s.name.window) == (every, window));
            for segment in here {
                overlay(std::slice::from_ref(segment), metric, every, base, slots);
            }
            for &(ordinal, sample) in &scratch.late {
                put(slots, ordinal, sample);
            }
            for (&sample, ordinal) in slots.iter().zip(base..) {
                visit(UnixSeconds(ordinal * every_s), sample);
            }
            base = end + 1;
        }
    }

    /// Visits the points of a tier with `after < end <= until` that hold anything, in time order.
    fn points(
        &self,
        metric: u32,
        tier: usize,
        tier_every: u32,
        after: i64,
        until: i64,
        visit: &mut dyn FnMut(TierPoint),
    ) {
        let mut points = BTreeMap::new();
        let segments: Vec<Arc<Segment>> = {
            let all = self.tiers[tier].segments.read();
            all.iter()
                .filter(|segment| {
                    segment.name.every == tier_every
                        && window_end(&segment.name) > after
                        && window_start(&segment.name) < until
                })
                .cloned()
                .collect()
        };
        overlay_points(&segments, metric, after, until, &mut points);
        for point in points.into_values() {
            visit(point);
        }
    }

    fn sample_retention(
        &self,
        metric: u32,
        every: u32,
        place: Option<&Place>,
    ) -> Option<(i64, i64)> {
        let mut span: Option<(i64, i64)> = None;
        let mut widen = |from: i64, to: i64| {
            span = Some(span.map_or((from, to), |(a, b)| (a.min(from), b.max(to))))
        };
        self.late.read((metric, every), &mut |time, _| widen(i64::from(time), i64::from(time)));
        self.hot.blocks_of(metric, place, &mut |block, column| {
            let every = i64::from(block.name.every);
            let held = |row: &u32| !block.get(*row, column).is_empty();
            if let (Some(from), Some(to)) = ((0..ROWS).find(held), (0..ROWS).rev().find(held)) {
                widen(
                    (block.first() + i64::from(from)) * every,
                    (block.first() + i64::from(to)) * every,
                );
            }
        });
        // Last of all, as when reading.
        let segments = self.tiers[0].segments.read().clone();
        for (from, to) in segments.iter().filter_map(|segment| segment.span(metric)) {
            widen(i64::from(from), i64::from(to));
        }
        span
    }
}

/// Where samples are looked for.
#[derive(Clone, Copy)]
enum Sources<'a> {
    /// Everywhere; in the hot blocks first where the metric is being written.
    All(Option<&'a Place>),
    /// In segments alone: what is elsewhere is derived when it becomes one.
    Segments,
}

/// Kept between windows so that a long read allocates once.
#[derive(Default)]
struct Scratch {
    slots: Vec<Sample>,
    hot: Vec<(i64, Sample)>,
    late: Vec<(i64, Sample)>,
}

fn order(name: &SegmentName) -> (u32, u32, u64, u8) {
    (name.every, name.window, name.sequence, name.level)
}

fn window_of(ordinal: i64) -> u32 {
    u32::try_from((ordinal - 1).div_euclid(WINDOW).max(0)).unwrap_or(u32::MAX)
}

/// Seconds after which the window's slots begin.
fn window_start(name: &SegmentName) -> i64 {
    i64::from(name.window) * WINDOW * i64::from(name.every)
}

/// Time of the window's last slot.
fn window_end(name: &SegmentName) -> i64 {
    (i64::from(name.window) + 1) * WINDOW * i64::from(name.every)
}

fn page_key(metric: u32, first_ordinal: i64, every: u32, count: usize) -> PageKey {
    PageKey {
        metric,
        start: u32::try_from(first_ordinal * i64::from(every)).unwrap_or(u32::MAX),
        every,
        count: u16::try_from(count).unwrap_or(u16::MAX),
    }
}

/// The slots between the first and the last sample, and how many were before them.
fn trimmed(slots: &[Sample]) -> Option<(usize, &[Sample])> {
    let from = slots.iter().position(|sample| !sample.is_empty())?;
    let to = slots.iter().rposition(|sample| !sample.is_empty())?;
    Some((from, &slots[from..=to]))
}

/// Lays what segments (in order of sequence) hold of a metric over `slots`, the first of which has ordinal `first`.
fn overlay(segments: &[Arc<Segment>], metric: u32, every: u32, first: i64, slots: &mut [Sample]) {
    let every_s = i64::from(every);
    let seconds = |ordinal: i64| u32::try_from(ordinal * every_s).unwrap_or(u32::MAX);
    let (from, to) = (seconds(first), seconds(first + slots.len() as i64 - 1));
    let mut decoded = Vec::new();
    for segment in segments {
        segment.pages(metric, from, to, &mut |page| {
            decoded.clear();
            if page.key.every != every
                || codec::decode(page.payload, usize::from(page.key.count), &mut decoded).is_err()
            {
                return;
            }
            let offset = i64::from(page.key.start) / every_s - first;
            for (&sample, index) in decoded.iter().zip(offset..) {
                if !sample.is_empty()
                    && let Some(slot) =
                        usize::try_from(index).ok().and_then(|index| slots.get_mut(index))
                {
                    *slot = sample;
                }
            }
        });
    }
}

fn overlay_points(
    segments: &[Arc<Segment>],
    metric: u32,
    after: i64,
    until: i64,
    points: &mut BTreeMap<i64, TierPoint>,
) {
    let clamp = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    for segment in segments {
        segment.pages(metric, clamp(after), clamp(until), &mut |page| {
            let key = page.key;
            let _ = tiers::decode(
                page.payload,
                usize::from(key.count),
                key.start,
                key.every,
                &mut |point| {
                    if point.count > 0 && point.end.0 > after && point.end.0 <= until {
                        points.insert(point.end.0, point);
                    }
                },
            );
        });
    }
}

/// Samples a metric had while it was collected at another interval: each takes the slot its time lies in.
fn other_interval(
    segment: &Segment,
    metric: u32,
    after: i64,
    until: i64,
    every: i64,
    put: &mut dyn FnMut(i64, Sample),
) {
    let clamp = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    if window_end(&segment.name) <= after || window_start(&segment.name) >= until {
        return;
    }
    let mut decoded = Vec::new();
    segment.pages(metric, clamp(after), clamp(until), &mut |page| {
        decoded.clear();
        if codec::decode(page.payload, usize::from(page.key.count), &mut decoded).is_err() {
            return;
        }
        for (i, &sample) in decoded.iter().enumerate() {
            let time = i64::from(page.key.start) + i as i64 * i64::from(page.key.every);
            if !sample.is_empty() && time > after && time <= until {
                put((time + every - 1).div_euclid(every), sample);
            }
        }
    });
}

/// Removes what is of no use; it does no harm where it stays.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        log::error!("DBENGINE: cannot remove '{}': {error}", path.display());
    }
}

/// All segments of a directory. What an interrupted merge left behind is removed, what cannot be read set aside.
fn open_segments(directory: &Path) -> io::Result<Vec<Arc<Segment>>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if file_name.ends_with(".tmp") {
            remove(&path);
        } else if let Some(name) = SegmentName::parse(file_name) {
            names.push((name, path));
        }
    }
    let mut segments = Vec::new();
    for (name, path) in &names {
        let merged_into = |other: &SegmentName| {
            (other.every, other.window) == (name.every, name.window)
                && other.level > name.level
                && other.sequence >= name.sequence
        };
        if let Some((into, _)) = names.iter().find(|(other, _)| merged_into(other))
            && Segment::open(&directory.join(into.file_name()), *into)
                .is_ok_and(|segment| segment.is_whole())
        {
            remove(path);
            continue;
        }
        match Segment::open(path, *name) {
            Ok(segment) => segments.push(Arc::new(segment)),
            Err(OpenError::NotASegment) => files::set_aside(path, &OpenError::NotASegment),
            Err(OpenError::Io(error)) => {
                log::error!("DBENGINE: cannot read '{}': {error}", path.display());
            }
        }
    }
    segments.sort_by_key(|segment| order(&segment.name));
    Ok(segments)
}

// --- the faces of a metric ------------------------------------------------------------------------

impl StorageEngine for Arc<Store> {
    fn reader(&self, key: &MetricKey, every: UpdateEvery) -> Option<Arc<dyn Reader>> {
        let metric = self.catalog.find(key)?;
        Some(Arc::new(StoreReader::new(Arc::clone(self), metric, every, None)))
    }

    fn describe_host(&self, guid: MachineGuid, hostname: &str) -> bool {
        self.note(&Record::Host { guid, hostname: hostname.to_owned() })
    }

    fn describe_chart(&self, host: MachineGuid, chart: &ChartRecord) -> bool {
        let definition = names::of_chart(chart);
        self.note(&Record::Chart { host, chart: chart.id.clone(), definition })
            && chart.dimensions.iter().all(|dimension| {
                names::of_dimension(dimension).is_none_or(|definition| {
                    let (chart, dimension) = (chart.id.clone(), dimension.id.clone());
                    self.note(&Record::Dimension { host, chart, dimension, definition })
                })
            })
    }

    fn forget_host(&self, guid: MachineGuid) {
        self.note(&Record::Forgotten { guid });
    }

    fn mode(&self) -> Mode {
        Mode::Dbengine
    }

    fn entries(&self) -> u32 {
        0
    }

    fn open(&self, key: &MetricKey, every: UpdateEvery) -> Result<Metric, StorageError> {
        let metric = self.catalog.number(key).map_err(|error| StorageError::Catalog {
            chart: Arc::clone(&key.chart),
            dimension: Arc::clone(&key.dimension),
            source: Box::new(error),
        })?;
        let every_s = u32::try_from(every.seconds()).unwrap_or(1);
        let block_now = block_of(self.clock.now_seconds().0 / every.seconds()).unwrap_or(0);
        let place = self.hot.place(metric, every_s, block_now);
        let reader = StoreReader::new(Arc::clone(self), metric, every, Some(place.clone()));
        let writer = StoreWriter {
            store: Arc::clone(self),
            metric,
            every: every.seconds(),
            place,
            block: None,
        };
        Ok(Metric { writer: Box::new(writer), reader: Arc::new(reader) })
    }
}

struct StoreWriter {
    store: Arc<Store>,
    metric: u32,
    every: i64,
    place: Place,
    /// The block of the last sample, usually also that of the next.
    block: Option<Arc<Block>>,
}

impl Writer for StoreWriter {
    #[inline]
    fn store(&mut self, at: UnixSeconds, sample: Sample) {
        let ordinal = at.0.div_euclid(self.every);
        let column = usize::from(self.place.column);
        if let Some(block) = &self.block
            && block.put(ordinal, column, sample)
        {
            return;
        }
        self.store_elsewhere(ordinal, sample);
    }

    fn clear(&mut self) {}
}

impl StoreWriter {
    #[cold]
    fn store_elsewhere(&mut self, ordinal: i64, sample: Sample) {
        if ordinal <= 0 || sample.is_empty() {
            return;
        }
        let now = self.store.clock.now_seconds().0 / self.every;
        self.block = self.place.group.block_for(&self.store.hot, ordinal, now);
        if let Some(block) = &self.block
            && block.put(ordinal, usize::from(self.place.column), sample)
        {
            return;
        }
        let (Ok(every), Ok(time)) =
            (u32::try_from(self.every), u32::try_from(ordinal * self.every))
        else {
            return;
        };
        self.store.late.add((self.metric, every), time, sample, self.store.clock.monotonic_us());
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.store.hot.give_back(self.metric, &self.place);
    }
}

struct StoreReader {
    store: Arc<Store>,
    metric: u32,
    every: u32,
    place: Option<Place>,
}

impl StoreReader {
    fn new(
        store: Arc<Store>,
        metric: u32,
        every: UpdateEvery,
        place: Option<Place>,
    ) -> StoreReader {
        StoreReader { store, metric, every: u32::try_from(every.seconds()).unwrap_or(1), place }
    }
}

impl Reader for StoreReader {
    fn retention(&self) -> Option<(UnixSeconds, UnixSeconds)> {
        let (first, last) =
            self.store.sample_retention(self.metric, self.every, self.place.as_ref())?;
        Some((UnixSeconds(first), UnixSeconds(last)))
    }

    fn read(
        &self,
        after: UnixSeconds,
        before: UnixSeconds,
        visit: &mut dyn FnMut(UnixSeconds, Sample),
    ) {
        let Some((first, last)) = self.retention() else { return };
        let after = after.0.max(first.0 - i64::from(self.every));
        let until = before.0.min(last.0);
        self.store.samples(
            self.metric,
            self.every,
            Sources::All(self.place.as_ref()),
            after,
            until,
            &mut Scratch::default(),
            visit,
        );
    }

    fn tiers(&self) -> usize {
        self.store.tiers.len()
    }

    fn tier_retention(&self, tier: usize) -> Option<(UpdateEvery, UnixSeconds, UnixSeconds)> {
        let of = self.store.tiers.get(tier).filter(|_| tier > 0)?;
        let every = self.every.checked_mul(of.grouping)?;
        let fresh = self.fresh_span().map(|(first, last)| {
            let end = |time| fresh::end_of(time, i64::from(every));
            (end(first), end(last))
        });
        let segments = of.segments.read().clone();
        let spans = segments
            .iter()
            .filter(|segment| segment.name.every == every)
            .filter_map(|s| s.span(self.metric))
            .map(|(first, last)| (i64::from(first), i64::from(last)));
        let (first, last) = spans.chain(fresh).reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))?;
        Some((UpdateEvery::clamped(i64::from(every)), UnixSeconds(first), UnixSeconds(last)))
    }

    fn read_tier(
        &self,
        tier: usize,
        after: UnixSeconds,
        before: UnixSeconds,
        visit: &mut dyn FnMut(TierPoint),
    ) {
        let tiers = self.store.tiers.iter().map(|tier| self.every.checked_mul(tier.grouping));
        let Some(every) = tiers.collect::<Option<Vec<u32>>>() else { return };
        if tier == 0 || tier >= every.len() {
            return;
        }
        let every_s: Vec<i64> = every.iter().map(|&every| i64::from(every)).collect();
        let fresh = Fresh {
            every: &every_s,
            touched: &fresh::touched(&self.fresh_times(), every_s[1]),
            samples: &|after, until, visit| {
                let sources = Sources::All(self.place.as_ref());
                let (metric, scratch) = (self.metric, &mut Scratch::default());
                self.store.samples(
                    metric,
                    self.every,
                    sources,
                    after,
                    until,
                    scratch,
                    &mut |at, sample| {
                        visit((at, sample));
                    },
                );
            },
            stored: &|tier, after, until, visit| {
                self.store.points(self.metric, tier, every[tier], after, until, visit);
            },
        };
        for point in fresh.points(tier, after.0, before.0).into_values() {
            visit(point);
        }
    }
}

impl StoreReader {
    /// Times of the samples that are in no segment, as far as they are of this interval; not in order.
    fn fresh_times(&self) -> Vec<i64> {
        let mut times = Vec::new();
        let every = i64::from(self.every);
        self.store.late.read((self.metric, self.every), &mut |time, _| times.push(i64::from(time)));
        self.store.hot.blocks_of(self.metric, self.place.as_ref(), &mut |block, column| {
            if block.name.every == self.every {
                let held = (0..ROWS).filter(|&row| !block.get(row, column).is_empty());
                times.extend(held.map(|row| (block.first() + i64::from(row)) * every));
            }
        });
        times
    }

    /// The first and last of them.
    fn fresh_span(&self) -> Option<(i64, i64)> {
        let mut span: Option<(i64, i64)> = None;
        let mut widen = |from: i64, to: i64| {
            span = Some(span.map_or((from, to), |(a, b)| (a.min(from), b.max(to))));
        };
        let every = i64::from(self.every);
        let late = &self.store.late;
        late.read((self.metric, self.every), &mut |time, _| {
            widen(i64::from(time), i64::from(time))
        });
        self.store.hot.blocks_of(self.metric, self.place.as_ref(), &mut |block, column| {
            let held = |row: &u32| !block.get(*row, column).is_empty();
            if block.name.every == self.every
                && let (Some(from), Some(to)) = ((0..ROWS).find(held), (0..ROWS).rev().find(held))
            {
                let time = |row: u32| (block.first() + i64::from(row)) * every;
                widen(time(from), time(to));
            }
        });
        span
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::time::{MICROS, UnixMicros};

    const T0: i64 = 7200 * 236_000;

    fn settings(cache: &Path) -> Settings {
        let tier = |iterations| TierSettings { iterations, bytes_max: 0, seconds_max: 0 };
        Settings {
            cache: cache.to_owned(),
            tiers: vec![tier(1), tier(60), tier(60)],
            sync_every: 5,
        }
    }

    fn key(dimension: usize) -> MetricKey {
        MetricKey {
            host: MachineGuid(uuid::Uuid::from_u128(9)),
            chart: "t.c".into(),
            dimension: format!("d{dimension}").into(),
        }
    }

    /// A store under test, its clock, and what it must hold.
    struct Rig {
        cache: tempfile::TempDir,
        clock: Clock,
        store: Option<Arc<Store>>,
        metrics: Vec<Metric>,
        every: UpdateEvery,
        model: Vec<BTreeMap<i64, Sample>>,
    }

    impl Rig {
        fn new(metrics: usize, every: i64) -> Rig {
            let mut rig = Rig {
                cache: tempfile::tempdir().unwrap(),
                clock: Clock::manual(UnixMicros(T0 * MICROS)),
                store: None,
                metrics: Vec::new(),
                every: UpdateEvery::clamped(every),
                model: vec![BTreeMap::new(); metrics],
            };
            rig.open();
            rig
        }

        fn open(&mut self) {
            let store = Store::open(&settings(self.cache.path()), self.clock.clone()).unwrap();
            self.metrics = (0..self.model.len())
                .map(|d| StorageEngine::open(&store, &key(d), self.every).unwrap())
                .collect();
            self.store = Some(store);
        }

        fn store(&self) -> &Arc<Store> {
            self.store.as_ref().unwrap()
        }

        /// The process dies: nothing is flushed.
        fn crash(&mut self) {
            self.store().keep_safe();
            self.metrics.clear();
            self.store = None;
            self.open();
        }

        fn restart(&mut self) {
            self.store().close().unwrap();
            self.metrics.clear();
            self.store = None;
            self.open();
        }

        fn put(&mut self, metric: usize, at: i64, value: f64) {
            let at = at - at.rem_euclid(self.every.seconds());
            let sample = Sample::normal(value);
            self.metrics[metric].writer.store(UnixSeconds(at), sample);
            self.model[metric].insert(at, sample);
        }

        fn now(&self) -> i64 {
            self.clock.now_seconds().0
        }

        fn chores(&self) {
            self.store().keep_safe();
            self.store().chores(&StopToken::new());
        }

        #[track_caller]
        fn check(&self) {
            for (metric, model) in self.metrics.iter().zip(&self.model) {
                let mut held = BTreeMap::new();
                let mut before = 0;
                metric.reader.read(
                    UnixSeconds(0),
                    UnixSeconds(i64::from(u32::MAX)),
                    &mut |at, sample| {
                        assert!(at.0 > before, "slots go forward");
                        before = at.0;
                        if !sample.is_empty() {
                            held.insert(at.0, sample);
                        }
                    },
                );
                assert_eq!(held.len(), model.len());
                assert_eq!(&held, model);
            }
        }

        /// Every point of a tier equals what the model's samples come to.
        #[track_caller]
        fn check_tier(&self, tier: usize, until: i64) {
            let span = self.every.seconds() * 60i64.pow(u32::try_from(tier).unwrap());
            for (metric, model) in self.metrics.iter().zip(&self.model) {
                let mut wanted: BTreeMap<i64, Sum> = BTreeMap::new();
                for (&at, &sample) in model.iter().filter(|&(&at, _)| at <= until) {
                    wanted
                        .entry((at + span - 1).div_euclid(span) * span)
                        .or_default()
                        .add_sample(sample);
                }
                let mut held = Vec::new();
                metric.reader.read_tier(
                    tier,
                    UnixSeconds(0),
                    UnixSeconds(i64::from(u32::MAX)),
                    &mut |point| held.push(point),
                );
                let wanted: Vec<TierPoint> = wanted
                    .into_iter()
                    .map(|(end, sum)| {
                        let point = sum.point(UnixSeconds(end));
                        let stored = |value| Sample::normal(value).unpack();
                        TierPoint {
                            sum: stored(point.sum),
                            min: stored(point.min),
                            max: stored(point.max),
                            ..point
                        }
                    })
                    .collect();
                assert_eq!(held.len(), wanted.len(), "tier {tier}");
                for (held, wanted) in held.iter().zip(&wanted) {
                    // Sums of sums are rounded once more on the way.
                    let close = |a: f64, b: f64| (a - b).abs() <= b.abs() * 1e-6;
                    assert!(
                        held.end == wanted.end && held.count == wanted.count,
                        "{held:?} {wanted:?}"
                    );
                    assert!(
                        close(held.sum, wanted.sum)
                            && held.min == wanted.min
                            && held.max == wanted.max,
                        "{held:?} {wanted:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_stored_is_read_back_through_flush_merge_and_restart() {
        let mut rig = Rig::new(3, 1);
        for second in 0..9000 {
            rig.clock.advance(MICROS);
            for metric in 0..3 {
                rig.put(metric, rig.now(), (second * (metric as i64 + 1) % 1000) as f64 / 8.0);
            }
            if second % 100 == 0 {
                rig.chores();
            }
        }
        rig.check();
        rig.restart();
        rig.check();
        for tier in [1, 2] {
            rig.check_tier(tier, rig.now());
        }
        let files = fs::read_dir(tier_directory(rig.cache.path(), 0)).unwrap().count();
        assert!(files < 12, "{files} files: merging did not happen");
    }

    #[test]
    fn a_crash_loses_nothing_that_was_stored() {
        let mut rig = Rig::new(2, 1);
        for second in 0..2000 {
            rig.clock.advance(MICROS);
            rig.put(0, rig.now(), second as f64);
            if second % 3 == 0 {
                rig.put(1, rig.now(), 5.0);
            }
            if second % 50 == 0 {
                rig.chores();
            }
            if second % 333 == 332 {
                rig.crash();
            }
        }
        rig.check();
    }

    #[test]
    fn a_hole_filled_later_is_filled_on_every_tier() {
        let mut rig = Rig::new(1, 1);
        for second in 0..8000 {
            rig.clock.advance(MICROS);
            if !(1000..5000).contains(&second) {
                rig.put(0, rig.now(), second as f64);
            }
            if second % 100 == 0 {
                rig.chores();
            }
        }
        rig.check();
        for second in 1000..5000 {
            rig.put(0, T0 + 1 + second, second as f64);
        }
        rig.check();
        rig.crash();
        rig.check();
        rig.restart();
        rig.check();
        for tier in [1, 2] {
            rig.check_tier(tier, rig.now());
        }
    }

    #[test]
    fn tiers_that_come_later_or_lose_a_file_are_derived_from_what_there_is() {
        let mut rig = Rig::new(2, 1);
        for second in 0..20_000 {
            rig.clock.advance(MICROS);
            rig.put(0, rig.now(), f64::from(second % 977));
            if second % 3 == 0 {
                rig.put(1, rig.now(), f64::from(second));
            }
            if second % 500 == 0 {
                rig.chores();
            }
        }
        rig.restart();
        let fill = |rig: &Rig| {
            let mut rounds = 0;
            while rig.store().backfill.next().is_some() {
                rig.store().backfill_one().unwrap();
                rounds += 1;
            }
            rounds
        };
        rig.chores();
        assert_eq!(fill(&rig), 0, "what was derived as it came is complete");
        rig.restart();
        assert_eq!(fill(&rig), 0);
        let tier = |rig: &Rig, tier| tier_directory(rig.cache.path(), tier);
        let windows = 20_000usize.div_ceil(usize::try_from(WINDOW).unwrap());
        let spoil: [fn(&Path); 3] = [
            |one| fs::remove_dir_all(one).unwrap(),
            |one| fs::write(one.join(files::DERIVED), "30 0").unwrap(),
            |one| {
                let names = fs::read_dir(one).unwrap().map(|entry| entry.unwrap().path());
                let segment = |path: &PathBuf| path.extension().is_some_and(|e| e == "segment");
                fs::write(names.into_iter().find(segment).unwrap(), "").unwrap();
            },
        ];
        for spoil in spoil {
            rig.store().close().unwrap();
            rig.metrics.clear();
            rig.store = None;
            spoil(&tier(&rig, 1));
            rig.open();
            assert!(fill(&rig) >= windows);
            rig.check_tier(1, rig.now());
            rig.check_tier(2, rig.now());
            rig.chores();
            rig.restart();
            assert_eq!(fill(&rig), 0, "once");
        }
    }

    #[test]
    fn retention_deletes_the_oldest_first_and_not_before_the_first_flush() {
        let mut rig = Rig::new(1, 1);
        for second in 0..40_000 {
            rig.clock.advance(MICROS);
            rig.put(0, rig.now(), (i64::from(second) * i64::from(second) * 7919 % 100_003) as f64);
            if second % 200 == 0 {
                rig.chores();
            }
        }
        rig.store().close().unwrap();
        rig.metrics.clear();
        rig.store = None;
        let mut small = settings(rig.cache.path());
        small.tiers[0].bytes_max = 40_000;
        let store = Store::open(&small, rig.clock.clone()).unwrap();
        let before = store.disk_bytes()[0];
        assert!(before > 50_000, "{before}");
        store.chores(&StopToken::new());
        assert_eq!(store.disk_bytes()[0], before, "a store just opened is not trimmed");
        let metric = StorageEngine::open(&store, &key(0), rig.every).unwrap();
        let first_before = metric.reader.retention().unwrap().0;
        let mut writer = metric.writer;
        for _ in 0..1500 {
            rig.clock.advance(MICROS);
            writer.store(rig.clock.now_seconds(), Sample::normal(1.0));
        }
        store.keep_safe();
        for _ in 0..20 {
            store.chores(&StopToken::new());
        }
        assert!(store.disk_bytes()[0] <= 40_000);
        assert!(metric.reader.retention().unwrap().0 > first_before);
    }

    #[test]
    fn old_samples_that_just_arrived_are_not_thrown_away_at_once() {
        let mut rig = Rig::new(1, 1);
        rig.store().close().unwrap();
        rig.metrics.clear();
        rig.store = None;
        let mut short = settings(rig.cache.path());
        short.tiers[0].seconds_max = 86_400;
        let store = Store::open(&short, rig.clock.clone()).unwrap();
        let mut metric = StorageEngine::open(&store, &key(0), rig.every).unwrap();
        let year_ago = T0 - 365 * 86_400;
        for second in 1..=100 {
            metric.writer.store(UnixSeconds(year_ago + second), Sample::normal(1.0));
        }
        let mut held = |minutes: i64| {
            for _ in 0..minutes {
                rig.clock.advance(60 * MICROS);
                metric.writer.store(rig.clock.now_seconds(), Sample::normal(2.0));
                store.keep_safe();
                store.chores(&StopToken::new());
            }
            let mut held = 0;
            metric.reader.read(UnixSeconds(year_ago), UnixSeconds(year_ago + 100), &mut |_, s| {
                held += usize::from(!s.is_empty());
            });
            held
        };
        assert_eq!(held(50), 100);
        assert_eq!(held(90), 0, "but in the end they are too old");
    }

    #[test]
    fn a_second_agent_is_kept_out() {
        let rig = Rig::new(1, 1);
        let second = Store::open(&settings(rig.cache.path()), rig.clock.clone());
        assert!(matches!(second, Err(StoreError::Locked(_))));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Live { seconds: i64, value: u32 },
        Silence { seconds: i64 },
        Late { ago: i64, count: i64, value: u32 },
        Chores,
        Crash,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1i64..700, any::<u32>()).prop_map(|(seconds, value)| Step::Live { seconds, value: value % 100_000 }),
            1 => (1i64..3000).prop_map(|seconds| Step::Silence { seconds }),
            2 => (0i64..20_000, 1i64..500, any::<u32>())
                .prop_map(|(ago, count, value)| Step::Late { ago, count, value: value % 1000 }),
            3 => Just(Step::Chores),
            1 => Just(Step::Crash),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever happens in whatever order, the store holds what a map would hold, and its tiers what follows from it.
        #[test]
        fn a_store_is_a_map_that_survives(steps in proptest::collection::vec(step(), 1..30), every in prop_oneof![Just(1i64), Just(5)]) {
            let mut rig = Rig::new(2, every);
            for step in steps {
                match step {
                    Step::Live { seconds, value } => {
                        for second in 0..seconds {
                            rig.clock.advance(every * MICROS);
                            rig.put(0, rig.now(), f64::from(value) + second as f64);
                            rig.put(1, rig.now(), f64::from(value));
                        }
                    }
                    Step::Silence { seconds } => rig.clock.advance(seconds * MICROS),
                    Step::Late { ago, count, value } => {
                        // A slot that has a sample keeps it: peers hold the same ones.
                        for second in 0..count {
                            let at = rig.now() - ago + second * every;
                            let at = at - at.rem_euclid(every);
                            if at <= rig.now() && !rig.model[0].contains_key(&at) {
                                rig.put(0, at, f64::from(value));
                            }
                        }
                    }
                    Step::Chores => rig.chores(),
                    Step::Crash => rig.crash(),
                    Step::Restart => rig.restart(),
                }
            }
            rig.check();
            for tier in [1, 2] {
                rig.check_tier(tier, rig.now());
            }
            rig.restart();
            rig.check();
            rig.check_tier(1, rig.now());
            rig.check_tier(2, rig.now());
        }
    }
}
