//! Runs: consecutive slots of one series that came late, in memory.
//!
//! A run is filled by the one writer of its metric and read by whoever likes, without a lock: a slot is stored, then the
//! length that covers it. So a late sample costs its writer two stores; the lock over the list of runs (`late`) is taken
//! once a run. What is in a run never changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::base::number::Sample;

/// Slots of the first run of a series, and of the longest; each that follows on a full one is twice as long.
const SLOTS_MIN: usize = 8;
pub(super) const SLOTS_MAX: usize = 256;
/// So many missing slots are filled with empty ones rather than begin another run.
const GAP_MAX: u32 = 8;
/// What a run costs beside its slots, in slots.
const OVERHEAD: usize = 32;

pub(super) struct Run {
    /// Time of the first slot.
    first: u32,
    every: u32,
    slots: Box<[AtomicU32]>,
    /// Slots below this one are filled.
    len: AtomicU32,
    /// Slots below this one are in a log.
    logged: AtomicU32,
    /// Its writer has left it.
    ended: AtomicBool,
    /// All of it is in segments: its writer should begin another, so that it can go.
    retired: AtomicBool,
}

impl Run {
    fn new(first: u32, every: u32, slots: usize) -> Run {
        let slots = (0..slots).map(|_| AtomicU32::new(0)).collect();
        let (len, logged) = (AtomicU32::new(0), AtomicU32::new(0));
        let (ended, retired) = (AtomicBool::new(false), AtomicBool::new(false));
        Run { first, every, slots, len, logged, ended, retired }
    }

    /// Slots filled so far.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    pub(super) fn logged(&self) -> u32 {
        self.logged.load(Ordering::Acquire)
    }

    pub(super) fn set_logged(&self, until: u32) {
        self.logged.store(until, Ordering::Release);
    }

    /// Nothing will be added any more. What is true now stays true, so ask before [`Run::len`].
    pub(super) fn is_final(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.len() as usize == self.slots.len()
    }

    /// Asks the writer to leave it, which it does with its next sample.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Memory, in slots.
    pub(super) fn weight(&self) -> usize {
        self.slots.len() + OVERHEAD
    }

    /// Time of a slot; that of the one after the last too.
    pub(super) fn time(&self, slot: u32) -> u32 {
        self.first.saturating_add(slot.saturating_mul(self.every))
    }

    /// The filled slots of a range.
    pub(super) fn slots(&self, from: u32, to: u32) -> impl ExactSizeIterator<Item = Sample> {
        let filled = &self.slots[..self.len() as usize];
        let range = filled.get(from as usize..to as usize).unwrap_or_default();
        range.iter().map(|slot| Sample(slot.load(Ordering::Relaxed)))
    }

    /// How long the run should be that begins at `time`, after this one.
    fn next_slots(&self, time: u32) -> usize {
        let end = self.time(self.len());
        let follows = end..=end.saturating_add(GAP_MAX.saturating_mul(self.every));
        if self.len() as usize == self.slots.len() && follows.contains(&time) {
            (self.slots.len() * 2).min(SLOTS_MAX)
        } else {
            SLOTS_MIN
        }
    }
}

/// The writer's end of a run.
pub(super) struct Appender {
    run: Arc<Run>,
    /// Time of the next slot, and its place.
    next: u32,
    at: u32,
}

impl Appender {
    /// A run that begins with this sample, after `before`.
    pub(super) fn begin(before: Option<&Run>, every: u32, time: u32, sample: Sample) -> Appender {
        let slots = before.map_or(SLOTS_MIN, |before| before.next_slots(time));
        let run = Arc::new(Run::new(time, every, slots));
        let mut appender = Appender { run, next: time, at: 0 };
        appender.put(time, sample);
        appender
    }

    pub(super) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// False when the sample is not of this run: it has no place after the last one, or the run is full or retired.
    #[inline]
    pub(super) fn put(&mut self, time: u32, sample: Sample) -> bool {
        if time != self.next && !self.fill_to(time) {
            return false;
        }
        let Some(slot) = self.run.slots.get(self.at as usize) else { return false };
        if self.run.retired.load(Ordering::Relaxed) {
            return false;
        }
        slot.store(sample.0, Ordering::Relaxed);
        self.at += 1;
        self.next = self.next.saturating_add(self.run.every);
        self.run.len.store(self.at, Ordering::Release);
        true
    }

