//! Samples that come too late for their row: replicated spans, bursts after a stalled link, clocks gone back.
//!
//! They are kept in memory as runs ([`runs`](super::runs)) and in logs (`late-NUMBER.log`), from which a restart reads
//! them again; once there are many, or the oldest has waited long enough, the flush thread turns them into segments. Each
//! flush closes the log it takes over, and the logs whose samples are in segments are removed: no log is ever copied or
//! written in place, so there is nothing a crash could leave half done but the last batch.
//!
//! A sample is added without a lock. Two locks: one over the list of runs, taken when one begins and by readers, never
//! held during a disk write (samples on time never come here), and one over the files, taken by the service threads alone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

use super::files;
use super::late_log::{self, Batches, Place};
use super::runs::{self, Appender, Part, Run};
use crate::base::number::Sample;
use crate::base::stats::{STATS, count};

/// Slots of memory that ask for a flush: the longer the pages it makes, the less there is to merge. Fewer where the tier may
/// hold little, as its limit counts what is flushed.
const FLUSH_AT: usize = 4 << 20;
const FLUSH_AT_LEAST: usize = 1 << 20;
const FLUSH_SHARE: u64 = 64;
/// A burst of at least so many that is over is flushed at once, so that higher tiers have it soon.
const BURST: u64 = 1000;
const BURST_OVER_US: i64 = 1_000_000;
/// Slots of memory kept; a flood that outruns the flush thread waits for it so long, once. While no flush succeeds, later
/// samples are dropped and counted.
const SLOTS_MAX: usize = 12 << 20;
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Memory for batches that stays between two writes.
const BATCHES_KEPT: usize = 1 << 20;

/// A metric at one interval.
pub(super) type Series = (u32, u32);

pub(super) struct Late {
    flush_at: usize,
    files: Mutex<Files>,
    state: Mutex<State>,
    /// Told when the runs held become fewer.
    room: Condvar,
}

#[derive(Default)]
struct State {
    /// The runs of each series in order of arrival; never an empty list.
    series: FxHashMap<Series, Vec<Held>>,
    /// Memory of these runs, in slots, but for those that are in segments as a whole.
    weight: usize,
    /// Runs that the log does not know of yet.
    begun: Vec<(Series, Arc<Run>)>,
    dropped: u64,
    /// Waiting was in vain, or the last flush failed.
    stuck: bool,
    /// Something was added in this run of the agent.
    has_grown: bool,
    /// Slots flushed so far; and all that were there, flushed ones included, when somebody last looked.
    flushed: u64,
    seen: u64,
    /// Monotonic microseconds: when the oldest sample was first seen, and the newest.
    since: Option<i64>,
    newest_us: i64,
}

struct Held {
    run: Arc<Run>,
    /// Slots below this one are in segments, those below `taken` on their way.
    from: u32,
    taken: u32,
    /// It counts in [`State::weight`].
    counts: bool,
}

struct Files {
    directory: PathBuf,
    /// The log being written and how long it is; made with the first batch.
    log: Option<(File, u64)>,
    /// Number of that log, or of the next.
    number: u64,
    /// Runs that are not in the logs as a whole, or may become longer.
    open: Vec<(Series, Arc<Run>)>,
    batches: Batches,
    /// Something was written since the last sync.
    dirty: bool,
    /// Closed before they were synced.
    unsynced: Vec<File>,
    /// Closed logs, and whether all of their samples are in segments.
    closed: Vec<(PathBuf, bool)>,
}

/// What a flush takes: of each series the slots in order of arrival.
#[derive(Default)]
pub(super) struct Taken(Vec<(Series, Vec<Part>)>);

impl Taken {
    pub(super) fn series(&self) -> &[(Series, Vec<Part>)] {
        &self.0
    }

    pub(super) fn of(&self, series: Series) -> &[Part] {
        let found = self.0.binary_search_by_key(&series, |(series, _)| *series);
        found.ok().map_or(&[], |at| &self.0[at].1)
    }
}

