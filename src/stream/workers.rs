//! Threads `REPLICATION[n]`: answer what peers ask for, from one lock-protected queue.
//!
//! Which request comes next is decided by [`Queue`]; the answers are made by each link's [`Outlet`]. A link without room
//! in its outbox is left alone until its own thread says that there is some, so memory is bounded by the outboxes,
//! whatever waits. The threads are started with the first link.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;

use super::answers::{Queue, Work};
use super::replication::Ask;
use super::verify::Question;
use crate::base::log::Errno;
use crate::base::stats::{STATS, count};
use crate::base::threads::{self, StopToken};

/// Where the answers of one link go.
pub trait Outlet: Send + Sync {
    /// Answers one request; false when there is no room for that now. Without a chart it is our own: to offer what does
    /// not flow.
    fn answer(&self, chart: &str, ask: Ask) -> bool;

    /// Answers what a span comes to; that takes hardly any room.
    fn digest(&self, question: &Question);

    /// There may be room for an answer.
    fn has_room(&self) -> bool;
}

/// Threads at most, whatever configuration says.
pub const THREADS_MAX: usize = 64;

pub type LinkId = u64;

/// A link's place among those that may be asked, given up on drop.
pub struct Asked {
    workers: Arc<Workers>,
    link: LinkId,
}

impl Asked {
    pub fn new(workers: &Arc<Workers>, outlet: Arc<dyn Outlet>) -> Asked {
        Asked { workers: Arc::clone(workers), link: workers.open(outlet) }
    }

    /// The peer asks.
    pub fn ask(&self, chart: String, ask: Ask) {
        self.workers.ask(self.link, chart, ask);
    }

    /// The peer asks what a span comes to.
    pub fn question(&self, question: Question) {
        self.workers.question(self.link, question);
    }

    /// Offers what does not flow, in the background.
    pub fn offer(&self) {
        self.workers.ask(self.link, String::new(), Ask::LIVE);
    }

    /// The outbox was emptied.
    pub fn has_room(&self) {
        self.workers.has_room(self.link);
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.workers.waiting(self.link)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.workers.close(self.link);
    }
}

#[derive(Default)]
struct Shared {
    queue: Queue<LinkId>,
    outlets: FxHashMap<LinkId, Arc<dyn Outlet>>,
    started: bool,
    over: bool,
}

/// The queue and its threads.
pub struct Workers {
    count: usize,
    stop: StopToken,
    shared: Mutex<Shared>,
    work: Condvar,
    next: AtomicU64,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Workers {
    pub fn new(count: usize, stop: StopToken) -> Arc<Workers> {
        let workers = Arc::new(Workers {
            count: count.clamp(1, THREADS_MAX),
            stop: stop.clone(),
            shared: Mutex::default(),
            work: Condvar::new(),
            next: AtomicU64::new(1),
            threads: Mutex::default(),
        });
        let weak = Arc::downgrade(&workers);
        stop.on_stop(move || {
            if let Some(workers) = weak.upgrade() {
                workers.shared.lock().over = true;
                workers.work.notify_all();
            }
        });
        workers
    }

    /// A link that may be asked from now on.
    pub fn open(self: &Arc<Self>, outlet: Arc<dyn Outlet>) -> LinkId {
        let link = self.next.fetch_add(1, Ordering::Relaxed);
        let mut shared = self.shared.lock();
        shared.queue.open(link);
        shared.outlets.insert(link, outlet);
        let start = !std::mem::replace(&mut shared.started, true) && !self.stop.is_stopped();
        drop(shared);
        if start {
            for number in 0..self.count {
                let workers = Arc::clone(self);
                match threads::spawn(format!("REPLICATION[{number}]"), move || workers.run()) {
                    Ok(thread) => self.threads.lock().push(thread),
                    Err(error) => {
                        log::error!("REPLICATION: cannot start a thread{}", Errno(&error));
                    }
                }
            }
        }
        link
    }

    pub fn close(&self, link: LinkId) {
        let mut shared = self.shared.lock();
        shared.queue.close(link);
        let outlet = shared.outlets.remove(&link);
        drop(shared);
        drop(outlet);
    }

    /// A peer asks.
    pub fn ask(&self, link: LinkId, chart: String, ask: Ask) {
        if self.shared.lock().queue.ask(link, chart, ask) {
            self.work.notify_one();
        }
    }

    fn question(&self, link: LinkId, question: Question) {
        if self.shared.lock().queue.question(link, question) {
            self.work.notify_one();
        }
    }

    /// The outbox of a link was emptied.
    pub fn has_room(&self, link: LinkId) {
        if self.shared.lock().queue.has_room(link) {
            self.work.notify_one();
        }
    }

    /// Requests of a link that wait.
    pub fn waiting(&self, link: LinkId) -> usize {
        self.shared.lock().queue.waiting(link)
    }

    /// Waits for the threads, at most so long; false when some have not ended. To be called after the stop.
    pub fn join(&self, patience: Duration) -> bool {
        let threads = std::mem::take(&mut *self.threads.lock());
        let mut left = patience;
        for thread in &threads {
            while !thread.is_finished() && !left.is_zero() {
                let step = super::JOIN_STEP.min(left);
                std::thread::park_timeout(step);
                left -= step;
            }
        }
        threads.iter().all(std::thread::JoinHandle::is_finished)
    }

    fn run(&self) {
        let mut shared = self.shared.lock();
        while !shared.over {
            let Some((link, work)) = shared.queue.take() else {
                self.work.wait(&mut shared);
                continue;
            };
            let outlet = shared.outlets.get(&link).cloned();
            drop(shared);
            let (chart, ask) = match work {
                Work::Samples(chart, ask) => (chart, ask),
                Work::Digest(question) => {
                    if let Some(outlet) = outlet {
                        outlet.digest(&question);
                    }
                    shared = self.shared.lock();
                    shared.queue.done(link);
                    continue;
                }
            };
            let answered = outlet.as_ref().is_none_or(|outlet| outlet.answer(&chart, ask));
            shared = self.shared.lock();
            if answered {
                count(&STATS.streams.past_answered);
                shared.queue.done(link);
            } else {
                shared.queue.put_back(link, chart, ask, false);
                drop(shared);
                // It may have been emptied while nobody knew that we wait for that.
                let room = outlet.as_ref().is_some_and(|outlet| outlet.has_room());
                shared = self.shared.lock();
                if room {
                    shared.queue.has_room(link);
                }
            }
        }
    }
}
