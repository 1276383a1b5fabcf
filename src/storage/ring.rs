//! Engines `ram`, `alloc`, `save` and `map`: one ring of 32-bit samples per metric.
//!
//! A slot's place follows from its time (`time / every mod entries`), so samples may arrive in any order and a late one
//! simply lands where it belongs. Samples are kept XOR the pattern of an empty slot: memory that was never written
//! reads as empty, not as zeros.
//!
//! `ram` and `alloc` live in memory alone. `save` reads its files when a metric is opened and writes them when told to
//! (at a clean end, on SIGUSR1, when a host or chart is let go). `map` maps its files shared, so the kernel has every
//! sample at once and keeps it when the process dies. File layout: `docs/formats/rings.md`.
//!
//! Locks: none per sample. The only writer is the dimension, under its chart's lock. A reader may meet a slot just
//! being overwritten by one a whole ring newer; `head` is raised before the slot is written, so the reader can tell.
//! The list of rings to save has a lock of its own, taken when a metric is opened and when rings are saved.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::map::{Cells, zeroed_slots};
use super::{Metric, MetricKey, Mode, Reader, StorageEngine, StorageError, Writer};
use crate::base::number::Sample;
use crate::base::sys;
use crate::base::time::{Clock, UnixSeconds, UpdateEvery};

pub struct RingEngine {
    mode: Mode,
    entries: u32,
    /// Where the files go; `None` for the modes in memory.
    directory: Option<PathBuf>,
    clock: Clock,
    /// What [`StorageEngine::save`] writes.
    to_save: Mutex<Vec<Weak<Ring>>>,
}

impl RingEngine {
    /// Rings in memory: `wanted` entries per metric, rounded as `mode` ([`Mode::Ram`] or [`Mode::Alloc`]) does.
    pub fn in_memory(mode: Mode, wanted: i64) -> Self {
        RingEngine {
            mode,
            entries: mode.entries(wanted).max(1),
            directory: None,
            clock: Clock::system(),
            to_save: Mutex::default(),
        }
    }

    /// Rings in files below `directory` ([`Mode::Save`] or [`Mode::Map`]).
    pub fn in_files(mode: Mode, wanted: i64, directory: &Path, clock: Clock) -> Self {
        let directory = Some(directory.to_owned());
        RingEngine { directory, clock, ..RingEngine::in_memory(mode, wanted) }
    }

    fn file_of(&self, key: &MetricKey) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        Some(
            directory.join(file_name(&key.chart)).join(format!("{}.db", file_name(&key.dimension))),
        )
    }
}

impl StorageEngine for RingEngine {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn entries(&self) -> u32 {
        self.entries
    }

    fn open(&self, key: &MetricKey, every: UpdateEvery) -> Result<Metric, StorageError> {
        let path = self.file_of(key);
        let opened = path
            .as_ref()
            .map(|path| Ring::in_file(self.mode, path, Head::new(key, every, self.entries)));
        let ring = match opened {
            Some(Ok(ring)) => {
                ring.leave_the_future(self.clock.now_seconds().0, path.as_deref());
                Some(ring)
            }
            Some(Err(error)) => {
                let path = path.as_deref().unwrap_or(Path::new(""));
                log::error!(
                    "cannot use '{}': {error}. Its samples are kept in memory only.",
                    path.display()
                );
                Ring::in_memory(self.entries, every)
            }
            None => Ring::in_memory(self.entries, every),
        };
        let ring = Arc::new(ring.ok_or_else(|| StorageError::OutOfMemory {
            chart: Arc::clone(&key.chart),
            dimension: Arc::clone(&key.dimension),
            entries: self.entries,
        })?);
        if self.mode == Mode::Save && ring.file.is_some() {
            let mut to_save = self.to_save.lock();
            to_save.retain(|ring| ring.strong_count() > 0);
            to_save.push(Arc::downgrade(&ring));
        }
        Ok(Metric { writer: Box::new(RingWriter::new(Arc::clone(&ring))), reader: ring })
    }

    fn reader(&self, key: &MetricKey, every: UpdateEvery) -> Option<Arc<dyn Reader>> {
        let ring = Ring::stored(&self.file_of(key)?, Head::new(key, every, self.entries))?;
        Some(Arc::new(ring))
    }

