//! Samples that come too late for their row: replicated spans, bursts after a stalled link, clocks gone back.
//!
//! They are kept in memory, by metric, and in logs (`late-NUMBER.log`), from which a restart reads them again; once there
//! are many, or the oldest has waited long enough, the flush thread turns them into segments. Each flush closes the log
//! it takes over, and the logs whose samples are in segments are removed: no log is ever copied or written in place, so
//! there is nothing a crash could leave half done but the last batch.
//!
//! Two locks: one over the samples, taken per late sample and never held during a disk write (samples on time never come
//! here), and one over the files, taken by the service threads alone. Layout: `docs/formats/dbengine.md`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

use super::codec::{self, Damaged, Input};
use super::files;
use crate::base::number::Sample;

/// Of batches of whole records, which earlier versions wrote, and of short ones.
const MAGIC_WHOLE: u32 = 0x4E44_4C31;
const MAGIC: u32 = 0x4E44_4C32;
const BATCH_HEADER: usize = 12;
const WHOLE_RECORD: usize = 16;
/// Bytes of the records of a batch.
const BATCH_MAX: usize = 64 * 1024;
/// A short record is never longer.
const RECORD_MAX: usize = 1 + 4 * 10 + 4;
/// Memory for records that stays between two writes.
const PENDING_KEPT: usize = 1 << 20;
/// Samples that ask for a flush.
pub(super) const FLUSH_AT: usize = 1 << 20;
/// A burst of at least so many that is over is flushed at once, so that higher tiers have it soon.
const BURST: usize = 1000;
const BURST_OVER_US: i64 = 1_000_000;
/// Samples kept; a flood that outruns the flush thread waits for it so long, once. While no flush succeeds, later ones are
/// dropped and counted.
const SAMPLES_MAX: usize = 4 << 20;
const WAIT_MAX: Duration = Duration::from_secs(2);

/// A metric at one interval.
pub(super) type Series = (u32, u32);
pub(super) type Samples = FxHashMap<Series, Vec<(u32, Sample)>>;

pub(super) struct Late {
    files: Mutex<Files>,
    state: Mutex<State>,
    /// Told when the samples held become fewer.
    room: Condvar,
}

#[derive(Default)]
struct State {
    samples: Samples,
    count: usize,
    /// Handed to the flush thread, still to be seen by readers.
    flushing: Arc<Samples>,
    /// Records not in the log yet.
    pending: Records,
    dropped: u64,
    /// Waiting was in vain, or the last flush failed.
    stuck: bool,
    /// Samples taken in so far, and what of them was seen when somebody last looked: looking at the clock per sample
    /// costs more than the sample.
    added: u64,
    seen: u64,
    /// Monotonic microseconds: when the oldest sample was first seen, and the newest.
    since: Option<i64>,
    newest_us: i64,
}

struct Files {
    directory: PathBuf,
    /// The log being written and how long it is; made with the first batch.
    log: Option<(File, u64)>,
    /// Number of that log, or of the next.
    number: u64,
    /// The batch being written.
    batch: Vec<u8>,
    /// Something was written since the last sync.
    dirty: bool,
    /// Closed before they were synced.
    unsynced: Vec<File>,
    /// Closed logs, and whether all of their samples are in segments.
    closed: Vec<(PathBuf, bool)>,
}

