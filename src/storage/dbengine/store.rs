//! The store: what opens a metric, what reads it, and the chores that turn hot rows into segments, merge and delete them.
//!
//! Where several places have a sample of the same slot, the one that came last wins: hot rows first, then segments in
//! order of their sequence, then late samples. An empty slot never hides a sample. So merging, flushing twice and
//! crashing in between are all harmless.
//!
//! Locks: the list of segments of a tier (taken by readers to copy it, by the flush thread to change it), then those of
//! `hot`, `late` and `catalog`. None that a writer or reader takes is held during disk writes, the catalog's excepted.
//! Readers look at late samples, then at hot rows, then at segments: samples move in that direction only.

use std::cell::RefCell;
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
use super::derive::Derived;
use super::files::{self, SegmentName, tier_directory};
use super::fresh::{self, Fresh};
use super::hot::{Block, COLUMNS, Hot, Place, ROWS, SEAL_AFTER, block_of};
use super::late::{Late, Taken};
use super::names;
use super::runs::{self, Appender, Part};
use super::segment::{OpenError, Page, PageKey, Segment, SegmentWriter};
use super::tiers::Columns;
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
pub(super) const WINDOW: i64 = 12 * ROWS as i64;
/// Segments of one window and level that are merged into one of the next: for samples, and for points, which are few.
const MERGE_AT: [usize; 2] = [12, 4];
/// A window whose time is over is made one segment when nothing came for it for so long, if what came since it last was
/// one is worth it ([`MERGE_SHARE`] of it), or it has been left alone for longer.
const QUIET_US: i64 = 3 * 1_000_000;
const LONG_QUIET_US: i64 = 600 * 1_000_000;
const MERGE_SHARE: u64 = 16;
/// More than a store will see: a merge raises the level, which has eight bits.
const LEVEL_MAX: u8 = 250;
/// Merging stops below the largest size a segment's offsets reach.
const MERGE_BYTES_MAX: u64 = 3 << 30;
/// And below this share of what the tier may hold.
const LIMIT_SHARE: u64 = 8;
/// A merge that failed is tried again after this.
const MERGE_AGAIN_US: i64 = 10 * 1_000_000;
/// Late samples are flushed when the oldest is this old.
const LATE_AGE_US: i64 = 60 * 1_000_000;
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
    /// Seconds for which samples are kept that were older than that when they arrived: somebody has just brought them, to
    /// look at them or to pass them on. The limit of bytes holds for them too.
    pub late_kept_s: i64,
}

impl TierSettings {
    /// A tier that keeps everything.
    pub fn unlimited(iterations: u32) -> TierSettings {
        TierSettings { iterations, bytes_max: 0, seconds_max: 0, late_kept_s: 0 }
    }
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
    iterations: u32,
    limits: Limits,
    /// Slots of tier 0 in one point of this one.
    grouping: u32,
    /// Sorted by interval, window, sequence. Replaced as a whole, so that readers copy one pointer.
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
}

/// How much is kept; may change while it is.
struct Limits {
    bytes_max: AtomicU64,
    seconds_max: AtomicI64,
    late_kept_s: AtomicI64,
}

impl Limits {
    fn new(settings: &TierSettings) -> Limits {
        Limits {
            bytes_max: AtomicU64::new(settings.bytes_max),
            seconds_max: AtomicI64::new(settings.seconds_max),
            late_kept_s: AtomicI64::new(settings.late_kept_s),
        }
    }

    fn set(&self, settings: &TierSettings) {
        self.bytes_max.store(settings.bytes_max, Ordering::Relaxed);
        self.seconds_max.store(settings.seconds_max, Ordering::Relaxed);
        self.late_kept_s.store(settings.late_kept_s, Ordering::Relaxed);
    }

    fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }
}