    fn save(&self) {
        let rings: Vec<Arc<Ring>> = self.to_save.lock().iter().filter_map(Weak::upgrade).collect();
        let mut failed = 0;
        for ring in rings {
            if let Err(error) = ring.save() {
                failed += 1;
                if failed == 1 {
                    let path = ring.file.as_ref().map_or(Path::new(""), |file| &file.path);
                    log::error!("cannot save '{}': {error}", path.display());
                }
            }
        }
        if failed > 1 {
            log::error!("{failed} database files could not be saved");
        }
    }

    fn delete(&self, chart: Option<&str>) {
        let Some(directory) = &self.directory else { return };
        let gone = match chart {
            Some(chart) => directory.join(file_name(chart)),
            None => directory.clone(),
        };
        match fs::remove_dir_all(&gone) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::error!("cannot delete '{}': {error}", gone.display());
            }
            _ => {}
        }
    }
}

/// A name that is safe as a file's: letters, digits, `.`, `-` and `_` stay; where anything else was replaced, or the
/// name begins with a dot, a checksum keeps different names apart.
fn file_name(name: &str) -> String {
    let clean: String = name
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"._-".contains(&b) { char::from(b) } else { '_' })
        .collect();
    let bounded: String = clean.chars().take(150).collect();
    if bounded == name && !name.starts_with('.') {
        return bounded;
    }
    format!("_{bounded}-{:08x}", crc32fast::hash(name.as_bytes()))
}

// --- files ----------------------------------------------------------------------------------------

/// Bytes before the slots.
const HEADER: usize = 400;
const MAGIC: &[u8; 8] = b"NDRSRNG1";
/// The changing words of the header: newest slot being written, newest and first slot, in seconds.
const W_HEAD: usize = 10;
const W_LAST: usize = 11;
const W_FIRST: usize = 12;

/// What a ring file says of itself and must say again when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    every: u32,
    entries: u32,
    /// Checksum of the metric's whole name.
    name: u32,
}

impl Head {
    fn new(key: &MetricKey, every: UpdateEvery, entries: u32) -> Head {
        let mut crc = crc32fast::Hasher::new();
        for part in
            [key.host.0.as_bytes().as_slice(), key.chart.as_bytes(), &[0], key.dimension.as_bytes()]
        {
            crc.update(part);
        }
        Head { every: u32::try_from(every.seconds()).unwrap_or(1), entries, name: crc.finalize() }
    }

    fn bytes(&self) -> [u8; 24] {
        let mut bytes = [0u8; 24];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&self.every.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.entries.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.name.to_le_bytes());
        let own = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    fn length(&self) -> u64 {
        (HEADER + self.entries as usize * 4) as u64
    }
}

/// The file behind a ring.
struct RingFile {
    path: PathBuf,
    head: Head,
}

/// Clocks may differ by so much without anybody's fault.
const AHEAD_MAX_S: i64 = 60;

/// Slots in a cache line.
const LINE_SLOTS: u32 = 16;

enum Slots {
    /// Small rings, and those that a file is loaded into and saved from.
    Memory(Box<[AtomicU32]>),
    /// Pages of their own, which cost nothing before they are written.
    Pages(Cells),
    /// The whole file; the slots begin after the header.
    Mapped(Cells),
}

impl Slots {
    fn cells(&self) -> &[AtomicU32] {
        match self {
            Slots::Memory(slots) => slots,
            Slots::Pages(cells) => cells.cells(),
            Slots::Mapped(cells) => &cells.cells()[HEADER / 4..],
        }
    }
}

/// The samples of one metric. Times are slot ends in seconds, multiples of `every`.
struct Ring {
    slots: Slots,
    every: i64,
    /// Place of the slot of time 0. Rings move on together: beginning all at the same place of their pages they would
    /// fight for the same few lines of the processor's cache.
    shift: i64,
    /// First slot ever stored; the readable retention may start later. 0 = nothing stored.
    first: AtomicI64,
    /// Newest slot that can be read.
    last: AtomicI64,
    /// Newest slot being written; slots a ring older than this are gone.
    head: AtomicI64,
    file: Option<RingFile>,
}