impl Late {
    /// Reads again what an earlier run logged and did not flush.
    pub(super) fn open(directory: &Path) -> io::Result<Late> {
        let mut logs = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(number) = name.and_then(files::late_number) {
                logs.push((number, path));
            }
        }
        logs.sort_unstable();
        let mut state = State::default();
        for (_, path) in &logs {
            match fs::read(path) {
                Ok(bytes) => {
                    let damaged = state.read(&bytes);
                    if damaged > 0 {
                        log::error!(
                            "DBENGINE: '{}' is damaged: {damaged} of its {} bytes do not hold, their late samples are lost",
                            path.display(),
                            bytes.len()
                        );
                    }
                }
                Err(error) => log::error!("DBENGINE: cannot read '{}': {error}", path.display()),
            }
        }
        if state.count > 0 {
            // Flushed at the first opportunity.
            state.since = Some(i64::MIN / 2);
        }
        let files = Files {
            directory: directory.to_owned(),
            log: None,
            batch: Vec::new(),
            number: logs.last().map_or(0, |(number, _)| number + 1),
            dirty: false,
            // Whoever wrote them may have been killed before they were.
            unsynced: logs.iter().filter_map(|(_, path)| File::open(path).ok()).collect(),
            closed: logs.into_iter().map(|(_, path)| (path, false)).collect(),
        };
        Ok(Late { files: Mutex::new(files), state: Mutex::new(state), room: Condvar::new() })
    }

    /// The highest metric number among the samples held.
    pub(super) fn highest_metric(&self) -> u32 {
        self.state.lock().samples.keys().map(|&(metric, _)| metric).max().unwrap_or(0)
    }

    pub(super) fn add(&self, (metric, every): Series, time: u32, sample: Sample) {
        let mut state = self.state.lock();
        if state.count >= SAMPLES_MAX {
            if !state.stuck {
                let full = |state: &mut State| state.count >= SAMPLES_MAX && !state.stuck;
                self.room.wait_while_for(&mut state, full, WAIT_MAX);
            }
            if state.count >= SAMPLES_MAX {
                state.stuck = true;
                state.dropped += 1;
                return;
            }
        }
        state.pending.put(Place { metric, every, time }, sample);
        state.insert((metric, every), time, sample);
        state.added += 1;
    }

    /// Calls `visit` for the late samples of a series, in order of arrival.
    pub(super) fn read(&self, series: Series, visit: &mut dyn FnMut(u32, Sample)) {
        let state = self.state.lock();
        for samples in
            [state.flushing.get(&series), state.samples.get(&series)].into_iter().flatten()
        {
            for &(time, sample) in samples {
                visit(time, sample);
            }
        }
    }

    /// Puts what came since the last time into the log.
    pub(super) fn write(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        let mut pending = std::mem::take(&mut self.state.lock().pending);
        if pending.is_empty() {
            return Ok(());
        }
        let written = files.append(&pending);
        let mut state = self.state.lock();
        if written.is_err() {
            // Tried again next time, in the order of arrival.
            let newer = std::mem::replace(&mut state.pending, pending);
            state.pending.append(newer);
        } else if state.pending.is_empty() && pending.bytes.capacity() <= PENDING_KEPT {
            pending.clear();
            state.pending = pending;
        }
        written
    }

    /// Puts the logs on the disk. Their names are the caller's business.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut due = {
            let mut files = self.files.lock();
            // First what can fail: what is due stays due then.
            let current = match &files.log {
                Some((log, _)) if files.dirty => Some(log.try_clone()?),
                _ => None,
            };
            files.dirty = false;
            let mut due = std::mem::take(&mut files.unsynced);
            due.extend(current);
            due
        };
        while let Some(log) = due.last() {
            if let Err(error) = log.sync_data() {
                self.files.lock().unsynced.append(&mut due);
                return Err(error);
            }
            due.pop();
        }
        Ok(())
    }

    /// Samples dropped since last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.state.lock().dropped)
    }

    /// So many that a flush should not wait for its hour.
    pub(super) fn is_large(&self) -> bool {
        self.state.lock().count >= FLUSH_AT
    }

    /// Samples were added in this run.
    pub(super) fn has_grown(&self) -> bool {
        self.state.lock().added > 0
    }

    /// Many, or a burst that is over, or waiting for `age_us`.
    pub(super) fn wants_flush(&self, now_us: i64, age_us: i64) -> bool {
        let mut state = self.state.lock();
        if state.count == 0 {
            return false;
        }
        if state.seen != state.added {
            (state.seen, state.newest_us) = (state.added, now_us);
            state.since.get_or_insert(now_us);
        }
        let burst_over = state.count >= BURST && now_us - state.newest_us >= BURST_OVER_US;
        let waited = |since: i64| now_us.saturating_sub(since) >= age_us;
        state.count >= FLUSH_AT || burst_over || state.since.is_some_and(waited)
    }

    /// Hands everything to the flush thread, which answers with [`Late::flushed`] or [`Late::failed`]. The log is closed;
    /// one that takes no writes is no obstacle, since what is taken is on its way to a segment.
    pub(super) fn take(&self) -> Arc<Samples> {
        // Logged even so: it is in the log until the tiers above are up to it.
        let _ = self.write();
        self.files.lock().close_log();
        let mut state = self.state.lock();
        state.flushing = Arc::new(std::mem::take(&mut state.samples));
        if !state.stuck {
            // What the disk does not take comes back, so it counts until it has taken it.
            state.count = 0;
        }
        state.since = None;
        self.room.notify_all();
        Arc::clone(&state.flushing)
    }

    /// All that was taken is in segments.
    pub(super) fn flushed(&self) {
        let mut files = self.files.lock();
        for (_, flushed) in &mut files.closed {
            *flushed = true;
        }
        let mut state = self.state.lock();
        state.flushing = Arc::default();
        state.stuck = false;
        state.count = state.samples.values().map(Vec::len).sum();
    }

    /// What `is_done` does not say to be in a segment is taken back.
    pub(super) fn failed(&self, now_us: i64, is_done: &dyn Fn(Series, u32) -> bool) {
        let mut state = self.state.lock();
        let back = std::mem::take(&mut state.flushing);
        let newer = std::mem::take(&mut state.samples);
        state.count = 0;
        for (&series, samples) in &*back {
            for &(time, sample) in samples {
                if !is_done(series, time) {
                    state.insert(series, time, sample);
                }
            }
        }
        for (series, samples) in newer {
            for (time, sample) in samples {
                state.insert(series, time, sample);
            }
        }
        state.since = Some(now_us);
        state.stuck = true;
        self.room.notify_all();
    }

    /// Removes the logs whose samples are in segments, and the tiers above brought up to them.
    pub(super) fn drop_flushed(&self) {
        let gone: Vec<PathBuf> = {
            let mut files = self.files.lock();
            let closed = std::mem::take(&mut files.closed);
            let (gone, kept) = closed.into_iter().partition(|&(_, flushed)| flushed);
            files.closed = kept;
            gone
        }
        .into_iter()
        .map(|(path, _): (PathBuf, bool)| path)
        .collect();
        for path in gone {
            if let Err(error) = fs::remove_file(&path) {
                log::error!("DBENGINE: cannot remove '{}': {error}", path.display());
            }
        }
    }
}