impl Tier {
    fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read())
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        let mut segments = self.segments.write();
        let mut changed = Vec::clone(&segments);
        change(&mut changed);
        changed.sort_by_key(|segment| order(&segment.name));
        *segments = Arc::new(changed);
    }
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
    /// A large flush is behind us: what it freed goes back to the system once there is nothing to do.
    has_memory_to_give: AtomicBool,
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
            let (segments, last) = open_segments(&directory).map_err(failed(&directory))?;
            highest = highest.max(last);
            tiers.push(Tier {
                directory,
                iterations: tier.iterations,
                limits: Limits::new(tier),
                grouping,
                segments: RwLock::new(Arc::new(segments)),
            });
        }
        let catalog = Catalog::open(&first)?;
        let hot = Hot::open(&first).map_err(failed(&first))?;
        let bytes_max = settings.tiers.first().map_or(0, |tier| tier.bytes_max);
        let late = Late::open(&first, bytes_max).map_err(failed(&first))?;
        // The catalog may have lost what the samples were stored under: those numbers stay unused.
        let in_segments = tiers
            .iter()
            .flat_map(|tier| tier.segments().iter().map(|segment| segment.highest_metric()).max());
        let used = in_segments.chain([hot.highest_metric(), late.highest_metric()]).max();
        catalog.reserve(used.unwrap_or(0));
        let groupings: Vec<u32> = tiers.iter().map(|tier| tier.grouping).collect();
        let backfill = Backfill::plan(&settings.cache, &groupings, || {
            let held = tiers.first().map(Tier::segments).unwrap_or_default();
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
            has_memory_to_give: AtomicBool::new(false),
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
            .map(|tier| tier.segments().iter().map(|segment| segment.bytes()).sum())
            .collect()
    }

    pub fn stats(&self) -> Vec<TierStats> {
        let (now, metrics) = (self.clock.now_seconds().0, self.catalog.metrics());
        let stats = |tier: &Tier| {
            let segments = tier.segments();
            let first = segments.iter().map(|segment| window_start(&segment.name)).min();
            let last = segments.iter().map(|segment| window_end(&segment.name)).max();
            TierStats {
                grouping: tier.grouping,
                files: segments.len(),
                metrics,
                bytes: segments.iter().map(|segment| segment.bytes()).sum(),
                bytes_max: tier.limits.bytes_max(),
                span: first.zip(last.map(|last| last.min(now))),
            }
        };
        self.tiers.iter().map(stats).collect()
    }

    /// How many kinds of its work the disk refused when they were tried last.
    pub fn refused_chores(&self) -> u32 {
        self.failing.load(Ordering::Acquire).count_ones()
    }

    /// Bytes that tier 0's file system has left for us, and bytes that all tiers may still grow by; `None` when it does not
    /// say. Tiers without a limit are not counted.
    pub fn room(&self) -> Option<(u64, u64)> {
        let usage = sys::disk_usage(&self.tiers.first()?.directory).ok()?;
        let free = usage.available.saturating_mul(usage.unit).max(0).cast_unsigned();
        let grows = |tier: &TierStats| match tier.bytes_max {
            0 => 0,
            most => most.saturating_sub(tier.bytes),
        };
        Some((free, self.stats().iter().map(grows).sum()))
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
                let mut waited = 0;
                while !flush_stop.wait(Duration::from_millis(100)) {
                    waited += 1;
                    if waited >= 10 || flush.late.is_large() {
                        waited = 0;
                        flush.chores(&flush_stop);
                    }
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
        // Before merging: what has to go need not be merged first.
        if self.settled.load(Ordering::Acquire) {
            self.delete_old();
        }
        let now = self.clock.monotonic_us();
        while !stop.is_stopped() && now >= self.merge_after_us.load(Ordering::Relaxed) {
            match self.merge_one() {
                // A flood must not wait until all is merged.
                Ok(true) if self.late.is_large() => {
                    self.report(Chore::Flush, self.flush_due(false));
                }
                // One that works says that they do, however many are waiting.
                Ok(true) => self.report(Chore::Merge, Ok(())),
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
            if self.has_memory_to_give.swap(false, Ordering::AcqRel) {
                sys::trim_malloc();
            }
            return Ok(());
        }
        // A segment outlives everything, so the numbers in it must.
        self.catalog.sync()?;
        self.derive_again(&Taken::default())?;
        for ((every, number), blocks) in due {
            let regular = blocks.iter().any(|block| !block.recovered);
            self.flush_blocks(every, number, &blocks)?;
            self.settled.fetch_or(regular, Ordering::AcqRel);
        }
        self.hot.drop_flushed();
        if late_is_due {
            let regular = self.late.has_grown();
            self.has_memory_to_give.fetch_or(self.late.is_large(), Ordering::AcqRel);
            self.flush_late()?;
            self.settled.fetch_or(regular, Ordering::AcqRel);
        }
        self.late.drop_flushed();
        Ok(())
    }

    /// Brings the higher tiers up to what they could not be brought up to before. While there is something left, the
    /// logs of late samples stay, so that a restart does it too.
    fn derive_again(&self, fresh: &Taken) -> io::Result<()> {
        let spans = std::mem::take(&mut *self.underived.lock());
        for (number, span) in spans.iter().enumerate() {
            if let Err(error) = self.derive(span, fresh) {
                self.underived.lock().extend_from_slice(&spans[number..]);
                return Err(error);
            }
        }
        Ok(())
    }

    /// All blocks of one span become one segment, and what follows from them on the higher tiers.
    fn flush_blocks(&self, every: u32, number: u32, blocks: &[Arc<Block>]) -> io::Result<()> {
        let first_ordinal = i64::from(number) * i64::from(ROWS) + 1;
        let after = (first_ordinal - 1) * i64::from(every);
        let until = (first_ordinal + i64::from(ROWS) - 1) * i64::from(every);
        // Points that lie within the blocks are made of what is at hand. The others are rare: tiers whose points do not
        // divide a block, metrics that have several columns or changed their interval, a flush that failed half-way.
        let at_hand = self.tiers.get(1).is_some_and(|tier| ROWS.is_multiple_of(tier.iterations))
            && !blocks.iter().any(|block| block.flushed.load(Ordering::Acquire))
            && !self.has_other_intervals(every, (after, until));
        let mut derived = at_hand.then(|| Derived::new(self, every));
        let metrics = self.write_blocks(every, first_ordinal, blocks, &mut derived)?;
        match derived {
            Some(derived) => derived.publish()?,
            None => self.derive(&Span { every, metrics, after, until }, &Taken::default())?,
        }
        for block in blocks {
            block.derived.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Whether any metric has samples of another interval about that time.
    fn has_other_intervals(&self, every: u32, (after, until): (i64, i64)) -> bool {
        self.tiers[0].segments().iter().any(|segment| {
            segment.name.every != every
                && window_end(&segment.name) > after
                && window_start(&segment.name) < until
        })
    }

    /// Writes the segment, unless that was done and only the rest failed; gives the metrics in it. `derived` is given
    /// what follows from it, or taken away where that has to be derived from what is stored.
    fn write_blocks(
        &self,
        every: u32,
        first_ordinal: i64,
        blocks: &[Arc<Block>],
        derived: &mut Option<Derived<'_>>,
    ) -> io::Result<Vec<u32>> {
        let window = window_of(first_ordinal);
        let known = self.segments_in(0, every, window);
        let (name, mut writer) = self.new_segment(0, every, window)?;
        let mut metrics = Vec::new();
        let mut seen = rustc_hash::FxHashSet::default();
        let mut columns: [Vec<Sample>; 16] = Default::default();
        let mut payload = Vec::new();
        for block in blocks {
            let written = block.flushed.load(Ordering::Acquire);
            for first_column in (0..COLUMNS).step_by(16) {
                if (first_column..first_column + 16).all(|column| block.metric(column).is_none()) {
                    continue;
                }
                block.gather(first_column, &mut columns);
                for (offset, all) in columns.iter_mut().enumerate() {
                    let Some(metric) = block.metric(first_column + offset) else { continue };
                    if all.iter().all(|sample| sample.is_empty()) {
                        continue;
                    }
                    metrics.push(metric);
                    if written {
                        continue;
                    }
                    // Late samples of these slots, flushed already, came after the row was sealed.
                    overlay(&known, metric, every, first_ordinal, all);
                    let Some((from, slots)) = trimmed(all) else { continue };
                    let first = first_ordinal + from as i64;
                    payload.clear();
                    codec::encode(slots, Effort::Quick, &mut payload);
                    writer.add(page_key(metric, first, every, slots.len()), &payload)?;
                    let span = (first, first + slots.len() as i64 - 1);
                    let is_first = seen.insert(metric);
                    if let Some(points) = derived {
                        let added = points.add(metric, span, &mut |from, to, visit| {
                            let from = usize::try_from(from - first_ordinal).unwrap_or(0);
                            let to = usize::try_from(to - first_ordinal + 1).unwrap_or(0);
                            let slots = all.get(from..to.min(all.len())).unwrap_or_default();
                            for (&sample, at) in slots.iter().zip(from..) {
                                visit(first_ordinal + at as i64, sample);
                            }
                        });
                        if added.is_err() || !is_first {
                            *derived = None;
                        }
                    }
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
        self.derive_again(&taken)
    }

    /// One segment per interval and window, each of which is noted in `done` and is to be derived from then.
    fn write_late(&self, taken: &Taken, done: &mut BTreeSet<(u32, u32)>) -> io::Result<()> {
        // The windows that the parts of each series lie in; parts of one window stay in order of arrival.
        let mut pages = Vec::new();
        for ((metric, every), parts) in taken.series() {
            for (part, number) in parts.iter().zip(0u32..) {
                let (first, last) = part.ordinals();
                let windows = window_of(first)..=window_of(last);
                pages.extend(windows.map(|window| (*every, window, *metric, number, part)));
            }
        }
        pages.sort_unstable_by_key(|&(every, window, metric, number, _)| {
            (every, window, metric, number)
        });
        let (mut slots, mut payload) = (Vec::new(), Vec::new());
        for segment in pages.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let (every, window) = (segment[0].0, segment[0].1);
            let (name, mut writer) = self.new_segment(0, every, window)?;
            let (mut first, mut last) = (i64::MAX, i64::MIN);
            let mut metrics = Vec::new();
            let begin = i64::from(window) * WINDOW + 1;
            for page in segment.chunk_by(|a, b| a.2 == b.2) {
                let metric = page[0].2;
                let parts = || page.iter().map(|entry| entry.4);
                let spans = parts().map(Part::ordinals);
                let Some((a, b)) = spans.reduce(|(a, b), (c, d)| (a.min(c), b.max(d))) else {
                    continue;
                };
                let (a, b) = (a.max(begin), b.min(begin + WINDOW - 1));
                slots.clear();
                slots.resize(usize::try_from(b - a + 1).unwrap_or(0), Sample::EMPTY);
                runs::overlay(parts(), a, &mut slots);
                let Some((from, slots)) = trimmed(&slots) else { continue };
                let from = a + from as i64;
                (first, last) = (first.min(from), last.max(from + slots.len() as i64 - 1));
                payload.clear();
                codec::encode(slots, Effort::of_new(slots.len()), &mut payload);
                writer.add(page_key(metric, from, every, slots.len()), &payload)?;
                metrics.push(metric);
            }
            if !metrics.is_empty() {
                self.publish(0, writer, name)?;
                let every_s = i64::from(every);
                let (after, until) = ((first - 1) * every_s, last * every_s);
                self.note_underived(Span { every, metrics, after, until });
            }
            done.insert((every, window));
        }
        Ok(())
    }

    /// Windows in a row of the same metrics are derived as one span.
    fn note_underived(&self, span: Span) {
        let mut spans = self.underived.lock();
        let window = |span: &Span, time: i64| window_of(time / i64::from(span.every));
        match spans.last_mut() {
            Some(last)
                if (last.every, &last.metrics) == (span.every, &span.metrics)
                    && window(last, last.until) + 1
                        == window(&span, span.after + i64::from(span.every)) =>
            {
                last.until = span.until;
            }
            _ => spans.push(span),
        }
    }

    /// Derives the points of all higher tiers that touch the span `after..=until` (seconds) from what segments hold; `fresh`
    /// are samples in order, which are in segments already and need not be read again.
    fn derive(&self, span: &Span, fresh: &Taken) -> io::Result<()> {
        let Span { every, ref metrics, after, until } = *span;
        let every_s = i64::from(every);
        let slots = (after.div_euclid(every_s) + 1, until.div_euclid(every_s));
        if slots.1 < slots.0 {
            return Ok(());
        }
        let mut derived = Derived::new(self, every);
        let (mut scratch, mut gathered) = (Scratch::default(), Vec::new());
        for &metric in metrics {
            let run = whole_run(fresh.of((metric, every)), slots, &mut gathered);
            derived.add(metric, slots, &mut |from, to, visit| {
                let mut read = |from: i64, to: i64, visit: &mut dyn FnMut(i64, Sample)| {
                    self.samples(
                        metric,
                        every,
                        Sources::Segments,
                        ((from - 1) * every_s, to * every_s),
                        &mut scratch,
                        &mut |at, sample| visit(at.0.div_euclid(every_s), sample),
                    );
                };
                let Some((first, run)) = run else { return read(from, to, visit) };
                read(from, first - 1, visit);
                for (&sample, ordinal) in run.iter().zip(first..) {
                    visit(ordinal, sample);
                }
                read(first + run.len() as i64, to, visit);
            })?;
        }
        derived.publish()
    }

    // --- what deriving needs ---------------------------------------------------------------------

    pub(super) fn tiers_count(&self) -> usize {
        self.tiers.len()
    }

    /// Points of the tier below in one of this tier.
    pub(super) fn iterations(&self, tier: usize) -> u32 {
        self.tiers.get(tier).map_or(1, |tier| tier.iterations.max(1))
    }

    /// Seconds between points of a tier, for samples every `every` seconds.
    pub(super) fn point_every(&self, every: u32, tier: usize) -> Option<u32> {
        every.checked_mul(self.tiers.get(tier)?.grouping)
    }

    pub(super) fn new_segment(
        &self,
        tier: usize,
        every: u32,
        window: u32,
    ) -> io::Result<(SegmentName, SegmentWriter)> {
        let name = SegmentName { every, window, sequence: self.sequence(), level: 0 };
        Ok((name, SegmentWriter::create(&self.tiers[tier].directory, name)?))
    }

    pub(super) fn publish(
        &self,
        tier: usize,
        writer: SegmentWriter,
        name: SegmentName,
    ) -> io::Result<()> {
        if writer.is_empty() {
            return Ok(());
        }
        let path = writer.finish()?;
        let segment = Segment::open(&path, name).map_err(io::Error::other)?;
        let now = (self.clock.now_seconds().0, self.clock.monotonic_us());
        let segment = Arc::new(segment.flushed_at(now.0, now.1));
        self.tiers[tier].change(|segments| segments.push(segment));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn sequence(&self) -> u64 {
        self.next_sequence.fetch_add(1, Ordering::AcqRel)
    }

    fn segments_in(&self, tier: usize, every: u32, window: u32) -> Vec<Arc<Segment>> {
        in_window(&self.tiers[tier].segments(), every, window).to_vec()
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
        self.derive(&Span { every, metrics, after, until }, &Taken::default())?;
        self.backfill.done()
    }

    // --- merging ---------------------------------------------------------------------------------

    /// Merges the segments of one window that have become many, or are all that it will have; false when there are none.
    pub fn merge_one(&self) -> io::Result<bool> {
        for tier in 0..self.tiers.len() {
            let segments = self.tiers[tier].segments();
            let same_window = |a: &Arc<Segment>, b: &Arc<Segment>| {
                (a.name.every, a.name.window) == (b.name.every, b.name.window)
            };
            for here in segments.chunk_by(same_window) {
                if let Some(inputs) = self.worth_merging(tier, here) {
                    self.merge(tier, &inputs)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Those of the segments of a window that should become one now.
    fn worth_merging(&self, tier: usize, here: &[Arc<Segment>]) -> Option<Vec<Arc<Segment>>> {
        let name = here.first()?.name;
        let bytes = |segments: &[Arc<Segment>]| segments.iter().map(|s| s.bytes()).sum::<u64>();
        // What is deleted to keep within a limit is deleted whole, so it must be a small part of what may be held.
        let bytes_max = match self.tiers[tier].limits.bytes_max() {
            0 => MERGE_BYTES_MAX,
            limit => MERGE_BYTES_MAX.min(limit / LIMIT_SHARE),
        };
        let mergeable = |segments: &[Arc<Segment>]| {
            bytes(segments) < bytes_max && segments.iter().all(|s| s.name.level < LEVEL_MAX)
        };
        let merge_at = MERGE_AT[tier.min(1)];
        if here.len() >= merge_at {
            let mut levels: Vec<u8> = here.iter().map(|segment| segment.name.level).collect();
            levels.sort_unstable();
            levels.dedup();
            for level in levels {
                let of_level: Vec<_> =
                    here.iter().filter(|s| s.name.level == level).cloned().collect();
                if of_level.len() >= merge_at && mergeable(&of_level) {
                    return Some(of_level);
                }
            }
        }
        let over = window_end(&name) + SEAL_AFTER * i64::from(name.every)
            < self.clock.now_seconds().0
            && (here.len() > 1 || name.level == 0);
        if !over {
            return None;
        }
        let newest = here.iter().map(|segment| segment.since_us()).max()?;
        let quiet = self.clock.monotonic_us() - newest;
        let largest = here.iter().map(|segment| segment.bytes()).max()?;
        let worth = here.len() == 1 || (bytes(here) - largest) * MERGE_SHARE >= largest;
        let due = quiet >= LONG_QUIET_US || (quiet >= QUIET_US && worth);
        (due && mergeable(here)).then(|| here.to_vec())
    }

    fn merge(&self, tier: usize, inputs: &[Arc<Segment>]) -> io::Result<()> {
        let Some(newest) =
            inputs.iter().map(|segment| segment.name).max_by_key(|name| name.sequence)
        else {
            return Ok(());
        };
        let level = inputs.iter().map(|segment| segment.name.level).max().unwrap_or(0);
        let name = SegmentName { level: level.saturating_add(1), ..newest };
        let mut metrics: Vec<u32> = Vec::new();
        for input in inputs {
            input.metrics(&mut metrics);
        }
        metrics.sort_unstable();
        metrics.dedup();
        let mut writer = SegmentWriter::create(&self.tiers[tier].directory, name)?;
        let mut payload = Vec::new();
        let mut slots = Vec::new();
        let mut pages = Vec::new();
        let (mut points, mut filled) = (Vec::new(), Vec::new());
        let mut columns = Columns::default();
        for metric in metrics {
            payload.clear();
            if tier == 0 {
                pages.clear();
                for input in inputs {
                    input.pages(metric, 0, u32::MAX, &mut |page| pages.push(page));
                }
                for group in groups(&mut pages) {
                    if let [page] = group
                        && usize::from(page.key.count) >= codec::LONG
                    {
                        writer.add(page.key, page.payload)?;
                        continue;
                    }
                    let starts = group.iter().map(|page| page.key.start);
                    let lasts = group.iter().map(|page| page.key.last());
                    let (Some(start), Some(last)) = (starts.min(), lasts.max()) else { continue };
                    let first = i64::from(start / name.every.max(1));
                    let count = i64::from(last / name.every.max(1)) - first + 1;
                    slots.clear();
                    slots.resize(
                        usize::try_from(count.clamp(0, WINDOW)).unwrap_or(0),
                        Sample::EMPTY,
                    );
                    for page in group {
                        lay(page, name.every, first, &mut slots);
                    }
                    let Some((from, slots)) = trimmed(&slots) else { continue };
                    payload.clear();
                    codec::encode(slots, Effort::Small, &mut payload);
                    let key = page_key(metric, first + from as i64, name.every, slots.len());
                    writer.add(key, &payload)?;
                }
            } else {
                points.clear();
                gather_points(inputs, metric, (0, u32::MAX), &mut columns, &mut points);
                let (Some(first), Some(last)) = (points.first(), points.last()) else { continue };
                let every = i64::from(name.every);
                let (from, to) = (first.end.0 / every, last.end.0 / every);
                filled.clear();
                filled.extend((from..=to).map(|at| TierPoint::empty(UnixSeconds(at * every))));
                for point in &points {
                    let at = usize::try_from(point.end.0 / every - from).unwrap_or(0);
                    if let Some(place) = filled.get_mut(at) {
                        *place = *point;
                    }
                }
                columns.encode(&filled, Effort::Small, &mut payload);
                writer.add(page_key(metric, from, name.every, filled.len()), &payload)?;
            }
        }
        let path = writer.finish()?;
        let merged = Segment::open(&path, name).map_err(io::Error::other)?;
        let newest = inputs.iter().map(|segment| segment.flushed_s()).max().unwrap_or(0);
        let kept_from = inputs.iter().map(|segment| segment.kept_from()).min().unwrap_or(0);
        merged.keep_from(i64::from(kept_from));
        let merged = Arc::new(merged.flushed_at(newest, self.clock.monotonic_us()));
        self.tiers[tier].change(|segments| {
            segments.retain(|segment| !inputs.iter().any(|input| Arc::ptr_eq(input, segment)));
            segments.push(merged);
        });
        self.generation.fetch_add(1, Ordering::AcqRel);
        for input in inputs {
            remove(input.path());
        }
        Ok(())
    }

    // --- retention -------------------------------------------------------------------------------

    /// Keeps so much from now on. How tiers group samples stays as it was.
    pub fn set_limits(&self, tiers: &[TierSettings]) {
        for (tier, settings) in self.tiers.iter().zip(tiers) {
            tier.limits.set(settings);
        }
    }

    /// Deletes the oldest segments of tiers that hold too much, a few at a time, and hides what is too old in the others.
    fn delete_old(&self) {
        let now = self.clock.now_seconds().0;
        for tier in &self.tiers {
            let seconds_max = tier.limits.seconds_max.load(Ordering::Relaxed);
            let late_kept_s = tier.limits.late_kept_s.load(Ordering::Relaxed);
            for segment in tier.segments().iter() {
                let is_due = seconds_max > 0 && now - segment.flushed_s() > late_kept_s;
                segment.keep_from(if is_due { now - seconds_max } else { 0 });
            }
            for _ in 0..DELETE_PER_ROUND {
                let oldest = {
                    let segments = tier.segments();
                    let bytes: u64 = segments.iter().map(|segment| segment.bytes()).sum();
                    let too_large = tier.limits.bytes_max() > 0
                        && bytes > tier.limits.bytes_max()
                        && segments.len() > 1;
                    let due = segments.iter().filter(|segment| {
                        let too_old = seconds_max > 0
                            && now - window_end(&segment.name) > seconds_max
                            && now - segment.flushed_s() > late_kept_s;
                        too_large || too_old
                    });
                    due.min_by_key(|segment| window_end(&segment.name)).cloned()
                };
                let Some(oldest) = oldest else { break };
                tier.change(|segments| segments.retain(|s| !Arc::ptr_eq(s, &oldest)));
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
    fn samples(
        &self,
        metric: u32,
        every: u32,
        sources: Sources<'_>,
        (after, until): (i64, i64),
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
            self.late.read((metric, every), (after, until), &mut |time, sample| {
                scratch.late.push((i64::from(time) / every_s, sample));
            });
            self.hot.blocks_of(metric, place, &mut |block, column| {
                if block.name.every != every
                    || block.first() > last
                    || block.first() + i64::from(ROWS) <= first
                {
                    return;
                }
                let row = |ordinal: i64| u32::try_from(ordinal - block.first()).unwrap_or(0);
                for row in row(first)..=row(last).min(block.reach()) {
                    let sample = block.get(row, column);
                    if !sample.is_empty() {
                        scratch.hot.push((block.first() + i64::from(row), sample));
                    }
                }
            });
        }
        // Last of all: what leaves the others meanwhile is in a segment by then.
        let all = self.tiers[0].segments();
        let others = all.first().zip(all.last());
        let others = others.is_some_and(|(a, b)| a.name.every != every || b.name.every != every);
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
            for segment in all.iter().filter(|segment| others && segment.name.every != every) {
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
            overlay(in_window(&all, every, window), metric, every, base, slots);
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
    pub(super) fn points(
        &self,
        metric: u32,
        tier: usize,
        tier_every: u32,
        (after, until): (i64, i64),
        visit: &mut dyn FnMut(TierPoint),
    ) {
        let Some(of) = self.tiers.get(tier) else { return };
        let all = of.segments();
        let seconds = |at: i64| u32::try_from(at.max(0)).unwrap_or(u32::MAX);
        let span = (seconds(after.saturating_add(1)), seconds(until));
        let (mut columns, mut points) = (Columns::default(), Vec::new());
        for here in of_every(&all, tier_every).chunk_by(|a, b| a.name.window == b.name.window) {
            let name = here[0].name;
            if window_end(&name) <= after || window_start(&name) >= until {
                continue;
            }
            points.clear();
            gather_points(here, metric, span, &mut columns, &mut points);
            for &point in &points {
                visit(point);
            }
        }
    }

    /// First and last slot held of a metric.
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
        self.late.spans((metric, every), &mut widen);
        self.hot.blocks_of(metric, place, &mut |block, column| {
            let every = i64::from(block.name.every);
            let held = |row: &u32| !block.get(*row, column).is_empty();
            let mut rows = 0..=block.reach();
            if let (Some(from), Some(to)) = (rows.clone().find(held), rows.rfind(held)) {
                widen(
                    (block.first() + i64::from(from)) * every,
                    (block.first() + i64::from(to)) * every,
                );
            }
        });
        // Last of all, as when reading.
        for of_every in self.tiers[0].segments().chunk_by(|a, b| a.name.every == b.name.every) {
            if let Some((from, to)) = span_of(of_every, metric) {
                widen(from, to);
            }
        }
        span
    }
}

/// Scattered samples are as many parts, to be looked through for each span of theirs: those are read from segments.
const PARTS_MAX: usize = 4096;

/// What parts have of the slots `first..=last`, and the first one's ordinal, if none between them is missing.
fn whole_run<'a>(
    parts: &[Part],
    (first, last): (i64, i64),
    slots: &'a mut Vec<Sample>,
) -> Option<(i64, &'a [Sample])> {
    if parts.len() > PARTS_MAX {
        return None;
    }
    let within = parts.iter().map(Part::ordinals).filter(|&(a, b)| b >= first && a <= last);
    let within = within.map(|(a, b)| (a.max(first), b.min(last)));
    let (from, to, count) = within.fold((i64::MAX, i64::MIN, 0), |(from, to, count), (a, b)| {
        (from.min(a), to.max(b), count + b - a + 1)
    });
    if count == 0 || to - from + 1 > count {
        return None;
    }
    slots.clear();
    slots.resize(usize::try_from(to - from + 1).unwrap_or(0), Sample::EMPTY);
    runs::overlay(parts, from, slots);
    (!slots.contains(&Sample::EMPTY)).then_some((from, slots.as_slice()))
}

/// The segments of one interval.
fn of_every(all: &[Arc<Segment>], every: u32) -> &[Arc<Segment>] {
    let from = all.partition_point(|segment| segment.name.every < every);
    let to = all.partition_point(|segment| segment.name.every <= every);
    &all[from..to]
}

fn in_window(all: &[Arc<Segment>], every: u32, window: u32) -> &[Arc<Segment>] {
    let from = all.partition_point(|s| (s.name.every, s.name.window) < (every, window));
    let to = all.partition_point(|s| (s.name.every, s.name.window) <= (every, window));
    &all[from..to]
}

/// First and last slot that segments of one interval have of a metric: of the first window and of the last that has any.
fn span_of(segments: &[Arc<Segment>], metric: u32) -> Option<(i64, i64)> {
    let same_window = |a: &Arc<Segment>, b: &Arc<Segment>| a.name.window == b.name.window;
    let spans = |here: &[Arc<Segment>]| {
        let spans = here.iter().filter_map(|segment| segment.span(metric));
        spans.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))
    };
    let (first, _) = segments.chunk_by(same_window).find_map(spans)?;
    let (_, last) = segments.chunk_by(same_window).rev().find_map(spans)?;
    Some((i64::from(first), i64::from(last)))
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

pub(super) fn window_of(ordinal: i64) -> u32 {
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

pub(super) fn page_key(metric: u32, first_ordinal: i64, every: u32, count: usize) -> PageKey {
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
    for segment in segments {
        segment.pages(metric, from, to, &mut |page| lay(&page, every, first, slots));
    }
}

/// Lays the samples of one page over `slots`; what it does not say leaves what is there.
fn lay(page: &Page<'_>, every: u32, first: i64, slots: &mut [Sample]) {
    let count = usize::from(page.key.count);
    let offset = i64::from(page.key.start) / i64::from(every) - first;
    let skipped = usize::try_from(-offset).unwrap_or(0);
    let slots = slots.get_mut(usize::try_from(offset).unwrap_or(0)..).unwrap_or_default();
    let span = skipped..count.min(skipped.saturating_add(slots.len()));
    if page.key.every != every || span.is_empty() {
        return;
    }
    DECODED.with_borrow_mut(|decoded| {
        decoded.clear();
        if codec::decode(page.payload, count, span, decoded).is_err() {
            return;
        }
        for (slot, &sample) in slots.iter_mut().zip(&*decoded) {
            if !sample.is_empty() {
                *slot = sample;
            }
        }
    });
}

thread_local! {
    /// A page's samples between decoding and where they belong.
    static DECODED: RefCell<Vec<Sample>> = const { RefCell::new(Vec::new()) };
}

/// The pages of a metric, in order of their segments, as those that become one page each: all of them, unless none overlaps
/// another and some are long, which stay as they are.
fn groups<'p, 's>(pages: &'p mut [Page<'s>]) -> impl Iterator<Item = &'p [Page<'s>]> {
    let is_long = |page: &Page<'_>| usize::from(page.key.count) >= codec::LONG;
    let mut spans: Vec<(u32, u32)> =
        pages.iter().map(|page| (page.key.start, page.key.last())).collect();
    spans.sort_unstable();
    let apart = spans.windows(2).all(|pair| pair[0].1 < pair[1].0);
    let keeps = apart && pages.iter().any(is_long);
    if keeps {
        pages.sort_unstable_by_key(|page| page.key.start);
    }
    pages.chunk_by(move |a, b| !keeps || !(is_long(a) || is_long(b)))
}

/// The points that end within `from..=to` seconds, in order of time; where segments, which come in order of sequence,
/// have several, that of the last one.
fn gather_points(
    segments: &[Arc<Segment>],
    metric: u32,
    (from, to): (u32, u32),
    columns: &mut Columns,
    points: &mut Vec<TierPoint>,
) {
    let (mut last, mut sorted) = (i64::MIN, true);
    for segment in segments {
        segment.pages(metric, from, to, &mut |page| {
            let key = page.key;
            let (from, to) = (i64::from(from), i64::from(to));
            let place = (key.start, key.every);
            let _ = columns.decode(page.payload, usize::from(key.count), place, &mut |point| {
                if point.end.0 >= from && point.end.0 <= to {
                    sorted &= point.end.0 > last;
                    last = point.end.0;
                    points.push(point);
                }
            });
        });
    }
    if !sorted {
        points.sort_by_key(|point| point.end.0);
        points.dedup_by(|later, kept| {
            let same = later.end == kept.end;
            if same {
                *kept = *later;
            }
            same
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
        let count = usize::from(page.key.count);
        if codec::decode(page.payload, count, 0..count, &mut decoded).is_err() {
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
fn open_segments(directory: &Path) -> io::Result<(Vec<Arc<Segment>>, u64)> {
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
    // Of those that cannot be read just now too: what is written next must not look older.
    let last = names.iter().map(|(name, _)| name.sequence).max().unwrap_or(0);
    Ok((segments, last))
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
            now: 0,
            late: 0,
            run: None,
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
    /// The current slot when the clock was last looked at.
    now: i64,
    /// Samples that found no row in `block`, and where the last of them went.
    late: u32,
    run: Option<Appender>,
}

impl Writer for StoreWriter {
    #[inline]
    fn store(&mut self, at: UnixSeconds, sample: Sample) {
        let ordinal = at.0.div_euclid(self.every);
        let column = usize::from(self.place.column);
        if let Some(block) = &self.block
            && block.put(ordinal, column, sample)
        {
            if self.run.is_some() {
                self.run = None;
            }
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
        // A run of late samples looks at the clock now and then only: what was late stays so, unless the clock is set.
        self.late = self.late.wrapping_add(1);
        if ordinal + SEAL_AFTER >= self.now || self.late.is_multiple_of(64) {
            self.now = self.store.clock.now_seconds().0 / self.every;
            self.block = self.place.group.block_for(&self.store.hot, ordinal, self.now);
            if let Some(block) = &self.block
                && block.put(ordinal, usize::from(self.place.column), sample)
            {
                return;
            }
        }
        let (Ok(every), Ok(time)) =
            (u32::try_from(self.every), u32::try_from(ordinal * self.every))
        else {
            return;
        };
        if !self.run.as_mut().is_some_and(|run| run.put(time, sample)) {
            // The one before is left first, so that it is known to be complete.
            self.run = None;
            self.run = self.store.late.begin((self.metric, every), time, sample);
        }
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
            (after, until),
            &mut Scratch::default(),
            visit,
        );
    }

    fn tiers(&self) -> usize {
        self.store.tiers.len()
    }

    fn tier_retention(&self, tier: usize) -> Option<(i64, UnixSeconds, UnixSeconds)> {
        let of = self.store.tiers.get(tier).filter(|_| tier > 0)?;
        let every = self.every.checked_mul(of.grouping)?;
        let fresh = self.fresh_span().map(|(first, last)| {
            let end = |time| fresh::end_of(time, i64::from(every));
            (end(first), end(last))
        });
        let spans = span_of(of_every(&of.segments(), every), self.metric).into_iter();
        let (first, last) = spans.chain(fresh).reduce(|(a, b), (c, d)| (a.min(c), b.max(d)))?;
        Some((i64::from(every), UnixSeconds(first), UnixSeconds(last)))
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
            touched: &fresh::touched(&self.fresh_times(every_s[1]), every_s[1]),
            samples: &|after, until, visit| {
                let sources = Sources::All(self.place.as_ref());
                let (metric, scratch) = (self.metric, &mut Scratch::default());
                self.store.samples(
                    metric,
                    self.every,
                    sources,
                    (after, until),
                    scratch,
                    &mut |at, sample| {
                        visit((at, sample));
                    },
                );
            },
            stored: &|tier, after, until, visit| {
                self.store.points(self.metric, tier, every[tier], (after, until), visit);
            },
        };
        for point in fresh.points(tier, after.0, before.0) {
            visit(point);
        }
    }
}

impl StoreReader {
    /// Times of samples that are in no segment, as far as they are of this interval: one at least of every `per_point`
    /// seconds that have any. Not in order.
    fn fresh_times(&self, per_point: i64) -> Vec<i64> {
        let mut times = Vec::new();
        let every = i64::from(self.every);
        self.store.late.read((self.metric, self.every), (0, i64::MAX), &mut |time, _| {
            let time = i64::from(time);
            let end = |time: i64| fresh::end_of(time, per_point);
            if times.last().is_none_or(|&last| end(last) != end(time)) {
                times.push(time);
            }
        });
        self.store.hot.blocks_of(self.metric, self.place.as_ref(), &mut |block, column| {
            if block.name.every != self.every {
                return;
            }
            let mut row = 0;
            while row <= block.reach() {
                if block.get(row, column).is_empty() {
                    row += 1;
                    continue;
                }
                let time = (block.first() + i64::from(row)) * every;
                times.push(time);
                let next = fresh::end_of(time, per_point) / every + 1 - block.first();
                row = u32::try_from(next).unwrap_or(ROWS).max(row + 1);
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
        self.store.late.spans((self.metric, self.every), &mut widen);
        self.store.hot.blocks_of(self.metric, self.place.as_ref(), &mut |block, column| {
            let held = |row: &u32| !block.get(*row, column).is_empty();
            let mut rows = 0..=block.reach();
            if block.name.every == self.every
                && let (Some(from), Some(to)) = (rows.clone().find(held), rows.rfind(held))
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

    use super::super::tiers::Sum;
    use super::*;
    use crate::base::number::SampleFlags;
    use crate::base::time::{MICROS, UnixMicros};
    use crate::storage::fixtures;

    const T0: i64 = 7200 * 236_000;

    fn settings(cache: &Path) -> Settings {
        let tier = TierSettings::unlimited;
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

    /// Lengths of the pages of the first metric in segments of the window that `T0` ends.
    fn pages_of_first(rig: &Rig) -> Vec<u16> {
        let mut pages = Vec::new();
        for segment in rig.store().segments_in(0, 1, window_of(T0)) {
            segment.pages(1, 0, u32::MAX, &mut |page| pages.push((page.key.start, page.key.count)));
        }
        pages.sort_unstable();
        pages.into_iter().map(|(_, count)| count).collect()
    }

    #[test]
    fn long_pages_stay_as_they_are_when_their_window_is_merged_and_short_ones_become_one() {
        let mut rig = Rig::new(1, 1);
        let window = T0 - WINDOW + 1;
        rig.clock.advance(100 * MICROS);
        let mut late = |from: i64, to: i64| {
            for at in window + from..window + to {
                rig.put(0, at, (at % 977) as f64);
            }
            // the burst is seen, and seen to be over; then the window is quiet
            for _ in 0..8 {
                rig.clock.advance(MICROS);
                rig.chores();
            }
            rig.check();
            for tier in [1, 2] {
                rig.check_tier(tier, rig.now());
            }
            pages_of_first(&rig)
        };
        assert_eq!(late(0, 2500), [2500]);
        assert_eq!(late(2500, 4000), [2500, 1500]);
        assert_eq!(late(4000, 5000), [2500, 2500]);
        assert_eq!(late(5000, 6000), [2500, 2500, 1000]);
        // one that is longer than what was there, over all of it
        assert_eq!(late(2400, 7200), [7200]);
        rig.restart();
        rig.check();
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
        let first = metric.reader.retention().unwrap().0;
        assert!(first > first_before);
        // The limit may change while the store is in use.
        small.tiers[0].bytes_max = 20_000;
        store.set_limits(&small.tiers);
        for _ in 0..20 {
            store.chores(&StopToken::new());
        }
        assert!(store.disk_bytes()[0] <= 20_000);
        assert!(metric.reader.retention().unwrap().0 > first);
    }

    #[test]
    fn old_samples_that_just_arrived_are_not_thrown_away_at_once() {
        let mut rig = Rig::new(1, 1);
        rig.store().close().unwrap();
        rig.metrics.clear();
        rig.store = None;
        let mut short = settings(rig.cache.path());
        short.tiers[0].seconds_max = 86_400;
        short.tiers[0].late_kept_s = 3600;
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
    fn what_is_older_than_a_tier_keeps_does_not_count_though_its_file_stays() {
        let mut rig = Rig::new(1, 1);
        for second in 0..6000 {
            rig.clock.advance(MICROS);
            rig.put(0, rig.now(), f64::from(second % 977));
        }
        rig.store().close().unwrap();
        rig.metrics.clear();
        rig.store = None;
        let mut short = settings(rig.cache.path());
        short.tiers[0].seconds_max = 3600;
        let store = Store::open(&short, rig.clock.clone()).unwrap();
        let mut metric = StorageEngine::open(&store, &key(0), rig.every).unwrap();
        for _ in 0..700 {
            rig.clock.advance(MICROS);
            metric.writer.store(rig.clock.now_seconds(), Sample::normal(2.0));
            store.keep_safe();
            store.chores(&StopToken::new());
        }
        let now = rig.clock.now_seconds().0;
        let (first, last) = metric.reader.retention().unwrap();
        assert_eq!((first.0, last.0), (now - 3600, now));
        let mut seen = Vec::new();
        metric.reader.read(UnixSeconds(0), UnixSeconds(now), &mut |at, _| seen.push(at.0));
        assert_eq!((seen.first(), seen.len()), (Some(&(now - 3600)), 3601));
        let tier = metric.reader.tier_retention(1).unwrap();
        assert!(tier.1.0 < now - 6000, "other tiers have limits of their own");
    }

    /// All a store can hold: constants, counters, noise, marks, gaps, a hole filled late and flushed, late samples in the
    /// log alone, segments of two levels, three tiers, open hot rows. Always the same.
    fn store_of_version_1() -> Rig {
        let mut rig = Rig::new(4, 1);
        let mut noise = 1u32;
        for second in 0..9000i64 {
            rig.clock.advance(MICROS);
            let now = rig.now();
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            rig.put(0, now, 42.5);
            rig.put(1, now, second as f64 * 8.0);
            let hole = (2000..2600).contains(&second) || (8000..8050).contains(&second);
            if !hole {
                rig.put(2, now, f64::from(noise >> 12) / 1000.0);
            }
            if second % 7 != 0 {
                let flags = SampleFlags { anomalous: second % 5 == 0, reset: second % 11 == 0 };
                let sample = Sample::pack(-(second as f64), flags);
                rig.metrics[3].writer.store(UnixSeconds(now), sample);
                rig.model[3].insert(now, sample);
            }
            if second % 100 == 0 {
                rig.chores();
            }
        }
        (2000..2600).for_each(|second| rig.put(2, T0 + 1 + second, 7.0));
        rig.clock.advance(61 * MICROS);
        rig.chores();
        rig.clock.advance(61 * MICROS);
        rig.chores();
        for second in 0..100 {
            rig.clock.advance(MICROS);
            (0..3).for_each(|metric| rig.put(metric, rig.now(), second as f64));
        }
        (8000..8050).for_each(|second| rig.put(2, T0 + 1 + second, 8.0));
        rig.store().keep_safe();
        rig.store().sync();
        rig
    }

    #[test]
    fn a_store_that_version_1_wrote_is_read_back() {
        let mut rig = store_of_version_1();
        rig.check();
        rig.metrics.clear();
        rig.store = None;
        fixtures::keep("store", rig.cache.path());
        rig.cache = tempfile::tempdir().unwrap();
        fixtures::unpack("store", rig.cache.path());
        let names: Vec<String> = fs::read_dir(tier_directory(rig.cache.path(), 0))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let kinds = ["-0.segment", "-1.segment", ".cells", "late-", "catalog.log", "catalog.index"];
        for kind in kinds {
            assert!(names.iter().any(|name| name.contains(kind)), "no {kind} among {names:?}");
        }
        rig.open();
        rig.check();
        rig.restart();
        rig.check();
        for tier in [1, 2] {
            rig.check_tier(tier, rig.now());
        }
    }

    #[test]
    fn a_number_that_the_catalog_lost_is_given_to_no_other_metric() {
        for flushed in [false, true] {
            let mut rig = Rig::new(3, 1);
            for _ in 0..1500 {
                rig.clock.advance(MICROS);
                (0..3).for_each(|metric| rig.put(metric, rig.now(), metric as f64));
            }
            if flushed {
                rig.restart();
            }
            rig.metrics.clear();
            rig.store = None;
            let log = tier_directory(rig.cache.path(), 0).join(files::CATALOG);
            fs::write(&log, "").unwrap();
            let store = Store::open(&settings(rig.cache.path()), rig.clock.clone()).unwrap();
            let other = MetricKey { chart: "another.one".into(), ..key(0) };
            let opened = StorageEngine::open(&store, &other, rig.every).unwrap();
            assert_eq!(opened.reader.retention(), None, "flushed: {flushed}");
        }
    }

    #[test]
    fn a_point_stays_as_rich_as_it_was_when_its_samples_are_gone() {
        let mut rig = Rig::new(1, 1);
        for second in 0..9000 {
            rig.clock.advance(MICROS);
            if second % 60 != 30 {
                rig.put(0, rig.now(), 5.0);
            }
            if second % 100 == 0 {
                rig.chores();
            }
        }
        rig.restart();
        let counts = |rig: &Rig| {
            let mut counts = BTreeMap::new();
            rig.metrics[0].reader.read_tier(
                1,
                UnixSeconds(0),
                UnixSeconds(T0 + 7200),
                &mut |point| {
                    counts.insert(point.end.0, point.count);
                },
            );
            counts
        };
        let before = counts(&rig);
        assert!(before.len() == 120 && before.values().all(|&count| count == 59));
        // The samples of the first window are deleted, then one of them comes late.
        let tier = &rig.store().tiers[0];
        tier.change(|segments| {
            segments.retain(|segment| i64::from(segment.name.window) * WINDOW != T0);
        });
        rig.metrics[0].writer.store(UnixSeconds(T0 + 31), Sample::normal(5.0));
        rig.clock.advance(61 * MICROS);
        (0..2).for_each(|_| rig.chores());
        rig.clock.advance(61 * MICROS);
        (0..2).for_each(|_| rig.chores());
        assert_eq!(counts(&rig), before);
    }

    #[test]
    fn what_an_earlier_run_left_does_not_begin_the_retention() {
        let mut rig = Rig::new(1, 1);
        for _ in 0..1000 {
            rig.clock.advance(MICROS);
            rig.put(0, rig.now(), 1.0);
        }
        rig.crash();
        rig.chores();
        assert!(!rig.store().settled.load(Ordering::Acquire));
        for _ in 0..1500 {
            rig.clock.advance(MICROS);
            rig.put(0, rig.now(), 1.0);
        }
        rig.chores();
        assert!(rig.store().settled.load(Ordering::Acquire));
    }

    /// A directory in the way of a tier's segments is as good as a full disk.
    #[test]
    fn tiers_that_could_not_be_written_are_derived_when_they_can() {
        let mut rig = Rig::new(2, 1);
        let tier = tier_directory(rig.cache.path(), 1);
        let aside = rig.cache.path().join("aside");
        fs::rename(&tier, &aside).unwrap();
        for second in 0..3000 {
            rig.clock.advance(MICROS);
            rig.put(0, rig.now(), second as f64);
            if !(500..700).contains(&second) {
                rig.put(1, rig.now(), second as f64);
            }
            if second % 100 == 0 {
                rig.chores();
            }
        }
        (500..700).for_each(|second| rig.put(1, T0 + 1 + second, 9.0));
        rig.clock.advance(61 * MICROS);
        rig.chores();
        rig.check();
        assert!(rig.store().failing.load(Ordering::Acquire) & Chore::Flush as u32 != 0);
        fs::rename(&aside, &tier).unwrap();
        rig.chores();
        rig.check();
        assert!(rig.store().failing.load(Ordering::Acquire) == 0);
        rig.restart();
        rig.check();
        rig.check_tier(1, rig.now());
        rig.check_tier(2, rig.now());
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
