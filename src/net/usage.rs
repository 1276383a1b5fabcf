//! Counters of what the agent's clients cost: kept by the web server, read by the collector of the agent's own metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Grows only, except `clients` and `response_us_max`.
#[derive(Debug, Default)]
pub struct Usage {
    /// Connections open now, streams included.
    pub clients: AtomicU64,
    pub requests: AtomicU64,
    /// Answers other than 200.
    pub failures: AtomicU64,
    /// Connections turned away because too many were open, or no thread could be had.
    pub refused: AtomicU64,
    /// Connections turned away by `allow connections from`.
    pub denied: AtomicU64,
    /// Requests nobody could understand.
    pub malformed: AtomicU64,
    /// Connections ended because no request, or no room for an answer, came in time.
    pub timed_out: AtomicU64,
    pub received_bytes: AtomicU64,
    pub sent_bytes: AtomicU64,
    /// Bodies that were compressed, before and after.
    pub plain_bytes: AtomicU64,
    pub compressed_bytes: AtomicU64,
    /// Time spent on requests, all together.
    pub response_us: AtomicU64,
    /// The longest request since the last call of [`Usage::take_longest_us`].
    response_us_max: AtomicU64,
    pub used: Used,
}

/// How often endpoints were asked, as `/api/v1/info` tells.
#[derive(Debug, Default)]
pub struct Used {
    pub prometheus: AtomicU64,
    pub shell: AtomicU64,
    pub json: AtomicU64,
    pub dashboard: AtomicU64,
}

pub fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Usage {
    pub fn request_took(&self, us: u64) {
        add(&self.requests, 1);
        add(&self.response_us, us);
        self.response_us_max.fetch_max(us, Ordering::Relaxed);
    }

    /// The longest request since the last call.
    pub fn take_longest_us(&self) -> u64 {
        self.response_us_max.swap(0, Ordering::Relaxed)
    }
}