impl Files {
    fn append(&mut self, records: &Records) -> io::Result<()> {
        if self.log.is_none() {
            let path = self.directory.join(files::late_name(self.number));
            self.log = Some((files::create(&path)?, 0));
        }
        let Some((log, length)) = &mut self.log else { return Ok(()) };
        let mut written = 0;
        for records in records.batches() {
            put_batch(records, &mut self.batch);
            if let Err(error) = log.write_all(&self.batch) {
                // Half a batch costs nothing where it stays (reading goes on after it), but what is written again is there.
                let _ = log.set_len(*length);
                *length = io::Seek::seek(log, io::SeekFrom::End(0)).unwrap_or(*length);
                return Err(error);
            }
            written += self.batch.len() as u64;
        }
        *length += written;
        self.dirty = true;
        Ok(())
    }

    fn close_log(&mut self) {
        if let Some((log, _)) = self.log.take() {
            self.closed.push((self.directory.join(files::late_name(self.number)), false));
            self.number += 1;
            if std::mem::take(&mut self.dirty) {
                self.unsynced.push(log);
            }
        }
    }
}

impl State {
    fn insert(&mut self, series: Series, time: u32, sample: Sample) {
        self.samples.entry(series).or_default().push((time, sample));
        self.count += 1;
    }

    /// Takes in a log; gives how many of its bytes belong to no whole batch. Reading goes on after them.
    fn read(&mut self, bytes: &[u8]) -> usize {
        let (mut at, mut damaged) = (0, 0);
        while at < bytes.len() {
            if let Some((magic, records)) = batch_at(bytes, at) {
                let mut put = |place: Place, sample| {
                    if place.every > 0 {
                        self.insert((place.metric, place.every), place.time, sample);
                    }
                };
                if magic == MAGIC {
                    short_records(records, &mut put);
                } else {
                    whole_records(records, &mut put);
                }
                at += BATCH_HEADER + records.len();
                continue;
            }
            let rest = &bytes[at + 1..];
            let skipped = next_magic(rest).map_or(bytes.len() - at, |next| next + 1);
            damaged += skipped;
            at += skipped;
        }
        damaged
    }
}

