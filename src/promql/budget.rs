//! What all queries together may hold.
//!
//! Any thread; one number that is changed at once, no lock.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Values; who would need more is told to come again.
#[derive(Debug)]
pub struct Budget {
    taken: AtomicUsize,
    most: usize,
}

/// That of this process: 400 MB.
pub static BUDGET: Budget = Budget::new(25_000_000);

impl Budget {
    pub const fn new(most: usize) -> Budget {
        Budget { taken: AtomicUsize::new(0), most }
    }

    /// False where there is no room just now.
    pub(super) fn take(&self, values: usize) -> bool {
        let added = |taken: usize| taken.checked_add(values).filter(|all| *all <= self.most);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, added).is_ok()
    }

    pub(super) fn give_back(&self, values: usize) {
        self.taken.fetch_sub(values, Ordering::AcqRel);
    }
}