impl Late {
    /// Reads again what an earlier run logged and did not flush. The samples' tier may hold `bytes_max` (0 = no limit).
    pub(super) fn open(directory: &Path, bytes_max: u64) -> io::Result<Late> {
        let mut logs = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(number) = name.and_then(files::late_number) {
                logs.push((number, path));
            }
        }
        logs.sort_unstable();
        let mut samples: FxHashMap<Series, Vec<(u32, Sample)>> = FxHashMap::default();
        for (_, path) in &logs {
            match fs::read(path) {
                Ok(bytes) => {
                    let damaged = late_log::read(&bytes, &mut |place, sample| {
                        let series = samples.entry((place.metric, place.every)).or_default();
                        series.push((place.time, sample));
                    });
                    if damaged > 0 {
                        count(&STATS.store_damaged);
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
        let mut state = State::default();
        if !samples.is_empty() {
            // Flushed at the first opportunity.
            state.since = Some(i64::MIN / 2);
        }
        for (series, samples) in samples {
            for run in runs::of_samples(series.1, &samples) {
                run.set_logged(run.len());
                state.hold(series, run);
            }
        }
        let files = Files {
            directory: directory.to_owned(),
            log: None,
            open: Vec::new(),
            batches: Batches::default(),
            number: logs.last().map_or(0, |(number, _)| number + 1),
            dirty: false,
            // Whoever wrote them may have been killed before they were.
            unsynced: logs.iter().filter_map(|(_, path)| File::open(path).ok()).collect(),
            closed: logs.into_iter().map(|(_, path)| (path, false)).collect(),
        };
        let share = usize::try_from(bytes_max / FLUSH_SHARE).unwrap_or(FLUSH_AT);
        let flush_at = if bytes_max > 0 { share.clamp(FLUSH_AT_LEAST, FLUSH_AT) } else { FLUSH_AT };
        let (files, state) = (Mutex::new(files), Mutex::new(state));
        Ok(Late { flush_at, files, state, room: Condvar::new() })
    }

    /// The highest metric number among the samples held.
    pub(super) fn highest_metric(&self) -> u32 {
        self.state.lock().series.keys().map(|&(metric, _)| metric).max().unwrap_or(0)
    }

    /// Begins a run with a sample, for the writer to go on with; `None` when there is no room for it.
    pub(super) fn begin(&self, series: Series, time: u32, sample: Sample) -> Option<Appender> {
        let mut state = self.state.lock();
        if state.weight >= SLOTS_MAX {
            if !state.stuck {
                let full = |state: &mut State| state.weight >= SLOTS_MAX && !state.stuck;
                self.room.wait_while_for(&mut state, full, WAIT_MAX);
            }
            if state.weight >= SLOTS_MAX {
                state.stuck = true;
                state.dropped += 1;
                return None;
            }
        }
        let before = state.series.get(&series).and_then(|held| held.last());
        let before = before.map(|held| Arc::clone(&held.run));
        let appender = Appender::begin(before.as_deref(), series.1, time, sample);
        let run = Arc::clone(appender.run());
        state.begun.push((series, Arc::clone(&run)));
        state.hold(series, run);
        state.has_grown = true;
        Some(appender)
    }

    /// Calls `visit` for the late samples of a series with `after < time <= until`, in order of arrival.
    pub(super) fn read(
        &self,
        series: Series,
        (after, until): (i64, i64),
        visit: &mut dyn FnMut(u32, Sample),
    ) {
        let state = self.state.lock();
        for Held { run, from, .. } in state.series.get(&series).into_iter().flatten() {
            let len = run.len();
            if i64::from(run.time(*from)) > until || i64::from(run.time(len)) <= after {
                continue;
            }
            for (sample, slot) in run.slots(*from, len).zip(*from..) {
                let time = run.time(slot);
                if !sample.is_empty() && i64::from(time) > after && i64::from(time) <= until {
                    visit(time, sample);
                }
            }
        }
    }

    /// First and last time of each run of a series.
    pub(super) fn spans(&self, series: Series, visit: &mut dyn FnMut(i64, i64)) {
        let state = self.state.lock();
        for Held { run, from, .. } in state.series.get(&series).into_iter().flatten() {
            let len = run.len();
            if len > *from {
                visit(i64::from(run.time(*from)), i64::from(run.time(len - 1)));
            }
        }
    }

    /// Puts what came since the last time into the log.
    pub(super) fn write(&self) -> io::Result<()> {
        self.files.lock().append(&self.state)
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
        self.state.lock().weight >= self.flush_at
    }

    /// Samples were added in this run.
    pub(super) fn has_grown(&self) -> bool {
        self.state.lock().has_grown
    }

    /// Many, or a burst that is over, or waiting for `age_us`.
    pub(super) fn wants_flush(&self, now_us: i64, age_us: i64) -> bool {
        let mut state = self.state.lock();
        let waiting = state.sweep();
        if waiting == 0 {
            return false;
        }
        if state.seen != state.flushed + waiting {
            (state.seen, state.newest_us) = (state.flushed + waiting, now_us);
            state.since.get_or_insert(now_us);
        }
        let burst_over = waiting >= BURST && now_us - state.newest_us >= BURST_OVER_US;
        let waited = |since: i64| now_us.saturating_sub(since) >= age_us;
        state.weight >= self.flush_at || burst_over || state.since.is_some_and(waited)
    }

    /// Hands everything to the flush thread, which answers with [`Late::flushed`] or [`Late::failed`]. The log is closed;
    /// one that takes no writes is no obstacle, since what is taken is on its way to a segment.
    pub(super) fn take(&self) -> Taken {
        let mut files = self.files.lock();
        // Logged even so: it is in the log until the tiers above are up to it.
        let is_logged = files.append(&self.state).is_ok();
        files.close_log();
        let mut state = self.state.lock();
        let mut taken = Vec::with_capacity(state.series.len());
        for (&series, held) in &mut state.series {
            let part = |held: &mut Held| {
                held.taken = if is_logged { held.run.logged() } else { held.run.len() };
                (held.taken > held.from).then(|| Part {
                    run: Arc::clone(&held.run),
                    from: held.from,
                    to: held.taken,
                })
            };
            let parts: Vec<Part> = held.iter_mut().filter_map(part).collect();
            if !parts.is_empty() {
                taken.push((series, parts));
            }
        }
        state.since = None;
        drop((state, files));
        taken.sort_unstable_by_key(|(series, _)| *series);
        Taken(taken)
    }

    /// All that was taken is in segments.
    pub(super) fn flushed(&self) {
        let mut files = self.files.lock();
        for (_, flushed) in &mut files.closed {
            *flushed = true;
        }
        let mut state = self.state.lock();
        state.stuck = false;
        state.let_go(|_, held| {
            held.from = held.taken;
            // A log that took no writes need not take these any more.
            held.run.set_logged(held.run.logged().max(held.from));
        });
        files.open.retain(|(_, run)| !(run.is_final() && run.logged() == run.len()));
        self.room.notify_all();
    }

    /// What was taken stays; of each run the beginning for which `is_done` is true is in a segment.
    pub(super) fn failed(&self, now_us: i64, is_done: &dyn Fn(Series, u32) -> bool) {
        let mut state = self.state.lock();
        state.let_go(|series, held| {
            while held.from < held.taken && is_done(series, held.run.time(held.from)) {
                held.from += 1;
            }
            held.taken = held.from;
        });
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
    /// Writes what runs have become longer by; all of it, or it stays due.
    fn append(&mut self, state: &Mutex<State>) -> io::Result<()> {
        self.open.append(&mut state.lock().begun);
        let mut planned = Vec::with_capacity(self.open.len());
        self.batches.clear();
        let mut is_due = false;
        for (series, run) in &self.open {
            let is_final = run.is_final();
            let (from, len) = (run.logged(), run.len());
            planned.push((len, is_final));
            if len > from {
                is_due = true;
                let place = Place { metric: series.0, every: series.1, time: run.time(from) };
                self.batches.put(place, run.slots(from, len));
            }
        }
        if is_due {
            let written = self.write_batches();
            self.batches.shrink_to(BATCHES_KEPT);
            written?;
            self.dirty = true;
        }
        let mut planned = planned.into_iter();
        self.open.retain(|(_, run)| {
            let (len, is_final) = planned.next().unwrap_or((0, false));
            run.set_logged(len);
            !is_final
        });
        Ok(())
    }

    fn write_batches(&mut self) -> io::Result<()> {
        if self.log.is_none() {
            let path = self.directory.join(files::late_name(self.number));
            self.log = Some((files::create(&path)?, 0));
        }
        let Some((log, length)) = &mut self.log else { return Ok(()) };
        let bytes = self.batches.finish();
        if let Err(error) = log.write_all(bytes) {
            // Half a batch costs nothing where it stays (reading goes on after it), but what is written again is there.
            let _ = log.set_len(*length);
            *length = io::Seek::seek(log, io::SeekFrom::End(0)).unwrap_or(*length);
            return Err(error);
        }
        *length += bytes.len() as u64;
        Ok(())
    }

    /// One that took nothing goes on: a full disk would leave a file for each attempt.
    fn close_log(&mut self) {
        if let Some((log, _)) = self.log.take_if(|(_, length)| *length > 0) {
            self.closed.push((self.directory.join(files::late_name(self.number)), false));
            self.number += 1;
            if std::mem::take(&mut self.dirty) {
                self.unsynced.push(log);
            }
        }
    }
}

impl State {
    fn hold(&mut self, series: Series, run: Arc<Run>) {
        self.weight += run.weight();
        self.series.entry(series).or_default().push(Held { run, from: 0, taken: 0, counts: true });
    }

    /// Drops the runs that are over and in segments; gives the slots that are in no segment.
    fn sweep(&mut self) -> u64 {
        let (mut waiting, mut freed) = (0, 0);
        self.series.retain(|_, held| {
            held.retain(|held| {
                let is_final = held.run.is_final();
                let left = held.run.len().saturating_sub(held.from);
                let stays = left > 0 || !is_final;
                waiting += u64::from(left);
                freed += if held.counts && !stays { held.run.weight() } else { 0 };
                stays
            });
            !held.is_empty()
        });
        self.weight -= freed;
        waiting
    }

    /// Has `change` say what is flushed. Runs of which that is all are dropped, or left by their writers soon.
    fn let_go(&mut self, mut change: impl FnMut(Series, &mut Held)) {
        let (mut freed, mut flushed) = (0, 0);
        for (&series, held) in &mut self.series {
            for held in held {
                let from = held.from;
                change(series, held);
                flushed += u64::from(held.from - from);
                if held.counts && held.from > 0 && held.from == held.run.len() {
                    held.run.retire();
                    held.counts = false;
                    freed += held.run.weight();
                }
            }
        }
        self.weight -= freed;
        self.flushed += flushed;
        self.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(late: &Late, time: u32, sample: Sample) {
        late.begin((1, 1), time, sample).unwrap();
    }

    fn seen(late: &Late) -> Vec<(u32, Sample)> {
        let mut seen = Vec::new();
        late.read((1, 1), (0, i64::MAX), &mut |time, sample| seen.push((time, sample)));
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
            let late = Late::open(dir.path(), 0).unwrap();
            let mut run = late.begin((1, 1), 100, sample).unwrap();
            late.write().unwrap();
            late.take();
            assert!(run.put(101, sample));
            late.write().unwrap();
            assert_eq!(seen(&late), [(100, sample), (101, sample)]);
        }
        {
            let late = Late::open(dir.path(), 0).unwrap();
            assert_eq!(seen(&late), [(100, sample), (101, sample)]);
            assert!(late.wants_flush(0, 1_000_000));
            assert_eq!(late.highest_metric(), 1);
        }
        let late = Late::open(dir.path(), 0).unwrap();
        late.take();
        late.flushed();
        assert_eq!(logs(dir.path()), 2, "kept until the tiers above are up to date");
        late.drop_flushed();
        assert_eq!(seen(&late), []);
        drop(late);
        assert_eq!(logs(dir.path()), 0);
        assert_eq!(seen(&Late::open(dir.path(), 0).unwrap()), []);
    }

    #[test]
    fn a_run_goes_on_over_flushes() {
        let dir = tempfile::tempdir().unwrap();
        let late = Late::open(dir.path(), 0).unwrap();
        let sample = Sample::normal(4.0);
        let mut run = late.begin((1, 1), 100, sample).unwrap();
        for time in 101..104 {
            let taken = late.take();
            let [part] = taken.of((1, 1)) else { panic!("one part") };
            assert_eq!(part.ordinals(), (i64::from(time) - 1, i64::from(time) - 1));
            assert!(run.put(time, sample), "while it is being flushed");
            late.flushed();
            late.drop_flushed();
            assert_eq!(seen(&late), [(time, sample)]);
        }
        late.take();
        late.flushed();
        assert_eq!(late.state.lock().weight, 0, "what is in segments counts no more");
        assert!(!late.state.lock().series.is_empty(), "its writer still has it");
        assert!(!run.put(104, sample), "and is asked to leave it");
        drop(run);
        assert!(!late.wants_flush(i64::MAX, 0));
        assert!(late.state.lock().series.is_empty());
    }

    #[test]
    fn a_burst_is_flushed_when_it_is_over_and_a_sample_when_it_has_waited() {
        let dir = tempfile::tempdir().unwrap();
        let late = Late::open(dir.path(), 0).unwrap();
        let second = 1_000_000;
        add(&late, 100, Sample::normal(1.0));
        assert!(!late.wants_flush(0, 60 * second));
        assert!(!late.wants_flush(59 * second, 60 * second));
        assert!(late.wants_flush(60 * second, 60 * second));
        let mut run = late.begin((1, 1), 200, Sample::normal(1.0)).unwrap();
        for time in 201..1300 {
            if !run.put(time, Sample::normal(1.0)) {
                run = late.begin((1, 1), time, Sample::normal(1.0)).unwrap();
            }
        }
        assert!(!late.wants_flush(second, 60 * second), "it has only just come");
        assert!(late.wants_flush(2 * second, 60 * second));
    }

    #[test]
    fn a_failed_flush_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let late = Late::open(dir.path(), 0).unwrap();
        add(&late, 99, Sample::normal(0.0));
        add(&late, 100, Sample::normal(1.0));
        late.take();
        add(&late, 101, Sample::normal(2.0));
        late.failed(0, &|_, time| time == 99);
        late.drop_flushed();
        assert_eq!(seen(&late), [(100, Sample::normal(1.0)), (101, Sample::normal(2.0))]);
        late.take();
        drop(late);
        assert_eq!(seen(&Late::open(dir.path(), 0).unwrap()).len(), 3);
    }

    #[test]
    fn a_torn_end_costs_the_last_batch_and_a_flipped_bit_its_own() {
        // header, head, metric by a step, interval, time, count, sample
        const HEADER: usize = 12;
        const ONE: usize = HEADER + 1 + 1 + 1 + 1 + 4;
        for (spoil, left) in [
            (
                (|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 3)) as fn(&mut Vec<u8>),
                [100, 101],
            ),
            (|bytes| bytes[ONE + HEADER + 5] ^= 4, [100, 102]),
            (|bytes| bytes[..5].fill(0), [101, 102]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let late = Late::open(dir.path(), 0).unwrap();
            for time in 100..103 {
                add(&late, time, Sample::normal(1.0));
                late.write().unwrap();
            }
            let path = dir.path().join(files::late_name(0));
            let mut bytes = fs::read(&path).unwrap();
            assert_eq!(bytes.len(), 3 * ONE);
            spoil(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            let times: Vec<u32> = seen(&Late::open(dir.path(), 0).unwrap())
                .into_iter()
                .map(|(time, _)| time)
                .collect();
            assert_eq!(times, left);
        }
    }
}