impl Ring {
    fn in_memory(entries: u32, every: UpdateEvery) -> Option<Ring> {
        const PAGE_SLOTS: u32 = 1024;
        if entries < PAGE_SLOTS {
            let slots = Slots::Memory(zeroed_slots(entries as usize)?);
            return Some(Ring::with(slots, every.seconds(), None));
        }
        static MADE: AtomicU32 = AtomicU32::new(0);
        let slots = Slots::Pages(Cells::anonymous(entries as usize).ok()?);
        let shift = i64::from(MADE.fetch_add(LINE_SLOTS, Ordering::Relaxed));
        Some(Ring { shift, ..Ring::with(slots, every.seconds(), None) })
    }

    fn with(slots: Slots, every: i64, file: Option<RingFile>) -> Ring {
        let zero = || AtomicI64::new(0);
        Ring { slots, every, shift: 0, first: zero(), last: zero(), head: zero(), file }
    }

    /// The ring a file holds, or an empty one where there is none, or none that fits.
    fn in_file(mode: Mode, path: &Path, head: Head) -> io::Result<Ring> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o660)
            .open(path)?;
        let good = match check(&file, head) {
            Ok(known) => known,
            Err(why) => {
                log::error!("database file '{}' {why}. Clearing it.", path.display());
                false
            }
        };
        let every = i64::from(head.every);
        let own = Some(RingFile { path: path.to_owned(), head });
        if mode == Mode::Map {
            if !good {
                file.set_len(0)?;
            }
            // Also one that is there: a copy may have holes, which a full disk could not fill.
            sys::allocate(&file, head.length())?;
            if !good {
                file.write_all_at(&head.bytes(), 0)?;
            }
            let cells = Cells::map(&file, HEADER / 4 + head.entries as usize)?;
            let ring = Ring::with(Slots::Mapped(cells), every, own);
            ring.take_times();
            return Ok(ring);
        }
        let slots = zeroed_slots(head.entries as usize).ok_or(io::ErrorKind::OutOfMemory)?;
        let ring = Ring::with(Slots::Memory(slots), every, own);
        if good {
            ring.load(&file)?;
        }
        Ok(ring)
    }

    /// A copy of what a file holds, if it is the ring that is wanted.
    fn stored(path: &Path, head: Head) -> Option<Ring> {
        let file = File::open(path).ok()?;
        if check(&file, head) != Ok(true) {
            return None;
        }
        let slots = Slots::Memory(zeroed_slots(head.entries as usize)?);
        let ring = Ring::with(slots, i64::from(head.every), None);
        ring.load(&file).ok()?;
        Some(ring)
    }

    /// Fills a ring that is still empty from a file of its size.
    fn load(&self, file: &File) -> io::Result<()> {
        let mut bytes = vec![0u8; HEADER + self.slots.cells().len() * 4];
        file.read_exact_at(&mut bytes, 0)?;
        let word = |at: usize| {
            bytes
                .get(at * 4..)
                .and_then(<[u8]>::first_chunk)
                .map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        for (number, slot) in self.slots.cells().iter().enumerate() {
            slot.store(word(HEADER / 4 + number), Ordering::Relaxed);
        }
        self.set_times(word(W_HEAD), word(W_LAST), word(W_FIRST));
        Ok(())
    }

    /// After a crash between a slot and its time, the time is the older: at worst the newest sample is forgotten.
    fn set_times(&self, head: u32, last: u32, first: u32) {
        let (head, last, first) = (i64::from(head), i64::from(last), i64::from(first));
        let believable =
            last % self.every == 0 && first % self.every == 0 && first <= last && last <= head;
        if !believable {
            return;
        }
        self.first.store(first, Ordering::Release);
        self.last.store(last, Ordering::Release);
        self.head.store(head, Ordering::Release);
    }

    fn take_times(&self) {
        if let Slots::Mapped(cells) = &self.slots {
            let word = |at: usize| u32::from_le(cells.cells()[at].load(Ordering::Acquire));
            self.set_times(word(W_HEAD), word(W_LAST), word(W_FIRST));
        }
    }

    /// Writes the whole ring to its file, completely or not at all.
    fn save(&self) -> io::Result<()> {
        let Some(RingFile { path, head }) = &self.file else { return Ok(()) };
        let mut bytes = vec![0u8; HEADER];
        bytes[..24].copy_from_slice(&head.bytes());
        for (at, time) in [(W_HEAD, &self.head), (W_LAST, &self.last), (W_FIRST, &self.first)] {
            let seconds = u32::try_from(time.load(Ordering::Acquire)).unwrap_or(0);
            bytes[at * 4..at * 4 + 4].copy_from_slice(&seconds.to_le_bytes());
        }
        for slot in self.slots.cells() {
            bytes.extend_from_slice(&slot.load(Ordering::Acquire).to_le_bytes());
        }
        let temporary = path.with_extension("db.tmp");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o660)
            .open(&temporary)?;
        if let Err(error) = file.write_all_at(&bytes, 0) {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, path)
    }

    /// Notes a time, in the header too where that is mapped.
    fn note(&self, word: usize, time: &AtomicI64, at: i64) {
        time.store(at, Ordering::Release);
        if let Slots::Mapped(cells) = &self.slots {
            cells.cells()[word].store(u32::try_from(at).unwrap_or(0).to_le(), Ordering::Release);
        }
    }

    fn span(&self) -> i64 {
        self.every.saturating_mul(self.slots.cells().len() as i64)
    }

    fn index(&self, at: i64) -> usize {
        let number = at.div_euclid(self.every).saturating_add(self.shift);
        number.rem_euclid(self.slots.cells().len() as i64) as usize
    }

    fn slot(&self, at: i64) -> &AtomicU32 {
        &self.slots.cells()[self.index(at)]
    }

    fn put(&self, at: i64, sample: Sample) {
        self.slot(at).store(sample.0 ^ Sample::EMPTY.0, Ordering::Release);
    }

    fn store(&self, at: i64, sample: Sample) {
        let at = at - at.rem_euclid(self.every);
        let last = self.last.load(Ordering::Relaxed);
        if at <= 0 {
            return;
        }
        if last == 0 {
            self.note(W_HEAD, &self.head, at);
            self.put(at, sample);
            self.note(W_FIRST, &self.first, at);
            self.note(W_LAST, &self.last, at);
        } else if at > last {
            self.note(W_HEAD, &self.head, at);
            let skipped_from = (last + self.every).max(at - self.span() + self.every);
            let mut skipped = skipped_from;
            while skipped < at {
                self.put(skipped, Sample::EMPTY);
                skipped += self.every;
            }
            self.put(at, sample);
            self.note(W_LAST, &self.last, at);
        } else if at > last - self.span() {
            self.put(at, sample);
            if at < self.first.load(Ordering::Relaxed) {
                self.note(W_FIRST, &self.first, at);
            }
        }
    }

    /// A file that was written while the clock was ahead would keep what comes now out. What is after `now` goes.
    fn leave_the_future(&self, now: i64, path: Option<&Path>) {
        let (last, limit) = (self.last.load(Ordering::Relaxed), now - now.rem_euclid(self.every));
        if last <= now.saturating_add(AHEAD_MAX_S) {
            return;
        }
        log::error!(
            "database file '{}' has samples of the future, up to {last}: they are dropped",
            path.unwrap_or(Path::new("")).display()
        );
        if self.first.load(Ordering::Relaxed) > limit || last - limit >= self.span() {
            return self.clear();
        }
        let mut at = limit + self.every;
        while at <= last {
            self.put(at, Sample::EMPTY);
            at += self.every;
        }
        self.note(W_LAST, &self.last, limit);
        self.note(W_HEAD, &self.head, limit);
    }

    fn clear(&self) {
        self.note(W_FIRST, &self.first, 0);
        self.note(W_LAST, &self.last, 0);
        self.note(W_HEAD, &self.head, 0);
        for slot in self.slots.cells() {
            if slot.load(Ordering::Relaxed) != 0 {
                slot.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// Whether an existing file is the ring that is wanted; `Err` says why it is not.
fn check(file: &File, head: Head) -> Result<bool, &'static str> {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    if length == 0 {
        return Ok(false);
    }
    let mut bytes = [0u8; 24];
    if length != head.length() {
        return Err("has another size than it should");
    }
    file.read_exact_at(&mut bytes, 0).map_err(|_| "cannot be read")?;
    if bytes == head.bytes() {
        return Ok(true);
    }
    if &bytes[..8] != MAGIC || crc32fast::hash(&bytes[..20]).to_le_bytes() != bytes[20..] {
        return Err("has a damaged header");
    }
    Err("is of another metric or interval")
}

/// Samples mostly go to the slot after the newest one, so its time and place are kept ready.
struct RingWriter {
    ring: Arc<Ring>,
    /// Time of the slot after the newest one; 0 = not known.
    next: i64,
    next_index: usize,
}

impl RingWriter {
    fn new(ring: Arc<Ring>) -> RingWriter {
        RingWriter { ring, next: 0, next_index: 0 }
    }

    fn store_elsewhere(&mut self, at: i64, sample: Sample) {
        self.ring.store(at, sample);
        let last = self.ring.last.load(Ordering::Relaxed);
        if last != 0 {
            self.next = last.saturating_add(self.ring.every);
            self.next_index = self.ring.index(self.next);
        }
    }
}

impl Writer for RingWriter {
    fn store(&mut self, at: UnixSeconds, sample: Sample) {
        let ring = &*self.ring;
        let slots = ring.slots.cells();
        let ready = at.0 == self.next && at.0 != 0;
        let Some(slot) = slots.get(self.next_index).filter(|_| ready) else {
            return self.store_elsewhere(at.0, sample);
        };
        ring.note(W_HEAD, &ring.head, at.0);
        slot.store(sample.0 ^ Sample::EMPTY.0, Ordering::Release);
        ring.note(W_LAST, &ring.last, at.0);
        self.next = at.0.saturating_add(ring.every);
        self.next_index = if self.next_index + 1 == slots.len() { 0 } else { self.next_index + 1 };
    }

    fn clear(&mut self) {
        self.ring.clear();
        self.next = 0;
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
        let (cells, span) = (self.slots.cells(), self.span());
        // One division for the first place, none for those that follow.
        let mut place = self.index(at);
        while at <= end {
            let sample = Sample(cells[place].load(Ordering::Acquire) ^ Sample::EMPTY.0);
            let overwritten = at <= self.head.load(Ordering::Acquire) - span;
            visit(UnixSeconds(at), if overwritten { Sample::EMPTY } else { sample });
            at += self.every;
            place = if place + 1 == cells.len() { 0 } else { place + 1 };
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
        RingEngine::in_memory(Mode::Alloc, entries).open(&key, UpdateEvery::clamped(every)).unwrap()
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

    fn key(dimension: &str) -> MetricKey {
        MetricKey {
            host: MachineGuid(uuid::Uuid::from_u128(5)),
            chart: "a.b/c".into(),
            dimension: dimension.into(),
        }
    }

    #[test]
    fn map_survives_without_a_word_and_save_when_told() {
        for mode in [Mode::Map, Mode::Save] {
            let dir = tempfile::tempdir().unwrap();
            let engine = RingEngine::in_files(mode, 50, dir.path(), Clock::system());
            let mut metric = engine.open(&key("x y"), UpdateEvery::SECOND).unwrap();
            for at in 100..110 {
                metric.writer.store(UnixSeconds(at), Sample::normal(at as f64));
            }
            if mode == Mode::Save {
                engine.save();
            }
            drop((metric, engine));
            let engine = RingEngine::in_files(mode, 50, dir.path(), Clock::system());
            let reader = engine.reader(&key("x y"), UpdateEvery::SECOND).unwrap();
            assert_eq!(reader.retention(), Some((UnixSeconds(100), UnixSeconds(109))));
            assert!(engine.reader(&key("x y"), UpdateEvery::clamped(2)).is_none());
            assert!(engine.reader(&key("other"), UpdateEvery::SECOND).is_none());
            let mut metric = engine.open(&key("x y"), UpdateEvery::SECOND).unwrap();
            assert_eq!(
                slots(&metric, 0, 200),
                (100..110).map(|at| (at, Some(at as f64))).collect::<Vec<_>>()
            );
            metric.writer.store(UnixSeconds(112), Sample::normal(1.0));
            assert_eq!(slots(&metric, 109, 200), [(110, None), (111, None), (112, Some(1.0))]);
        }
    }

    /// A whole ring and its first slots again, so that every slot was written, 0 and 1 twice.
    #[test]
    fn loading_touches_no_slot_and_version_1_is_read_back() {
        for (mode, name) in [(Mode::Map, "map"), (Mode::Save, "save")] {
            let entries = i64::from(mode.entries(50));
            let all: Vec<_> =
                (4..entries + 4).map(|slot| (slot * 2, Some(slot as f64 / 4.0))).collect();
            let dir = tempfile::tempdir().unwrap();
            let engine = RingEngine::in_files(mode, 50, dir.path(), Clock::system());
            let every = UpdateEvery::clamped(2);
            let mut metric = engine.open(&key("x y"), every).unwrap();
            for slot in 1..entries + 4 {
                metric.writer.store(UnixSeconds(slot * 2), Sample::normal(slot as f64 / 4.0));
            }
            engine.save();
            drop((metric, engine));
            super::super::fixtures::keep(name, dir.path());
            let fixture = tempfile::tempdir().unwrap();
            super::super::fixtures::unpack(name, fixture.path());
            for directory in [dir.path(), fixture.path()] {
                let engine = RingEngine::in_files(mode, 50, directory, Clock::system());
                let metric = engine.open(&key("x y"), every).unwrap();
                assert_eq!(slots(&metric, 0, 1_000_000), all);
            }
        }
    }

    #[test]
    fn a_file_that_does_not_fit_starts_afresh_alone() {
        let spoil: [fn(&Path); 3] = [
            |path| fs::write(path, b"nonsense").unwrap(),
            |path| OpenOptions::new().write(true).open(path).unwrap().set_len(1000).unwrap(),
            |path| {
                OpenOptions::new().write(true).open(path).unwrap().write_all_at(&[9], 9).unwrap()
            },
        ];
        for spoil in spoil {
            let dir = tempfile::tempdir().unwrap();
            let engine = RingEngine::in_files(Mode::Map, 50, dir.path(), Clock::system());
            for name in ["a", "b"] {
                let mut metric = engine.open(&key(name), UpdateEvery::SECOND).unwrap();
                metric.writer.store(UnixSeconds(100), Sample::normal(1.0));
            }
            spoil(&engine.file_of(&key("a")).unwrap());
            let held =
                |name| slots(&engine.open(&key(name), UpdateEvery::SECOND).unwrap(), 0, 200).len();
            assert_eq!((held("a"), held("b")), (0, 1));
        }
        let dir = tempfile::tempdir().unwrap();
        let engine = RingEngine::in_files(Mode::Map, 50, dir.path(), Clock::system());
        engine
            .open(&key("a"), UpdateEvery::SECOND)
            .unwrap()
            .writer
            .store(UnixSeconds(100), Sample::normal(1.0));
        assert_eq!(slots(&engine.open(&key("a"), UpdateEvery::clamped(10)).unwrap(), 0, 200), []);
    }

    #[test]
    fn a_clock_that_was_ahead_costs_only_what_was_ahead() {
        const NOW: i64 = 1_000_000;
        for mode in [Mode::Map, Mode::Save] {
            for ahead in [0, 40, 61, 70, 100_000] {
                let dir = tempfile::tempdir().unwrap();
                let clock = Clock::manual(crate::base::time::UnixMicros(NOW * 1_000_000));
                let open = || {
                    let engine = RingEngine::in_files(mode, 1000, dir.path(), clock.clone());
                    let metric = engine.open(&key("a"), UpdateEvery::SECOND).unwrap();
                    (engine, metric)
                };
                let (engine, mut metric) = open();
                for at in NOW - 19..=NOW {
                    metric.writer.store(UnixSeconds(at + ahead), Sample::normal(1.0));
                }
                engine.save();
                drop((engine, metric));
                let (_, mut metric) = open();
                let held = slots(&metric, 0, NOW * 2).into_iter().filter(|(_, v)| v.is_some());
                let past = 20 - ahead.min(20);
                let kept = if ahead > AHEAD_MAX_S { past } else { 20 };
                assert_eq!(held.count() as i64, kept, "{ahead} s ahead");
                metric.writer.store(UnixSeconds(NOW + 1), Sample::normal(2.0));
                let now = slots(&metric, NOW, NOW + 1);
                assert_eq!(now, [(NOW + 1, Some(2.0))], "{ahead} s ahead");
            }
        }
    }

    #[test]
    fn different_names_never_share_a_file() {
        let names = ["a b", "a_b", "a/b", ".", "..", "../x", "a"];
        let files: std::collections::BTreeSet<_> =
            names.iter().map(|name| file_name(name)).collect();
        assert_eq!(files.len(), names.len());
        assert!(files.iter().all(|file| !file.contains('/') && !file.starts_with('.')));
    }
}
