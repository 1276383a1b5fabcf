//! At what pace children are let in: only so many define their charts at a time, whoever comes with them waits for a turn.
//!
//! After a restart of a parent all of its children are there within a second, each with thousands of definitions. Those who
//! have sent theirs go on with a fair share of the processors, however many wait. A turn ends when its child falls silent,
//! which is when it has said all it had to say, or after [`TURN_MAX`]. Waiting is done on the child's own thread. Lock:
//! `turns`, for a count.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Turns for each processor.
const PER_PROCESSOR: usize = 4;
/// A child that has a turn has so long to say its first word …
pub const FIRST_WORD: Duration = Duration::from_millis(100);
/// … and is through when it says nothing for so long, …
pub const QUIET: Duration = Duration::from_millis(20);
/// … or at last after this.
pub const TURN_MAX: Duration = Duration::from_secs(2);
/// A child waits so long, which is less than its own patience; then it is told that we are busy.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often whoever waits looks whether its child still does.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The turns there are.
pub struct Pace {
    turns: Mutex<usize>,
    freed: Condvar,
}

/// A turn, given back on drop.
pub struct Turn(Arc<Pace>);

impl Pace {
    pub fn new() -> Arc<Pace> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Pace::with(PER_PROCESSOR * processors)
    }

    fn with(turns: usize) -> Arc<Pace> {
        Arc::new(Pace { turns: Mutex::new(turns), freed: Condvar::new() })
    }

    /// A turn, if one is free or becomes so within the time.
    pub fn turn(self: &Arc<Self>, within: Duration) -> Option<Turn> {
        let mut turns = self.turns.lock();
        if *turns == 0 {
            self.freed.wait_for(&mut turns, within);
        }
        *turns = turns.checked_sub(1)?;
        Some(Turn(Arc::clone(self)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.turns.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_is_given_back_is_the_next_one_s() {
        let pace = Pace::with(2);
        let first = pace.turn(Duration::ZERO).unwrap();
        let _second = pace.turn(Duration::ZERO).unwrap();
        assert!(pace.turn(Duration::ZERO).is_none());
        drop(first);
        assert!(pace.turn(Duration::ZERO).is_some());
        assert!(pace.turn(Duration::ZERO).is_some(), "it was dropped again at once");
    }
}