/// Magic and records of the batch that begins at a byte, if there is one and it is whole.
fn batch_at(bytes: &[u8], at: usize) -> Option<(u32, &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (magic, length) = (word(at)?, word(at + 4)? as usize);
    if !matches!(magic, MAGIC | MAGIC_WHOLE) || length > BATCH_MAX {
        return None;
    }
    let records = bytes.get(at + BATCH_HEADER..at + BATCH_HEADER + length)?;
    (crc32fast::hash(records) == word(at + 8)?).then_some((magic, records))
}

/// Where a batch may begin next.
fn next_magic(bytes: &[u8]) -> Option<usize> {
    // They differ in their first byte only.
    let rest = &MAGIC.to_le_bytes()[1..];
    let firsts = [MAGIC, MAGIC_WHOLE].map(|magic| magic.to_le_bytes()[0]);
    memchr::memmem::find_iter(bytes, rest)
        .filter_map(|at| at.checked_sub(1))
        .find(|&at| firsts.contains(&bytes[at]))
}

/// The slot of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    metric: u32,
    every: u32,
    time: u32,
}

/// Records as the log has them: each says how its place differs from the one before, the first of a batch from zeros. Samples
/// come chart by chart and second by second, so that is a byte mostly.
#[derive(Debug, Default)]
struct Records {
    bytes: Vec<u8>,
    /// Where batches end, but for the last.
    ends: Vec<usize>,
    last: Place,
}

/// The interval is another one than before, and follows; the time likewise.
const NEW_EVERY: u8 = 1;
const NEW_TIME: u8 = 2;
/// Above them stands by how much the metric's number grew, or that the difference follows.
const STEP: u8 = 2;
const FAR: u8 = 63;

impl Records {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.last = Place::default();
    }

    fn end_batch(&mut self) {
        self.ends.push(self.bytes.len());
        self.last = Place::default();
    }

    #[inline]
    fn put(&mut self, place: Place, sample: Sample) {
        if self.bytes.len() + RECORD_MAX > self.ends.last().unwrap_or(&0) + BATCH_MAX {
            self.end_batch();
        }
        let last = std::mem::replace(&mut self.last, place);
        let step = place.metric.wrapping_sub(last.metric);
        let near = u8::try_from(step).ok().filter(|step| *step < FAR);
        let mut head = near.unwrap_or(FAR) << STEP;
        head |= u8::from(place.every != last.every) * NEW_EVERY;
        head |= u8::from(place.time != last.time) * NEW_TIME;
        self.bytes.push(head);
        if near.is_none() {
            codec::write_varint(u64::from(place.metric), &mut self.bytes);
        }
        if head & NEW_EVERY != 0 {
            codec::write_varint(u64::from(place.every), &mut self.bytes);
        }
        if head & NEW_TIME != 0 {
            codec::write_varint(u64::from(place.time), &mut self.bytes);
        }
        self.bytes.extend_from_slice(&sample.0.to_le_bytes());
    }

    /// Adds what came after it.
    fn append(&mut self, newer: Records) {
        if !self.is_empty() {
            self.end_batch();
        }
        let from = self.bytes.len();
        self.bytes.extend_from_slice(&newer.bytes);
        self.ends.extend(newer.ends.iter().map(|end| from + end));
        self.last = newer.last;
    }

    fn batches(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let ends = self.ends.iter().copied().chain([self.bytes.len()]);
        begins.zip(ends).filter_map(|(from, to)| self.bytes.get(from..to)).filter(|b| !b.is_empty())
    }
}

