//! Requests for samples that peers made and nobody has answered yet: which comes next.
//!
//! A plain state machine behind the replication threads. Links take turns, so that one with a long backlog does not keep
//! the others waiting; within a link, requests that make a chart live come first, then the oldest. A link is answered by
//! one thread at a time, which keeps its blocks in order; one without room is left alone until it has some.

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::{FxHashMap, FxHashSet};

use super::replication::Ask;

/// Requests that may wait on one link; a peer asks once per chart.
const REQUESTS_MAX: usize = 1 << 20;
/// What they may take: ids are as long as the peer likes.
const BYTES_MAX: usize = 128 << 20;

/// What a request takes beside its id: it stands in a queue and in a set.
const REQUEST_BYTES: usize = 128;

fn cost(chart: &str) -> usize {
    REQUEST_BYTES + 2 * chart.len()
}

/// The requests of one link.
#[derive(Debug, Default)]
struct Waiting {
    starts: VecDeque<(String, Ask)>,
    rest: VecDeque<(String, Ask)>,
    /// The charts in either: of two requests for one chart the older is kept.
    charts: FxHashSet<String>,
    bytes: usize,
    busy: bool,
    full: bool,
    in_turn: bool,
}

impl Waiting {
    fn is_ready(&self) -> bool {
        !self.busy && !self.full && !self.charts.is_empty()
    }
}

#[derive(Debug)]
pub struct Queue<L> {
    links: FxHashMap<L, Waiting>,
    turn: VecDeque<L>,
}

impl<L> Default for Queue<L> {
    fn default() -> Self {
        Queue { links: FxHashMap::default(), turn: VecDeque::new() }
    }
}

impl<L: Copy + Eq + Hash> Queue<L> {
    pub fn open(&mut self, link: L) {
        self.links.insert(link, Waiting::default());
    }

    pub fn close(&mut self, link: L) {
        self.links.remove(&link);
    }

    /// A request came; true when there is something new to do.
    pub fn ask(&mut self, link: L, chart: String, ask: Ask) -> bool {
        let Some(waiting) = self.links.get_mut(&link) else { return false };
        let cost = cost(&chart);
        let is_full = waiting.charts.len() >= REQUESTS_MAX || waiting.bytes + cost > BYTES_MAX;
        if is_full || !waiting.charts.insert(chart.clone()) {
            return false;
        }
        waiting.bytes += cost;
        let queue = if ask.start { &mut waiting.starts } else { &mut waiting.rest };
        queue.push_back((chart, ask));
        self.queue(link)
    }

    /// The request to answer next. Its link is the caller's until [`Queue::done`] or [`Queue::put_back`].
    pub fn take(&mut self) -> Option<(L, String, Ask)> {
        while let Some(link) = self.turn.pop_front() {
            let Some(waiting) = self.links.get_mut(&link) else { continue };
            waiting.in_turn = false;
            if !waiting.is_ready() {
                continue;
            }
            let next = waiting.starts.pop_front().or_else(|| waiting.rest.pop_front());
            if let Some((chart, ask)) = next {
                waiting.busy = true;
                if waiting.charts.remove(&chart) {
                    waiting.bytes -= cost(&chart);
                }
                return Some((link, chart, ask));
            }
        }
        None
    }

    /// The request was answered.
    pub fn done(&mut self, link: L) {
        if let Some(waiting) = self.links.get_mut(&link) {
            waiting.busy = false;
            self.queue(link);
        }
    }

    /// There was no room for the answer: it is made when there is. `retry` when there may be again already.
    pub fn put_back(&mut self, link: L, chart: String, ask: Ask, retry: bool) {
        let Some(waiting) = self.links.get_mut(&link) else { return };
        waiting.busy = false;
        waiting.full = !retry;
        if waiting.charts.insert(chart.clone()) {
            waiting.bytes += cost(&chart);
            let queue = if ask.start { &mut waiting.starts } else { &mut waiting.rest };
            queue.push_front((chart, ask));
        }
        self.queue(link);
    }

    /// The link has room again; true when that is news.
    pub fn has_room(&mut self, link: L) -> bool {
        let Some(waiting) = self.links.get_mut(&link) else { return false };
        std::mem::replace(&mut waiting.full, false) && self.queue(link)
    }

    /// Requests that wait on a link.
    pub fn waiting(&self, link: L) -> usize {
        self.links.get(&link).map_or(0, |waiting| waiting.charts.len())
    }

    fn queue(&mut self, link: L) -> bool {
        let Some(waiting) = self.links.get_mut(&link) else { return false };
        let ready = waiting.is_ready() && !std::mem::replace(&mut waiting.in_turn, true);
        if ready {
            self.turn.push_back(link);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(after: i64) -> Ask {
        Ask { start: false, after, before: after + 10 }
    }

    fn taken(queue: &mut Queue<u32>) -> (u32, String) {
        let (link, chart, _) = queue.take().unwrap();
        queue.done(link);
        (link, chart)
    }

    #[test]
    fn links_take_turns_and_starts_come_first() {
        let mut queue = Queue::default();
        for link in [1, 2] {
            queue.open(link);
        }
        for n in 0..3 {
            queue.ask(1, format!("a{n}"), past(n));
        }
        queue.ask(2, "b".to_owned(), past(0));
        queue.ask(1, "live".to_owned(), Ask::LIVE);
        let order: Vec<_> = (0..5).map(|_| taken(&mut queue)).collect();
        let order: Vec<_> = order.iter().map(|(link, chart)| (*link, chart.as_str())).collect();
        assert_eq!(order, [(1, "live"), (2, "b"), (1, "a0"), (1, "a1"), (1, "a2")]);
        assert!(queue.take().is_none());
    }

    #[test]
    fn a_link_is_answered_by_one_at_a_time_and_waits_for_room() {
        let mut queue = Queue::default();
        queue.open(1);
        queue.ask(1, "a".to_owned(), past(0));
        queue.ask(1, "b".to_owned(), past(0));
        assert!(!queue.ask(1, "b".to_owned(), past(5)), "the older one is kept");
        let (link, chart, ask) = queue.take().unwrap();
        assert!(queue.take().is_none(), "somebody else has the link");
        queue.put_back(link, chart, ask, false);
        assert!(queue.take().is_none(), "there is no room");
        assert!(queue.has_room(1) && !queue.has_room(1));
        assert_eq!(taken(&mut queue), (1, "a".to_owned()));
        queue.close(1);
        assert!(queue.take().is_none());
    }
    #[test]
    fn requests_are_bounded_by_what_they_take() {
        let mut queue = Queue::default();
        queue.open(1);
        let long = |n: i64| format!("{n}-{}", "x".repeat(BYTES_MAX / 20));
        let taken_in = (0..20).filter(|n| queue.ask(1, long(*n), Ask::LIVE)).count();
        assert_eq!(taken_in, 1, "only the first one is news");
        assert_eq!(queue.waiting(1), 9);
        // Whatever is answered makes room.
        for _ in 0..9 {
            taken(&mut queue);
        }
        assert_eq!((queue.waiting(1), queue.links[&1].bytes), (0, 0));
        assert!(queue.ask(1, long(30), Ask::LIVE));
    }
}
