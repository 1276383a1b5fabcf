//! Between [`Pulls`] and the charts of a host: tells the state machine how things stand here, and gives the requests to
//! post. The same at both ends of a link.
//!
//! Used by the thread that reads the link; the status is read by others. Lock order: never while a chart is locked.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::pulls::{Finished, Next, Progress, Pulls, Span};
use super::replication::{Ask, Policy, Standing, View, holes};
use crate::base::stats::{STATS, count};
use crate::base::time::Clock;
use crate::ingest::executor::{Offer, Replayed};
use crate::metrics::{Chart, Host, Neighbour};

/// Slots looked through for holes per call: some milliseconds of reading.
const BUDGET_SLOTS: i64 = 4 * super::pulls::LOOK_SLOTS;

/// What one end of a link asks the other for.
pub struct Puller {
    /// Whom it asks.
    from: Neighbour,
    clock: Clock,
    /// Called when older samples were added to a chart.
    filled: Box<dyn Fn(&Chart) + Send + Sync>,
    pulls: Mutex<State>,
}

struct State {
    pulls: Pulls,
    /// Dimensions that are not collected any more, by chart: looked at on their own.
    archived: FxHashMap<Arc<str>, Vec<Arc<str>>>,
}

impl Puller {
    pub fn new(
        from: Neighbour,
        policy: Policy,
        clock: Clock,
        filled: impl Fn(&Chart) + Send + Sync + 'static,
    ) -> Puller {
        let state = State { pulls: Pulls::new(policy), archived: FxHashMap::default() };
        Puller { from, clock, filled: Box::new(filled), pulls: Mutex::new(state) }
    }

    /// The peer has said what it holds of this chart.
    pub fn knows(&self, chart: &str) -> bool {
        self.pulls.lock().pulls.knows(chart)
    }

    /// A chart was defined and waits: gives the request that makes it live.
    pub fn defined(&self, chart: &Chart, offer: Offer) -> Ask {
        let (standing, every) = self.standing(chart);
        let mut state = self.pulls.lock();
        let ask = state.pulls.defined(chart.id(), offer, standing, every);
        let filling = state.pulls.is_filling(chart.id());
        drop(state);
        chart.lock().filling.set(self.from, filling);
        ask
    }

    /// It was defined again while it waits.
    pub fn defined_again(&self, chart: &Chart, offer: Offer) -> Option<Ask> {
        let (standing, every) = self.standing(chart);
        let now_us = self.clock.monotonic_us();
        self.pulls.lock().pulls.defined_again(chart.id(), offer, standing, every, now_us)
    }

    /// The peer says what it holds of a chart, or of `dims` of it, which it does not collect.
    pub fn offered(&self, chart: &Chart, offer: Offer, dims: &[Arc<str>]) {
        let (standing, every) = self.standing(chart);
        let mut state = self.pulls.lock();
        if !dims.is_empty() {
            state.archived.insert(Arc::clone(chart.id()), dims.to_vec());
        }
        state.pulls.offered(chart.id(), offer, standing, every);
        let filling = state.pulls.is_filling(chart.id());
        drop(state);
        // What nobody collects is not to be archived while it is being filled.
        let mut chart = chart.lock();
        if chart.is_obsolete() || !dims.is_empty() {
            chart.filling.set(self.from, filling);
        }
    }

    /// A block came and its samples were stored: gives what to ask at once. To be called before the chart goes live with it.
    pub fn replayed(&self, chart: &Chart, block: Replayed) -> Option<Ask> {
        let (standing, _) = self.standing(chart);
        let now_us = self.clock.monotonic_us();
        STATS.streams.past_slots.fetch_add(u64::from(block.slots), Ordering::Relaxed);
        let mut state = self.pulls.lock();
        let outcome = state.pulls.answered(chart.id(), block, standing, now_us);
        let filling = block.start && state.pulls.is_filling(chart.id());
        drop(state);
        if filling {
            // What the first answer left out was not known when the chart was defined.
            let mut chart = chart.lock();
            if chart.replicating {
                chart.filling.set(self.from, true);
            }
        }
        if let Some(finished) = outcome.finished {
            self.finish(chart, finished);
        }
        outcome.ask
    }

    /// Posts the requests about the past that may be made now.
    pub fn more(&self, host: &Host, post: &mut dyn FnMut(&str, Ask)) {
        let mut budget = BUDGET_SLOTS;
        loop {
            let now_us = self.clock.monotonic_us();
            let mut state = self.pulls.lock();
            if !state.pulls.is_due(now_us) {
                return;
            }
            let State { pulls, archived } = &mut *state;
            let mut missing = |id: &str, after: i64, until: i64| -> Vec<Span> {
                let Some(chart) = host.chart(id) else { return Vec::new() };
                let view = View::of(&chart.lock());
                missing_of(view, archived.get(id), after, until)
            };
            let next = pulls.more(now_us, &mut budget, &mut missing);
            drop(state);
            match next {
                Some(Next::Ask(id, ask)) => {
                    count(&STATS.streams.past_asked);
                    post(&id, ask);
                }
                Some(Next::Finished(id, finished)) => {
                    if let Some(chart) = host.chart(&id) {
                        self.finish(&chart, finished);
                    }
                }
                None => return,
            }
        }
    }

    fn finish(&self, chart: &Chart, finished: Finished) {
        chart.end_filling(self.from, finished.brought);
        if finished.brought {
            (self.filled)(chart);
        }
    }

    /// Something could be done at once, were there time.
    pub fn is_eager(&self) -> bool {
        self.pulls.lock().pulls.is_eager()
    }

    pub fn progress(&self) -> Progress {
        self.pulls.lock().pulls.progress()
    }

    /// The same, unless somebody is at it: for who must not wait.
    pub fn progress_now(&self) -> Option<Progress> {
        self.pulls.try_lock().map(|state| state.pulls.progress())
    }

    fn standing(&self, chart: &Chart) -> (Standing, i64) {
        let state = chart.lock();
        let standing = Standing {
            local_last: state.retention().map_or(0, |(_, last)| last.0),
            has_dimensions: !state.dims.is_empty(),
            now: self.clock.now_seconds().0,
        };
        (standing, state.meta.update_every.seconds())
    }
}

/// The holes of a chart, and those of the dimensions that others do not cover.
fn missing_of(view: View, archived: Option<&Vec<Arc<str>>>, after: i64, until: i64) -> Vec<Span> {
    let Some(archived) = archived else { return holes(&view, after, until) };
    let (of_old, of_live): (Vec<_>, Vec<_>) =
        view.dims.iter().cloned().partition(|(id, _)| archived.contains(id));
    let mut spans = Vec::new();
    for dims in [of_live, of_old] {
        if !dims.is_empty() {
            spans.extend(holes(&View { dims, ..view.clone() }, after, until));
        }
    }
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
            _ => merged.push(span),
        }
    }
    merged
}