/// Visits the records of a batch up to the first that makes no sense, which a checksum that holds leaves no room for.
fn short_records(records: &[u8], put: &mut dyn FnMut(Place, Sample)) {
    let mut input = Input(records);
    let mut place = Place::default();
    let mut next = || -> Result<(Place, Sample), Damaged> {
        let head = input.byte()?;
        let mut number = || u32::try_from(input.varint()?).map_err(|_| Damaged);
        place.metric = match head >> STEP {
            FAR => number()?,
            step => place.metric.wrapping_add(u32::from(step)),
        };
        if head & NEW_EVERY != 0 {
            place.every = number()?;
        }
        if head & NEW_TIME != 0 {
            place.time = number()?;
        }
        Ok((place, Sample(u32::from_le_bytes(input.array()?))))
    };
    while let Ok((place, sample)) = next() {
        put(place, sample);
    }
}

fn whole_records(records: &[u8], put: &mut dyn FnMut(Place, Sample)) {
    for record in records.chunks_exact(WHOLE_RECORD) {
        let field =
            |i: usize| u32::from_le_bytes([record[i], record[i + 1], record[i + 2], record[i + 3]]);
        put(Place { metric: field(0), every: field(4), time: field(8) }, Sample(field(12)));
    }
}

/// The batch that these records are.
fn put_batch(records: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&u32::try_from(records.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(records).to_le_bytes());
    out.extend_from_slice(records);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(late: &Late) -> Vec<(u32, Sample)> {
        let mut seen = Vec::new();
        late.read((1, 1), &mut |time, sample| seen.push((time, sample)));
        seen.sort_by_key(|(time, _)| *time);
        seen
    }

    fn logs(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn logged_samples_are_there_after_a_restart_until_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let sample = Sample::normal(4.0);
        {
            let late = Late::open(dir.path()).unwrap();
            late.add((1, 1), 100, sample);
            late.write().unwrap();
            late.take();
            late.add((1, 1), 101, sample);
            late.write().unwrap();
            assert_eq!(seen(&late), [(100, sample), (101, sample)]);
        }
        {
            let late = Late::open(dir.path()).unwrap();
            assert_eq!(seen(&late), [(100, sample), (101, sample)]);
            assert!(late.wants_flush(0, 1_000_000));
            assert_eq!(late.highest_metric(), 1);
        }
        let late = Late::open(dir.path()).unwrap();
        late.take();
        late.flushed();
        assert_eq!(logs(dir.path()), 2, "kept until the tiers above are up to date");
        late.drop_flushed();
        drop(late);
        assert_eq!(logs(dir.path()), 0);
        assert_eq!(seen(&Late::open(dir.path()).unwrap()), []);
    }

    #[test]
    fn a_failed_flush_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let late = Late::open(dir.path()).unwrap();
        late.add((1, 1), 99, Sample::normal(0.0));
        late.add((1, 1), 100, Sample::normal(1.0));
        late.take();
        late.add((1, 1), 101, Sample::normal(2.0));
        late.failed(0, &|_, time| time == 99);
        late.drop_flushed();
        assert_eq!(seen(&late), [(100, Sample::normal(1.0)), (101, Sample::normal(2.0))]);
        late.take();
        drop(late);
        assert_eq!(seen(&Late::open(dir.path()).unwrap()).len(), 3);
    }

    proptest! {
        #[test]
        fn records_come_back_from_every_batch(
            records in proptest::collection::vec((any::<u32>(), 0u32..3, 0u32..4, any::<u32>()), 0..300),
            cut in 0usize..300,
        ) {
            let mut written = [Records::default(), Records::default()];
            let mut places = Vec::new();
            for (number, &(far, near, every, sample)) in records.iter().enumerate() {
                // runs of neighbours, and leaps
                let metric = if near > 0 { number as u32 + near } else { far };
                let place = Place { metric, every: every + 1, time: 1_700_000_000 + every };
                written[usize::from(number >= cut)].put(place, Sample(sample));
                places.push((place, Sample(sample)));
            }
            let [mut all, newer] = written;
            all.append(newer);
            let mut seen = Vec::new();
            for batch in all.batches() {
                prop_assert!(batch.len() <= BATCH_MAX);
                short_records(batch, &mut |place, sample| seen.push((place, sample)));
            }
            prop_assert_eq!(seen, places);
        }

        #[test]
        fn no_bytes_make_a_log_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut batch = Vec::new();
            put_batch(&bytes, &mut batch);
            batch.extend_from_slice(&bytes);
            State::default().read(&batch);
            State::default().read(&bytes);
        }
    }

    /// Logs are bytes on disks: these stay readable.
    #[test]
    fn batches_of_both_kinds_are_read_for_ever() {
        let whole = [7u32, 1, 1_700_000_001, 0x0110_0000, 8, 10, 1_700_000_010, 0x0120_0000];
        let whole: Vec<u8> = whole.iter().flat_map(|word| word.to_le_bytes()).collect();
        let short = [
            0x1F, 1, 0x81, 0xE2, 0xCF, 0xAA, 0x06, 0, 0, 0x10, 0x01, // 7 every 1 at …001
            0x07, 10, 0x8A, 0xE2, 0xCF, 0xAA, 0x06, 0, 0, 0x20, 0x01, // 8 every 10 at …010
        ];
        for (magic, records) in [(MAGIC_WHOLE, &whole[..]), (MAGIC, &short[..])] {
            let mut bytes = Vec::new();
            put_batch(records, &mut bytes);
            bytes[..4].copy_from_slice(&magic.to_le_bytes());
            let mut state = State::default();
            assert_eq!(state.read(&[&bytes[3..], &bytes[..]].concat()), bytes.len() - 3);
            assert_eq!(state.samples[&(7, 1)], [(1_700_000_001, Sample(0x0110_0000))]);
            assert_eq!(state.samples[&(8, 10)], [(1_700_000_010, Sample(0x0120_0000))]);
        }
        let mut records = Records::default();
        for (metric, every, time, sample) in
            [(7, 1, 1_700_000_001, 0x0110_0000), (8, 10, 1_700_000_010, 0x0120_0000)]
        {
            records.put(Place { metric, every, time }, Sample(sample));
        }
        assert_eq!(records.bytes, short);
    }

    #[test]
    fn a_torn_end_costs_the_last_batch_and_a_flipped_bit_its_own() {
        // head, metric by a step, interval, time, sample
        let one = BATCH_HEADER + 1 + 1 + 1 + 4;
        for (spoil, left) in [
            (
                (|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 3)) as fn(&mut Vec<u8>),
                [100, 101],
            ),
            (|bytes| bytes[2 * BATCH_HEADER + 7 + 5] ^= 4, [100, 102]),
            (|bytes| bytes[..5].fill(0), [101, 102]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let late = Late::open(dir.path()).unwrap();
            for time in 100..103 {
                late.add((1, 1), time, Sample::normal(1.0));
                late.write().unwrap();
            }
            let path = dir.path().join(files::late_name(0));
            let mut bytes = fs::read(&path).unwrap();
            assert_eq!(bytes.len(), 3 * one);
            spoil(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            let times: Vec<u32> =
                seen(&Late::open(dir.path()).unwrap()).into_iter().map(|(time, _)| time).collect();
            assert_eq!(times, left);
        }
    }
}
