//! Samples that come too late for their row: replicated spans, bursts after a stalled link, clocks gone back.
//!
//! They are kept in memory, by metric, and in `late.log`, from which a restart reads them again; once there are many,
//! or the oldest has waited long enough, the flush thread turns them into segments. One lock, taken per late sample;
//! samples on time never come here. Layout: `docs/formats/dbengine.md`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::files;
use crate::base::number::Sample;

const MAGIC: u32 = 0x4E44_4C31;
const BATCH_HEADER: usize = 12;
const RECORD: usize = 16;
/// Records of one batch in the log.
const BATCH_MAX: usize = 4096;
/// Samples that ask for a flush.
pub(super) const FLUSH_AT: usize = 1 << 20;
/// A burst of at least so many that is over is flushed at once, so that higher tiers have it soon.
const BURST: usize = 1000;
const BURST_OVER_US: i64 = 1_000_000;
/// Samples kept while no flush succeeds; later ones are dropped and counted.
const SAMPLES_MAX: usize = 4 << 20;

/// A metric at one interval.
pub(super) type Series = (u32, u32);
pub(super) type Samples = FxHashMap<Series, Vec<(u32, Sample)>>;

pub(super) struct Late {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    samples: Samples,
    count: usize,
    /// Handed to the flush thread, still to be seen by readers.
    flushing: std::sync::Arc<Samples>,
    /// Records not in the log yet.
    pending: Vec<u8>,
    log: Option<File>,
    dirty: bool,
    dropped: u64,
    /// Monotonic microseconds of the oldest sample, and of the newest.
    since: Option<i64>,
    newest_us: i64,
}

impl Late {
    /// Reads again what an earlier run logged and did not flush.
    pub(super) fn open(directory: &Path) -> io::Result<Late> {
        let path = directory.join(files::LATE);
        let mut state = State::default();
        for path in [old(&path), path.clone()] {
            match fs::read(&path) {
                Ok(bytes) => {
                    let good = state.read(&bytes);
                    if good < bytes.len() && !bytes[good..].iter().all(|&byte| byte == 0) {
                        log::error!(
                            "DBENGINE: '{}' is damaged after byte {good} of {}: late samples after it are lost",
                            path.display(),
                            bytes.len()
                        );
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => log::error!("DBENGINE: cannot read '{}': {error}", path.display()),
            }
        }
        // Whatever was read is flushed soon; until then it stays logged under the old name.
        if state.count > 0 {
            state.since = Some(i64::MIN / 2);
            let mut bytes = Vec::new();
            for (&(metric, every), samples) in &state.samples {
                for &(time, sample) in samples {
                    put_record(metric, every, time, sample, &mut bytes);
                }
            }
            let temporary = path.with_extension("tmp");
            let mut file = files::create(&temporary)?;
            write_batches(&mut file, &bytes)?;
            files::publish(&file, &temporary, &old(&path))?;
            let _ = fs::remove_file(&path);
        }
        Ok(Late { path, state: Mutex::new(state) })
    }

    pub(super) fn add(&self, (metric, every): Series, time: u32, sample: Sample, now_us: i64) {
        let mut state = self.state.lock();
        if state.count >= SAMPLES_MAX {
            state.dropped += 1;
            return;
        }
        put_record(metric, every, time, sample, &mut state.pending);
        state.insert((metric, every), time, sample);
        state.since.get_or_insert(now_us);
        state.newest_us = now_us;
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
        let mut state = self.state.lock();
        if state.pending.is_empty() {
            return Ok(());
        }
        if state.log.is_none() {
            let opened =
                OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            state.log = Some(opened);
        }
        let State { log, pending, .. } = &mut *state;
        if let Some(log) = log {
            write_batches(log, pending)?;
        }
        state.pending.clear();
        state.dirty = true;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        let log = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            state.log.as_ref().map(File::try_clone).transpose()?
        };
        log.map_or(Ok(()), |log| log.sync_data())
    }

    /// Samples dropped since last asked.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.state.lock().dropped)
    }

    /// Many, or a burst that is over, or waiting for `age_us`.
    pub(super) fn wants_flush(&self, now_us: i64, age_us: i64) -> bool {
        let state = self.state.lock();
        let burst_over = state.count >= BURST && now_us - state.newest_us >= BURST_OVER_US;
        let waited = |since: i64| now_us.saturating_sub(since) >= age_us;
        state.count >= FLUSH_AT || burst_over || state.since.is_some_and(waited)
    }

