//! When batches are made and which samples are in each; pure arithmetic.
//!
//! Batches have fixed times, whether or not the agent runs or the other database answers then. The batch of time `T`
//! after one of time `P` holds, of a chart, the samples in `(edge(P), edge(T)]`; so no sample is in two batches and none is
//! left out, and a batch that is made hours late is the one that would have been made at its time.

/// The times of an instance's batches, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm {
    every: i64,
    /// Where in its period a batch is made.
    phase: i64,
}

impl Rhythm {
    /// Batches every `every` seconds, in the last collection before the period ends: at second 9, 19, … for 10 and 1.
    pub(super) fn new(every: i64, collection_every: i64) -> Rhythm {
        Rhythm { every, phase: (every - collection_every).max(0) }
    }

    pub(super) fn every(self) -> i64 {
        self.every
    }

    /// The last batch at or before `at`.
    pub(super) fn last(self, at: i64) -> i64 {
        at - (at - self.phase).rem_euclid(self.every)
    }

    /// The first batch after `at`.
    pub(super) fn next(self, at: i64) -> i64 {
        self.last(at) + self.every
    }
}

/// The newest slot of a chart that a batch of time `at` holds: old enough to be there, whatever the order of collection.
pub(super) fn edge(at: i64, chart_every: i64) -> i64 {
    let settled = at - 2 * chart_every;
    settled - settled.rem_euclid(chart_every) - chart_every
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_at_the_end_of_their_period() {
        let rhythm = Rhythm::new(10, 1);
        assert_eq!(rhythm.last(1_795_333_579), 1_795_333_579);
        assert_eq!(rhythm.last(1_795_333_588), 1_795_333_579);
        assert_eq!(rhythm.next(1_795_333_579), 1_795_333_589);
        assert_eq!(Rhythm::new(10, 5).last(1_795_333_579), 1_795_333_575);
        assert_eq!(Rhythm::new(1, 5).next(7), 8);
    }

    #[test]
    fn every_slot_is_in_exactly_one_batch() {
        for (every, chart_every) in [(10, 1), (10, 3), (7, 2), (10, 60), (1, 1)] {
            let rhythm = Rhythm::new(every, 1);
            let mut at = rhythm.last(1_000_000);
            let first = edge(at, chart_every);
            let mut slots = Vec::new();
            for _ in 0..100 {
                let next = rhythm.next(at);
                let inside = edge(at, chart_every) + 1..=edge(next, chart_every);
                slots.extend(inside.filter(|t| t % chart_every == 0));
                at = next;
            }
            let want: Vec<_> =
                (first + 1..=edge(at, chart_every)).filter(|t| t % chart_every == 0).collect();
            assert_eq!(slots, want);
        }
    }

    #[test]
    fn a_batch_ends_three_slots_before_its_time() {
        assert_eq!(edge(1_795_333_579, 1), 1_795_333_576);
        assert_eq!(edge(1_795_333_579, 10), 1_795_333_540);
    }
}
