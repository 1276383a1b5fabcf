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

use super::files;
use crate::base::number::Sample;

const MAGIC: u32 = 0x4E44_4C31;
const BATCH_HEADER: usize = 12;
const RECORD: usize = 16;
/// Records of one batch in the log.
const BATCH_MAX: usize = 4096;
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
    pending: Vec<u8>,
    /// Those of them that were handed to the flush thread: it is mostly done before they are due in a log.
    pending_flushing: Vec<u8>,
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
        put_record(metric, every, time, sample, &mut state.pending);
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

    /// Puts what came since the last time into the log, what is being flushed meanwhile into one that goes with it.
    pub(super) fn write(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        let flushing = std::mem::take(&mut self.state.lock().pending_flushing);
        if !flushing.is_empty() {
            files.close_log();
            if let Err(error) = files.append(&flushing) {
                self.state.lock().pending_flushing = flushing;
                return Err(error);
            }
            files.close_log();
        }
        let mut pending = std::mem::take(&mut self.state.lock().pending);
        if pending.is_empty() {
            return Ok(());
        }
        let written = files.append(&pending);
        let mut state = self.state.lock();
        if written.is_err() {
            // Tried again next time, in the order of arrival.
            let newer = std::mem::replace(&mut state.pending, pending);
            state.pending.extend_from_slice(&newer);
        } else if state.pending.is_empty() && pending.capacity() <= PENDING_KEPT {
            pending.clear();
            state.pending = pending;
        }
        written
    }

    /// Puts the logs on the disk. Their names are the caller's business.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut due = {
            let mut files = self.files.lock();
            let mut due = std::mem::take(&mut files.unsynced);
            if std::mem::take(&mut files.dirty)
                && let Some((log, _)) = &files.log
            {
                due.push(log.try_clone()?);
            }
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

    /// Hands everything to the flush thread, which answers with [`Late::flushed`] or [`Late::failed`]. The log is closed.
    /// What is in none yet is on its way to a segment; if that takes longer, the next [`Late::write`] logs it all the same.
    pub(super) fn take(&self) -> Arc<Samples> {
        let mut files = self.files.lock();
        files.close_log();
        let mut state = self.state.lock();
        // Nothing was left there by the flush before, be it that it succeeded or failed.
        state.pending_flushing = std::mem::take(&mut state.pending);
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
        state.pending_flushing = Vec::new();
        state.stuck = false;
        state.count = state.samples.values().map(Vec::len).sum();
    }

    /// What `is_done` does not say to be in a segment is taken back.
    pub(super) fn failed(&self, now_us: i64, is_done: &dyn Fn(Series, u32) -> bool) {
        let mut state = self.state.lock();
        let newer = std::mem::take(&mut state.pending);
        let mut pending = std::mem::take(&mut state.pending_flushing);
        pending.extend_from_slice(&newer);
        state.pending = pending;
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
    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if self.log.is_none() {
            let path = self.directory.join(files::late_name(self.number));
            self.log = Some((files::create(&path)?, 0));
        }
        let Some((log, length)) = &mut self.log else { return Ok(()) };
        let mut written = 0;
        for records in records.chunks(BATCH_MAX * RECORD) {
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
            if let Some(records) = batch_at(bytes, at) {
                for record in records.chunks_exact(RECORD) {
                    let field = |i: usize| {
                        u32::from_le_bytes([record[i], record[i + 1], record[i + 2], record[i + 3]])
                    };
                    if field(4) > 0 {
                        self.insert((field(0), field(4)), field(8), Sample(field(12)));
                    }
                }
                at += BATCH_HEADER + records.len();
                continue;
            }
            let rest = &bytes[at + 1..];
            let next = memchr::memmem::find(rest, &MAGIC.to_le_bytes());
            let skipped = next.map_or(bytes.len() - at, |next| next + 1);
            damaged += skipped;
            at += skipped;
        }
        damaged
    }
}

/// The records of the batch that begins at a byte, if there is one and it is whole.
fn batch_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let length = word(at + 4)? as usize;
    if word(at)? != MAGIC || length > BATCH_MAX * RECORD {
        return None;
    }
    let records = bytes.get(at + BATCH_HEADER..at + BATCH_HEADER + length)?;
    (crc32fast::hash(records) == word(at + 8)?).then_some(records)
}

fn put_record(metric: u32, every: u32, time: u32, sample: Sample, out: &mut Vec<u8>) {
    let mut record = [0u8; RECORD];
    for (place, word) in record.chunks_exact_mut(4).zip([metric, every, time, sample.0]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&record);
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
        // A flush that takes its time does not keep samples out of the logs.
        late.write().unwrap();
        drop(late);
        assert_eq!(seen(&Late::open(dir.path()).unwrap()).len(), 3);
    }

    #[test]
    fn what_is_flushed_before_it_is_due_in_a_log_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let late = Late::open(dir.path()).unwrap();
        late.add((1, 1), 100, Sample::normal(1.0));
        late.take();
        late.flushed();
        late.write().unwrap();
        assert_eq!(logs(dir.path()), 0);
        late.add((1, 1), 101, Sample::normal(1.0));
        late.take();
        late.add((1, 1), 102, Sample::normal(2.0));
        late.write().unwrap();
        late.flushed();
        late.drop_flushed();
        drop(late);
        assert_eq!(seen(&Late::open(dir.path()).unwrap()), [(102, Sample::normal(2.0))]);
    }

    #[test]
    fn a_torn_end_costs_the_last_batch_and_a_flipped_bit_its_own() {
        let one = BATCH_HEADER + RECORD;
        for (spoil, left) in [
            (
                (|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 3)) as fn(&mut Vec<u8>),
                [100, 101],
            ),
            (|bytes| bytes[BATCH_HEADER + RECORD + 20] ^= 4, [100, 102]),
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
