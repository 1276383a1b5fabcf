//! Shared strings: titles, units, contexts and dimension names repeat over thousands of charts.
//!
//! One lock, taken only when charts are defined. Entries that nobody uses any more are dropped whenever the table has
//! doubled, so names that come and go do not pile up.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;

struct Table {
    known: FxHashSet<Arc<str>>,
    sweep_at: usize,
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

/// The one shared copy of `text`.
pub fn intern(text: &str) -> Arc<str> {
    let mut guard = TABLE.lock();
    let table = guard.get_or_insert_with(|| Table { known: FxHashSet::default(), sweep_at: 1024 });
    if let Some(shared) = table.known.get(text) {
        return Arc::clone(shared);
    }
    if table.known.len() >= table.sweep_at {
        table.known.retain(|shared| Arc::strong_count(shared) > 1);
        table.sweep_at = (table.known.len() * 2).max(1024);
    }
    let shared: Arc<str> = Arc::from(text);
    table.known.insert(Arc::clone(&shared));
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_copy() {
        assert!(Arc::ptr_eq(&intern("kilobits/s"), &intern("kilobits/s")));
        assert_eq!(&*intern(""), "");
    }
}