    /// Hands everything to the flush thread, which answers with [`Late::flushed`] or [`Late::failed`].
    pub(super) fn take(&self) -> io::Result<std::sync::Arc<Samples>> {
        self.write()?;
        let mut state = self.state.lock();
        if state.log.take().is_some() {
            // A log of an earlier failed flush may still be there: its samples are in memory and go with these.
            if old(&self.path).exists() {
                let rest = fs::read(&self.path)?;
                let mut file = OpenOptions::new().append(true).open(old(&self.path))?;
                let before = file.metadata()?.len();
                if let Err(error) = file.write_all(&rest) {
                    // Half a batch would hide what is appended after it.
                    let _ = file.set_len(before);
                    return Err(error);
                }
                fs::remove_file(&self.path)?;
            } else {
                fs::rename(&self.path, old(&self.path))?;
            }
        }
        state.flushing = std::sync::Arc::new(std::mem::take(&mut state.samples));
        state.count = 0;
        state.since = None;
        Ok(std::sync::Arc::clone(&state.flushing))
    }

    pub(super) fn flushed(&self) {
        self.state.lock().flushing = std::sync::Arc::default();
        let _ = fs::remove_file(old(&self.path));
    }

    pub(super) fn failed(&self, now_us: i64) {
        let mut state = self.state.lock();
        let back = std::mem::take(&mut state.flushing);
        let newer = std::mem::take(&mut state.samples);
        state.count = 0;
        for samples in [&*back, &newer] {
            for (&series, samples) in samples {
                for &(time, sample) in samples {
                    state.insert(series, time, sample);
                }
            }
        }
        state.since = Some(now_us);
    }
}

impl State {
    fn insert(&mut self, series: Series, time: u32, sample: Sample) {
        self.samples.entry(series).or_default().push((time, sample));
        self.count += 1;
    }

    /// Takes in a log; gives the byte up to which it was whole.
    fn read(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        while let (Some(MAGIC), Some(length), Some(crc)) = (word(at), word(at + 4), word(at + 8)) {
            let from = at + BATCH_HEADER;
            let Some(records) = bytes.get(from..from + length as usize) else { break };
            if length as usize > BATCH_MAX * RECORD || crc32fast::hash(records) != crc {
                break;
            }
            for record in records.chunks_exact(RECORD) {
                let field = |i: usize| {
                    u32::from_le_bytes([record[i], record[i + 1], record[i + 2], record[i + 3]])
                };
                if self.count < SAMPLES_MAX && field(4) > 0 {
                    self.insert((field(0), field(4)), field(8), Sample(field(12)));
                }
            }
            at = from + length as usize;
        }
        at
    }
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("old")
}

fn put_record(metric: u32, every: u32, time: u32, sample: Sample, out: &mut Vec<u8>) {
    for word in [metric, every, time, sample.0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn write_batches(file: &mut File, records: &[u8]) -> io::Result<()> {
    let mut out = Vec::with_capacity(records.len() + 64);
    for batch in records.chunks(BATCH_MAX * RECORD) {
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&u32::try_from(batch.len()).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(batch).to_le_bytes());
        out.extend_from_slice(batch);
    }
    file.write_all(&out)
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

    #[test]
    fn logged_samples_are_there_after_a_restart_until_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let sample = Sample::normal(4.0);
        {
            let late = Late::open(dir.path()).unwrap();
            late.add((1, 1), 100, sample, 0);
            late.write().unwrap();
            late.take().unwrap();
            late.add((1, 1), 101, sample, 0);
            late.write().unwrap();
            assert_eq!(seen(&late), [(100, sample), (101, sample)]);
        }
        {
            let late = Late::open(dir.path()).unwrap();
            assert_eq!(seen(&late), [(100, sample), (101, sample)]);
            assert!(late.wants_flush(0, 1_000_000));
        }
        let late = Late::open(dir.path()).unwrap();
        late.take().unwrap();
        late.flushed();
        drop(late);
        assert_eq!(seen(&Late::open(dir.path()).unwrap()), []);
    }

    #[test]
    fn a_failed_flush_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let late = Late::open(dir.path()).unwrap();
        late.add((1, 1), 100, Sample::normal(1.0), 0);
        late.take().unwrap();
        late.add((1, 1), 101, Sample::normal(2.0), 0);
        late.failed(0);
        assert_eq!(seen(&late).len(), 2);
        late.take().unwrap();
        drop(late);
        assert_eq!(seen(&Late::open(dir.path()).unwrap()).len(), 2);
    }

    #[test]
    fn a_torn_end_costs_the_last_batch() {
        let dir = tempfile::tempdir().unwrap();
        {
            let late = Late::open(dir.path()).unwrap();
            late.add((1, 1), 100, Sample::normal(1.0), 0);
            late.write().unwrap();
            late.add((1, 1), 101, Sample::normal(1.0), 0);
            late.write().unwrap();
        }
        let path = dir.path().join(files::LATE);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(seen(&Late::open(dir.path()).unwrap()), [(100, Sample::normal(1.0))]);
    }
}