    /// Passes over a few missing slots; false when they are many, or there is no room behind them.
    #[cold]
    fn fill_to(&mut self, time: u32) -> bool {
        let Some(missing) = time.checked_sub(self.next).map(|gap| gap / self.run.every.max(1))
        else {
            return false;
        };
        let from = self.at as usize;
        let to = from + missing as usize;
        if missing > GAP_MAX || to >= self.run.slots.len() {
            return false;
        }
        for slot in &self.run.slots[from..to] {
            slot.store(Sample::EMPTY.0, Ordering::Relaxed);
        }
        (self.at, self.next) = (self.at + missing, time);
        true
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.run.ended.store(true, Ordering::Release);
    }
}

/// The runs that these samples, in order of arrival, make up.
pub(super) fn of_samples(every: u32, samples: &[(u32, Sample)]) -> Vec<Arc<Run>> {
    let mut runs: Vec<Arc<Run>> = Vec::new();
    let mut open: Option<Appender> = None;
    for &(time, sample) in samples {
        if !open.as_mut().is_some_and(|open| open.put(time, sample)) {
            let before = runs.last().map(Arc::as_ref);
            let begun = open.insert(Appender::begin(before, every, time, sample));
            runs.push(Arc::clone(begun.run()));
        }
    }
    runs
}

/// Filled slots of a run.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) run: Arc<Run>,
    pub(super) from: u32,
    pub(super) to: u32,
}

impl Part {
    /// First and last slot, counted as time by interval.
    pub(super) fn ordinals(&self) -> (i64, i64) {
        let every = i64::from(self.run.every.max(1));
        let first = i64::from(self.run.first) / every;
        (first + i64::from(self.from), first + i64::from(self.to) - 1)
    }
}

/// Lays parts, in their order, over `slots`, the first of which has ordinal `first`.
pub(super) fn overlay<'a>(
    parts: impl IntoIterator<Item = &'a Part>,
    first: i64,
    slots: &mut [Sample],
) {
    let last = first + slots.len() as i64 - 1;
    for part in parts {
        let (from, to) = part.ordinals();
        if from > last || to < first {
            continue;
        }
        let skipped = u32::try_from(first - from).unwrap_or(0);
        let place = usize::try_from(from - first).unwrap_or(0);
        let samples = part.run.slots(part.from + skipped, part.to);
        for (slot, sample) in slots[place..].iter_mut().zip(samples) {
            if !sample.is_empty() {
                *slot = sample;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_takes_what_follows_and_fills_small_gaps() {
        let sample = |n: u32| Sample(0x0100_0000 | n);
        let mut open = Appender::begin(None, 10, 1000, sample(0));
        assert!(open.put(1010, sample(1)));
        assert!(!open.put(1010, sample(1)), "it never changes");
        assert!(open.put(1040, sample(4)));
        assert!(!open.put(1150, sample(15)), "too far");
        let run = Arc::clone(open.run());
        assert_eq!((run.len(), run.time(run.len()), run.is_final()), (5, 1050, false));
        let held: Vec<Sample> = run.slots(1, 5).collect();
        assert_eq!(held, [sample(1), Sample::EMPTY, Sample::EMPTY, sample(4)]);
        for time in [1050, 1060, 1070] {
            assert!(open.put(time, sample(5)));
        }
        assert!(run.is_final() && !open.put(1080, sample(8)));
        let next = Appender::begin(Some(&run), 10, 1080, sample(8));
        assert_eq!(next.run().slots.len(), 2 * SLOTS_MIN);
        drop(open);
        drop(next);
    }

    proptest! {
        #[test]
        fn runs_hold_the_samples_they_are_made_of(
            times in proptest::collection::vec(0u32..400, 1..300),
            sorted: bool,
            window in (0i64..400, 1usize..100),
        ) {
            let mut times = times;
            if sorted {
                times.sort_unstable();
            }
            let samples: Vec<(u32, Sample)> =
                (1..).zip(times).map(|(n, time)| (time * 5, Sample(0x0100_0000 | n))).collect();
            let runs = of_samples(5, &samples);
            let parts: Vec<Part> =
                runs.iter().map(|run| Part { run: Arc::clone(run), from: 0, to: run.len() }).collect();
            let mut wanted = vec![Sample::EMPTY; window.1];
            for &(time, sample) in &samples {
                let index = usize::try_from(i64::from(time / 5) - window.0).ok();
                if let Some(slot) = index.and_then(|index| wanted.get_mut(index)) {
                    *slot = sample;
                }
            }
            let mut slots = vec![Sample::EMPTY; window.1];
            overlay(&parts, window.0, &mut slots);
            prop_assert_eq!(slots, wanted);
        }
    }
}
