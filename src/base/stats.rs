//! Counters of the agent about itself, shown as the charts `netdata.*`.
//!
//! Anybody counts, the collector of these charts reads once per interval. Counting is one relaxed addition to a cell of
//! the calling thread's own cache line, so hot paths may count.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

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

/// A number that rises and falls.
#[derive(Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub const fn new() -> Gauge {
        Gauge(AtomicI64::new(0))
    }

    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more until the returned guard is dropped.
    pub fn hold(&'static self) -> Held {
        self.add(1);
        Held(self)
    }
}

/// Takes one from a [`Gauge`] when dropped.
pub struct Held(&'static Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// The largest value since it was last asked for.
#[derive(Default)]
pub struct Peak(AtomicU64);

impl Peak {
    pub const fn new() -> Peak {
        Peak(AtomicU64::new(0))
    }

    pub fn see(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    pub fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
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

/// What the agent counts about itself.
pub struct Stats {
    /// Connections to the web server.
    pub web_clients: Gauge,
    pub web_requests: Counter,
    /// Bytes of requests and answers on the wire.
    pub web_received: Counter,
    pub web_sent: Counter,
    /// Microseconds from request to answer, of all requests and of the slowest.
    pub web_micros: Counter,
    pub web_micros_max: Peak,
    /// Bytes of compressed answers before and after compression.
    pub web_plain: Counter,
    pub web_compressed: Counter,
    queries: [Counter; QUERY_SOURCES],
    points_read: [Counter; QUERY_SOURCES],
    pub points_stored: Counter,
}

pub static STATS: Stats = Stats {
    web_clients: Gauge::new(),
    web_requests: Counter::new(),
    web_received: Counter::new(),
    web_sent: Counter::new(),
    web_micros: Counter::new(),
    web_micros_max: Peak::new(),
    web_plain: Counter::new(),
    web_compressed: Counter::new(),
    queries: [const { Counter::new() }; QUERY_SOURCES],
    points_read: [const { Counter::new() }; QUERY_SOURCES],
    points_stored: Counter::new(),
};

impl Stats {
    /// One request was answered.
    pub fn web_request(&self, micros: u64) {
        self.web_requests.add(1);
        self.web_micros.add(micros);
        self.web_micros_max.see(micros);
    }

    /// One series was read.
    pub fn query(&self, by: QueryBy, points: u64) {
        self.queries[by as usize].add(1);
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

    #[test]
    fn a_gauge_is_held_as_long_as_its_guard() {
        static GAUGE: Gauge = Gauge::new();
        let held = GAUGE.hold();
        assert_eq!(GAUGE.get(), 1);
        drop(held);
        assert_eq!(GAUGE.get(), 0);
    }

    #[test]
    fn a_peak_is_forgotten_once_told() {
        let peak = Peak::new();
        peak.see(5);
        peak.see(3);
        assert_eq!((peak.take(), peak.take()), (5, 0));
    }
}
