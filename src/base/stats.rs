//! Counters of the agent about itself, shown as the charts `netdata.*`.
//!
//! Anybody counts, the collector of these charts reads once per interval. Counting is one relaxed addition to a cell of
//! the calling thread's own cache line, so hot paths may count.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Cells of a counter; threads are spread over them.
const CELLS: usize = 16;

#[repr(align(64))]
struct Spread(AtomicU64);

/// A number that only grows.
pub struct Counter([Spread; CELLS]);

thread_local! {
    static CELL: Cell<usize> = const { Cell::new(usize::MAX) };
}

static NEXT_CELL: AtomicUsize = AtomicUsize::new(0);

fn cell() -> usize {
    CELL.with(|cell| {
        if cell.get() == usize::MAX {
            cell.set(NEXT_CELL.fetch_add(1, Ordering::Relaxed) % CELLS);
        }
        cell.get()
    })
}

impl Counter {
    pub const fn new() -> Counter {
        Counter([const { Spread(AtomicU64::new(0)) }; CELLS])
    }

    #[inline]
    pub fn add(&self, amount: u64) {
        self.0[cell()].0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum; wraps like the cells.
    pub fn get(&self) -> u64 {
        self.0.iter().fold(0, |sum, cell| sum.wrapping_add(cell.0.load(Ordering::Relaxed)))
    }
}

impl Default for Counter {
    fn default() -> Self {
        Counter::new()
    }
}

/// Who reads samples, in the order of the dimensions of `netdata.queries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryBy {
    ApiData = 0,
    ApiWeights,
    ApiBadge,
    Health,
    Ml,
    Exporters,
    Backfill,
    Replication,
}

pub const QUERY_SOURCES: usize = 8;

/// What the agent counts about its samples; what its clients cost is counted by the web server.
pub struct Stats {
    queries: [Counter; QUERY_SOURCES],
    points_read: [Counter; QUERY_SOURCES],
    /// Slots written, gaps included.
    pub points_stored: Counter,
    pub streams: StreamStats,
    pub functions: FunctionStats,
    /// Files or parts of files of the store that did not hold, since the start.
    pub store_damaged: AtomicU64,
}

pub static STATS: Stats = Stats {
    queries: [const { Counter::new() }; QUERY_SOURCES],
    points_read: [const { Counter::new() }; QUERY_SOURCES],
    points_stored: Counter::new(),
    streams: StreamStats::new(),
    functions: FunctionStats::new(),
    store_damaged: AtomicU64::new(0),
};

/// What becomes of calls to functions of plugins and children. All of it only grows.
pub struct FunctionStats {
    pub calls: AtomicU64,
    /// Not passed on: too many wait, or there is nobody to ask.
    pub refused: AtomicU64,
    pub timed_out: AtomicU64,
    pub cancelled: AtomicU64,
}

impl FunctionStats {
    const fn new() -> FunctionStats {
        FunctionStats {
            calls: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        }
    }
}

/// What happens to streams, in both directions. All but the first two only grow.
pub struct StreamStats {
    /// Children connected now.
    pub children: AtomicU64,
    /// Hosts that a parent takes now.
    pub parents: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent_bytes: AtomicU64,

    /// Children turned away: key, machine or address not allowed.
    pub forbidden: AtomicU64,
    /// Children put off by the rate limit.
    pub busy: AtomicU64,
    /// Children turned away because they are connected already.
    pub duplicate: AtomicU64,
    /// Our own host, coming back to us.
    pub own: AtomicU64,
    /// Dead connections whose child came back.
    pub taken_over: AtomicU64,
    /// Connections ended by a line no child may send.
    pub violation: AtomicU64,
    /// Connections ended by bytes that do not decompress.
    pub undecodable: AtomicU64,
    /// Connections ended because the child was silent or did not read.
    pub silent: AtomicU64,
    /// Lines cut because they were too long.
    pub cut: AtomicU64,

    /// Parents that were tried.
    pub attempts: AtomicU64,
    /// Parents that could not be reached.
    pub unreachable: AtomicU64,
    /// Parents that did not take us.
    pub refused: AtomicU64,
    /// Links to parents that were lost.
    pub lost: AtomicU64,
    /// Links given up because more came than the parent took.
    pub overflow: AtomicU64,

    /// Requests for samples of the past that peers were sent, and requests of theirs that were answered.
    pub past_asked: AtomicU64,
    pub past_answered: AtomicU64,
    /// Slots of a chart that came in answers.
    pub past_slots: AtomicU64,
    /// Of these, those that could not be stored, as their chart has another interval by now.
    pub past_foreign: AtomicU64,
}

impl StreamStats {
    const fn new() -> StreamStats {
        StreamStats {
            children: AtomicU64::new(0),
            parents: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            forbidden: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            duplicate: AtomicU64::new(0),
            own: AtomicU64::new(0),
            taken_over: AtomicU64::new(0),
            violation: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            unreachable: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            overflow: AtomicU64::new(0),
            past_asked: AtomicU64::new(0),
            past_answered: AtomicU64::new(0),
            past_slots: AtomicU64::new(0),
            past_foreign: AtomicU64::new(0),
        }
    }
}

/// Counts one event; for counters that are rarely touched.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Stats {
    /// Some series were read, so many samples of them all together.
    pub fn query(&self, by: QueryBy, series: u64, points: u64) {
        self.queries[by as usize].add(series);
        self.points_read[by as usize].add(points);
    }

    pub fn queries(&self) -> [u64; QUERY_SOURCES] {
        std::array::from_fn(|by| self.queries[by].get())
    }

    pub fn points_read(&self) -> [u64; QUERY_SOURCES] {
        std::array::from_fn(|by| self.points_read[by].get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_sum_what_all_threads_counted() {
        static COUNTER: Counter = Counter::new();
        let threads: Vec<_> = (0..20)
            .map(|_| crate::base::threads::spawn("count", || COUNTER.add(3)).unwrap())
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(COUNTER.get(), 60);
    }
}
